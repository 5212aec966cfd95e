"""Batches that other code makes: generator functions, and loaders such as PyTorch's DataLoader."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np

from microfw.data.batch_source import BatchSource
from microfw.data.faults import Array
from microfw.data.nested import Columns, batch_columns, join
from microfw.errors import ArgumentError, DataError, MicrofwError, ShapeError


class Source(BatchSource):
    """The batches of a generator function or another iterable, checked one by one.

    Parameters
    ----------
    batches : callable or iterable
        A function that returns an iterator of batches, called in each epoch, with the run's generator if it has a
        parameter ``rng``; or an iterable of which each epoch makes an iterator. Batches are ``(X, y)`` or
        ``(X, y, sample_weight)``; tensors of other libraries are read with their ``numpy()``.
    dtype : dtype
        Of the arrays.
    where : str
        Name of the caller in error messages.
    accumulate : int
        Batches of a step.
    rng : Generator
        Passed to the function for the first epoch, which begins when the first batch is checked. Without one, as in
        evaluation, each epoch gets a new one with seed 0.
    """

    counted = False
    kind = "batches from a source"

    def __init__(self, batches: Any, dtype: Any, where: str, accumulate: int = 1, rng: Any = None) -> None:
        if isinstance(batches, Iterator):
            got, fix = f"a {type(batches).__name__}, which ends", "pass the function that makes it, without calling it"
            raise ArgumentError(where, "batches that each epoch can start again", got, fix)
        self.made_by, self.dtype, self.where, self.accumulate = batches, dtype, where, accumulate
        self.takes_rng = callable(batches) and _takes_rng(batches, where)
        self.resumes_anywhere = self.stateful = hasattr(batches, "state_dict") and hasattr(batches, "load_state_dict")
        # The state before a batch that was drawn, but has no complete step; None if there is no such batch.
        self.state_before = copy.deepcopy(batches.state_dict()) if self.stateful and rng is not None else None
        # The first batch is checked before training. The first epoch continues with its iterator: to start another one
        # would draw other random numbers than a loop does.
        started = self._start(rng)
        first = next(started, started)
        if first is started:
            raise DataError(where, "at least one batch", "none")
        self.first, self.ended = self._columns(first, 1), False
        self._started: Any = chain([first], started)

    def _start(self, rng: Any) -> Iterator[Any]:
        made = self.made_by
        if callable(made):
            made = made(rng=np.random.default_rng(0) if rng is None else rng) if self.takes_rng else made()
            if not hasattr(made, "__iter__") and not hasattr(made, "__getitem__"):
                fix = "yield (X, y) in it, or return an iterator"
                raise ArgumentError(self.where, "a function that returns batches", type(made).__name__, fix)
        return iter(made)

    def _columns(self, batch: Any, number: int) -> tuple[Columns, Columns]:
        where = f"{self.where}, batch {number}"
        try:
            # Copies, since a source may refill its arrays while targets of an epoch, or parts of a step, are kept.
            X, y = batch_columns(batch, self.dtype, where, copied=True)
        except MicrofwError as error:
            if str(error).startswith(where):
                raise
            raise type(error)(f"{where}: {error}") from None
        for leaf in (*X.leaves, *y.leaves):
            leaf.setflags(write=True)  # for a transform that works in place
        for name, mine, first in (("X", X, self.first[0]), ("y", y, self.first[1])) if number > 1 else ():
            now, before = _structure(mine), _structure(first)
            if now != before:
                raise ShapeError(where, f"{name} as in batch 1, {before}", now)
        return X, y

    def head(self, rows: int) -> tuple[Columns, Columns]:
        """Return rows of the first batch."""
        return self.first[0][:rows], self.first[1][:rows]

    def fingerprints(self) -> list[Array]:
        """Return nothing: the data are not known."""
        return []

    def restart(self) -> None:
        """Forget the iterator that has begun, as before a run is resumed."""
        self._started = self.state_before = None

    def batches(
        self,
        size: int,
        rng: np.random.Generator | None = None,
        *,
        min_rows: int = 1,
        drop_last: bool = False,
        skip: int = 0,
    ) -> Iterator[Any]:
        """Return the batches of an epoch, those of each step joined; ``skip`` must be known to the source itself."""
        if skip and self.ended:  # resumed after a last step of fewer batches: the loader is at its next epoch already
            return iter(())
        started, self._started = self._started or self._start(rng), None
        return self._batches(started, drop_last, skip)

    def _batches(self, started: Iterator[Any], drop_last: bool, skip: int) -> Iterator[Any]:
        step: list[tuple[Columns, Columns]] = []
        rows, number, self.ended = len(self.first[0]) if skip else 0, 0, False
        for number, batch in enumerate(started, 1):
            self.state_before = None
            step.append(self._columns(batch, number))
            rows = rows or len(step[0][0])
            if drop_last and len(step[-1][0]) < rows:
                step.pop()
            elif len(step) == self.accumulate:
                yield *self._joined(step), None
                step = []
        self.ended = True
        if not number and not skip:  # a loader that is resumed after its last batch has none
            raise DataError(self.where, "at least one batch in each epoch", "none", "return a new iterator each time")
        if step and not drop_last:
            yield *self._joined(step), None

    def _joined(self, step: list[tuple[Columns, Columns]]) -> tuple[Columns, Columns]:
        return join([X for X, _ in step]), join([y for _, y in step])

    def state_dict(self) -> Any:
        """Return the state of the loader; after the last batch of an epoch with a mark, ``ended``."""
        if self.state_before is not None:
            return self.state_before
        state = self.made_by.state_dict()
        return {"loader": state, "ended": True} if self.ended else state

    def load_state_dict(self, state: Any) -> None:
        """Load what `state_dict` returned."""
        self.restart()
        self.ended = isinstance(state, dict) and set(state) == {"loader", "ended"}
        self.made_by.load_state_dict(state["loader"] if self.ended else state)


def _takes_rng(function: Any, where: str) -> bool:
    """Return True if a function has a parameter ``rng``; raise if it needs others."""
    signature = inspect.signature(function)
    with_rng = "rng" in signature.parameters
    try:
        signature.bind(**{"rng": None} if with_rng else {})
    except TypeError:
        expected, fix = "a function of batches that needs no arguments but rng", "give the others a default"
        raise ArgumentError(where, expected, f"one with {signature}", fix) from None
    return with_rng


def _structure(columns: Columns) -> str:
    names = [*columns.paths, "sample_weight"] if columns.weighted else columns.paths
    return ", ".join(f"{name} {leaf.dtype}".strip() for name, leaf in zip(names, columns.leaves, strict=True))
