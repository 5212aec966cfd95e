"""Upsample: sequences and images made longer by whole factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.errors import ShapeError
from microfw.nn.checks import as_float_input, require
from microfw.nn.module import Module
from microfw.ops.indexing import take
from microfw.ops.layout import broadcast_to, reshape
from microfw.ops.windows import AXES, per_axis

MODES = {"nearest": (1, 2, 3), "linear": (1,), "bilinear": (2,)}
"""For how many axes each mode is."""


class Upsample(Module):
    """Make sequences (N, C, W) or images (N, C, H, W) longer along each axis behind the channels.

    Parameters
    ----------
    scale_factor : int or sequence of int
        By what the length is multiplied; one number for each axis, or for all.
    mode : {"nearest", "linear", "bilinear"}
        Each entry repeated; or a line between neighbours, along the axis of a sequence, or both axes of an image.
        Entries lie in the middle of their pixels, as with PyTorch's ``align_corners=False``.

    Raises
    ------
    ArgumentError
        If a factor is not a positive integer, or the mode is unknown.
    ShapeError
        When called, if ``x`` has other axes, or no entries along one of them.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> x = np.array([[[1.0, 3.0]]])
    >>> nn.Upsample(scale_factor=2)(x)
    tensor([[[1., 1., 3., 3.]]])
    >>> nn.Upsample(scale_factor=2, mode="linear")(x)
    tensor([[[1. , 1.5, 2.5, 3. ]]])
    """

    # by keyword: in PyTorch the first position is the size of the output
    def __init__(self, *, scale_factor: int | Sequence[int], mode: str = "nearest") -> None:
        several = isinstance(scale_factor, tuple | list)
        sizes = per_axis(scale_factor, len(scale_factor) if several else 1, "Upsample", "scale_factor")  # type: ignore[arg-type]
        known = isinstance(mode, str) and mode in MODES  # a list has no hash
        require(known, "Upsample", f"mode to be one of {', '.join(MODES)}", repr(mode))
        axes = MODES[mode]
        fits = not several or len(sizes) in axes
        require(
            fits, "Upsample", f"scale_factor to be one number, or {' or '.join(map(str, axes))}", repr(scale_factor)
        )
        self.scale_factor = sizes if several else sizes[0]
        self.mode = mode

    def forward(self, x: Any) -> Tensor:
        """Repeat entries, or put others between them."""
        x = as_float_input(x, self, self._check_shape)
        scales = per_axis(self.scale_factor, x.ndim - 2, "Upsample", "scale_factor")
        sizes = tuple(n * s for n, s in zip(x.shape[2:], scales, strict=True))
        if self.mode != "nearest":
            for axis, scale in enumerate(scales, 2):
                x = _between(x, scale, axis)
            return x  # type: ignore[no-any-return]
        apart = tuple(n for size in x.shape[2:] for n in (size, 1))
        to = tuple(n for pair in zip(x.shape[2:], scales, strict=True) for n in pair)
        copies = broadcast_to(reshape(x, shape=(*x.shape[:2], *apart)), to=(*x.shape[:2], *to))
        return reshape(copies, shape=(*x.shape[:2], *sizes))

    def _check_shape(self, x: Any) -> None:
        axes = (len(self.scale_factor),) if isinstance(self.scale_factor, tuple) else MODES[self.mode]
        if x.ndim - 2 not in axes or 0 in x.shape[2:]:
            shapes = " or ".join(AXES[n] for n in axes)
            raise ShapeError(self.where, f"x of shape {shapes}, with entries along each axis", x.shape)

    def extra_repr(self) -> str:
        """Return the factor and the mode."""
        return f"{self.scale_factor}, {self.mode}"


def _between(x: Any, scale: int, axis: int) -> Tensor:
    """Return weighted means of neighbours along an axis."""
    n = x.shape[axis]
    at = np.maximum((np.arange(n * scale) + 0.5) / scale - 0.5, 0)
    left = at.astype(np.intp)
    share = (at - left).astype(x.dtype).reshape((-1,) + (1,) * (x.ndim - 1 - axis))
    return take(x, left, axis=axis) * (1 - share) + take(x, np.minimum(left + 1, n - 1), axis=axis) * share
