"""Counts of a graph, by walking it: what a report says of nodes, edges, gradients and parameters."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from math import prod

import numpy as np

from microfw.autograd.graph import Leaf

ARRAYS = np.lib.tracemalloc_domain


def recount(*losses):
    """Return the counts of the graphs that lead to losses; each loss is walked on its own, as ``backward`` does."""
    counts = Counter()
    leaves = set()
    for loss in losses:
        waiting, seen = [loss._node], set()
        while waiting:
            node = waiting.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, Leaf):
                leaves.add(node)
                continue
            parents = [parent for parent in node.parents if parent is not None]
            counts["nodes"] += 1
            counts["edges"] += len(parents)
            counts["accumulated"] += sum(isinstance(parent, Leaf) for parent in parents)
            waiting += parents
    counts["rules"] = counts["nodes"]
    counts["parameters"] = sum(prod(leaf.shape) for leaf in leaves)
    counts["parameter_tensors"] = len(leaves)
    return counts


def array_bytes():
    """Return the bytes of all arrays that NumPy has allocated since tracing began."""
    taken = tracemalloc.take_snapshot().filter_traces([tracemalloc.DomainFilter(True, ARRAYS)])
    return sum(trace.size for trace in taken.traces)


def held_bytes(loss_of, make):
    """Return the bytes of arrays that a loss's graph keeps: those that are there with it and gone without it."""
    for _ in range(2):  # what is made once, such as tables of indices, is there before
        loss_of(*make())
    gc.collect()
    tracemalloc.start()
    try:
        loss = loss_of(*make())
        value = loss.data.nbytes
        with_it = array_bytes()
        del loss
        return with_it - array_bytes() - value
    finally:
        tracemalloc.stop()
