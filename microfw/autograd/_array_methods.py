"""Methods and operators of NumPy's arrays that a Tensor shares: each is NumPy's function of the name, called on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic

import numpy as np

from microfw.autograd.graph import Leaf, Node
from microfw.autograd.mode import MODE
from microfw.autograd.numpy_dispatch import implementation
from microfw.autograd.types import ResultT
from microfw.errors import GraphError


def _in_place(symbol: str, operator: str) -> Callable[[Any, Any], Any]:
    def method(self: ArrayMethodsMixin[Any], other: Any) -> Any:
        if self._leaf is None or self._node is None:
            return getattr(self, operator)(other)
        if MODE.get().recording:
            raise GraphError(
                f"Tensor: expected no {symbol} on a leaf that requires a gradient, got one; it would give the name "
                f"to a new Tensor and leave the leaf as it is: write t {symbol} ... under no_grad to change the leaf, "
                f"or write t = t {symbol[:-1]} ... for a new Tensor"
            )
        self.data = getattr(self, operator)(other)  # copies into the leaf; a backward that needs its values raises
        return self

    method.__name__ = f"__i{operator[2:]}"
    return method


class ArrayMethodsMixin(Generic[ResultT]):
    """Methods that are NumPy's functions by the same name."""

    __slots__ = ()
    _node: Node | Leaf | None
    _leaf: Leaf | None
    data: Any

    # Operators in place make a new Tensor, but for a leaf that requires a gradient, under no_grad.

    __iadd__ = _in_place("+=", "__add__")
    __isub__ = _in_place("-=", "__sub__")
    __imul__ = _in_place("*=", "__mul__")
    __itruediv__ = _in_place("/=", "__truediv__")
    __ifloordiv__ = _in_place("//=", "__floordiv__")
    __imod__ = _in_place("%=", "__mod__")
    __ipow__ = _in_place("**=", "__pow__")
    __imatmul__ = _in_place("@=", "__matmul__")

    def __divmod__(self, other: Any) -> tuple[ResultT, ResultT]:
        return self // other, self % other

    def __rdivmod__(self, other: Any) -> tuple[ResultT, ResultT]:
        return other // self, other % self

    def __round__(self, digits: int | None = None) -> ResultT:
        return np.round(self, digits or 0)  # type: ignore[call-overload]

    # Layout

    @property
    def mT(self) -> ResultT:
        """The Tensor with its last two axes exchanged."""
        return implementation(np.matrix_transpose)(self)

    def ravel(self) -> ResultT:
        """Return the entries along one axis."""
        return implementation(np.ravel)(self)

    flatten = ravel

    def squeeze(self, axis: int | tuple[int, ...] | None = None) -> ResultT:
        """Leave out axes of length 1."""
        return implementation(np.squeeze)(self, axis)

    def swapaxes(self, axis1: int, axis2: int) -> ResultT:
        """Exchange two axes."""
        return implementation(np.swapaxes)(self, axis1, axis2)

    def repeat(self, repeats: Any, axis: int | None = None) -> ResultT:
        """Repeat each entry."""
        return implementation(np.repeat)(self, repeats, axis)

    def copy(self) -> ResultT:
        """Return the same values as a node of their own; `copy.copy` makes a leaf."""
        return implementation(np.copy)(self)

    # Indexing

    def take(self, indices: Any, axis: int | None = None, *, mode: str = "raise") -> ResultT:
        """Take slices at integers along an axis."""
        return implementation(np.take)(self, indices, axis, mode=mode)

    def compress(self, condition: Any, axis: int | None = None) -> ResultT:
        """Take the slices along an axis at which a condition holds."""
        return implementation(np.compress)(condition, self, axis)

    def nonzero(self) -> tuple[ResultT, ...]:
        """Return the indices of the entries that are not zero."""
        return implementation(np.nonzero)(self)

    def argsort(self, axis: int | None = -1) -> ResultT:
        """Return the indices that sort along an axis. No gradient flows."""
        return implementation(np.argsort)(self, axis)

    # Linear algebra

    def dot(self, other: Any) -> ResultT:
        """Sum of products, as `numpy.dot`."""
        return implementation(np.dot)(self, other)

    def diagonal(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> ResultT:
        """Return the entries at equal places along two axes."""
        return implementation(np.diagonal)(self, offset, axis1, axis2)

    def trace(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> ResultT:
        """Sum the diagonal."""
        return implementation(np.trace)(self, offset, axis1, axis2)
