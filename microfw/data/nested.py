"""Nested arrays: features and targets as tuples and dicts of arrays, one row for each example."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from microfw.data import faults
from microfw.data.arrays import as_array, finite
from microfw.data.batch_source import BatchSource
from microfw.data.dataset import Batch, Dataset, epoch_range, pieces
from microfw.data.faults import Array
from microfw.errors import ArgumentError, DataError, ShapeError

Sampler = Callable[[int, np.random.Generator], Any]


def is_nested(value: Any) -> bool:
    """Return True for a dict, a tuple that contains an array or a nested value, and a list of other libraries' tensors.

    Other tuples and lists are rows of numbers, as in ``np.asarray(value)``.

    Examples
    --------
    >>> is_nested((np.ones(3), np.ones((3, 2)))), is_nested(((1, 2), (3, 4))), is_nested([np.ones(2), np.ones(2)])
    (True, False, False)
    """
    if isinstance(value, list):  # a loader's list of tensors; only its first item is looked at, since rows are many
        return bool(value) and (hasattr(value[0], "numpy") or is_nested(value[0]))
    if isinstance(value, tuple):
        return any(getattr(part, "ndim", 0) > 0 or is_nested(part) for part in value)
    return isinstance(value, dict)


def is_batches(data: Any) -> bool:
    """Return True for a list of batches: of tuples that are nested, or of lists of two or three arrays, as of a loader.

    Examples
    --------
    >>> x, y = np.ones((4, 3)), np.ones(4)
    >>> [is_batches(data) for data in ([(x, y), (x, y)], [[x, y], [x, y]], [x, y], [[x[0], x[1]], y[:2]])]
    [True, True, False, False]
    """

    def is_batch(part: Any) -> bool:
        if isinstance(part, list):
            return len(part) in (2, 3) and all(getattr(item, "ndim", 0) > 0 for item in part)
        return isinstance(part, tuple) and is_nested(part)

    return isinstance(data, list) and bool(data) and all(map(is_batch, data))


def flatten(tree: Any, nested: Callable[[Any], bool] = is_nested) -> tuple[Any, list[Any], list[str]]:
    """Return a nested value with numbers in place of its leaves, the leaves, and their paths.

    Examples
    --------
    >>> flatten({"image": np.ones(2), "size": (np.ones(2), np.zeros(2))})[::2]
    ({'image': 0, 'size': (1, 2)}, ['image', 'size/0', 'size/1'])
    """
    leaves: list[Any] = []
    paths: list[str] = []

    def walk(value: Any, path: str) -> Any:
        if not nested(value):
            leaves.append(value)
            paths.append(path)
            return len(leaves) - 1
        start = f"{path}/" if path else ""
        if isinstance(value, dict):
            return {key: walk(part, f"{start}{key}") for key, part in value.items()}
        parts = [walk(part, f"{start}{k}") for k, part in enumerate(value)]
        return type(value)(*parts) if hasattr(value, "_fields") else type(value)(parts)

    return walk(tree, ""), leaves, paths


def fill(template: Any, leaves: Sequence[Any]) -> Any:
    """Return the nested value of a template of `flatten` with other leaves."""
    if isinstance(template, dict):
        return {key: fill(part, leaves) for key, part in template.items()}
    if isinstance(template, tuple | list):
        parts = [fill(part, leaves) for part in template]
        return type(template)(*parts) if hasattr(template, "_fields") else type(template)(parts)
    return leaves[template]


class Columns:
    """Arrays with the same rows, and the structure they are in. Indexing and ``len`` are those of rows.

    Attributes
    ----------
    template : object
        The structure, with the numbers of the leaves in their places.
    leaves : list of ndarray
        The arrays.
    paths : list of str
        A path for each, such as ``"image"`` or ``"0"``; ``""`` for an array that is not nested.
    weighted : bool
        Whether there is one more array: a weight for each row.
    """

    __slots__ = ("leaves", "paths", "template", "weighted")

    def __init__(self, template: Any, leaves: list[Any], paths: list[str], weighted: bool = False) -> None:
        self.template, self.leaves, self.paths, self.weighted = template, leaves, paths, weighted

    @property
    def tree(self) -> Any:
        """The arrays in their structure, without weights."""
        return fill(self.template, self.leaves)

    @property
    def weight(self) -> Any:
        """The weights; None without any."""
        return self.leaves[-1] if self.weighted else None

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of rows."""
        return (len(self),)

    def __len__(self) -> int:
        return int(self.leaves[0].shape[0])  # an array in a file may have no len

    def __getitem__(self, rows: Any) -> Columns:
        return self.like([leaf[rows] for leaf in self.leaves])

    def like(self, leaves: list[Any]) -> Columns:
        """Return other arrays in the same structure."""
        return Columns(self.template, leaves, self.paths, self.weighted)

    def take(self, rows: Any) -> Columns:
        """Return copies of the rows with these numbers."""
        return self.like([leaf.take(rows, 0) for leaf in self.leaves])


def join(parts: Sequence[Columns]) -> Columns:
    """Return the rows of several columns of one structure, in a row."""
    if len(parts) == 1:
        return parts[0]
    return parts[0].like([np.concatenate(several) for several in zip(*(p.leaves for p in parts), strict=True)])


