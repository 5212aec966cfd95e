"""What a plan depends on besides its arguments, and how to see that it has changed."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.nn.module import Module
from microfw.tensor import Tensor

SIMPLE = (bool, int, float, str, type(None))
"""Settings of these types are compared; other objects must be the same ones."""


class Carried:
    """What a forward pass may change besides gradients: generators, and the values of buffers."""

    def __init__(self, generators: list[np.random.Generator], buffers: list[Tensor]) -> None:
        self.generators = generators
        self.buffers = buffers

    def save(self) -> Any:
        """Return copies."""
        return [g.bit_generator.state for g in self.generators], [t._array.copy() for t in self.buffers]

    def restore(self, saved: Any) -> None:
        """Bring back what was saved."""
        for generator, state in zip(self.generators, saved[0], strict=True):
            generator.bit_generator.state = state
        for buffer, values in zip(self.buffers, saved[1], strict=True):
            buffer._array[...] = values


class Named:
    """The variables that a function names: those around it, and global ones."""

    def __init__(self, f: Any) -> None:
        names = getattr(getattr(f, "__code__", None), "co_names", ())
        self.scope = getattr(f, "__globals__", {})
        self.globals = [(name, self.scope[name]) for name in names if name in self.scope]
        self.cells = [(cell, _content(cell)) for cell in getattr(f, "__closure__", None) or ()]

    def same(self) -> bool:
        """Whether they still are the objects that they were."""
        cells = all(_content(cell) is value for cell, value in self.cells)
        return cells and all(self.scope.get(name) is value for name, value in self.globals)

    def values(self) -> list[Any]:
        """Return settings as they are, and objects as their identity."""
        values = [value for _, value in (*self.cells, *self.globals)]
        return [(type(v), v) if type(v) in SIMPLE else id(v) for v in values]


def fitting(inputs: list[Any], named: Named) -> tuple[str, dict[str, Any]]:
    """Write the test whether arguments ``a0`` and so on are like those before, and what a function names is the same.

    Returns
    -------
    text, names : str, dict
        The test, and what the names in it stand for.
    """
    names: dict[str, Any] = {"kind": np.ndarray, "scope": named.scope}
    tests = []
    for k, cell in enumerate(inputs):
        names |= {f"d{k}": cell.dtype, f"n{k}": cell.shape, f"e{k}": cell.strides}
        tests.append(f"type(a{k}) is kind and a{k}.dtype is d{k} and a{k}.shape == n{k}")
        single = any(n == 1 for n in cell.shape)  # along such an axis nobody strides
        long = [f"a{k}.strides[{j}] == {cell.strides[j]}" for j, n in enumerate(cell.shape) if n > 1]
        tests += long if single else [f"a{k}.strides == e{k}"]
    for k, (cell, value) in enumerate(named.cells):
        names |= {f"c{k}": cell, f"w{k}": value}
        tests.append(f"c{k}.cell_contents is w{k}")
    for k, (name, value) in enumerate(named.globals):
        names[f"g{k}"] = value
        tests.append(f"scope.get({name!r}) is g{k}")
    return " and ".join(tests) or "True", names


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # not filled
        return None


def state_of(f: Any, found: list[Any], owner: Any) -> Any:
    """Return what a plan depends on: what ``f`` names, modules' settings, which leaves are trained, who owns them."""
    state: list[Any] = [id(owner), owner.lost, *Named(f).values()]
    for x in found:
        if isinstance(x, Module):
            settings = {"training": x.training, **vars(x)}  # at first the class's
            state += [id(x), *((k, v) for k, v in settings.items() if type(v) in SIMPLE)]
        elif isinstance(x, Tensor) and x._leaf is not None:
            state += [id(x), id(x._array), x._node is not None, bool(x._leaf.hooks)]
    return state
