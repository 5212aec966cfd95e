"""Batches of a dataset, in a new random order for each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from microfw.data.dataset import Dataset, Rows, check_count
from microfw.data.faults import Array
from microfw.errors import ArgumentError, DataError, ShapeError


def batches(
    data: Any,
    batch_size: int = 32,
    *,
    shuffle: bool = True,
    rng: int | np.random.Generator | None = None,
    drop_last: bool = False,
    skip: int = 0,
) -> Iterator[tuple[Array, Array]]:
    """Yield a dataset in batches.

    Parameters
    ----------
    data : Dataset or (X, y)
        A Dataset, or two arrays of one length, whose entries are not checked.
    batch_size : int
        Rows in a batch; the last one may have fewer.
    shuffle : bool
        Whether to draw a new order.
    rng : int, numpy.random.Generator or None
        Decides the order. An int gives the same order each time, so pass a Generator, or another int for each
        epoch.
    drop_last : bool
        Leave out a last batch with fewer rows.
    skip : int
        Batches to leave out at the start, as when an epoch is resumed.

    Yields
    ------
    X, y : ndarray
        Writable, C-contiguous copies.

    Raises
    ------
    ArgumentError
        If batch_size is not a positive integer.
    DataError
        If there are no rows.
    ShapeError
        If X and y differ in length.

    Examples
    --------
    >>> X, y = np.arange(10.0).reshape(5, 2), np.arange(5)
    >>> [list(rows) for _, rows in batches((X, y), 2, shuffle=False)]
    [[np.int64(0), np.int64(1)], [np.int64(2), np.int64(3)], [np.int64(4)]]
    """
    check_count("batches", "batch_size", batch_size, fix="32 is a good start")
    X, y = _pair(data)
    return _batches(Rows(X, y), batch_size, np.random.default_rng(rng) if shuffle else None, drop_last, skip)


def _pair(data: Any) -> tuple[Array, Array]:
    if isinstance(data, Dataset):
        return data.X, data.y
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ArgumentError("batches", "a Dataset or a pair (X, y)", type(data).__name__)
    X, y = np.asarray(data[0]), np.asarray(data[1])
    if not X.ndim or not y.ndim or len(X) != len(y):
        raise ShapeError("batches", "X and y of the same length", f"shapes {X.shape} and {y.shape}")
    if not len(X):
        raise DataError("batches", "at least one row", f"X of shape {X.shape}")
    return X, y


def _batches(rows: Rows, size: int, rng: np.random.Generator | None, drop_last: bool, skip: int) -> Iterator[Any]:
    copied = rng is None  # without an order batches are views
    parts = rows.batches(size, rng, drop_last=drop_last, skip=skip)
    return ((np.array(X, order="C"), np.array(y, order="C")) if copied else (X, y) for X, y, _ in parts)
