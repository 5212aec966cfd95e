"""Writes `apply` and the visit of a node out for one op: the fast way to run it.

`compile_lazily` returns the function that users call, ``op.call``. When it is first called, it is generated as Python
text without loops over inputs, edges and parameters, as `dataclasses` does for ``__init__``; ``relu.op.source`` shows
the text. A test holds values, gradients and nodes equal to those of `apply` and `visit_edges` for every op.

In an eager step only generated code calls ``vjp_out``, which writes a gradient straight into `Leaf.grad_buffer`; see
`VJP_OUT`.

Both passes of one op by ``benchmarks/bench_codegen.py`` on one core: linear (32, 64) x (64, 64) takes 19 us generated
and 35 us by `apply`, an addition of 3 entries 8 us and 15 us.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from time import perf_counter_ns
from types import FunctionType
from typing import Any

import numpy as np

from microfw.autograd.apply import REQUIRED, check_dtype, common_dtype, explain_error, operand
from microfw.autograd.backward import accumulate, unbroadcast, visit_edges
from microfw.autograd.graph import Node, NodeSpec, node_counter
from microfw.autograd.mode import MODE
from microfw.autograd.scope import THREAD_SCOPE
from microfw.autograd.tensor import Tensor
from microfw.autograd.types import Op

# Names that the op's declaration chooses stand as they are; all others begin with an underscore.

NAMES: dict[str, Any] = {
    "_MODE": MODE, "_THREAD_SCOPE": THREAD_SCOPE, "_Node": Node, "_Tensor": Tensor, "_asarray": np.asarray,
    "_clock": perf_counter_ns, "_check_dtype": check_dtype, "_common": common_dtype, "_accumulate": accumulate,
    "_may_share_memory": np.may_share_memory, "_ndarray": np.ndarray, "_new": object.__new__,
    "_next": next, "_node_counter": node_counter, "_operand": operand, "_unbroadcast": unbroadcast, "_none": {},
    "_explain_error": explain_error,
}  # fmt: skip

# Lines that end with ``# if flag`` are written only for ops, or inputs, that have the flag.

SOURCE = """
def _apply({signature}):
    _mode = _MODE.get()
    _observer = _mode.observer
    _start_ns = None if _observer is None or not _observer.enabled else _clock()
    _saved_versions = ()  # if saves inputs
    _shared = False  # if may alias
{take}
    try:
        {outputs} = _value({arrays}{keywords})
    except Exception as _error:
        _explain_error(_op, ({arrays},), _error)
        raise
    if type(_y) is not _ndarray: _y = _asarray(_y)
    if _y.dtype is not _dtype: _check_dtype(_op, _y.dtype, _dtype)
    if _shared and any(_y is a or _may_share_memory(_y, a) for a in ({arrays},)): _y = _y.copy()  # if may alias
    _y.setflags(False)
    _made = _new(_Tensor)
    _made._array = _y
    _made._leaf = _node = None
    if _mode.recording and ({recorded}):
        _node = _new(_Node)
        _node.order = _next(_node_counter)
        _node.spec = _spec
        _node.parents = ({parents})
        _node.saved = ({saved})
        _node.shape = _y.shape
        _node.saved_versions = _saved_versions  # if saves inputs
        _node.saved_versions = ()  # if saves no inputs
        _node.scope = _THREAD_SCOPE.scope
        _node._params = {params}  # if has params
    _made._node = _node
    if _start_ns is not None: _observer.forward(_op, _node, ({arrays},), {params}, _y, _start_ns)
    return _made
