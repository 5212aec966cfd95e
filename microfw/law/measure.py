"""What strategies are measured with: what the engine did, seconds, and the most memory in use."""

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
from microfw.autograd.mode import MODE
from microfw.autograd.observer import Observer
from microfw.autograd.scope import THREAD_SCOPE, Scope
from microfw.autograd.tensor import Tensor
from microfw.errors import GraphError, message
from microfw.law.parameter_sample import sampling_order, strata_of, total

Array = np.ndarray[Any, Any]


LEAST = 30
"""A sample has at least so many parameters, also if that takes longer than the budget."""


@dataclass
class Way:
    """What one strategy took.

    Attributes
    ----------
    name : str
        The strategy.
    graph : {"tensors", "scalars"}
        What a node of its graph stands for.
    rules : int or None
        Nodes whose derivative rule was called, counted anew for each call; None if it was not run.
    forwards : int
        How often the loss was computed.
    operations : int or None
        Scalar operations in the rules and, where the loss is computed more than once, in computing it,
        by the ops' own cost rules.
    seconds : float or None
        On tensors with computing the loss; on scalars of the walk alone.
    peak_bytes : int or None
        The most memory that was in use at once, traced in a run of its own; on scalars beside the graph.
    difference : float or None
        The largest difference from backprop's gradient, relative to that gradient's largest entry.
    done, of : int
        For how many of the parameters it was run. If not for all, counts and seconds are extrapolated.
    intervals : dict
        The 95 % intervals of ``rules``, ``operations`` and ``seconds`` that are extrapolated.
    note : str
        Why it was not run.
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
        """Whether it was run for a sample of the parameters."""
        return 0 < self.done < self.of


class Work(NamedTuple):
    """What a node costs: scalar operations forward, and for each of its edges."""

    forward: int
    edges: tuple[int, ...]
    products_forward: int
    products_edges: tuple[int, ...]
    into_leaves: int


class Meter(Observer):
    """Observer that counts what the engine does. It leaves a `Work` on each node."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.constants: list[tuple[Scope | None, Work]] = []  # ops that recorded no node: what is frozen
        self.rules = self.accumulated = self.operations = self.uncounted = 0

    def forward(
        self, op: Any, node: Node | None, inputs: tuple[Any, ...], params: dict[str, Any], output: Array, began: int
    ) -> None:
        """Work out what the op costs, as the profiler does: what runs under `no_grad` is not counted."""
        if node is None and not MODE.get().recording:
            return
        edges = [] if node is None else node.edges or []
        leaves = sum(isinstance(parent, Leaf) for parent, _, _ in edges)
        zeros = (0,) * len(edges)
        if node is not None:
            node.metadata = Work(0, zeros, 0, zeros, leaves)
            self.nodes.append(node)
        if op.cost is None:
            self.uncounted += 1
            return
        cost = op.cost(output.shape, *(np.shape(x) for x in inputs), **params)
        if node is None:
            self.constants.append((THREAD_SCOPE.scope, Work(cost.forward, (), cost.products_forward, (), 0)))
            return
        by = [partial.index for _, partial, _ in edges]
        products = tuple(cost.products_derivatives[k] for k in by) if cost.products_derivatives else zeros
        node.metadata = Work(
            cost.forward, tuple(cost.derivatives[k] for k in by), cost.products_forward, products, leaves
        )

    def backward(self, node: Node, gradient: Any, shares: list[Any] | None, began: int) -> None:
        """Count a node that is walked."""
        if node.metadata is None:
            fix = "run the law without it: the gradient is the same"
            raise GraphError(message("law", "nodes that are recorded once", "a checkpoint, which runs again", fix))
        self.rules += 1
        self.accumulated += node.metadata.into_leaves
        self.operations += sum(node.metadata.edges)


