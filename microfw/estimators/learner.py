"""The learner: model, loss, optimizer and random state of an estimator, and the step that moves them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from math import isfinite, sqrt
from typing import Any

import numpy as np

from microfw.data.rows import GATHER
from microfw.errors import NonFiniteError
from microfw.nn import Module
from microfw.recording import MODE, mode
from microfw.training.compiled import Compiled
from microfw.training.hooks import TrainState
from microfw.training.inputs import as_data, predicted
from microfw.training.nonfinite import explain
from microfw.training.state import Carried, Interrupts, evaluating, quiet

Array = np.ndarray[Any, Any]

ROWS = 4096
"""How many rows go through a model at once where nothing is trained; decides memory, not the result."""


class Rows:
    """What is trained on: features, dense or sparse, targets, and weights if there are any."""

    def __init__(self, X: Any, y: Array, weight: Array | None = None) -> None:
        self.X, self.y, self.weight = X, y, weight

    def __len__(self) -> int:
        return int(self.X.shape[0])

    def take(self, rows: Any) -> Rows:
        """Return some rows, by number or slice."""
        return Rows(self.X[rows], self.y[rows], None if self.weight is None else self.weight[rows])

    def batches(
        self, size: int, rng: np.random.Generator | None, least: int = 1
    ) -> Iterator[tuple[Array, Array, Array | None]]:
        """Yield batches of dense features, targets and weights; in a new order if there is a generator.

        What is left over at the end joins the batch before if it is less than ``least`` rows.
        """
        n, sparse, weight = len(self), not isinstance(self.X, np.ndarray), None
        if n <= size and not sparse:  # the order within a batch decides nothing
            yield self.X, self.y, self.weight
            return
        order = np.arange(n) if rng is None else rng.permutation(n)
        chunk = max(GATHER // (self.X.shape[1] * self.X.dtype.itemsize + 1) // size, 1) * size
        for chosen in pieces(n, chunk, least):
            rows = order[chosen]
            X, y = self.X[rows].toarray() if sparse else self.X.take(rows, 0), self.y.take(rows, 0)
            if self.weight is not None:
                weight = self.weight.take(rows)
            for part in pieces(len(rows), size, least):
                yield X[part], y[part], None if weight is None else weight[part]


def pieces(n: int, size: int, least: int) -> Iterator[slice]:
    """Yield slices of a size that make up n rows; a last one of less than ``least`` rows joins the one before.

    Examples
    --------
    >>> [(piece.start, piece.stop) for piece in pieces(9, 4, 2)]
    [(0, 4), (4, 9)]
    """
    start = 0
    while start < n:
        stop = n if n - start - size < least else start + size
        yield slice(start, stop)
        start = stop


class Learner:
    """What an estimator trains, and how: plain objects that pickle together.

    Parameters
    ----------
    model, loss, optimizer : object
        What a step calls.
    settings : estimator
        Its batch size, learning rate and largest gradient are used.
    rng : numpy.random.Generator
        Where the order of the rows comes from; the layers' noise comes from the same.
    """

    def __init__(self, model: Module, loss: Any, optimizer: Any, settings: Any, rng: np.random.Generator) -> None:
        self.model, self.loss, self.optimizer, self.rng = model, loss, optimizer, rng
        self.rate = settings.learning_rate if callable(settings.learning_rate) else None
        self.largest, self.where = settings.max_grad_norm, type(settings).__name__
        self.epochs = self.steps = 0
        self.dtype = next((p.dtype for p in model.parameters()), np.dtype(np.float64))
        self._prepare()

    def _prepare(self) -> None:
        self._carried = Carried(self.model, self.loss)
        self._compiled = Compiled(self.model, self.loss, self.optimizer, None)
        self._modules = [module for _, module in self.model.named_modules()]
        self._interrupts = Interrupts()
        self._briefly, self._value = False, float("nan")
        self._least = 2 if self._carried.buffers else 1  # the statistics of one row are none

    def __getstate__(self) -> dict[str, Any]:
        return {
            k: v
            for k, v in vars(self).items()
            if k not in ("_carried", "_compiled", "_modules", "_interrupts", "_least", "_briefly", "_value")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()

    @contextlib.contextmanager
    def training(self, briefly: bool = False) -> Iterator[None]:
        """Run a block in which steps can be taken, recorded and in training.

        Ctrl-C waits until a move is complete. To hold it back costs as much as a small step, so that a block of
        a few steps had better be ``briefly``: a move that is interrupted is then undone.
        """
        for module in self._modules:
            if not module.training:
                module.training = True
        self._briefly = briefly
        with contextlib.nullcontext() if MODE.get().recording else mode(recording=True), quiet():
            if briefly:
                yield
            else:
                with self._interrupts:
                    yield

    def expect(self, rows: int, steps: int) -> None:
        """Tell that so many steps with so many rows each are to come."""
        self._compiled.expect(rows, steps)

    def epoch(self, rows: Rows, size: int, shuffle: bool) -> float:
        """Train on all rows once; return the mean loss of a row as the steps found it."""
        total = count = 0.0
        self.epochs += 1
        for X, y, weight in rows.batches(size, self.rng if shuffle else None, self._least):
            share = len(X) if weight is None else float(weight.sum())
            total += self.step(X, y, weight) * share
            count += share
        return total / count

    def step(self, X: Array, y: Array, weight: Array | None = None) -> float:
        """Move the parameters once; if anything fails they are as they were before.

        Raises
        ------
        NonFiniteError
            If the loss or a gradient turns NaN or infinite.
        """
        optimizer, before, moving = self.optimizer, self._carried.save(), False
        if self.rate is not None:
            optimizer.lr = float(self.rate(self.steps))
        try:
            if getattr(optimizer, "takes_closure", False):
                value = float(optimizer.step(lambda: self._gradients(X, y, weight)))
            else:
                self._gradients(X, y, weight)
                value = self._value
                values = optimizer.flat.values.copy() if self._briefly else None
                self._interrupts.held = moving = True
                optimizer.step()
            self.steps += 1
        except BaseException as error:
            self._interrupts.held = False
            if moving and values is not None:
                optimizer.flat.values[...] = values
            self._carried.restore(before)
            if isinstance(error, NonFiniteError):
                try:
                    raise self._explained(error, X, y, weight) from None
                finally:
                    self._carried.restore(before)
            raise
        self._interrupts.release()
        return value

    def _gradients(self, X: Array, y: Array, weight: Array | None) -> Any:
        """Compute the loss and the gradients of a batch."""
        loss: Any = None
        if weight is not None or self._compiled.take(X, y, self._look, False) is None:
            self.optimizer.zero_grad()
            outputs, targets = self.model(as_data(X)), as_data(y)
            loss = self.loss(outputs, targets) if weight is None else self.loss(outputs, targets, weight)
            self._look(loss)
            loss.backward()
        if self.largest is not None:
            self._clip()
        return loss

    def _look(self, loss: Any) -> None:
        self._value = loss.item()
        if not isfinite(self._value):
            raise NonFiniteError

    def _clip(self) -> None:
        """Shorten the gradient of all parameters together to the largest norm that is allowed."""
        gradients = [p.grad for p in self.optimizer.flat.parameters if p.grad is not None]
        norm = sqrt(sum(float(np.vdot(g, g)) for g in gradients))
        if isfinite(norm) and norm > self.largest:
            for g in gradients:
                g *= self.largest / norm

    def _explained(self, error: NonFiniteError, X: Array, y: Array, weight: Array | None) -> Exception:
        weighted = self.loss if weight is None else lambda outputs, targets: self.loss(outputs, targets, weight)
        state = TrainState(self.model, weighted, self.optimizer, loss=self._value)
        state.epoch, state.step = self.epochs, self.steps + 1
        return NonFiniteError(str(explain(state, X, y, None, error)).replace("Trainer.fit", f"{self.where}.fit", 1))

    def measure(self, rows: Rows) -> float:
        """Return the mean loss of rows in evaluation."""
        made, targets = as_data(outputs(self.model, rows.X, self.dtype)), as_data(rows.y)
        with evaluating(self.model):
            loss = self.loss(made, targets) if rows.weight is None else self.loss(made, targets, rows.weight)
        return float(loss.item())


def outputs(model: Module, X: Any, dtype: Any) -> Array:
    """Return a model's outputs for rows that are dense or sparse, in evaluation."""
    parts = []
    with evaluating(model):
        for start in range(0, X.shape[0], ROWS):
            rows = X[start : start + ROWS]
            rows = rows if isinstance(rows, np.ndarray) else rows.toarray()
            parts.append(predicted(model, rows.astype(dtype, copy=False)))
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


class Stopper:
    """Decides when to stop: after so many epochs without a number that is better than the best so far.

    Parameters
    ----------
    patience : int
        How many epochs may pass.
    tol : float
        By how much a number must be better to count.
    keeps : Module or None
        Whose values to remember at the best epoch.
    """

    def __init__(self, patience: float, tol: float, keeps: Module | None = None) -> None:
        self.patience, self.tol, self.keeps = patience, tol, keeps
        self.best = -np.inf
        self.waited = 0
        self.kept: dict[str, Array] | None = None

    def enough(self, score: float) -> bool:
        """Take a number of which more is better; return whether to stop."""
        self.waited = 0 if score > self.best + self.tol else self.waited + 1
        if score > self.best or self.kept is None:
            self.best = max(score, self.best)
            if self.keeps is not None:
                self.kept = self.keeps.state_dict()
        return self.waited > self.patience

    def restore(self) -> None:
        """Bring back the values of the best epoch."""
        if self.keeps is not None and self.kept is not None:
            self.keeps.load_state_dict(self.kept)
