"""The recorder: watches a training run from inside the engine and adds it up.

An op that runs again on the same shapes is the same *site*: what it costs is worked out once, by its cost
rule on the shapes that ran, and then only counted. So an observed op costs two readings of the clock and a
few comparisons, and memory does not grow with the number of steps.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from time import perf_counter_ns
from typing import Any

import numpy as np

from microfw.graph import Leaf, Node
from microfw.profiler.session import Epoch, Row
from microfw.recording import MODE, Mode

Shapes = list[tuple[int, ...]]

PHASES = ("forward", "backward", "update", "evaluation")

MOST_MARKS = 1 << 12
"""How many readings of the clock are kept before they are added up."""

MOST_PATTERNS = 64
"""How many patterns are kept apart, so that memory does not grow where every step is another."""


class Site:
    """An op of a layer on arrays of some shapes, with what it costs and the time that it took."""

    __slots__ = ("backward_ns", "constants", "cost", "forward_ns", "op", "path", "rules", "shape", "shapes")

    def __init__(self, op: Any, node: Node, path: str, shapes: Shapes, params: dict[str, Any]) -> None:
        self.op = op
        self.path = path
        self.shape = node.shape
        self.shapes = shapes
        parents = node.parents or ()
        self.constants = parents.count(None)
        self.forward_ns = self.backward_ns = self.rules = 0
        self.cost = row = Row(path, op.name, nodes=1, edges=len(parents) - self.constants)
        if op.cost is None:
            row.uncounted = 1
            return
        cost = op.cost(node.shape, *shapes, **params)
        row.flops_forward = int(cost.forward)
        row.products_forward = int(cost.products_forward)
        for _, partial, _ in node.edges or ():
            row.flops_backward += int(cost.derivatives[partial.index])
            if cost.products_derivatives:
                row.products_backward += int(cost.products_derivatives[partial.index])


class Pattern:
    """The sites that a step went through, and what the nodes that lead to its loss cost together."""

    def __init__(self, sites: list[Site], loss: Node | Leaf | None) -> None:
        self.sites = sites
        self.count = 0
        self.rows: list[Row] = []
        leaves: dict[Leaf, int] = {}
        seen: set[int] = set()
        for node in reachable(loss):
            if node.note is None:  # recorded before the profiler came
                continue
            row = replace(node.note.cost)
            for parent, _, args in node.edges or ():
                if isinstance(parent, Leaf):
                    row.accumulated += 1
                    leaves[parent] = prod(parent.shape)
                for array in (*args, *node.inputs):
                    if isinstance(array, np.ndarray) and id(array) not in seen and not _parameter(array, node):
                        seen.add(id(array))
                        row.saved_bytes += array.nbytes
            self.rows.append(row)
        self.parameters = sum(leaves.values())
        self.parameter_tensors = len(leaves)

    def fold(self, rows: dict[tuple[str, str], Row], count: int) -> None:
        """Add the counts, times how often the pattern came, to rows by layer and op."""
        for row in self.rows:
            target = rows.setdefault((row.layer, row.op), Row(row.layer, row.op))
            for name, value in vars(row).items():
                if type(value) is int:
                    setattr(target, name, getattr(target, name) + value * count)


class Log:
    """What was noted in an epoch, as it was noted; `epoch` makes sense of it, later, off the clock."""

    def __init__(self) -> None:
        self.marks: list[tuple[str, int]] = []
        self.losses: list[float] = []
        self.folded: dict[tuple[str, str], Row] = {}
        self.parameters = (0, 0)
        self.counts: list[tuple[Pattern, int]] = []
        self.spent: list[tuple[Site, int, int, int]] = []
        self.times = dict.fromkeys((*PHASES, "data"), 0)
        self.observed_times = dict.fromkeys(PHASES, 0)
        self.metrics: dict[str, float] = {}
        self.number = self.steps = self.observed = self.loose = self.total_ns = 0
        self.observing = False
        self.began = self.step_ended = perf_counter_ns()

    def add_marks(self, observing: bool) -> None:
        """Turn the marks of complete stretches into times. Those inside of another are part of it."""
        depth = began = done = 0
        observed = observing ^ (sum(kind == "toggle" for kind, _ in self.marks) % 2 == 1)
        for k, (kind, now) in enumerate(self.marks):
            if kind == "toggle":
                observed = not observed
                continue
            if kind:
                depth += 1
                if depth == 1:
                    phase, began = kind, now
                continue
            depth -= 1
            if depth:
                continue
            done = k + 1
            self.times[phase] += now - began
            if observed:
                self.observed_times[phase] += now - began
            if phase == "forward" and self.step_ended:
                self.times["data"] += began - self.step_ended
            self.step_ended = now if phase == "update" else 0
        del self.marks[:done]

    def epoch(self) -> Epoch:
        """Return the epoch's numbers."""
        self.add_marks(self.observing)
        epoch = Epoch(
            self.number,
            steps=self.steps,
            observed=self.observed,
            loss=self.metrics.get("loss", sum(self.losses) / len(self.losses) if self.losses else None),
            metrics=self.metrics,
            parameters=self.parameters[0],
            parameter_tensors=self.parameters[1],
            observed_forward_ns=self.observed_times["forward"] + self.loose,
            observed_backward_ns=self.observed_times["backward"],
            total_ns=self.total_ns,
        )
        for name, ns in self.times.items():
            setattr(epoch, f"{name}_ns", ns)
        epoch.forward_ns += self.loose
        rows = self.folded
        for pattern, count in self.counts:
            pattern.fold(rows, count)
        for site, forward_ns, backward_ns, rules in self.spent:
            row = rows.setdefault((site.path, site.op.name), Row(site.path, site.op.name))
            row.forward_ns += forward_ns
            row.backward_ns += backward_ns
            row.rules += rules
        epoch.rows = list(rows.values())
        return epoch


