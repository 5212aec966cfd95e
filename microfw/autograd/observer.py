"""Observers of the engine: `Observer` is notified of ops, `StepTimer` of the phases of training."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.autograd.graph import Node
from microfw.autograd.phases import OTHER
from microfw.autograd.scope import Scope
from microfw.autograd.types import Gradient, Op
from microfw.errors import refuse_former

FORMER = {
    "read": "on_value_read",
    "follow": "on_replayed_ops",
    "bound": "last_sequence",
    "follows": "supports_replay",
    "collects": "wants_grad_inputs",
    "batches": "batches_visits",
    "walked": "on_visits",
}
"""Former names of what an observer defines, with the present ones. A method with a former name is never called."""


class Observer:
    """Notified of every op as it runs, and of every node as its derivative rule runs. Override what you need.

    ``start_ns``: start of the op or the rule, nanoseconds of ``time.perf_counter_ns``.
    """

    enabled: bool = True
    """If False, the observer is not notified. May change at the end of a step."""

    wants_grad_inputs: bool = False
    """If True, `backward` gets the gradients of the inputs; else None."""

    batches_visits: bool = False
    """If True, `on_visits` is called for many nodes at once, in place of `backward` for each."""

    supports_replay: bool = False
    """Whether a step may be replayed while it is attached. Of a replayed step only `on_replayed_ops` is notified."""

    def __init_subclass__(cls) -> None:
        refuse_former(cls.__name__, vars(cls).keys() & FORMER.keys(), **FORMER)

    def forward(
        self,
        op: Op,
        node: Node | None,
        inputs: tuple[Any, ...],
        params: dict[str, Any],
        output: np.ndarray[Any, Any],
        start_ns: int,
    ) -> None:
        """Notify of an op that has run; ``node`` is None if nothing was recorded."""

    def on_value_read(self, how: str = "reads") -> None:
        """Notify that code reads the values of a Tensor.

        ``how`` is "assigns" if it assigns those of one that is not trained, "checks" if `detect_anomaly` checks each.
        """

    def on_copy(self, array: np.ndarray[Any, Any], copied: np.ndarray[Any, Any]) -> None:
        """Notify that the values of a leaf are copied by no op, as by ``detach``; here the copy is still writable."""

    def last_sequence(self) -> Any:
        """Return the observer's record of the step that has just run, with its ``op_stats``, one for each node."""

    def constant(
        self, op: Op, inputs: tuple[Any, ...], params: dict[str, Any], output: np.ndarray[Any, Any], scope: Scope | None
    ) -> Any:
        """Return the observer's record of an op that has run without a node, or None."""

    def on_replayed_ops(self, instrumented: Any) -> None:
        """Notify of a replayed step, whose times are in an `InstrumentedPlan`."""

    def before_backward(self, loss: Any, retain: bool = False) -> None:
        """Notify that ``backward`` is about to visit the graph of a Tensor, which stays if ``retain``."""

    def after_backward(self, loss: Any, retain: bool = False) -> None:
        """Notify that ``backward`` has visited the graph of a Tensor; not if a derivative rule or a hook fails."""

    def backward(self, node: Node, gradient: Gradient, grad_inputs: list[Gradient] | None, start_ns: int) -> None:
        """Notify that a node's derivative rule has run, with the gradient of each edge's input."""

    def on_visits(self, times: list[Any]) -> None:
        """Notify that derivative rules have run: ``[node, start_ns, end_ns, node, …]``."""

    def alongside(self, observer: Observer) -> Observer:
        """Return what to notify if another observer is attached while this one is: that one alone."""
        return observer


class StepTimer:
    """Notified as training goes from one phase to the next; see `microfw.autograd.phases`. Override what you need.

    Attributes
    ----------
    enabled : bool
        Whether the step is observed. If False, only evaluations are timed. Changes at the end of a step.
    losses : list or None
        Where replayed steps put their losses.
    """

    enabled: bool = True
    losses: Any = None

    def switch(self, phase: int) -> int:
        """Begin a phase, and return the one that ends."""
        return phase

    def on_module_start(self, recording: bool) -> int | None:
        """Notify that an outermost module is called; return the phase to go back to after it, if any.

        While the timer is not enabled, it is notified of evaluations alone.
        """

    def on_module_error(self) -> None:
        """Notify that an outermost module has raised an error while ops were recorded."""

    def on_backward_start(self, loss: np.ndarray[Any, Any]) -> int:
        """Notify that ``backward`` starts; return what `on_backward_end` gets."""
        return OTHER

    def on_backward_end(self, before: int) -> None:
        """Notify that ``backward`` has ended, or failed; not while the timer is not enabled."""

    def on_update(self, optimizer: Any, start_ns: int) -> None:
        """Notify that an optimizer has updated its parameters in a call that began at ``start_ns``."""

    def on_update_error(self, start_ns: int) -> None:
        """Notify that an update that began at ``start_ns`` has failed."""

    def on_replay(self, start_ns: int, backward_start_ns: int, end_ns: int) -> None:
        """Notify of both passes of a replayed step. The times are 0 if the timer is not enabled."""

    def on_replay_end(self) -> None:
        """Notify that a replayed step has ended."""

    def on_set_up(self, ns: int) -> None:
        """Add nanoseconds that a replayed step took to get ready for this timer: an eager run, and writing code."""

    def on_replayed_step(
        self, start_ns: int, backward_start_ns: int, end_ns: int, update_start_ns: int, update_end_ns: int
    ) -> None:
        """Notify of a whole replayed step: `on_replay`, `on_update` and `on_replay_end` in one call."""
