"""Base of the layers that bring entries to mean 0 and variance 1, and then scale and shift them."""

from __future__ import annotations

import math
from typing import Any

from microfw.nn.checks import as_flag, as_float_input, as_layer_input, as_number
from microfw.nn.initializers import constant
from microfw.nn.module import Module
from microfw.nn.parameter import Parameter


class Normalization(Module):
    """Base of normalization layers: learned scales and shifts, unless ``affine`` is False.

    Parameters
    ----------
    shape : tuple of int
        Shape of the scales and of the shifts.
    eps : float
        Added to the variance.
    affine : bool
        Whether to learn ``weight`` and ``bias``; they start at 1 and 0.
    """

    weight: Parameter | None  # shape
    bias: Parameter | None  # shape

    def __init__(self, shape: tuple[int, ...], eps: float, affine: bool) -> None:
        # eps keeps constant input from being divided by 0
        self.eps = as_number(eps, lambda eps: 0 < eps < math.inf, type(self).__name__, "a positive eps")
        affine = as_flag(affine, type(self).__name__, "affine", "affine=False")
        self.weight = Parameter(constant(shape, 1.0)) if affine else None
        self.bias = Parameter(constant(shape, 0.0)) if affine else None

    @property
    def affine(self) -> bool:
        """Whether the layer has scales and shifts."""
        return self.weight is not None

    def _input(self, x: Any) -> Any:
        if self.weight is None:  # without parameters there is no dtype to cast to
            return as_float_input(x, self, self._check_shape)
        return as_layer_input(x, self.weight.dtype, self, self._check_shape)

    def _check_shape(self, x: Any) -> None:
        raise NotImplementedError

    def _scale_and_shift(self, shape: tuple[int, ...]) -> tuple[Any, Any]:
        """Return both in a shape that broadcasts to the input."""
        if self.weight is None or self.bias is None:
            return 1.0, 0.0
        if self.weight.shape == shape:  # no node for a reshape that changes nothing
            return self.weight, self.bias
        return self.weight.reshape(shape), self.bias.reshape(shape)

    def extra_repr(self) -> str:
        """Return the suffix for a layer without scales and shifts."""
        return "" if self.affine else ", affine=False"
