"""Sequential: layers one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import Any, overload

from microfw.autograd.scope import THREAD_SCOPE
from microfw.errors import ArgumentError, DTypeError
from microfw.nn.module import Module


class Sequential(Module):
    """Layers applied in order; their names are "0", "1", ….

    A recurrent layer passes its outputs on to the next layer, without its state. If it is the last layer, the
    `Sequential` returns both.

    Parameters
    ----------
    *layers : Module
        The layers.

    Raises
    ------
    DTypeError
        When called, if a layer that is not recurrent passes on a tuple.

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
        outer, source = THREAD_SCOPE.scope, None
        try:
            for layer in self.layers:
                THREAD_SCOPE.scope = (layer, outer)
                if type(x) is tuple and source is not None:
                    x = _passed_on(source, x, layer)
                x = layer.forward(x)
                source = layer
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


def _passed_on(source: Module, x: tuple[Any, ...], layer: Module) -> Any:
    """Return the outputs of a recurrent layer, which the next layer reads; raise for a tuple of another layer."""
    while isinstance(source, Sequential) and len(source):
        source = source[-1]
    if not getattr(source, "passes_outputs", False):
        got, fix = (
            f"a tuple of {len(x)} from {type(source).__name__}",
            "return one there, or call both in a Module of yours",
        )
        raise DTypeError(layer.where, "x to be one Tensor or array", got, fix)
    function = getattr(layer, "function", None)
    # once the way to pick one of the two; of the outputs it would pick a row
    if isinstance(function, itemgetter) and function.__reduce__()[1] in ((0,), (1,)):
        wanted = f"a function of the outputs, which {type(source).__name__} passes on without its state"
        raise ArgumentError(layer.where, wanted, function, "leave the Lambda out, or call both in a Module of yours")
    return x[0]


def _named(layer: Any) -> str:
    return f"the class {layer.__name__}" if isinstance(layer, type) else type(layer).__name__


def _mended(layer: Any) -> str:
    """Say how to make a Module of what was given for one."""
    if isinstance(layer, type):
        return f"make one: {layer.__name__}()"
    if isinstance(layer, list | tuple):
        return "write Sequential(*layers)"
    return "wrap a function in nn.Lambda" if callable(layer) else ""
