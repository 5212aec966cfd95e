"""Measurements of strategies: rule calls, operations, seconds and peak memory."""

from __future__ import annotations

import contextlib
import gc
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np

from microfw.autograd.graph import Leaf, Node
from microfw.autograd.observer import Observer
from microfw.autograd.tensor import Tensor
from microfw.errors import GraphError
from microfw.law.parameter_sample import MAX_STRATA, sampling_order, strata_of, total

Array = np.ndarray[Any, Any]


MIN_SAMPLE = 30
"""Minimum number of parameters in a sample, even if they take longer than the budget."""


@dataclass
class StrategyResult:
    """Cost of one strategy.

    Attributes
    ----------
    name : str
        Name of the strategy.
    graph : {"tensors", "scalars"}
        Unit of a node.
    rules : int or None
        Derivative rules called, each call counted; None if the strategy was not run.
    forwards : int
        Number of loss evaluations.
    operations : int or None
        Scalar operations in the rules and, if the loss is computed more than once, in the loss evaluations; by the
        cost rules of the ops.
    seconds : float or None
        On tensors, includes computing the loss. On scalars, the backward pass only.
    peak_bytes : int or None
        Peak memory, traced in a separate run; on scalars without the graph.
    difference : float or None
        Largest difference from the gradient of backprop, relative to the largest entry of that gradient; if that is
        zero up to rounding, to the largest gradient of a node.
    done, of : int
        Parameters for which the strategy was run, of how many. If not all, counts and seconds are extrapolated.
    intervals : dict
        95 % intervals of extrapolated ``rules``, ``operations`` and ``seconds``.
    note : str
        Why the strategy was not run.
    """

    name: str
    graph: str
    rules: int | None = None
    forwards: int = 0
    operations: int | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    difference: float | None = None
    done: int = 0
    of: int = 0
    note: str = ""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def extrapolated(self) -> bool:
        """Whether the strategy was run for a sample of the parameters only."""
        return 0 < self.done < self.of


class NodeCost(NamedTuple):
    """Scalar operations of the rule of a node for each of its edges, and the number of edges to leaves."""

    edges: tuple[int, ...]
    into_leaves: int


class CountingObserver(Observer):
    """Observer that counts rule calls, accumulations and operations. Each node gets a `NodeCost` as its metadata."""

    def __init__(self) -> None:
        self.vjp_calls = self.grad_accumulations = self.operations = 0

    def forward(
        self, op: Any, node: Node | None, inputs: tuple[Any, ...], params: dict[str, Any], output: Array, start_ns: int
    ) -> None:
        """Compute the cost of the op's derivatives, as the profiler does."""
        if node is None:
            return
        edges = node.edges or []
        costs = (0,) * len(inputs)
        if op.cost is not None:
            costs = op.cost(output.shape, *map(np.shape, inputs), **params).derivatives
        leaves = sum(isinstance(parent, Leaf) for parent, _, _ in edges)
        node.metadata = NodeCost(tuple([costs[partial.index] for _, partial, _ in edges]), leaves)

    def backward(self, node: Node, gradient: Any, grad_inputs: list[Any] | None, start_ns: int) -> None:
        """Count a call of a derivative rule."""
        if node.metadata is None:
            fix = "run the law without it: the gradient is the same"
            raise GraphError("law", "nodes that are recorded once", "a checkpoint, which runs again", fix)
        self.vjp_calls += 1
        self.grad_accumulations += node.metadata.into_leaves
        self.operations += sum(node.metadata.edges)


class ScaleObserver(CountingObserver):
    """Observer that also stores the largest gradient of a node, without that of the loss."""

    scale = 0.0

    def backward(self, node: Node, gradient: Any, grad_inputs: list[Any] | None, start_ns: int) -> None:
        """Count a call of a derivative rule."""
        if self.vjp_calls:  # the first is that of the loss
            self.scale = max(self.scale, float(np.abs(gradient).max(initial=0.0)))
        super().backward(node, gradient, grad_inputs, start_ns)


