"""What a step's function depends on besides its arguments: variables, settings, the contents of containers.

A replay repeats NumPy calls and runs no Python code, so it is right only while everything that the code has read is
unchanged. `Dependencies` finds these values without running the function: it follows variables, the attributes that
the code names, and the elements of containers. The result is guards, Python expressions that each replayed step
evaluates, and a list of values, which is compared with a later list when a guard fails.
"""

from __future__ import annotations

from abc import ABC, get_cache_token
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from enum import Enum
from functools import cached_property, partial
from logging import Logger
from threading import Lock, RLock
from types import BuiltinFunctionType, FunctionType, MappingProxyType, MethodType, MethodWrapperType, ModuleType
from typing import Any
from weakref import ref

import numpy as np

from microfw.autograd.state_discovery import HOLDERS, RECORDS
from microfw.autograd.tensor import Tensor
from microfw.nn.module import Module
from microfw.replay.code import CACHE, DYNAMIC, Code, hides_state, slots_of
from microfw.replay.contents import (
    ATOMS,
    GENERATORS,
    LIBRARIES,
    MAX_GUARDS,
    MAX_VISITS,
    Noted,
    Path,
    is_library,
    same_value,
)

IMPLICIT = frozenset({"forward", "__array_interface__"})
"""Attributes that are read by a call of a Module and by NumPy, under a name that no code of the user has."""

COMPARED_ELSEWHERE = ("_named", "training")
"""Attributes of modules that are not compared with the others: a mark of listed names, and ``training``."""


class Everything(frozenset[str]):
    """A set of names that contains every name; its elements are those found in code."""

    def __contains__(self, name: object) -> bool:
        return True


