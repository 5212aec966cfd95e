"""Architecture of a model as JSON, and back: names and settings of the layers, from which they are created again.

Classes come from the table of the library's layers or from the caller. A file can name no other class, and no module to
import.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.nn import Module
from microfw.nn.initializers import blank, constant
from microfw.serialization import tree
from microfw.serialization.registry import ROWS
from microfw.serialization.strict import FormatError, listed, short, size_of, table, whole

Classes = Mapping[str, Any]

MAX_DEPTH = 100
"""Maximum depth of nested modules. Reading takes about 6 calls a level; Python allows 1,000 by default."""

FILLED = ("rng", "init")
"""Constructor parameters that only choose initial values; a file has the values."""


def describe(model: Module, classes: Classes) -> dict[str, Any]:
    """Return the architecture of a model as JSON types.

    Parameters
    ----------
    model : Module
        The model.
    classes : mapping
        Classes and functions by their names in files, if these are not their own names.

    Raises
    ------
    FormatError
        If a module cannot be created from its settings.
    """
    seen: dict[int, int] = {}
    arrays: dict[str, Any] = {}
    names = {id(item): name for name, item in classes.items()}

    depth = 0

    def special(value: Any, name: str) -> Any:
        nonlocal depth
        if isinstance(value, Module):
            if id(value) in seen:
                return {"$same": seen[id(value)]}
            if depth == MAX_DEPTH:
                raise FormatError(
                    f"at most {MAX_DEPTH} modules inside of each other", "more", "join them in one Sequential"
                )
            kind, settings = _settings(value)
            kind = names.get(id(type(value)), kind)
            depth += 1
            packed = {key: tree.pack(item, f"{name}.{key}", arrays, special) for key, item in settings.items()}
            depth -= 1
            seen[id(value)] = len(seen)
            return {"$module": {"class": kind, "settings": packed}}
        if isinstance(value, Tensor):
            return {"$like": list(value.shape)}
        if callable(value) and not isinstance(value, np.generic):
            return {"$function": names.get(id(value)) or _function_name(value, name)}
        return None

    made = tree.pack(model, type(model).__name__, arrays, special)
    if arrays:
        raise FormatError("settings without arrays", next(iter(arrays)), "keep arrays in Parameters or Tensors")
    return made  # type: ignore[no-any-return]


def build(architecture: Any, classes: Classes, limit: int) -> Module:
    """Return a model with an architecture; all parameters are zero.

    Parameters
    ----------
    architecture : dict
        From `describe`.
    classes : mapping
        Trusted classes and functions, by name.
    limit : int
        Maximum number of values in all parameters and buffers of the library's layers.

    Raises
    ------
    FormatError
        If a class is unknown, its settings are not accepted, or the layers exceed the limit.
    """
    made: list[Module] = []

    def special(content: Any, tag: str) -> Any:
        if tag == "$module":
            made.append(_make(table(content, "class", "settings"), classes, special))
            return made[-1]
        if tag == "$same" and whole(content) < len(made):
            return made[content]
        if tag == "$like":
            shape = tuple(map(whole, listed(content)))
            size_of(np.dtype(np.float32), shape, 4 * limit)
            return 1 + constant(shape, 0.0)  # counts towards the limit
        if tag == "$function":
            return _function(content, classes)
        raise FormatError("a module, a shape or a function", short(tag))

    try:
        with blank(limit):
            model = tree.unpack(architecture, _no_array, special)
    except RecursionError:
        raise FormatError(f"at most {MAX_DEPTH} modules inside of each other", "more") from None
    if not isinstance(model, Module):
        raise FormatError("a model's architecture", short(architecture))
    return model


def named(classes: Classes | Iterable[Any]) -> dict[str, Any]:
    """Return classes and functions by name."""
    if isinstance(classes, Mapping):
        return dict(classes)
    return {getattr(item, "__name__", type(item).__name__): item for item in classes}


def own_classes(model: Module) -> dict[str, Any]:
    """Return the classes and functions of a model from outside the library, by name."""
    found: dict[str, Any] = {}
    for _, module in model.named_modules():
        used = [] if _row(type(module)) else [type(module)]
        used += [value for value in vars(module).values() if callable(value) and not isinstance(value, Module | Tensor)]
        for item in used:
            name = getattr(item, "__name__", "")
            if found.setdefault(name, item) is not item:
                raise FormatError("classes and functions of different names", f"two of the name {name!r}")
    return found


def _row(kind: type) -> Any:
    row = ROWS.get(f"nn.{kind.__name__}")
    return row if row is not None and row.kind is kind else None


def _inherited(kind: type) -> Any:
    """Return the row of the layer whose ``__init__`` a class inherits; None if there is none."""
    return _row(next(base for base in kind.__mro__ if "__init__" in vars(base)))


def _settings(module: Module) -> tuple[str, dict[str, Any]]:
    """Return the name of a module in files, and the arguments for its constructor."""
    kind = type(module)
    row = _row(kind)
    if "forward" in vars(module):
        fix = "define a class, and pass it to mf.load by classes"
        raise FormatError(f"{kind.__name__} with the forward of its class", "one that was assigned to an object", fix)
    if row is not None:
        return f"nn.{kind.__name__}", row.settings(module)
    own = getattr(module, "init_arguments", None)
    if callable(own):
        return kind.__name__, dict(own())
    row = _inherited(kind)
    if row is not None:
        return kind.__name__, row.settings(module)
    settings = {}
    for name, parameter in list(inspect.signature(kind).parameters.items()):
        if name in FILLED:
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or not hasattr(module, name):
            fix = f"set self.{name} = {name}, or define init_arguments(self) that returns a dict of arguments"
            raise FormatError(f"{kind.__name__} to have an attribute for its parameter {name!r}", "none", fix)
        settings[name] = getattr(module, name)
    return kind.__name__, settings


def _make(content: dict[str, Any], classes: Classes, special: Any) -> Module:
    name, row = content["class"], None
    if isinstance(name, str) and name.startswith("nn."):
        row = ROWS.get(name)
    kind = classes.get(name) if isinstance(name, str) and row is None else None
    if row is None and not (isinstance(kind, type) and issubclass(kind, Module)):
        raise FormatError("a layer of the library, or a class that was passed", short(name), "pass it in classes")
    settings = table(tree.unpack(table(content["settings"]), _no_array, special))
    if row is not None and set(settings) != set(row.read):
        raise FormatError(f"the settings {', '.join(row.read) or 'none'} of {name}", short(settings))
    try:
        inherited = None if kind is None else _inherited(kind)
        if inherited is not None and inherited.star in settings:
            module: Module = kind(*settings[inherited.star])  # type: ignore[misc]
            return module
        module = row.make(settings) if row is not None else kind(**settings)  # type: ignore[misc]
        return module
    except Exception as error:
        raise FormatError(f"settings that {name} accepts", " ".join(str(error).split())[:160]) from error


def _no_array(name: str) -> Any:
    raise FormatError("settings without arrays", short(name))


def _function_name(function: Any, where: str) -> str:
    name: str = getattr(function, "__name__", "")
    if isinstance(function, np.ufunc) and vars(np).get(name) is function:
        return f"np.{name}"
    if not name.isidentifier():
        fix = "define it with def, and pass it to mf.load by classes"
        raise FormatError(f"{where} to be a function with a name", name or type(function).__name__, fix)
    return name


def _function(name: Any, classes: Classes) -> Any:
    if isinstance(name, str):
        known = vars(np).get(name[3:]) if name.startswith("np.") else None
        found = known if isinstance(known, np.ufunc) else classes.get(name)
        if callable(found):
            return found
    raise FormatError("a ufunc of NumPy, or a function that was passed", short(name), "pass it in classes")
