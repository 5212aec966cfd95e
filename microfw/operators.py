"""Operators, methods and protocols: what makes a Tensor feel like a NumPy array.

Each is an op, looked up by its name, so that nothing here knows how any op works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from microfw.errors import GraphError
from microfw.graph import NUMPY, OPS, Leaf, Node

if TYPE_CHECKING:
    from microfw.tensor import Tensor

Array = np.ndarray[Any, np.dtype[Any]]
Axis = int | tuple[int, ...] | None


class ArrayLike:
    """The part of `Tensor` that it shares with NumPy's arrays."""

    __slots__ = ()
    _array: Array
    _node: Node | Leaf | None
    _leaf: Leaf | None

    __array_priority__ = 1000

    @property
    def data(self) -> Array:
        """The values, read-only: neither this array nor one that it is a view of can be unlocked."""
        return np.asarray(self._array.data.toreadonly())

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""
        shape: tuple[int, ...] = self._array.shape
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the entries."""
        dtype: np.dtype[Any] = self._array.dtype
        return dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self._array.ndim

    @property
    def size(self) -> int:
        """The number of entries."""
        return self._array.size

    @property
    def nbytes(self) -> int:
        """The bytes that the entries take."""
        return self._array.nbytes

    def numpy(self) -> Array:
        """Return the values as a read-only array, not copied."""
        return self.data

    def item(self) -> float:
        """Return the only entry as a Python number."""
        return self._array.item()  # type: ignore[no-any-return]

    def tolist(self) -> Any:
        """Return the values as nested lists."""
        return self._array.tolist()

    # Operators

    def __add__(self, other: Any) -> Tensor:
        return OPS["add"].call(self, other)

    def __radd__(self, other: Any) -> Tensor:
        return OPS["add"].call(other, self)

    def __sub__(self, other: Any) -> Tensor:
        return OPS["subtract"].call(self, other)

    def __rsub__(self, other: Any) -> Tensor:
        return OPS["subtract"].call(other, self)

    def __mul__(self, other: Any) -> Tensor:
        return OPS["multiply"].call(self, other)

    def __rmul__(self, other: Any) -> Tensor:
        return OPS["multiply"].call(other, self)

    def __truediv__(self, other: Any) -> Tensor:
        return OPS["divide"].call(self, other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return OPS["divide"].call(other, self)

    def __pow__(self, other: Any) -> Tensor:
        return OPS["power"].call(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return OPS["power"].call(other, self)

    def __matmul__(self, other: Any) -> Tensor:
        return OPS["matmul"].call(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return OPS["matmul"].call(other, self)

    def __neg__(self) -> Tensor:
        return OPS["negative"].call(self)

    def __pos__(self) -> Tensor:
        return self  # type: ignore[return-value]

    def __abs__(self) -> Tensor:
        return OPS["abs"].call(self)

    def __lt__(self, other: Any) -> Tensor:
        return OPS["less"].call(self, other)

    def __le__(self, other: Any) -> Tensor:
        return OPS["less_equal"].call(self, other)

    def __gt__(self, other: Any) -> Tensor:
        return OPS["greater"].call(self, other)

    def __ge__(self, other: Any) -> Tensor:
        return OPS["greater_equal"].call(self, other)

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return OPS["equal"].call(self, other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return OPS["not_equal"].call(self, other)

    __hash__ = object.__hash__

    # NumPy's methods

    @property
    def T(self) -> Tensor:
        """The Tensor with its axes reversed."""
        return OPS["transpose"].call(self)

    def dot(self, other: Any) -> Tensor:
        """Matrix product."""
        return OPS["matmul"].call(self, other)

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Sum over axes."""
        return OPS["sum"].call(self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Mean over axes."""
        return OPS["mean"].call(self, axis=axis, keepdims=keepdims)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Largest entry over axes; ties share the gradient equally."""
        return OPS["max"].call(self, axis=axis, keepdims=keepdims)

    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        """Smallest entry over axes; ties share the gradient equally."""
        return OPS["min"].call(self, axis=axis, keepdims=keepdims)

    def argmax(self, axis: int | None = None) -> Tensor:
        """Index of the largest entry."""
        return OPS["argmax"].call(self, axis=axis)

    def reshape(self, *shape: Any) -> Tensor:
        """Return the same entries in another shape."""
        return OPS["reshape"].call(self, shape=shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> Tensor:
        """Reorder the axes."""
        order = axes[0] if len(axes) == 1 else axes or None
        return OPS["transpose"].call(self, axes=order)

    def ravel(self) -> Tensor:
        """Return the entries along one axis."""
        return OPS["reshape"].call(self, shape=(-1,))

    def astype(self, dtype: Any) -> Tensor:
        """Cast; the gradient is cast back."""
        return OPS["astype"].call(self, dtype=np.dtype(dtype))

    def __getitem__(self, key: Any) -> Tensor:
        return OPS["getitem"].call(self, key=frozen_key(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        raise GraphError(
            "Tensor: expected no assignment to entries, got t[...] = value; the graph may need the old values: "
            "use np.where, or assign a whole leaf with t.data = values"
        )

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[Tensor]:
        if self.ndim == 0:
            raise TypeError("Tensor: expected at least one axis to iterate over, got a 0-d Tensor")
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        return bool(np.any(self._array == np.asarray(value)))

    def __bool__(self) -> bool:
        return bool(self._array)

    def __float__(self) -> float:
        return float(self._array)

    def __int__(self) -> int:
        return int(self._array)

    def __index__(self) -> int:
        return self._array.__index__()

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and self.size == 1 else str(self)

    def __repr__(self) -> str:
        body = np.array2string(self._array, separator=", ", prefix="tensor(")
        notes = "" if self.dtype == np.float64 else f", dtype={self.dtype}"
        if isinstance(self._node, Node):
            notes += f", op={self._node.op.name}"
        elif self._node is not None:
            notes += ", requires_grad=True"
        return f"tensor({body}{notes})"

    # NumPy's protocols

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if dtype is not None and np.dtype(dtype) != self.dtype:
            return self._array.astype(dtype)
        return self._array.copy() if copy else self.data

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Tensor:
        if method != "__call__":
            name = f"np.{ufunc.__name__}.{method}"
            raise TypeError(f"{name}: expected arrays, got a Tensor; use np.sum, np.max or a loop")
        if "out" in kwargs or "where" in kwargs:
            raise TypeError(f"np.{ufunc.__name__}: expected no out= or where= with a Tensor; op results are new arrays")
        return _numpy(ufunc)(*inputs, **kwargs)

    def __array_function__(self, func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func in _SHAPE_ONLY:
            return func(*(a.data if isinstance(a, ArrayLike) else a for a in args), **kwargs)
        if kwargs.get("out") is not None:
            raise TypeError(f"np.{func.__name__}: expected no out= with a Tensor; op results are new arrays")
        return _numpy(func)(*args, **kwargs)


_SHAPE_ONLY = {
    np.shape, np.ndim, np.size, np.zeros_like, np.ones_like, np.empty_like, np.full_like, np.result_type,
    np.array_equal, np.allclose, np.isclose, np.may_share_memory, np.shares_memory, np.array_repr, np.array_str,
    np.array2string,
}  # fmt: skip
"""NumPy's functions through which no gradient flows: they get the values, and return what NumPy returns."""


def _numpy(function: Callable[..., Any]) -> Callable[..., Tensor]:
    try:
        return NUMPY[function]
    except KeyError:
        name = getattr(function, "__name__", str(function))
        raise TypeError(
            f"np.{name}: expected a function with a derivative rule, got one without; "
            "declare it with mf.op, or take the values out of the graph with .data"
        ) from None


def frozen_key(key: Any) -> Any:
    """Copy the arrays of an index, so that later writes to them change nothing."""
    if isinstance(key, tuple):
        return tuple(frozen_key(k) for k in key)
    if isinstance(key, ArrayLike):
        return key._array if key._leaf is None else key._array.copy()
    return np.array(key) if isinstance(key, list | np.ndarray) else key