class Dependencies(Code):
    """The values that a function depends on, as they are now.

    Parameters
    ----------
    f : callable
        The function.
    names : set of str
        Attribute names that its code is known to use, from an earlier inspection.
    unused : list
        Random generators that a step does not draw from: their states are compared.

    Attributes
    ----------
    values : list of (value, Path)
        In a fixed order, which is the same as long as all values are.
    guards : list of str
        Guards: expressions that are true as long as no value has changed, values of Modules apart.
    objects : dict
        Objects by their names in the guards.
    tensors : list of Tensor
        Leaves among the values.
    generators : list
        Random generators among the values.
    layer_generators : list
        Random generators of this library's layers, from which only ops draw.
    problem : str
        What cannot be compared; "" if everything can.
    """

    def __init__(self, f: Any, names: frozenset[str] = IMPLICIT, unused: Sequence[Any] = ()) -> None:
        self.f, self.names, self.unused = f, names, unused
        self._inspect_all()
        while not self.problem and not self.attribute_names <= self.names:  # code found since reads more attributes
            names = self.names | self.attribute_names
            self.names = Everything(names) if names & DYNAMIC else names
            self._inspect_all()

    def recompute(self) -> Dependencies:
        """Return what the function depends on now."""
        return Dependencies(self.f, self.names, self.unused)

    def difference(self, other: Dependencies) -> str | None:
        """Return the path of the first value that differs from another inspection's; None if all are the same."""
        for (a, path), (b, _) in zip(self.values, other.values, strict=False):
            if not same_value(a, b):
                return str(path)
        if len(self.values) != len(other.values):
            longer = max(self.values, other.values, key=len)
            return str(longer[min(len(self.values), len(other.values))][1])
        return None

    def has_same_guards(self, other: Dependencies) -> bool:
        """Return True if another inspection has made the same guards of the same objects."""
        if self.guards != other.guards or self.objects.keys() != other.objects.keys():
            return False
        # A mappingproxy is a new object at each ``vars(kind)``; the class itself is among the objects.
        pairs = (
            (value, other.objects[name]) for name, value in self.objects.items() if type(value) is not MappingProxyType
        )
        return all(a is b or (type(a) is type(b) and type(a) in (bytes, Noted) and a == b) for a, b in pairs)

    # The walk

    def _inspect_all(self) -> None:
        """Follow everything that the function can reach."""
        self._clear()
        try:
            self._visit(self.f, Path(None, ""))
            if type(self.f).__module__.startswith("microfw."):  # the call of a loss after a model, in a Trainer
                for name, value in vars(self.f).items():
                    self._visit(value, Path(None, name))
            while self._todo and not self.problem:
                value, path, inspect = self._todo.pop()
                if len(self._seen) > MAX_VISITS or len(self.guards) > MAX_GUARDS:
                    self.problem = f"{path} and what it holds are too many values to compare at each step"
                inspect(value, path)
            for variables, names in self._absent.values():
                self.guards.append(f"{self._name(variables)}.keys().isdisjoint({self._name(Noted(sorted(names)))})")
            for made, path in self._weak:
                if made() is not None and id(made()) not in self._seen:
                    self._refuse(path, "a weak reference to an object that nothing else in the step holds")
        except Exception as error:  # raised by user code, such as a property or __len__
            self.problem = f"it depends on something that cannot be listed ({type(error).__name__}: {error})"

    def _inspector_of(self, value: Any) -> Callable[[Any, Path], None]:
        return next(MethodType(inspect, self) for kinds, inspect in INSPECTORS if isinstance(value, kinds))

    # Objects

    def _namespace(self, module: Any, path: Path) -> None:
        package = module.__name__.partition(".")[0]
        if package == "microfw":
            return
        theirs = package in LIBRARIES
        if not theirs:
            self.guards.append(f"len({self._name(vars(module))}) == {len(vars(module))}")
        for name, value in list(vars(module).items()):
            named = frozenset.__contains__(self.names, name)
            if not (named or (not theirs and (name == "__getattr__" or (name in self.names and name[:2] != "__")))):
                continue
            self._slot(f"{self._name(vars(module))}.get({name!r})", value, Path(path, f".{name}"))

    def _module(self, module: Any, path: Path) -> None:
        bases = [base for base in type(module).__mro__ if base not in (Module, object)]
        theirs = [is_library(base) for base in bases]
        self.values += [(module.training, path), (type(module), path)]
        for name, value in list(vars(module).items()):
            if name in COMPARED_ELSEWHERE:
                continue
            where = Path(path, f".{name}")
            # Layers of this library need no guards: assigning to an attribute of a Module increments
            # `model_version.count`, which a replay compares.
            if all(theirs) and isinstance(value, np.random.Generator):
                self.layer_generators.append(value)
                self.values.append((value, where))
            elif all(theirs):
                self._visit(value, where)
            elif any(theirs) or name in self.names or "children" in self.names or may_hold_parts(value):
                self._slot(f"{self._name(vars(module))}.get({name!r})", value, where)
        if not all(theirs):
            self._slots(module, path)
            self._type(type(module), path)
        else:
            self._library_class(type(module), path)

    def _object(self, x: Any, path: Path) -> None:
        kind = type(x)
        package = kind.__module__.partition(".")[0]
        if package == "microfw":
            if not kind.__module__.startswith(RECORDS) or kind.__name__ in HOLDERS:
                self._library_object(x, path)
            return
        if hides_state(kind):
            self._refuse(path, f"an object ({kind.__name__}) whose content cannot be compared")
            return
        self._own_kind(x, path)

    def _lock(self, lock: Any, path: Path) -> None:
        if frozenset.__contains__(self.names, "locked"):
            self._refuse(path, "a lock, of which it asks whether it is locked")

    def _abstract(self, x: Any, path: Path) -> None:
        # Data of an abstract class, which changes only where a class is registered.
        self._slot(f"{self._name(get_cache_token)}()", get_cache_token(), path)

    def _own_kind(self, x: Any, path: Path) -> None:
        self._same(f"type({self._name(x)})", type(x), path)
        self._attributes(x, path)
        self._type(type(x), path)

    def _exception(self, x: Any, path: Path) -> None:
        self._slot(f"{self._name(x)}.args", x.args, Path(path, ".args"))
        self._own_kind(x, path)

    def _attributes(self, x: Any, path: Path) -> None:
        """Inspect the attributes that code names; all of them if the code of a library may read them."""
        every = type(x) is not FunctionType and any(is_library(base) for base in type(x).__mro__)
        attributes = getattr(x, "__dict__", None)
        if attributes is not None:
            name = self._name(attributes)
            self.guards.append(f"{self._name(x)}.__dict__ is {name} and len({name}) == {len(attributes)}")
            for key, value in list(attributes.items()):
                if every or key in self.names:
                    self._slot(f"{name}.get({key!r})", value, Path(path, f".{key}"))
        self._slots(x, path, every)

    def _slots(self, x: Any, path: Path, every: bool = False) -> None:
        for key in slots_of(type(x)):
            if (every or key in self.names) and key not in ("__dict__", "__weakref__"):
                text = f"getattr({self._name(x)}, {key!r}, None)"
                self._slot(text, getattr(x, key, None), Path(path, f".{key}"))

    def _library_object(self, x: Any, path: Path) -> None:
        """Inspect attributes of this library's objects that code names, such as an optimizer's ``lr``.

        Of an object that is indexed or called, such as an optimizer's group, all attributes.
        """
        own = getattr(x, "__dict__", {})
        named = frozenset(self.names) & {*dir(type(x)), *own}
        whole = hasattr(type(x), "__getitem__") or callable(x)
        for name in sorted({*named, *own} if whole else named):
            try:
                value = getattr(x, name)
            except Exception:
                continue
            if isinstance(value, ATOMS):
                self._slot(f"{self._name(x)}.{name}", value, Path(path, f".{name}"))
            elif callable(value) and not isinstance(value, Module):
                continue
            elif value is getattr(x, name):  # no property that makes an object
                self._slot(f"{self._name(x)}.{name}", value, Path(path, f".{name}"))
            else:
                self._visit(value, Path(path, f".{name}"))


