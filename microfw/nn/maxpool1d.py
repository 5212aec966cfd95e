"""MaxPool1D: the largest entry of each window of a sequence."""

from __future__ import annotations

from typing import ClassVar

from microfw.nn.maxpool2d import MaxPool2D


class MaxPool1D(MaxPool2D):
    """Largest entry of each window of a sequence: (N, C, W) becomes (N, C, W').

    As `MaxPool2D`, with one axis in the place of two; kernel_size and stride are an integer.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> nn.MaxPool1D(2)(np.array([[[1.0, 3.0, 2.0, 5.0]]]))
    tensor([[[3., 5.]]])
    """

    axes: ClassVar[int] = 1
