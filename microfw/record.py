"""Writes, for each op, the function that applies it and records its node.

Applying an op is the same steps for every op: take the arrays out of the Tensors, compute the value,
lock it, and record a node with an edge for each input that needs a gradient. In a small model these
steps take as long as the arithmetic, and most of that goes into loops over one, two or three inputs.
So they are written out once for each op when it is first called, as `dataclasses` does for ``__init__``;
``relu.op.source`` shows what came of it.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np

from microfw.errors import DTypeError
from microfw.graph import Node, numbers
from microfw.recording import MODE, SCOPE
from microfw.tensor import Tensor

if TYPE_CHECKING:
    from microfw.op import Op

REQUIRED = object()
"""The default of a parameter that has none."""

# Names that the op's declaration chooses stand as they are; all others begin with an underscore.

TEMPLATE = """
def {name}({signature}):
    _mode = _MODE.get()
    _observer = _mode.observer
    if _observer is not None:
        _began = _clock()
    _recording = _mode.recording
    _dtype = None
    _shared = False
    _guards = ()
{take}
    {outputs} = _value({arrays}{keywords})
    if type(_y) is not _ndarray:
        _y = _asarray(_y)
    if _y.dtype is not _dtype:
        _check_dtype(_op, _y.dtype, _dtype)
{alias}
    _y.setflags(False)
    _made = _new(_Tensor)
    _made._array = _y
    _made._leaf = _made._node = _node = None
    if _recording:
        _edges = []
{edges}
        if _edges:
            _made._node = _node = _new(_Node)
            _node.order = _next(_numbers)
            _node.op = _op
            _node.edges = _edges
            _node.shape = _y.shape
            _node.guards = _guards
            _node.scope = _SCOPE.get()
{extra}
    if _observer is not None:
        _observer.forward(_op, _node, ({arrays},), {params}, _y, _began)
    return _made
"""

TAKE = """
    if isinstance({x}, _Tensor):
        _{x} = {x}._array
        _{x}_node = {x}._node
        {guard}
        if _{x}.dtype is not _dtype:
            _dtype = _{x}.dtype if _dtype is None else _common(_op, _dtype, _{x}.dtype)
    else:
        _{x} = {x} if type({x}) is _ndarray else _operand(_op, {x})
        _{x}_node = None
        _shared = True
        {copy}
"""

GUARD = "if {x}._leaf is not None: _shared = True; _guards += (({x}._leaf, {x}._leaf.version),)"
SHARED = "if {x}._leaf is not None: _shared = True"
COPY = "if _recording and type(_{x}) is _ndarray: _{x} = _{x}.copy()"
ALIAS = """
    if _shared and any(_y is a or _may_share_memory(_y, a) for a in ({arrays},)):
        _y = _y.copy()
"""

EDGE = """
        if _{x}_node is not None:
            _edges.append((_{x}_node, _{x}_partial, ({args})))
