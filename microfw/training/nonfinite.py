"""Finds the op at which a step turned NaN or infinite, by running the step again under an observer."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.errors import NonFiniteError, message
from microfw.graph import Node
from microfw.recording import SCOPE, Observer, mode
from microfw.training.hooks import TrainState

FIX = "parameters are as they were before this step; lower the learning rate, or scale the data"


class Finder(Observer):
    """An observer that remembers the first op whose output, or derivative, is not finite."""

    collects = True

    def __init__(self) -> None:
        self.where = ""

    def forward(self, op: Any, node: Node | None, inputs: Any, params: dict[str, Any], output: Any, began: int) -> None:
        """Look at an output."""
        if not self.where and not _good(output):
            scope = SCOPE.get()
            self.where = f"{scope[0]}: {op.name}" if scope else op.name

    def backward(self, node: Node, gradient: Any, shares: list[Any] | None, began: int) -> None:
        """Look at a node's shares of the gradient."""
        if not self.where and not (_good(gradient) and all(map(_good, shares or ()))):
            self.where = f"the derivative of {node.where}"


def explain(state: TrainState, X: Any, y: Any, error: NonFiniteError) -> NonFiniteError:
    """Return the error that names epoch, step, and the op that made what is not finite."""
    place = f"Trainer.fit, epoch {state.epoch}, step {state.step}"
    spoilt = next((name for name, p in state.model.named_parameters() if not _good(p.data)), "")
    finder = Finder()
    try:
        with mode(observer=finder, watcher=None), np.errstate(all="ignore"):
            state.optimizer.zero_grad()
            loss = state.loss_function(state.model(X), y)
            if error.args:  # the loss was finite, and the optimizer refused the gradients
                loss.backward()
    except Exception as again:  # what was wrong first is what to tell
        finder.where = finder.where or f"an op that raises {type(again).__name__}"
    state.optimizer.zero_grad()
    maker = f"first made by {finder.where}" if finder.where else "by no op alone"
    if spoilt:
        got = f"parameter {spoilt} that was not finite before the step, {maker}"
        return NonFiniteError(message(place, "finite parameters", got, FIX))
    if not error.args:
        return NonFiniteError(message(place, "a finite loss", f"{state.loss}, {maker}", FIX))
    got = str(error).partition("got ")[2].partition(";")[0] or str(error)
    return NonFiniteError(message(place, "finite gradients", f"{got}, {maker}", FIX))


def _good(array: Any) -> bool:
    array = np.asarray(array)
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())