def _shapes(inputs: tuple[Any, ...]) -> Shapes:
    """Return the shapes of arrays, spelt out for the usual numbers of them, which is faster than a loop."""
    n = len(inputs)
    if n == 1:
        return [inputs[0].shape]
    if n == 2:
        return [inputs[0].shape, inputs[1].shape]
    if n == 3:
        return [inputs[0].shape, inputs[1].shape, inputs[2].shape]
    return [a.shape for a in inputs]


def reachable(root: Node | Leaf | None) -> list[Node]:
    """Return the nodes that a walk from a root would visit, oldest first."""
    found: set[Node] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and node not in found:
            found.add(node)
            stack.extend(parent for parent, _, _ in node.edges or ())
    return sorted(found, key=lambda node: node.order)


def _parameter(array: Any, node: Node) -> bool:
    """Whether an array is a parameter's own, which is there with or without a graph."""
    return bool(array.flags.writeable) and any(leaf.shape == array.shape for leaf, _ in node.guards)


class Recorder:
    """Observer of ops and watcher of steps. Its methods run in every step, and are written for speed.

    Parameters
    ----------
    every : int
        Observe the ops of every so many-th step. The stretches of every step are timed all the same.
    takes_losses : bool
        Note the loss of each step. A Trainer knows it anyway.
    """

    collects = False

    def __init__(self, every: int = 1, takes_losses: bool = True) -> None:
        self.takes_losses = takes_losses
        self.every = every
        self.steps_ever = 0
        self.observing = True
        self.modes: dict[bool, Mode] = {}
        self.patterns: list[Pattern] = []
        self.expected: list[Site] = []
        self.pattern: Pattern | None = None
        self.sites: dict[tuple[Any, ...], Site] = {}
        self.start_epoch()

    # Epochs

    def start_epoch(self) -> None:
        """Begin a new log."""
        for pattern in self.patterns:
            pattern.count = 0
        for site in self.sites.values():
            site.forward_ns = site.backward_ns = site.rules = 0
        self.log = Log()
        self.marks = self.log.marks
        self.steps = self.observed = self.loose = 0
        self.step_sites: list[Site] = []

    def end_epoch(self, number: int) -> Log:
        """Return the log of the epoch."""
        log = self.log
        log.total_ns = perf_counter_ns() - log.began
        log.number, log.steps, log.observed, log.loose = number, self.steps, self.observed, self.loose
        log.observing = self.observing
        log.counts = [(pattern, pattern.count) for pattern in self.patterns if pattern.count]
        log.spent = [
            (site, site.forward_ns, site.backward_ns, site.rules) for site in self.sites.values() if site.forward_ns
        ]
        return log

    # Ops

    def forward(
        self,
        op: Any,
        node: Node | None,
        inputs: tuple[Any, ...],
        params: dict[str, Any],
        output: Any,
        began: int,
    ) -> None:
        """Add an op's time to its site."""
        ended = perf_counter_ns()
        if node is None:
            return
        sites = self.step_sites
        scope = node.scope
        path = scope[0] if scope is not None else ""
        try:
            site = self.expected[len(sites)]  # most likely the same op as in the step before
            if (
                site.op is not op
                or site.path != path
                or site.shape != node.shape
                or site.constants != node.parents.count(None)  # type: ignore[union-attr]
                or site.shapes != _shapes(inputs)
            ):
                site = self._site(op, node, path, inputs, params)
        except (IndexError, AttributeError):
            site = self._site(op, node, path, inputs, params)
        site.forward_ns += ended - began
        sites.append(site)
        node._note = site
        if scope is None:  # outside of any module, and so of any stretch
            self.loose += ended - began

    def backward(self, node: Node, gradient: Any, shares: Any, began: int) -> None:
        """Add a rule's time to its node's site."""
        ended = perf_counter_ns()
        site = node.note
        if site is not None:  # else recorded before the profiler came
            site.backward_ns += ended - began
            site.rules += 1

    def _site(self, op: Any, node: Node, path: str, inputs: tuple[Any, ...], params: dict[str, Any]) -> Site:
        shapes = [getattr(a, "shape", ()) for a in inputs]
        edges = tuple(partial.index for _, partial, _ in node.edges or ())
        key = (op, path, node.shape, tuple(shapes), edges)
        site = self.sites.get(key)
        if site is None:
            site = self.sites[key] = Site(op, node, path, shapes, params)
        return site

    # Stretches

    def before_backward(self, loss: Any) -> None:
        """Take the loss, and the ops recorded for it while their saved arrays are there."""
        if self.takes_losses and loss._array.size == 1:
            self.log.losses.append(loss._array.item())
        if self.step_sites:
            self._match(loss._node)

    def after_update(self) -> None:
        """Count the step, and decide whether to observe the next one."""
        self.steps += 1
        if self.every == 1:
            self.observed += 1
        else:
            self.steps_ever += 1
            self.observed += self.observing
            observe = not self.steps_ever % self.every
            if observe is not self.observing:
                self.marks.append(("toggle", 0))
                self.attach(observe)
        if len(self.marks) > MOST_MARKS:
            self.log.add_marks(self.observing)

    def _match(self, loss: Node | Leaf | None) -> None:
        """Count the step's pattern; a new one is worked out now, while the graph is there."""
        pattern = self.pattern
        if pattern is None or self.expected != self.step_sites:
            pattern = next((p for p in self.patterns if p.sites == self.step_sites), None)
            if pattern is None:
                if len(self.patterns) == MOST_PATTERNS:
                    old = self.patterns.pop(0)
                    old.fold(self.log.folded, old.count)
                pattern = Pattern(self.step_sites, loss)
                self.patterns.append(pattern)
            self.pattern, self.expected = pattern, pattern.sites
        if not pattern.count:
            self.log.parameters = max(self.log.parameters, (pattern.parameters, pattern.parameter_tensors))
        pattern.count += 1
        self.step_sites = []

    def attach(self, observe: bool = True) -> None:
        """Watch from here on, the ops too or the stretches only."""
        self.observing = observe
        mode = MODE.get()
        if mode is self.modes.get(not observe):  # as this recorder left it
            MODE.set(self.modes[observe])
            return
        for observing in (False, True):
            self.modes[observing] = mode.changed(observer=self if observing else None, watcher=self)
        MODE.set(self.modes[observe])
