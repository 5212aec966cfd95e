"""Arguments of derivative functions: positions, and tangents matched with what they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import index
from typing import Any

import numpy as np

from microfw.autograd.pytree import Tree, as_arrays, by_name
from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError, DTypeError, ShapeError


def require_sequence(where: str, **given: Any) -> None:
    """Raise DTypeError unless each argument is a tuple or list, with one entry for each argument of the function."""
    for name, value in given.items():
        if not isinstance(value, tuple | list):
            fix = f"write ({name[:-1]},) for a single one"
            raise DTypeError(where, f"{name} as a tuple, one for each argument", type(value).__name__, fix)


def read_argnums(argnums: Any, where: str) -> tuple[tuple[int, ...], bool]:
    """Return positions of arguments as a tuple, and whether one was given by itself."""
    single = np.ndim(argnums) == 0
    try:
        positions = tuple(index(k) for k in ((argnums,) if single else argnums))
    except TypeError:
        positions = ()
    if not positions:
        raise ArgumentError(where, "argnums as an integer or a tuple of integers", repr(argnums))
    return positions, single


def refuse_modules(tree: Tree, where: str) -> None:
    """Raise ArgumentError if a Module is in a container: the function would get a dict in its place."""
    if isinstance(tree, dict | list | tuple):
        for child in tree.values() if isinstance(tree, dict) else tree:
            if hasattr(child, "named_parameters"):
                got = f"{type(child).__name__} in a {type(tree).__name__}"
                raise ArgumentError(where, "each Module as an argument by itself", got, "pass it by itself")
            refuse_modules(child, where)


def check_tangents(given: Tree, like: Tree, tensors: Sequence[Tensor], where: str, what: str) -> list[Any]:
    """Return a tangent for each Tensor, copied to the Tensor's dtype.

    Parameters
    ----------
    given, like : tree
        The tangents, and the arguments or outputs that they belong to, in nested containers. Entries of dicts and
        parameters of Modules are matched by name.
    tensors : sequence of Tensor
        The leaves of ``like``, in order.
    where, what : str
        For messages: the function, and "argument" or "output".

    Raises
    ------
    ShapeError, DTypeError
        If names, numbers of entries or shapes differ, or the dtype of a Tensor does; or if one holds no real numbers.
    """
    if not isinstance(like, list | tuple):
        given, like = [given], [like]
    elif isinstance(given, list | tuple) and len(given) != len(like):
        raise ShapeError(where, f"one array for each {what}, {len(like)} in all", len(given))
    found = []
    for (path, g), t in zip(_matched(given, like, what, " {}", where), tensors, strict=True):
        if np.shape(g) != t.shape:
            raise ShapeError(where, f"{path} to get an array of shape {t.shape}", np.shape(g))
        if isinstance(g, Tensor) and g.dtype != t.dtype and t.dtype.kind == "f":  # an output of integers has no graph
            raise DTypeError(where, f"{path} to get a Tensor of {t.dtype}", g.dtype, "cast it with .astype")
        if not isinstance(g, Tensor) and np.asarray(g).dtype.kind not in "fiub":
            raise DTypeError(where, f"{path} to get real numbers", np.asarray(g).dtype)
        found.append(g if isinstance(g, Tensor) else np.array(g, t.dtype))
    return found


def _matched(given: Tree, like: Tree, path: str, entry: str, where: str) -> Iterator[tuple[str, Any]]:
    """Yield what is given for each leaf of a tree, with the leaf's path in words."""
    given, like = by_name(given), by_name(like)
    if isinstance(like, dict):
        if not isinstance(given, dict) or given.keys() != like.keys():
            raise ShapeError(where, f"{path} to get a dict of {_names(like)}", _names(given))
        keys: Any = like
    elif isinstance(like, list | tuple):
        if not isinstance(given, list | tuple) or len(given) != len(like):
            raise ShapeError(where, f"{path} to get a tuple or list of {len(like)}", _names(given))
        keys = range(len(like))
    else:
        array = as_arrays(given)
        if isinstance(array, dict | list | tuple):
            raise ShapeError(where, f"{path} to get one array", _names(given))
        yield path, array
        return
    for key in keys:
        yield from _matched(given[key], like[key], path + entry.format(repr(key)), "[{}]", where)


def _names(tree: Tree) -> str:
    """Return the names in a dict, or the type of anything else and its number of entries, for a message."""
    if isinstance(tree, dict):
        return ", ".join(map(repr, tree)) or "an empty dict"
    return f"{type(tree).__name__}{f' of {len(tree)}' if isinstance(tree, list | tuple) else ''}"