def _backward(_node, _g, _grads, _ready, _needed):
    ({names}) = _node.saved
    ({parents}) = _node.parents
{edges}
"""

# Labels may be integers: only floats must have one dtype.
TAKE = """
    if isinstance({x}, _Tensor):
        _{x}, _{x}_node = {x}._array, {x}._node
        if {x}._leaf is not None: _saved_versions += (({x}._leaf, {x}._leaf.version),)  # if saved
        _shared = _shared or {x}._leaf is not None  # if may alias
        _dtype = _{x}.dtype  # if first
        if _{x}.dtype is not _dtype and (_dtype is None or _{x}.dtype.kind == "f"):  # if later
            _dtype = _{x}.dtype if _dtype is None else _common(_op, _dtype, _{x}.dtype)  # if later
    else:
        _{x} = {x} if type({x}) is _ndarray else _operand(_op, {x})
        _dtype = _{x}_node = None  # if first
        _{x}_node = None  # if later
        _shared = True  # if may alias
        if _mode.recording and type(_{x}) is _ndarray: _{x} = _{x}.copy("K")  # if saved
"""

# A node with one parent is recorded only if that parent needs a gradient.
EDGE = """
    if _needed is None or _{x}_node in _needed:  # if only
    if _{x}_node is not None and (_needed is None or _{x}_node in _needed):  # if one of many
"""

# Written into the buffer: the first gradient that a `backward` finds for a parameter of an optimizer, unless it has one
# from an earlier `backward`. A second use of the parameter adds to it in a new array, since the buffer may be an input.
VJP_OUT = """
        _buffer = _{x}_node.grad_buffer if _needed is None else None
        if _buffer is not None and _{x}_node.grad is None and _{x}_node not in _grads:
            _{x}_vjp_out(_g, {args}_buffer)
            _grads[_{x}_node] = _buffer
        else:
            _accumulate(_node, _{x}_node, _{x}_vjp(_g, {args}), _grads, _ready)
"""

# `accumulate` written out: one call fewer for each edge.
STORE_OR_ADD = """
        _grad_input = _{x}_vjp(_g, {args})
        if _grad_input.shape != _{x}_node.shape:
            _grad_input = _unbroadcast(_grad_input, _{x}_node.shape, _node)
        if _{x}_node in _grads:
            _grads[_{x}_node] = _grads[_{x}_node] + _grad_input
        else:
            _grads[_{x}_node] = _grad_input
            if type(_{x}_node) is _Node: _ready.append(_{x}_node)
"""

RESERVED = {"y", "shape", *(function.__name__ for function in (any, isinstance, type))}
"""Names that no input may have: ``_`` and such a name is a variable of the generated functions."""
RESERVED |= {name[1:] for name in re.findall(r"(?<![\w.}])_\w+", SOURCE + TAKE + VJP_OUT + STORE_OR_ADD)}

SHAPE = "(_{x}.shape if type(_{x}) is _ndarray else ())"


def _lines(template: str, flags: dict[str, bool]) -> str:
    """Return a template without the lines that end with ``# if flag`` for a flag that is not set."""
    parts = [line.partition("  # if ") for line in template.splitlines()]
    return "\n".join(line for line, _, flag in parts if not flag or flags[flag])


def compile_lazily(op: Op, inputs: tuple[str, ...]) -> Callable[..., Tensor]:
    """Return the function that runs an op on the named inputs; the function is generated at its first call."""

    def first(*args: Any, **params: Any) -> Tensor:
        source, names, spec = generate(op, inputs)
        namespace.update(names)
        exec(compile(source, f"<op {op.name}>", "exec"), namespace)
        spec.backward_fn = namespace["_backward"]
        made = namespace["_apply"]
        call.__code__, call.__defaults__ = made.__code__, made.__defaults__
        return call(*args, **params)  # type: ignore[no-any-return]

    namespace: dict[str, Any] = {"_first": first}
    call = FunctionType(_not_compiled.__code__, namespace)
    return call


def _not_compiled(*inputs: Any, **params: Any) -> Any:
    return _first(*inputs, **params)  # type: ignore[name-defined]  # noqa: F821


