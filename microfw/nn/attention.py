"""Multi-head attention: each step of a sequence takes what it needs from the steps of another."""

from __future__ import annotations

from functools import partial
from math import prod, sqrt
from typing import Any

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.errors import DTypeError, ShapeError
from microfw.nn.checks import as_flag, as_layer_input, as_number, positive, require
from microfw.nn.dense import Dense
from microfw.nn.dropout import Dropout
from microfw.nn.forward_state import as_generator
from microfw.nn.initializers import Seed
from microfw.nn.module import Module
from microfw.ops.effects import pure_callback
from microfw.ops.linalg import matmul
from microfw.ops.normalization import masked_softmax
from microfw.ops.reduction import softmax


class MultiHeadAttention(Module):
    """Scaled dot-product attention in several heads.

    In each head ``softmax(q @ k.T / sqrt(d)) @ v``, where ``q``, ``k`` and ``v`` are maps of the inputs to
    ``d = embed_dim / num_heads`` features; another map brings the heads together.

    Parameters
    ----------
    embed_dim : int
        Number E of features of each step, in and out; a multiple of ``num_heads``.
    num_heads : int
        Number of heads.
    bias : bool
        Whether the four maps add a bias.
    causal : bool
        Whether a step sees only itself and the steps before it.
    dropout : float
        Probability to drop an attention weight in training.
    rng : int, numpy.random.Generator or None
        Where the initial weights and the dropout come from.

    Returns
    -------
    Tensor
        When called with ``query`` (N, T, E), for self-attention, or with ``query``, ``key`` (N, S, E) and
        ``value`` (N, S, E), ``key`` by default: of shape (N, T, E). A fourth, ``key_padding_mask``, a boolean
        array (N, S), is true for keys to leave out, as in PyTorch. The heads of a step without any key
        give zeros.

    Raises
    ------
    ArgumentError
        If a setting is out of range, or the heads do not divide the features.
    ShapeError
        When called, if an input or the mask has another shape.
    DTypeError
        When called, if the mask is not boolean.

    Notes
    -----
    Source: Vaswani et al., "Attention Is All You Need", 2017, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> layer = nn.MultiHeadAttention(8, 2, causal=True, rng=0)
    >>> layer(np.ones((3, 5, 8))).shape
    (3, 5, 8)
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        bias: bool = True,
        causal: bool = False,
        dropout: float = 0.0,
        *,
        rng: Seed = None,
    ) -> None:
        positive("MultiHeadAttention", embed_dim=embed_dim, num_heads=num_heads)
        got = f"{num_heads} heads of {embed_dim}"
        require(embed_dim % num_heads == 0, "MultiHeadAttention", "heads that divide the features evenly", got)
        bias = as_flag(bias, "MultiHeadAttention", "bias", "dropout=0.1")  # PyTorch's third argument is dropout
        dropout = as_number(dropout, lambda p: 0 <= p < 1, "MultiHeadAttention", "dropout from 0 to below 1")
        rng = as_generator("MultiHeadAttention", rng)
        self.embed_dim, self.num_heads = int(embed_dim), int(num_heads)
        self.causal = as_flag(causal, "MultiHeadAttention", "causal", "causal=True")
        self.query, self.key, self.value, self.out = (Dense(embed_dim, embed_dim, bias, rng=rng) for _ in range(4))
        self.dropout = Dropout(dropout, rng=rng)

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that are not attributes of the same name."""
        return {"bias": self.query.bias is not None, "dropout": self.dropout.p}

    def forward(self, query: Any, key: Any = None, value: Any = None, key_padding_mask: Any = None) -> Tensor:
        """Attend with each step of ``query`` to the steps of ``key``."""
        dtype = self.query.weight.dtype

        def checked(x: Any, name: str) -> Any:
            return as_layer_input(x, dtype, self, partial(self._check_shape, name), name)

        query = checked(query, "query")
        key = query if key is None else checked(key, "key")
        value = key if value is None else checked(value, "value")
        n, steps = query.shape[:1], key.shape[1:2]
        for name, x in (("query", query), ("key", key), ("value", value)):
            length = x.shape[1:2] if name == "query" else steps
            self._check_shape(name, x, (*n, *length))
        d = self.embed_dim // self.num_heads
        rows = _matrix(query)  # once for self-attention: the three maps then share one matrix and its node
        columns = rows if key is query else _matrix(key)
        entries = columns if value is key else _matrix(value)
        q = self._heads(self.query(rows), query.shape, (0, 2, 1, 3))  # N heads T d
        k = self._heads(self.key(columns), key.shape, (0, 2, 3, 1))  # N heads d S
        v = self._heads(self.value(entries), value.shape, (0, 2, 1, 3))  # N heads S d
        mask = self._mask(q.shape[2], k.shape[3], key_padding_mask, (*n, *steps))
        # q is scaled, which is smaller than the scores as soon as there are more steps than features of a head
        if mask is None:
            weights = softmax(matmul(q * (1 / sqrt(d)), k))
        else:
            weights = masked_softmax(matmul(q, k), mask, scale=1 / sqrt(d))
        y = matmul(self.dropout(weights), v)  # N heads T d
        joined = y.transpose((0, 2, 1, 3)).reshape((prod(query.shape[:2]), self.embed_dim))
        return self.out(joined).reshape(query.shape)

    def _check_shape(self, name: str, x: Any, rows: tuple[int, ...] | None = None) -> None:
        rows = x.shape[:2] if rows is None else rows
        if x.ndim != 3 or x.shape != (*rows, self.embed_dim) or 0 in x.shape[1:]:
            wanted = f"{name} of shape (N, {'T' if name == 'query' else 'S'}, {self.embed_dim})"
            raise ShapeError(self.where, wanted, x.shape, "key and value have the query's N and one S")

    def _heads(self, x: Tensor, shape: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
        return x.reshape((*shape[:2], self.num_heads, shape[2] // self.num_heads)).transpose(axes)

    def _mask(self, t: int, s: int, padding: Any, shape: tuple[int, ...]) -> Any:
        """Return which keys each step may see, or None if all may see all."""
        if padding is None:
            return np.tri(t, s, dtype=bool) if self.causal else None
        # by an op where the padding is a Tensor, so that a replay uses that of each batch
        if isinstance(padding, Tensor):
            return pure_callback(padding, by=self._seen, args=(t, s, shape))
        return self._seen(padding, t, s, shape)

    def _seen(self, padding: Any, t: int, s: int, shape: tuple[int, ...]) -> Any:
        padding = np.asarray(padding)
        if padding.dtype != bool:
            fix = "true where a key is to be left out"
            raise DTypeError(self.where, "a boolean key_padding_mask", padding.dtype, fix)
        if padding.shape != shape:
            raise ShapeError(self.where, f"key_padding_mask of shape {shape}", padding.shape)
        seen = ~padding[:, None, None, :]
        return seen & np.tri(t, s, dtype=bool) if self.causal else seen

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.embed_dim}, {self.num_heads} heads" + (", causal" if self.causal else "")


def _matrix(x: Any) -> Any:
    """Return rows and steps as one axis."""
    # one product of matrices, where matmul would call BLAS for each row of the batch
    return np.reshape(x, (prod(x.shape[:2]), x.shape[2]))
