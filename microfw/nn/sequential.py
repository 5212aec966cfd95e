"""Sequential: layers one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, overload

from microfw.autograd.scope import THREAD_SCOPE
from microfw.errors import ArgumentError
from microfw.nn.module import Module


class Sequential(Module):
    """Layers applied in order; their names are "0", "1", ….

    Parameters
    ----------
    *layers : Module
        The layers.

    Examples
    --------
    >>> from microfw import nn
    >>> model = nn.Sequential(nn.Dense(64, 32, rng=0), nn.ReLU(), nn.Dense(32, 10, rng=1))
    >>> model
    Sequential()                                             2,410 parameters
      0: Dense(64 -> 32)  weight (64, 32), bias (32,)  2,080 parameters
      1: ReLU()
      2: Dense(32 -> 10)  weight (32, 10), bias (10,)  330 parameters
    """

    def __init__(self, *layers: Module) -> None:
        for k, layer in enumerate(layers):
            if not isinstance(layer, Module):
                raise ArgumentError("Sequential", f"layer {k} to be a Module", _named(layer), _mended(layer))
        self.layers = layers

    def forward(self, x: Any) -> Any:
        """Apply the layers."""
        # What Module.__call__ does for one layer, with one reset for all; layer.forward saves a call each.
        outer = THREAD_SCOPE.scope
        try:
            for layer in self.layers:
                THREAD_SCOPE.scope = (layer, outer)
                x = layer.forward(x)
        finally:
            THREAD_SCOPE.scope = outer
        return x

    def children(self) -> Iterator[tuple[str, Any]]:
        """Yield the layers, by number."""
        yield from ((str(k), layer) for k, layer in enumerate(self.layers))

    def __len__(self) -> int:
        return len(self.layers)

    @overload
    def __getitem__(self, index: int) -> Module: ...

    @overload
    def __getitem__(self, index: slice) -> Sequential: ...

    def __getitem__(self, index: int | slice) -> Module:
        return Sequential(*self.layers[index]) if isinstance(index, slice) else self.layers[index]

    def __iter__(self) -> Iterator[Module]:
        return iter(self.layers)


def _named(layer: Any) -> str:
    return f"the class {layer.__name__}" if isinstance(layer, type) else type(layer).__name__


def _mended(layer: Any) -> str:
    """Say how to make a Module of what was given for one."""
    if isinstance(layer, type):
        return f"make one: {layer.__name__}()"
    if isinstance(layer, list | tuple):
        return "write Sequential(*layers)"
    return "wrap a function in nn.Lambda" if callable(layer) else ""
