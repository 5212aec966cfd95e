"""Conv2D: the same small weights at every place of an image."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any, ClassVar

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.errors import DTypeError, ShapeError
from microfw.nn.checks import as_flag, as_input, positive, require, wrong_dtype
from microfw.nn.forward_state import as_generator
from microfw.nn.initializers import Seed, fans, glorot_uniform, initial, initial_bias
from microfw.nn.module import Module
from microfw.nn.parameter import Parameter
from microfw.nn.settings import setting
from microfw.ops.convolution import conv
from microfw.ops.windows import Padding, Sizes, check_padding, per_axis


class Conv2D(Module):
    """Convolution of images: ``y[n, o, i, j]`` is ``bias[o]`` plus ``weight[o]`` times a window of ``x[n]``.

    Shapes: (N, in_channels, H, W) to (N, out_channels, H', W'), with
    ``H' = floor((H + before + after - dilation * (kernel_size - 1) - 1) / stride) + 1``, and W' in the same way.

    Parameters
    ----------
    in_channels, out_channels : int
        Length of the second axis of ``x`` and of ``y``.
    kernel_size : int or pair of int
        Height and width of the window.
    stride : int or pair of int
        The step from window to window.
    padding : {"same", "valid"}, int, pair of int, or pair of pairs
        Zeros around the image: as many as make ``H' = ceil(H / stride)``; none; as many on both sides
        (``before = after = padding``), for all axes or for each; or (before, after) for each axis.
    dilation : int or pair of int
        The step from tap to tap within a window.
    groups : int
        Number of groups: the outputs of a group use the channels of the group only.
    bias : bool
        Whether to add a bias.
    rng : int, numpy.random.Generator or None
        Where the initial weights come from.
    init : callable or str
        ``init(shape, rng)`` returns the initial weight, or a name of `initializers` such as "he_normal";
        `glorot_uniform` by default.
    bias_init : callable or str, optional
        The same for the bias; by default uniform within the bound of `glorot_uniform`, as in `Dense`.

    Raises
    ------
    ArgumentError
        If a setting makes no sense.
    ShapeError
        When called, if ``x`` has other axes or channels, or is smaller than the window.

    Notes
    -----
    A step of B rows costs ``2 B H' W' (in / groups) out kh kw`` operations forward, the same for the
    weight's gradient, and the same for the data's, unless the data needs none, as in a first layer. In these
    products each weight costs as much as H' W' weights of a Dense layer in the same place.

    Source: LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998, section II.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> layer = nn.Conv2D(1, 8, 3, padding="same", rng=0)
    >>> layer(np.ones((4, 1, 8, 8))).shape
    (4, 8, 8, 8)
    """

    weight: Parameter  # (O, C / groups, kh, kw)
    bias: Parameter | None  # (O,)
    axes: ClassVar[int] = 2
    letters: ClassVar[str] = "H, W"
    transposed: ClassVar[bool] = False
    stride = setting("stride", "The step from window to window, for each axis.")
    padding = setting("padding", "Zeros before and after each axis, or a name.")
    dilation = setting("dilation", "The step from tap to tap, for each axis.")
    groups = setting("groups", "Number of groups.")

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Padding = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        rng: Seed = None,
        init: Callable[..., Any] | str = glorot_uniform,
        bias_init: Callable[..., Any] | str | None = None,
    ) -> None:
        kind = type(self).__name__
        positive(kind, in_channels=in_channels, out_channels=out_channels, groups=groups)
        got = f"{in_channels} and {out_channels} in {groups} groups"
        fits = in_channels % groups == out_channels % groups == 0
        require(fits, kind, "groups to divide in_channels and out_channels", got)
        self.in_channels = int(in_channels)
        self.out_channels = int(out_channels)
        self.kernel_size = per_axis(kernel_size, self.axes, kind, "kernel_size")
        self.settings = {
            "stride": per_axis(stride, self.axes, kind, "stride"),
            "padding": check_padding(padding, self.axes, kind),
            "dilation": per_axis(dilation, self.axes, kind, "dilation"),
            "groups": int(groups),
        }
        bias = as_flag(bias, kind, "bias", "bias=False")
        rng = as_generator(kind, rng)
        shape = (self.out_channels, self.in_channels // int(groups), *self.kernel_size)
        weight = initial(kind, init, shape, rng, int(groups))
        if self.transposed:  # inputs first, in each group; an initializer has the outputs first, to count the inputs
            blocks = weight.reshape((int(groups), self.out_channels // int(groups), *shape[1:])).swapaxes(1, 2)
            weight = blocks.reshape((self.in_channels, -1, *self.kernel_size))
        self.weight = Parameter(weight)
        bound = sqrt(6 / sum(fans(shape, int(groups))))
        self.bias = Parameter(initial_bias(kind, bias_init, self.out_channels, rng, bound)) if bias else None

    def forward(self, x: Any) -> Tensor:
        """Slide the weights over the images."""
        weight, bias = self.weight, self.bias
        # as_layer_input would compare the dtypes of Tensors too, which the op does anyway
        if not isinstance(x, Tensor) and (type(x) is not np.ndarray or x.dtype is not weight._array.dtype):
            x = as_input(x, weight.dtype, self, self._check_shape)
        else:
            self._check_shape(x)
        try:
            return conv(x, weight, 0 if bias is None else bias, **self.settings)
        except ShapeError as error:
            raise ShapeError(f"{self.where}{str(error).removeprefix('conv')}") from None
        except DTypeError:
            if x.dtype == weight.dtype:
                raise
            raise wrong_dtype(self, x, weight.dtype) from None

    def _check_shape(self, x: Any) -> None:
        if x.ndim != self.axes + 2 or x.shape[1] != self.in_channels:
            expected = f"x of shape (N, {self.in_channels}, {self.letters})"
            raise ShapeError(self.where, expected, x.shape, "reshape it, the channels second")

    def extra_repr(self) -> str:
        """Return the sizes, and the settings that are not the default."""
        shown = [f"{self.in_channels} -> {self.out_channels}", "×".join(map(str, self.kernel_size))]
        for name, value in self.settings.items():
            if (brief := _short(value)) != (0 if name == "padding" else 1):
                shown.append(f"{name}={brief}")
        return ", ".join(shown) + ("" if self.bias is not None else ", bias=False")


def _short(value: Any) -> Any:
    """Return one number for a tuple of equal ones.

    Examples
    --------
    >>> _short(((1, 1), (1, 1))), _short((2, 1)), _short("same")
    (1, (2, 1), 'same')
    """
    if isinstance(value, tuple) and len(set(value)) == 1:
        return _short(value[0])
    return tuple(map(_short, value)) if isinstance(value, tuple) else value
