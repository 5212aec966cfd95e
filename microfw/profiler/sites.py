"""What an observed op costs, worked out once: sites, and the patterns of them that steps go through."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from microfw.graph import Leaf, Node, reachable
from microfw.profiler.ratio import lacking
from microfw.profiler.session import Row

Shapes = list[tuple[int, ...]]


def needs(node: Node) -> tuple[bool, ...]:
    """Tell which of a node's parents a gradient goes to."""
    return tuple([parent is not None for parent in node.parents or ()])


def settings(params: dict[str, Any]) -> tuple[Any, ...]:
    """Return the parameters of an op that its cost can depend on besides the shapes, such as a kernel's size."""
    return tuple([v if isinstance(v, int | float | str) or _integers(v) else None for v in params.values()])


def _integers(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(v, int) or _integers(v) for v in value)


def shapes_of(inputs: tuple[Any, ...]) -> Shapes:
    """Return the shapes of arrays, spelt out for the usual numbers of them, which is faster than a loop."""
    n = len(inputs)
    if n == 1:
        return [inputs[0].shape]
    if n == 2:
        return [inputs[0].shape, inputs[1].shape]
    if n == 3:
        return [inputs[0].shape, inputs[1].shape, inputs[2].shape]
    return [a.shape for a in inputs]


def _parameter(array: Any, node: Node) -> bool:
    """Whether an array is a parameter's own, which is there with or without a graph."""
    return bool(array.flags.writeable) and any(leaf.shape == array.shape for leaf, _ in node.guards)


class Site:
    """An op of a layer on arrays of some shapes, with what it costs and the time that it took."""

    __slots__ = (
        "again", "backward_ns", "constants", "cost", "form", "forward_ns", "leaves", "module", "needs", "op", "path",
        "rules", "scope", "settings", "shape", "shapes",
    )  # fmt: skip

    def __init__(self, op: Any, node: Node, path: str, shapes: Shapes, params: dict[str, Any], leaves: int = 0) -> None:
        self.leaves = leaves
        self.op = op
        self.form = node.form
        self.path = path
        self.scope = node.scope
        self.module = None if node.scope is None else node.scope[0]
        self.shape = node.shape
        self.shapes = shapes
        self.settings = settings(params)
        self.needs = needs(node)
        self.constants = self.needs.count(False)
        self.forward_ns = self.backward_ns = self.rules = self.again = 0
        self.cost = row = Row(path, op.name, nodes=1, edges=self.needs.count(True))
        if op.cost is None:
            row.uncounted = 1
            return
        cost = op.cost(node.shape, *shapes, **params)
        row.flops_forward = int(cost.forward)
        row.products_forward = int(cost.products_forward)
        factors = 0
        for _, partial, _ in node.edges or ():
            row.flops_backward += int(cost.derivatives[partial.index])
            product = int(cost.products_derivatives[partial.index]) if cost.products_derivatives else 0
            row.products_backward += product
            factors += product > 0
        row.products_first = lacking(factors, row.products_forward)


def recomputed(row: Row, site: Site, walked: int, again: int) -> None:
    """Add the counts of an op in a checkpoint: it ran in forward, again in backward, and was then walked.

    In a checkpoint within another one it runs again twice, and is walked once.
    """
    cost = site.cost
    for name in ("nodes", "edges", "uncounted", "flops_forward", "products_forward", "products_first"):
        setattr(row, name, getattr(row, name) + walked * getattr(cost, name))
    row.accumulated += walked * site.leaves
    row.flops_backward += walked * cost.flops_backward + again * cost.flops_forward
    row.products_backward += walked * cost.products_backward + again * cost.products_forward


class Pattern:
    """What the nodes that lead to a loss cost together.

    ``nodes`` is how many of them no backward pass had walked before. ``listed`` is False when the recorder has added
    up the pattern and counts it no longer.
    """

    def __init__(self, loss: Node | Leaf | None) -> None:
        self.count = self.nodes = 0
        self.listed = True
        self.rows: list[Row] = []
        leaves: dict[Leaf, int] = {}
        seen: set[int] = set()
        for node in reachable(loss):
            leaves |= {parent: prod(parent.shape) for parent in node.parents or () if isinstance(parent, Leaf)}
            if node.note is None:  # recorded before the profiler came, or a checkpoint
                continue
            row = replace(node.note.site.cost)
            if node.note.walked:  # and retained: only what backward does comes again
                row = Row(row.layer, row.op, flops_backward=row.flops_backward, products_backward=row.products_backward)
            else:
                self.nodes += 1
            for parent, _, args in node.edges or ():
                row.accumulated += isinstance(parent, Leaf)
                for array in (*args, *node.inputs):
                    if isinstance(array, np.ndarray) and id(array) not in seen and not _parameter(array, node):
                        seen.add(id(array))
                        row.saved_bytes += array.nbytes
            self.rows.append(row)
        self.parameters = sum(leaves.values())
        self.parameter_tensors = len(leaves)
        self.saved_bytes = sum(row.saved_bytes for row in self.rows)

    def fold(self, rows: dict[tuple[str, str], Row], count: int) -> None:
        """Add the counts, times how often the pattern came, to rows by layer and op."""
        for row in self.rows:
            target = rows.setdefault((row.layer, row.op), Row(row.layer, row.op))
            for name, value in vars(row).items():
                if type(value) is int:
                    setattr(target, name, getattr(target, name) + value * count)
