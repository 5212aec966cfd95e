"""Flatten: all axes but the first become one."""

from __future__ import annotations

from math import prod
from typing import Any

from microfw.autograd.tensor import Tensor
from microfw.nn.checks import numbers, wrong_shape
from microfw.nn.module import Module


class Flatten(Module):
    """Turn ``(N, ...)`` into ``(N, features)``."""

    def forward(self, x: Any) -> Tensor:
        """Flatten all axes but the first."""
        if not isinstance(x, Tensor):
            x = numbers(x, self)
        if not x.ndim:
            raise wrong_shape(self, "(N, ...)", x, "give it an axis for the rows")
        n, *rest = x.shape
        return x.reshape((n, prod(rest)))  # type: ignore[no-any-return]
