"""Attributes of modules that are no parameters, buffers, modules or generators: plain ones, and digests of the others.

Plain attributes are numbers, texts, flags, None, arrays, and lists, tuples and dicts of these; files hold them. Others,
such as functions and objects, are compared by marks, so that a change of one is found before a file is written.
"""

from __future__ import annotations

import copy
import copyreg
import hashlib
import random
from collections.abc import Iterator
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.nn import Module
from microfw.nn.module import in_microfw
from microfw.serialization.strict import DTYPES, FormatError, short, table

MAX_ITEMS = 10_000
"""Maximum number of values in the attributes of a model that files can hold; arrays count as one."""

MAX_DEPTH = 20

MAX_VISITS = 1_000_000
"""Maximum number of objects in an attribute that is compared by its content; a larger one is compared by its type.

64 bytes of an array count as one. That many take some seconds when a model is saved.
"""

MAX_AT_START = 10_000
"""The same when a fit starts, where it takes at most 50 ms."""

FILLED = ("rng", "init", "bias_init")
"""Constructor parameters that only choose initial values; a file has the values."""

APART = ("training", "_named")
"""Attributes of a Module that are no settings: files have the mode in another place."""

GENERATORS = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)

PARTS = (Tensor, Module, *GENERATORS)

ATOMS = frozenset({bool, int, str, type(None)})

SIMPLE = ATOMS | {float, dict}

Attributes = dict[str, dict[str, Any]]
"""Attributes by name, for each module by its path."""

Marks = dict[str, tuple[type, dict[str, Any]]]
"""Type and marks of the attributes of each module, by its path."""


def parts(root: Any) -> dict[str, Any]:
    """Return the modules and Tensors of a model or a loss by path; of another object the object itself."""
    if isinstance(root, Module):
        return dict(root._walk())
    root = root.__self__ if isinstance(root, MethodType) else root
    return {} if isinstance(root, type | ModuleType) or not hasattr(root, "__dict__") else {"": root}


def holders(root: Any) -> dict[str, Any]:
    """Return the objects with attributes of a model or a loss, by path."""
    return {path: part for path, part in parts(root).items() if not isinstance(part, Tensor)}


def of(item: Any) -> dict[str, Any]:
    """Return the attributes of a module or an object; without those that its ``__getstate__`` leaves out."""
    found = vars(item)
    kind: Any = type(item).__getstate__
    if kind is not Module.__getstate__ and kind is not object.__getstate__:
        kept = item.__getstate__()
        found = {name: found[name] for name in found if name in kept} if isinstance(kept, dict) else found
    return {k: v for k, v in found.items() if type(v) in SIMPLE or not isinstance(v, PARTS) if k not in APART}


def size(value: Any) -> int | None:
    """Return the number of values in a plain attribute; None if a file cannot hold it and give back the same types."""
    n, todo = 0, [(value, 0)]
    while todo:
        item, depth = todo.pop()
        n += 1
        kind = type(item)
        if kind in (tuple, list, dict):
            if depth == MAX_DEPTH or n + len(item) > MAX_ITEMS:
                return None
            todo += [(part, depth + 1) for part in item]
            todo += [(part, depth + 1) for part in item.values()] if kind is dict else []
        elif kind is np.ndarray or isinstance(item, np.generic):
            if item.dtype.str not in DTYPES:
                return None
        elif not (kind in ATOMS or kind is float) or (kind is int and item.bit_length() > 1024):
            return None
    return n if n <= MAX_ITEMS else None


def marks(found: dict[str, Any]) -> Marks:
    """Return the type of each module of `parts`, and a mark of each attribute: marks of equal values are equal."""
    names = {id(part): name for name, part in found.items()}
    return {
        path: (type(item), {name: _mark_of(item, value, names) for name, value in of(item).items()})
        for path, item in found.items()
        if not isinstance(item, Tensor)
    }


def _mark_of(item: Any, value: Any, names: dict[int, str]) -> Any:
    # a layer of the library has its attributes from settings, which files have: compared by ==, a tenth of the time
    if in_microfw(type(item)) and (
        type(value) in SIMPLE or (type(value) is tuple and not isinstance((*value, 0)[0], Module))
    ):
        return value
    return mark(value, names)


