"""Embedding: a learned vector for each of a number of things."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.errors import DataError
from microfw.nn.checks import as_integers, is_whole, positive, require
from microfw.nn.forward_state import as_generator
from microfw.nn.initializers import Seed, initial, normal
from microfw.nn.module import Module
from microfw.nn.parameter import Parameter
from microfw.ops.effects import pure_callback
from microfw.ops.elementwise import where
from microfw.ops.indexing import take


class Embedding(Module):
    """Look up a row of ``weight`` for each index: indices of any shape `(...)` become `(..., features)`.

    Parameters
    ----------
    rows : int
        How many things there are; indices go from 0 to ``rows - 1``.
    features : int
        Length of each vector.
    padding_idx : int, optional
        An index that stands for nothing: its vector is zero and is not trained.
    rng : int, numpy.random.Generator or None
        Where the initial vectors come from.
    init : callable or str
        ``init(shape, rng)`` returns the initial table, or a name of `initializers`; standard normal by default.

    Raises
    ------
    ArgumentError
        If a size is not a positive integer, or ``padding_idx`` is no index.
    DTypeError
        When called, if the indices are not integers. Floats that are whole numbers will do, for a dataset's
        rows are floats.
    DataError
        When called, if an index is out of range; none counts from the end.

    Notes
    -----
    Source: Bengio et al., "A Neural Probabilistic Language Model", 2003, section 2.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> layer = nn.Embedding(10, 3, padding_idx=0, rng=0)
    >>> layer(np.array([[1, 2, 0, 0]])).shape
    (1, 4, 3)
    """

    weight: Parameter  # (rows, features)

    def __init__(
        self,
        rows: int,
        features: int,
        padding_idx: int | None = None,
        *,
        rng: Seed = None,
        init: Callable[..., Any] | str = normal,
    ) -> None:
        positive("Embedding", rows=rows, features=features)
        fits = padding_idx is None or (is_whole(padding_idx) and 0 <= padding_idx < rows)
        require(fits, "Embedding", f"padding_idx from 0 to {rows - 1}", repr(padding_idx))
        self.rows, self.features = int(rows), int(features)
        self.padding_idx = None if padding_idx is None else int(padding_idx)
        table = initial("Embedding", init, (self.rows, self.features), as_generator("Embedding", rng))
        if self.padding_idx is not None:
            table[self.padding_idx] = 0
        self.weight = Parameter(table)

    def forward(self, indices: Any) -> Tensor:
        """Look up the vector of each index."""
        # checked by an op where the indices are a Tensor, so that a replay checks them at each step
        if isinstance(indices, Tensor) and indices.dtype.kind in "iu":
            found: Any = indices
        else:
            found = pure_callback(indices, by=self._check) if isinstance(indices, Tensor) else self._check(indices)
        try:
            rows: Tensor = take(self.weight, found, signed=False)
        except IndexError:
            self._check(found)
            raise
        return rows if self.padding_idx is None else where((found != self.padding_idx)[..., None], rows, 0)

    def _check(self, indices: Any) -> np.ndarray[Any, Any]:
        array = as_integers(indices, self, "indices")
        if array.size and not (array.min() >= 0 and array.max() < self.rows):
            at = tuple(int(i) for i in np.argwhere((array < 0) | (array >= self.rows))[0])
            fix = "number things from 0, or make a table of more rows"
            raise DataError(self.where, f"indices from 0 to {self.rows - 1}", f"{array[at]} at {at}", fix)
        return array

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.rows} -> {self.features}" + (
            "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        )
