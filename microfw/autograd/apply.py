"""Runs an op: computes its value, and records a node where a gradient is needed.

`apply` is the readable way to run any op. The functions that `codegen` writes do the same for a fixed number of
inputs, faster; a test compares both for every op. Ops of more than eight inputs are run by `apply` itself.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from time import perf_counter_ns
from typing import Any

import numpy as np

from microfw.autograd._tensor_base import refuse_masked
from microfw.autograd.backward import visit_edges
from microfw.autograd.graph import Node, NodeSpec, node_counter
from microfw.autograd.mode import MODE
from microfw.autograd.scope import THREAD_SCOPE, location
from microfw.autograd.tensor import Tensor, result
from microfw.autograd.types import Op
from microfw.errors import DTypeError, MicrofwError, ShapeError

REQUIRED = object()
"""The default of a parameter that has none."""

Shape = tuple[int, ...]


def in_dtype_of_gradient(rule: Callable[..., Any]) -> Callable[..., Any]:
    """Return a derivative rule whose result has the dtype of the gradient, also if it multiplies by a float64 number.

    For ops of users: the rules of this library keep the dtype, and need no second call.
    """

    @wraps(rule)
    def kept(g: Any, *args: Any) -> Any:
        made = rule(g, *args)
        dtype = getattr(made, "dtype", g.dtype)
        return made.astype(g.dtype) if dtype != g.dtype and dtype.kind == "f" else made

    return kept


def apply(op: Op, inputs: Sequence[Any], given: dict[str, Any]) -> Tensor:
    """Run an op on its inputs, and record a node if an input needs a gradient.

    Parameters
    ----------
    op : Op
        The declaration.
    inputs : sequence of Tensor, array or number
        The op's inputs.
    given : dict
        The op's keyword parameters.

    Returns
    -------
    Tensor
        The value, read-only.

    Raises
    ------
    DTypeError
        If the inputs are not numbers, or are Tensors of different floating dtypes.
    ShapeError
        If NumPy refuses the shapes of the inputs.
    TypeError
        If a parameter is unknown or missing.
    """
    mode = MODE.get()
    observer, recording = mode.observer, mode.recording
    if observer is not None and not observer.enabled:
        observer = None
    start_ns = perf_counter_ns() if observer is not None else 0
    params = _params(op, given)
    spec, keys, saved_inputs = spec_of(op, len(inputs))  # type: ignore[arg-type]  # hashable as any object
    dtype: Any = None
    may_alias = False
    saved_versions: list[Any] = []
    arrays: list[Any] = []
    parents: list[Any] = []
    for k, x in enumerate(inputs):
        if isinstance(x, Tensor):
            array, leaf = x._array, x._leaf
            parents.append(x._node)
            if leaf is not None:
                may_alias = True
                if k in saved_inputs:
                    saved_versions.append((leaf, leaf.version))
            if array.dtype is not dtype:
                dtype = array.dtype if dtype is None else common_dtype(op, dtype, array.dtype)
        else:
            may_alias = True
            array = x if type(x) is np.ndarray else operand(op, x)
            parents.append(None)
            if k in saved_inputs and recording and type(array) is np.ndarray:
                array = array.copy("K")  # the caller may write to the array before backward
        arrays.append(array)
    try:
        value = op.value(*arrays, **params)
    except Exception as error:
        explain_error(op, arrays, error)
        raise
    y, *extra = value if op.aux else (value,)
    y = np.asarray(y)
    if y.dtype is not dtype:
        check_dtype(op, y.dtype, dtype)
    if may_alias and not op.no_alias and any(y is a or np.may_share_memory(y, a) for a in arrays):
        y = y.copy()  # a leaf's array changes with the next update, and y must not
    y.setflags(write=False)
    node = None
    parents = [parents[partial.index] for partial in spec.partials]
    if recording and any(parent is not None for parent in parents):
        known = params | dict(zip(op.aux, extra, strict=True)) | {"y": y}
        if op.variadic:
            known |= {op.inputs[0]: tuple(arrays), "shapes": Shapes(getattr(a, "shape", ()) for a in arrays)}
        else:
            known |= dict(zip(op.inputs, arrays, strict=True))
        node = Node()
        node.order = next(node_counter)
        node.spec = spec
        node.parents = tuple(parents)
        node.saved = tuple(
            k if name == "index" else getattr(arrays[k], "shape", ()) if name == "shape" else known[name]
            for name, k in keys
        )
        if op.aux:
            node.saved += (tuple(arrays),)
        node.shape = y.shape
        node.saved_versions = tuple(saved_versions)
        node.scope = THREAD_SCOPE.scope
        if op.params:
            node._params = params
    if observer is not None:
        observer.forward(op, node, tuple(arrays), params, y, start_ns)
    return result(y, node)


@lru_cache(maxsize=32)
def spec_of(op: Op, n: int) -> tuple[NodeSpec, list[tuple[str, int]], set[int]]:
    """Return how an op's nodes of n inputs are recorded.

    Returns
    -------
    spec : NodeSpec
        What the nodes have in common.
    keys : list of (str, int)
        What each node saves: an argument of a derivative by its name, with the index of the input for "shape" and
        "index", which differ from input to input, and 0 for all others.
    saved_inputs : set of int
        The inputs whose arrays are saved.
    """
    partials = [partial for k in range(n) if (partial := op.partial(k)) is not None]
    own = ("shape", "index")
    wanted = [[(name, p.index if name in own else 0) for name in p.sources] for p in partials]
    keys = list(dict.fromkeys(key for each in wanted for key in each))
    at = {key: k for k, key in enumerate(keys)}
    spec = NodeSpec(op, tuple(partials), tuple(tuple(at[key] for key in each) for each in wanted), visit_edges)
    names = {name for name, _ in keys}
    saved = {k for k in range(n) if op.aux or op.inputs[0 if op.variadic else k] in names}
    return spec, keys, saved


class Shapes(tuple[Shape, ...]):
    """The shapes of all inputs, as derivatives get them.

    Examples
    --------
    >>> Shapes([(2, 3), (1, 3), (4, 3)]).starts(0)
    [0, 2, 3]
    """

    def starts(self, axis: int) -> list[int]:
        """Return where each input starts along an axis on which they are joined, summed up once for all of them."""
        kept: dict[int, list[int]] = self.__dict__.setdefault("_starts", {})
        if axis not in kept:
            ends = np.cumsum([shape[axis] for shape in self]).tolist()
            kept[axis] = [0, *ends[:-1]]
        return kept[axis]


def starts(shapes: Sequence[Shape], axis: int) -> Sequence[int]:
    """Return where each of several shapes starts along an axis."""
    return (shapes if isinstance(shapes, Shapes) else Shapes(shapes)).starts(axis)


# Checks of inputs and results


def operand(op: Op, x: Any) -> Any:
    """Return an input that is no Tensor as an array, or as a Python scalar, which has no dtype of its own."""
    if isinstance(x, np.ndarray) and type(x) is not np.ndarray:
        refuse_masked(x, _where(op))
    if len(op.inputs) == 1 and not op.variadic:
        x = np.asarray(x)
    if type(x) in (int, float, bool) or (type(x) is np.ndarray and x.dtype.kind in "fiub"):
        return x
    if isinstance(x, np.generic):
        return x.item()
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise DTypeError(f"{_where(op)}: expected a Tensor, an array or a number, got {type(x).__name__}")
    return array


def common_dtype(op: Op, dtype: Any, other: Any) -> Any:
    """Return the one floating dtype of an op's Tensors; raise if there are two."""
    if other.kind != "f" or dtype == other:
        return dtype
    if dtype.kind != "f" or op.allow_dtype_change:
        return other
    raise DTypeError(
        f"{_where(op)}: expected Tensors of one dtype, got {dtype} and {other}; cast one of them with .astype, "
        "or make it as mf.tensor(values, np.float32), since NumPy's generators draw float64"
    )