@dataclass
class Problem:
    """A loss to differentiate, and how much time a strategy may take.

    Attributes
    ----------
    loss : callable
        Computes the loss, one number, from the parameters; twice the same.
    parameters : list of Tensor
        In float64, and not used by anything else: differences write to them.
    budget : float
        Seconds for a strategy; one that needs more is run for a sample of at least `LEAST` parameters.
    rng : numpy.random.Generator
        Draws that sample.
    """

    loss: Callable[[], Tensor]
    parameters: list[Tensor]
    budget: float
    rng: np.random.Generator
    gradient: Array = field(default_factory=lambda: np.zeros(0))
    forward_operations: int = 0

    @property
    def size(self) -> int:
        """P, the number of trainable scalars."""
        return sum(p.size for p in self.parameters)

    def places(self) -> list[tuple[Tensor, tuple[int, ...]]]:
        """Return each scalar parameter's array and index."""
        return [(p, index) for p in self.parameters for index in np.ndindex(p.shape)]

    def compare(self, way: Way, gradient: Array, done: Any = True) -> Way:
        """Note how far a gradient is from backprop's, in those entries that are done."""
        error = np.abs(gradient - self.gradient)[np.broadcast_to(done, gradient.shape)].max()
        if np.isfinite(error):
            way.difference = float(error / (np.abs(self.gradient).max() or 1.0))
        else:
            way.note = "its gradient is not finite, while backprop's is"
        return way

    def each(
        self, derivative: Callable[[int], float], counted: Callable[[], tuple[int, int]] = lambda: (0, 0)
    ) -> Sample:
        """Compute derivatives one by one until all are done or the time is up, with some of each parameter array.

        Parameters
        ----------
        derivative : callable
            Computes the derivative by one scalar parameter.
        counted : callable
            Returns how many rules were called, and how many operations they took, since the beginning.
        """
        sample = Sample(self.size, strata_of([p.size for p in self.parameters]))
        order, first = sampling_order(sample.strata, self.rng)
        least = max(LEAST, first)
        with gc_paused():
            began = last = perf_counter()
            for count, k in enumerate(order, 1):
                before = counted()
                sample.gradient[k] = derivative(k)
                sample.done[k] = True
                now, after = perf_counter(), counted()
                sample.rules[k], sample.operations[k] = after[0] - before[0], after[1] - before[1]
                sample.seconds[k], last = now - last, now
                if now - began > self.budget and count >= least:
                    break
        return sample


class Sample:
    """What each of some scalar parameters took, and its derivative."""

    def __init__(self, size: int, strata: Array) -> None:
        self.strata = strata
        self.done = np.zeros(size, bool)
        self.gradient, self.rules, self.operations, self.seconds = np.zeros((4, size))


def peak(function: Callable[[], Any]) -> int:
    """Return the most bytes that were in use at once while a function ran, beyond those before."""
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
    """Let Python collect no cycles while a clock runs: graphs have none, and to look for them takes its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def timed(function: Callable[[], Any], least: float = 0.1, most: int = 25) -> float:
    """Return the least seconds that a quick function took in some runs; whatever else runs only adds to it."""
    spent: list[float] = []
    with gc_paused():
        while sum(spent) < least and len(spent) < most:
            began = perf_counter()
            function()
            spent.append(perf_counter() - began)
    return min(spent)


def flat_gradient(leaves: Sequence[Leaf]) -> Array:
    """Take the gradients out of leaves, as one array; zeros where none has arrived."""
    parts = [np.zeros(leaf.shape) if leaf.grad is None else leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    return np.concatenate([part.reshape(-1) for part in parts]) if parts else np.zeros(0)


def extrapolated(name: str, graph: str, sample: Sample, once: float = 0.0) -> Way:
    """Return a row: counts and seconds of a sample for all parameters, and the seconds that are spent ``once``."""
    way = Way(name, graph, done=int(sample.done.sum()), of=len(sample.done))
    totals = {
        what: total(getattr(sample, what), sample.done, sample.strata) for what in ("rules", "operations", "seconds")
    }
    way.rules, way.operations = round(totals["rules"].value), round(totals["operations"].value)
    way.seconds = totals["seconds"].value + once
    if way.extrapolated:
        way.intervals = {what: (t.low, t.high) for what, t in totals.items() if t.value}
        way.intervals["seconds"] = totals["seconds"].low + once, totals["seconds"].high + once
    return way
