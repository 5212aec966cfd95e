"""Applies an op to any number of inputs, in a loop: what `record` writes out for a few of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from time import perf_counter_ns
from typing import Any

import numpy as np

from microfw.autograd.codegen import REQUIRED, check_dtype, common, operand
from microfw.autograd.graph import Node, NodeSpec, node_counter
from microfw.autograd.mode import MODE
from microfw.autograd.scope import THREAD_SCOPE
from microfw.autograd.tensor import Tensor, result
from microfw.autograd.types import Op

Shape = tuple[int, ...]


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


@lru_cache(maxsize=32)
def spec_of(op: Op, n: int) -> tuple[NodeSpec, tuple[str, ...]]:
    """Return the form of the nodes of so many inputs, and what they save first: inputs, output, parameters, ...

    After that come the number of each input, and its shape where a derivative asks for it.
    """
    partials: list[Any] = [op.partial(k) for k in range(n)]
    sources = partials[0].sources if partials else ()
    keys = tuple(dict.fromkeys(s for s in sources if s not in ("index", "shape")))
    own = {"index": len(keys), "shape": len(keys) + n}
    places = {key: k for k, key in enumerate(keys)}
    at = [tuple(own[s] + k if s in own else places[s] for s in sources) for k in range(n)]
    return NodeSpec(op, tuple(partials), tuple(at)), keys


def apply(op: Op, inputs: Sequence[Any], given: dict[str, Any]) -> Tensor:
    """Apply an op of one kind of inputs to all of them, and record a node where a gradient is needed."""
    mode = MODE.get()
    observer, recording = mode.observer, mode.recording
    if observer is not None and not observer.enabled:
        observer = None
    began = perf_counter_ns() if observer is not None else 0
    params = _params(op, given)
    partial = op.partial(0)
    saves = bool(op.aux) or (partial is not None and op.inputs[0] in partial.sources)
    dtype: Any = None
    shared = False
    saved_versions: list[Any] = []
    arrays: list[Any] = []
    nodes: list[Any] = []
    for x in inputs:
        if isinstance(x, Tensor):
            array, leaf = x._array, x._leaf
            nodes.append(x._node if partial is not None else None)
            if leaf is not None:
                shared = True
                if saves:
                    saved_versions.append((leaf, leaf.version))
            if array.dtype is not dtype:
                dtype = array.dtype if dtype is None else common(op, dtype, array.dtype)
        else:
            shared = True
            array = x if type(x) is np.ndarray else operand(op, x)
            nodes.append(None)
            if saves and recording and type(array) is np.ndarray:
                array = array.copy()
        arrays.append(array)
    value = op.value(*arrays, **params)
    y, *extra = value if op.aux else (value,)
    y = np.asarray(y)
    if y.dtype is not dtype:
        check_dtype(op, y.dtype, dtype)
    if shared and not op.no_alias and any(y is a or np.may_share_memory(y, a) for a in arrays):
        y = y.copy()
    y.setflags(write=False)
    node = None
    if recording and any(n is not None for n in nodes):
        node = Node()
        node.order = next(node_counter)
        node.spec, keys = spec_of(op, len(arrays))  # type: ignore[arg-type]  # hashable as any object
        shapes = Shapes(getattr(a, "shape", ()) for a in arrays)
        known = params | dict(zip(op.aux, extra, strict=True)) | {"y": y, "shapes": shapes, op.inputs[0]: tuple(arrays)}
        saved = (*(known[key] for key in keys), *range(len(arrays)))
        if partial is not None and "shape" in partial.sources:
            saved += shapes
        node.saved = (*saved, tuple(arrays)) if op.aux else saved
        node.parents = tuple(nodes)
        node.shape = y.shape
        node.saved_versions = tuple(saved_versions)
        node.scope = THREAD_SCOPE.scope
        if op.params:
            node._params = params
    if observer is not None:
        observer.forward(op, node, tuple(arrays), params, y, began)
    return result(y, node)


def _params(op: Op, given: dict[str, Any]) -> dict[str, Any]:
    params = op.params | given
    for name in params:
        if name not in op.params:
            raise TypeError(f"{op.name}: expected parameters among {', '.join(op.params)}, got {name}")
        if params[name] is REQUIRED:
            raise TypeError(f"{op.name}: expected a value for {name}, got none")
    return params


def starts(shapes: Sequence[Shape], axis: int) -> Sequence[int]:
    """Return where each of several shapes starts along an axis."""
    return (shapes if isinstance(shapes, Shapes) else Shapes(shapes)).starts(axis)
