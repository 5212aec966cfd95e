"""Lookup of the `OpStats` of an op, and the ops without a node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from microfw.autograd.graph import Node
from microfw.autograd.mode import MODE
from microfw.autograd.scope import THREAD_SCOPE, Scope
from microfw.nn.module import Module
from microfw.profiler.recorder.naming import LayerNames
from microfw.profiler.recorder.sampling import SampledTimer, Schedule
from microfw.profiler.recorder.sequence import Position
from microfw.profiler.recorder.stats import OpStats, dtypes, is_plain, needs, settings


class StatsLookup(SampledTimer):
    """A timer that finds the stats of ops; base class of `Recorder`.

    Attributes
    ----------
    names : LayerNames
        Names of the layers.
    op_stats : dict
        Stats of all ops, by what distinguishes them.
    last_constant : OpStats or None
        The last op without a node.
    followers : dict
        The op without a node that followed another one last time.
    constants : int
        Ops without a node in eager steps of the finished epochs.
    recomputations : int
        Ops with a node in the second run of a checkpoint, in the finished epochs.
    lookups : int
        Ops with known stats that were not those of the last step, so that finding the stats took longer.
    lookup_ns : int
        Time in which these stats were found, and in which the nodes of a graph that was retained were marked.
    """

    def __init__(self, schedule: Schedule, takes_losses: bool, model: Module | None) -> None:
        super().__init__(schedule, takes_losses)
        self.names = LayerNames(model)
        self.op_stats: dict[tuple[Any, ...], OpStats] = {}
        self.last_constant: OpStats | None = None
        self.followers: dict[OpStats | None, OpStats] = {}
        self.constants = self.recomputations = self.lookups = self.lookup_ns = 0

    @property
    def step_stats(self) -> Iterator[OpStats]:
        """Stats of the ops so far in this step, the latest first."""
        return (position.stats for position in self.position.path())

    def stats_of(
        self,
        op: Any,
        node: Node,
        inputs: tuple[Any, ...],
        params: dict[str, Any],
        leaves: tuple[bool, ...] = (),
    ) -> OpStats:
        """Return the stats of an op with a node. ``leaves``: which parents are leaves, if inside a checkpoint."""
        path = self.names.name(node.scope, (stats.scope for stats in self.step_stats))
        shapes = [getattr(a, "shape", ()) for a in inputs]
        distinct = settings(op, node.shape, shapes, params)
        key = (node.spec, path, node.shape, tuple(shapes), dtypes(inputs), needs(node), distinct, leaves)
        stats = self.op_stats.get(key)
        if stats is None:
            stats = self.op_stats[key] = OpStats(op, node, path, node.shape, shapes, params, inputs, leaves)
        stats.scope, stats.module = node.scope, None if node.scope is None else node.scope[0]
        return stats

    def renewed(self, known: Any, scope: Scope | None) -> bool:
        """Return True if the module of an op was made again, as in each step. ``known``: `Position` or `OpStats`."""
        stats = known.stats if type(known) is Position else known
        if scope is None or known.scope is None or not self.names.inherits(scope, known.scope, stats.path):
            return False
        stats.scope, stats.module = known.scope, known.module = scope, scope[0]
        known.renewed = True
        return True

    def constant(
        self, op: Any, inputs: tuple[Any, ...], params: dict[str, Any], output: Any, scope: Scope | None
    ) -> OpStats:
        """Return the stats of an op without a node."""
        shape = output.shape
        path = self.names.name(scope, (stats.scope for stats in self.step_stats))
        shapes = [getattr(a, "shape", ()) for a in inputs]
        key = (op, path, shape, tuple(shapes), settings(op, shape, shapes, params))
        stats = self.op_stats.get(key)
        if stats is None:
            stats = self.op_stats[key] = OpStats(op, None, path, shape, shapes, params)
        return stats

    def _add_constant(
        self,
        op: Any,
        inputs: tuple[Any, ...],
        params: dict[str, Any],
        output: Any,
        start_ns: int,
        end_ns: int,
        recomputed: bool = False,
    ) -> None:
        """Count an op of a training step without a node, as in frozen layers."""
        if not MODE.get().recording:
            return  # evaluation
        scope = THREAD_SCOPE.scope
        module = None if scope is None else scope[0]
        stats: Any = self.followers.get(self.last_constant)  # usually the same op as in the last step
        try:
            same = (
                stats.op is op
                and (stats.module is module or self.renewed(stats, scope))
                and stats.shape == output.shape
                and stats.shapes == [getattr(a, "shape", ()) for a in inputs]
                and stats.graph_op.params == params
            )
        except (AttributeError, ValueError):  # no stats yet, or an array among the params
            same = False
        if not same:
            known = len(self.op_stats)
            stats = self.constant(op, inputs, params, output, scope)
            stats.scope, stats.module = scope, module
            if all(map(is_plain, params.values())):
                self.followers[self.last_constant] = stats
            if len(self.op_stats) > known:
                self._add_set_up(end_ns)
        self.last_constant = stats
        if recomputed:
            stats.backward_ns += end_ns - start_ns
            stats.recomputations += 1
            return
        stats.forward_ns += end_ns - start_ns
        stats.vjp_calls += 1
