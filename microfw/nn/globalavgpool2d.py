"""GlobalAvgPool2D: one number for each channel of an image."""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar

from microfw.autograd.tensor import Tensor
from microfw.errors import ShapeError
from microfw.nn.checks import as_float_input
from microfw.nn.module import Module
from microfw.ops.reduction import mean
from microfw.ops.windows import AXES


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

    axes: ClassVar[int] = 2
    letters: ClassVar[str] = "H and W"

    def forward(self, x: Any) -> Tensor:
        """Average over the axes behind the channels."""
        return mean(as_float_input(x, self, self._check_shape), axis=tuple(range(2, 2 + self.axes)))

    def _check_shape(self, x: Any) -> None:
        if x.ndim != self.axes + 2 or not prod(x.shape[2:]):
            raise ShapeError(self.where, f"x of shape {AXES[self.axes]}, {self.letters} at least 1", x.shape)