def mark(value: Any, names: dict[int, str], visits: int = MAX_VISITS) -> Any:
    """Return a mark of a value, in which Modules and Tensors with names are these names."""
    kind = type(value)
    if kind in ATOMS:
        return kind, value  # 1 == True
    if kind is float:
        return kind, repr(value)  # so that -0.0 is not 0.0, and NaN is NaN
    text = hashlib.sha256()
    seen: dict[int, int] = {}  # number of each object that was found before, as in a cycle
    todo, kept = [value], []
    while todo:
        item = todo.pop()
        visits -= 1 + (item.nbytes // 64 if type(item) is np.ndarray else 0)
        if visits < 0:
            return kind, None
        known, parts = _content(item, names)
        if not isinstance(item, str | tuple) and parts:
            if id(item) in seen:
                known, parts = str(seen[id(item)]), []
            seen.setdefault(id(item), len(seen))
        text.update(f"{type(item).__qualname__} {len(parts)} ".encode())
        text.update(known.encode("utf-8", "surrogatepass") if isinstance(known, str) else known)
        todo += parts
        kept.append(item)  # so that no id is used twice
    return kind, text.digest()


def _content(item: Any, names: dict[int, str]) -> tuple[str | bytes, list[Any]]:
    """Return the content of an object: a text or bytes, and other objects."""
    kind = type(item)
    if kind in ATOMS or kind is float:
        return repr(item), []
    if id(item) in names:  # compared itself
        return names[id(item)], []
    if kind is bytes:
        return item, []
    if kind in (list, tuple):
        return "", [*item]
    if kind is dict:
        return "", [*item, *item.values()]
    if kind in (set, frozenset):
        return "", sorted(item, key=repr)
    if kind is np.ndarray and not item.dtype.hasobject:
        return f"{item.dtype.str} {item.shape} ".encode() + item.tobytes(), []
    if isinstance(item, type | ModuleType):
        return str(id(item)), []
    if isinstance(item, GENERATORS):
        return "", []
    if isinstance(item, FunctionType):  # a constructor makes another object each time, with the same code
        cells = [cell for cell in item.__closure__ or () if cell != CellType()]
        defaults = [item.__defaults__, item.__kwdefaults__, vars(item)]
        return str(id(item.__code__)), [cell.cell_contents for cell in cells] + defaults
    try:  # what `copy.copy` copies
        known = copyreg.dispatch_table.get(kind)
        made = known(item) if known else item.__reduce_ex__(4)
        return "", [made] if isinstance(made, str) else [list(p) if isinstance(p, Iterator) else p for p in made]
    except Exception:  # a lock, a file and the like have no content; a class may raise anything
        return "", []


def plain(found: dict[str, Any]) -> Attributes:
    """Return the plain attributes of your own modules in `parts`, or of another object that has some, by path."""
    made: Attributes = {}
    left = MAX_ITEMS
    for path, item in found.items():
        for name, value in () if isinstance(item, Tensor) or in_microfw(type(item)) else of(item).items():
            n = size(value)
            if n is not None and n <= left:
                left -= n
                made.setdefault(path, {})[name] = value
    return made


def others(found: dict[str, Any]) -> Attributes:
    """Return marks of all attributes of `parts` that are not `plain`, by path; and the types of the parts."""
    names, held = {id(part): name for name, part in found.items()}, plain(found)
    made: Attributes = {"": {path: type(part) for path, part in found.items() if path}}
    for path, item in found.items():
        if not isinstance(item, Tensor) and not in_microfw(type(item)):
            apart = {k: v for k, v in vars(item).items() if isinstance(v, PARTS) and id(v) not in names}
            rest = {**apart, **{k: v for k, v in of(item).items() if k not in held.get(path, ())}}
            marked = {name: mark(value, names, MAX_AT_START) for name, value in rest.items()}
            made[path] = made.get(path, {}) | marked
    return made


def changed(found: dict[str, Any], made: Marks) -> Attributes:
    """Return the attributes of a model that differ from those that its constructors make.

    Parameters
    ----------
    found : dict
        `parts` of the model.
    made : dict
        `marks` of a model that the constructors have made.

    Raises
    ------
    FormatError
        If an attribute that differs is not plain, or a module is another one.
    """
    names = {id(part): name for name, part in found.items()}
    modules = {path: part for path, part in found.items() if isinstance(part, Module)}
    kept: Attributes = {}
    left = MAX_ITEMS
    for path in {**modules, **made}:
        item, (kind, theirs) = modules.get(path), made.get(path, (type(None), {}))
        where = ".".join(filter(None, (type(found[""]).__name__, path)))
        if type(item) is not kind:
            got, name = type(item).__name__, path.rpartition(".")[2]
            fix = "choose the module by an argument of the constructor"
            fix += f": def __init__(self, {name}): self.{name} = {name}" if name.isidentifier() else ""
            raise FormatError(f"{where} to be the module that the constructor makes, {kind.__name__}", got, fix)
        mine, ours = of(item), in_microfw(type(item))
        for name in mine if mine.keys() == theirs.keys() else {**mine, **theirs}:
            value, known = mine.get(name, ABSENT), theirs.get(name, ABSENT)
            if isinstance(value, np.generic) and ours:
                value = value.item()  # its settings are numbers of Python, as from its constructor
            if (type(value) is type(known) and value == known and ours) or mark(value, names) == known:
                continue
            if isinstance(vars(item).get(name), GENERATORS):  # files have their states in another place
                continue
            n = size(value)
            if n is None or n > left:
                if name in FILLED:
                    continue
                got = "none" if value is ABSENT else type(value).__name__
                raise FormatError(f"{where}.{name} to be as the constructor makes it, or plain data", got, FIX)
            left -= n
            kept.setdefault(path, {})[name] = value
    return kept


ABSENT = object()
"""Value of an attribute that is not there."""

FIX = (
    f"make it from the constructor's arguments, or keep numbers, text and arrays, {MAX_ITEMS:,} values at most; "
    "leave what need not be saved out of what __getstate__ returns"
)


def put(modules: dict[str, Module], changed: Any) -> None:
    """Set the attributes of `changed`, from a file that need not be trusted, in new modules."""
    for path, values in table(changed).items():
        for name, value in table(values).items():
            if path not in modules or name in APART or isinstance(vars(modules[path]).get(name), Module | Tensor):
                raise FormatError("an attribute of a module of the model", short(f"{path}.{name}"))
            vars(modules[path])[name] = value  # no code of the class runs


Change = tuple[Any, str, Any]
"""An object, the name of its attribute, and the value to be set; `ABSENT` deletes it."""


def same(a: Any, b: Any) -> bool:
    """Return True if two values are one object, or have the same type and content."""
    return a is b or (type(a) is type(b) and mark(a, {}) == mark(b, {}))


def apply(todo: list[Change]) -> list[Change]:
    """Set attributes; return what sets them back."""
    before = []
    for item, name, value in todo:
        now = getattr(item, name, ABSENT)
        if same(now, value):
            continue
        before.append((item, name, now))
        if value is ABSENT:
            delattr(item, name)
        else:
            setattr(item, name, value)
    return before[::-1]


def snapshot(root: Any, others: Any = None) -> list[Change]:
    """Return the changes that restore all attributes but Tensors. Plain values are copied.

    Parameters
    ----------
    root : Module or object
        A model or a loss.
    others : dict, optional
        Values in place of the present ones, from `by_path`.
    """
    found, others = [], table(others or {})
    for path, item in holders(root).items():
        modules = {name: value for name, value in vars(item).items() if isinstance(value, Module)}
        for name, value in {**of(item), **modules, **table(others.get(path, {}))}.items():
            kept = value if type(value) in ATOMS or size(value) is None else copy.deepcopy(value)
            found.append((item, name, kept))
    return found


def differing(kept: list[Change]) -> list[Change]:
    """Return the part of a `snapshot` that has changed since."""
    return [change for change in kept if not same(vars(change[0]).get(change[1], ABSENT), change[2])]


def by_path(root: Any, kept: list[Change]) -> Attributes:
    """Return the plain attributes in the part of a `snapshot` that has changed since, by path."""
    paths, found = {id(item): path for path, item in holders(root).items()}, Attributes()
    for item, name, value in differing(kept):
        if id(item) in paths and size(value) is not None:
            found.setdefault(paths[id(item)], {})[name] = value
    return found