def check_dtype(op: Op, got: Any, dtype: Any) -> None:
    """Raise if an array operand has made the result of another dtype than the Tensors'."""
    if got.kind == "O":
        raise DTypeError(f"{_where(op)}: expected numbers, got an array of objects; pass numeric arrays")
    if dtype is not None and got.kind == dtype.kind == "f" and got != dtype and not op.allow_dtype_change:
        raise DTypeError(
            f"{_where(op)}: expected all operands to be {dtype}, got an array that makes the result {got}; "
            f"cast it with .astype(np.{dtype}), as in rng.normal(size=3).astype(np.{dtype})"
        )


def explain_error(op: Op, arrays: Sequence[Any], error: Exception) -> None:
    """Raise ShapeError for NumPy's error about shapes; add a note with the place to other errors but microfw's own."""
    if isinstance(error, MicrofwError):
        return
    where = _where(op)
    names = [f"{op.inputs[0]}[{k}]" for k in range(len(arrays))] if op.variadic else op.inputs
    shapes = [f"{name} {np.shape(array)}" for name, array in zip(names, arrays, strict=False)]
    got = ", ".join(shapes[:8]) + (f", … {len(shapes) - 8} more" if len(shapes) > 8 else "")
    if type(error) is ValueError and re.search("shape|dimension|broadcast|axes", str(error)):
        raise ShapeError(where, "shapes that fit", got, str(error)) from error
    error.add_note(f"raised in {where}, with inputs of shapes {got}")


def _where(op: Op) -> str:
    return location(THREAD_SCOPE.scope, op.name)


def _params(op: Op, given: dict[str, Any]) -> dict[str, Any]:
    """Return an op's parameters, with the defaults of those that are not given."""
    params = op.params | given
    for name in params:
        if name not in op.params:
            raise TypeError(f"{op.name}: expected parameters among {', '.join(op.params)}, got {name}")
        if params[name] is REQUIRED:
            raise TypeError(f"{op.name}: expected a value for {name}, got none")
    return params