def as_columns(value: Any, name: str, dtype: Any, where: str, features: bool = True, copied: bool = True) -> Columns:
    """Return nested arrays as checked columns.

    Floats, and features of uint8 such as images, take a dtype, and must be finite. Other integers and booleans are
    indices or labels, and keep theirs.
    """
    template, leaves, paths = flatten(value)
    if not leaves:
        raise ShapeError(where, f"arrays in {name}", repr(value))
    made = []
    for leaf, path in zip(leaves, paths, strict=True):
        made.append(_as_leaf(leaf, f"{name}/{path}" if path else name, dtype, where, features, copied))
    return Columns(template, made, paths)


def _as_leaf(leaf: Any, name: str, dtype: Any, where: str, features: bool, copied: bool) -> Array:
    array = as_array(leaf, name)
    if not array.ndim:
        raise ShapeError(where, f"{name} with a row for each example", f"a single {type(leaf).__name__}")
    if array.dtype.kind in "iub" and not (features and array.dtype == np.uint8):
        return np.array(array, order="C") if copied else np.ascontiguousarray(array)
    if copied or array.dtype != dtype or not array.flags.c_contiguous:
        return finite(array, name, (), dtype)
    if not np.isfinite(array).all():
        raise faults.not_finite(array, array, name, ())
    return array


def same_rows(where: str, **columns: Columns | None) -> int:
    """Return the number of rows. Raise unless all arrays have the same, at least one."""
    found = {
        f"{name}/{path}" if path else name: int(leaf.shape[0])
        for name, part in columns.items()
        if part is not None
        for leaf, path in zip(part.leaves, part.paths, strict=True)
    }
    (first, rows), *_ = found.items()
    other = next((name for name, count in found.items() if count != rows), None)
    if other is not None:
        raise ShapeError(where, "arrays of one length", f"{rows} rows of {first} and {found[other]} of {other}")
    if not rows:
        raise DataError(where, "at least one row", "none")
    return rows


def with_weight(y: Columns, weight: Any, dtype: Any, where: str) -> Columns:
    """Return targets with a weight for each row; unchanged without weights."""
    if weight is None:
        return y
    array = finite(as_array(weight, "sample_weight"), "sample_weight", (), dtype)
    if array.shape != (len(y),):
        raise ShapeError(where, f"a sample_weight for each of {len(y)} rows", f"shape {array.shape}")
    if (array < 0).any():
        raise DataError(where, "a sample_weight of at least 0", f"{array.min()} at row {int(array.argmin())}")
    return Columns(y.template, [*y.leaves, array], y.paths, weighted=True)


def batch_columns(batch: Any, dtype: Any, where: str, copied: bool = False) -> tuple[Columns, Columns]:
    """Return features, and targets with weights, from ``(X, y)`` or ``(X, y, sample_weight)``."""
    if isinstance(batch, Dataset):
        batch = batch.X, batch.y
    if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
        got = f"{len(batch)} parts" if isinstance(batch, tuple | list) else type(batch).__name__
        raise ArgumentError(where, "(X, y) or (X, y, sample_weight)", got, "yield it from a generator function")
    X = as_columns(batch[0], "X", dtype, where, copied=copied)
    y = as_columns(batch[1], "y", dtype, where, features=False, copied=copied)
    same_rows(where, X=X, y=y)
    return X, with_weight(y, batch[2] if len(batch) == 3 else None, dtype, where)


class NestedRows(BatchSource):
    """Features and targets of the same rows, as columns.

    Parameters
    ----------
    X, y : Columns
        Features; targets, with weights if there are any.
    sampler : callable, optional
        ``sampler(n, rng)`` returns the numbers of the rows of an epoch, in order.
    """

    def __init__(self, X: Columns, y: Columns, sampler: Sampler | None = None) -> None:
        self.X, self.y, self.sampler = X, y, sampler
        self.counted = sampler is None

    def __len__(self) -> int:
        return len(self.X)

    def head(self, rows: int) -> tuple[Columns, Columns]:
        """Return the first rows."""
        return self.X[:rows], self.y[:rows]

    def fingerprints(self) -> list[Array]:
        """Return all arrays."""
        return [*self.X.leaves, *self.y.leaves]

    def batches(
        self,
        size: int,
        rng: np.random.Generator | None = None,
        *,
        min_rows: int = 1,
        drop_last: bool = False,
        skip: int = 0,
    ) -> Iterator[Batch]:
        """Return the batches of an epoch; see `Rows.batches`."""
        order = None if rng is None else rng.permutation(len(self))
        if self.sampler is not None and rng is not None:
            order = _sampled(self.sampler(len(self), rng), len(self))
        steps = steps_of(len(self) if order is None else len(order), size, min_rows, drop_last, skip)
        return self._batches(order, steps)

    def _batches(self, order: Array | None, steps: Iterator[slice]) -> Iterator[Any]:
        for part in steps:
            X, y = ((c[part] if order is None else c.take(order[part])) for c in (self.X, self.y))
            yield X, y, None


def steps_of(rows: int, size: int, min_rows: int, drop_last: bool, skip: int) -> Iterator[slice]:
    """Return the slices of an epoch's batches; see `Rows.batches`."""
    first, stop = epoch_range(rows, size, min_rows, drop_last, skip)
    return pieces(stop, size, min_rows, first)


def _sampled(rows: Any, n: int) -> Array:
    order = np.asarray(list(rows) if hasattr(rows, "__iter__") and not hasattr(rows, "__len__") else rows)
    if order.ndim != 1 or order.dtype.kind not in "iu" or not len(order) or order.min() < 0 or order.max() >= n:
        got = f"{order.dtype} of shape {order.shape}: {' '.join(str(order).split())[:40]}"
        raise DataError("sampler(n, rng)", f"numbers of rows from 0 to {n - 1}", got)
    return order
