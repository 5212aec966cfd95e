"""Five ways to the same gradient, each really run and counted.

On the graph of tensors: backprop, forward mode with a pass for each parameter, and differences. On the graph
of scalars: backprop again, the chain rule for each parameter anew, and a recursion over paths.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np

from microfw.autograd.functional import partial_jvp
from microfw.autograd.graph import Leaf, Node, reachable
from microfw.autograd.mode import mode, no_grad
from microfw.autograd.tensor import Tensor
from microfw.law.measure import Meter, Problem, Way, extrapolated, flat_gradient, gc_paused, peak, timed
from microfw.law.scalar_graph import ScalarGraph

FEW = 3
"""For how many parameters memory is traced: tracing takes time, and a parameter more needs no more memory."""

TRIAL = 2000
"""After so many visits the recursion over paths knows how long it will take."""


# On tensors


def backprop(problem: Problem) -> tuple[Way, Meter, Tensor]:
    """Walk the graph once; returns also what the engine did, and the loss with its graph."""
    leaves: list[Any] = [p._node for p in problem.parameters]
    meter = Meter()
    with mode(observer=meter):
        loss = problem.loss()
        loss.backward(retain_graph=True)
    problem.gradient = flat_gradient(leaves)
    works = [*(node.metadata for node in meter.nodes), *(work for _, work in meter.constants)]
    problem.forward_operations = sum(work.forward for work in works)

    def step() -> None:
        problem.loss().backward()
        flat_gradient(leaves)

    way = Way("backprop", "tensors", meter.rules, 1, meter.operations, timed(step), peak(step))
    way.done = way.of = problem.size
    way.difference = 0.0
    return way, meter, loss


def forward_mode(problem: Problem) -> Way:
    """Push a tangent through the graph for each parameter."""
    rules = operations = 0
    nodes: list[Node] = []
    places = problem.places()

    def record() -> None:
        with mode(observer=Meter()):
            nodes[:] = reachable(problem.loss()._node)

    def push(k: int) -> float:
        nonlocal rules, operations
        parameter, index = places[k]
        tangent = np.zeros(parameter.shape)
        tangent[index] = 1
        moving: dict[Any, Any] = {parameter._node: tangent}
        for node in nodes:
            total = None
            for (parent, partial, args), cost in zip(node.edges or (), node.metadata.edges, strict=True):
                if parent in moving:
                    t = partial_jvp(node, partial, moving[parent], args)
                    total = t if total is None else total + t
                    operations += cost
            if total is not None:
                rules += 1
                moving[node] = total if total.shape == node.shape else np.broadcast_to(total, node.shape)
        return float(moving.get(nodes[-1], 0.0))

    record()
    sample = problem.each(push, lambda: (rules, operations))
    way = extrapolated("forward mode", "tensors", sample, timed(problem.loss))
    way.forwards = 1

    def few() -> None:
        nodes.clear()
        record()
        for k in range(min(FEW, problem.size)):
            push(k)

    way.peak_bytes = peak(few)
    return problem.compare(way, sample.gradient, sample.done)


def differences(problem: Problem, central: bool) -> Way:
    """Compute the loss anew for each parameter, moved a little to one side, or to both."""
    forwards = 0
    step = np.finfo(float).eps ** (1 / 3 if central else 1 / 2)
    places = problem.places()

    def value() -> float:
        nonlocal forwards
        forwards += 1
        return problem.loss().item()

    def slope(k: int) -> float:
        parameter, index = places[k]
        array = parameter._array
        old = array[index].item()
        h = step * max(1.0, abs(old))
        up, down = old + h, old - h if central else old
        try:
            array[index] = up
            above = value()
            array[index] = down
            return float((above - (value() if central else base)) / (up - down))
        finally:
            array[index] = old

    with no_grad():
        began = perf_counter()
        base = 0.0 if central else value()
        first = perf_counter() - began
        sample = problem.each(slope)
        ran = forwards
        few = peak(lambda: [slope(k) for k in range(min(FEW, problem.size))])
    name = "central differences" if central else "one-sided differences"
    way = extrapolated(name, "tensors", sample, first)
    way.forwards = ran if sample.done.all() else 2 * problem.size if central else problem.size + 1
    way.operations = way.forwards * problem.forward_operations
    way.peak_bytes = few
    return problem.compare(way, sample.gradient, sample.done)


# On scalars


def scalar_backprop(problem: Problem, graph: ScalarGraph) -> tuple[Way, Meter]:
    """Walk the scalar graph once."""
    meter = Meter()
    with mode(observer=meter):
        graph.loss.backward(retain_graph=True)
    gradient = flat_gradient(graph.leaves)

    def walk() -> None:
        graph.loss.backward(retain_graph=True)
        flat_gradient(graph.leaves)

    way = Way("backprop", "scalars", meter.rules, 1, meter.operations, timed(walk), peak(walk))
    way.done = way.of = problem.size
    return problem.compare(way, gradient), meter


def chain_rule(problem: Problem, graph: ScalarGraph) -> Way:
    """For each parameter, walk back over the nodes between it and the loss; nothing is kept for the next one."""
    root = graph.loss._node
    users: dict[Any, list[Node]] = {}
    for node in reachable(root):
        for parent, _, _ in node.edges or ():
            users.setdefault(parent, []).append(node)
    rules = operations = 0

    def chain(k: int) -> float:
        nonlocal rules, operations
        leaf = graph.leaves[k]
        between: set[Any] = set()
        stack: list[Any] = [leaf]
        while stack:
            for user in users.get(stack.pop(), ()):
                if user not in between:
                    between.add(user)
                    stack.append(user)
        pending: dict[Any, Any] = {root: np.float64(1.0)}
        wanted = between | {leaf}
        for node in sorted(between, key=lambda n: -n.order):
            g = pending.pop(node)
            rules += 1
            for (parent, partial, args), cost in zip(node.edges, node.metadata.edges, strict=True):
                if parent in wanted:
                    share = partial.vjp(g, *args)
                    pending[parent] = pending[parent] + share if parent in pending else share
                    operations += cost
        return float(pending.get(leaf, 0.0))

    sample = problem.each(chain, lambda: (rules, operations))
    way = extrapolated("chain rule per parameter", "scalars", sample)
    way.forwards = 1
    way.peak_bytes = peak(lambda: [chain(k) for k in range(min(FEW, problem.size))])
    return problem.compare(way, sample.gradient, sample.done)


def count_paths(root: Node | Leaf | None) -> tuple[int, int]:
    """Count the paths from a value to the leaves, and the visits to nodes of a recursion along them.

    Examples
    --------
    >>> import microfw as mf
    >>> y = x = mf.tensor(1.0, requires_grad=True)
    >>> for _ in range(3):
    ...     y = y + y
    >>> count_paths(y._node)
    (8, 7)
    """
    arrivals: dict[Any, int] = {root: 1}
    paths = 0
    for node in reversed(reachable(root)):
        for parent, _, _ in node.edges or ():
            if isinstance(parent, Leaf):
                paths += arrivals[node]
            else:
                arrivals[parent] = arrivals.get(parent, 0) + arrivals[node]
    return paths, sum(arrivals.values())


def path_recursion(problem: Problem, graph: ScalarGraph) -> Way:
    """Pass each share on as it arrives: a node is visited once for each path that leads to it.

    Counts the paths first, and is not run if that would take longer than the budget.
    """
    root: Any = graph.loss._node
    visits = count_paths(root)[1]
    way = Way("paths, no memory", "scalars", forwards=1, of=problem.size)
    found: dict[Any, Any] = {}
    operations = 0

    def recur(most: int) -> None:
        nonlocal operations
        found.clear()
        operations = 0
        stack: list[Any] = [(root, np.float64(1.0))]  # a stack of our own is a recursion of any depth
        while stack and most:
            most -= 1
            node, g = stack.pop()
            for (parent, partial, args), cost in zip(node.edges, node.metadata.edges, strict=True):
                share = partial.vjp(g, *args)
                operations += cost
                if isinstance(parent, Leaf):
                    found[parent] = found[parent] + share if parent in found else share
                else:
                    stack.append((parent, share))

    way.peak_bytes = peak(lambda: recur(min(visits, TRIAL)))
    began = perf_counter()
    recur(min(visits, TRIAL))
    expected = (perf_counter() - began) * max(min(visits, 10**30) / TRIAL, 1)
    if expected > problem.budget:
        way.note = f"not run, since it would take about {expected:,.0f} s, and the budget is {problem.budget:g} s"
        way.peak_bytes = None
        return way
    with gc_paused():
        began = perf_counter()
        recur(visits)
        way.seconds = perf_counter() - began
    way.rules, way.operations, way.done = visits, operations, problem.size
    return problem.compare(way, np.array([float(found.get(leaf, 0.0)) for leaf in graph.leaves]))
