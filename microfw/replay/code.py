"""Guards for functions and classes: the variables, modules, attributes and methods that code names or runs."""

from __future__ import annotations

import builtins
import dis
import functools
import re
import sys
from contextvars import Context
from dataclasses import asdict, astuple
from struct import calcsize
from types import CodeType, ModuleType
from typing import Any, NamedTuple

from microfw.autograd.op import Op
from microfw.replay.contents import LIBRARIES, Contents, Noted, Path, in_library, is_library

DYNAMIC = frozenset((
    "getattr", "vars", "__dict__", "locals", "attrgetter", "methodcaller", "__getattribute__", "__getstate__",
    "__reduce__", "__reduce_ex__",
))  # fmt: skip
"""Names with which code may read any attribute."""

FORMATTING = frozenset({"__repr__", "__str__", "__format__"})
"""Methods that run when an object is turned into text."""

NAMED_BY: dict[Any, frozenset[str]] = {
    **dict.fromkeys((repr, str, format, print, ascii), FORMATTING),
    **dict.fromkeys((getattr, vars, locals, asdict, astuple), frozenset({"getattr"})),
}
"""Names of methods and functions that builtin functions and those of dataclasses use."""

ABSENCE = frozenset({"getattr", "hasattr", "AttributeError", "except"})
"""Names with which code may notice that an attribute is missing; "except" for a block."""

CACHE = type(functools.cache(len))

CONSTRUCTION = ("__new__", "__init__", "__post_init__", "__init_subclass__")
"""Methods that run when a class is called."""

EXPLICIT = frozenset({"__dict__", "__weakref__", *CONSTRUCTION, *FORMATTING})
"""Special names of a class that run no code when an operator or a builtin is used, or that are handled elsewhere."""

POINTER = calcsize("P")


class Code(Contents):
    """Values, what the code among them names, and their classes; the base of `Dependencies`."""

    names: frozenset[str]

    def _attributes(self, x: Any, path: Path) -> None:
        """Inspect an object's attributes."""
        raise NotImplementedError

    def _function(self, f: Any, path: Path) -> None:
        op = f.__dict__.get("op")
        if isinstance(op, Op):  # generated code calls it, which depends only on its declaration
            for part in (op.value, op._rules, *op.aux.values()):
                self._visit(part, path)
            return
        theirs = str(f.__globals__.get("__name__")).partition(".")[0] in LIBRARIES
        code, name = f.__code__, self._name(f)
        for variable, cell in zip(code.co_freevars, f.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            if variable == "__class__":  # of super()
                self._type(value, path)
                continue
            self._slot(
                f"{self._name(cell)}.cell_contents", value, Path(None if path.holder is None else path, f".{variable}")
            )
        for part in ("__defaults__", "__kwdefaults__"):
            if getattr(f, part):
                self._slot(f"{name}.{part}", getattr(f, part), Path(path, f".{part}"))
        if f.__dict__:
            self._attributes(f, path)
        elif not theirs and not ABSENCE.isdisjoint(self.names):
            self.guards.append(f"not {name}.__dict__")
        if theirs:
            self._name_of_builtin(f)
            return
        self._same(f"{name}.__code__", code, path)
        names = code_names(code)
        self.attribute_names |= names.attributes
        for part in ("__name__", "__qualname__", "__doc__", "__module__"):
            if frozenset.__contains__(self.names, part):
                self._slot(f"{name}.{part}", getattr(f, part), Path(path, f".{part}"))
        for variable in names.variables:
            if variable in f.__globals__:
                text = f"{self._name(f.__globals__)}.get({variable!r})"
                self._slot(text, f.__globals__[variable], Path(None, variable))
                continue
            self._absent.setdefault(id(f.__globals__), (f.__globals__, set()))[1].add(variable)
            if hasattr(builtins, variable):
                value = getattr(builtins, variable)
                if id(value) not in self._seen:
                    self._slot(f"{self._name(vars(builtins))}.get({variable!r})", value, Path(None, variable))
        for imported in names.imports:
            package = f.__globals__.get("__package__") or ""
            for full in (imported, f"{package}.{imported}".strip(".")):
                if full in sys.modules:
                    text = f"{self._name(sys.modules)}.get({full!r})"
                    self._slot(text, sys.modules[full], Path(None, full))

    def _method(self, method: Any, path: Path) -> None:
        self._visit(method.__func__, path)
        self._visit(method.__self__, path)

    def _builtin(self, function: Any, path: Path) -> None:
        self._name_of_builtin(function)
        if not isinstance(function.__self__, ModuleType | None):
            self._visit(function.__self__, path)

    def _name_of_builtin(self, function: Any) -> None:
        """Record the names that a builtin such as ``getattr`` or ``repr`` uses, under whichever name it is called."""
        for known, names in NAMED_BY.items():
            if function is known:
                self.attribute_names |= names

    def _partial(self, made: Any, path: Path) -> None:
        for value in (made.func, made.args, made.keywords):
            self._visit(value, path)

    def _wrapper(self, made: Any, path: Path) -> None:
        self._visit(made.__func__, path)

    def _property(self, made: Any, path: Path) -> None:
        self._visit(made.fget, path)

    def _cached_property(self, made: Any, path: Path) -> None:
        self._visit(made.func, path)

    def _reference(self, made: Any, path: Path) -> None:
        if isinstance(made(), type):  # as those in the cache of functools.singledispatch
            self._visit(made(), path)
        else:
            self._weak.append((made, path))

    def _context_variable(self, made: Any, path: Path) -> None:
        try:
            Context().run(made.get)
            default = ""  # the variable has one, which may change, too
        except LookupError:
            default = "None"
        self._slot(f"{self._name(made)}.get({default})", made.get(*[None] * bool(default)), path)

    def _cache(self, made: Any, path: Path) -> None:
        counts = Noted(made.cache_info()[1::2])  # misses and size; hits do not change results
        self.values.append((counts, path))
        self.guards.append(f"{self._name(made)}.cache_info()[1::2] == {self._name(counts)}")
        self._visit(made.__wrapped__, path)

    def _logger(self, made: Any, path: Path) -> None:
        name = self._name(made)
        self._slot(f"{name}.getEffectiveLevel()", made.getEffectiveLevel(), Path(path, ".level"))
        self._slot(f"{name}.disabled", made.disabled, Path(path, ".disabled"))
        self._slot(f"{name}.manager.disable", made.manager.disable, Path(path, ".manager.disable"))

    def _iterator(self, made: Any, path: Path) -> None:
        self._refuse(path, f"an iterator ({type(made).__name__}), whose place cannot be compared; make it a list")

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
                    self.attribute_names.update(value)

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


class CodeNames(NamedTuple):
    """Names in code: global variables read, modules imported, attributes that may be read."""

    variables: tuple[str, ...]
    imports: tuple[str, ...]
    attributes: frozenset[str]


@functools.lru_cache(maxsize=1024)
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
        elif instruction.opcode in dis.hasname:  # co_names has one entry for a name that is a variable, too
            attributes.add(instruction.argval)
        elif instruction.opname == "MATCH_CLASS":
            attributes.add("__match_args__")
    attributes |= (DYNAMIC | ABSENCE).intersection(code.co_names)
    if code.co_exceptiontable:
        attributes.add("except")
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
