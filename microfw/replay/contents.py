"""Guards for values, and for the contents of arrays and containers."""

from __future__ import annotations

import pathlib
import random
import re
import sys
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction
from math import isnan
from types import (
    BuiltinFunctionType,
    ClassMethodDescriptorType,
    CodeType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    MethodWrapperType,
    WrapperDescriptorType,
)
from typing import Any

import numpy as np

from microfw.nn.module import Module
from microfw.replay.outside import MAY_READ, reads_outside
from microfw.replay.verification import Difference, generator_state

ATOMS = (
    bool, int, float, complex, str, bytes, type(None), type(Ellipsis), type(NotImplemented), np.generic, np.dtype,
    range, slice, Decimal, Fraction, date, time, timedelta, tzinfo, re.Pattern, pathlib.PurePath, CodeType,
)  # fmt: skip
"""Immutable types, compared by type and value."""

INERT = (
    np.ufunc, type(np.vdot), type(np.random.default_rng), BuiltinFunctionType,
    ClassMethodDescriptorType, GetSetDescriptorType, MemberDescriptorType, MethodDescriptorType, MethodWrapperType,
    WrapperDescriptorType, type(Difference.where),  # the last: a field of a named tuple
)  # fmt: skip
"""Functions in C: their only state is the object that they are bound to."""

GENERATORS = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
"""Random generators. Their states are compared after a step, see `verification`."""

LIBRARIES = frozenset({*sys.stdlib_module_names, "numpy", "scipy", "pandas", "sklearn", "microfw"}) - {"__main__"}
"""Packages whose code is not inspected, only the objects and settings passed to it."""


class Noted(tuple[Any, ...]):
    """A copy of the content of an object, such as a dict's keys; compared by ``==``."""

    __slots__ = ()


class Path:
    """Where a value was found; the text is made on demand."""

    __slots__ = ("holder", "step")

    def __init__(self, holder: Path | None, step: str) -> None:
        self.holder = holder
        self.step = step

    def __str__(self) -> str:
        steps: list[str] = []
        path: Path | None = self
        while path is not None:
            steps.append(path.step)
            path = path.holder
        return "".join(reversed(steps)).removeprefix(".") or "the function"


