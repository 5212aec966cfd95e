"""Group normalization: channels brought to mean 0 and variance 1 in groups, each row by itself."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.nn.checks import positive, require, wrong_shape
from microfw.nn.normalization import Normalization
from microfw.ops.normalization import normalize


class GroupNorm(Normalization):
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

    def __init__(self, groups: int, features: int, eps: float = 1e-5, affine: bool = True) -> None:
        positive("GroupNorm", groups=groups, features=features)
        got = f"{groups} groups of {features}"
        require(features % groups == 0, "GroupNorm", "groups that divide the channels evenly", got)
        self.groups, self.features = int(groups), int(features)
        super().__init__((self.features,), eps, affine)

    def forward(self, x: Any) -> Tensor:
        """Normalise each group of channels."""
        x = self._input(x)
        each = self.features // self.groups
        grouped = np.reshape(x, (x.shape[0], self.groups, each, prod(x.shape[2:])))
        weight, bias = self._scale_and_shift((self.groups, each, 1))
        return normalize(grouped, weight, bias, axes=(2, 3), eps=self.eps).reshape(x.shape)

    def _check_shape(self, x: Any) -> None:
        if x.ndim < 2 or x.shape[1] != self.features or 0 in x.shape[2:]:
            raise wrong_shape(self, f"(N, {self.features}, ...)", x, "pass that many channels on the second axis")

    def extra_repr(self) -> str:
        """Return the groups and the channels."""
        return f"{self.groups}, {self.features}{super().extra_repr()}"
