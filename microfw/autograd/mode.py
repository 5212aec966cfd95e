"""Gradient mode, current module scope, and the active observers.

None of it leaks: not out of a block that raises, not into another thread, not into another asyncio task. The mode
lives in a context variable, for a block may wait for other tasks; the module being called in a variable of the
thread, which takes half the time: a call never waits.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from threading import local
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from microfw.autograd.phases import OTHER
from microfw.errors import ArgumentError, message

if TYPE_CHECKING:
    from microfw.autograd.graph import Gradient, Node
    from microfw.autograd.op import Op

LATER = CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR


class Scoped(Protocol):
    """A module, as far as scopes need to know it: it lists the modules in it with their paths, itself first."""

    def named_modules(self) -> Iterator[tuple[str, Any]]:
        """Yield every module with its path."""


Scope = tuple[Scoped, "Scope | None"]
"""The module being called, and the scope in which it was called; None for the outermost one."""


def path(scope: Scope | None) -> str:
    """Return the path of a scope's module from the outermost module that was called; "" outside of any module.

    The outermost module has its type's name. So has a module that the outermost one does not hold, after the path of
    the module that called it.
    """
    if scope is None:
        return ""
    module, outer = scope
    kind = type(module).__name__
    if outer is None:
        return kind
    *_, outermost = chain(scope)
    names = {id(part): name for name, part in outermost.named_modules()}
    return names.get(id(module)) or (kind if module is outermost else f"{path(outer)}.{kind}")


def chain(scope: Scope | None) -> Iterator[Scoped]:
    """Yield the modules that are being called, the innermost first."""
    while scope is not None:
        module, scope = scope
        yield module


def place(scope: Scope | None, name: str) -> str:
    """Return how errors name an op: its name after the path of its module."""
    return f"{path(scope)}: {name}" if scope is not None else name


class Observer:
    """Notified of every op as it runs, and of every node as its derivative rule runs. Override what you need.

    ``began`` is the time before, in nanoseconds of ``time.perf_counter_ns``.
    """

    enabled: bool = True
    """If False, it is not notified. It may change at the end of a step."""

    collects: bool = False
    """Whether `backward` gets the shares of the gradient; else it gets None."""

    batches: bool = False
    """Whether `walked` is notified of many nodes at once, and not `backward` of each."""

    follows: bool = False
    """Whether a step may be replayed, of which `follow` alone is notified."""

    def forward(
        self,
        op: Op,
        node: Node | None,
        inputs: tuple[Any, ...],
        params: dict[str, Any],
        output: np.ndarray[Any, Any],
        began: int,
    ) -> None:
        """Notify of an op that has run; ``node`` is None if nothing was recorded."""

    def read(self) -> None:
        """Notify that the values of a Tensor are read."""

    def bound(self) -> Any:
        """Return the observer's record of the step that has just run, with its ``sites``, one for each node."""

    def constant(
        self, op: Op, inputs: tuple[Any, ...], params: dict[str, Any], output: np.ndarray[Any, Any], scope: Scope | None
    ) -> Any:
        """Return what it made of an op that has run without a node, if anything."""

    def follow(self, timed: Any) -> None:
        """Notify of a replayed step, whose times are in a `Timed` plan."""

    def before_backward(self, loss: Any, retain: bool = False) -> None:
        """Notify that ``backward`` is about to walk the graph of a Tensor, which stays if ``retain``."""

    def backward(self, node: Node, gradient: Gradient, shares: list[Gradient] | None, began: int) -> None:
        """Notify that a node's derivative rule has run, with a share of the gradient for each edge."""

    def walked(self, times: list[Any]) -> None:
        """Notify that derivative rules have run: node, began, ended, one after the other."""

    def alongside(self, observer: Observer) -> Observer:
        """Return what to notify if another observer is attached while this one is: that one alone."""
        return observer