def may_hold_parts(value: Any) -> bool:
    """Return True for what `Module.named_modules` and `Module.parameters` find: parts, and containers with parts.

    Also for an empty container, to which parts may be added. Other containers, such as lists of numbers that a hook
    notes, are left out: they may change at each step.
    """
    if not isinstance(value, list | tuple | dict):
        return isinstance(value, Module | Tensor)
    return not value or any(map(may_hold_parts, value.values() if isinstance(value, dict) else value))


INSPECTORS: tuple[tuple[Any, Callable[[Dependencies, Any, Path], None]], ...] = (
    (Tensor, Dependencies._tensor),
    (GENERATORS, Dependencies._generator),
    (Module, Dependencies._module),
    (dict, Dependencies._dict),
    (list | deque, Dependencies._list),
    (tuple, Dependencies._tuple),
    (set, Dependencies._set),
    (frozenset, Dependencies._tuple),
    (FunctionType, Dependencies._function),
    (MethodType, Dependencies._method),
    (BuiltinFunctionType | MethodWrapperType, Dependencies._builtin),
    (partial, Dependencies._partial),
    (staticmethod | classmethod, Dependencies._wrapper),
    (property, Dependencies._property),
    (cached_property, Dependencies._cached_property),
    (ref, Dependencies._reference),
    (ContextVar, Dependencies._context_variable),
    (type, Dependencies._named_class),
    ((*ATOMS, Enum), Dependencies._own_kind),
    (ModuleType, Dependencies._namespace),
    (CACHE, Dependencies._cache),
    (Logger, Dependencies._logger),
    (BaseException, Dependencies._exception),
    (Iterator, Dependencies._iterator),
    ((type(Lock()), type(RLock())), Dependencies._lock),
    (type(vars(ABC)["_abc_impl"]), Dependencies._abstract),
    (object, Dependencies._object),
)
"""The method that inspects a value: that of the first row with the value's type."""
