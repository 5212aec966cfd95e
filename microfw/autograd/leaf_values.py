"""LeafValues: the array that a leaf's ``data`` returns, so that ``p.data -= step`` works."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from microfw.errors import ArgumentError


def _in_place(symbol: str) -> Callable[[Any, Any], Any]:
    change, compute = getattr(np.ndarray, f"__i{symbol}__"), getattr(operator, symbol)

    def method(self: LeafValues, other: Any) -> Any:
        if self.tensor is None:  # a part of the values, or a copy
            self._check_writable()
            return change(self, other)
        self.tensor.data = compute(np.asarray(self), other)  # copies into the leaf and increments its version
        return self

    method.__name__ = f"__i{symbol}__"
    return method


def _writing(name: str) -> Callable[..., None]:
    write = getattr(np.ndarray, name)

    def method(self: LeafValues, *arguments: Any, **options: Any) -> None:
        self._check_writable()
        write(self, *arguments, **options)

    method.__name__ = name
    return method


class LeafValues(np.ndarray[Any, Any]):
    """A read-only array whose operators in place write to its leaf; what is computed from it are plain arrays.

    Examples
    --------
    >>> import microfw as mf
    >>> p = mf.tensor([1.0, 2.0], requires_grad=True)
    >>> p.data -= 0.5
    >>> p
    tensor([0.5, 1.5], requires_grad=True)
    """

    tensor: Any = None

    __iadd__ = _in_place("add")
    __isub__ = _in_place("sub")
    __imul__ = _in_place("mul")
    __itruediv__ = _in_place("truediv")
    __ifloordiv__ = _in_place("floordiv")
    __imod__ = _in_place("mod")
    __ipow__ = _in_place("pow")
    __imatmul__ = _in_place("matmul")

    __setitem__ = _writing("__setitem__")
    fill = _writing("fill")
    sort = _writing("sort")

    def _check_writable(self) -> None:
        if not self.flags.writeable:
            fix = "change a copy, values = t.data.copy(), and assign it: t.data = values"
            raise ArgumentError("Tensor.data", "no writes to entries", "one, and the array is read-only", fix)

    def __array_wrap__(self, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
        """Return the result of a NumPy function as a plain array."""
        return array[()] if return_scalar else np.asarray(array)

    def __repr__(self) -> str:
        return repr(np.asarray(self))

    def copy(self, order: Any = "C") -> Any:
        """Return a plain, writable copy."""
        return np.array(self, order=order)

    def __reduce__(self) -> Any:
        return np.array(self).__reduce__()


LeafValues.__name__ = "ndarray"  # in messages that name the type of a value


def leaf_values(leaf: Any) -> LeafValues:
    """Return the values of a leaf, a Tensor."""
    values: LeafValues = leaf.numpy().view(LeafValues)
    values.tensor = leaf
    return values
