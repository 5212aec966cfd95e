"""Values that a step's function may depend on: which ones never change, and when two are the same."""

from __future__ import annotations

import dis
import random
import re
import sys
from datetime import date, time, timedelta, tzinfo
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from pathlib import PurePath
from struct import calcsize
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
from typing import Any, NamedTuple

import numpy as np

from microfw.nn.module import Module

ATOMS = (
    bool, int, float, complex, str, bytes, type(None), type(Ellipsis), type(NotImplemented), np.generic, np.dtype,
    range, slice, Decimal, Fraction, date, time, timedelta, tzinfo, re.Pattern, PurePath, CodeType,
)  # fmt: skip
"""Types whose values never change; two values are the same if type and value are. Subclasses may have attributes."""

INERT = (
    np.ufunc, type(np.vdot), type(np.random.default_rng), BuiltinFunctionType,
    ClassMethodDescriptorType, GetSetDescriptorType, MemberDescriptorType, MethodDescriptorType, MethodWrapperType,
    WrapperDescriptorType,
)  # fmt: skip
"""Objects without a state that a step could depend on, but for what they are bound to: functions in C."""

GENERATORS = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
"""Their states are compared after a step, see `verification`."""

LIBRARIES = frozenset({*sys.stdlib_module_names, "numpy", "scipy", "pandas", "sklearn", "microfw"}) - {"__main__"}
"""Packages whose code is taken as it is: only objects and settings that it is given are looked at."""

OWN = ("microfw.replay.", "microfw.profiler.", "microfw.law.")
"""Notes on what has run; a step does not depend on them."""

DYNAMIC = frozenset({"getattr", "vars", "__dict__", "locals", "attrgetter", "methodcaller", "__getattribute__"})
"""Code that names one of these may read any attribute."""

CACHES = ("_named", "_scopes", "training")
"""What modules keep of the names of their parts; ``training`` may be the class's, and is noted apart."""

CONSTRUCTION = ("__new__", "__init__", "__post_init__", "__init_subclass__")
"""Methods that run where code calls the class."""

FORMATTING = frozenset({"__repr__", "__str__", "__format__"})
"""Methods that run where code makes a text of an object."""

POINTER = calcsize("P")


class Everything(frozenset[str]):
    """All names; those that code was found to use are the elements."""

    def __contains__(self, name: object) -> bool:
        return True


class Noted(tuple[Any, ...]):
    """A copy of what was found in an object, such as a dict's keys; two are the same if they are equal."""

    __slots__ = ()


class Path:
    """Where a value is, to be put into words only if somebody asks."""

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
    """Return True if two noted values are the same: the same object, or of one type and equal to the last bit."""
    if a is b:
        return True
    if type(a) is not type(b):
        return False
    if type(a) is Noted:
        return bool(a == b)
    if type(a) is tuple and len(a) == 3 and type(a[2]) is bytes:  # an array's shape, dtype and content
        return bool(a == b)
    if isinstance(a, tuple) and len(a) == 2 and type(a[0]) is bool:
        return bool(a == b)
    if isinstance(a, float | complex | np.inexact):
        return repr(a) == repr(b)  # so that -0.0 is not 0.0, and NaN is NaN
    return isinstance(a, ATOMS) and bool(a == b)


def is_library(kind: type) -> bool:
    """Return True for a class whose code, which is not looked at, may read any attribute."""
    return kind not in (object, Module) and kind.__module__.partition(".")[0] in LIBRARIES


def in_library(kind: Any) -> bool:
    """Return True for a class or function of a package whose code is taken as it is."""
    return (getattr(kind, "__module__", None) or "").partition(".")[0] in LIBRARIES


def hides_state(kind: type) -> bool:
    """Return True if objects of a class have fields that are neither attributes nor slots, as those made in C have."""
    slots = [name for name in slots_of(kind) if name not in ("__dict__", "__weakref__")]
    fields = len(slots) + (kind.__dictoffset__ > 0) + (kind.__weakrefoffset__ > 0)
    return bool(kind.__itemsize__) or kind.__basicsize__ > object.__basicsize__ + POINTER * fields


def is_locked(array: Any) -> bool:
    """Return True if nobody can write to an array."""
    while isinstance(array, np.ndarray):
        if array.flags.writeable:
            return False
        array = array.base
    return array is None or isinstance(array, bytes)


def slots_of(kind: type) -> list[str]:
    """Return the names of the slots of a class and its bases."""
    found: list[str] = []
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        found += [slots] if isinstance(slots, str) else list(slots)
    return found


class CodeNames(NamedTuple):
    """The global variables that code reads, the modules that it imports, the attributes that it may read."""

    variables: tuple[str, ...]
    imports: tuple[str, ...]
    attributes: frozenset[str]


@lru_cache(maxsize=1024)
def code_names(code: CodeType) -> CodeNames:
    """Return what code names. Strings in the code count as names, for `getattr` and keys."""
    variables: dict[str, None] = {}
    imports: dict[str, None] = {}
    attributes: set[str] = set()
    for instruction in dis.get_instructions(code):
        if "GLOBAL" in instruction.opname or instruction.opname == "LOAD_NAME":
            variables[instruction.argval] = None
        elif instruction.opname == "IMPORT_NAME":
            imports[instruction.argval] = None
        elif instruction.opname.startswith("FORMAT"):
            attributes |= FORMATTING
    attributes.update(name for name in code.co_names if name not in variables or name in DYNAMIC)
    if not {"str", "repr", "format", "print", "ascii"}.isdisjoint(code.co_names):
        attributes |= FORMATTING
    for constant in code.co_consts:
        if isinstance(constant, str):
            attributes.add(constant)
            if "%" in constant:
                attributes |= FORMATTING
            elif "{" in constant:
                attributes.update(re.findall(r"[^\W\d]\w*", constant))  # of str.format
        elif isinstance(constant, CodeType):
            inner = code_names(constant)
            variables.update(dict.fromkeys(inner.variables))
            imports.update(dict.fromkeys(inner.imports))
            attributes |= inner.attributes
        elif isinstance(constant, tuple | frozenset):
            attributes.update(part for part in constant if isinstance(part, str))
    return CodeNames(tuple(variables), tuple(imports), frozenset(attributes))
