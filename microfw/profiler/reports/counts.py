"""N, P and steps of one training step, with their meaning."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from microfw.profiler.reports.text import whole
from microfw.profiler.session import Epoch


class Count(NamedTuple):
    """A number of one step: in scalars, in tensors, and what it counts. None: not counted."""

    scalars: int | None
    tensors: int | None
    meaning: str


def one_column(found: dict[str, Count]) -> dict[str, int]:
    """Return the counts in scalars, or in tensors if an op has no scalar nodes."""
    in_tensors = found["N"].scalars is None
    numbers = {name: count.tensors if in_tensors else count.scalars for name, count in found.items() if name != "E"}
    return {name: number for name, number in numbers.items() if number is not None}


def undeclared(e: Epoch, mark: Callable[[str], str] = str) -> str:
    """Return a sentence that names the ops without a declared cost, marked by ``mark``; "" if there are none."""
    names = dict.fromkeys(mark(row.op) for row in e.rows if row.uncounted)
    return f"Operations are without those of {', '.join(names)}: no cost is declared." if names else ""


def counts(e: Epoch) -> dict[str, Count]:
    """Return the counts of one step, the mean over the observed steps."""
    columns = {count.kind: count for count in e.counts()}
    best = columns.get("scalars", columns["tensors"])
    rules = whole(best.rules) if best.rules != best.N else "N"
    ratio = best.steps / (best.N + best.P or 1)
    declared = "some ops declare none" if e.sum().uncounted else "a multiply-add counts 2"
    nodes, entries = ("each sum, product, maximum", "numbers") if len(columns) > 1 else ("each op on arrays", "arrays")
    meanings = {
        "N": f"nodes: {nodes}; not neurons",
        "unreached": "of these: the loss does not depend on them",
        "revisited": "visits after the first: backward(retain_graph=True)",
        "P": f"parameters: trainable {entries}; not features",
        "N + P": "",
        # a step of training, which all counts are those of, is another thing
        "backward steps": f"{rules} visits + {whole(best.accumulated)} additions: {ratio:.2f} x (N + P)",
        "N x P": "at most, if backward ran again for each parameter",
        "operations": f"arithmetic, both passes; {declared}",
        "E": "edges: inputs of nodes that need a gradient",
    }
    for name in ("unreached", "revisited"):
        if not getattr(best, name):
            del meanings[name]
    numbers = {
        c.kind: {name: getattr(c, name, None) for name in meanings}
        | {"N + P": c.N + c.P, "backward steps": c.steps, "N x P": c.N * c.P}
        for c in columns.values()
    }
    scalars = numbers.get("scalars", {})
    if not scalars:
        del meanings["operations"]
    return {name: Count(scalars.get(name), numbers["tensors"][name], text) for name, text in meanings.items()}
