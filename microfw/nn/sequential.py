"""Sequential: layers one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import Any, Never, Self, overload

from microfw.autograd.scope import THREAD_SCOPE, Scope
from microfw.errors import ArgumentError, DTypeError
from microfw.nn.module import Module


class Sequential(Module):
    """Layers applied in order; their names are "0", "1", …, or given.

    A recurrent layer passes its outputs on to the next layer, without its state. If it is the last layer, the
    `Sequential` returns both.

    Parameters
    ----------
    *layers : Module, or one dict of str to Module
        The layers; with a dict by their names, which parameters, files and reports then have.

    Raises
    ------
    ArgumentError
        If a layer is no Module, or a name is no text, empty, or has a dot.
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
    >>> named = nn.Sequential({"body": model[0], "act": nn.Tanh()}).append(model[2], "head")
    >>> [name for name, _ in named.named_parameters()]
    ['body.weight', 'body.bias', 'head.weight', 'head.bias']
    >>> named["act"]
    Tanh()
    """

    names: tuple[str, ...] | None = None

    def __init__(self, *layers: Module | dict[str, Module]) -> None:
        names: Any = None
        if len(layers) == 1 and isinstance(layers[0], dict):
            names, layers = tuple(layers[0]), tuple(layers[0].values())
        self._set(layers, names)

    def _set(self, layers: tuple[Any, ...], names: tuple[Any, ...] | None) -> None:
        for label, layer in zip(names or range(len(layers)), layers, strict=True):
            if not isinstance(layer, Module):
                raise ArgumentError("Sequential", f"layer {label!r} to be a Module", _named(layer), _mended(layer))
        for name in names or ():
            if not isinstance(name, str) or not name or "." in name or names.count(name) > 1:  # type: ignore[union-attr]
                raise ArgumentError("Sequential", "different names, texts without dots", repr(name))
        self.layers: tuple[Module, ...] = layers
        if names is not None:
            self.names = names

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that are not attributes of the same name."""
        return {} if self.names is None else {"layers": (dict(self.children()),)}

    def append(self, layer: Module, name: str | None = None) -> Self:
        """Add a layer at the end, with a name if the others have names; returns the module.

        Make the optimizer after this call: one made before does not train the layer.
        """
        return self.insert(len(self.layers), layer, name)

    def insert(self, index: int, layer: Module, name: str | None = None) -> Self:
        """Add a layer before the one at an index, as `list.insert` does; see `append`."""
        if (name is None) != (self.names is None):
            expected = "no name, since layers have numbers" if self.names is None else "a name, as the others have"
            raise ArgumentError(f"{self.where}.insert", expected, repr(name))
        layers, names = list(self.layers), None if self.names is None else list(self.names)
        layers.insert(index, layer)
        if names is not None and name is not None:
            names.insert(index, name)
        self._set(tuple(layers), None if names is None else tuple(names))
        return self

    def forward(self, x: Any) -> Any:
        """Apply the layers."""
        # What Module.__call__ does for one layer, with one reset for all; layer.forward saves a call each.
        outer, given = THREAD_SCOPE.scope, x
        try:
            for layer in self.layers:
                if x.__class__ is tuple and x is not given:  # faster than type(x)
                    x = _passed_on(x, layer, outer)
                THREAD_SCOPE.scope = (layer, outer)
                x = layer.forward(x)
        finally:
            THREAD_SCOPE.scope = outer
        return x

    def children(self) -> Iterator[tuple[str, Any]]:
        """Yield the layers, by name or number."""
        names = self.names or [str(k) for k in range(len(self.layers))]
        yield from zip(names, self.layers, strict=True) if len(names) == len(self.layers) else _refuse_number(self)

    def __len__(self) -> int:
        return len(self.layers)

    @overload
    def __getitem__(self, index: int | str) -> Module: ...

    @overload
    def __getitem__(self, index: slice) -> Sequential: ...

    def __getitem__(self, index: int | str | slice) -> Module:
        if isinstance(index, slice):
            named = self.names is not None
            return Sequential(dict(list(self.children())[index])) if named else Sequential(*self.layers[index])
        return dict(self.children())[index] if isinstance(index, str) else self.layers[index]

    def __setitem__(self, index: int | str, layer: Module) -> None:
        """Put a layer in the place of another one, under its name; see `append`."""
        layers = list(self.layers)
        layers[self._place(index)] = layer
        self._set(tuple(layers), self.names)

    def __delitem__(self, index: int | slice | str) -> None:
        """Remove a layer, or those of a slice."""
        kept = list(range(len(self.layers)))
        del kept[index if isinstance(index, slice) else self._place(index)]
        self._set(tuple(self.layers[k] for k in kept), self.names and tuple(self.names[k] for k in kept))

    def _place(self, index: int | str) -> int:
        if not isinstance(index, str):
            return range(len(self.layers))[index]
        names = [name for name, _ in self.children()]
        if index not in names:
            raise KeyError(index)
        return names.index(index)

    def __iter__(self) -> Iterator[Module]:
        return iter(self.layers)


def _passed_on(x: tuple[Any, ...], layer: Module, outer: Scope | None) -> Any:
    """Return the outputs of a recurrent layer, which the next layer reads; raise for a tuple of another layer."""
    source: Any = THREAD_SCOPE.scope[0]  # type: ignore[index]  # the layer before
    THREAD_SCOPE.scope = (layer, outer)  # errors name the layer that reads
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


def _refuse_number(model: Sequential) -> Never:
    expected = f"{len(model.names or ())} layers, as names"
    raise ArgumentError(type(model).__name__, expected, len(model.layers), "use append")


def _named(layer: Any) -> str:
    return f"the class {layer.__name__}" if isinstance(layer, type) else type(layer).__name__


def _mended(layer: Any) -> str:
    """Say how to make a Module of what was given for one."""
    if isinstance(layer, type):
        return f"make one: {layer.__name__}()"
    if isinstance(layer, list | tuple):
        return "write Sequential(*layers)"
    return "wrap a function in nn.Lambda" if callable(layer) else ""
