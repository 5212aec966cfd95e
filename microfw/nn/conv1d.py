"""Conv1D: the same small weights at every place of a sequence."""

from __future__ import annotations

from typing import ClassVar

from microfw.nn.conv2d import Conv2D


class Conv1D(Conv2D):
    """Convolution of sequences: (N, in_channels, W) becomes (N, out_channels, W').

    As `Conv2D`, with one axis in the place of two: kernel_size, stride and dilation are an integer, padding is
    "same", "valid", an integer for both sides or ``[(before, after)]``; ``padding=[(2, 0)]`` with a kernel of 3 looks
    only back.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> nn.Conv1D(3, 5, 4, stride=2, rng=0)(np.ones((2, 3, 10))).shape
    (2, 5, 4)
    """

    axes: ClassVar[int] = 1
    letters: ClassVar[str] = "W"
