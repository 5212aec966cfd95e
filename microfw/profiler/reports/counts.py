"""N, P and steps of one training step, with their meaning."""

from __future__ import annotations

from typing import NamedTuple

from microfw.profiler.reports.text import whole
from microfw.profiler.session import Epoch


class Count(NamedTuple):
    """A number of one step: in scalars, in tensors, and what it counts."""

    scalars: int | None
    tensors: int | None
    meaning: str


def counts(e: Epoch) -> dict[str, Count]:
    """Return the counts of one step, the mean over the observed steps."""
    total, n = e.sum(), e.observed or 1
    nodes, rules, added, edges = (round(v / n) for v in (total.nodes, total.rules, total.accumulated, total.edges))
    scalars = round(sum(row.flops_forward for row in e.rows if row.nodes) / n)
    unknown = "; some ops declare none" if total.uncounted else ", a multiply-add is 2"
    P, arrays = e.parameters, e.parameter_tensors
    return {
        "N": Count(scalars, nodes, "nodes: each sum, product, maximum; not neurons"),
        "P": Count(P, arrays, "parameters: trainable numbers; not features"),
        "N + P": Count(scalars + P, nodes + arrays, ""),
        "steps": Count(None, rules + added, f"{whole(rules)} rules called + {whole(added)} gradients added"),
        "N x P": Count(scalars * P, nodes * arrays, "most steps if each parameter starts over (predicted)"),
        "operations": Count(round(total.flops_backward / n), None, f"of backward's arithmetic{unknown}"),
        "E": Count(None, edges, "edges: inputs of ops that need a gradient"),
    }
