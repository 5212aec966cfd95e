"""AvgPool2D: the mean of each window."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from microfw.autograd.tensor import Tensor
from microfw.nn.maxpool2d import MaxPool2D
from microfw.ops.pooling import avg_pool


class AvgPool2D(MaxPool2D):
    """Mean of each window: (N, C, H, W) becomes (N, C, H', W').

    Settings are those of `MaxPool2D`; padding is of zeros, which count.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> nn.AvgPool2D(2)(np.arange(16.0).reshape(1, 1, 4, 4))
    tensor([[[[ 2.5,  4.5],
              [10.5, 12.5]]]])
    """

    op: ClassVar[Callable[..., Tensor]] = staticmethod(avg_pool)
