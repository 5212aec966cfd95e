"""Convolutions and poolings with the number of axes in the name, as in PyTorch.

`conv`, `conv_transpose`, `max_pool` and `avg_pool` take one, two or three axes, as ``x`` has. These take exactly the
number in their names, and record the same ops.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.errors import ShapeError
from microfw.ops.convolution import conv, conv_transpose
from microfw.ops.pooling import avg_pool, max_pool
from microfw.ops.windows import AXES, Padding, Sizes


def conv1d(
    x: Any, w: Any, b: Any = None, stride: Sizes = 1, padding: Padding = 0, dilation: Sizes = 1, groups: int = 1
) -> Tensor:
    """Convolution of sequences: (N, C, W) by (O, C / groups, kw), plus (O,) or None, is (N, O, W'); see `conv`.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import ops
    >>> ops.conv1d(np.array([[[1.0, 2.0, 4.0]]]), np.array([[[-1.0, 1.0]]]))
    tensor([[[1., 2.]]])
    """
    x, b = _axes("conv1d", x, 1), 0 if b is None else b
    return conv(x, w, b, stride=stride, padding=padding, dilation=dilation, groups=groups)


def conv2d(
    x: Any, w: Any, b: Any = None, stride: Sizes = 1, padding: Padding = 0, dilation: Sizes = 1, groups: int = 1
) -> Tensor:
    """Convolution of images: (N, C, H, W) by (O, C / groups, kh, kw), plus (O,) or None, is (N, O, H', W').

    See `conv`.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import ops
    >>> ops.conv2d(np.ones((1, 1, 3, 3)), np.ones((2, 1, 2, 2)), stride=1, padding="same").shape
    (1, 2, 3, 3)
    """
    x, b = _axes("conv2d", x, 2), 0 if b is None else b
    return conv(x, w, b, stride=stride, padding=padding, dilation=dilation, groups=groups)


def conv_transpose2d(
    x: Any,
    w: Any,
    b: Any = None,
    *,
    size: Sizes | None = None,
    stride: Sizes = 1,
    padding: Padding = 0,
    dilation: Sizes = 1,
    groups: int = 1,
) -> Tensor:
    """Transpose of `conv2d`: (N, O, H', W') by (O, C / groups, kh, kw), plus (C,) or None, is (N, C, H, W).

    ``size`` is (H, W), where several lead to the same (H', W'); see `conv_transpose`.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import ops
    >>> ops.conv_transpose2d(np.ones((1, 2, 4, 4)), np.ones((2, 3, 3, 3)), stride=2).shape
    (1, 3, 9, 9)
    """
    x = _axes("conv_transpose2d", x, 2)
    y = conv_transpose(x, w, size=size, stride=stride, padding=padding, dilation=dilation, groups=groups)
    if b is None:
        return y
    if np.shape(b) != y.shape[1:2]:
        raise ShapeError("conv_transpose2d", f"b of shape {y.shape[1:2]}, or None", np.shape(b))
    return y + np.reshape(b, (-1, 1, 1))


def max_pool2d(x: Any, kernel_size: Sizes, stride: Sizes | None = None, padding: Padding = 0) -> Tensor:
    """Largest entry of each window of images; see `max_pool`.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import ops
    >>> ops.max_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    tensor([[[[ 5.,  7.],
              [13., 15.]]]])
    """
    return max_pool(_axes("max_pool2d", x, 2), kernel=kernel_size, stride=stride, padding=padding)


def avg_pool2d(x: Any, kernel_size: Sizes, stride: Sizes | None = None, padding: Padding = 0) -> Tensor:
    """Mean of each window of images; see `avg_pool`.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import ops
    >>> ops.avg_pool2d(np.arange(16.0).reshape(1, 1, 4, 4), 2)
    tensor([[[[ 2.5,  4.5],
              [10.5, 12.5]]]])
    """
    return avg_pool(_axes("avg_pool2d", x, 2), kernel=kernel_size, stride=stride, padding=padding)


def _axes(where: str, x: Any, axes: int) -> Any:
    """Return ``x`` if it has the given number of axes besides rows and channels."""
    if np.ndim(x) != axes + 2:
        raise ShapeError(where, f"x of shape {AXES[axes]}", np.shape(x), "reshape it, the channels second")
    return x
