"""The recorder: watches a training run from inside the engine and adds it up.

An op that runs again on the same shapes is the same *site*: what it costs is worked out once, by its cost
rule on the shapes that ran, and then only counted. So an observed op costs two readings of the clock and a
few comparisons, and memory does not grow with the number of steps.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import Any

import numpy as np

from microfw.graph import Leaf, Node
from microfw.nn.module import Module
from microfw.profiler.log import Log
from microfw.profiler.naming import LayerNames
from microfw.profiler.sites import Pattern, Site, add_constant, constant_site, needs, node_site, settings, shapes_of
from microfw.profiler.stand_ins import STRIDE, Again, Aside, Waiting
from microfw.recording import HERE, MODE, Mode, Observer

MOST_STRETCHES = 1 << 12
"""How many entries of stretches, losses, or readings of the clock, are kept before they are added up."""

MOST_PATTERNS = 64
"""How many patterns are kept apart, so that memory does not grow where every step is another."""


class Recorder(Observer):
    """Observer of ops and watcher of steps. Its methods run in every step, and are written for speed.

    Parameters
    ----------
    every : int
        Observe every so many-th step. The others are counted, and only their evaluations timed.
    takes_losses : bool
        Note the loss of each step. A Trainer knows it anyway.
    model : Module, optional
        The model whose paths name the layers.
    """

    timing = True
    stale = False

    def __init__(self, every: int = 1, takes_losses: bool = True, model: Module | None = None) -> None:
        self.names = LayerNames(model)
        self.every = every
        self.stride = 1 if every > 1 else STRIDE
        self.count = self.seen = self.resumed = 0  # observed steps; those of earlier epochs, and before the last wait
        self.backward_ran, self.optimizer = False, None  # the optimizer that was the first to update in the last step
        self.due = self.stride  # when to look up
        self.modes: dict[bool, Mode] = {}
        self.patterns: list[Pattern] = []
        self.expected: list[Site] = []
        self.pattern: Pattern | None = None
        self.sites: dict[tuple[Any, ...], Site] = {}
        self.stretches: list[Any] = []  # as a `Watcher` has them, and between "waits" and "waited" nothing
        self.losses: list[np.ndarray[Any, Any]] | None = [] if takes_losses else None
        self.spare = Log()  # for what comes between epochs
        self.waiting = Waiting(self)
        self.timed: dict[int, Any] = {}
        self.followed: Any = None
        self.start_epoch()

    # Epochs

    def start_epoch(self) -> None:
        """Begin a new log. What came between two epochs is part of neither."""
        self.running = True
        self.seen, self.waiting.seen, self.waiting.repeats = self.count, self.waiting.count, 0
        self.stretches.clear()
        for timed in self.timed.values():
            timed.marks.clear()
        if self.losses:
            self.losses.clear()
        for pattern in self.patterns:
            pattern.count = 0
        for site in self.sites.values():
            site.forward_ns = site.backward_ns = site.rules = site.again = 0
            site.scope = site.module = None  # modules that are gone are not kept
        self.log = Log()
        self.loose = 0
        self.step_sites: list[Site] = []

    def end_epoch(self, number: int) -> Log:
        """Return the log of the epoch; `start_epoch` is to begin the next."""
        log = self.log
        log.total_ns = perf_counter_ns() - log.began
        if self.stretches or self.losses:
            self._hand_over()
        log.marks = [(timed, timed.take()) for timed in self.timed.values() if timed.marks]
        log.number, log.steps, log.observed, log.loose = number, self.steps, self.count - self.seen, self.loose
        log.replays += self.waiting.repeats
        self.log, self.running = self.spare, False
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
        if node is None:
            add_constant(self, op, inputs, params, output, ended - began)
            return
        sites, scope = self.step_sites, node.scope
        module = None if scope is None else scope[0]
        try:
            site = self.expected[len(sites)]  # most likely the same op as in the step before
            if (
                site.form is not node.form
                or site.module is not module
                or site.shape != node.shape
                or site.constants != node.parents.count(None)  # type: ignore[union-attr]
                or (site.constants and site.needs != needs(node))
                or site.shapes != shapes_of(inputs)
                or (params and site.settings != settings(op, site.shape, site.shapes, params))
            ):
                site = self.site(op, node, inputs, params)
        except (IndexError, AttributeError):
            site = self.site(op, node, inputs, params)
        site.forward_ns += ended - began
        sites.append(site)
        node._note = site
        if scope is None:  # outside of any module, and so of any stretch
            self.loose += ended - began

    def backward(self, node: Node, gradient: Any, shares: Any, began: int) -> None:
        """Add a rule's time to its node's site."""
        ended = perf_counter_ns()
        try:
            site = node._note
        except AttributeError:  # recorded before the profiler came
            return
        site.backward_ns += ended - began
        site.rules += 1

    site = node_site
    constant = constant_site

    @property
    def again(self) -> Again:
        """Who is told of what a checkpoint runs again."""
        return Again(self)

    @property
    def aside(self) -> Aside:
        """Who is told of walks that are not `Tensor.backward`'s, and so in no stretch of it."""
        return Aside(self)

    # Steps that are replayed

    follows = True

    def bound(self) -> Pattern | None:
        """Return the pattern of the step before."""
        return self.pattern

    def follow(self, timed: Any) -> None:
        """Count a step's pattern; what its clock said is added up later."""
        if timed is not self.followed:  # the first in a row
            if timed.pattern not in self.patterns:
                self.patterns.append(timed.pattern)
            self.followed = self.timed[id(timed)] = timed
        timed.pattern.count += 1
        if len(timed.marks) > MOST_STRETCHES:
            timed.flush()

    # Stretches

    def before_backward(self, loss: Any) -> None:
        """Take the ops recorded for a loss, while their saved arrays are there."""
        if self.step_sites:
            self._match(loss._node)

    def replayed(self, began: int, middle: int, ended: int) -> None:
        """Add up a step's passes at once, unless there are stretches, which come first."""
        log = self.log
        self.backward_ran = True
        if self.stretches or HERE.scope is not None:
            self.stretches += ("forward", began, middle, "backward", middle, ended)
            return
        log.forward_ns += middle - began
        log.backward_ns += ended - middle
        if log.step_ended:
            log.data_ns += began - log.step_ended

    def updated(self, began: int, ended: int, optimizer: Any = None) -> None:
        """Note how long an update took, and count the step, unless another optimizer has begun to update it."""
        first = self.backward_ran or optimizer is self.optimizer or not self.count
        if not first and self.count == self.resumed:  # the rest of a step that was not observed
            self._data_begins(ended)
            return
        if self.stretches:
            self.stretches += ("update", began, ended)
        else:
            self.log.update_ns += ended - began
            self.log.step_ended = ended
        if not first:
            return
        self.backward_ran, self.optimizer = False, optimizer
        self.count += 1
        if self.count >= self.due:
            self._wait()

    def repeated(self) -> None:
        """Count a replay."""
        self.log.replays += 1

    def stepped(self, began: int, middle: int, ended: int, moved: int, done: int) -> None:
        """Do all that; a call that reads once what each needs takes less time than three."""
        log = self.log
        log.replays += 1
        if self.stretches or not log.step_ended or HERE.scope is not None:
            self.replayed(began, middle, ended)
            self.updated(moved, done, self.optimizer)
            return
        log.forward_ns += middle - began
        log.backward_ns += ended - middle
        log.data_ns += began - log.step_ended
        log.update_ns += done - moved
        log.step_ended = done
        self.count += 1
        if self.count >= self.due:
            self._wait()

    # Which steps are observed

    @property
    def steps(self) -> int:
        """How many steps the epoch has had."""
        return self.count - self.seen + self.waiting.count - self.waiting.seen

    def _wait(self) -> None:
        """Let other steps go by, if there are any; from time to time make room."""
        self.due = self.count + self.stride
        if self.every > 1:
            self.waiting.wait(self.every - 1)
            self.waiting.began, self.waiting.backward_ran, self.waiting.optimizer = (
                self.waiting.count,
                False,
                self.optimizer,
            )
            self.attach(False)
            if self.stretches:
                ended = self.stretches[-1]
                self.stretches += ("waits", ended, ended)
            else:
                self.log.step_ended = 0
        self.make_room()

    def observe(self) -> None:
        """Observe the next step."""
        self.attach()
        self.resumed, self.backward_ran, self.optimizer = self.count, False, self.waiting.optimizer
        self._data_begins(perf_counter_ns())

    def _data_begins(self, now: int) -> None:
        """Note that a step ended which was not observed; what comes now is data for one that is."""
        if self.stretches:
            self.stretches += ("waited", now, now)
        else:
            self.log.step_ended = now

    def make_room(self) -> None:
        """Add up what has gathered, if it is much, and not inside of a stretch that is yet to come."""
        if HERE.scope is None and len(self.stretches) + len(self.losses or ()) > MOST_STRETCHES:
            self._hand_over()
            self.log.add_stretches()

    def _hand_over(self) -> None:
        """Give the log what the engine has noted."""
        self.log.stretches += self.stretches
        self.stretches.clear()
        if self.losses:
            values = [array.item() for array in self.losses if array.size == 1]
            count, total = self.log.losses
            self.log.losses = (count + len(values), total + sum(values))
            self.losses.clear()

    def _match(self, loss: Node | Leaf | None) -> None:
        """Count the step's pattern; a new one is worked out now, while the graph is there."""
        pattern = self.pattern
        if pattern is None or self.expected != self.step_sites:
            pattern = next((p for p in self.patterns if p.sites == self.step_sites), None)
            if pattern is None:
                if len(self.patterns) == MOST_PATTERNS:
                    old = self.patterns.pop(0)
                    self.log.add_pattern(old, old.count)
                    old.count = 0
                    for site in old.sites:
                        site.scope = site.module = None
                    self.followed = None  # it may be of the old one
                pattern = Pattern(self.step_sites, loss)
                self.patterns.append(pattern)
            self.pattern, self.expected = pattern, pattern.sites
        pattern.count += 1
        self.step_sites = []

    def attach(self, observe: bool = True) -> None:
        """Watch from here on, and observe, or wait to."""
        self.stale, self.waiting.stale = not observe, observe
        mode = MODE.get()
        if mode is self.modes.get(not observe):  # as this recorder left it
            MODE.set(self.modes[observe])
            return
        beside = getattr(mode.observer, "beside", None)  # as detect_anomaly's, which goes on
        if beside is None and self.modes and mode.observer not in (None, self):
            return  # where a step is learnt, whose end resumes
        for watcher, observer in ((self.waiting, None), (self, self)):
            observer = observer if beside is None else beside(observer)
            self.modes[watcher is self] = mode.changed(observer=observer, watcher=watcher)
        MODE.set(self.modes[observe])

    def resume(self, observe: bool = False) -> None:
        """Wait, or observe, since it is time to; but not in the middle of a step."""
        if HERE.scope is None and not self.step_sites:
            self.attach(observe)

    def detach(self) -> None:
        """Let go of what points back."""
        self.stale = self.waiting.stale = False
        self.modes.clear()
        self.waiting.recorder = None
