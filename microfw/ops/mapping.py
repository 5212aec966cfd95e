"""NumPy's functions that are implemented by several ops, or by an op with other arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from microfw.autograd.registry import NUMPY, OPS
from microfw.autograd.tensor import Tensor

F = TypeVar("F", bound=Callable[..., Any])


def implements(*functions: Callable[..., Any] | None) -> Callable[[F], F]:
    """Let NumPy's functions, called on a Tensor, become the decorated one; None stands for one too new."""

    def enter(made: F) -> F:
        for function in functions:
            if function is not None:
                NUMPY[function] = made
        return made

    return enter


def as_floats(x: Any) -> Any:
    """Return integers and truth values as float64, whose squares, sizes and differences do not overflow."""
    return x.astype(np.float64) if x.dtype.kind in "iub" else x


def operand(x: Any) -> Any:
    """Return what is no Tensor as an array, so that it has a shape."""
    return x if isinstance(x, Tensor) else np.asarray(x)


def hashable(value: Any) -> Any:
    """Return a setting with tuples in the place of lists and arrays, and other objects as their text.

    Examples
    --------
    >>> hashable([1, [2, 3]])
    (1, (2, 3))
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return tuple(map(hashable, value))
    return repr(value) if isinstance(value, dict | set) else value


def either(name: str, *inputs: Any, **params: Any) -> Any:
    """Apply an op to Tensors; of arrays alone compute its value only.

    Rules give an op by its name, since they are part of the declaration of an op that may come before it.
    """
    op = OPS[name]
    # a loop and not any(...): a generator costs more than the test
    for x in inputs:
        if isinstance(x, Tensor):
            return op.call(*inputs, **params)
    value = op.value(*inputs, **params)
    return value[0] if op.aux else value


def _values(given: Any) -> Any:
    if type(given) in (list, tuple):
        return type(given)(_values(x) for x in given)
    return given.numpy() if isinstance(given, Tensor) else given


def _answer(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function of NumPy's have the values, and return what NumPy returns."""

    def call(*given: Any, **options: Any) -> Any:
        return function(*_values(given), **{name: _values(value) for name, value in options.items()})

    return call


PLAIN = (
    np.array_equiv, np.can_cast, np.common_type, np.diag_indices_from, np.einsum_path, np.iscomplexobj, np.isrealobj,
    np.ix_, np.min_scalar_type, np.save, np.savetxt, np.savez, np.savez_compressed, np.tril_indices_from,
    np.triu_indices_from,
)  # fmt: skip
"""Functions through which no gradient flows: they say what an array is like, or write it down."""

for _function in PLAIN:
    implements(_function)(_answer(_function))


def zeros(shape: tuple[int, ...], like: Any, dtype: Any = None) -> Any:
    """Return zeros to write to, of the kind of array that ``like`` is, so that a capture records the writes."""
    if isinstance(like, np.ndarray | np.generic):  # np.zeros takes less time than np.zeros_like
        return np.zeros(shape, dtype or like.dtype)
    y = np.empty_like(like, shape=shape, dtype=dtype, order="C")
    y[...] = 0
    return y


def empty(shape: tuple[int, ...], like: Any, dtype: Any = None) -> Any:
    """Return an array to write to, as `zeros` does."""
    if isinstance(like, np.ndarray | np.generic):
        return np.empty(shape, dtype or like.dtype)
    # the order of a batch-first view is wrong for a batch-last result: 85 µs in the place of 6 for the next product
    return np.empty_like(like, shape=shape, dtype=dtype, order="C")
