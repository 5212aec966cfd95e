"""AvgPool1D: the mean of each window of a sequence."""

from __future__ import annotations

from typing import ClassVar

from microfw.nn.avgpool2d import AvgPool2D


class AvgPool1D(AvgPool2D):
    """Mean of each window of a sequence: (N, C, W) becomes (N, C, W').

    As `AvgPool2D`, with one axis in the place of two; kernel_size and stride are an integer.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> nn.AvgPool1D(2)(np.array([[[1.0, 3.0, 2.0, 5.0]]]))
    tensor([[[2. , 3.5]]])
    """

    axes: ClassVar[int] = 1
