"""The state that a function can reach: random generators and Tensors that a call can read or change."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from microfw.autograd.tensor import Tensor

RECORDS = ("microfw.replay.", "microfw.profiler.", "microfw.law.")
"""Modules whose objects record what has run. No function depends on them, those of `HOLDERS` apart."""

HOLDERS = ("CompiledStep", "Profiler")

SKIPPED = frozenset({*sys.stdlib_module_names, "numpy", "scipy", "pandas", "sklearn"})
"""Packages whose functions and objects are not looked into."""


def find_state(root: Any) -> tuple[list[np.random.Generator], list[Tensor]]:
    """Return the generators and the leaf Tensors that can be reached from an object.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> find_state({"noise": [rng], "size": 0.5})[0] == [rng]
    True
    """
    found = list(iter_reachable(root))
    generators = [x for x in found if isinstance(x, np.random.Generator)]
    return generators, [x for x in found if isinstance(x, Tensor) and x._leaf is not None]


def iter_reachable(root: Any) -> Iterator[Any]:
    """Yield every object that can be reached from one, once.

    It looks into containers, the attributes of objects and of their classes, and what functions refer to:
    closures, defaults, and the globals that they name.
    """
    seen: dict[int, Any] = {}  # keeps what it has seen, so that no id is used twice
    stack = [root]
    while stack:
        x = stack.pop()
        if id(x) in seen or isinstance(x, str | bytes | int | float | np.ndarray | ModuleType | None):
            continue
        seen[id(x)] = x
        yield x
        if not isinstance(x, np.random.Generator | Tensor):
            stack.extend(referents(x))


def referents(x: Any) -> list[Any]:
    """Return what a value refers to."""
    if isinstance(x, dict):
        return [*x.keys(), *x.values()]
    if isinstance(x, list | tuple | set | frozenset):
        return list(x)
    if isinstance(x, partial):
        return [x.func, x.args, x.keywords]
    if isinstance(x, MethodType):
        return [x.__func__, x.__self__]
    if isinstance(x, staticmethod | classmethod):
        return [x.__func__]
    if isinstance(x, property):
        return [x.fget]
    kind = x if isinstance(x, type) else type(x)
    if kind.__module__.startswith(RECORDS) and kind.__name__ not in HOLDERS:
        return []
    if isinstance(x, FunctionType):
        if "tags" in x.__dict__:  # around a module's forward method
            x = x.__dict__["__wrapped__"]
        return _named(x) if not _ours(x.__module__) else []
    held = [] if isinstance(x, type) else _attributes(x) if kind.__module__.partition(".")[0] not in SKIPPED else []
    for base in kind.__mro__:
        if not _ours(base.__module__) and base.__module__.partition(".")[0] not in SKIPPED:
            held.extend(vars(base).values())
    return held


def _ours(module: str | None) -> bool:
    """Whether code is this package's or one's that it need not look into; what its layers draw, they hold."""
    return module is None or module.partition(".")[0] == "microfw" or module.partition(".")[0] in SKIPPED


def _attributes(x: Any) -> list[Any]:
    slots = [name for base in type(x).__mro__ for name in _names(vars(base).get("__slots__", ()))]
    return [*getattr(x, "__dict__", {}).values(), *(getattr(x, name, None) for name in slots)]


def _names(slots: Any) -> list[str]:
    return [slots] if isinstance(slots, str) else list(slots)


def _named(f: FunctionType) -> list[Any]:
    held: list[Any] = [f.__defaults__, f.__kwdefaults__, f.__dict__]
    for cell in f.__closure__ or ():
        try:
            held.append(cell.cell_contents)
        except ValueError:  # not filled yet
            pass
    codes = [f.__code__]
    for code in codes:
        codes.extend(c for c in code.co_consts if isinstance(c, CodeType))
        held.extend(f.__globals__[name] for name in code.co_names if name in f.__globals__)
    return held