class StepTimer:
    """Notified as training goes from one phase to the next; see `microfw.autograd.phases`. Override what you need.

    Attributes
    ----------
    enabled : bool
        Whether the step is observed. If False, only evaluations are timed. It changes at the end of a step.
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

    def on_update(self, optimizer: Any, began: int) -> None:
        """Notify that an optimizer has updated its parameters, and when it began."""

    def on_update_error(self, began: int) -> None:
        """Notify that an update has failed, and when it began."""

    def on_replay(self, began: int, middle: int, ended: int) -> None:
        """Notify of both passes of a replayed step. The times are 0 if the timer is not enabled."""

    def on_replay_end(self) -> None:
        """Notify that a replayed step has ended."""

    def on_set_up(self, ns: int) -> None:
        """Add nanoseconds that a replayed step took to get ready for this timer: an eager run, and writing code."""

    def on_replayed_step(self, began: int, middle: int, ended: int, updating: int, updated: int) -> None:
        """Notify of a whole replayed step: what `on_replay`, `on_update` and `on_replay_end` would be notified of."""


class Changes:
    """Counts the changes of models: settings, what is trained, where parameters lie; plans look for new ones."""

    count = 0


changes = Changes()


class Mode:
    """What is recorded, and the active observers. Immutable: a change is a new mode in the context variable.

    Attributes
    ----------
    recording : bool
        Whether ops record nodes.
    observer : Observer or None
        Notified of ops.
    timer : StepTimer or None
        Notified of phases.
    nested : bool
        Whether a derivative is being taken around the code that runs, so that gradients must be Tensors.
    recomputing : bool
        Whether a checkpoint runs its function again, as a part of backward.
    """

    __slots__ = ("nested", "observer", "recomputing", "recording", "timer")
    recording: bool
    observer: Observer | None
    timer: StepTimer | None
    nested: bool
    recomputing: bool

    def __init__(
        self,
        recording: bool = True,
        observer: Observer | None = None,
        timer: StepTimer | None = None,
        nested: bool = False,
        recomputing: bool = False,
    ) -> None:
        for name, value in zip(self.__slots__, (nested, observer, recomputing, recording, timer), strict=True):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"Mode: expected no assignment, got one to {name}; use `with recording.mode({name}=...)`")

    def changed(self, **changes: Any) -> Mode:
        """Return a mode with some attributes changed."""
        return Mode(**{name: getattr(self, name) for name in self.__slots__} | changes)


PLAIN = Mode()
MODE: ContextVar[Mode] = ContextVar("microfw.mode", default=PLAIN)


class Here(local):
    """The modules that this thread is calling, as ``HERE.scope``."""

    scope: Scope | None = None


HERE = Here()


@contextlib.contextmanager
def mode(**changes: Any) -> Iterator[None]:
    """Run a block under a changed mode; the old mode and module scope come back however the block ends."""
    token, scope = MODE.set(MODE.get().changed(**changes)), HERE.scope
    try:
        yield
    finally:
        MODE.reset(token)
        HERE.scope = scope  # Ctrl-C may have come where a module was about to restore it


@contextlib.contextmanager
def phase(number: int) -> Iterator[None]:
    """Run a block in a phase of `microfw.autograd.phases`, then return to the phase before."""
    timer = MODE.get().timer
    if timer is None:
        yield
        return
    before = timer.switch(number)
    try:
        yield
    finally:
        timer.switch(before)


class no_grad(contextlib.ContextDecorator):
    """Compute without recording: nothing inside needs a gradient. A block, or a decorator.

    Examples
    --------
    >>> import microfw as mf
    >>> x = mf.tensor(2.0, requires_grad=True)
    >>> with mf.no_grad():
    ...     y = x * x
    >>> y.requires_grad
    False
    """

    def __new__(cls, function: Any = None) -> Any:
        """Make a block, or decorate a function without the parentheses."""
        made = super().__new__(cls)
        return made if function is None else made(function)

    def __call__(self, function: Any) -> Any:
        """Decorate a function: what it computes when it is called is not recorded."""
        flags = getattr(getattr(function, "__code__", None), "co_flags", 0)
        if isinstance(function, type) or not callable(function) or flags & LATER:
            expected = "a function that computes when it is called"
            got = "a coroutine or generator" if flags & LATER else repr(function)
            raise ArgumentError(message("no_grad", expected, got, "write `with no_grad():` inside"))
        return super().__call__(function)

    def __enter__(self) -> None:
        self._mode = mode(recording=False)
        self._mode.__enter__()

    def __exit__(self, *exc: Any) -> None:
        self._mode.__exit__(*exc)

    def _recreate_cm(self) -> Any:
        return no_grad()
