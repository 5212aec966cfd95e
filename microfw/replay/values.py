"""Values that a step's function may depend on: which are immutable, and when two are equal."""

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
"""Immutable types, compared by type and value. Subclasses of them may have attributes."""

INERT = (
    np.ufunc, type(np.vdot), type(np.random.default_rng), BuiltinFunctionType,
    ClassMethodDescriptorType, GetSetDescriptorType, MemberDescriptorType, MethodDescriptorType, MethodWrapperType,
    WrapperDescriptorType,
)  # fmt: skip
"""Functions in C: their only state is the object that they are bound to."""

GENERATORS = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)
"""Random generators. Their states are compared after a step, see `verification`."""

LIBRARIES = frozenset({*sys.stdlib_module_names, "numpy", "scipy", "pandas", "sklearn", "microfw"}) - {"__main__"}
"""Packages whose code is not inspected, only the objects and settings passed to it."""

OWN = ("microfw.replay.", "microfw.profiler.", "microfw.law.")
"""Modules whose objects record what has run; a step does not depend on them."""

DYNAMIC = frozenset((
    "getattr", "vars", "__dict__", "locals", "attrgetter", "methodcaller", "__getattribute__", "__getstate__",
    "__reduce__", "__reduce_ex__",
))  # fmt: skip
"""Names with which code may read any attribute."""

CACHES = ("_named", "_scopes", "training")
"""Attributes of modules that are not compared here: caches of names; ``training`` is compared separately."""

CONSTRUCTION = ("__new__", "__init__", "__post_init__", "__init_subclass__")
"""Methods that run when a class is called."""

FORMATTING = frozenset({"__repr__", "__str__", "__format__"})
"""Methods that run when an object is turned into text."""

POINTER = calcsize("P")


class Everything(frozenset[str]):
    """A set of names that contains every name; its elements are those found in code."""

    def __contains__(self, name: object) -> bool:
        return True


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
    """Return True for a class of a library, whose code is not inspected and may read any attribute."""
    return kind not in (object, Module) and kind.__module__.partition(".")[0] in LIBRARIES


def in_library(kind: Any) -> bool:
    """Return True for a class or function of a package whose code is not inspected."""
    return (getattr(kind, "__module__", None) or "").partition(".")[0] in LIBRARIES


def hides_state(kind: type) -> bool:
    """Return True if objects of a class have fields that are neither attributes nor slots, as classes in C do."""
    slots = [name for name in slots_of(kind) if name not in ("__dict__", "__weakref__")]
    fields = len(slots) + (kind.__dictoffset__ > 0) + (kind.__weakrefoffset__ > 0)
    return bool(kind.__itemsize__) or kind.__basicsize__ > object.__basicsize__ + POINTER * fields


def is_locked(array: Any) -> bool:
    """Return True if neither an array nor any base of it can be written to."""
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
    """Names in code: global variables read, modules imported, attributes that may be read."""

    variables: tuple[str, ...]
    imports: tuple[str, ...]
    attributes: frozenset[str]


@lru_cache(maxsize=1024)
def code_names(code: CodeType) -> CodeNames:
    """Return the names in code. String constants count as attributes, for `getattr` and keys."""
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
