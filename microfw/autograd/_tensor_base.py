"""TensorBase: attributes, methods and protocols that a Tensor shares with NumPy's arrays.

Each method is an op, found by its name.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from microfw._other_names import with_other_names
from microfw.autograd._arithmetic import ArithmeticMixin
from microfw.autograd._array_methods import ArrayMethodsMixin
from microfw.autograd.graph import Leaf, Node
from microfw.autograd.mode import MODE
from microfw.autograd.numpy_dispatch import SHAPE_ONLY, SHAPES, dispatch, implementation, refuse
from microfw.autograd.registry import OPS
from microfw.autograd.types import ResultT
from microfw.errors import DataError, GraphError, ShapeError

Array = np.ndarray[Any, np.dtype[Any]]
Axis = int | tuple[int, ...] | None


def native(array: Array) -> Array:
    """Return an array in the machine's byte order, whose dtype is the object that NumPy gives all of its arrays."""
    # The engine compares dtypes with `is`. Those of unpickled arrays and of newbyteorder are equal, but other objects.
    dtype = np.dtype(array.dtype.char)
    if array.dtype is dtype or array.dtype.kind not in "fiub":
        return array
    return array.view(dtype) if array.dtype.isnative else array.astype(dtype)


def refuse_masked(data: Any, where: str) -> None:
    """Raise for an array with masked entries, which would be read as the numbers under the mask."""
    if isinstance(data, np.ndarray) and np.any(getattr(data, "mask", False)):
        raise DataError(where, "an array without masked entries", "some", "pass x.filled(value)")


def writable(array: Array) -> Array:
    """Return an unpickled array, or a copy if it cannot be written to, or writes would change a file."""
    # joblib passes large arrays to its workers as read-only maps of a file; so does its load with mmap_mode.
    return array if type(array) is np.ndarray and array.flags.writeable else np.array(array)


