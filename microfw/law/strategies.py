"""Five strategies for the same gradient, each run and counted.

On the tensor graph: backprop, forward mode with one pass for each parameter, and differences. On the scalar graph:
backprop, the chain rule for each parameter, and a recursion over paths.
"""

from __future__ import annotations

import math
from time import perf_counter
from typing import Any

import numpy as np

from microfw.autograd.functional import partial_jvp
from microfw.autograd.graph import Leaf, Node, reachable
from microfw.autograd.mode import mode, no_grad
from microfw.autograd.tensor import Tensor
from microfw.law.measure import (
    CountingObserver,
    Problem,
    ScaleObserver,
    StrategyResult,
    extrapolated,
    flat_gradient,
    gc_paused,
    peak,
    timed,
)
from microfw.law.scalar_graph import ScalarGraph

N_TRACED = 3
"""Number of parameters for which memory is traced: tracing is slow, and more parameters need no more memory."""

N_TRIAL_VISITS = 2000
"""Visits after which the time of the recursion over paths is estimated."""


# On tensors


def backprop(problem: Problem) -> tuple[StrategyResult, CountingObserver, Tensor]:
    """Run one backward pass; return the result, the counter, and the loss with its graph."""
    leaves: list[Any] = [p._node for p in problem.parameters]
    counter = ScaleObserver()
    with mode(observer=counter):
        loss = problem.loss()
        loss.backward(retain_graph=True)
    problem.gradient, problem.scale = flat_gradient(leaves), counter.scale

    def step() -> None:
        problem.loss().backward()
        flat_gradient(leaves)

    result = StrategyResult("backprop", "tensors", counter.vjp_calls, 1, counter.operations, timed(step), peak(step))
    result.done = result.of = problem.size
    result.difference = 0.0
    return result, counter, loss


def forward_mode(problem: Problem) -> StrategyResult:
    """Propagate a tangent forward through the graph, once for each parameter."""
    rules = operations = 0
    nodes: list[Node] = []
    entries = problem.entries()

    def record() -> None:
        with mode(observer=CountingObserver()):
            nodes[:] = reachable(problem.loss()._node)

    def derivative(k: int) -> float:
        nonlocal rules, operations
        parameter, index = entries[k]
        tangent = np.zeros(parameter.shape)
        tangent[index] = 1
        tangents: dict[Any, Any] = {parameter._node: tangent}
        for node in nodes:
            total = None
            for (parent, partial, args), cost in zip(node.edges or (), node.metadata.edges, strict=True):
                if parent in tangents:
                    t = partial_jvp(node, partial, tangents[parent], args)
                    total = t if total is None else total + t
                    operations += cost
            if total is not None:
                rules += 1
                tangents[node] = total if total.shape == node.shape else np.broadcast_to(total, node.shape)
        return float(tangents.get(nodes[-1], 0.0))

    record()
    sample = problem.sample(derivative, lambda: (rules, operations))
    result = extrapolated("forward mode", "tensors", sample, timed(problem.loss))
    result.forwards = 1

    def few() -> None:
        nodes.clear()
        record()
        for k in range(min(N_TRACED, problem.size)):
            derivative(k)

    result.peak_bytes = peak(few)
    return problem.compare(result, sample.gradient, sample.done)


def differences(problem: Problem, central: bool) -> StrategyResult:
    """Compute the loss again for each parameter, changed slightly to one side or to both."""
    forwards = 0
    step = np.finfo(float).eps ** (1 / 3 if central else 1 / 2)
    entries = problem.entries()

    def value() -> float:
        nonlocal forwards
        forwards += 1
        return problem.loss().item()

    def slope(k: int) -> float:
        parameter, index = entries[k]
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
        start = perf_counter()
        base = 0.0 if central else value()
        first = perf_counter() - start
        sample = problem.sample(slope)
        ran = forwards
        few = peak(lambda: [slope(k) for k in range(min(N_TRACED, problem.size))])
    name = "central differences" if central else "one-sided differences"
    result = extrapolated(name, "tensors", sample, first)
    result.forwards = ran if sample.done.all() else 2 * problem.size if central else problem.size + 1
    result.operations = result.forwards * problem.forward_operations
    result.peak_bytes = few
    return problem.compare(result, sample.gradient, sample.done)


# On scalars


