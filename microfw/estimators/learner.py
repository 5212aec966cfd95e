"""Learner: model, loss, optimizer and random state of an estimator, with its training steps."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

import numpy as np

from microfw.autograd.mode import MODE, mode, model_version
from microfw.autograd.tensor import Tensor
from microfw.data.dataset import Rows
from microfw.errors import ArgumentError
from microfw.estimators.parts import Penalized
from microfw.nn import Module
from microfw.nn.forward_state import evaluating
from microfw.serialization import attributes
from microfw.training.clipping import Clip
from microfw.training.evaluation import Array, mean_loss, predict, quiet, smallest_batch
from microfw.training.hooks import Hooks, TrainState
from microfw.training.nonfinite import check_update
from microfw.training.rates import LearningRate
from microfw.training.replay_policy import ReplayPolicy
from microfw.training.run import take_steps
from microfw.training.stepper import Stepper
from microfw.training.totals import EpochTotals

ROWS = 4096
"""Rows in a batch of evaluation; affects memory, not results."""

NOT_PICKLED = ("stepper", "_modules", "_min_rows", "_loss_content", "_version")
"""Attributes that are made again."""


class Learner:
    """Trained objects of an estimator, which pickle together.

    Parameters
    ----------
    model, loss, optimizer : object
        Parts of a training step.
    settings : dict
        Settings of the estimator, by name.
    rng : numpy.random.Generator
        Generator of the order of rows and of the noise of layers.
    where : str
        Name of the estimator, for errors.

    Attributes
    ----------
    state : TrainState
        Counts epochs and steps over all calls of `fit` and `partial_fit`.
    """

    stepper: Stepper

    def __init__(
        self, model: Module, loss: Any, optimizer: Any, settings: dict[str, Any], rng: np.random.Generator, where: str
    ) -> None:
        self.model, self.rng, self.where = model, rng, where
        self.dtype = next((p.dtype for p in model.parameters()), np.dtype(np.float64))
        self.state = TrainState(model, loss, optimizer)
        self.set(loss, optimizer, settings)

    def set(self, loss: Any, optimizer: Any, settings: dict[str, Any]) -> None:
        """Use a loss, an optimizer and settings from now on; the counts of epochs and steps continue."""
        rate, norm = settings["learning_rate"], settings["max_grad_norm"]
        if norm is not None and getattr(optimizer, "takes_closure", False):
            fix = "its line search needs the true gradients"
            raise ArgumentError(self.where, f"no max_grad_norm with {type(optimizer).__name__}", norm, fix)
        self.loss, self.optimizer = loss, optimizer
        alpha = float(settings["alpha"])
        self.objective = Penalized(loss, alpha, self.model.parameters()) if alpha else loss
        self.state.loss_function, self.state.optimizer = self.objective, optimizer
        self.hooks: list[Any] = [LearningRate(rate)] if callable(rate) else []
        self.hooks += [] if norm is None else [Clip(norm, None)]
        self.hooks += settings["hooks"]
        self.remember(settings)
        self._prepare()

    def remember(self, settings: dict[str, Any]) -> None:
        """Store settings, with which `differs` compares."""
        self.settings, self._known, self._read = settings, tuple(settings.values()), attrgetter(*settings)
        self._loss_content, self._version = content(settings["loss"]), model_version.count

    def differs(self, estimator: Any) -> bool:
        """Return True if a setting of the estimator may differ, or cannot be compared."""
        try:
            if self._read(estimator) != self._known:
                return True
        except (TypeError, ValueError):  # settings such as arrays compare entry by entry
            return True
        return self._version != model_version.count and self.loss_differs()

    def loss_differs(self) -> bool:
        """Return True if the estimator's loss object was changed in place; the learner has a copy."""
        if self._loss_content != content(self.settings["loss"]):
            return True
        self._version = model_version.count  # so that the next call need not compare again
        return False

    def _prepare(self) -> None:
        policy = ReplayPolicy(self.model, self.objective, self.optimizer, None)
        gradients = Hooks(self.hooks).methods["on_gradients"]
        self.stepper = Stepper(self.state, gradients, policy, where=self.where)
        self._modules = [module for _, module in self.model.named_modules()]
        self._min_rows = 0

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in NOT_PICKLED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({"objective": state["loss"]} | state)  # in pickles of older versions there is no objective
        self.remember(self.settings)
        self._prepare()

    @contextlib.contextmanager
    def training(self, briefly: bool = False) -> Iterator[None]:
        """Return a block for training steps: recording is on, modules are in training mode.

        Ctrl-C is held back until a step is complete, which costs as much as a small step. With ``briefly`` it is not:
        the caller must undo an interrupted step.
        """
        self._set_training()
        # Recording is on in almost every call, and mode() takes longer than this test.
        with contextlib.nullcontext() if MODE.get().recording else mode(recording=True), quiet():
            if briefly:
                yield
            else:
                with self.stepper.interrupts:
                    yield

    def _set_training(self) -> None:
        # Setting an attribute makes replayed steps check the model again, so it is only set if it differs.
        for module in self._modules:
            if not module.training:
                module.training = True

    def fit_batches(self, rows: Rows, size: int, n: int) -> None:
        """Prepare for batches of ``size`` of n rows: if the last is too small for a layer, it joins the one before."""
        if size > 1 and n % size != 1:
            self.stepper.min_rows = 1
        elif self._min_rows != 1:  # 1: computed before, one row is enough
            self._min_rows = self.stepper.min_rows = smallest_batch(self.model, rows, size, self.where)

    def epoch(self, rows: Rows, n: int, size: int, shuffle: bool, briefly: bool) -> float:
        """Train one epoch of n rows; return the mean loss of the steps, NaN if no row counted."""
        state, stepper = self.state, self.stepper
        state.epoch, state.stop = state.epoch + 1, False
        self.fit_batches(rows, size, n)
        # One batch, the usual call of partial_fit: no totals, and no order of rows is drawn.
        if n <= size and type(rows.X) is np.ndarray:
            state.step = 1
            if briefly and MODE.get().recording:  # as `training`, whose generators take 2 us
                self._set_training()
                with quiet():
                    stepper.step(rows.X, rows.y, rows.weight)
            else:
                with self.training(briefly):
                    stepper.step(rows.X, rows.y, rows.weight)
            stepper.interrupts.deferred = False
            check_update(state, self.where)
            return state.loss if stepper.last_denominator else math.nan
        totals = EpochTotals(stepper, {})
        with self.training(briefly):
            batches = rows.batches(size, self.order(rows, size, shuffle), min_rows=stepper.min_rows)
            take_steps(batches, stepper, totals)
        check_update(state, self.where)
        return totals.loss

    def order(self, rows: Rows, size: int, shuffle: bool) -> np.random.Generator | None:
        """Return the generator of the order of rows; None if the order does not matter, as within one batch."""
        return self.rng if shuffle and (len(rows) > size or not isinstance(rows.X, np.ndarray)) else None

    def measure(self, rows: Rows) -> float:
        """Return the mean loss of rows in evaluation mode."""
        made = outputs(self.model, rows.X, self.dtype)
        with evaluating(self.model):
            return float(mean_loss(self.loss, made, rows.y, rows.weight))


def content(loss: Any) -> Any:
    """Return what an in-place change of a loss object changes; None for a name or a class."""
    if not isinstance(loss, Module):
        return None
    parts = attributes.parts(loss)
    arrays = {name: part.data.tobytes() for name, part in parts.items() if isinstance(part, Tensor)}
    return attributes.marks(parts), arrays


def outputs(model: Module, X: Any, dtype: Any) -> Array:
    """Return the outputs of a model in evaluation mode, for dense or sparse rows."""
    made: Array = predict(model, X.astype(dtype, copy=False), ROWS)
    return made


def with_weight(X: Any, y: Any, weight: Any) -> tuple[Any, Any, Any]:
    """Return the rows with a weight above 0."""
    kept = None if weight is None else weight > 0
    return (X, y, weight) if kept is None or kept.all() else (X[kept], y[kept], weight[kept])
