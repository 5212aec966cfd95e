"""The training step of the Trainer and the estimators: gradients of a batch, then the update."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np

from microfw.autograd.mode import mode
from microfw.autograd.tensor import Tensor
from microfw.data.dataset import pieces
from microfw.errors import NonFiniteError
from microfw.nn.forward_state import ForwardState
from microfw.training.evaluation import Array, as_data, check_denominator, denominator_of, is_sum
from microfw.training.hooks import TrainState
from microfw.training.nonfinite import explain
from microfw.training.replay_policy import ReplayPolicy

NOTHING = contextlib.nullcontext()


class Interrupts:
    """Defers Ctrl-C while ``deferred`` is True: during an update, and while hooks are called.

    So no step, and no start or end of an epoch, is left incomplete. A second Ctrl-C is not deferred. In other threads
    than the main one there is no effect.
    """

    def __init__(self) -> None:
        self.deferred = False
        self._pending: tuple[int, Any] | None = None
        self._before: Callable[..., Any] | None = None

    def __enter__(self) -> None:
        before = signal.getsignal(signal.SIGINT)
        # Python allows handlers only in the main thread. A handler that is not callable was set by C code.
        if threading.current_thread() is threading.main_thread() and callable(before):
            self._before = before
            signal.signal(signal.SIGINT, self._handle)

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
        if kind is not None:  # the exception ends the run anyway
            self._pending = None
        self.release()

    @contextlib.contextmanager
    def around(self, manager: contextlib.AbstractContextManager[Any] = NOTHING) -> Iterator[None]:
        """Defer Ctrl-C while ``manager`` is entered and left, so that it is never left half done.

        The block calls `release` at its start, and sets ``deferred`` at its end.
        """
        self.deferred = True
        with self, manager:
            yield

    def release(self) -> None:
        """End the deferral, and handle a deferred Ctrl-C."""
        self.deferred = False
        if self._pending is not None and self._before is not None:
            pending, self._pending = self._pending, None
            self._before(*pending)

    def _handle(self, number: int, frame: Any) -> None:
        if self.deferred and self._pending is None:  # a second Ctrl-C acts at once
            self._pending = (number, frame)
        elif self._before is not None:
            self._before(number, frame)


@dataclass(eq=False, repr=False)
class Stepper:
    """Runs training steps. A step that fails changes nothing but gradients.

    Parameters
    ----------
    state : TrainState
        Model, loss and optimizer; its ``loss``, ``steps`` and ``skipped`` are updated.
    on_gradients : sequence of callable
        Called with the state between gradients and update.
    replay_policy : ReplayPolicy, optional
        Decides which steps are replayed; without one, none is.
    rows : int, optional
        Rows that go through the model at once; steps with more rows accumulate gradients. All by default.
    min_rows : int
        Smallest number of rows that the model takes at once in training.
    where : str
        Name of the caller in error messages.

    Attributes
    ----------
    last_denominator : float
        Denominator of the mean loss of the last step.
    updated : bool
        Whether the last step made an update; False if its denominator was 0.
    wants_outputs : bool
        Whether steps return outputs.
    """

    state: TrainState
    on_gradients: Sequence[Callable[[TrainState], None]] = ()
    replay_policy: ReplayPolicy | None = None
    _: KW_ONLY
    rows: int | None = None
    min_rows: int = 1
    where: str = "Trainer.fit"
    wants_outputs: bool = False
    last_denominator: float = 0.0
    updated: bool = False
    _replay_gradients: Any = None
    _replay_step: Any = None

    def __post_init__(self) -> None:
        state = self.state
        self.model, self.loss, self.optimizer = state.model, state.loss_function, state.optimizer
        self.forward_state, self.interrupts = ForwardState.of(self.model, self.loss), Interrupts()
        self.denominator = denominator_of(self.loss)
        self.takes_closure = getattr(self.optimizer, "takes_closure", False)
        self.takes_denominator = getattr(self.optimizer, "takes_denominator", False)
        # If nothing comes between gradients and update, one program replays both, else only the gradients.
        separate = self.on_gradients or self.takes_closure or self.takes_denominator
        replay = None if self.replay_policy is None else self.replay_policy.run
        self._replay_gradients, self._replay_step = (replay, None) if separate else (None, replay)

    def step(self, X: Array, y: Array, weight: Array | None = None) -> Array | None:
        """Run a step, and return the model's outputs if ``wants_outputs``, else None.

        Raises
        ------
        NonFiniteError
            If the loss or a gradient is NaN or infinite.
        """
        count = self.last_denominator = self.denominator(y, weight)
        # NaN is not above 0 either; _skip raises for it. With ranks, the others may have rows that count.
        if not count > 0 and (not self.takes_denominator or count != 0):
            return self._skip(X, count)
        before, self.updated, outputs = self.forward_state.save(), True, None
        try:
            if self._replay_step is not None and weight is None:
                outputs = self._replay_step(X, y, self._check_loss, self._defer_interrupts)
            if outputs is None:
                outputs = self._eager_step(X, y, weight)
        except BaseException as error:
            self._rollback(before, error, X, y, weight)
            raise
        if self.updated:
            self.state.steps += 1
        else:
            self.state.skipped += 1
        if not self.wants_outputs:  # outputs of an epoch take memory
            return None
        return outputs.data if isinstance(outputs, Tensor) else outputs

    def _eager_step(self, X: Array, y: Array, weight: Array | None) -> Any:
        if self.takes_closure:
            return self._minimise(X, y, weight)
        # Before the forward pass: backward adds to gradients, and an earlier step may have failed after its backward.
        self.optimizer.zero_grad()
        outputs = self.accumulate(X, y, weight)
        if self.takes_denominator and not self._average():
            return outputs
        for call in self.on_gradients:
            call(self.state)
        self._defer_interrupts()
        self.optimizer.step()
        return outputs

    def _average(self) -> bool:
        """Average the gradients of all ranks, before they are clipped; return False if no row counts on any."""
        self._defer_interrupts()  # the other ranks wait for this one
        self.updated = self.optimizer.average(self.last_denominator)
        return self.updated

    def _minimise(self, X: Array, y: Array, weight: Array | None) -> Any:
        """Run a step of an optimizer that takes a closure."""
        closure = Closure(self, X, y, weight)
        for call in self.on_gradients:
            call(self.state)
        self._defer_interrupts()
        self.optimizer.step(closure)
        self.state.loss, outputs = closure.first
        return outputs

    def accumulate(self, X: Array, y: Array, weight: Array | None) -> Any:
        """Compute the gradients of a step's rows, in parts if there are too many; return the outputs."""
        if self.rows is not None and len(X) - self.rows >= self.min_rows:
            return self._accumulate_parts(X, y, weight)
        return self._gradients(X, y, weight) if self.last_denominator else self._forward(X)

    def _accumulate_parts(self, X: Array, y: Array, weight: Array | None) -> Any:
        """Accumulate the gradients of parts, each weighted by its share of the denominator."""
        parts = list(pieces(len(y), self.rows or len(y), self.min_rows))
        weights = [None if weight is None else weight[part] for part in parts]
        counts = [self.denominator(y[part], w) for part, w in zip(parts, weights, strict=True)]
        loss, total, outputs = 0.0, sum(counts), []
        shares = [(1.0 if is_sum(self.loss) else count / total) if count else 0.0 for count in counts]
        for part, w, share in zip(parts, weights, shares, strict=True):
            if not share:  # a mean over no rows is NaN, but metrics and running statistics need the outputs
                outputs.append(self._forward(X[part]))
                continue
            outputs.append(self._gradients(X[part], y[part], w, share))
            loss += share * self.state.loss
        self.state.loss = loss
        return self._join(outputs, shares)

    def _join(self, several: list[Any], shares: list[float]) -> Any:
        """Return the outputs of several parts as one array."""
        return np.concatenate([part.data if isinstance(part, Tensor) else part for part in several])

    def _gradients(self, X: Array, y: Array, weight: Array | None, share: float | None = None) -> Any:
        if self._replay_gradients is not None and weight is None and share is None:
            outputs = self._replay_gradients(X, y, self._check_loss, False)
            if outputs is not None:
                return outputs
        outputs, targets = self.model(as_data(X)), as_data(y)
        loss = self.loss(outputs, targets) if weight is None else self.loss(outputs, targets, weight)
        # _array, not item(): an observer is not notified of this read, since no op of the step depends on it.
        self._check_loss(loss._array)
        loss.backward(None if share is None else np.full(loss.shape, share))
        return outputs

    def _recompute_loss(self, X: Array, y: Array, weight: Array | None) -> Any:
        """Return the loss of a batch that has failed."""
        outputs, targets = self.model(as_data(X)), as_data(y)
        return self.loss(outputs, targets) if weight is None else self.loss(outputs, targets, weight)

    def _forward(self, X: Array) -> Any:
        """Return outputs for rows that do not count in the loss."""
        with mode(recording=False):
            return self.model(as_data(X)).data

    def _skip(self, X: Array, count: float) -> Array | None:
        """Skip the update, since no row counts."""
        check_denominator(count, self.loss, self.where)
        self.updated = False
        self.state.skipped += 1
        if not self.wants_outputs:
            return None
        before = self.forward_state.save()
        try:
            parts = [self._forward(X[part]) for part in pieces(len(X), self.rows or len(X), self.min_rows)]
            return self._join(parts, [0.0] * len(parts))  # type: ignore[no-any-return]
        finally:
            self.forward_state.restore(before)

    def _check_loss(self, loss: Array) -> None:
        self.state.loss = value = loss.item()
        if not math.isfinite(value):  # before backward, which would write NaN into all gradients
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
                raise explain(self.state, lambda: self._recompute_loss(X, y, weight), error, self.where) from None
            finally:  # explain runs the step again
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
        # Dropout draws the same mask for each point of a line search, else the loss would not be one function.
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
