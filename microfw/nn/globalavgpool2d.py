"""GlobalAvgPool2D: one number for each channel of an image."""

from __future__ import annotations

from typing import Any

from microfw.autograd.tensor import Tensor
from microfw.errors import ShapeError
from microfw.nn.checks import as_float_input
from microfw.nn.module import Module
from microfw.ops.reduction import mean


class GlobalAvgPool2D(Module):
    """Mean of each channel over the whole image: (N, C, H, W) becomes (N, C).

    Raises
    ------
    ShapeError
        When called, if ``x`` has other axes, or images have no entries.

    Notes
    -----
    Source: Lin, Chen and Yan, "Network In Network", 2014, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> nn.GlobalAvgPool2D()(np.arange(8.0).reshape(1, 2, 2, 2))
    tensor([[1.5, 5.5]])
    """

    def forward(self, x: Any) -> Tensor:
        """Average over the last two axes."""
        return mean(as_float_input(x, self, self._check_shape), axis=(2, 3))

    def _check_shape(self, x: Any) -> None:
        if x.ndim != 4 or not x.shape[2] * x.shape[3]:
            raise ShapeError(self.where, "x of shape (N, C, H, W), H and W at least 1", x.shape)
