"""Arrays that record NumPy calls: an op's value and derivatives run on them once, and each call is recorded.

Rules are ordinary NumPy code and need no change. They may read shapes and dtypes, which are fixed for a plan. A branch
on values becomes a guard. An op cannot be traced if shapes depend on values (a mask), or if Python reads values
(``float(x)``, a loop); it is then replayed as one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import getitem, setitem
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from microfw.autograd.numpy_dispatch import SHAPES
from microfw.replay.reasons import Untraceable

Array = np.ndarray[Any, Any]


class CapturedCall:
    """One NumPy call of the plan.

    Attributes
    ----------
    function : callable or str
        The function to call; for a guard, a test with ``{0}`` for its argument.
    args, kwargs : tuple, dict
        Arguments, with captured arrays in place of arrays.
    style : str
        How the output is passed: "ufunc", "reduce", "dot", "out" (a keyword), "cast", "write" (the last argument),
        "get" and "set" (entries at integer indices from an array), "copy" (the call has no output argument, so its
        result is copied). A "guard" has no output.
    outs : tuple of CapturedArray
        All results.
    out : CapturedArray or None
        The result, if there is one.
    pure : bool
        Whether the call can be dropped if its result is not used.
    reads : list of CapturedArray
        The captured arrays among the arguments.
    node : OpRecord or None
        The op that the call belongs to.
    expected : bool or None
        Of a guard: the value of the test when the op was traced.
    fallback : CapturedCall or None
        Of a guard: the call that replaces the rest of the op if the test has another value.
    """

    __slots__ = ("args", "expected", "fallback", "function", "kwargs", "node", "out", "outs", "pure", "reads", "style")

    def __init__(
        self, function: Any, args: Any, kwargs: dict[str, Any], style: str, *outs: CapturedArray, pure: bool = True
    ) -> None:
        self.function = function
        self.args = tuple(args)
        self.kwargs = kwargs
        self.style = style
        self.outs = outs
        self.out = outs[0] if len(outs) == 1 else None
        self.pure = pure
        self.reads = captured_arrays_in((*self.args, *kwargs.values()))
        self.node: Any = None
        self.expected: bool | None = None
        self.fallback: CapturedCall | None = None

    @property
    def may_change_shape(self) -> bool:
        """Whether the shape of the result may depend on values: of some functions, and of an op as one call."""
        return self.function in SHAPED_BY_VALUES or (self.node is not None and self.function is self.node.op.value)

    @property
    def all_reads(self) -> list[CapturedArray]:
        """The captured arrays that the call and its fallback read."""
        return self.reads + self.fallback.reads if self.fallback is not None else self.reads


def captured_arrays_in(values: Iterable[Any]) -> list[CapturedArray]:
    """Return the captured arrays among values, also inside of lists."""
    found: list[CapturedArray] = []
    for value in values:
        if isinstance(value, CapturedArray):
            found.append(value)
        elif isinstance(value, tuple | list):
            found += captured_arrays_in(value)
    return found


class Tape:
    """The calls recorded so far."""

    def __init__(self) -> None:
        self.calls: list[CapturedCall] = []
        self.reactions = np.geterr()

    def add(self, call: CapturedCall) -> None:
        """Record a call. Raise if the rule has changed `numpy.errstate`, which replayed calls do not."""
        if np.geterr() != self.reactions:
            raise Untraceable("it sets how NumPy reacts to errors")
        self.calls.append(call)

    def note(self, function: Any, args: Any, kwargs: Any, result: Any, style: str) -> CapturedArray:
        """Record a call that makes a new array."""
        out = CapturedArray(self, np.asarray(result))
        self.add(CapturedCall(function, args, kwargs, style, out))
        return out

    def add_guard(self, test: str, args: Any, outcome: bool) -> bool:
        """Record a branch on values, and return its outcome; the traced calls are valid for this outcome only."""
        self.calls.append(CapturedCall(test, args, {}, "guard", pure=False))
        self.calls[-1].expected = outcome
        return outcome


class CapturedArray(NDArrayOperatorsMixin):
    """An array that records the NumPy calls on it.

    Attributes
    ----------
    array : ndarray
        Its values when the rule was traced.
    view : tuple or None
        ``(function, args, kwargs)`` that make this view of other captured arrays, when the plan is made.
    fixed : ndarray or None
        The array itself, if it exists before the step: a parameter, a gradient buffer, a constant.
    root : CapturedArray
        The captured array whose memory a view shows; the array itself if it is no view.
    """

    __slots__ = ("array", "fixed", "root", "tape", "view")
    __array_priority__ = 2000
    __hash__ = object.__hash__  # by identity; ``==`` records a call

    def __init__(self, tape: Tape, array: Array, view: Any = None, fixed: Array | None = None) -> None:
        self.tape = tape
        self.array = array
        self.view = view
        self.fixed = fixed
        self.root: CapturedArray = self if view is None else captured_arrays_in(view[1])[0].root

    # What rules may read

    shape = property(lambda self: self.array.shape)
    dtype = property(lambda self: self.array.dtype)
    ndim = property(lambda self: self.array.ndim)
    size = property(lambda self: self.array.size)
    nbytes = property(lambda self: self.array.nbytes)
    strides = property(lambda self: self.array.strides)

    def __len__(self) -> int:
        return len(self.array)

    def __bool__(self) -> bool:
        return self.tape.add_guard("{0}", (self,), bool(self.array))

    def __float__(self) -> float:
        raise Untraceable("an array made a number")

    __int__ = __index__ = __complex__ = __float__

    def item(self, *index: Any) -> Any:
        """Return a number that can only be compared."""
        return CapturedScalar(self, index)

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise Untraceable("an array passed to code that is not NumPy's")

    def __iter__(self) -> Any:
        raise Untraceable("a loop over entries")

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(key, CapturedArray) and key.dtype.kind in "iu":
            self.array[key.array] = plain(value)
            self.tape.add(CapturedCall(setitem, (self, key, value), {}, "set", self))
            return
        part = self[key]
        if part.view is None or self.root.fixed is not None:
            raise Untraceable("a part assigned")
        if isinstance(value, CapturedArray) and value.array.__array_interface__ == part.array.__array_interface__:
            return  # the end of ``x[key] += y``, which has written into the part
        np.copyto(part.array, plain(value))
        self.tape.add(CapturedCall(np.copyto, (part, value), {}, "write", part))

    # NumPy's functions

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        if method == "at" and isinstance(inputs[0], CapturedArray):  # adds in place
            ufunc.at(*plain(inputs))
            self.tape.add(CapturedCall(ufunc.at, inputs, {}, "write", inputs[0]))
            return None
        if method not in ("__call__", "reduce") or ufunc.nout != 1:
            raise Untraceable(f"np.{ufunc.__name__}.{method}")
        function: Any
        function, style = (ufunc, "ufunc") if method == "__call__" else (ufunc.reduce, "reduce")
        if out is not None:
            (target,) = out
            if not isinstance(target, CapturedArray):
                raise Untraceable("a write to an array from elsewhere")
            function(*plain(inputs), out=target.array, **kwargs)
            self.tape.add(CapturedCall(function, inputs, kwargs, style, target))
            return target
        return self.tape.note(function, inputs, kwargs, function(*plain(inputs), **kwargs), style)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        plain_reduce = func in REDUCES and len(args) == 1 and set(kwargs) <= {"axis", "keepdims"}
        if plain_reduce and (func is not np.mean or args[0].dtype.char in "fd"):
            reduced = self.__array_ufunc__(REDUCES[func], "reduce", args[0], **{"axis": None, **kwargs})
            return reduced / (args[0].size // reduced.size) if func is np.mean else reduced
        if func is np.empty_like:  # a rule writes to the result
            return CapturedArray(self.tape, func(*plain(args), **kwargs))
        if func in SHAPES:
            return func(*plain(args), **kwargs)
        if func is np.dot:
            return self._dot(*args, **kwargs)
        out = kwargs.pop("out", None)
        if out is not None:
            raise Untraceable(f"np.{func.__name__} with out=")
        result = func(*plain(args), **{k: plain(v) for k, v in kwargs.items()})
        if func is np.reshape and not kwargs and not np.may_share_memory(result, args[0].array):
            return func(args[0].copy(), *args[1:])  # one copy into the plan's memory; np.reshape would make another
        return self._result(func, args, kwargs, result, "out" if func in TAKES_OUT else "copy")

    def _result(self, function: Any, args: Any, kwargs: Any, result: Any, style: str) -> Any:
        """Return the captured array of a result; a view if it shares memory with an argument."""
        if isinstance(result, tuple | list) or not isinstance(result, np.ndarray | np.generic):
            raise Untraceable(f"{getattr(function, '__name__', function)} gives no single array")
        if isinstance(result, np.ndarray):
            for captured in captured_arrays_in(args):
                if np.may_share_memory(result, captured.array) and result.size:
                    return CapturedArray(self.tape, result, view=(function, args, kwargs))
        return self.tape.note(function, args, kwargs, result, style)

    # The methods of arrays that rules use

    @property
    def T(self) -> CapturedArray:
        """The axes reversed."""
        return CapturedArray(self.tape, self.array.T, view=(np.transpose, (self,), {}))

    def dot(self, other: Any, out: Any = None) -> CapturedArray:
        """Matrix product."""
        return self._dot(self, other, out)

    def _dot(self, left: Any, right: Any, out: Any = None) -> CapturedArray:
        if out is None:
            return self.tape.note(np.dot, (left, right), {}, np.dot(plain(left), plain(right)), "dot")
        if not isinstance(out, CapturedArray):
            raise Untraceable("a write to an array from elsewhere")
        np.dot(plain(left), plain(right), out.array)
        self.tape.add(CapturedCall(np.dot, (left, right), {}, "dot", out))
        return out

    def __getitem__(self, key: Any) -> CapturedArray:
        # Not a mask: the shape of its result depends on values.
        if isinstance(key, CapturedArray) and key.dtype.kind in "iu":
            return self.tape.note(getitem, (self, key), {}, self.array[key.array], "get")
        if captured_arrays_in((key,)):
            raise Untraceable("an index with an array of the graph in it")
        return self._result(getitem, (self, key), {}, self.array[key], "copy")  # type: ignore[no-any-return]

    def astype(self, dtype: Any) -> CapturedArray:
        """Cast."""
        return self.tape.note(copy, (self,), {}, self.array.astype(dtype), "cast")

    def copy(self) -> CapturedArray:
        """Copy."""
        return self.tape.note(copy, (self,), {}, self.array.copy(), "cast")


def _method(name: str) -> Callable[..., Any]:
    function = getattr(np, name)

    def method(self: CapturedArray, *args: Any, **kwargs: Any) -> Any:
        if name in ("reshape", "transpose") and len(args) != 1:
            args = (args or None,)
        return function(self, *args, **kwargs)

    return method


for _name in (
    "reshape", "transpose", "ravel", "squeeze", "swapaxes", "repeat", "take", "clip",
    "sum", "mean", "max", "min", "prod", "cumsum", "argmax", "argmin",
):  # fmt: skip
    setattr(CapturedArray, _name, _method(_name))


class CapturedScalar:
    """A number read from an array. A rule may only compare it with a constant."""

    def __init__(self, captured: CapturedArray, index: tuple[Any, ...]) -> None:
        self.captured = captured
        self.index = index

    def compare(self, symbol: str, other: Any) -> bool:
        """Record a comparison as a guard, and return its outcome."""
        if not isinstance(other, int | float):
            raise Untraceable("a value compared with another")
        array, read = self.captured.array, f"item({', '.join(map(repr, self.index))})"
        if len(self.index) == 1 and isinstance(self.index[0], CapturedArray):  # found by argmax or argmin
            found = self.captured.tape.calls[-1]
            if found.out is not self.index[0] or found.args != (self.captured,) or found.kwargs:
                raise Untraceable("an entry read at an index of the graph")
            self.captured.tape.calls.pop()
            read = f"item({{0}}.{found.function.__name__}())"
        test = f"{{0}}.{read} {symbol} {other!r}"
        return self.captured.tape.add_guard(test, (self.captured,), eval(test.format("array"), {"array": array}))

    def __bool__(self) -> bool:
        return self.compare("!=", 0)


for _name, _symbol in {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}.items():
    setattr(CapturedScalar, f"__{_name}__", lambda self, other, symbol=_symbol: self.compare(symbol, other))


def copy(array: Any) -> Any:
    """Return a copy."""
    return array.copy()


def plain(values: Any) -> Any:
    """Return values with captured arrays replaced by their arrays."""
    if isinstance(values, CapturedArray):
        return values.array
    if isinstance(values, tuple | list):
        return type(values)(plain(v) for v in values)
    return values


REDUCES = {np.sum: np.add, np.mean: np.add, np.max: np.maximum, np.min: np.minimum, np.prod: np.multiply}
"""NumPy functions that reduce by a ufunc; the ufunc's method is recorded. A mean is then divided."""

SHAPED_BY_VALUES = {
    np.argwhere, np.bincount, np.compress, np.extract, np.flatnonzero, np.intersect1d, np.repeat, np.setdiff1d,
    np.setxor1d, np.trim_zeros, np.union1d, np.unique, np.unique_values,
}  # fmt: skip
"""NumPy functions whose result may have another shape for other values. `store` notices it in a replay."""

TAKES_OUT = {
    np.argmax, np.argmin, np.mean, np.var, np.std, np.take, np.concatenate, np.stack,
    np.cumsum, np.cumprod, np.einsum, np.clip,
}  # fmt: skip
"""NumPy functions that take ``out``."""
