"""Guards for classes: the attributes that code names, special methods, and `forward` of layers."""

from __future__ import annotations

from struct import calcsize
from typing import Any

from microfw.replay.code import FORMATTING, Code
from microfw.replay.contents import Path, in_library, is_library

CONSTRUCTION = ("__new__", "__init__", "__post_init__", "__init_subclass__")
"""Methods that run when a class is called."""

EXPLICIT = frozenset({"__dict__", "__weakref__", *CONSTRUCTION, *FORMATTING})
"""Special names of a class that run no code when an operator or a builtin is used, or that are handled elsewhere."""

POINTER = calcsize("P")


class Classes(Code):
    """Values, and their classes; the base of `Dependencies`."""

    def _named_class(self, kind: Any, path: Path) -> None:
        """Inspect a class that code may call."""
        self._type(kind, path)
        self._name_of_builtin(kind)
        for base in kind.__mro__:
            for name in CONSTRUCTION if not in_library(base) else ():
                if name in vars(base):
                    self._slot(f"{self._vars(base)}.get({name!r})", vars(base)[name], Path(path, f".{name}"))

    def _type(self, kind: Any, path: Path) -> None:
        """Inspect the class of an object, and its metaclass."""
        while kind not in self._types and kind is not type:
            self._types.add(kind)
            self._todo.append((kind, path, self._class))
            kind = type(kind)

    def _vars(self, kind: type) -> str:
        """Return the name in guards of a class's attributes."""
        name = f"{self._name(kind)}_vars"  # not by id: vars(kind) is a new view at each call
        self.objects.setdefault(name, vars(kind))
        return name

    def _class(self, kind: Any, path: Path) -> None:
        # Code of a library, such as a base class, may read any attribute; code of the user reads those that it names.
        every = any(is_library(base) for base in kind.__mro__)
        for base in kind.__mro__:
            if in_library(base):
                continue
            self.guards.append(f"len({self._vars(base)}) == {len(vars(base))}")
            for name, value in list(vars(base).items()):
                dunder, named = name.startswith("__"), frozenset.__contains__(self.names, name)
                special = dunder and name not in EXPLICIT and (callable(value) or hasattr(type(value), "__get__"))
                if named or special or (not dunder and (every or name in self.names)):
                    self._slot(f"{self._vars(base)}.get({name!r})", value, Path(path, f".{name}"))
                if named and name == "__match_args__":
                    self.found.update(value)

    def _library_class(self, kind: type, path: Path) -> None:
        """Inspect ``forward`` of a layer of this library, which users may have replaced."""
        base = next(base for base in kind.__mro__ if "forward" in vars(base))
        forward = vars(base)["forward"]
        if base in self._types:
            return
        self._types.add(base)
        if in_library(forward):
            # not from vars(base), in which a name takes twice the time, 70 ns; for a function the value is the same
            self._same(f"{self._name(base)}.forward", base.forward, path)  # type: ignore[attr-defined]
        else:
            self._slot(f"{self._vars(base)}.get('forward')", forward, Path(path, ".forward"))


def hides_state(kind: type) -> bool:
    """Return True if objects of a class have fields that are neither attributes nor slots, as classes in C do."""
    slots = [name for name in slots_of(kind) if name not in ("__dict__", "__weakref__")]
    fields = len(slots) + (kind.__dictoffset__ > 0) + (kind.__weakrefoffset__ > 0)
    return bool(kind.__itemsize__) or kind.__basicsize__ > object.__basicsize__ + POINTER * fields


def slots_of(kind: type) -> list[str]:
    """Return the names of the slots of a class and its bases, as code names them."""
    found: list[str] = []
    for base in kind.__mro__:
        slots, holder = vars(base).get("__slots__", ()), base.__name__.lstrip("_")
        for name in [slots] if isinstance(slots, str) else slots:
            is_private = holder and name.startswith("__") and not name.endswith("__")
            found.append(f"_{holder}{name}" if is_private else name)
    return found