@dataclass
class Problem:
    """A loss to differentiate, and the time budget of a strategy.

    Attributes
    ----------
    loss : callable
        Computes the loss, one number, from the parameters. Two calls return the same value.
    parameters : list of Tensor
        In float64, and used by nothing else: differences write to them.
    budget : float
        Seconds for a strategy. A slower strategy is run for a sample of at least `MIN_SAMPLE` parameters.
    rng : numpy.random.Generator
        Draws the sample.
    scale : float
        Largest gradient of a node.
    """

    loss: Callable[[], Tensor]
    parameters: list[Tensor]
    budget: float
    rng: np.random.Generator
    gradient: Array = field(default_factory=lambda: np.zeros(0))
    forward_operations: int = 0
    scale: float = 0.0

    @property
    def size(self) -> int:
        """P, the number of trainable scalars."""
        return sum(p.size for p in self.parameters)

    def entries(self) -> list[tuple[Tensor, tuple[int, ...]]]:
        """Return the array and index of each scalar parameter."""
        return [(p, index) for p in self.parameters for index in np.ndindex(p.shape)]

    @property
    def vanishes(self) -> bool:
        """Whether the gradient is zero up to rounding: gradients of nodes cancel in it."""
        return self.size > 0 and bool(np.abs(self.gradient).max() <= 100 * np.finfo(float).eps * self.scale)

    def compare(self, result: StrategyResult, gradient: Array, done: Any = True) -> StrategyResult:
        """Store the difference of a gradient from that of backprop, over the entries that are done."""
        error = np.abs(gradient - self.gradient)[np.broadcast_to(done, gradient.shape)].max(initial=0.0)
        if np.isfinite(error):
            size = self.scale if self.vanishes else np.abs(self.gradient).max(initial=0.0)
            result.difference = float(error / (size or 1.0))
        else:
            result.note = "its gradient is not finite, while backprop's is"
        return result

    def sample(
        self,
        derivative: Callable[[int], float],
        counted: Callable[[], tuple[int, int]] = lambda: (0, 0),
        used: Sequence[bool] | None = None,
    ) -> Sample:
        """Compute derivatives one by one, some of each parameter array first, until all are done or time is up.

        Parameters
        ----------
        derivative : callable
            Returns the derivative with respect to the k-th scalar parameter.
        counted : callable
            Returns the total rule calls and operations so far.
        used : sequence of bool, optional
            Whether the loss depends on each scalar parameter. The derivatives by others, such as most rows of an
            embedding, are zero at no cost: they are done, as a stratum of their own.
        """
        found = Sample(self.size, strata_of([p.size for p in self.parameters]))
        found.done[:] = False if used is None else ~np.asarray(used, bool)
        found.strata[found.done] = MAX_STRATA
        left = np.flatnonzero(~found.done)
        order, first = sampling_order(found.strata[left], self.rng)
        min_sample = max(MIN_SAMPLE, first)
        with gc_paused():
            start = last = perf_counter()
            for count, k in enumerate(left[order].tolist(), 1):
                before = counted()
                found.gradient[k] = derivative(k)
                found.done[k] = True
                now, after = perf_counter(), counted()
                found.rules[k], found.operations[k] = after[0] - before[0], after[1] - before[1]
                found.seconds[k], last = now - last, now
                if now - start > self.budget and count >= min_sample:
                    break
        return found


class Sample:
    """Derivatives of some scalar parameters, with the cost of each."""

    def __init__(self, size: int, strata: Array) -> None:
        self.strata = strata
        self.done = np.zeros(size, bool)
        self.gradient, self.rules, self.operations, self.seconds = np.zeros((4, size))


def peak(function: Callable[[], Any]) -> int:
    """Return the peak number of bytes in use while a function runs, minus those in use before."""
    outer = tracemalloc.is_tracing()
    if outer:
        tracemalloc.reset_peak()
    else:
        tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        function()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        if not outer:
            tracemalloc.stop()


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
    """Disable garbage collection in a timed block. Graphs have no reference cycles."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def timed(function: Callable[[], Any], min_seconds: float = 0.1, max_runs: int = 25) -> float:
    """Return the minimum seconds of several runs of a function. Other programs only add time."""
    spent: list[float] = []
    with gc_paused():
        while sum(spent) < min_seconds and len(spent) < max_runs:
            start = perf_counter()
            function()
            spent.append(perf_counter() - start)
    return min(spent)


def flat_gradient(leaves: Sequence[Leaf]) -> Array:
    """Remove the gradients of leaves and return them as one array, with zeros for missing ones."""
    parts = [np.zeros(leaf.shape) if leaf.grad is None else leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    return np.concatenate([part.reshape(-1) for part in parts]) if parts else np.zeros(0)


def extrapolated(name: str, graph: str, sample: Sample, once: float = 0.0) -> StrategyResult:
    """Extrapolate a sample to all parameters. ``once``: seconds that do not depend on the number of parameters."""
    result = StrategyResult(name, graph, done=int(sample.done.sum()), of=len(sample.done))
    totals = {
        what: total(getattr(sample, what), sample.done, sample.strata) for what in ("rules", "operations", "seconds")
    }
    result.rules, result.operations = round(totals["rules"].value), round(totals["operations"].value)
    result.seconds = totals["seconds"].value + once
    if result.extrapolated:
        result.intervals = {what: (t.low, t.high) for what, t in totals.items() if t.value}
        result.intervals["seconds"] = totals["seconds"].low + once, totals["seconds"].high + once
    return result