"""


def written(op: Op, inputs: tuple[str, ...]) -> Callable[..., Tensor]:
    """Return the function that applies an op to so many inputs. It is written when it is first called."""

    def first(*args: Any, **params: Any) -> Tensor:
        source, names = write(op, inputs)
        namespace.update(names)
        exec(compile(source, f"<op {op.name}>", "exec"), namespace)
        made = namespace[f"_apply_{op.name}"]
        call.__code__, call.__defaults__ = made.__code__, made.__defaults__
        return call(*args, **params)  # type: ignore[no-any-return]

    namespace: dict[str, Any] = {"_first": first}
    call = FunctionType(_unwritten.__code__, namespace)
    return call


def _unwritten(*inputs: Any, **params: Any) -> Any:
    return _first(*inputs, **params)  # type: ignore[name-defined]  # noqa: F821


def write(op: Op, inputs: tuple[str, ...]) -> tuple[str, dict[str, Any]]:
    """Write the function that applies an op to so many inputs; return it with the names that it uses."""
    saved = {name for p in op.partials if p for name in p.sources}
    if op.aux or op.variadic:
        saved |= set(inputs)
    arrays = ", ".join(f"_{x}" for x in inputs)
    names = {x: f"_{x}" for x in inputs} | {"y": "_y"} | {name: f"_aux_{name}" for name in op.aux}
    names |= {name: name for name in op.params}
    namespace: dict[str, Any] = {
        "_MODE": MODE, "_SCOPE": SCOPE, "_Node": Node, "_Tensor": Tensor, "_asarray": np.asarray,
        "_clock": perf_counter_ns, "_check_dtype": check_dtype, "_common": common,
        "_may_share_memory": np.may_share_memory, "_ndarray": np.ndarray, "_new": object.__new__,
        "_next": next, "_numbers": numbers, "_op": op, "_operand": operand, "_shape": np.shape, "_value": op.value,
    }  # fmt: skip
    take, edges = [], []
    for k, x in enumerate(inputs):
        guard = GUARD.format(x=x) if x in saved else "" if op.fresh else SHARED.format(x=x)
        take.append(TAKE.format(x=x, guard=guard, copy=COPY.format(x=x) if x in saved else ""))
        partial = op.partial(k)
        if partial is not None:
            namespace[f"_{x}_partial"] = partial
            special = {"shape": f"_shape(_{x})", "index": str(k)}
            special |= {"shapes": "(" + "".join(f"_shape(_{i}), " for i in inputs) + ")"}
            special |= {op.inputs[0]: f"({arrays},)"} if op.variadic else {}
            args = "".join(f"{special.get(s) or names[s]}, " for s in partial.sources)
            edges.append(EDGE.format(x=x, args=args))
    signature = [*inputs]
    extra = []
    for name, default in op.params.items():
        namespace[f"_default_{name}"] = default
        signature.append(name if default is REQUIRED else f"{name}=_default_{name}")
    params = "{" + ", ".join(f"{p!r}: {p}" for p in op.params) + "}"
    if op.params:
        extra.append(f"            _node._params = {params}")
    if op.aux:
        extra.append(f"            _node._inputs = ({arrays},)")
    source = TEMPLATE.format(
        name=f"_apply_{op.name}",
        signature=", ".join(signature),
        take="".join(take),
        outputs=", ".join(("_y", *(f"_aux_{name}" for name in op.aux))),
        arrays=arrays,
        keywords="".join(f", {p}={p}" for p in op.params),
        alias="" if op.fresh else ALIAS.format(arrays=arrays),
        edges="".join(edges) or "        pass",
        extra="\n".join(extra),
        params=params,
    )
    source = "\n".join(line for line in source.splitlines() if line.strip())
    return source, namespace


def operand(op: Op, x: Any) -> Any:
    """Return an operand that is no Tensor as an array, or as a Python scalar, which has no dtype of its own."""
    if len(op.inputs) == 1 and not op.variadic:
        x = np.asarray(x)
    if type(x) in (int, float, bool) or (type(x) is np.ndarray and x.dtype.kind in "fiub"):
        return x
    if isinstance(x, np.generic):
        return x.item()
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise DTypeError(f"{op.name}: expected a Tensor, an array or a number, got {type(x).__name__}")
    return array


def common(op: Op, dtype: Any, other: Any) -> Any:
    """Return the one floating dtype of an op's Tensors, or refuse to mix two."""
    if other.kind != "f" or dtype == other:
        return dtype
    if dtype.kind != "f" or op.casts:
        return other
    raise DTypeError(
        f"{op.name}: expected Tensors of one dtype, got {dtype} and {other}; cast one of them with .astype"
    )


def check_dtype(op: Op, got: Any, dtype: Any) -> None:
    """Refuse a result that an array operand has made of another dtype than the Tensors'."""
    if got.kind == "O":
        raise DTypeError(f"{op.name}: expected numbers, got an array of objects; pass numeric arrays")
    if dtype is not None and got.kind == dtype.kind == "f" and got != dtype and not op.casts:
        raise DTypeError(
            f"{op.name}: expected all operands to be {dtype}, got an array that makes the result {got}; "
            f"cast it with .astype(np.{dtype})"
        )
