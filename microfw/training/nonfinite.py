"""Find the op at which a step became NaN or infinite, by running the step again under an observer."""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import Any

import numpy as np

from microfw.autograd.anomaly import NonFiniteDetector
from microfw.autograd.mode import MODE, mode
from microfw.errors import NonFiniteError
from microfw.training.hooks import TrainState

FIX = "parameters are as they were before this step; lower the learning rate, or scale the data"

NEW = "start again from finite parameters, with a lower learning rate or scaled data"


def check_update(state: TrainState, where: str) -> None:
    """Raise if an update made parameters infinite: for the last one of an epoch, after which no step finds it."""
    flat = getattr(state.optimizer, "flat", None)
    if flat is None or not isfinite(np.vdot(flat.values, flat.values)):  # takes less time than isfinite of each
        _check_parameters(state, where)


def _check_parameters(state: TrainState, where: str) -> None:
    detector = NonFiniteDetector()
    for name, p in state.model.named_parameters():
        if p.requires_grad and (found := detector.bad(p.data)):  # a frozen one may be a mask of infinities
            place = f"{where}, epoch {state.epoch}, step {state.step}"
            raise NonFiniteError(place, "finite parameters after the update", f"{found} of parameter {name}", NEW)


def explain(
    state: TrainState, loss_again: Callable[[], Any], error: NonFiniteError, where: str = "Trainer.fit"
) -> NonFiniteError:
    """Return an error that names epoch, step, and the op with the first output that is not finite.

    ``loss_again()`` computes the loss of the step again.
    """
    place = f"{where}, epoch {state.epoch}, step {state.step}"
    # the error of detect_anomaly has more details
    if isinstance(MODE.get().observer, NonFiniteDetector) and str(error):
        state.optimizer.zero_grad()
        return NonFiniteError(f"{place}: {error}; {FIX}")
    detector = NonFiniteDetector()
    # If a parameter was already bad, every op after it is, and its layer is not the cause.
    spoilt = next((name for name, p in state.model.named_parameters() if detector.bad(p.data)), "")
    try:
        with mode(observer=detector, timer=None), np.errstate(all="ignore"):
            state.optimizer.zero_grad()
            loss = loss_again()
            if str(error):  # the loss was finite, the gradients were not
                loss.backward()
    except Exception as again:  # the first failure is the one to name
        detector.where = detector.where or f"an op that raises {type(again).__name__}"
    state.optimizer.zero_grad()
    maker = f"first made by {detector.where}" if detector.where else "by no op alone"
    if spoilt:
        got = f"parameter {spoilt} that was not finite before the step, {maker}"
        return NonFiniteError(place, "finite parameters", got, NEW)
    if not str(error):
        return NonFiniteError(place, "a finite loss", f"{state.loss}, {maker}", FIX)
    before, _, got = str(error).partition("got ")
    # of finite gradients only the squares may not be finite: then no op made it
    expected = before.partition("expected ")[2].removesuffix(", ") or "finite gradients"
    made = f", {maker}" if expected == "finite gradients" else ""
    return NonFiniteError(place, expected, f"{got.partition(';')[0] or error}{made}", FIX)
