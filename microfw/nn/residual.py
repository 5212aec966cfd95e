"""Residual: the input plus a module's output."""

from __future__ import annotations

from typing import Any

from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError, DTypeError, ShapeError
from microfw.nn.checks import as_layer_input, numbers
from microfw.nn.module import Module


class Residual(Module):
    """``shortcut(x) + module(x)``.

    Parameters
    ----------
    module : Module
        The module whose output is added to the input.
    shortcut : Module, optional
        A module for the input where shapes differ, such as ``Dense(64, 32, bias=False)``; nothing
        by default.

    Raises
    ------
    ShapeError
        When called, if the two have different shapes: nothing is broadcast.

    Notes
    -----
    Source: He et al., "Deep Residual Learning for Image Recognition", 2015, equations 1 and 2.

    Examples
    --------
    >>> from microfw import nn
    >>> nn.Residual(nn.Sequential(nn.Dense(8, 8, rng=0), nn.ReLU()))
    Residual()                                         72 parameters
      module: Sequential()                             72 parameters
        0: Dense(8 -> 8)    weight (8, 8), bias (8,)  72 parameters
        1: ReLU()
    """

    def __init__(self, module: Module, shortcut: Module | None = None) -> None:
        for name, part in (("module", module), ("shortcut", shortcut)):
            if not isinstance(part, Module) and not (part is None and name == "shortcut"):
                raise ArgumentError("Residual", f"{name} to be a Module", type(part).__name__)
        self.module = module
        self.shortcut = shortcut

    def forward(self, x: Any) -> Tensor:
        """Add the two."""
        x = x if isinstance(x, Tensor) else numbers(x, self)
        y: Any = self.module(x)
        if isinstance(y, tuple):
            raise self._several(y)
        x = as_layer_input(x, y.dtype, self, lambda x: None) if self.shortcut is None else self.shortcut(x)
        if x.shape != y.shape:
            fix = "pass a shortcut that makes the one like the other"
            raise ShapeError(self.where, f"the module to keep the shape {x.shape}", y.shape, fix)
        return y + x  # type: ignore[no-any-return]

    def _several(self, y: tuple[Any, ...]) -> DTypeError:
        got = f"a tuple of {len(y)} from {type(self.module).__name__}"
        return DTypeError(self.where, "module to return one Tensor", got, "add the two in a Module of yours")