def generate(op: Op, inputs: tuple[str, ...]) -> tuple[str, dict[str, Any], NodeSpec]:
    """Return the text of both functions for the named inputs, the names that the text uses, and the nodes' spec."""
    partials = {x: partial for x, partial in zip(inputs, op.partials, strict=False) if partial is not None}
    arrays = ", ".join(f"_{x}" for x in inputs)
    wanted = {x: [_source(op, x, s) for s in partial.sources] for x, partial in partials.items()}
    saved = {key: [x for x in partials if key in wanted[x]] for keys in wanted.values() for key in keys}
    if op.aux:
        saved["_inputs"] = list(partials)
    recipes = {f"_{x}_shape": SHAPE.format(x=x) for x in inputs} | {"_inputs": f"({arrays},)"}
    recipes |= {f"_{x}_index": str(k) for k, x in enumerate(inputs)}
    recipes["_shapes"] = "(" + "".join(f"{recipes[f'_{x}_shape']}, " for x in inputs) + ")"
    heavy = {f"_{x}" for x in inputs} | {"_y", "_inputs"}
    copied = heavy if "_inputs" in saved else {*saved}
    flags = {"may alias": not op.no_alias, "has params": bool(op.params), "only": len(partials) == 1}
    flags |= {"saves inputs": not copied.isdisjoint(f"_{x}" for x in inputs), "one of many": len(partials) > 1}
    flags["saves no inputs"] = not flags["saves inputs"]
    namespace: dict[str, Any] = NAMES | {"_op": op, "_value": op.value}

    def keep(key: str) -> str:
        """Return what is saved under a key: nothing if no derivative that will be called needs it."""
        value, users = recipes.get(key, key), saved[key]
        if key not in heavy or len(users) == len(partials):
            return value
        return f"{value} if {_any(users)} else None"

    take, edges = [], []
    for x in inputs:
        flags |= {"first": x == inputs[0], "later": x != inputs[0], "saved": f"_{x}" in copied}
        take.append(_lines(TAKE, flags).format(x=x))
        if x in partials:
            vjp, vjp_out = partials[x].vjp, partials[x].vjp_out
            namespace |= {f"_{x}_vjp": vjp, f"_{x}_vjp_out": vjp_out}
            edge = _lines(EDGE, flags) + (VJP_OUT if vjp_out is not None else STORE_OR_ADD)
            edges.append(edge.format(x=x, args="".join(f"{key}, " for key in wanted[x])))
    namespace |= {f"_default_{name}": default for name, default in op.params.items()}
    defaults = [name if value is REQUIRED else f"{name}=_default_{name}" for name, value in op.params.items()]
    source = _lines(SOURCE, flags).format(
        signature=", ".join([*inputs, *defaults]),
        take="".join(take),
        outputs=", ".join(("_y", *(f"_aux_{name}" for name in op.aux))),
        arrays=arrays,
        keywords="".join(f", {p}={p}" for p in op.params),
        recorded=_any(list(partials)),
        parents="".join(f"_{x}_node, " for x in partials),
        saved="".join(f"{keep(key)}, " for key in saved),
        params="{" + ", ".join(f"{p!r}: {p}" for p in op.params) + "}" if op.params else "_none",
        names="".join(f"{key}, " for key in saved),
        edges="".join(edges),
    )
    source = "\n".join(line for line in source.splitlines() if line.strip())
    places = {key: k for k, key in enumerate(saved)}
    indices = tuple(tuple(places[key] for key in keys) for keys in wanted.values())
    spec = NodeSpec(op, tuple(partials.values()), indices, visit_edges)
    return source, namespace | {"_spec": spec}, spec


def _source(op: Op, x: str, source: str) -> str:
    """Return the name that what a derivative asks for has in the functions that are written."""
    if source in ("shape", "index"):
        return f"_{x}_{source}"
    if op.variadic and source == op.inputs[0]:
        return "_inputs"
    if source in op.params:
        return source
    return f"_aux_{source}" if source in op.aux else f"_{source}"


def _any(inputs: list[str]) -> str:
    return " or ".join(f"_{x}_node is not None" for x in inputs) or "False"
