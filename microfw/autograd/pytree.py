"""Nested containers: their arrays in a row, and others put in their places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Tree = Any
"""A Tensor, an array or a number; a Module; or a list, tuple or dict of such."""


def flatten(tree: Tree) -> tuple[list[Any], Callable[[Sequence[Any]], Tree]]:
    """Return a tree's leaves in order, and a function that puts others in their places.

    A Module's leaves are its trainable parameters; in their places comes a dict by name.

    Examples
    --------
    >>> leaves, rebuild = flatten({"w": 1.0, "b": (2.0, 3.0)})
    >>> leaves
    [1.0, 2.0, 3.0]
    >>> rebuild([4, 5, 6])
    {'w': 4, 'b': (5, 6)}
    """
    tree = by_name(tree)
    if isinstance(tree, dict):
        keys, children = list(tree), list(tree.values())
        return _branches(children, lambda new: dict(zip(keys, new, strict=True)))
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return _branches(list(tree), lambda new: type(tree)(*new))
    if isinstance(tree, list | tuple):
        return _branches(list(tree), type(tree))
    return [tree], lambda new: new[0]


def by_name(tree: Tree) -> Tree:
    """Return the trainable parameters of a Module by name; anything else as it is."""
    if hasattr(tree, "named_parameters"):
        return {name: p for name, p in tree.named_parameters() if p.requires_grad}
    return tree


def _branches(children: list[Tree], join: Callable[[list[Any]], Tree]) -> tuple[list[Any], Callable[..., Tree]]:
    parts = [flatten(child) for child in children]

    def rebuild(new: Sequence[Any]) -> Tree:
        new = list(new)
        rebuilt, start = [], 0
        for leaves, inner in parts:
            rebuilt.append(inner(new[start : start + len(leaves)]))
            start += len(leaves)
        return join(rebuilt)

    return [leaf for leaves, _ in parts for leaf in leaves], rebuild


def as_arrays(tree: Any) -> Any:
    """Read a list that holds only numbers as one array."""
    if isinstance(tree, list | tuple) and not hasattr(tree, "_fields") and tree:
        if all(isinstance(x, int | float) for x in tree):
            return np.array(tree, float)
        return type(tree)(as_arrays(x) for x in tree)
    if isinstance(tree, dict):
        return {k: as_arrays(v) for k, v in tree.items()}
    return tree
