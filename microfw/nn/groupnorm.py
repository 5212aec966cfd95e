"""Group normalization: channels brought to mean 0 and variance 1 in groups, each row by itself."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError, message
from microfw.nn.checks import as_float_input, as_layer_input, positive, positive_eps, wrong_shape
from microfw.nn.initializers import constant
from microfw.nn.module import Module, Parameter
from microfw.ops.normalization import normalize


class GroupNorm(Module):
    """Normalise groups of channels of `(N, C, ...)`, over what follows the channels too.

    With one group it normalises all channels together, with C groups each by itself.

    Parameters
    ----------
    groups : int
        Into how many groups the channels are divided.
    features : int
        Length C of the second axis; a multiple of ``groups``.
    eps : float
        Added to the variance.
    affine : bool
        Whether to learn ``weight`` and ``bias`` for each channel; they start at 1 and 0.

    Raises
    ------
    ArgumentError
        If a setting is out of range, or the groups do not divide the channels.
    ShapeError
        When called, if the second axis of ``x`` is not ``features`` long.

    Notes
    -----
    Source: Wu and He, "Group Normalization", 2018, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> nn.GroupNorm(2, 4)(np.array([[1.0, 3.0, 10.0, 30.0]])).numpy().round(3)
    array([[-1.,  1., -1.,  1.]], dtype=float32)
    """

    weight: Parameter | None  # (C,)
    bias: Parameter | None  # (C,)

    def __init__(self, groups: int, features: int, eps: float = 1e-5, affine: bool = True) -> None:
        positive("GroupNorm", groups=groups, features=features)
        positive_eps("GroupNorm", eps)
        if features % groups:
            got = f"{groups} groups of {features}"
            raise ArgumentError(message("GroupNorm", "groups that divide the channels evenly", got))
        self.groups, self.features, self.eps = int(groups), int(features), eps
        self.weight = Parameter(constant((self.features,), 1.0)) if affine else None
        self.bias = Parameter(constant((self.features,), 0.0)) if affine else None

    def forward(self, x: Any) -> Tensor:
        """Normalise each group of channels."""
        check = self._check_shape
        x = as_float_input(x, self, check) if self.weight is None else as_layer_input(x, self.weight.dtype, self, check)
        each = self.features // self.groups
        grouped = np.reshape(x, (x.shape[0], self.groups, each, prod(x.shape[2:])))
        weight: Any = 1.0
        bias: Any = 0.0
        if self.weight is not None and self.bias is not None:
            weight = self.weight.reshape((self.groups, each, 1))
            bias = self.bias.reshape((self.groups, each, 1))
        return normalize(grouped, weight, bias, axes=(2, 3), eps=self.eps).reshape(x.shape)

    def _check_shape(self, x: Any) -> None:
        if x.ndim < 2 or x.shape[1] != self.features or 0 in x.shape[2:]:
            raise wrong_shape(self, f"(N, {self.features}, ...)", x, "pass that many channels on the second axis")

    def extra_repr(self) -> str:
        """Return the groups and the channels."""
        return f"{self.groups}, {self.features}" + ("" if self.weight is not None else ", affine=False")
