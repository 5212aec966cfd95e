"""The module that is being called, and the names that errors and reports give to it."""

from __future__ import annotations

from collections.abc import Iterator
from threading import local

from microfw.autograd.types import ScopedModule

Scope = tuple[ScopedModule, "Scope | None"]
"""The module being called, and the scope in which it was called; None for the outermost one."""


class ThreadScope(local):
    """The modules that this thread is calling, as ``THREAD_SCOPE.scope``."""

    # A variable of the thread: half the time of a context variable. A call never waits for another task.
    scope: Scope | None = None

    def __reduce__(self) -> str:
        return "THREAD_SCOPE"  # that of the process that loads: cloudpickle sends a forward method with its globals


THREAD_SCOPE = ThreadScope()


def path(scope: Scope | None) -> str:
    """Return the path of a scope's module from the outermost module that was called; "" outside of any module.

    The outermost module has its type's name. So has a module that the outermost one does not contain, after the path of
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


def chain(scope: Scope | None) -> Iterator[ScopedModule]:
    """Yield the modules that are being called, the innermost first."""
    while scope is not None:
        module, scope = scope
        yield module


def title(scope: Scope) -> str:
    """Return how errors name a scope's module: its path and its type."""
    name, kind = path(scope), type(scope[0]).__name__
    return f"{name} {kind}" if name != kind else kind


def location(scope: Scope | None, name: str) -> str:
    """Return how errors name an op: after the path and the type of the module that applies it."""
    return f"{title(scope)}: {name}" if scope is not None else name
