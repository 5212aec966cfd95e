"""ConvTranspose1D: the way back from the places of a convolution to a longer sequence."""

from __future__ import annotations

from typing import ClassVar

from microfw.nn.convtranspose2d import ConvTranspose2D


class ConvTranspose1D(ConvTranspose2D):
    """Transpose of `Conv1D`: (N, in_channels, W) becomes (N, out_channels, W').

    As `ConvTranspose2D`, with one axis in the place of two; kernel_size, stride, output_padding and dilation are an
    integer.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> nn.ConvTranspose1D(3, 5, 4, stride=2, padding=1, rng=0)(np.ones((2, 3, 10))).shape
    (2, 5, 20)
    """

    axes: ClassVar[int] = 1
    letters: ClassVar[str] = "W"
