"""Layer normalization: each row brought to mean 0 and variance 1."""

from __future__ import annotations

from typing import Any

from microfw.autograd.tensor import Tensor
from microfw.nn.checks import positive, require, wrong_shape
from microfw.nn.normalization import Normalization
from microfw.ops.normalization import normalize


class LayerNorm(Normalization):
    """Normalise over the last axis, or the last axes, each row by itself.

    ``y = (x - mean) / sqrt(variance + eps) * weight + bias``, in training as in evaluation.

    Parameters
    ----------
    shape : int or tuple of int
        Length of the axes to normalise over.
    eps : float
        Added to the variance.
    affine : bool
        Whether to learn ``weight`` and ``bias`` for each entry; they start at 1 and 0.

    Raises
    ------
    ArgumentError
        If a setting is out of range.
    ShapeError
        When called, if the last axes of ``x`` have another length.

    Notes
    -----
    Source: Ba, Kiros and Hinton, "Layer Normalization", 2016, equations 3 and 4.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> nn.LayerNorm(2)(np.array([[1.0, 3.0]])).numpy().round(3)
    array([[-1.,  1.]], dtype=float32)
    """

    def __init__(self, shape: int | tuple[int, ...], eps: float = 1e-5, affine: bool = True) -> None:
        sizes = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
        require(sizes, "LayerNorm", "a shape of at least one axis", shape)
        for size in sizes:
            positive("LayerNorm", shape=size)
        self.shape = tuple(int(n) for n in sizes)
        super().__init__(self.shape, eps, affine)

    def forward(self, x: Any) -> Tensor:
        """Normalise the last axes."""
        x = self._input(x)
        axes = tuple(range(x.ndim - len(self.shape), x.ndim))
        weight, bias = self._scale_and_shift(self.shape)
        return normalize(x, weight, bias, axes=axes, eps=self.eps)

    def _check_shape(self, x: Any) -> None:
        if x.shape[-len(self.shape) :] != self.shape:
            sizes = ", ".join(map(str, self.shape))
            raise wrong_shape(self, f"(..., {sizes})", x, "pass that many features")

    def extra_repr(self) -> str:
        """Return the shape."""
        return f"{self.shape[0] if len(self.shape) == 1 else self.shape}{super().extra_repr()}"
