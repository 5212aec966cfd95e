"""Writes, for each op, the function that applies it and records its node.

Applying an op is the same steps for every op: take the arrays out of the Tensors, compute the value,
lock it, and record a node with an edge for each input that needs a gradient. In a small model these
steps take as long as the arithmetic, and most of that goes into loops over one, two or three inputs.
So they are written out once for each op when it is declared, as `dataclasses` does for ``__init__``;
``relu.source`` shows what came of it.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

import numpy as np

from microfw.errors import DTypeError
from microfw.graph import MODE, SCOPE, Node, numbers
from microfw.tensor import Tensor

if TYPE_CHECKING:
    from microfw.op import Op

TEMPLATE = """
def {name}({signature}):
    mode = MODE.get()
    observer = mode.observer
    if observer is not None:
        began = perf_counter_ns()
    recording = mode.recording
    dtype = None
    shared = False
    guards = ()
{take}
    {outputs} = value({arrays}{keywords})
    if type(y) is not ndarray:
        y = asarray(y)
    if y.dtype is not dtype:
        check_dtype(op, y.dtype, dtype)
{alias}
    y.setflags(False)
    made = new(Tensor)
    made._array = y
    made._leaf = made._node = node = None
    if recording:
        edges = []
{edges}
        if edges:
            made._node = node = new(Node)
            node.order = next(numbers)
            node.op = op
            node.edges = edges
            node.shape = y.shape
            node.guards = guards
            node.scope = SCOPE.get()
{extra}
    if observer is not None:
        observer.forward(op, node, ({arrays},), {params}, y, began)
    return made
"""

TAKE = """
    if isinstance({x}, Tensor):
        {x}_array = {x}._array
        {x}_node = {x}._node
        if {x}._leaf is not None:
            {guard}
        if {x}_array.dtype is not dtype:
            dtype = {x}_array.dtype if dtype is None else common(op, dtype, {x}_array.dtype)
    else:
        {x}_array = {x} if type({x}) is ndarray else operand(op, {x})
        {x}_node = None
        shared = True
        {copy}
"""

GUARD = "shared = True; guards += (({x}._leaf, {x}._leaf.version),)"
COPY = "if recording and type({x}_array) is ndarray: {x}_array = {x}_array.copy()"
ALIAS = """
    if shared and any(may_share_memory(y, a) for a in ({arrays},)):
        y = y.copy()
"""

EDGE = """
        if {x}_node is not None:
            edges.append(({x}_node, partial_{x}, ({args})))
"""


def write(op: Op, inputs: tuple[str, ...]) -> Callable[..., Tensor]:
    """Write and compile the function that applies an op to so many inputs."""
    saved = {name for p in op.partials if p for name in p.sources}
    if op.aux or op.variadic:
        saved |= set(inputs)
    arrays = ", ".join(f"{x}_array" for x in inputs)
    names = {x: f"{x}_array" for x in inputs} | {name: name for name in ("y", *op.aux, *op.params)}
    namespace: dict[str, Any] = {
        "MODE": MODE, "SCOPE": SCOPE, "Node": Node, "Tensor": Tensor, "asarray": np.asarray, "check_dtype": check_dtype,
        "common": common, "may_share_memory": np.may_share_memory, "ndarray": np.ndarray, "new": object.__new__,
        "numbers": numbers, "op": op, "operand": operand, "perf_counter_ns": perf_counter_ns, "value": op.value,
        "shape_of": np.shape,
    }  # fmt: skip
    take, edges = [], []
    for k, x in enumerate(inputs):
        take.append(
            TAKE.format(
                x=x,
                guard=GUARD.format(x=x) if x in saved else "shared = True",
                copy=COPY.format(x=x) if x in saved else "",
            )
        )
        partial = op.partial(k)
        if partial is not None:
            namespace[f"partial_{x}"] = partial
            special = {"shape": f"shape_of({x}_array)", "index": str(k)}
            special |= {"shapes": "(" + "".join(f"shape_of({i}_array), " for i in inputs) + ")"}
            special |= {op.inputs[0]: f"({arrays},)"} if op.variadic else {}
            args = "".join(f"{special.get(s) or names[s]}, " for s in partial.sources)
            edges.append(EDGE.format(x=x, args=args))
    signature = [*inputs]
    extra = []
    for name, default in op.params.items():
        namespace[f"default_{name}"] = default
        signature.append(name if default is op.REQUIRED else f"{name}=default_{name}")
    params = "{" + ", ".join(f"{p!r}: {p}" for p in op.params) + "}"
    if op.params:
        extra.append(f"            node._params = {params}")
    if op.aux:
        extra.append(f"            node._inputs = ({arrays},)")
    source = TEMPLATE.format(
        name=op.name,
        signature=", ".join(signature),
        take="".join(take),
        outputs=", ".join(("y", *op.aux)),
        arrays=arrays,
        keywords="".join(f", {p}={p}" for p in op.params),
        alias="" if op.fresh else ALIAS.format(arrays=arrays),
        edges="".join(edges) or "        pass",
        extra="\n".join(extra),
        params=params,
    )
    source = "\n".join(line for line in source.splitlines() if line.strip())
    exec(compile(source, f"<op {op.name}>", "exec"), namespace)
    call: Callable[..., Tensor] = namespace[op.name]
    call.source = source  # type: ignore[attr-defined]
    return call


def operand(op: Op, x: Any) -> Any:
    """Return an operand that is no Tensor as an array, or as a Python scalar, which has no dtype of its own."""
    if type(x) in (int, float, bool):
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
    if got == object:
        raise DTypeError(f"{op.name}: expected numbers, got an array of objects; pass numeric arrays")
    if dtype is not None and got.kind == dtype.kind == "f" and got != dtype and not op.casts:
        raise DTypeError(
            f"{op.name}: expected all operands to be {dtype}, got an array that makes the result {got}; "
            f"cast it with .astype(np.{dtype})"
        )
