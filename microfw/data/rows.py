"""Rows: what is trained on, dense or sparse, weighted or not, and its batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Batch = tuple[Array, Array, Array | None]

GATHER = 1 << 22
"""How many bytes of shuffled features are gathered at once, of which batches are then slices."""


class Rows:
    """Features, targets and, optionally, weights of the same rows.

    Parameters
    ----------
    X : ndarray or sparse matrix
        Features; batches are dense.
    y : ndarray
        Targets.
    weight : ndarray, optional
        A weight for each row.
    """

    def __init__(self, X: Any, y: Array, weight: Array | None = None) -> None:
        self.X, self.y, self.weight = X, y, weight

    def __len__(self) -> int:
        return int(self.X.shape[0])

    def take(self, rows: Any) -> Rows:
        """Return some rows, by number or slice."""
        return Rows(self.X[rows], self.y[rows], None if self.weight is None else self.weight[rows])

    def batches(
        self,
        size: int,
        rng: np.random.Generator | None = None,
        *,
        least: int = 1,
        drop_last: bool = False,
        skip: int = 0,
    ) -> Iterable[Batch]:
        """Return batches of dense features, targets and weights.

        Parameters
        ----------
        size : int
            Rows in a batch.
        rng : Generator, optional
            Where a new order comes from. Without one, batches of dense rows are views.
        least : int
            A last batch of fewer rows joins the batch before.
        drop_last : bool
            Leave out a last batch that has fewer rows than ``size``.
        skip : int
            How many batches to leave out at the beginning.
        """
        n = len(self)
        order = None if rng is None else rng.permutation(n)
        if order is None and n <= size and not (skip or drop_last) and isinstance(self.X, np.ndarray):
            return ((self.X, self.y, self.weight),)
        stop = n // size * size if drop_last else n
        first = skip * size if not skip or stop - skip * size >= least else stop  # the rest is in the batch before
        return self._gathered(size, order, least, first, stop)

    def _gathered(self, size: int, order: Array | None, least: int, first: int, stop: int) -> Iterator[Batch]:
        # Gathering many rows at once and slicing takes half the time of gathering each batch.
        sparse = not isinstance(self.X, np.ndarray)
        row = self.X.shape[1] * self.X.dtype.itemsize if sparse else self.X.nbytes // len(self)
        chunk = max(GATHER // (row + self.y.nbytes // len(self) + 1) // size, 1) * size
        for piece in pieces(stop, chunk, least, first):
            if order is None or sparse:
                some = self.take(piece if order is None else order[piece])
            else:
                some = self._taken(order[piece])
            X = some.X.toarray() if sparse else some.X
            for part in pieces(len(some), size, least):
                yield X[part], some.y[part], None if some.weight is None else some.weight[part]

    def _taken(self, rows: Array) -> Rows:
        weight = None if self.weight is None else self.weight.take(rows)
        return Rows(self.X.take(rows, 0), self.y.take(rows, 0), weight)


def pieces(stop: int, size: int, least: int = 1, start: int = 0) -> Iterator[slice]:
    """Yield slices of ``size`` rows from ``start`` to ``stop``; a last one of less than ``least`` joins the one before.

    Examples
    --------
    >>> [(piece.start, piece.stop) for piece in pieces(9, 4, 2)]
    [(0, 4), (4, 9)]
    """
    while start < stop:
        end = stop if stop - start - size < least else start + size
        yield slice(start, end)
        start = end
