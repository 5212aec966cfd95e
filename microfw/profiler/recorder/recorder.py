"""The recorder: observes a training run from inside the engine and adds it up.

An op that runs again on the same shapes is the same *site*: its cost is worked out once, by its cost rule on the
shapes that ran, and then only counted. So an observed op costs two readings of the clock and a few comparisons, and
memory does not grow with the number of steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter_ns
from typing import Any

from microfw.autograd.graph import Leaf, Node, reachable
from microfw.autograd.mode import MODE
from microfw.autograd.observer import Observer
from microfw.autograd.phases import BACKWARD, BEFORE_FORWARD, EVALUATION, FORWARD, IDLE
from microfw.autograd.scope import THREAD_SCOPE, Scope
from microfw.nn.module import Module
from microfw.profiler.recorder.log import Log
from microfw.profiler.recorder.naming import LayerNames
from microfw.profiler.recorder.sampling import MAX_MARKS, SampledTimer, Schedule, every_nth
from microfw.profiler.recorder.sequence import Position, Sequence, Sequences
from microfw.profiler.recorder.stats import Pattern, Site, needs, settings

MOST_PATTERNS = 64
"""How many patterns are kept apart, so that memory does not grow where every step is another."""


class Recorder(SampledTimer, Observer):
    """Observer of ops and timer of phases. Its methods run in every step, and are written for speed.

    Parameters
    ----------
    schedule : callable, optional
        Which steps are observed; all of them if not given. The others are counted, and only their evaluations timed.
    takes_losses : bool
        Note the loss of each step. A Trainer knows it anyway.
    model : Module, optional
        The model whose paths name the layers.
    """

    def __init__(
        self, schedule: Schedule | None = None, takes_losses: bool = True, model: Module | None = None
    ) -> None:
        super().__init__(schedule or every_nth(1), takes_losses)
        self.names = LayerNames(model)
        self.sites: dict[tuple[Any, ...], Site] = {}
        self.sequences = Sequences()
        self.root = self.position = self.sequences.root
        self.patterns: list[Pattern] = []
        self.recomputed: dict[Site, Position] = {}
        self.last: tuple[Position, Pattern] | None = None  # where the last backward pass began, and of which loss
        self.example: list[tuple[Position, tuple[Any, ...], tuple[Any, ...]]] = []  # to run a step again
        self.timed: dict[int, Any] = {}
        self.followed: Any = None
        self.start_epoch()

    # Epochs

    def start_epoch(self) -> None:
        """Begin a new log. What came between two epochs is part of neither."""
        self.running = True
        super().start_epoch()
        for timed in self.timed.values():
            timed.timestamps.clear()
        for pattern in self.patterns:
            pattern.count = 0
        for site in self.sites.values():
            site.forward_ns = site.backward_ns = site.rules = site.again = 0
        self.position = self.root

    def detach(self) -> None:
        """Note nothing from here on, and release the modules of the steps, which may be gone from the program."""
        super().detach()
        if self.last is not None:
            self.example = [(position, position.inputs, position.links) for position in self.last[0].path()][::-1]
        self._forget_objects()

    def _forget_objects(self) -> None:
        for site in self.sites.values():
            site.scope = site.module = None
        self.sequences.forget_objects()

    def end_epoch(self, number: int) -> Log:
        """Return the log of the epoch; `start_epoch` is to begin the next."""
        log = super().end_epoch(number)
        log.marks = [(timed, timed.pop_timestamps()) for timed in self.timed.values() if timed.timestamps]
        self.running = False
        log.counts = [(pattern, pattern.count) for pattern in self.patterns if pattern.count]
        log.spent = [
            (site, site.forward_ns, site.backward_ns, site.rules, site.again)
            for site in self.sites.values()
            if site.forward_ns or site.rules or site.again
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
        if node is None or self.marks[-1] != FORWARD:
            part = self._in_forward(op, node, inputs, params, output, began, ended)
            if not part:
                return
        self.forward_ended = ended
        if node is None:
            self._add_constant(op, inputs, params, output, ended - began)
            return
        scope = node.scope
        position: Any = self.position.next  # most likely the same op as in the step before
        try:
            same = (
                position.spec is node.spec
                and position.module is (None if scope is None else scope[0])
                and position.shape == node.shape
                and position.params == params
            )
            # without strict=False, which takes 50 ns
            if node.parents != position.links:  # one comparison where all parents are leaves
                for parent, found in zip(node.parents, position.links):  # type: ignore[arg-type]  # noqa: B905
                    if parent is not found and parent._metadata is not found:  # type: ignore[union-attr]
                        same = False
            for k in position.constants:
                same = same and position.shapes[k] == getattr(inputs[k], "shape", ())
        except (AttributeError, ValueError):  # a node that was not observed; an array among the params
            same = False
        if not same:
            known = len(self.sequences.all)
            site = self.site(op, node, inputs, params)
            position = self.sequences.move(self.position, site, node, inputs, params)
            if len(self.sequences.all) > known:
                self.set_up_ns += perf_counter_ns() - ended
        self.position = node._metadata = position
        position.site.forward_ns += ended - began

    def _in_forward(
        self,
        op: Any,
        node: Node | None,
        inputs: tuple[Any, ...],
        params: dict[str, Any],
        output: Any,
        began: int,
        ended: int,
    ) -> bool:
        """Begin the forward pass if an op does, and return True if it is part of one."""
        phase: int = self.marks[-1]
        if phase in BEFORE_FORWARD:
            if node is not None or (phase == IDLE and MODE.get().recording):
                self.marks += (began, FORWARD)
                return True
            if phase == IDLE:
                self.marks += (began, EVALUATION, ended, IDLE)
        elif phase == BACKWARD and MODE.get().recomputing:
            if node is None:
                self._add_constant(op, inputs, params, output, ended - began, again=True)
                return False
            leaves = tuple([isinstance(parent, Leaf) for parent in node.parents or ()])
            site = self.site(op, node, inputs, params, leaves)
            site.backward_ns += ended - began
            site.again += 1
            if site not in self.recomputed:
                self.recomputed[site] = Position(site)
            node._metadata = self.recomputed[site]
        return phase == FORWARD

    batches = True

    def backward(self, node: Node, gradient: Any, shares: Any, began: int) -> None:
        """Add a rule's time to its node's site."""
        self.walked([node, began, perf_counter_ns()])

    def walked(self, times: list[Any]) -> None:
        """Add the times of rules to the sites of their nodes. Derivative functions are part of no backward pass."""
        if self.marks[-1] != BACKWARD:
            return
        each = iter(times)
        for node, began, ended in zip(each, each, each, strict=True):
            try:
                site = node._metadata.site
            except AttributeError:  # recorded before the profiler was attached, or by a hook
                continue
            site.backward_ns += ended - began
            site.rules += 1

    def site(
        self,
        op: Any,
        node: Node,
        inputs: tuple[Any, ...],
        params: dict[str, Any],
        leaves: tuple[bool, ...] = (),
    ) -> Site:
        """Return the site of an op that has recorded a node; in a checkpoint, by which parents are leaves, too."""
        path = self.names.name(node.scope, (site.scope for site in self.step_sites))
        shapes = [getattr(a, "shape", ()) for a in inputs]
        distinct = settings(op, node.shape, shapes, params)
        key = (node.spec, path, node.shape, tuple(shapes), needs(node), distinct, leaves)
        site = self.sites.get(key)
        if site is None:
            site = self.sites[key] = Site(op, node, path, node.shape, shapes, params, leaves)
        site.scope, site.module = node.scope, None if node.scope is None else node.scope[0]
        return site

    def constant(
        self, op: Any, inputs: tuple[Any, ...], params: dict[str, Any], output: Any, scope: Scope | None
    ) -> Site:
        """Return the site of an op that has run without a node."""
        shape = output.shape
        path = self.names.name(scope, (site.scope for site in self.step_sites))
        shapes = [getattr(a, "shape", ()) for a in inputs]
        key = (op, path, shape, tuple(shapes), settings(op, shape, shapes, params))
        site = self.sites.get(key)
        if site is None:
            site = self.sites[key] = Site(op, None, path, shape, shapes, params)
        return site

    def _add_constant(
        self,
        op: Any,
        inputs: tuple[Any, ...],
        params: dict[str, Any],
        output: Any,
        ns: int,
        again: bool = False,
    ) -> None:
        """Count an op of a training step that recorded no node, since nothing in it is trained: frozen layers."""
        if not MODE.get().recording:
            return  # evaluation
        scope = THREAD_SCOPE.scope
        site = self.constant(op, inputs, params, output, scope)
        if again:
            site.backward_ns += ns
            site.again += 1
            return
        site.forward_ns += ns
        site.rules += 1

    @property
    def step_sites(self) -> Iterator[Site]:
        """The sites of the ops so far in this step, the last one first."""
        return (position.site for position in self.position.path())

    # Patterns

    def before_backward(self, loss: Any, retain: bool = False) -> None:
        """Count the pattern of a loss; a new one is worked out now, while the graph is there."""
        node, here = loss._node, self.position
        position = getattr(node, "_metadata", None)
        pattern = here.unknown if position is None else position.pattern
        if pattern is None or not pattern.listed:
            began = perf_counter_ns()
            pattern = self._add_pattern(node)
            self.set_up_ns += perf_counter_ns() - began
            if position is None:
                here.unknown = pattern
            else:
                position.pattern = pattern
        pattern.count += 1
        if retain:
            for each in reachable(node):
                if each.metadata is not None:
                    each._metadata = each._metadata.retained()
        self.last = here, pattern
        self.nodes_walked += pattern.nodes
        if self.nodes_walked >= here.depth:  # else there are nodes that another backward pass will walk
            self.position, self.nodes_walked = self.root, 0

    def _add_pattern(self, loss: Node | Leaf | None) -> Pattern:
        if len(self.patterns) >= MOST_PATTERNS:
            for old in self.patterns:
                self.log.add_pattern(old, old.count)
                old.count, old.listed = 0, False
            self.patterns.clear()
            self._forget_objects()
            self.sequences.grow_new_tree()
            self.root = self.sequences.root
            self.followed = None  # its pattern may be an old one
        pattern = Pattern(loss)
        self.patterns.append(pattern)
        return pattern

    # Steps that are replayed

    supports_replay = True

    def last_sequence(self) -> Sequence | None:
        """Return the sequence of the step that has just run."""
        if self.last is None:
            return None
        position, pattern = self.last
        return Sequence([above.site for above in position.path()][::-1], pattern)

    def on_replayed_ops(self, timed: Any) -> None:
        """Count a step's pattern; the readings of its clock are added up later."""
        if timed is not self.followed:  # the first in a row
            if timed.pattern not in self.patterns:
                self.patterns.append(timed.pattern)
                timed.pattern.listed = True
            self.followed = self.timed[id(timed)] = timed
        timed.pattern.count += 1
        if len(timed.timestamps) > MAX_MARKS:
            timed.flush()
