"""Op sequences of steps, as paths in a tree.

Two steps that begin with the same ops, applied to the same results, share their first `Position` objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock
from typing import Any, NamedTuple

from microfw.autograd.graph import Leaf, Node
from microfw.profiler.recorder.stats import GraphStats, OpStats, dtypes, is_plain
from microfw.profiler.scalars import stand_in

MAX_DEPTH = 1 << 14
"""Maximum length of a path: longer ones continue at the root, so that a run without steps does not fill memory."""

MAX_KEPT = 1 << 22
"""Maximum bytes of an array that is kept to repeat an op."""

UNKNOWN = object()
"""Link to a node that was not observed, such as the node of a checkpoint."""


class Position:
    """One op in the op sequence of a step.

    Attributes
    ----------
    stats : OpStats
        Stats of the op on these shapes; None at the root.
    links : tuple
        For each parent of the op's node: the position of the parent node, the leaf, None, or UNKNOWN.
    only_leaves : bool
        Whether no parent of the node is a node.
    constants : tuple of (int, dtype, shape)
        Indices, dtypes and shapes of the inputs whose shapes do not follow from the links. A number has no dtype.
    next : Position or None
        The position that followed last time.
    params : dict or None
        Keyword arguments of the op, if they can be compared by value.
    inputs : tuple
        Inputs of the op when `Sequences.move` last returned this position: positions, and arrays of at most `MAX_KEPT`
        bytes. `overhead` repeats the op with them.
    settings : dict
        Keyword arguments of the op.
    graph : GraphStats or None
        Counts of the graph of a loss at this position.
    graph_op : GraphOp
        The op with the slices and integer inputs of its first step: those of other ops with the same stats may differ.
    renewed : bool
        Whether the module of the op was another one in some steps, such as an activation that is made in each step.
    visited : bool
        Whether an earlier backward pass has visited the node and retained it.
    """

    __slots__ = (
        "_retained",
        "children",
        "constants",
        "depth",
        "graph",
        "graph_op",
        "inputs",
        "links",
        "module",
        "next",
        "only_leaves",
        "params",
        "renewed",
        "scope",
        "settings",
        "shape",
        "shapes",
        "spec",
        "stats",
        "unknown",
        "up",
        "visited",
    )  # fmt: skip

    def __init__(self, stats: OpStats | None, up: Position | None = None, links: tuple[Any, ...] = ()) -> None:
        self.stats: Any = stats
        self.up = up
        self.links = links
        self.depth: int = 0 if up is None else up.depth + 1
        self.children: dict[Any, Position] = {}
        self.next: Position | None = None
        self.graph: GraphStats | None = None
        self.unknown: GraphStats | None = None  # of a loss computed after this op, whose own node was not observed
        self._retained: Position | None = None
        self.visited = self.renewed = False
        self.module: Any = None
        self.params: dict[str, Any] | None = None
        self.inputs: tuple[Any, ...] = ()
        self.settings: dict[str, Any] = {}
        self.only_leaves = True
        self.constants: tuple[tuple[int, Any, Any], ...] = ()
        if stats is not None:
            self.spec, self.shape, self.shapes = stats.spec, stats.shape, stats.shapes
            self.scope, self.module, self.graph_op = stats.scope, stats.module, stats.graph_op

    def path(self) -> Iterator[Position]:
        """Yield the positions from this one back to the first op."""
        position = self
        while position.up is not None:
            yield position
            position = position.up

    def retained(self) -> Position:
        """Return the position of the same op after a backward pass that retained its node."""
        if self._retained is None:
            self._retained = Position(self.stats, self.up, self.links)
            self._retained.graph_op, self._retained.visited = self.graph_op, True
        self._retained.links = self.links  # the leaves may be other ones than in the last step
        return self._retained


class Sequence(NamedTuple):
    """Stats of the nodes of a step, in order, and the counts of its loss's graph."""

    op_stats: list[OpStats]
    graph: GraphStats


class Sequences:
    """The tree of op sequences.

    Attributes
    ----------
    root : Position
        Where steps begin.
    all : list of Position
        All other positions.
    """

    def __init__(self) -> None:
        self.root = Position(None)
        self.all: list[Position] = []
        self._leaves: dict[Leaf, int] = {}  # leaves on the path to `_numbered`, numbered by first use
        self._numbered = self.root
        self._lock = Lock()  # threads may share a profile, and numbering the leaves takes several statements

    def move(
        self, before: Position, stats: OpStats, node: Node, inputs: tuple[Any, ...], params: dict[str, Any]
    ) -> Position:
        """Return the position of an op that has run after the position ``before``."""
        with self._lock:
            return self._find(before, stats, node, inputs, params)

    def _find(
        self, before: Position, stats: OpStats, node: Node, inputs: tuple[Any, ...], params: dict[str, Any]
    ) -> Position:
        if before.depth >= MAX_DEPTH:
            before = self.root
        if self._numbered is not before:
            self._leaves = {}
            for position in reversed(list(before.path())):
                self._number(position.links)
        parents = node.parents or ()
        links = tuple([link(parent) for parent in parents])
        self._number(links)
        key = (stats, *[self._key(parent, found) for parent, found in zip(parents, links, strict=True)])
        if key not in before.children:
            made = before.children[key] = Position(stats, before, links)
            linked = {p.index for p, found in zip(node.spec.partials, links, strict=False) if found is not None}
            made.only_leaves = not any(type(found) is Position or found is UNKNOWN for found in links)
            constants = zip(range(len(inputs)), dtypes(inputs), stats.shapes, strict=False)
            made.constants = tuple([constant for constant in constants if constant[0] not in linked])
            if all(map(is_plain, params.values())):
                made.params = params
            made.settings = params
            made.graph_op = made.graph_op._replace(params=params, inputs=tuple(map(stand_in, inputs)))
            self.all.append(made)
        position = before.children[key]
        position.links, position.scope, position.module = links, stats.scope, stats.module
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
        """Release modules and leaves: the program may no longer use them."""
        with self._lock:
            for position in self.all:
                position.scope = position.module = None
                position.inputs = ()
                position.links = tuple([found if type(found) is Position else None for found in position.links])
            self._leaves, self._numbered = {}, self.root

    def grow_new_tree(self) -> None:
        """Forget all sequences except that of the current step."""
        self.root, self.all = Position(None), []


def link(parent: Any) -> Any:
    """Return the link of a parent: its position, a leaf, None, or UNKNOWN."""
    return getattr(parent, "_metadata", UNKNOWN) if type(parent) is Node else parent
