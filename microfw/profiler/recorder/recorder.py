"""Recorder: observes a training run from inside the engine and adds up counts and times.

An op of one layer on the same shapes has one `OpStats`. Its cost rule runs once; later calls are only counted. An
observed op costs two clock readings and a few comparisons, and memory does not grow with the number of steps.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any

from microfw.autograd.graph import Leaf, Node, node_counter, reachable
from microfw.autograd.mode import MODE
from microfw.autograd.observer import Observer
from microfw.autograd.phases import BACKWARD, BEFORE_FORWARD, EVALUATION, FORWARD, IDLE
from microfw.nn.module import Module
from microfw.profiler.recorder.log import Log
from microfw.profiler.recorder.lookup import StatsLookup
from microfw.profiler.recorder.passes import Passes
from microfw.profiler.recorder.sampling import MAX_TIMESTAMPS, Schedule
from microfw.profiler.recorder.sequence import Position, Sequence, Sequences
from microfw.profiler.recorder.stats import GraphStats, OpStats

MAX_GRAPHS = 64
"""Maximum number of graphs counted separately, so that memory does not grow if every step has another graph."""


class Recorder(StatsLookup, Observer):
    """Observer of ops and timer of phases. Its methods run in every step and are written for speed.

    Parameters
    ----------
    schedule : callable, optional
        Which steps are observed; default all. Of other steps only the number and evaluation times are recorded.
    takes_losses : bool
        Record the loss of each step. Not needed with a Trainer, which reports losses itself.
    model : Module, optional
        Model whose paths name the layers.
    """

    def __init__(self, schedule: Schedule = None, takes_losses: bool = True, model: Module | None = None) -> None:
        super().__init__(schedule, takes_losses, model)
        self.sequences = Sequences()
        self.root = self.position = self.sequences.root
        self.graphs: list[GraphStats] = []
        self.recomputed: dict[OpStats, Position] = {}
        self.last: tuple[Position, GraphStats] | None = None  # at the last backward pass
        self.example: list[tuple[Position, tuple[Any, ...], tuple[Any, ...]]] = []  # ops of one step, for `overhead`
        self.timed: dict[int, Any] = {}
        self.followed: Any = None
        self.since = next(node_counter)  # older nodes ran before the profiler was attached
        self.start_epoch()

    # Epochs

    def start_epoch(self) -> None:
        """Start a new log. Time between two epochs belongs to neither."""
        self.running = True
        super().start_epoch()
        for timed in self.timed.values():
            timed.timestamps.clear()
        for graph in self.graphs:
            graph.count = 0
        for stats in self.op_stats.values():
            stats.forward_ns = stats.backward_ns = stats.vjp_calls = stats.recomputations = 0
        self.position = self.root

    def detach(self) -> None:
        """Stop recording, and release the modules of the steps: the program may no longer use them."""
        super().detach()
        if self.last is not None:
            self.example = [(position, position.inputs, position.links) for position in self.last[0].path()][::-1]
        self._forget_objects()

    def _forget_objects(self) -> None:
        for stats in self.op_stats.values():
            stats.scope = stats.module = None
        self.last_constant = None
        self.followers.clear()
        self.sequences.forget_objects()
        for graph in self.graphs:
            graph.forget_objects()
        self.passes = Passes()

    def end_epoch(self, number: int) -> Log:
        """Return the log of the epoch. Call `start_epoch` before the next."""
        log = super().end_epoch(number)
        log.timestamps = [(timed, timed.pop_timestamps()) for timed in self.timed.values() if timed.timestamps]
        self.running = False
        log.counts = [(graph, graph.count) for graph in self.graphs if graph.count]
        log.op_times = [
            (stats, stats.forward_ns, stats.backward_ns, stats.vjp_calls, stats.recomputations)
            for stats in self.op_stats.values()
            if stats.forward_ns or stats.vjp_calls or stats.recomputations
        ]
        self.constants += sum(calls for stats, _, _, calls, _ in log.op_times if stats.spec is None)
        self.recomputations += sum(again for stats, *_, again in log.op_times if stats.spec is not None)
        return log

    @property
    def has_steps(self) -> bool:
        """Whether the epoch has steps, or backward passes in a run without an update."""
        return self.steps > 0 or (not self.step and (self.log.passes > 0 or any(graph.count for graph in self.graphs)))

    # Ops

    def forward(
        self,
        op: Any,
        node: Node | None,
        inputs: tuple[Any, ...],
        params: dict[str, Any],
        output: Any,
        start_ns: int,
    ) -> None:
        """Add an op's time to its stats."""
        end_ns = perf_counter_ns()
        if node is None or self.timestamps[-1] != FORWARD:
            part = self._in_forward(op, node, inputs, params, output, start_ns, end_ns)
            if not part:
                return
            if node is None:
                self.forward_end_ns = end_ns
                self._add_constant(op, inputs, params, output, start_ns, end_ns)
                return
        self.forward_end_ns = end_ns
        scope = node.scope
        position: Any = self.position.next  # usually the same op as in the last step
        try:
            same = (
                position.spec is node.spec
                and position.shape == node.shape
                and (params is position.params or params == position.params)
                and (position.module is (None if scope is None else scope[0]) or self.renewed(position, scope))
            )
            if position.only_leaves:
                same = same and node.parents == position.links
            else:
                # no strict=False: the keyword takes 50 ns
                for parent, found in zip(node.parents, position.links):  # type: ignore[arg-type]  # noqa: B905
                    if parent is not found and parent._metadata is not found:  # type: ignore[union-attr]
                        same = False
            for k, dtype, shape in position.constants:
                x = inputs[k]
                if dtype is None:
                    same = same and not hasattr(x, "dtype")
                elif x.dtype is not dtype or x.shape != shape:
                    same = False
        except (AttributeError, IndexError, ValueError):
            # an unobserved node, a number for an array, fewer inputs (as another thread took the last step), or an
            # array among the params
            same = False
        if not same:
            known = len(self.sequences.all)
            stats = self.stats_of(op, node, inputs, params)
            position = self.sequences.move(self.position, stats, node, inputs, params)
            if len(self.sequences.all) > known:
                self._add_set_up(end_ns)
            else:
                self.lookups += 1
                self.lookup_ns += perf_counter_ns() - end_ns
        self.position = node._metadata = position
        position.stats.forward_ns += end_ns - start_ns

    def _in_forward(
        self,
        op: Any,
        node: Node | None,
        inputs: tuple[Any, ...],
        params: dict[str, Any],
        output: Any,
        start_ns: int,
        end_ns: int,
    ) -> bool:
        """Start the forward pass if this op is its first; return True if the op is part of a forward pass."""
        phase: int = self.timestamps[-1]
        if phase in BEFORE_FORWARD:
            if node is not None or (phase == IDLE and MODE.get().recording):
                self.timestamps += (start_ns, FORWARD)
                return True
            if phase == IDLE:
                self.timestamps += (start_ns, EVALUATION, end_ns, IDLE)
        elif phase == BACKWARD and MODE.get().recomputing:
            if node is None:
                self._add_constant(op, inputs, params, output, start_ns, end_ns, recomputed=True)
                return False
            leaves = tuple([isinstance(parent, Leaf) for parent in node.parents or ()])
            known = len(self.op_stats)
            stats = self.stats_of(op, node, inputs, params, leaves)
            if len(self.op_stats) > known:
                self._add_set_up(end_ns)
            stats.backward_ns += end_ns - start_ns
            stats.recomputations += 1
            if stats not in self.recomputed:
                self.recomputed[stats] = Position(stats)
            node._metadata = self.recomputed[stats]
        return phase == FORWARD

    batches_visits = True

    def backward(self, node: Node, gradient: Any, shares: Any, start_ns: int) -> None:
        """Add a rule's time to its node's stats."""
        self.on_visits([node, start_ns, perf_counter_ns()])

    def on_visits(self, times: list[Any]) -> None:
        """Add the times of rules to the stats of their nodes. Outside of a backward pass, as in `grad`, do nothing."""
        if self.timestamps[-1] != BACKWARD:
            return
        each = iter(times)
        for node, start_ns, end_ns in zip(each, each, each, strict=True):
            try:
                stats = node._metadata.stats
            except AttributeError:  # recorded before the profiler was attached, or in a hook
                continue
            stats.backward_ns += end_ns - start_ns
            stats.vjp_calls += 1

    # Graphs

    def before_backward(self, loss: Any, retain: bool = False) -> None:
        """Compute the `GraphStats` of a new graph, before the backward pass frees the graph."""
        node, here = loss._node, self.position
        position = getattr(node, "_metadata", None)
        graph = here.unknown if position is None else position.graph
        if graph is None or not graph.listed:
            start_ns = perf_counter_ns()
            graph = self._add_graph(node)
            self._add_set_up(start_ns)
            if position is None:
                here.unknown = graph
            else:
                position.graph = graph

    def after_backward(self, loss: Any, retain: bool = False) -> None:
        """Count the graph of a loss."""
        node, here, visited = loss._node, self.position, self.nodes_visited
        position = getattr(node, "_metadata", None)
        graph = here.unknown if position is None else position.graph
        if graph is None:  # a hook has run another backward pass
            return
        graph.count += 1
        if retain:
            start_ns = perf_counter_ns()
            for each in reachable(node):
                if each.metadata is not None:
                    each._metadata = each._metadata.retained()
            self.lookup_ns += perf_counter_ns() - start_ns
        self.last = here, graph
        passes = self.passes
        if self.losses is None:  # in a Trainer
            passes.counted.append((graph, None))
        if not passes.graphs:  # the usual step has one, whose parameters the log adds at the end of the epoch
            passes.graphs = (graph,)
        elif graph not in passes.graphs:
            passes.join(graph, self.log)
        self.nodes_visited = visited + graph.nodes
        all_visited = self.nodes_visited >= here.depth
        if visited or not all_visited:
            passes.add_open(graph, here.depth, not visited, self.log)
        if all_visited:  # else another backward pass will visit the remaining nodes
            self.position, self.nodes_visited, passes.ranges = self.root, 0, None

    def _add_graph(self, loss: Node | Leaf | None) -> GraphStats:
        if len(self.graphs) >= MAX_GRAPHS:
            for old in self.graphs:
                self.log.add_graph(old, old.count)
                old.count, old.listed = 0, False
            self.passes.counted.clear()
            self._forget_objects()
            self.graphs.clear()
            self.sequences.grow_new_tree()
            self.root = self.sequences.root
            self.followed = None  # its graph may have been removed
        earlier = self.passes.ranges if self.nodes_visited else None
        graph = GraphStats(loss, earlier, self.since)
        self.names.layers()  # a layer that was frozen since the last graph has other numbers
        self.passes.ranges = graph.ranges
        self.graphs.append(graph)
        return graph

    # Replayed steps

    supports_replay = True

    def last_sequence(self) -> Sequence | None:
        """Return the op sequence of the step that has just run."""
        if self.last is None:
            return None
        position, graph = self.last
        return Sequence([above.stats for above in position.path()][::-1], graph)

    def on_replayed_ops(self, timed: Any) -> None:
        """Count the graph of a replayed step. Its timestamps are added up later."""
        if timed is not self.followed:  # the first in a row
            if timed.graph not in self.graphs:
                self.graphs.append(timed.graph)
                timed.graph.listed = True
            self.followed = self.timed[id(timed)] = timed
            self.passes.join(timed.graph, self.log)
        timed.graph.count += 1
        if self.losses is None:
            self.passes.counted.append((timed.graph, timed))
        if len(timed.timestamps) > MAX_TIMESTAMPS:
            timed.flush()
