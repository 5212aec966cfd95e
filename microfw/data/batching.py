"""Batches of a dataset, in a new random order for each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from microfw.data.arrays import as_array
from microfw.data.dataset import Dataset, Rows
from microfw.data.faults import Array
from microfw.data.nested import Columns, NestedRows, flatten, is_nested, same_rows
from microfw.data.streaming import Stream
from microfw.errors import ArgumentError, DataError, ShapeError, check_count, check_flags
from microfw.nn.forward_state import as_generator


def batches(
    data: Any,
    batch_size: int = 32,
    *,
    shuffle: bool = True,
    rng: int | np.random.Generator | None = None,
    drop_last: bool = False,
    skip: int = 0,
) -> Iterator[Any]:
    """Yield a dataset in batches.

    Parameters
    ----------
    data : Dataset, (X, y), (X, y, sample_weight), or stream
        Arrays of one length, or nested tuples and dicts of them, whose entries are not checked; or a `stream`, which
        yields float32.
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
    X, y : ndarray, or tuples and dicts of them
        Writable, C-contiguous copies; and the weights, if there are any.

    Raises
    ------
    ArgumentError
        If batch_size is not a positive integer, skip not an integer of at least 0, or a flag not True or False.
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
    check_count("batches", "skip", skip, 0)
    check_flags("batches", shuffle=shuffle, drop_last=drop_last)
    if isinstance(data, Stream) or (isinstance(data, tuple | list) and (len(data) == 3 or any(map(is_nested, data)))):
        return _nested(data, batch_size, as_generator("batches", rng) if shuffle else None, drop_last, skip)
    X, y = _pair(data)
    return _batches(Rows(X, y), batch_size, as_generator("batches", rng) if shuffle else None, drop_last, skip)


def _nested(data: Any, size: int, rng: Any, drop_last: bool, skip: int) -> Iterator[Any]:
    """Return the batches of a stream or of nested arrays, in their structure."""
    rows = data
    if not isinstance(data, Stream):
        if len(data) not in (2, 3):
            raise ArgumentError("batches", "(X, y) or (X, y, sample_weight)", f"{len(data)} parts")
        names = ("X", "y", "sample_weight")
        flat = [(name, *flatten(part)) for name, part in zip(names, data, strict=False)]
        X, y, *weight = [Columns(t, [as_array(x, name) for x in leaves], paths) for name, t, leaves, paths in flat]
        named = {"X": X, "y": y} | ({"sample_weight": weight[0]} if weight else {})
        same_rows("batches", **named)
        rows = NestedRows(X, Columns(y.template, y.leaves + weight[0].leaves, y.paths, True) if weight else y)
    found = rows.batches(size, rng, drop_last=drop_last, skip=skip)
    copied = rng is None  # without an order batches are views
    for X, y, _ in found:
        parts = [part.like([np.array(leaf, order="C") for leaf in part.leaves]) if copied else part for part in (X, y)]
        yield tuple(part.tree for part in parts) + ((parts[1].weight,) if y.weighted else ())


def _pair(data: Any) -> tuple[Array, Array]:
    if isinstance(data, Dataset):
        return data.X, data.y
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ArgumentError("batches", "a Dataset or a pair (X, y)", type(data).__name__)
    X, y = as_array(data[0], "X"), as_array(data[1], "y")
    if not X.ndim or not y.ndim or len(X) != len(y):
        raise ShapeError("batches", "X and y of the same length", f"shapes {X.shape} and {y.shape}")
    if not len(X):
        raise DataError("batches", "at least one row", f"X of shape {X.shape}")
    return X, y


def _batches(rows: Rows, size: int, rng: np.random.Generator | None, drop_last: bool, skip: int) -> Iterator[Any]:
    copied = rng is None  # without an order batches are views
    parts = rows.batches(size, rng, drop_last=drop_last, skip=skip)
    return ((np.array(X, order="C"), np.array(y, order="C")) if copied else (X, y) for X, y, _ in parts)