def scalar_backprop(problem: Problem, graph: ScalarGraph) -> tuple[StrategyResult, CountingObserver]:
    """Run one backward pass through the scalar graph."""
    counter = CountingObserver()
    with mode(observer=counter):
        graph.loss.backward(retain_graph=True)
    gradient = flat_gradient(graph.leaves)

    def walk() -> None:
        graph.loss.backward(retain_graph=True)
        flat_gradient(graph.leaves)

    result = StrategyResult("backprop", "scalars", counter.vjp_calls, 1, counter.operations, timed(walk), peak(walk))
    result.done = result.of = problem.size
    return problem.compare(result, gradient), counter


def chain_rule(problem: Problem, graph: ScalarGraph) -> StrategyResult:
    """For each parameter, apply the chain rule over the nodes between it and the loss, without reuse."""
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
        needed = between | {leaf}
        for node in sorted(between, key=lambda n: -n.order):
            g = pending.pop(node)
            rules += 1
            for (parent, partial, args), cost in zip(node.edges, node.metadata.edges, strict=True):
                if parent in needed:
                    grad_input = partial.vjp(g, *args)
                    pending[parent] = pending[parent] + grad_input if parent in pending else grad_input
                    operations += cost
        return float(pending.get(leaf, 0.0))

    sample = problem.sample(chain, lambda: (rules, operations), [leaf in users for leaf in graph.leaves])
    result = extrapolated("chain rule per parameter", "scalars", sample)
    result.forwards = 1
    result.peak_bytes = peak(lambda: [chain(k) for k in range(min(N_TRACED, problem.size))])
    return problem.compare(result, sample.gradient, sample.done)


def count_paths(root: Node | Leaf | None) -> tuple[int, int]:
    """Count the paths from a node to the leaves, and the node visits of a recursion along them.

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


def path_recursion(problem: Problem, graph: ScalarGraph) -> StrategyResult:
    """Pass each gradient on as soon as one user of a node has computed it: one visit for each path to the node.

    Not run if the estimated time exceeds the budget. The note then has a budget of at least twice the estimate.
    """
    root: Any = graph.loss._node
    visits = count_paths(root)[1]
    result = StrategyResult("paths, no memory", "scalars", forwards=1, of=problem.size)
    found: dict[Any, Any] = {}
    operations = 0

    def recurse(max_visits: int) -> None:
        nonlocal operations
        found.clear()
        operations = 0
        stack: list[Any] = [(root, np.float64(1.0))]  # an explicit stack: recursion of any depth
        while stack and max_visits:
            max_visits -= 1
            node, g = stack.pop()
            for (parent, partial, args), cost in zip(node.edges, node.metadata.edges, strict=True):
                grad_input = partial.vjp(g, *args)
                operations += cost
                if isinstance(parent, Leaf):
                    found[parent] = found[parent] + grad_input if parent in found else grad_input
                else:
                    stack.append((parent, grad_input))

    result.peak_bytes = peak(lambda: recurse(min(visits, N_TRIAL_VISITS)))
    start = perf_counter()
    recurse(min(visits, N_TRIAL_VISITS))
    expected = (perf_counter() - start) * max(min(visits, 10**30) / N_TRIAL_VISITS, 1)
    if expected > problem.budget:
        enough = f"; a budget of {_up(2 * expected, 1)} s would run it" if expected < 3600 else ""
        result.note = (
            f"not run: it would take about {_up(expected, 2)} s, and the budget is {problem.budget:g} s{enough}"
        )
        result.peak_bytes = None
        return result
    with gc_paused():
        start = perf_counter()
        recurse(visits)
        result.seconds = perf_counter() - start
    result.rules, result.operations, result.done = visits, operations, problem.size
    return problem.compare(result, np.array([float(found.get(leaf, 0.0)) for leaf in graph.leaves]))


def _up(seconds: float, digits: int) -> str:
    """Return seconds, rounded up to some digits: never less than they are.

    Examples
    --------
    >>> _up(0.412, 2), _up(1.004, 2), _up(0.824, 1), _up(12_345, 2)
    ('0.42', '1.1', '0.9', '13,000')
    """
    unit = 10.0 ** (math.floor(math.log10(seconds)) - digits + 1)
    return f"{math.ceil(seconds / unit) * unit:,.12g}"
