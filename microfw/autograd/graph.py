"""The graph: nodes, leaves, and the one backward walk.

A node is one application of an op; a leaf is where a gradient arrives. A node's edges hold, for each
input that needs a gradient, the input's node or leaf, the op's partial derivative for that input, and
the values that the derivative needs. So the record of a computation is its chain rule, ready to run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from heapq import heappop, heappush, heappushpop
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from microfw.autograd.failures import cause, stale
from microfw.autograd.leaf import Gradient as Gradient
from microfw.autograd.leaf import Leaf as Leaf
from microfw.autograd.leaf import Variable as Variable
from microfw.autograd.leaf import numbers as numbers
from microfw.autograd.mode import MODE, Scope, place
from microfw.errors import GraphError, ShapeError

if TYPE_CHECKING:
    from microfw.autograd.op import Op, Partial

MAX_TIMES = 3000
"""How many entries an observer is notified of at once: each third one is a node, which stays in memory until then."""

Edge = tuple["Node | Leaf", "Partial", tuple[Any, ...]]


class Form:
    """An op applied to so many inputs: what its nodes have in common.

    Attributes
    ----------
    op : Op
        The op.
    partials : tuple of Partial
        Its derivatives, one for each of a node's parents.
    places : tuple of tuple of int
        For each of them, where its arguments are in what a node saved.
    pull : callable
        Walks back over a node, as `record` has written it.
    """

    __slots__ = ("op", "partials", "places", "pull")

    def __init__(self, op: Op, partials: tuple[Partial, ...], places: tuple[tuple[int, ...], ...]) -> None:
        self.op = op
        self.partials = partials
        self.places = places
        self.pull: Callable[..., None] = pull


class Node:
    """One application of an op.

    Attributes
    ----------
    order : int
        Nodes are numbered as they are recorded.
    form : Form
        The op, and its derivatives.
    parents : tuple or None
        The node or leaf of each input that has a derivative, or None where no gradient is needed. None once
        a walk has freed the node.
    saved : tuple
        The values that the derivatives need.
    guards : list of (leaf, version)
        The leaves whose arrays were saved, with the version that they had.
    scope : tuple or None
        The module that was being called, and those that called it; see `recording.Scope`.
    """

    __slots__ = ("_note", "_params", "form", "guards", "order", "parents", "saved", "scope", "shape")
    order: int
    form: Form
    parents: tuple[Node | Leaf | None, ...] | None
    saved: tuple[Any, ...]
    shape: tuple[int, ...]
    scope: Scope | None
    _params: dict[str, Any]
    _note: Any
    guards: tuple[tuple[Leaf, int], ...]

    @property
    def op(self) -> Op:
        """The op."""
        return self.form.op

    @property
    def edges(self) -> list[Edge] | None:
        """An edge for each input that needs a gradient; None once a walk has freed them."""
        if self.parents is None:
            return None
        found = zip(self.parents, self.form.partials, self.form.places, strict=True)
        return [(parent, p, tuple(self.saved[k] for k in places)) for parent, p, places in found if parent is not None]

    @property
    def inputs(self) -> tuple[Any, ...]:
        """All input arrays; kept only for ops that save more than inputs and output."""
        inputs: tuple[Any, ...] = self.saved[-1] if self.saved and self.op.aux else ()
        return inputs

    # Slots that are filled only where they are needed, which saves time in all the others.

    @property
    def params(self) -> dict[str, Any]:
        """The op's keyword parameters."""
        return getattr(self, "_params", {})

    @property
    def note(self) -> Any:
        """Whatever an observer wants to remember."""
        return getattr(self, "_note", None)

    @note.setter
    def note(self, value: Any) -> None:
        self._note = value

    @property
    def where(self) -> str:
        """The op's name, with the layer that recorded it."""
        return place(self.scope, self.op.name)


