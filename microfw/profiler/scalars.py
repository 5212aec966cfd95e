"""Scalar nodes of a graph of tensors, counted without recording them.

The law's scalar graph has one node for each operation on numbers. Here the value function of each op runs once on
`Entries`, arrays whose entries are the numbers of scalar nodes, and a `Tape` records what it computes. That takes 6 ms
for the 153,632 scalar nodes of a 64-32-10 classifier on 32 rows; recording them takes 1.2 s.

Values are not known. If an op branches on a value, as cross-entropy does for logits above 40, the branch for usual
values is counted; an op that repeats until a value is small counts as one node for each entry.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from microfw.autograd.graph import Node
from microfw.autograd.op import Written
from microfw.profiler.scalar_tape import TAPE, Array, Entries, Shape, Tape, TooLarge, as_entries, ids


class GraphOp(NamedTuple):
    """An op of a graph.

    Attributes
    ----------
    op : Op or None
        The declaration; None for an op that is not known.
    params : dict
        Keyword arguments of the op.
    shape : tuple of int
        Shape of the output.
    inputs : tuple
        For each input a stand-in, see `stand_in`.
    links : dict
        For inputs that need a gradient: index of the op, or -1, -2, … for leaf 0, 1, ….
    """

    op: Any
    params: dict[str, Any]
    shape: Shape
    inputs: tuple[Any, ...]
    links: dict[int, int]


@dataclass
class ScalarCount:
    """Scalar nodes of an op.

    ``nodes``: all that its output depends on. ``rules``: those that the loss depends on. ``accumulated``: edges of
    these to leaves. ``counted``: False if the op's value cannot be counted.
    """

    nodes: int = 0
    rules: int = 0
    accumulated: int = 0
    counted: bool = True


def stand_in(x: Any) -> Any:
    """Return an input with ones in place of an array, one number in memory. Integers, which are indices, are kept."""
    if getattr(x, "dtype", None) is None:
        return x
    kind = np.dtype(x.dtype).kind
    return (
        np.array(x) if kind in "iu" else np.broadcast_to(np.ones((), bool if kind == "b" else np.float64), np.shape(x))
    )


def graph_ops(nodes: Sequence[Node], describe: Callable[[Node], GraphOp | None]) -> tuple[list[GraphOp], list[Shape]]:
    """Return the ops of nodes, oldest first, with their links, and the shapes of the leaves."""
    index: dict[Any, int] = {}
    ops: list[GraphOp] = []
    leaves: list[Shape] = []
    for node in nodes:
        links = {}
        for partial, parent in zip(node.spec.partials, node.parents or (), strict=False):
            if parent is None:
                continue
            if parent not in index:
                leaves.append(parent.shape)
                index[parent] = -len(leaves)
            links[partial.index] = index[parent]
        index[node] = len(ops)
        unknown = GraphOp(None, {}, node.shape, (None,) * (max(links, default=-1) + 1), {})
        ops.append((describe(node) or unknown)._replace(links=links))
    return ops, leaves


def count_graph(ops: Sequence[GraphOp], leaves: Sequence[Shape], ends: Sequence[int] = (-1,)) -> list[ScalarCount]:
    """Count the scalar nodes of a graph.

    Parameters
    ----------
    ops : sequence of GraphOp
        The ops, in order.
    leaves : sequence of tuple
        Shapes of the leaves.
    ends : sequence of int
        Indices of the ops from which a backward pass starts.

    Returns
    -------
    list of ScalarCount
        One for each op.
    """
    sizes = [int(np.prod(shape, dtype=int)) for shape in leaves]
    tape = Tape(sum(sizes))
    token = TAPE.set(tape)
    starts = np.cumsum([1, *sizes]).tolist()
    given = [tape.numbered(start, shape) for start, shape in zip(starts, leaves, strict=False)]
    found = [ScalarCount() for _ in ops]
    made: list[Entries] = []
    try:
        for tape.owner, each in enumerate(ops):
            # constants too: the method ndarray.dot would not call the other factor's
            inputs = [as_entries(x) if getattr(x, "dtype", None) == np.float64 else x for x in each.inputs]
            for k, link in each.links.items():
                inputs[k] = made[link] if link >= 0 else given[-1 - link]
            made.append(run(tape, each, inputs, found[tape.owner]))
    except TooLarge:
        return [ScalarCount(counted=False) for _ in ops]
    finally:
        TAPE.reset(token)
    nodes, _ = tape.back(made, len(ops))
    rules, edges = tape.back([made[end] for end in ends], len(ops))
    for count, *numbers in zip(found, nodes.tolist(), rules.tolist(), edges.tolist(), strict=True):
        count.nodes, count.rules, count.accumulated = numbers
    return found


def run(tape: Tape, each: GraphOp, inputs: list[Any], count: ScalarCount) -> Entries:
    """Run the value function of an op on entries; if that fails, count it as an elementwise op, or not at all."""
    calls, tape.branches = len(tape.calls), 0
    if each.op is not None:
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                y = each.op.value(*inputs, **{name: quiet(value) for name, value in each.params.items()})
                y = np.asarray(y[0] if isinstance(y, tuple) else y)
                if y.shape == each.shape and is_valid(y, tape.size):
                    return as_entries(y)
        except TooLarge:
            raise
        except Exception:  # any error of a value that is not written for entries
            pass
        del tape.calls[calls:]
        if is_elementwise(each):
            return tape.each(each.op, inputs, known=1.0)
    count.counted = False
    reads = [ids(inputs[k]).reshape(-1) for k in each.links]
    opaque = tape.add("each", np.ones(each.shape, bool), 0, ())
    everything = np.concatenate(reads) if reads else np.zeros(0, int)
    tape.calls[-1:] = [call._replace(kind="all", inputs=(everything,)) for call in tape.calls[-1:]]
    return opaque


def is_valid(y: Array, size: int) -> bool:
    """Return True if an array has nodes of a tape, and no others: arithmetic on the numbers of nodes makes others."""
    found = ids(y)
    return not y.size or 0 < found.max() <= size


def is_elementwise(each: GraphOp) -> bool:
    """Return True if an op of one number gives the entries of the op of arrays."""
    rng = np.random.default_rng(0)
    arrays = [
        x if not isinstance(x, np.ndarray) or x.dtype.kind != "f" else rng.uniform(0.1, 0.9, x.shape)
        for x in each.inputs
    ]
    params = {name: quiet(value) for name, value in each.params.items()}
    try:
        if np.broadcast_shapes(*map(np.shape, arrays)) != each.shape or not np.prod(each.shape, dtype=int):
            return False
        y = each.op.value(*arrays, **params)
        ends = [np.ravel(np.broadcast_to(x, each.shape))[[0, -1]] for x in arrays]
        some = [each.op.value(*(np.asarray(x[k]) for x in ends), **params) for k in (0, 1)]
        y, *some = (np.asarray(v[0] if isinstance(v, tuple) else v) for v in (y, *some))
        return all(v.shape == () for v in some) and bool(np.allclose(np.ravel(y)[[0, -1]], some, equal_nan=True))
    except Exception:  # any error of code that is not written for single numbers
        return False


def quiet(value: Any) -> Any:
    """Return a parameter without side effects: a method is not called, a generator a new one, no array written to."""
    if isinstance(value, Written):
        return None
    if isinstance(value, np.random.Generator):
        return np.random.default_rng(0)
    return (
        (lambda *args, **options: None) if getattr(value, "__self__", None) is not None and callable(value) else value
    )
