"""Where gradients arrive: the leaves of the graph, and the arguments of derivative functions."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

Gradient = Any
"""An array on the fast path, a Tensor where the walk itself is recorded."""

numbers = itertools.count()
"""Nodes are numbered as they are recorded."""


class Leaf:
    """Where gradients arrive: the identity of a trainable array.

    Attributes
    ----------
    grad : ndarray or None
        The gradient, owned by this leaf alone.
    slot : ndarray or None
        Where an optimizer wants the gradient to be written.
    version : int
        Counts the writes to the array; a node that saved the array compares it in backward.
    owner : object
        The optimizer's buffers that the array is a view of.
    hooks : Hooks or None
        What is to see the gradient before it is added up.
    """

    __slots__ = ("dtype", "grad", "hooks", "name", "owner", "shape", "slot", "version")

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype
        self.grad: np.ndarray[Any, Any] | None = None
        self.slot: np.ndarray[Any, Any] | None = None
        self.version = 0
        self.owner: Any = None
        self.hooks: Callable[[Gradient], Gradient] | None = None
        self.name = ""

    def accept(self, gradient: np.ndarray[Any, Any]) -> None:
        """Add a gradient to what has arrived so far."""
        if self.grad is not None:
            self.grad += gradient
        elif self.slot is None:
            self.grad = np.array(gradient, self.dtype)
        else:
            if gradient is not self.slot:
                self.slot[...] = gradient
            self.grad = self.slot


class Variable:
    """What a derivative function differentiates by: a gradient arrives here as at a leaf, but nothing keeps it.

    Attributes
    ----------
    shape, dtype
        Those of the array.
    order : int
        When it was made; numbered with the nodes.
    hooks : Hooks or None
        Hooks registered on the argument; never called, as for a leaf in a derivative function.
    """

    __slots__ = ("dtype", "hooks", "order", "shape")

    grad = None
    slot = None

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape = shape
        self.dtype = dtype
        self.order = next(numbers)
        self.hooks: Any = None

    def accept(self, gradient: Any) -> None:
        """Drop the gradient: only the derivative function itself needs it, and has it from `walk`."""
