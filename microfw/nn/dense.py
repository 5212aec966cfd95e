"""Dense: every output depends on every input."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.errors import DTypeError, ShapeError
from microfw.nn.checks import as_flag, as_input, positive, wrong_dtype
from microfw.nn.forward_state import as_generator
from microfw.nn.initializers import Seed, glorot_uniform, initial, initial_bias
from microfw.nn.module import Module
from microfw.nn.parameter import Parameter
from microfw.ops.linalg import linear, matmul


class Dense(Module):
    """Fully connected layer, ``y = x @ weight + bias``.

    Parameters
    ----------
    in_features, out_features : int
        Length of the last axis of ``x`` and of ``y``.
    bias : bool
        Whether to add a bias.
    rng : int, numpy.random.Generator or None
        Where the initial weights come from.
    init : callable or str
        ``init(shape, rng)`` returns the initial weight, or a name of `initializers` such as "he_normal";
        `glorot_uniform` by default.
    bias_init : callable or str, optional
        The same for the bias. By default it starts uniform within the bound of `glorot_uniform`, as in
        scikit-learn's networks, which trains small regressions better than zeros do.

    Raises
    ------
    ArgumentError
        If a size is not a positive integer.
    ShapeError
        When called, if the last axis of ``x`` is not ``in_features`` long; or if ``init`` gave another shape.
    DTypeError
        When called with a Tensor of another dtype, or with what is no array of numbers.

    Notes
    -----
    A step on a batch of B costs ``2 B in out`` operations forward, the same for the weight's gradient, and
    the same for the data's, unless the data needs none, as in a first layer.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> layer = nn.Dense(3, 2, rng=0)
    >>> layer(np.ones((4, 3))).shape
    (4, 2)
    """

    weight: Parameter  # (in, out)
    bias: Parameter | None  # (out,)

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rng: Seed = None,
        init: Callable[..., Any] | str = glorot_uniform,
        bias_init: Callable[..., Any] | str | None = None,
    ) -> None:
        positive("Dense", in_features=in_features, out_features=out_features)
        self.in_features = int(in_features)
        self.out_features = int(out_features)
        rng = as_generator("Dense", rng)
        bound = sqrt(6 / (self.in_features + self.out_features))
        self.weight = Parameter(initial("Dense", init, (self.in_features, self.out_features), rng))
        bias = as_flag(bias, "Dense", "bias", "bias=False")
        self.bias = Parameter(initial_bias("Dense", bias_init, self.out_features, rng, bound)) if bias else None

    def forward(self, x: Any) -> Tensor:
        """Map the last axis of ``x``."""
        weight, bias = self.weight, self.bias
        # A Tensor is not checked here: the op raises for a wrong shape or dtype, and the error is explained below.
        if not isinstance(x, Tensor):
            if type(x) is not np.ndarray or x.dtype is not weight._array.dtype:
                x = as_input(x, weight.dtype, self, self._check_shape)
            elif not x.ndim or x.shape[-1] != self.in_features:  # the op would first copy what it is to save
                self._check_shape(x)
        try:
            return linear(x, weight, bias) if bias is not None else matmul(x, weight)
        except ValueError:
            self._check_shape(x)
            raise
        except DTypeError:
            if x.dtype == weight.dtype:
                raise
            raise wrong_dtype(self, x, weight.dtype) from None

    def _check_shape(self, x: Any) -> None:
        if not x.ndim or x.shape[-1] != self.in_features:
            expected = f"x of shape (N, {self.in_features})"
            # from None: the reader needs not see the error of the op, which has no name of the layer
            raise ShapeError(self.where, expected, x.shape, "pass that many features") from None

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.in_features} -> {self.out_features}" + ("" if self.bias is not None else ", bias=False")
