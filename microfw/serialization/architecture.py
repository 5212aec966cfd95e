"""Architecture of a model as JSON, and back: names and settings of the layers, from which they are created again.

Classes are the library's layers, by their names in `nn`, or come from the caller. A file can name no other class, and
no module to import.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from microfw import nn
from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError
from microfw.nn import Module
from microfw.nn.initializers import blank, constant
from microfw.serialization import tree
from microfw.serialization.attributes import FILLED
from microfw.serialization.strict import FormatError, listed, short, size_of, table, whole

Classes = Mapping[str, Any]

MAX_DEPTH = 100
"""Maximum depth of nested modules. Reading takes about 6 calls a level; Python allows 1,000 by default."""


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
            kind, settings = settings_of(value)
            kind = names.get(id(type(value)), kind)
            depth += 1
            packed = {key: tree.pack(item, f"{name}.{key}", arrays, special) for key, item in settings.items()}
            depth -= 1
            seen[id(value)] = len(seen)
            return {"$module": {"class": kind, "settings": packed}}
        if isinstance(value, Tensor):
            return {"$like": list(value.shape)}
        if isinstance(value, np.generic):
            return tree.pack(value.item(), name, arrays)  # Python's number: a setting is no array
        if callable(value):
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
    made: list[Module] = []  # modules by number, in the order in which `describe` numbered them

    def special(content: Any, tag: str) -> Any:
        if tag == "$module":
            made.append(_make(table(content, "class", "settings"), classes, special))
            return made[-1]
        if tag == "$same" and whole(content) < len(made):
            return made[content]
        if tag == "$like":
            shape = tuple(map(whole, listed(content)))
            size_of(np.dtype(np.float32), shape, 4 * limit)  # before memory is taken
            return 1 + constant(shape, 0.0)  # counts towards the limit
        if tag == "$function":
            return _function(content, classes)
        raise FormatError("a module, a shape or a function", short(tag))

    try:
        with blank(limit):  # layers of zeros: the values come from the file, and no random numbers are drawn
            model = tree.unpack(architecture, _no_array, special)
    except RecursionError:
        raise FormatError(f"at most {MAX_DEPTH} modules inside of each other", "more") from None
    if not isinstance(model, Module):
        raise FormatError("a model's architecture", short(architecture))
    return model


def named(classes: Classes | Iterable[Any], where: str) -> dict[str, Any]:
    """Return classes and functions by name; raise ArgumentError if there is anything else."""
    alone = isinstance(classes, str | type) or not isinstance(classes, Iterable)
    items: list[Any] = [classes] if alone else list(classes.values() if isinstance(classes, Mapping) else classes)
    wrong = [item for item in items if not callable(item) or isinstance(item, Module)]
    if alone or wrong:
        first = (wrong or items)[0]
        fix = f"pass classes=[{getattr(first, '__name__', 'Mine')}]"
        raise ArgumentError(where, "classes to be a list or dict of classes and functions", short(first), fix)
    if isinstance(classes, Mapping):
        return dict(classes)
    return {getattr(item, "__name__", type(item).__name__): item for item in items}


def namings(classes: Classes) -> Iterator[dict[str, Any]]:
    """Yield the passed classes and functions by which a file may name them: all, or without layers, or ufuncs.

    The library's layers have names of their own in files, by `nn`, and NumPy's ufuncs by ``np``.
    """
    layers = {name for name, item in classes.items() if isinstance(item, type) and _is_layer(item)}
    ufuncs = {name for name, item in classes.items() if _is_ufunc(item)}
    for left in (set(), layers, ufuncs, layers | ufuncs):
        yield {name: item for name, item in classes.items() if name not in left}


def own_classes(model: Module) -> dict[str, Any]:
    """Return the classes and functions of a model from outside the library, by name."""
    found: dict[str, Any] = {}
    for _, module in model.named_modules():
        used = [] if _is_layer(type(module)) else [type(module)]
        used += [value for value in vars(module).values() if callable(value) and not isinstance(value, Module | Tensor)]
        for item in used:
            name = getattr(item, "__name__", "")
            if found.setdefault(name, item) is not item:
                raise FormatError("classes and functions of different names", f"two of the name {name!r}")
    return found


def _layer(name: str) -> type[Module] | None:
    """Return the layer of the library with a name in `nn`."""
    kind = getattr(nn, name, None) if name in nn.__all__ else None
    known = isinstance(kind, type) and issubclass(kind, Module) and kind not in (Module, nn.Loss)
    return kind if known else None


def _is_layer(kind: type) -> bool:
    return _layer(kind.__name__) is kind


def _parameters(kind: type) -> dict[str, inspect.Parameter]:
    """Return the parameters of a constructor that a file has."""
    if kind.__init__ is object.__init__:  # type: ignore[misc]  # inspect would parse a signature from text
        return {}
    return {name: p for name, p in inspect.signature(kind).parameters.items() if name not in FILLED}


def settings_of(module: Module) -> tuple[str, dict[str, Any]]:
    """Return the name of a module in files, and the arguments for its constructor."""
    kind = type(module)
    if "forward" in vars(module):
        fix = "define a class, and pass it to mf.load by classes"
        raise FormatError(f"{kind.__name__} with the forward of its class", "one that was assigned to an object", fix)
    own = getattr(module, "init_arguments", None)
    if callable(own):
        return kind.__name__, dict(own())
    # a subclass of a layer may inherit its constructor
    made_by = next(k for k, base in enumerate(kind.__mro__) if "__init__" in vars(base))
    layer = any(map(_is_layer, kind.__mro__[: made_by + 1]))
    others = getattr(module, "settings", {}) if layer else {}
    settings = {}
    for name, parameter in _parameters(kind).items():
        if parameter.kind is parameter.VAR_KEYWORD or not (name in others or hasattr(module, name)):
            fix = f"set self.{name} = {name}, or define init_arguments(self) that returns a dict of arguments"
            raise FormatError(f"{kind.__name__} to have an attribute for its parameter {name!r}", "none", fix)
        value = others[name] if name in others else getattr(module, name)
        # bias=True: the attribute is the array, or None
        presence = layer and isinstance(parameter.default, bool) and (value is None or isinstance(value, Tensor))
        value = value is not None if presence else value
        if not (layer and name in kind.ADDED and value == kind.ADDED[name]):
            settings[name] = value
    return f"nn.{kind.__name__}" if _is_layer(kind) else kind.__name__, settings


def _make(content: dict[str, Any], classes: Classes, special: Any) -> Module:
    name = content["class"]
    layer = _layer(name.removeprefix("nn.")) if isinstance(name, str) and name.startswith("nn.") else None
    kind: Any = layer or (classes.get(name) if isinstance(name, str) else None)
    if not (isinstance(kind, type) and issubclass(kind, Module)):
        raise FormatError("a layer of the library, or a class that was passed", short(name), "pass it in classes")
    settings = table(tree.unpack(table(content["settings"]), _no_array, special))
    parameters = _parameters(kind)
    settings = {**(layer.ADDED if layer else {}), **settings}
    if layer and set(settings) != set(parameters):  # a missing one would get a default, which may change
        raise FormatError(f"the settings {', '.join(parameters) or 'none'} of {name}", short(settings))
    # Sequential(*layers)
    listed_last = [settings.pop(name, ()) for name, p in parameters.items() if p.kind is p.VAR_POSITIONAL]
    try:
        return kind(*(item for items in listed_last for item in items), **settings)
    except Exception as error:
        raise FormatError(f"settings that {name} accepts", " ".join(str(error).split())[:160]) from error


def _no_array(name: str) -> Any:
    raise FormatError("settings without arrays", short(name))


def _is_ufunc(function: Any) -> bool:
    """Return True for a ufunc of NumPy; its other functions read files, or run code."""
    return isinstance(function, np.ufunc) and vars(np).get(function.__name__) is function


def _function_name(function: Any, where: str) -> str:
    name: str = getattr(function, "__name__", "")
    if _is_ufunc(function):
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
