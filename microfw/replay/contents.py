"""Guards for values, and for the contents of arrays and containers."""

from __future__ import annotations

import pathlib
from collections import defaultdict, deque
from collections.abc import Callable
from math import isnan
from typing import Any

import numpy as np

from microfw.replay.outside import reads_outside
from microfw.replay.values import ATOMS, INERT, Noted, Path, in_library, is_locked

MAX_GUARDS = 2048
"""Guards of one plan. A guard takes about 25 ns at each step, so these take 50 us."""

MAX_BYTES = 1 << 17
"""Bytes of arrays that are compared at each step, which takes about 15 us."""

MAX_VISITS = 20_000

CONTAINERS = (dict, list, tuple, set, frozenset, deque)

LONG = 16
"""Containers with more elements are compared by the ids of all elements in one expression."""


class Contents:
    """Values with guards that they have not changed; the base of `Dependencies`."""

    values: list[tuple[Any, Path]]
    guards: list[str]
    objects: dict[str, Any]
    problem: str
    _names: dict[int, str]
    _seen: dict[int, Any]
    _kept: list[Any]
    _bytes: int
    _todo: list[tuple[Any, Path, Callable[[Any, Path], None]]]

    def _inspector_of(self, value: Any) -> Callable[[Any, Path], None]:
        """Return the method that inspects a value."""
        raise NotImplementedError

    def _own_kind(self, x: Any, path: Path) -> None:
        """Inspect the attributes and the class of an object that is also a number, an array or a container."""
        raise NotImplementedError

    def _refuse(self, path: Path, why: str) -> None:
        self.problem = self.problem or f"it depends on {path}, {why}"

    def _name(self, value: Any) -> str:
        """Return the name of an object in guards."""
        name = self._names.get(id(value))
        if name is None:
            name = self._names[id(value)] = f"dep{len(self._names)}"
            self.objects[name] = value
        return name

    def _slot(self, text: str, value: Any, path: Path) -> None:
        """Add a guard that an expression gives a value, and inspect the value."""
        name = self._name(value)
        kind = type(value)
        test = f"{text} is {name}"
        if kind in (bool, int, str, bytes) or (kind is float and value and not isnan(value)):
            test = f"({test} or type({text}) is {kind.__name__} and {text} == {name})"
        self.guards.append(test)
        self._visit(value, path)

    def _visit(self, value: Any, path: Path) -> None:
        """Record a value, and schedule its inspection."""
        kind = type(value)
        if isinstance(value, ATOMS) and in_library(kind) and not isinstance(value, pathlib.Path | np.void):
            self.values.append((value, path))
            return
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if reads_outside(value):
            self._refuse(path, "whose result may be another each time; pass what it gives as an argument")
        if isinstance(value, np.ndarray | np.void):  # a record, np.void, can be written to
            self._array(value, path)
            if kind not in (np.ndarray, np.memmap, np.void):
                self._todo.append((value, path, self._own_kind))
            return
        self.values.append((value, path))
        if not isinstance(value, INERT) or getattr(value, "__self__", None) is not None:
            self._todo.append((value, path, self._inspector_of(value)))
            if isinstance(value, CONTAINERS) and not in_library(kind):
                self._todo.append((value, path, self._own_kind))

    def _array(self, array: Any, path: Path) -> None:
        if is_locked(array):
            self.values.append((array, path))
            return
        self._bytes += array.nbytes
        if array.dtype.hasobject:
            self._refuse(path, "an array of objects; make it an array of numbers")
        elif self._bytes > MAX_BYTES:
            size = f"an array of {array.size:,} entries that may change, too large to compare at each step"
            self._refuse(
                path, f"{size}; make it a Tensor, pass it as an argument, or lock it with setflags(write=False)"
            )
        else:
            content = array.tobytes()
            self.values.append(((array.shape, array.dtype, content), path))
            self.guards.append(f"{self._name(array)}.tobytes() == {self._name(content)}")

    def _tensor(self, tensor: Any, path: Path) -> None:
        leaf = tensor._leaf  # its changes are counted, and its values are read at each step
        self.values.append((tensor._array if leaf is not None else None, path))
        self.values.append(((tensor._node is None, leaf is not None and bool(leaf.hooks)), path))

    def _dict(self, found: Any, path: Path) -> None:
        name = self._name(found)
        if isinstance(found, defaultdict):
            self._slot(f"{name}.default_factory", found.default_factory, Path(path, ".default_factory"))
        if len(found) > LONG:
            self._long(f"{name}.values()", list(found.values()))
        self._same_copy(f"(*{name},)", found)
        for key, value in found.items():
            step = Path(path, f"[{key!r}]" if isinstance(key, ATOMS) else f"[{type(key).__name__}]")
            self._visit(key, step)
            if len(found) > LONG:
                self._visit(value, step)
            else:
                self._slot(f"{name}.get({repr(key) if type(key) in (str, int) else self._name(key)})", value, step)

    def _same_copy(self, text: str, found: Any) -> None:
        """Add a guard that an expression gives a tuple of the same elements."""
        self.guards.append(f"{text} == {self._name(Noted(found))}")

    def _list(self, found: Any, path: Path) -> None:
        name = self._name(found)
        self.guards.append(f"len({name}) == {len(found)}")
        if len(found) > LONG:
            self._long(name, list(found))
        for k, value in enumerate(found):
            if len(found) > LONG:
                self._visit(value, Path(path, f"[{k}]"))
            else:
                self._slot(f"{name}[{k}]", value, Path(path, f"[{k}]"))

    def _long(self, text: str, values: list[Any]) -> None:
        self._kept.append(values)  # so that no id is used twice
        self._same_copy(f"(*map(id, {text}),)", map(id, values))

    def _tuple(self, found: Any, path: Path) -> None:
        ordered = found if isinstance(found, tuple) else sorted(found, key=repr)
        for k, value in enumerate(ordered):
            self._visit(value, Path(path, f"[{k}]"))

    def _set(self, found: Any, path: Path) -> None:
        copy = frozenset(found)
        self.guards.append(f"{self._name(found)} == {self._name(copy)}")
        self._tuple(copy, path)
