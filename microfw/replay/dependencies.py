"""What a step's function depends on besides its arguments: variables, settings, the contents of containers.

A replay repeats NumPy calls and no Python, so it is right only while all that Python has read is as it was. The
function is not run to find out: `Dependencies` follows its variables, the attributes that its code names, and the
elements of containers, and keeps every value. Two things are made of that: a test in Python source, which a replayed
step evaluates each time, and a list of values to compare with a later one where the test fails.

Layers of this library need no test: assigning to an attribute of a Module counts as a change of the model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import cached_property, partial
from types import BuiltinFunctionType, FunctionType, MethodType, MethodWrapperType, ModuleType
from typing import Any
from weakref import ref

from microfw.nn.module import Module
from microfw.op import Op
from microfw.replay.contents import MAX_TESTS, MAX_VISITS, Contents
from microfw.replay.values import (
    ATOMS,
    CACHES,
    CONSTRUCTION,
    DYNAMIC,
    GENERATORS,
    LIBRARIES,
    OWN,
    Everything,
    Path,
    code_names,
    is_library,
    same_value,
    slots_of,
)
from microfw.tensor import Tensor


class Dependencies(Contents):
    """The values that a function depends on, as they are now.

    Parameters
    ----------
    f : callable
        The function.
    names : set of str
        Attribute names that its code is known to use, as found by an earlier look.

    Attributes
    ----------
    values : list of (value, Path)
        In the order of a walk that is the same as long as all values are.
    tests : list of str
        Expressions, all true as long as no value that can change without notice has changed.
    bound : dict
        What the names in the tests stand for.
    generators : list
        Random generators among the values.
    problem : str
        What cannot be compared, if anything.
    """

    def __init__(self, f: Any, names: frozenset[str] = frozenset({"forward"})) -> None:
        self.f = f
        while True:
            self.names = names
            self.found: set[str] = set()
            self._walk()
            if all(name in names for name in self.found):
                break
            names = Everything() if self.found & DYNAMIC else frozenset(names | self.found)

    def renewed(self) -> Dependencies:
        """Return what the function depends on now."""
        return Dependencies(self.f, self.names)

    def difference(self, other: Dependencies) -> str | None:
        """Return where another look has found another value; None if all are the same."""
        for (a, path), (b, _) in zip(self.values, other.values, strict=False):
            if not same_value(a, b):
                return str(path)
        if len(self.values) != len(other.values):
            longer = max(self.values, other.values, key=len)
            return str(longer[min(len(self.values), len(other.values))][1])
        return None

    @property
    def test(self) -> str:
        """All tests as one expression."""
        return " and ".join(self.tests) or "True"

    def same_tests(self, other: Dependencies) -> bool:
        """Return True if another look has made the same tests of the same objects."""
        if self.tests != other.tests or self.bound.keys() != other.bound.keys():
            return False
        pairs = ((value, other.bound[name]) for name, value in self.bound.items())
        return all(a is b or (type(a) is type(b) is bytes and a == b) for a, b in pairs)

    # The walk

    def _walk(self) -> None:
        self.values: list[tuple[Any, Path]] = []
        self.tests: list[str] = []
        self.bound: dict[str, Any] = {}
        self.problem = ""
        self._names: dict[int, str] = {}
        self._seen: dict[int, Any] = {}  # keeps the objects, so that no id is given twice
        self._kept: list[Any] = []
        self._bytes = 0
        self.generators: list[Any] = []
        self._todo: list[tuple[Any, Path, Callable[[Any, Path], None]]] = []
        self._visit(self.f, Path(None, ""))
        if type(self.f).__module__.startswith("microfw."):  # the call of a loss after a model, in a Trainer
            for name, value in vars(self.f).items():
                self._visit(value, Path(None, name))
        while self._todo and not self.problem:
            value, path, look = self._todo.pop()
            if len(self._seen) > MAX_VISITS or len(self.tests) > MAX_TESTS:
                self.problem = f"{path} and what it holds are too many values to compare at each step"
                break
            look(value, path)

    def _look_of(self, value: Any) -> Callable[[Any, Path], None]:
        for kinds, look in (
            (Tensor, self._tensor),
            (GENERATORS, self._generator),
            (Module, self._module),
            (dict, self._dict),
            (list | deque, self._list),
            (tuple, self._tuple),
            (set, self._set),
            (frozenset, self._tuple),
            (FunctionType, self._function),
            (MethodType, self._method),
            (BuiltinFunctionType | MethodWrapperType, self._builtin),
            (partial, self._partial),
            (staticmethod | classmethod, self._wrapper),
            (property, self._property),
            (cached_property, self._cached_property),
            (ref, self._reference),
            (ContextVar, self._context_variable),
            (type, self._class),
            (ModuleType, self._namespace),
            (Iterator, self._iterator),
        ):
            if isinstance(value, kinds):
                return look
        return self._object

    def _generator(self, generator: Any, path: Path) -> None:
        self.generators.append(generator)

    # Code

    def _function(self, f: Any, path: Path) -> None:
        op = f.__dict__.get("op")
        if isinstance(op, Op):  # called by generated code, which depends on its declaration alone
            for part in (op.value, op._rules, *op.aux.values()):
                self._visit(part, path)
            return
        theirs = (f.__module__ or "").partition(".")[0] in LIBRARIES
        code, name = f.__code__, self._name(f)
        for variable, cell in zip(code.co_freevars, f.__closure__ or (), strict=True):
            try:
                value = cell.cell_contents
            except ValueError:  # not filled yet
                continue
            self._slot(
                f"{self._name(cell)}.cell_contents", value, Path(None if path.holder is None else path, f".{variable}")
            )
        for part in ("__defaults__", "__kwdefaults__"):
            if getattr(f, part):
                self._slot(f"{name}.{part}", getattr(f, part), Path(path, f".{part}"))
        if f.__dict__:
            self._attributes(f, path)
        if theirs:
            return
        self.tests.append(f"{name}.__code__ is {self._name(code)}")
        self.values.append((code, path))
        variables, attributes = code_names(code)
        self.found |= attributes
        for variable in variables:
            if variable in f.__globals__:
                text = f"{self._name(f.__globals__)}.get({variable!r})"
                self._slot(text, f.__globals__[variable], Path(None, variable))

    def _method(self, method: Any, path: Path) -> None:
        self._visit(method.__func__, path)
        self._visit(method.__self__, path)

    def _builtin(self, function: Any, path: Path) -> None:
        if not isinstance(function.__self__, ModuleType | None):
            self._visit(function.__self__, path)

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
        self._slot(f"{self._name(made)}()", made(), path)

    def _context_variable(self, made: Any, path: Path) -> None:
        self._slot(f"{self._name(made)}.get(None)", made.get(None), path)

    def _iterator(self, made: Any, path: Path) -> None:
        self._refuse(path, f"an iterator ({type(made).__name__}), whose place cannot be compared; make it a list")

    # Objects

    def _namespace(self, module: Any, path: Path) -> None:
        package = module.__name__.partition(".")[0]
        if package == "microfw":
            return
        for name, value in list(vars(module).items()):
            if name not in self.names or isinstance(self.names, Everything):
                continue
            if package in LIBRARIES and (callable(value) or isinstance(value, ModuleType)):
                if isinstance(getattr(value, "__self__", None), GENERATORS):
                    self._visit(value, Path(path, f".{name}"))
                continue
            self._slot(f"{self._name(vars(module))}.get({name!r})", value, Path(path, f".{name}"))

    def _class(self, kind: Any, path: Path) -> None:
        every = any(is_library(base) for base in kind.__mro__)
        for base in kind.__mro__:
            if base.__module__.partition(".")[0] in LIBRARIES:
                continue
            self.tests.append(f"len({self._name(vars(base))}) == {len(vars(base))}")
            for name, value in list(vars(base).items()):
                special = name.startswith("__") and isinstance(value, FunctionType) and name not in CONSTRUCTION
                if special or ((every or name in self.names) and not name.startswith("__")):
                    self._slot(f"{self._name(vars(base))}.get({name!r})", value, Path(path, f".{name}"))

    def _module(self, module: Any, path: Path) -> None:
        bases = [base for base in type(module).__mro__ if base not in (Module, object)]
        theirs = [is_library(base) for base in bases]
        self.values.append((module.training, path))
        for name, value in list(vars(module).items()):
            if name in CACHES:
                continue
            where = Path(path, f".{name}")
            if all(theirs):
                self._visit(value, where)
            elif any(theirs) or name in self.names or isinstance(value, Module | Tensor):
                self._slot(f"{self._name(vars(module))}.get({name!r})", value, where)
        if not all(theirs):
            self._visit(type(module), path)

    def _object(self, x: Any, path: Path) -> None:
        kind = type(x)
        package = kind.__module__.partition(".")[0]
        if package == "microfw":
            if not kind.__module__.startswith(OWN) or kind.__name__ in ("CompiledStep", "Profiler"):
                self._library_object(x, path)
            return
        if not hasattr(x, "__dict__") and not slots_of(kind) and package in LIBRARIES:
            if kind.__module__ != "_thread":  # a lock decides on no number
                self._refuse(path, f"an object ({kind.__name__}) whose content cannot be compared")
            return
        self._attributes(x, path)
        self._visit(kind, path)

    def _attributes(self, x: Any, path: Path) -> None:
        """Look at the attributes that code names; at all of them where it is a library's code that reads them."""
        every = type(x) is not FunctionType and any(is_library(base) for base in type(x).__mro__)
        held = getattr(x, "__dict__", None)
        if held is not None:
            name = self._name(held)
            self.tests.append(f"{self._name(x)}.__dict__ is {name} and len({name}) == {len(held)}")
            for key, value in list(held.items()):
                if every or key in self.names:
                    self._slot(f"{name}.get({key!r})", value, Path(path, f".{key}"))
        for key in slots_of(type(x)):
            if (every or key in self.names) and key not in ("__dict__", "__weakref__"):
                text = f"getattr({self._name(x)}, {key!r}, None)"
                self._slot(text, getattr(x, key, None), Path(path, f".{key}"))

    def _library_object(self, x: Any, path: Path) -> None:
        """Look at the attributes of this library's objects that code names, such as an optimizer's ``lr``."""
        if isinstance(self.names, Everything):
            return
        known = {*dir(type(x)), *getattr(x, "__dict__", {})}
        for name in sorted(known & self.names):
            try:
                value = getattr(x, name)
            except Exception:
                continue
            if isinstance(value, ATOMS):
                self._slot(f"{self._name(x)}.{name}", value, Path(path, f".{name}"))
            elif not callable(value) or isinstance(value, Module):
                self._visit(value, Path(path, f".{name}"))
