"""Rows: training data, dense or sparse, with or without weights, and its batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Batch = tuple[Array, Array, Array | None]

GATHER = 1 << 22
"""Bytes of shuffled features gathered at once; batches are slices of them."""


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
        min_rows: int = 1,
        drop_last: bool = False,
        skip: int = 0,
    ) -> Iterable[Batch]:
        """Return batches of dense features, targets and weights.

        Parameters
        ----------
        size : int
            Rows in a batch.
        rng : Generator, optional
            Draws a new order. Without it, batches of dense rows are views.
        min_rows : int
            A last batch with fewer rows joins the batch before it.
        drop_last : bool
            Leave out a last batch with fewer than ``size`` rows.
        skip : int
            Batches to leave out at the start.
        """
        n = len(self)
        order = None if rng is None else rng.permutation(n)
        if order is None and n <= size and not (skip or drop_last) and isinstance(self.X, np.ndarray):
            return ((self.X, self.y, self.weight),)
        stop = n // size * size if drop_last else n
        first = skip * size
        if skip and stop - first < min_rows:  # the rest has joined the batch before
            first = stop
        return self._gathered(size, order, min_rows, first, stop)

    def _gathered(self, size: int, order: Array | None, min_rows: int, first: int, stop: int) -> Iterator[Batch]:
        # Gathering many rows at once and slicing takes half the time of gathering each batch.
        sparse = not isinstance(self.X, np.ndarray)
        row = self.X.shape[1] * self.X.dtype.itemsize if sparse else self.X.nbytes // len(self)
        chunk = max(GATHER // (row + self.y.nbytes // len(self) + 1) // size, 1) * size
        for piece in pieces(stop, chunk, min_rows, first):
            if order is None or sparse:
                some = self.take(piece if order is None else order[piece])
            else:
                some = self._taken(order[piece])
            X = some.X.toarray() if sparse else some.X
            for part in pieces(len(some), size, min_rows):
                yield X[part], some.y[part], None if some.weight is None else some.weight[part]

    def _taken(self, rows: Array) -> Rows:
        weight = None if self.weight is None else self.weight.take(rows)
        return Rows(self.X.take(rows, 0), self.y.take(rows, 0), weight)


def pieces(stop: int, size: int, min_rows: int = 1, start: int = 0) -> Iterator[slice]:
    """Yield slices of ``size`` rows from ``start`` to ``stop``; a last one below ``min_rows`` joins the one before.

    Examples
    --------
    >>> [(piece.start, piece.stop) for piece in pieces(9, 4, 2)]
    [(0, 4), (4, 9)]
    """
    while start < stop:
        end = stop if stop - start - size < min_rows else start + size
        yield slice(start, end)
        start = end
