"""ConvTranspose2D: the way back from the places of a convolution to a larger image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.errors import ShapeError
from microfw.nn.checks import as_layer_input, require
from microfw.nn.conv2d import Conv2D, _short
from microfw.nn.initializers import Seed, glorot_uniform
from microfw.nn.parameter import Parameter
from microfw.ops.convolution import _smallest, conv_transpose
from microfw.ops.windows import Padding, Sizes


class ConvTranspose2D(Conv2D):
    """Transpose of `Conv2D`: spreads each entry of ``x`` over a window of ``y``.

    Shapes: (N, in_channels, H, W) to (N, out_channels, H', W'), with
    ``H' = (H - 1) stride - 2 padding + dilation (kernel_size - 1) + output_padding + 1``, or ``H stride`` for
    "same". A stride of 2 doubles the sides, as in the decoder of an autoencoder.

    Parameters
    ----------
    in_channels, out_channels : int
        Length of the second axis of ``x`` and of ``y``.
    kernel_size, stride : int or pair of int
        Height and width of the window, and the step from window to window in ``y``.
    padding : {"same", "valid"}, int, pair of int, or pair of pairs
        That of the convolution: so much of each side of ``y`` is left out.
    output_padding : int or pair of int
        Rows and columns added to ``y`` at the end; less than the stride.
    groups : int
        Number of groups, as in `Conv2D`.
    bias : bool
        Whether to add a bias.
    dilation : int or pair of int
        The step from tap to tap within a window.
    rng : int, numpy.random.Generator or None
        Where the initial weights come from.
    init, bias_init : callable or str
        As for `Conv2D`. The weight has the shape (in_channels, out_channels / groups, kh, kw).

    Raises
    ------
    ArgumentError
        If a setting makes no sense.
    ShapeError
        When called, if ``x`` has other axes or channels, or nothing is left of ``y``.

    Notes
    -----
    Source: Dumoulin and Visin, "A guide to convolution arithmetic for deep learning", 2016, chapter 4.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> layer = nn.ConvTranspose2D(8, 1, 3, stride=2, padding=1, output_padding=1, rng=0)
    >>> layer(np.ones((4, 8, 7, 7))).shape
    (4, 1, 14, 14)
    """

    weight: Parameter  # (C, O / groups, kh, kw)
    transposed: ClassVar[bool] = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Padding = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sizes = 1,
        *,
        rng: Seed = None,
        init: Callable[..., Any] | str = glorot_uniform,
        bias_init: Callable[..., Any] | str | None = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            rng=rng, init=init, bias_init=bias_init,
        )  # fmt: skip
        steps: Any = self.settings["stride"]
        extra = (output_padding,) * self.axes if isinstance(output_padding, int | np.integer) else output_padding
        fits = isinstance(extra, tuple | list) and len(extra) == self.axes
        fits = fits and all(isinstance(n, int | np.integer) and 0 <= n < s for n, s in zip(extra, steps, strict=True))
        fits = fits and (self.settings["padding"] != "same" or not any(extra))  # "same" gives the largest size already
        expected = f"output_padding from 0 to below the stride {_short(steps)}, and 0 with padding 'same'"
        require(fits, type(self).__name__, expected, repr(output_padding))
        self.output_padding = tuple(map(int, extra))

    def forward(self, x: Any) -> Tensor:
        """Spread the entries of ``x`` over windows."""
        x = as_layer_input(x, self.weight.dtype, self, self._check_shape)
        y = conv_transpose(x, self.weight, size=self._size(x), **self.settings)
        return y if self.bias is None else y + self.bias.reshape((-1,) + (1,) * self.axes)

    def _size(self, x: Any) -> tuple[int, ...]:
        stride, padding, dilation, _ = self.settings.values()
        small = _smallest(x.shape[2:], self.kernel_size, stride, padding, dilation)
        return tuple(n + more for n, more in zip(small, self.output_padding, strict=True))

    def _check_shape(self, x: Any) -> None:
        super()._check_shape(x)
        size = self._size(x)
        if 0 in x.shape[2:] or min(size) < 1:
            raise ShapeError(self.where, "an x from which some output is left", f"{x.shape}, which gives {size}")

    def extra_repr(self) -> str:
        """Return the sizes, and the settings that are not the default."""
        extra = f", output_padding={_short(self.output_padding)}" if any(self.output_padding) else ""
        return super().extra_repr() + extra
