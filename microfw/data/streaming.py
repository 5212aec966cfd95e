"""`stream`: batches of arrays that are larger than memory."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from microfw.data.arrays import plain_array
from microfw.data.batch_source import BatchSource
from microfw.data.dataset import pieces
from microfw.data.faults import Array
from microfw.data.nested import Columns, batch_columns, flatten, join, same_rows, steps_of
from microfw.errors import ArgumentError, DTypeError, MicrofwError, check_count, check_flags

CHUNKS = 16
"""Runs of neighbouring rows that are shuffled together in one block."""

SAMPLED_ROWS = 64
"""Rows whose bytes identify the data of a run that is resumed."""


class Stream(BatchSource):
    """Rows of arrays that are read in blocks; `stream` makes one.

    Attributes
    ----------
    block_bytes : int
        Bytes of a block of rows in memory.
    shuffle : bool
        Whether each epoch has another order.
    """

    kind = "a stream"

    def __init__(self, X: Any, y: Any, sample_weight: Any, block_bytes: int, shuffle: bool) -> None:
        self.parts = [Columns(*flatten(value)) for value in (X, y)]
        if sample_weight is not None:
            self.parts.append(Columns(0, [sample_weight], [""]))
        for name, part in zip(("X", "y", "sample_weight"), self.parts, strict=False):
            names = [f"{name}/{path}" if path else name for path in part.paths]
            part.leaves = [_readable(leaf, place) for leaf, place in zip(part.leaves, names, strict=True)]
        self.rows = same_rows("stream", **dict(zip(("X", "y", "sample_weight"), self.parts, strict=False)))
        self.block_bytes, self.shuffle = block_bytes, shuffle
        self.dtype: Any = np.float32
        self.where = "stream"

    def __len__(self) -> int:
        return self.rows

    def __repr__(self) -> str:
        sizes = [f"{leaf.dtype} {tuple(leaf.shape[1:])}" for part in self.parts for leaf in part.leaves]
        return f"stream({self.rows:,} rows of {', '.join(sizes)})"

    def read_as(self, dtype: Any, where: str) -> Stream:
        """Return the stream with another dtype, and another name in errors."""
        other = copy.copy(self)
        other.dtype, other.where = dtype, where
        return other

    def head(self, rows: int) -> tuple[Columns, Columns]:
        """Return the first rows."""
        return self._read([slice(0, min(rows, self.rows))], {})

    def fingerprints(self) -> list[Array]:
        """Return the number of rows, and some of them."""
        rows = np.linspace(0, self.rows - 1, min(SAMPLED_ROWS, self.rows)).astype(int)
        leaves = [leaf for part in self.parts for leaf in part.leaves]
        found = [np.concatenate([np.asarray(leaf[k : k + 1]) for k in rows.tolist()]) for leaf in leaves]
        return [np.array(self.rows), *found]

    def batches(
        self,
        size: int,
        rng: np.random.Generator | None = None,
        *,
        min_rows: int = 1,
        drop_last: bool = False,
        skip: int = 0,
    ) -> Iterator[Any]:
        """Return the batches of an epoch; see `Rows.batches`."""
        # One draw: the order of the blocks is drawn while they are read, and the run may draw in between.
        child = np.random.default_rng(rng.integers(1 << 63)) if rng is not None and self.shuffle else None
        return self._batches(self._blocks(child), steps_of(self.rows, size, min_rows, drop_last, skip))

    def _blocks(self, rng: np.random.Generator | None) -> Iterator[tuple[list[slice], Array]]:
        """Yield the blocks of an epoch: their slices of rows, and the order of the rows in them."""
        row = sum(np.dtype(x.dtype).itemsize * math.prod(x.shape[1:]) for part in self.parts for x in part.leaves)
        length = max(self.block_bytes // CHUNKS // max(row, 1), 1)
        chunks = list(pieces(self.rows, length))
        order = range(len(chunks)) if rng is None else rng.permutation(len(chunks))
        for start in range(0, len(chunks), CHUNKS):
            block = [chunks[k] for k in order[start : start + CHUNKS]]
            rows = sum(chunk.stop - chunk.start for chunk in block)
            yield block, np.arange(rows) if rng is None else rng.permutation(rows)

    def _batches(self, blocks: Iterator[tuple[list[slice], Array]], steps: Any) -> Iterator[Any]:
        chunks: list[slice] = []
        block: Any = None
        memory: dict[tuple[int, int], Array] = {}  # arrays for all blocks: 66 MB; new ones for each took 411 MB
        start, order = 0, np.arange(0)  # the present block has the rows from start
        for step in steps:
            parts = []
            at = step.start
            while at < step.stop:
                while at >= start + len(order):
                    start += len(order)
                    block = None
                    chunks, order = next(blocks)
                block = self._read(chunks, memory) if block is None else block  # skipped blocks are not read
                rows = order[at - start : step.stop - start]
                parts.append([columns.take(rows) for columns in block])
                at += len(rows)
            yield join([X for X, _ in parts]), join([y for _, y in parts]), None

    def _read(self, chunks: list[slice], memory: dict[tuple[int, int], Array]) -> tuple[Columns, Columns]:
        """Return rows of all arrays, checked, in the dtype of the run; they are written into ``memory``."""
        found = []
        for k, part in enumerate(self.parts):
            casts = (np.float32, np.float64, np.uint8)[: 2 + (not k)]  # uint8 of features alone
            dtypes = [self.dtype if leaf.dtype in casts else leaf.dtype for leaf in part.leaves]
            leaves = []
            for j, (leaf, dtype) in enumerate(zip(part.leaves, dtypes, strict=True)):
                rows, made = sum(chunk.stop - chunk.start for chunk in chunks), memory.get((k, j))
                if made is None or len(made) < rows:
                    made = memory[k, j] = np.empty((rows, *leaf.shape[1:]), dtype)
                leaves.append(_rows(leaf, chunks, made[:rows]))
            found.append(part.like(leaves).tree)
        try:
            return batch_columns(tuple(found), self.dtype, self.where)
        except MicrofwError as error:
            places = ", ".join(f"{chunk.start} to {chunk.stop - 1}" for chunk in chunks[:3])
            more = f" and {len(chunks) - 3} more parts" if len(chunks) > 3 else ""
            raise type(error)(f"{self.where}, in rows {places}{more}: {error}") from None


def _readable(leaf: Any, name: str) -> Any:
    """Return what rows are read from; raise unless it is an array, or has dtype and shape as one."""
    leaf = plain_array(leaf, name)
    if not hasattr(leaf, "dtype") or not getattr(leaf, "shape", ()):
        fix = "open files with np.load(path, mmap_mode='r')"
        raise ArgumentError("stream", "arrays", f"{type(leaf).__name__} as {name}", fix)
    try:
        np.dtype(leaf.dtype)
    except TypeError:
        got = f"{leaf.dtype} of {type(leaf).__name__} as {name}"
        raise DTypeError("stream", "a dtype of NumPy", got, "pass an object whose slices are arrays") from None
    return leaf


def _rows(leaf: Any, chunks: list[slice], made: Array) -> Array:
    at = 0
    with np.errstate(over="ignore"):  # a float64 that is too large is found as infinity
        for chunk in chunks:
            made[at : (at := at + chunk.stop - chunk.start)] = leaf[chunk]
    return made


def stream(X: Any, y: Any, sample_weight: Any = None, *, block_bytes: int = 1 << 25, shuffle: bool = True) -> Stream:
    """Return a training set that is read from its arrays block by block, for `Trainer.fit` and `batches`.

    An epoch reads runs of neighbouring rows in random order, 16 runs to a block, and shuffles the rows of a block.
    Memory holds one block and a batch.

    Parameters
    ----------
    X, y : array, or nested tuples and dicts of arrays
        Features and targets with one row for each example, such as ``np.load(path, mmap_mode="r")``. Any object with
        ``dtype`` and ``shape`` whose slices are arrays will do. Floats, and features of uint8, are cast to the
        model's dtype when they are read; other integers stay.
    sample_weight : array of shape (N,), optional
        A weight for each row.
    block_bytes : int
        Bytes of a block in the dtype of the arrays.
    shuffle : bool
        Whether each epoch has a new order, drawn from the ``rng`` of the run. If False, rows come in order.

    Returns
    -------
    Stream

    Raises
    ------
    ArgumentError
        If a part is no array.
    DTypeError
        If a part is sparse, or has a dtype that NumPy cannot read.
    ShapeError
        If the arrays differ in length.
    DataError
        When read, if an entry is not finite; the message names the row within the block, and its rows in the arrays.

    Notes
    -----
    Training can be resumed within an epoch with the same bits, as with arrays in memory. The checksum of the data
    covers 64 rows.

    Examples
    --------
    >>> import os, tempfile, numpy as np, microfw as mf
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "X.npy")
    ...     np.save(path, np.random.default_rng(0).standard_normal((1000, 4)))
    ...     X = np.load(path, mmap_mode="r")
    ...     train = mf.data.stream(X, X[:, :1] * 2)
    ...     model = mf.nn.Sequential(mf.nn.Dense(4, 1, rng=0))
    ...     trainer = mf.Trainer(model, mf.nn.MSELoss(), mf.optim.SGD(model.parameters(), lr=0.1))
    ...     trainer.fit(train, epochs=5, rng=0, progress=False)[-1]["loss"] < 0.01
    True
    """
    check_count("stream", "block_bytes", block_bytes)
    check_flags("stream", shuffle=shuffle)
    return Stream(X, y, sample_weight, block_bytes, shuffle)
