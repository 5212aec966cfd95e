"""Layers that only pass on: Identity, and Lambda for a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from microfw.nn.checks import require
from microfw.nn.module import Module


class Identity(Module):
    """Return the input unchanged: a placeholder for a layer."""

    def forward(self, x: Any) -> Any:
        """Return ``x``."""
        return x


class Lambda(Module):
    """A function as a layer.

    Parameters
    ----------
    function : callable
        Of what the layer is called with. It records nodes where it computes with operators and NumPy
        functions. A function defined at the top of a module can be pickled, and copied with its model; a
        lambda expression cannot be pickled.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> model = nn.Sequential(nn.Dense(3, 2, rng=0), nn.Lambda(np.sin))
    >>> model[1]
    Lambda(sin)
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        require(callable(function), "Lambda", "a function", type(function).__name__)
        self.function = function

    def forward(self, *inputs: Any) -> Any:
        """Call the function."""
        return self.function(*inputs)

    def extra_repr(self) -> str:
        """Return the function's name."""
        return getattr(self.function, "__name__", type(self.function).__name__)
