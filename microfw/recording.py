"""What is being recorded, which module is being called, and who watches.

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

from microfw.errors import ArgumentError, message

if TYPE_CHECKING:
    from microfw.graph import Gradient, Node
    from microfw.op import Op

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
    """Told of every op as it runs, and of every node as it is walked backward. Override what is wanted.

    ``began`` is what ``time.perf_counter_ns()`` said just before.
    """

    collects: bool = False
    """Whether `backward` wants the shares of the gradient; else it gets None."""

    follows: bool = False
    """Whether a step may be replayed, of which it is told by `follow` alone."""

    def forward(
        self,
        op: Op,
        node: Node | None,
        inputs: tuple[Any, ...],
        params: dict[str, Any],
        output: np.ndarray[Any, Any],
        began: int,
    ) -> None:
        """An op has run; ``node`` is None if nothing was recorded."""

    def read(self) -> None:
        """Someone looks at the values of a Tensor."""

    def bound(self) -> Any:
        """Return what it made of the step that was just run, with its ``sites``, one for each node."""

    def constant(
        self, op: Op, inputs: tuple[Any, ...], params: dict[str, Any], output: np.ndarray[Any, Any], scope: Scope | None
    ) -> Any:
        """Return what it made of an op that has run without a node, if anything."""

    def follow(self, timed: Any) -> None:
        """Note that a step was replayed, whose times are in a `Timed` plan."""

    def before_backward(self, loss: Any) -> None:
        """Look at a Tensor before ``backward`` walks its graph."""

    def backward(self, node: Node, gradient: Gradient, shares: list[Gradient] | None, began: int) -> None:
        """A node's derivative rule has run, giving one share of the gradient an edge."""


class Watcher(Protocol):
    """Keeps the time of the stretches of training steps.

    A stretch is noted when it ends, whatever ends it; but a replayed step that is broken off is not. The phases are
    "forward" (the outermost module), "evaluation" (the same, unrecorded), "backward" and "update".

    Attributes
    ----------
    timing : bool
        Whether it keeps the time of training steps; else it is told of them with zeros, and only evaluation is noted.
    stale : bool
        Whether another mode should be in place, as where a block that has ended brought an older one back: then its
        `resume` is called, which sets it.
    stretches : list
        Phase, began, ended, one stretch after the other, in the nanoseconds of ``time.perf_counter_ns``. The engine
        adds them itself, and flat, for calls and tuples take longer; `triples` parts them. Of steps that are replayed,
        and of updates that succeed, it is told by calls.
    backward_ran : bool
        Set to True where ``backward`` begins: the next update is one of a new step.
    losses : list or None
        Where the values that ``backward`` starts from are to be put.
    """

    timing: bool
    stale: bool
    backward_ran: bool
    stretches: list[Any]
    losses: list[np.ndarray[Any, Any]] | None

    def replayed(self, began: int, middle: int, ended: int) -> None:
        """Note a replayed step's forward and backward."""

    def updated(self, began: int, ended: int, optimizer: Any = None) -> None:
        """Note that an optimizer has updated its parameters."""

    def repeated(self) -> None:
        """Note that a step was a replayed one."""

    def stepped(self, began: int, middle: int, ended: int, moved: int, done: int) -> None:
        """Note all of these, of a step that was replayed with its update."""

    def resume(self) -> None:
        """Set the mode that should be in place."""


def triples(stretches: list[Any]) -> Iterator[tuple[str, int, int]]:
    """Part a watcher's stretches: phase, began, ended."""
    each = iter(stretches)
    return zip(each, each, each, strict=True)


class Changes:
    """Counts the changes of models: settings, what is trained, where parameters lie; plans look for new ones."""

    count = 0


changes = Changes()


class Mode:
    """What is recorded, and who watches. Immutable: a change is a new mode in the context variable.

    Attributes
    ----------
    recording : bool
        Whether ops record nodes.
    observer : Observer or None
        Who is told of ops.
    watcher : Watcher or None
        Who keeps time.
    nested : bool
        Whether a derivative is being taken around the code that runs, so that gradients must be Tensors.
    """

    __slots__ = ("nested", "observer", "recording", "watcher")
    recording: bool
    observer: Observer | None
    watcher: Watcher | None
    nested: bool

    def __init__(
        self,
        recording: bool = True,
        observer: Observer | None = None,
        watcher: Watcher | None = None,
        nested: bool = False,
    ) -> None:
        for name, value in zip(self.__slots__, (nested, observer, recording, watcher), strict=True):
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
    """Run a block under a changed mode; the old one comes back however the block ends."""
    token = MODE.set(MODE.get().changed(**changes))
    try:
        yield
    finally:
        MODE.reset(token)
        watcher = MODE.get().watcher
        if watcher is not None and watcher.stale:
            watcher.resume()


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
