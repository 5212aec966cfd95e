"""TransformerEncoderLayer: attention, then two dense layers, each with a shortcut and a normalization."""

from __future__ import annotations

from typing import Any

from microfw.autograd.tensor import Tensor
from microfw.nn.activations import GELU, ReLU
from microfw.nn.attention import MultiHeadAttention
from microfw.nn.checks import as_flag, as_layer_input, positive, require, wrong_shape
from microfw.nn.dense import Dense
from microfw.nn.dropout import Dropout
from microfw.nn.forward_state import as_generator
from microfw.nn.initializers import Seed
from microfw.nn.layernorm import LayerNorm
from microfw.nn.module import Module

ACTIVATIONS = {"relu": ReLU, "gelu": GELU}


class TransformerEncoderLayer(Module):
    """A layer of a transformer's encoder; with ``causal=True`` one of a decoder without an encoder.

    With ``feed(x) = linear2(dropout(activation(linear1(x))))``::

        x = norm1(x + dropout(self_attn(x)))
        x = norm2(x + dropout(feed(x)))

    or, if ``norm_first``::

        x = x + dropout(self_attn(norm1(x)))
        x = x + dropout(feed(norm2(x)))

    Parameters
    ----------
    d_model : int
        Number E of features of each step, in and out; a multiple of ``nhead``.
    nhead : int
        Number of heads of the attention.
    dim_feedforward : int
        Number of features between the two dense layers.
    dropout : float
        Probability to drop an entry, or an attention weight, in training.
    activation : {"relu", "gelu"}
        The activation between the two dense layers.
    norm_first : bool
        Whether to normalize the inputs of the two parts in place of the sums.
    causal : bool
        Whether a step sees only itself and the steps before it.
    rng : int, numpy.random.Generator or None
        Where the initial weights and the dropout come from.

    Returns
    -------
    Tensor
        When called with ``x`` (N, T, E): of the same shape. A second argument, ``key_padding_mask``, a boolean array
        (N, T), is true for steps to leave out, as for `MultiHeadAttention`.

    Raises
    ------
    ArgumentError
        If a setting is out of range, or the heads do not divide the features.
    ShapeError
        When called, if ``x`` or the mask has another shape.
    DTypeError
        When called, if the mask is not boolean.

    Notes
    -----
    Source: Vaswani et al., "Attention Is All You Need", 2017, section 3.1; ``norm_first``: Xiong et al., "On Layer
    Normalization in the Transformer Architecture", 2020. The parts have the names of PyTorch's
    ``nn.TransformerEncoderLayer``.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> layer = nn.TransformerEncoderLayer(8, 2, 16, rng=0)
    >>> layer(np.ones((3, 5, 8))).shape
    (3, 5, 8)
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str = "relu",
        *,
        norm_first: bool = False,
        causal: bool = False,
        rng: Seed = None,
    ) -> None:
        name = type(self).__name__
        positive(name, d_model=d_model, nhead=nhead, dim_feedforward=dim_feedforward)
        known = isinstance(activation, str) and activation in ACTIVATIONS  # a list has no hash
        require(known, name, "activation to be 'relu' or 'gelu'", repr(activation))
        rng = as_generator("TransformerEncoderLayer", rng)
        self.d_model, self.nhead, self.dim_feedforward = int(d_model), int(nhead), int(dim_feedforward)
        self.activation = activation
        self.norm_first = as_flag(norm_first, name, "norm_first", "norm_first=True")
        self.self_attn = MultiHeadAttention(d_model, nhead, causal=causal, dropout=dropout, rng=rng)
        self.linear1 = Dense(d_model, dim_feedforward, rng=rng)
        self.linear2 = Dense(dim_feedforward, d_model, rng=rng)
        self.norm1, self.norm2 = LayerNorm(d_model), LayerNorm(d_model)
        self.dropout = Dropout(dropout, rng=rng)
        self.act = ACTIVATIONS[activation]()

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that are not attributes of the same name."""
        return {"dropout": self.dropout.p, "causal": self.self_attn.causal}

    def forward(self, x: Any, key_padding_mask: Any = None) -> Tensor:
        """Attend, then feed each step through the dense layers."""
        x = as_layer_input(x, self.linear1.weight.dtype, self, self._check_shape)
        if self.norm_first:
            x = x + self._attend(self.norm1(x), key_padding_mask)
            return x + self._feed(self.norm2(x))  # type: ignore[no-any-return]
        x = self.norm1(x + self._attend(x, key_padding_mask))
        return self.norm2(x + self._feed(x))

    def _check_shape(self, x: Any) -> None:
        if x.ndim != 3 or x.shape[2] != self.d_model or not x.shape[1]:
            fix = "the axes are row, step, feature, with at least one step"
            raise wrong_shape(self, f"(N, T, {self.d_model})", x, fix)

    def _attend(self, x: Any, mask: Any) -> Any:
        return self.dropout(self.self_attn(x, key_padding_mask=mask))

    def _feed(self, x: Any) -> Any:
        return self.dropout(self.linear2(self.dropout(self.act(self.linear1(x)))))

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.d_model}, {self.nhead} heads, {self.dim_feedforward}" + ", norm_first" * self.norm_first
