"""Those who stand in for a recorder: while steps go by unobserved, where a checkpoint runs again, where a walk is none.

They are written for speed, as it is.
"""

from __future__ import annotations

from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from microfw.graph import Leaf, Node
from microfw.profiler.sites import add_constant
from microfw.recording import Observer

if TYPE_CHECKING:
    from microfw.profiler.recorder import Recorder

STRIDE = 256
"""After how many steps it is looked at whether stretches should be added up."""


class Waiting:
    """Watches while steps are not observed: it counts them, and keeps the time of evaluation alone."""

    timing = False
    stale = False

    def __init__(self, recorder: Recorder) -> None:
        self.recorder: Recorder | None = recorder
        self.stretches, self.losses = recorder.stretches, recorder.losses
        self.count = self.seen = 0  # steps, and those of earlier epochs
        self.due = self.until = self.began = 0  # when to look up, and to observe again; and when this waiting began
        self.backward_ran = False
        self.optimizer: Any = None
        self.repeats = 0

    def replayed(self, began: int, middle: int, ended: int) -> None:
        """Note nothing of it but that it was."""
        self.backward_ran = True

    def updated(self, began: int, ended: int, optimizer: Any = None) -> None:
        """Count a step at its first update, and have the next one observed if it is its turn."""
        if not self.backward_ran and optimizer is not self.optimizer and self.recorder is not None:
            if self.count == self.began:  # the rest of the step that was observed
                if self.stretches:
                    self.stretches += ("update", began, ended, "waits", ended, ended)
                else:
                    self.recorder.log.update_ns += ended - began
            return
        self.backward_ran, self.optimizer = False, optimizer
        self.count += 1
        if self.count >= self.due:
            self._look_up()

    def repeated(self) -> None:
        """Count a replay."""
        self.repeats += 1

    def stepped(self, began: int, middle: int, ended: int, moved: int, done: int) -> None:
        """Do both."""
        self.repeats += 1
        self.count += 1
        if self.count >= self.due:
            self._look_up()

    def start(self, steps: int, optimizer: Any) -> None:
        """Let so many steps go by after one that was observed, which an optimizer was the first to update."""
        self.began, self.backward_ran, self.optimizer = self.count, False, optimizer
        self.wait(steps)

    def wait(self, steps: int) -> None:
        """Let so many steps go by."""
        self.until = self.count + steps
        self.due = min(self.until, self.count + STRIDE)

    def _look_up(self) -> None:
        if self.recorder is None:  # a context outlives its profiler
            self.stretches.clear()
            if self.losses:
                self.losses.clear()
        elif self.count >= self.until:
            self.recorder.observe()
        else:
            self.recorder.make_room()
            self.wait(self.until - self.count)

    def resume(self) -> None:
        """Observe, since it is time to."""
        if self.recorder is not None:
            self.recorder.resume(observe=True)


class Again(Observer):
    """Told of the ops that a checkpoint runs again: their time is part of backward."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def forward(
        self, op: Any, node: Node | None, inputs: tuple[Any, ...], params: dict[str, Any], output: Any, began: int
    ) -> None:
        """Add an op's time to its site's backward."""
        ended = perf_counter_ns()
        if node is None:
            add_constant(self.recorder, op, inputs, params, output, ended - began, again=True)
        else:
            leaves = tuple([isinstance(parent, Leaf) for parent in node.parents or ()])
            node._note = site = self.recorder.site(op, node, inputs, params, leaves)
            site.backward_ns += ended - began
            site.again += 1

    def backward(self, node: Node, gradient: Any, shares: Any, began: int) -> None:
        """Do as the recorder does."""
        self.recorder.backward(node, gradient, shares, began)


class Aside(Observer):
    """Told of the ops that run while `mf.grad` or the like walks a graph; what it walks is no step's backward."""

    def __init__(self, recorder: Recorder) -> None:
        self.forward = recorder.forward  # type: ignore[method-assign]