def same_value(a: Any, b: Any) -> bool:
    """Return True if two recorded values are the same object, or have one type and equal bits."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if isinstance(a, float | complex | np.inexact):
        return repr(a) == repr(b)  # so that -0.0 is not 0.0, and NaN is NaN
    return isinstance(a, (*ATOMS, Noted)) and bool(a == b)


def is_library(kind: type) -> bool:
    """Return True for a class of a library, whose code is not inspected and may read any attribute."""
    return kind not in (object, Module) and kind.__module__.partition(".")[0] in LIBRARIES


def in_library(kind: Any) -> bool:
    """Return True for a class or function of a package whose code is not inspected."""
    return (getattr(kind, "__module__", None) or "").partition(".")[0] in LIBRARIES


def is_locked(array: Any) -> bool:
    """Return True if neither an array nor any base of it can be written to."""
    while isinstance(array, np.ndarray):
        if array.flags.writeable:
            return False
        array = array.base
    return array is None or isinstance(array, bytes)


# A guard takes about 25 ns at each step, so these take 50 us.
MAX_GUARDS = 2048

# Bytes of arrays that are compared at each step, which takes about 15 us.
MAX_BYTES = 1 << 17

# Objects that are inspected; a walk takes place at each capture.
MAX_VISITS = 20_000

CONTAINERS = (np.ndarray, dict, list, tuple, set, frozenset, deque)

# Containers with more elements are compared by the ids of all elements in one expression: a guard for each element
# would soon reach MAX_GUARDS.
LONG = 16


class Contents:
    """Values with guards that they have not changed; the base of `Dependencies`."""

    unused: Sequence[Any]

    def _clear(self) -> None:
        """Set all attributes to their initial values."""
        self.values: list[tuple[Any, Path]] = []
        self.guards: list[str] = []
        self.objects: dict[str, Any] = {}
        self.tensors: list[Any] = []
        self.generators: list[Any] = []
        self.layer_generators: list[Any] = []
        self.problem = ""
        self._names: dict[int, str] = {}
        self._seen: dict[int, Any] = {}  # holds the objects, so that no id is used twice
        self._todo: list[tuple[Any, Path, Callable[[Any, Path], None]]] = []
        self._bytes = 0  # of arrays that guards compare
        self.attribute_names: set[str] = set()  # in code
        self._types: set[Any] = set()
        self._absent: dict[int, tuple[Any, set[str]]] = {}  # by id, dicts without these keys
        self._weak: list[tuple[Any, Path]] = []

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

    def _same(self, text: str, value: Any, path: Path) -> None:
        """Add a guard that an expression gives an object, which is not inspected."""
        self.values.append((value, path))
        self.guards.append(f"{text} is {self._name(value)}")

    def _slot(self, text: str, value: Any, path: Path) -> None:
        """Add a guard that an expression gives a value, and inspect the value."""
        name = self._name(value)
        kind = type(value)
        test = f"{text} is {name}"
        if kind in (bool, int, str, bytes) or (kind is float and value and not isnan(value)):
            # Code may compute an equal number again at each step, as ``self.k = len(x)`` does. 0.0 is left out: it
            # equals -0.0.
            test = f"({test} or type({text}) is {kind.__name__} and {text} == {name})"
        self.guards.append(test)
        self._visit(value, path)

    def _visit(self, value: Any, path: Path) -> None:
        """Record a value, and schedule its inspection."""
        kind = type(value)
        # A user's subclass of int or str may have attributes, so it is inspected like other objects.
        if isinstance(value, ATOMS) and in_library(kind) and not isinstance(value, pathlib.Path | np.void):
            self.values.append((value, path))
            return
        if id(value) in self._seen:
            return
        self._seen[id(value)] = value
        if isinstance(value, MAY_READ) and reads_outside(value):
            self._refuse(path, "whose result may be another each time; pass what it gives as an argument")
        if isinstance(value, np.ndarray | np.void):  # a record, np.void, can be written to
            self._array(value, path)
        else:
            self.values.append((value, path))
            if not isinstance(value, INERT) or getattr(value, "__self__", None) is not None:
                self._todo.append((value, path, self._inspector_of(value)))
        if isinstance(value, CONTAINERS) and (not in_library(kind) or hasattr(value, "mask")):
            self._todo.append((value, path, self._own_kind))

    def _array(self, array: Any, path: Path) -> None:
        name, layout = self._name(array), Noted((array.shape, array.dtype))
        self.values.append((layout, path))
        self.guards.append(f"{name}.shape == {self._name(layout[0])} and {name}.dtype is {self._name(layout[1])}")
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
            text, content = f"{name}.tobytes()", array.tobytes()
            if isinstance(array, np.ndarray) and hasattr(array, "mask"):  # whose own tobytes hides masked values
                text, content = f"{self._name(np.ndarray.tobytes)}({name})", np.ndarray.tobytes(array)
            self.values.append((Noted((content,)), path))
            self.guards.append(f"{text} == {self._name(content)}")

    def _tensor(self, tensor: Any, path: Path) -> None:
        leaf = tensor._leaf  # its changes are counted, and its values are read at each step
        self.values.append((tensor._array if leaf is not None else None, path))
        self.values.append((Noted((tensor._node is None, leaf is not None and bool(leaf.hooks))), path))
        if leaf is not None:
            self.tensors.append(tensor)

    def _generator(self, generator: Any, path: Path) -> None:
        self.generators.append(generator)
        if any(generator is g for g in self.unused):
            state = generator_state(generator)
            self.values.append((Noted((state,)), path))
            self.guards.append(f"{self._name(generator_state)}({self._name(generator)}) == {self._name(state)}")

    def _dict(self, container: Any, path: Path) -> None:
        name = self._name(container)
        self.values.append((len(container), path))  # before the entries, so that `difference` names this container
        if isinstance(container, defaultdict):
            self._slot(f"{name}.default_factory", container.default_factory, Path(path, ".default_factory"))
        if len(container) > LONG:
            self._long(f"{name}.values()", list(container.values()))
        self._same_copy(f"(*{name},)", container)
        if not all(type(key) is str for key in container):  # 1, 1.0 and True are equal
            self._same_copy(f"(*map(type, {name}),)", map(type, container))
        for key, value in container.items():
            step = Path(path, f"[{key!r}]" if isinstance(key, ATOMS) else f"[{type(key).__name__}]")
            self._visit(key, step)
            if len(container) > LONG:
                self._visit(value, step)
            else:
                self._slot(f"{name}.get({repr(key) if type(key) in (str, int) else self._name(key)})", value, step)

    def _same_copy(self, text: str, container: Any) -> None:
        """Add a guard that an expression gives a tuple of the same elements."""
        self.guards.append(f"{text} == {self._name(Noted(container))}")

    def _list(self, container: Any, path: Path) -> None:
        name = self._name(container)
        self.values.append((len(container), path))
        self.guards.append(f"len({name}) == {len(container)}")
        if len(container) > LONG:
            self._long(name, list(container))
        for k, value in enumerate(container):
            if len(container) > LONG:
                self._visit(value, Path(path, f"[{k}]"))
            else:
                self._slot(f"{name}[{k}]", value, Path(path, f"[{k}]"))

    def _long(self, text: str, values: list[Any]) -> None:
        self._seen[id(values)] = values
        self._same_copy(f"(*map(id, {text}),)", map(id, values))

    def _tuple(self, container: Any, path: Path) -> None:
        # Two equal sets may list their elements in different orders.
        ordered = container if isinstance(container, tuple) else sorted(container, key=repr)
        for k, value in enumerate(ordered):
            self._visit(value, Path(path, f"[{k}]"))

    def _set(self, container: Any, path: Path) -> None:
        self.values.append((len(container), path))
        copy = frozenset((type(x), x) for x in container)  # 1, 1.0 and True are equal
        self.guards.append(f"{{(type(x), x) for x in {self._name(container)}}} == {self._name(copy)}")
        self._tuple(container, path)
