"""GlobalAvgPool1D: one number for each channel of a sequence."""

from __future__ import annotations

from typing import ClassVar

from microfw.nn.globalavgpool2d import GlobalAvgPool2D


class GlobalAvgPool1D(GlobalAvgPool2D):
    """Mean of each channel over the whole sequence: (N, C, W) becomes (N, C).

    Raises
    ------
    ShapeError
        When called, if ``x`` has other axes, or sequences have no entries.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> nn.GlobalAvgPool1D()(np.array([[[1.0, 2.0], [5.0, 7.0]]]))
    tensor([[1.5, 6. ]])
    """

    axes: ClassVar[int] = 1
    letters: ClassVar[str] = "W"
