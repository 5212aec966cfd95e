"""Gradient mode, and the active observers.

The mode is restored when a block raises, and is private to each thread and asyncio task.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE, CO_GENERATOR
from typing import Any

from microfw.autograd.observer import Observer, StepTimer
from microfw.autograd.scope import THREAD_SCOPE
from microfw.errors import ArgumentError

DEFERRED_CODE = CO_GENERATOR | CO_COROUTINE | CO_ASYNC_GENERATOR


class ModelVersion:
    """Counts changes of any model: settings, what is trained, where parameters are. Replay plans compare the count."""

    count = 0


model_version = ModelVersion()


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
        raise AttributeError(f"Mode: expected no assignment, got one to {name}; use `with mode({name}=...)`")

    def changed(self, **changes: Any) -> Mode:
        """Return a mode with some attributes changed."""
        return Mode(**{name: getattr(self, name) for name in self.__slots__} | changes)


PLAIN = Mode()
MODE: ContextVar[Mode] = ContextVar("microfw.mode", default=PLAIN)


class mode:
    """A block under a changed mode. The old mode and module scope come back however the block ends."""

    # No generator: a Ctrl-C just after its yield would leave it, to reset the mode when it is collected, much later.

    __slots__ = ("_changes", "_scope", "_token")

    def __init__(self, **changes: Any) -> None:
        self._changes = changes

    def __enter__(self) -> None:
        before, self._scope = MODE.get(), THREAD_SCOPE.scope
        try:
            self._token = MODE.set(before.changed(**self._changes))
        except BaseException:  # Ctrl-C, with the mode changed and no token to reset it by
            MODE.set(before)
            raise

    def __exit__(self, *error: object) -> None:
        MODE.reset(self._token)
        THREAD_SCOPE.scope = self._scope  # Ctrl-C may have come where a module was about to restore it


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
        if isinstance(function, type) or not callable(function) or flags & DEFERRED_CODE:
            expected = "a function that computes when it is called"
            got = "a coroutine or generator" if flags & DEFERRED_CODE else repr(function)
            raise ArgumentError("no_grad", expected, got, "write `with no_grad():` inside")
        return super().__call__(function)

    _entered: tuple[Any, ...] = ()

    def __enter__(self) -> None:
        before, block = MODE.get(), mode(recording=False)
        try:
            block.__enter__()
            self._entered += (block,)  # a block may be entered in itself
        except BaseException:  # Ctrl-C, as in `mode`
            MODE.set(before)
            raise

    def __exit__(self, *error: object) -> None:
        *rest, block = self._entered
        self._entered = tuple(rest)
        block.__exit__()

    def _recreate_cm(self) -> Any:
        return no_grad()
