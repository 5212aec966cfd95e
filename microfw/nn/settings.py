"""Settings that are assigned to a layer after it was made: the constructor checks them, too."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from inspect import signature
from typing import Any

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError
from microfw.nn.initializers import blank

ONCE = {"rng", "init", "bias_init"}
"""Arguments that a layer uses once, or needs no check of."""


def setting(name: str, doc: str) -> Any:
    """Return a property with a value of a layer's ``settings``."""
    return property(lambda layer: layer.settings[name], doc=doc)


@cache
def _constructor(kind: type) -> tuple[Any, dict[str, Any]]:
    """Return the class of the library that a class is, or extends, and the defaults of its settings."""
    layer = next(base for base in kind.__mro__ if base.__module__.startswith("microfw.nn."))
    parameters = signature(layer).parameters
    return layer, {n: p.default for n, p in parameters.items() if p.kind < p.VAR_POSITIONAL or p.kind == p.KEYWORD_ONLY}


def _names(kind: type) -> frozenset[str]:
    """Return the names of a layer's settings; none for a module that is not of the library."""
    return frozenset(_constructor(kind)[1]) - ONCE


names: Callable[[Any], frozenset[str]] = cache(_names)


def change_setting(module: Any, name: str, value: Any) -> bool:
    """Change a setting of a layer, checked by the constructor; return False if it must be assigned like an attribute.

    Raises
    ------
    ArgumentError
        If the constructor refuses the value, or would make other parameters or parts.
    """
    kind: Any = type(module)
    layer, defaults = _constructor(kind)
    held, others = vars(module), getattr(module, "settings", {})  # a property where they are those of parts
    made = name in held or name in others or isinstance(getattr(kind, name, None), property)
    current = held.get(name, others.get(name))
    absent = value is None and (current is None or _is_part(current))
    if not made or absent or _is_part(value):  # while the layer is made; an array, or a layer, in the place of another
        return False
    arguments = {}
    for key, default in defaults.items():
        if key not in ONCE and (key in others or hasattr(module, key)):
            given = others[key] if key in others else getattr(module, key)
            presence = isinstance(default, bool) and not isinstance(given, bool)  # bias=True: an array, or None
            arguments[key] = given is not None if presence else given
    with blank(1 << 62):
        again = layer(**arguments | {name: value})
    buffer = vars(again).get(name)
    if isinstance(buffer, Tensor) and not buffer.requires_grad:
        object.__setattr__(module, name, buffer)
        return True
    parts = dict(module._walk())
    for path, part in again._walk():
        own = parts.get(path)
        if (path and type(own) is not type(part)) or not _same_parts(own, part):
            expected, fix = "a value that keeps the parameters and parts of the layer", "make a new layer"
            raise ArgumentError(f"{module.where}.{name}", expected, repr(value), fix)
    for path, part in again._walk():
        for key, new in vars(part).items() if not isinstance(part, Tensor) else ():
            if not (_is_part(new) or isinstance(new, np.random.Generator) or key in ("training", "_named")):
                object.__setattr__(parts[path], key, new)
    return True


def _same_parts(own: Any, new: Any) -> bool:
    """Return True if Tensors have one shape, or if no Tensor or layer of a layer is replaced by anything else."""
    if isinstance(own, Tensor):
        return own.shape == new.shape  # type: ignore[no-any-return]
    return not any(_is_part(vars(own).get(key)) and not _is_part(value) for key, value in vars(new).items())


def _is_part(value: Any) -> bool:
    return isinstance(value, Tensor) or hasattr(value, "named_modules")