@with_other_names
class TensorBase(ArithmeticMixin[ResultT], ArrayMethodsMixin[ResultT]):
    """The part of `Tensor` that it shares with NumPy's arrays."""

    __slots__ = ()
    _array: Array
    _node: Node | Leaf | None
    _leaf: Leaf | None
    data: Array

    __array_priority__ = 1000
    __pandas_priority__ = 5000  # above a frame's, so that frame + Tensor is a Tensor, too

    def _values(self, how: str = "reads") -> Array:
        """Return the array for a read of its values, or before they are assigned, and notify the observer."""
        observer = MODE.get().observer
        if observer is not None:
            observer.on_value_read(how)
        return self._array

    def _copied(self) -> Array:
        """Return a copy of the array, and notify the observer, since no op makes it."""
        array, observer = self._array.copy(), MODE.get().observer
        if observer is not None:
            observer.on_copy(self._array, array)
        return array

    def _assign(self, values: Array) -> None:
        """Copy values that fit into a leaf, as a layer does with its running statistics."""
        np.copyto(self._array, values, casting="same_kind")
        self._leaf.version += 1  # type: ignore[union-attr]

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
        return np.asarray(self._values().data.toreadonly())

    def item(self) -> float:
        """Return the only entry as a Python number."""
        if MODE.get().observer is not None:
            self._values()
        return self._array.item()

    def tolist(self) -> Any:
        """Return the values as nested lists."""
        return self._values().tolist()

    # NumPy's methods

    @property
    def T(self) -> ResultT:
        """The Tensor with its axes reversed."""
        return OPS["transpose"].call(self)

    def sum(self, axis: Axis = None, keepdims: bool = False) -> ResultT:
        """Sum over axes."""
        return OPS["sum"].call(self, axis=axis, keepdims=keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> ResultT:
        """Mean over axes."""
        return OPS["mean"].call(self, axis=axis, keepdims=keepdims)

    def prod(self, axis: Axis = None, keepdims: bool = False) -> ResultT:
        """Product over axes."""
        return OPS["prod"].call(self, axis=axis, keepdims=keepdims)

    def var(self, axis: Axis = None, ddof: float = 0, keepdims: bool = False) -> ResultT:
        """Variance over axes."""
        return OPS["var"].call(self, axis=axis, ddof=ddof, keepdims=keepdims)

    def std(self, axis: Axis = None, ddof: float = 0, keepdims: bool = False) -> ResultT:
        """Standard deviation over axes."""
        return OPS["std"].call(self, axis=axis, ddof=ddof, keepdims=keepdims)

    def cumsum(self, axis: int | None = None) -> ResultT:
        """Running sum along an axis."""
        return OPS["cumsum"].call(self, axis=axis)

    def cumprod(self, axis: int | None = None) -> ResultT:
        """Running product along an axis."""
        return OPS["cumprod"].call(self, axis=axis)

    def max(self, axis: Axis = None, keepdims: bool = False) -> ResultT:
        """Largest entry over axes; ties share the gradient equally."""
        return OPS["max"].call(self, axis=axis, keepdims=keepdims)

    def min(self, axis: Axis = None, keepdims: bool = False) -> ResultT:
        """Smallest entry over axes; ties share the gradient equally."""
        return OPS["min"].call(self, axis=axis, keepdims=keepdims)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> ResultT:
        """Index of the largest entry."""
        return OPS["argmax"].call(self, axis=axis, keepdims=keepdims)

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> ResultT:
        """Index of the smallest entry."""
        return OPS["argmin"].call(self, axis=axis, keepdims=keepdims)

    def any(self, axis: Axis = None, keepdims: bool = False) -> ResultT:
        """Whether some entry is not 0."""
        return OPS["any"].call(self, axis=axis, keepdims=keepdims)

    def all(self, axis: Axis = None, keepdims: bool = False) -> ResultT:
        """Whether no entry is 0."""
        return OPS["all"].call(self, axis=axis, keepdims=keepdims)

    def clip(self, min: Any = None, max: Any = None) -> ResultT:
        """Limit entries to an interval; slope 1 in it, its ends included."""
        return dispatch(np.clip, (self, min, max), {})

    def round(self, decimals: int = 0) -> ResultT:
        """Nearest number with that many decimals; slope 0."""
        return OPS["round"].call(self, decimals=decimals)

    def reshape(self, *shape: Any) -> ResultT:
        """Return the same entries in another shape."""
        return OPS["reshape"].call(self, shape=shape[0] if len(shape) == 1 else shape)

    def transpose(self, *axes: Any) -> ResultT:
        """Reorder the axes."""
        order = axes[0] if len(axes) == 1 and not isinstance(axes[0], int) else axes or None
        return OPS["transpose"].call(self, axes=None if order is None else tuple(order))

    def astype(self, dtype: Any) -> ResultT:
        """Cast; the gradient is cast back."""
        return OPS["astype"].call(self, dtype=np.dtype(dtype))

    def __getitem__(self, key: Any) -> ResultT:
        if type(key) is list:
            key = frozen_key(key)
        if isinstance(key, TensorBase | np.ndarray) and key.dtype.kind == "i" and self._array.ndim:
            return OPS["take"].call(self, key, axis=0)  # whose indices are an input, not a setting
        if type(key) is tuple and any(isinstance(k, TensorBase) for k in key) and all(map(_is_integer, key)):
            return OPS["gather"].call(self, _stacked(key))  # likewise
        return OPS["getitem"].call(self, key=frozen_key(key))

    def __setitem__(self, key: Any, value: Any) -> None:
        raise GraphError(
            "Tensor: expected no assignment to entries, got t[...] = value; the graph may need the old values: "
            "use np.where, or assign a whole leaf with t.data = values"
        )

    def __len__(self) -> int:
        return len(self._array)

    def __iter__(self) -> Iterator[ResultT]:
        if self.ndim == 0:
            raise TypeError("Tensor: expected at least one axis to iterate over, got a 0-d Tensor")
        return (self[i] for i in range(len(self)))

    def __contains__(self, value: Any) -> bool:
        return bool(np.any(self._values() == np.asarray(value._values() if isinstance(value, TensorBase) else value)))

    def __bool__(self) -> bool:
        if self._array.size != 1:
            raise ShapeError(
                "Tensor", "one entry to test for truth", self.shape,
                    "that of several or none is ambiguous: reduce them with np.any or np.all"
            )  # fmt: skip
        return bool(self._values())

    def __float__(self) -> float:
        if self._node is not None:
            warn_of_detaching(f"converting a {type(self).__name__} that needs a gradient to a number", "t.item()")
        return float(self._values())

    def __int__(self) -> int:
        if self._node is not None:
            warn_of_detaching(f"converting a {type(self).__name__} that needs a gradient to a number", "t.item()")
        return int(self._values())

    def __index__(self) -> int:
        return self._values().__index__()

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and self.size == 1 else str(self)

    def __repr__(self) -> str:
        body = np.array2string(self._values(), separator=", ", prefix="tensor(")
        notes = "" if self.dtype == np.float64 else f", dtype={self.dtype}"
        if isinstance(self._node, Node):
            notes += f", op={self._node.op.name}"
        elif self._node is not None:
            notes += ", requires_grad=True"
        return f"tensor({body}{notes})"

    # NumPy's protocols

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        if self._node is not None and MODE.get().recording:
            raise GraphError(
                "Tensor", "one that needs no gradient where NumPy or other code makes an array of it",
                    "one that does, whose gradient would be lost",
                    "join Tensors with np.stack or np.concatenate; for the values write t.numpy() or t.detach(), "
                    "or compute under mf.no_grad()"
            )  # fmt: skip
        if dtype is not None and np.dtype(dtype) != self.dtype:
            return self._values().astype(dtype)
        return self._values().copy() if copy else self.numpy()

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> ResultT:
        if method != "__call__":
            name = f"np.{ufunc.__name__}.{method}"
            raise TypeError(f"{name}: expected arrays, got a Tensor; use np.sum, np.max or a loop")
        if kwargs:
            refuse(ufunc, kwargs)
        return implementation(ufunc)(*inputs)

    def __array_function__(self, func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if func in SHAPE_ONLY:
            look = func not in SHAPES

            def array_of(key: int | str, x: Any) -> Any:
                if not isinstance(x, TensorBase):
                    return x
                if func is np.full_like and key in (1, "fill_value"):  # a value, whose gradient would be lost
                    return np.asarray(x)
                return x.data if look else x._array

            return func(*map(array_of, range(len(args)), args), **{k: array_of(k, v) for k, v in kwargs.items()})
        return dispatch(func, args, kwargs)


def warn_of_detaching(what: str, fix: str) -> None:
    """Warn that values leave the graph, if recording is on; called by the method that the user's line calls."""
    if MODE.get().recording:
        text = f"{what}: its gradient is lost; write {fix} where that is meant, or compute under mf.no_grad()"
        warnings.warn(text, stacklevel=3)


def frozen_key(key: Any) -> Any:
    """Copy the arrays of an index, so that later writes to them change nothing."""
    if isinstance(key, tuple):
        return tuple(frozen_key(k) for k in key)
    if isinstance(key, TensorBase):
        values = key._values()  # observed, since a mask decides on the shape of the result
        return values if key._leaf is None else values.copy()
    if isinstance(key, list):
        return np.array(key, None if key else np.intp)
    return np.array(key) if isinstance(key, np.ndarray) else key


def _is_integer(key: Any) -> bool:
    """Return True for an integer and for an array or Tensor of integers."""
    if isinstance(key, TensorBase | np.ndarray):
        return key.dtype.kind in "iu"
    return isinstance(key, int | np.integer) and not isinstance(key, bool)


def _stacked(key: tuple[Any, ...]) -> Any:
    """Return the indices of all axes as one array, the axes first."""
    shape = np.broadcast_shapes(*(np.shape(k) for k in key))
    arrays = (k.astype(np.intp) if isinstance(k, TensorBase) else np.asarray(k, np.intp) for k in key)
    return np.stack([np.broadcast_to(k, shape) for k in arrays])
