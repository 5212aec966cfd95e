"""The training step of the Trainer and the estimators: gradients of a batch, then the update."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from microfw.autograd.mode import mode
from microfw.autograd.tensor import Tensor
from microfw.data.rows import pieces
from microfw.errors import NonFiniteError
from microfw.replay.verification import ForwardState
from microfw.training.hooks import TrainState
from microfw.training.inputs import as_data
from microfw.training.losses import check_count, denominator_of, is_sum
from microfw.training.nonfinite import explain
from microfw.training.replay_policy import ReplayPolicy
from microfw.training.state import Interrupts

Array = np.ndarray[Any, Any]


class Stepper:
    """Runs training steps. A step that fails changes nothing but gradients.

    Parameters
    ----------
    state : TrainState
        Model, loss and optimizer; its ``loss``, ``steps`` and ``skipped`` are updated.
    gradients : sequence of callable
        Called with the state between gradients and update.
    compile : bool or None
        Whether steps are replayed; see `ReplayPolicy`.
    rows : int, optional
        Rows that go through the model at once; steps with more rows accumulate gradients. All by default.
    where : str
        Name of the caller in error messages.

    Attributes
    ----------
    count : float
        Denominator of the mean loss of the last step.
    moved : bool
        Whether the last step made an update; False if its denominator was 0.
    min_rows : int
        Smallest number of rows that the model takes at once in training.
    wants_outputs : bool
        Whether steps return outputs.
    """

    def __init__(
        self,
        state: TrainState,
        gradients: Sequence[Callable[[TrainState], None]] = (),
        *,
        compile: bool | None = None,
        rows: int | None = None,
        where: str = "Trainer.fit",
    ) -> None:
        self.state, self.where, self.rows = state, where, rows
        self.model, self.loss, self.optimizer = state.model, state.loss_function, state.optimizer
        self.gradients = list(gradients)
        self.replay_policy = ReplayPolicy(self.model, self.loss, self.optimizer, compile)
        self.forward_state = ForwardState.of(self.model, self.loss)
        self.interrupts = Interrupts()
        self.denominator, self.loss_is_sum = denominator_of(self.loss), is_sum(self.loss)
        self.takes_closure = bool(getattr(self.optimizer, "takes_closure", False))
        self.takes_denominator = bool(getattr(self.optimizer, "takes_denominator", False))
        self._update_follows_backward = not (self.gradients or self.takes_closure or self.takes_denominator)
        self.count, self.moved = 0.0, False
        self.min_rows, self.wants_outputs = 1, False

    def step(self, X: Array, y: Array, weight: Array | None = None) -> Array | None:
        """Run a step, and return the model's outputs if ``wants_outputs``, else None.

        Raises
        ------
        NonFiniteError
            If the loss or a gradient is NaN or infinite.
        """
        count = self.count = self.denominator(y, weight)
        if not count > 0 and (not self.takes_denominator or count != 0):
            return self._skip(X, count)
        state, outputs = self.state, None
        before = self.forward_state.save()
        try:
            if self._update_follows_backward and weight is None and (self.rows is None or self._fits_at_once(X)):
                outputs = self.replay_policy.run(X, y, self._check_loss, self._defer_interrupts)
                self.moved = True
            if outputs is None:
                outputs = self._eager_step(X, y, weight, replay=not self._update_follows_backward)
            if self.moved:
                state.steps += 1
            else:
                state.skipped += 1
        except BaseException as error:
            self._rollback(before, error, X, y, weight)
            raise
        if not self.wants_outputs:
            return None
        return outputs.data if isinstance(outputs, Tensor) else outputs

    def _fits_at_once(self, X: Array) -> bool:
        return self.rows is None or len(X) - self.rows < self.min_rows

    def _eager_step(self, X: Array, y: Array, weight: Array | None, replay: bool) -> Any:
        """Run a step with an eager update; its gradients may be replayed if ``replay``."""
        state, optimizer = self.state, self.optimizer
        if self.takes_closure:
            closure = Closure(self, X, y, weight)
            for call in self.gradients:
                call(state)
            self._defer_interrupts()
            optimizer.step(closure)
            self.moved, (state.loss, outputs) = True, closure.first
            return outputs
        optimizer.zero_grad()
        outputs = self.accumulate(X, y, weight, replay)
        for call in self.gradients:
            call(state)
        self._defer_interrupts()
        if self.takes_denominator:
            self.moved = optimizer.step(self.count)
        else:
            optimizer.step()
            self.moved = True
        return outputs

    def accumulate(self, X: Array, y: Array, weight: Array | None, replay: bool = True) -> Any:
        """Accumulate the gradients of a step's parts, each weighted by its share of the denominator."""
        if self._fits_at_once(X):
            return self._gradients(X, y, weight, replay=replay) if self.count else self._forward(X)
        parts = list(pieces(len(y), self.rows or len(y), self.min_rows))
        weights = [None if weight is None else weight[part] for part in parts]
        counts = [self.denominator(y[part], w) for part, w in zip(parts, weights, strict=True)]
        loss, total, outputs = 0.0, sum(counts), []
        for part, w, count in zip(parts, weights, counts, strict=True):
            if not count:
                outputs.append(self._forward(X[part]))
                continue
            share = 1.0 if self.loss_is_sum else count / total
            outputs.append(self._gradients(X[part], y[part], w, share).data)
            loss += share * self.state.loss
        self.state.loss = loss
        return np.concatenate(outputs)

    def _gradients(
        self, X: Array, y: Array, weight: Array | None, share: float | None = None, replay: bool = False
    ) -> Any:
        if replay and weight is None:
            outputs = self.replay_policy.run(X, y, self._check_loss, False)
            if outputs is not None:
                return outputs
        outputs, targets = self.model(as_data(X)), as_data(y)
        loss = self.loss(outputs, targets) if weight is None else self.loss(outputs, targets, weight)
        self._check_loss(loss)
        loss.backward(None if share is None else np.full(loss.shape, share))
        return outputs

    def _forward(self, X: Array) -> Any:
        """Return outputs for rows that do not count in the loss."""
        with mode(recording=False):
            return self.model(as_data(X)).data

    def _skip(self, X: Array, count: float) -> Array | None:
        """Skip the update, since no row counts."""
        check_count(count, self.loss, self.where)
        self.moved = False
        self.state.skipped += 1
        if not self.wants_outputs:
            return None
        before = self.forward_state.save()
        try:
            parts = pieces(len(X), self.rows or len(X), self.min_rows)
            return np.concatenate([self._forward(X[part]) for part in parts])
        finally:
            self.forward_state.restore(before)

    def _check_loss(self, loss: Any) -> None:
        self.state.loss = value = loss.item()
        if not math.isfinite(value):
            raise NonFiniteError

    def _defer_interrupts(self) -> None:
        """Defer Ctrl-C until the step is complete."""
        self.interrupts.deferred = True

    def _rollback(self, before: Any, error: BaseException, X: Array, y: Array, weight: Array | None) -> None:
        """Restore what an unfinished step changed; for NaN or infinity, raise an error that names the op."""
        self.interrupts.deferred = True
        self.forward_state.restore(before)
        self.interrupts.deferred = False
        if isinstance(error, NonFiniteError):
            try:
                raise explain(self.state, X, y, weight, error, self.where) from None
            finally:
                self.forward_state.restore(before)


class Closure:
    """Computes one batch's loss and gradients, for an optimizer that takes a closure.

    Every evaluation draws the same random numbers, so the loss is a function of the parameters. Ctrl-C is handled here
    only, where the optimizer can restore the parameters from before its step.
    """

    def __init__(self, stepper: Stepper, X: Array, y: Array, weight: Array | None) -> None:
        self.stepper = stepper
        self.batch = X, y, weight
        self.before = stepper.forward_state.save()
        self.first: tuple[float, Any] = (math.nan, None)

    def __call__(self) -> float:
        """Return the loss; infinity if it is not finite, after a first evaluation that was."""
        stepper = self.stepper
        stepper.interrupts.release()
        stepper.forward_state.restore(self.before)
        stepper.optimizer.zero_grad()
        try:
            outputs = stepper.accumulate(*self.batch)
        except NonFiniteError:
            if self.first[1] is None:
                raise
            return math.inf
        finally:
            stepper.interrupts.deferred = True
        if self.first[1] is None:
            self.first = stepper.state.loss, outputs
        return stepper.state.loss
