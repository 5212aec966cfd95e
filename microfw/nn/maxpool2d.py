"""MaxPool2D: the largest entry of each window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError, ShapeError
from microfw.nn.checks import as_float_input
from microfw.nn.conv2d import _short
from microfw.nn.module import Module
from microfw.nn.settings import setting
from microfw.ops.pooling import max_pool
from microfw.ops.windows import AXES, Padding, Sizes, check_padding, geometry, per_axis


class MaxPool2D(Module):
    """Largest entry of each window: (N, C, H, W) becomes (N, C, H', W').

    ``H' = floor((H + before + after - kernel_size) / stride) + 1``, with the padding before and after as in `Conv2D`;
    W' in the same way.

    Parameters
    ----------
    kernel_size : int or pair of int
        Height and width of the window.
    stride : int or pair of int, optional
        The step from window to window; by default the kernel's size, so that windows tile the image.
    padding : {"same", "valid"}, int, pair of int, or pair of pairs
        As in `Conv2D`, but with entries that never win; less than the kernel.

    Raises
    ------
    ArgumentError
        If a setting makes no sense.
    ShapeError
        When called, if ``x`` has other axes or is smaller than the window.

    Notes
    -----
    Of equal entries the first, row by row, gets the gradient.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> nn.MaxPool2D(2)(np.arange(16.0).reshape(1, 1, 4, 4))
    tensor([[[[ 5.,  7.],
              [13., 15.]]]])
    """

    axes: ClassVar[int] = 2
    stride = setting("stride", "The step from window to window, for each axis.")
    padding = setting("padding", "Entries that never win, before and after each axis, or a name.")
    op: ClassVar[Callable[..., Tensor]] = staticmethod(max_pool)

    def __init__(self, kernel_size: Sizes, stride: Sizes | None = None, padding: Padding = 0) -> None:
        kind = type(self).__name__
        kernel = per_axis(kernel_size, self.axes, kind, "kernel_size")
        pads = check_padding(padding, self.axes, kind)
        if not isinstance(pads, str) and any(max(pair) >= k for pair, k in zip(pads, kernel, strict=True)):
            raise ArgumentError(kind, f"padding below the kernel_size {kernel}", repr(padding))
        self.settings: dict[str, Any] = {
            "kernel": kernel,
            "stride": kernel if stride is None else per_axis(stride, self.axes, kind, "stride"),
            "padding": pads,
        }

    @property
    def kernel_size(self) -> tuple[int, ...]:
        """Height and width of the window."""
        kernel: tuple[int, ...] = self.settings["kernel"]
        return kernel

    def forward(self, x: Any) -> Tensor:
        """Reduce each window to one entry."""
        x = as_float_input(x, self, self._check_shape)
        try:
            return self.op(x, **self.settings)
        except ShapeError as error:
            raise ShapeError(f"{self.where}{str(error).removeprefix(self.op.__name__)}") from None

    def _check_shape(self, x: Any) -> None:
        if x.ndim != self.axes + 2:
            raise ShapeError(self.where, f"x of shape {AXES[self.axes]}", x.shape)
        if not isinstance(x, Tensor):  # the op would first copy what it is to save
            geometry(self.where, x.shape[2:], **self.settings)

    def extra_repr(self) -> str:
        """Return the window, and the settings that are not the default."""
        kernel, stride, pads = self.settings.values()
        shown = "×".join(map(str, kernel))
        shown += "" if stride == kernel else f", stride={_short(stride)}"
        return shown + (f", padding={_short(pads)}" if _short(pads) else "")
