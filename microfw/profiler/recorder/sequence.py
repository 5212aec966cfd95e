"""The sequences of ops that steps go through, told apart by ops and wiring.

A step is a path in a tree: each op leads on from the op before. So an op is at the same `Position` in each step that
has begun with the same ops, applied to the same results.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from microfw.autograd.graph import Leaf, Node
from microfw.profiler.recorder.stats import Pattern, Site, is_plain

MAX_DEPTH = 1 << 14
"""After how many ops a path starts again from the root, so that a run without steps does not fill the memory."""

MAX_KEPT = 1 << 22
"""Bytes of the largest array that is kept to run an op again."""

UNKNOWN = object()
"""Stands for a node that was not observed, such as that of a checkpoint."""


class Position:
    """An op in the sequence of a step.

    Attributes
    ----------
    site : Site
        The op on these shapes; None at the root.
    links : tuple
        For each parent of the op's node: the position of the node, the leaf, None, or UNKNOWN.
    constants : tuple of int
        The inputs whose shapes do not follow from the links.
    next : Position or None
        What came after it the last time.
    params : dict or None
        The settings of the op, if they can be compared by value.
    inputs : tuple
        What the op was applied to when the position was last looked up, to run the op again: positions, and arrays that
        are not too large.
    settings : dict
        The keyword arguments of the op.
    pattern : Pattern or None
        What the graph of a loss at this position costs.
    walked : bool
        Whether an earlier backward pass has walked the node, and has retained it.
    """

    __slots__ = (
        "again",
        "children",
        "constants",
        "depth",
        "inputs",
        "links",
        "module",
        "next",
        "params",
        "pattern",
        "settings",
        "shape",
        "shapes",
        "site",
        "spec",
        "unknown",
        "up",
        "walked",
    )  # fmt: skip

    def __init__(self, site: Site | None, up: Position | None = None, links: tuple[Any, ...] = ()) -> None:
        self.site: Any = site
        self.up = up
        self.links = links
        self.depth: int = 0 if up is None else up.depth + 1
        self.children: dict[Any, Position] = {}
        self.next: Position | None = None
        self.pattern: Pattern | None = None
        self.unknown: Pattern | None = None  # of a loss after this op whose node was not observed
        self.again: Position | None = None
        self.walked = False
        self.module: Any = None
        self.params: dict[str, Any] | None = None
        self.inputs: tuple[Any, ...] = ()
        self.settings: dict[str, Any] = {}
        self.constants: tuple[int, ...] = ()
        if site is not None:
            self.spec, self.shape, self.shapes = site.spec, site.shape, site.shapes
            self.module = site.module

    def path(self) -> Iterator[Position]:
        """Yield the positions from this one back to the first op."""
        position = self
        while position.up is not None:
            yield position
            position = position.up

    def retained(self) -> Position:
        """Return the position of the same op when its node has been walked and retained."""
        if self.again is None:
            self.again = Position(self.site, self.up, self.links)
            self.again.walked = True
        return self.again


class Sequence(NamedTuple):
    """The sites of a step's nodes, in order, and the pattern of its loss."""

    sites: list[Site]
    pattern: Pattern


class Sequences:
    """The tree of sequences.

    Attributes
    ----------
    root : Position
        Where steps begin.
    all : list of Position
        The others.
    """

    def __init__(self) -> None:
        self.root = Position(None)
        self.all: list[Position] = []
        self._leaves: dict[Leaf, int] = {}  # of the path to `_numbered`, by first use
        self._numbered = self.root

    def move(
        self, before: Position, site: Site, node: Node, inputs: tuple[Any, ...], params: dict[str, Any]
    ) -> Position:
        """Return the position of an op that has run at a site, after another position."""
        if before.depth >= MAX_DEPTH:
            before = self.root
        if self._numbered is not before:
            self._leaves = {}
            for position in reversed(list(before.path())):
                self._number(position.links)
        parents = node.parents or ()
        links = tuple([link(parent) for parent in parents])
        self._number(links)
        key = (site, *[self._key(parent, found) for parent, found in zip(parents, links, strict=True)])
        if key not in before.children:
            made = before.children[key] = Position(site, before, links)
            linked = {p.index for p, found in zip(node.spec.partials, links, strict=False) if found is not None}
            made.constants = tuple([k for k in range(len(inputs)) if k not in linked])
            if all(map(is_plain, params.values())):
                made.params = params
            made.settings = params
            self.all.append(made)
        position = before.children[key]
        position.links, position.module = links, site.module
        kept = [x if getattr(x, "nbytes", 0) <= MAX_KEPT else UNKNOWN for x in inputs]
        for partial, found in zip(node.spec.partials, links, strict=False):
            if type(found) is Position:
                kept[partial.index] = found
        position.inputs = tuple(kept)
        before.next = self._numbered = position
        return position

    def _number(self, links: tuple[Any, ...]) -> None:
        for found in links:
            if type(found) is not Position and found is not None and found is not UNKNOWN:
                self._leaves.setdefault(found, len(self._leaves))

    def _key(self, parent: Any, found: Any) -> Any:
        if found is UNKNOWN:
            return tuple([None if above is None else id(link(above)) for above in parent.parents or ()])
        return found if found is None or type(found) is Position else self._leaves[found]

    def forget_objects(self) -> None:
        """Release modules and leaves, which may be gone from the program."""
        for position in self.all:
            position.module, position.inputs = None, ()
            position.links = tuple([found if type(found) is Position else None for found in position.links])
        self._leaves, self._numbered = {}, self.root

    def grow_new_tree(self) -> None:
        """Forget all sequences but the one of the step that runs."""
        self.root, self.all = Position(None), []


def link(parent: Any) -> Any:
    """Return what tells which result an op was applied to: a position, a leaf, None, or UNKNOWN."""
    return getattr(parent, "_metadata", UNKNOWN) if type(parent) is Node else parent
