"""NumPy's functions called on Tensors: the op that implements each, and NumPy's arguments turned into the op's."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np

from microfw.autograd.registry import NUMPY

SHAPES = {np.shape, np.ndim, np.size, np.zeros_like, np.ones_like, np.empty_like, np.full_like, np.result_type}
"""Functions of `SHAPE_ONLY` that read shape and dtype alone."""

SHAPE_ONLY = SHAPES | {
    np.array_equal, np.allclose, np.isclose, np.may_share_memory, np.shares_memory, np.array_repr, np.array_str,
    np.array2string,
}  # fmt: skip
"""NumPy's functions without a gradient: they get the values, and return NumPy's result."""


def qualified_name(function: Callable[..., Any]) -> str:
    """Return a NumPy function's name as users write it.

    Examples
    --------
    >>> qualified_name(np.exp), qualified_name(np.linalg.norm)
    ('np.exp', 'np.linalg.norm')
    """
    module = getattr(function, "__module__", None) or "numpy"
    return f"{'np' + module[5:] if module.startswith('numpy') else module}.{getattr(function, '__name__', function)}"


def implementation(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the op that implements a NumPy function.

    Raises
    ------
    TypeError
        If there is none: names the function.
    """
    if function not in NUMPY:
        import_module("microfw.ops.whole")
    try:
        return NUMPY[function]
    except KeyError:
        raise TypeError(
            f"{qualified_name(function)}: expected a function with a derivative rule, got one without; "
            "declare it with mf.op, or take the values out of the graph with .data"
        ) from None


_FIXES = {
    "out": "op results are new arrays",
    "where": "choose entries with np.where",
    "dtype": "cast with .astype before or after",
    "correction": "write ddof=",
}

_DEFAULTS = {"where": True, "casting": "same_kind", "order": "K", "subok": True}
"""Defaults of ufuncs and of functions without a signature."""


def refuse(function: Callable[..., Any], given: dict[str, Any]) -> None:
    """Raise a TypeError for arguments that no op takes, unless they are given as what they are by default."""
    for name, value in given.items():
        if (
            value is None
            or value is np._NoValue
            or (name in _DEFAULTS and type(value) is type(_DEFAULTS[name]) and value == _DEFAULTS[name])
        ):
            continue
        names = "out= or where=" if name in ("out", "where") else f"{name}="
        fix = _FIXES.get(name, "leave it out")
        raise TypeError(f"{qualified_name(function)}: expected no {names} with a Tensor, got {name}=; {fix}")


_UNSIGNED: dict[Callable[..., Any], Callable[..., Any]] = {
    np.concatenate: lambda arrays, /, axis=0, out=None, *, dtype=None, casting="same_kind": None,
    np.dot: lambda a, b, out=None: None,
}
"""Signatures of functions written in C that have none in older releases of NumPy."""


def signature(function: Callable[..., Any]) -> inspect.Signature | None:
    """Return a function's signature; ufuncs have none in older releases of NumPy."""
    try:
        return inspect.signature(function)
    except ValueError:
        return inspect.signature(_UNSIGNED[function]) if function in _UNSIGNED else None


class ArgumentAdapter:
    """How the arguments of a NumPy function become those of its op.

    Arguments that the op does not have are left out where they are what they are by default.

    Attributes
    ----------
    implementation : callable
        The op, or the function that implements the NumPy function.
    n_positional : int
        Number of positional arguments that have the same meaning in both.
    keywords : set of str
        Keyword arguments that have the same meaning in both.
    name_map : dict
        The op's name by NumPy's; None for an input, which is passed by position.
    """

    def __init__(self, function: Callable[..., Any], implementation: Callable[..., Any]) -> None:
        self.function = function
        self.implementation = implementation
        op = getattr(implementation, "op", None)
        if op is not None:
            inputs, names = len(op.inputs), [*op.inputs, *op.params]
            whole = op.variadic
        else:
            own = inspect.signature(implementation).parameters.values()
            inputs, names = 1, [p.name for p in own]
            whole = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in own)
        self.n_positional, self.keywords = len(names), set(names)
        self.signature = None if whole else signature(function)
        if self.signature is None:
            return
        theirs = list(self.signature.parameters)
        self.name_map: dict[str, str | None] = {}
        for k, (name, parameter) in enumerate(self.signature.parameters.items()):
            if k < inputs:
                self.name_map[name] = None
            elif name in names:
                self.name_map[name] = name
            elif name in _FIXES or parameter.kind is parameter.VAR_KEYWORD:
                continue  # the place of such an argument is not that of one of the op's
            elif k < len(names) and names[k] not in theirs:
                self.name_map[name] = names[k]
        while (
            self.n_positional
            and [self.name_map.get(n, n) for n in theirs[inputs : self.n_positional]]
            != names[inputs : self.n_positional]
        ):
            self.n_positional -= 1
        self.keywords = {name for name in names[inputs:] if name in theirs}

    def adapt(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the op's arguments for NumPy's."""
        if self.signature is None:
            refused = kwargs.keys() & (_FIXES.keys() | _DEFAULTS.keys()) - self.keywords
            extra = {name: value for name, value in kwargs.items() if name in refused}
            refuse(self.function, extra)
            return args, {name: value for name, value in kwargs.items() if name not in extra}
        places: list[Any] = []
        names: dict[str, Any] = {}
        for name, value in self.signature.bind(*args, **kwargs).arguments.items():
            if name not in self.name_map:
                parameter = self.signature.parameters[name]
                if parameter.kind is parameter.VAR_KEYWORD:
                    refuse(self.function, value)
                elif not (value is parameter.default or (isinstance(value, str) and value == parameter.default)):
                    refuse(self.function, {name: value})
            elif (ours := self.name_map[name]) is None:
                places.append(value)
            elif value is not np._NoValue:
                names[ours] = value
        return tuple(places), names


_ADAPTERS: dict[Callable[..., Any], ArgumentAdapter] = {}


def dispatch(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call the op that implements a NumPy function, with NumPy's arguments."""
    implemented = implementation(function)
    adapter = _ADAPTERS.get(function)
    if adapter is None or adapter.implementation is not implemented:
        adapter = _ADAPTERS[function] = ArgumentAdapter(function, implemented)
    if len(args) > adapter.n_positional or not kwargs.keys() <= adapter.keywords:
        args, kwargs = adapter.adapt(args, kwargs)
    return implemented(*args, **kwargs)
