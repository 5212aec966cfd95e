"""Models for tests of the law."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from microfw import nn
from microfw.autograd.graph import reachable
from microfw.autograd.mode import mode
from microfw.law.scalar_graph import Tape
from microfw.profiler.scalars import GraphOp, count_graph, graph_ops, stand_in

NAMES = ["backprop", "forward mode", "central differences", "one-sided differences",
         "backprop", "chain rule per parameter", "paths, no memory"]  # fmt: skip


def dense(*sizes, activation=nn.ReLU, rng=0):
    rng = np.random.default_rng(rng)
    layers = []
    for a, b in pairwise(sizes):
        layers += [nn.Dense(a, b, rng=rng), activation()]
    return nn.Sequential(*layers[:-1])


X4 = np.random.default_rng(7).normal(size=(2, 4))


def recorded_graph(loss):
    """Return the scalar nodes of each op of a loss, counted without a scalar graph."""
    tape = Tape()
    with mode(observer=tape, recording=True):
        end = loss()
    ops = {node: GraphOp(op, params, node.shape, tuple(map(stand_in, inputs)), {})
           for op, node, inputs, params, _ in tape.entries}  # fmt: skip
    return count_graph(*graph_ops(reachable(end._node), ops.get))