def walk(
    seeds: Iterable[tuple[Node | Leaf, Gradient]],
    *,
    targets: Collection[Node | Leaf] | None = None,
    since: int = 0,
    relink: Callable[[Node, Partial, tuple[Any, ...]], tuple[Any, ...]] | None = None,
    retain: bool = False,
) -> dict[Node | Leaf, Gradient]:
    """Carry gradients from the seeds to the leaves, visiting each node once, newest first.

    A node is visited when all that used its output has been visited, because whatever uses a value is
    recorded after it. There is no recursion: depth is bounded by memory alone. What is done at a node `record`
    writes out for each op: broadcasting is undone there, shapes are checked and shares are added up.

    Parameters
    ----------
    seeds : iterable of (node or leaf, gradient)
        Where to start, and the gradient with respect to each.
    targets : collection of nodes and leaves, optional
        Whose gradients are wanted; all leaves if not given. Only nodes that lead to one are visited.
    since : int
        Nodes recorded earlier than this are not visited.
    relink : callable, optional
        Turns the values that an edge saved into Tensors tied to the graph, so that the walk itself is
        recorded and can be differentiated again. The graph is then retained.
    retain : bool
        Keep the saved values for another walk.

    Returns
    -------
    dict
        The gradient of each leaf (or target) reached. Nothing else is left behind.

    Raises
    ------
    GraphError
        If the graph was freed by an earlier walk, or a saved array was written to since.
    ShapeError
        If an op's derivative has a shape that does not fit the op's input.
    """
    observer = MODE.get().observer
    if observer is not None and not observer.enabled:
        observer = None
    only = None if targets is None else leading(seeds := list(seeds), targets, since)
    free = relink is None and not retain
    watched = observer is not None and observer.collects
    plain = relink is None and not watched
    arrived: dict[Node | Leaf, Gradient] = {}
    found: dict[Node | Leaf, Gradient] = {}
    todo: list[Node] = []  # nodes just reached
    heap: list[tuple[int, Node]] = []  # and those that wait for newer ones
    for root, seed in seeds:
        if only is not None and root not in only:
            continue
        if root in arrived:
            arrived[root] = arrived[root] + seed
        else:
            arrived[root] = seed
            if type(root) is Node:
                todo.append(root)
    began = 0
    times: list[Any] = []  # for an observer: node, began, ended
    batches = observer is not None and observer.batches and not watched
    try:
        while todo or heap:
            if observer is not None:
                began = perf_counter_ns()
            if not todo:
                node = heappop(heap)[1]
            else:
                node = todo.pop()
                if todo or heap:
                    for other in todo:
                        heappush(heap, (-other.order, other))
                    todo.clear()
                    node = heappushpop(heap, (-node.order, node))[1]
            g = arrived.pop(node)
            if node.parents is None:
                raise GraphError(
                    f"{node.where}: this graph was already walked and its saved values are freed; "
                    "call backward(retain_graph=True) the first time, or compute the loss again"
                )
            if targets is not None and node in targets:
                found[node] = g
            shares: list[Gradient] | None = [] if watched else None
            try:
                if plain:
                    node.form.pull(node, g, arrived, todo, only)
                else:
                    pull(node, g, arrived, todo, only, relink, shares)
            except Exception as error:
                told = cause(node, error)
                if told is error:
                    raise
                raise told from error
            for leaf, version in node.guards:  # another thread, too, may have written while the rules read
                if leaf.version != version:
                    raise stale(node, leaf, version)
            if observer is not None:
                if batches:
                    times += (node, began, perf_counter_ns())
                    if len(times) > MAX_TIMES:
                        observer.walked(times)
                        times.clear()
                else:
                    observer.backward(node, g, shares, began)
            if free:
                node.parents = None
                node.saved = ()
    finally:
        if times:
            observer.walked(times)  # type: ignore[union-attr]
    return found | arrived if found else arrived


def pull(
    node: Node,
    g: Gradient,
    arrived: dict[Node | Leaf, Gradient],
    todo: list[Node],
    only: Collection[Node | Leaf] | None,
    relink: Callable[[Node, Partial, tuple[Any, ...]], tuple[Any, ...]] | None = None,
    shares: list[Gradient] | None = None,
) -> None:
    """Walk back over a node: what `record` writes out for each op, as a loop.

    For nodes that no op has made, and where the walk is recorded or its shares are looked at.
    """
    for parent, partial, args in node.edges or ():
        if only is not None and parent not in only:
            continue
        share = partial.vjp(g, *(args if relink is None else relink(node, partial, args)))
        share = deliver(node, parent, share, arrived, todo)
        if shares is not None:
            shares.append(share)


def deliver(
    node: Node, parent: Node | Leaf, share: Gradient, arrived: dict[Node | Leaf, Gradient], todo: list[Node]
) -> Gradient:
    """Add a share of a gradient, from a node, to what has arrived at a parent; return it in the parent's shape."""
    if share.shape != parent.shape:
        share = unbroadcast(share, parent.shape, node)
    if parent in arrived:
        arrived[parent] = arrived[parent] + share
    else:
        arrived[parent] = share
        if type(parent) is Node:
            todo.append(parent)
    return share


def reachable(*roots: Node | Leaf | None, since: int = 0, beyond: Collection[Node | Leaf | None] = ()) -> list[Node]:
    """Return the nodes that a walk from the roots would visit, themselves included, oldest first.

    It stops at nodes recorded before ``since``, and at those ``beyond``.
    """
    found: set[Node] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if type(node) is Node and node not in found and node.order >= since and node not in beyond:
            found.add(node)
            stack.extend(node.parents or ())
    return sorted(found, key=lambda n: n.order)


def reaches_outside(roots: Iterable[Any], since: int, own: Collection[Any]) -> bool:
    """Return True if the roots depend on what was recorded before ``since``, or on a leaf that is not among ``own``."""
    stack = [root for root in roots if root is not None]
    seen: set[Any] = set()
    while stack:
        node = stack.pop()
        if type(node) is Leaf:
            if node not in own:
                return True
        elif node.order < since:
            return True
        elif type(node) is Node and node not in seen:
            seen.add(node)
            stack += [parent for parent in node.parents or () if parent is not None]
    return False


def leading(
    seeds: Iterable[tuple[Node | Leaf, Gradient]], targets: Collection[Node | Leaf], since: int
) -> set[Node | Leaf]:
    """Return the targets, and the nodes between the seeds and them."""
    found = set(targets)
    for node in reachable(*(root for root, _ in seeds), since=since):
        if node.parents is None or any(parent in found for parent in node.parents):
            found.add(node)
    return found


def unbroadcast(g: Gradient, shape: tuple[int, ...], node: Node) -> Gradient:
    """Sum a gradient over the axes along which NumPy repeated an input of the given shape."""
    extra = len(g.shape) - len(shape)
    axes = tuple(range(extra)) + tuple(
        extra + i for i, n in enumerate(shape) if n == 1 and g.shape[extra + i : extra + i + 1] != (1,)
    )
    if extra >= 0 and all(n in (1, m) for n, m in zip(shape, g.shape[extra:], strict=True)):
        return g.sum(axis=axes).reshape(shape)
    raise ShapeError(
        f"{node.where}: the derivative rule gave shape {g.shape} for an input of shape {shape}; "
        "a rule must return the input's shape, or one that broadcasting made of it"
    )
