"""What a forward pass changes besides gradients: the states of random generators, and the values of buffers."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.nn.module import Module

SavedState = tuple[list[Any], list[Any]]

EMPTY: SavedState = ([], [])


class ForwardState:
    """Saves and restores the states of random generators, and the values of buffers such as running statistics."""

    def __init__(self, generators: list[np.random.Generator], buffers: list[Tensor]) -> None:
        self.generators = generators
        self.buffers = buffers
        self._any = bool(generators or buffers)

    @classmethod
    def of(cls, *roots: Any) -> ForwardState:
        """Return the state of those objects that are Modules."""
        modules = [root for root in roots if isinstance(root, Module)]
        attributes = [value for root in modules for _, m in root.named_modules() for value in vars(m).values()]
        generators = {id(g): g for g in attributes if isinstance(g, np.random.Generator)}
        tensors = [t for root in modules for _, t in root._walk() if isinstance(t, Tensor)]
        return cls(list(generators.values()), [t for t in tensors if not t.requires_grad and t._leaf])

    def save(self) -> SavedState:
        """Return copies of states and values."""
        if not self._any:
            return EMPTY
        return [g.bit_generator.state for g in self.generators], [t._array.copy() for t in self.buffers]

    def restore(self, saved: SavedState, *, new_version: bool = True) -> None:
        """Restore what `save` returned. With ``new_version``, backward through a graph that saved a buffer raises."""
        for generator, state in zip(self.generators, saved[0], strict=True):
            generator.bit_generator.state = state
        for buffer, values in zip(self.buffers, saved[1], strict=True):
            buffer._array[...] = values
            if new_version and buffer._leaf is not None:
                buffer._leaf.version += 1
