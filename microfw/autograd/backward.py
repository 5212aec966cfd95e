"""The backward pass: gradients go from the loss to the leaves, and each node is visited once.

A node is visited when all nodes that used its output have been visited.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from heapq import heappop, heappush, heappushpop
from time import perf_counter_ns
from typing import Any

from microfw.autograd.graph import Leaf, Node, nodes_between
from microfw.autograd.mode import MODE
from microfw.autograd.types import Gradient, Partial
from microfw.errors import GraphError, ShapeError

# Entries that an observer gets at once. Every third one is a node, which stays in memory until then.
MAX_TIMES = 3000

AsDifferentiable = Callable[[Node, Partial, tuple[Any, ...]], tuple[Any, ...]]
"""Turns the values that an edge saved into Tensors connected to the graph."""


def backward_pass(
    seeds: Iterable[tuple[Node | Leaf, Gradient]],
    *,
    targets: Collection[Node | Leaf] | None = None,
    since: int = 0,
    visit: Callable[..., list[Gradient]] | None = None,
    retain: bool = False,
) -> dict[Node | Leaf, Gradient]:
    """Carry gradients from the seeds to the leaves, visiting each node once, the newest first.

    Parameters
    ----------
    seeds : iterable of (node or leaf, gradient)
        Where to start, and the gradient with respect to each.
    targets : collection of nodes and leaves, optional
        Whose gradients to return; all leaves if not given. Only nodes that lead to a target are visited.
    since : int
        Nodes recorded before this one are not visited.
    visit : callable, optional
        Called in the place of `visit_edges`, with its first five arguments: to record the pass, so that it can be
        differentiated again, or to capture it. The graph is then retained.
    retain : bool
        Keep the saved values for another backward pass.

    Returns
    -------
    dict
        The gradient of each leaf (or target) reached. Nothing else is left behind.

    Raises
    ------
    GraphError
        If an earlier backward pass has freed the graph, or a saved array was written to since.
    ShapeError
        If an op's derivative has a shape that does not fit the op's input.
    """
    observer = MODE.get().observer
    if observer is not None and not observer.enabled:
        observer = None
    needed = None if targets is None else nodes_between(seeds := list(seeds), targets, since)
    free = visit is None and not retain
    generated = visit is None and (observer is None or not observer.wants_grad_inputs)
    grads: dict[Node | Leaf, Gradient] = {}
    found: dict[Node | Leaf, Gradient] = {}
    # A chain of nodes, as in most models, never touches the heap: that halves the time of finding the next node.
    ready: list[Node] = []  # nodes just reached
    heap: list[tuple[int, Node]] = []  # nodes reached before, by number, the newest first
    for root, seed in seeds:
        if root in grads:
            grads[root] = grads[root] + seed
        elif needed is None or root in needed:
            grads[root] = seed
            if type(root) is Node:
                ready.append(root)
    times: list[Any] = []  # for an observer: node, start, end; dropped if the pass fails, which is not counted
    start_ns, grad_inputs = 0, None
    # A node is recorded after its inputs: from the newest to the oldest, each gradient is complete when its node
    # is visited. A loop, so that depth is limited by memory alone.
    while ready or heap:
        if observer is not None:
            start_ns = perf_counter_ns()
        if not ready:
            node = heappop(heap)[1]
        else:
            node = ready.pop()
            if ready or heap:
                node = _newest(node, ready, heap)
        g = grads.pop(node)
        if node.parents is None:
            raise _freed_error(node)
        if node.spec.hooked:
            g = _run_hooks(node, g, free)
        if targets is not None and node in targets:
            found[node] = g
        try:
            if generated:
                node.spec.backward_fn(node, g, grads, ready, needed)
            else:
                grad_inputs = (visit or visit_edges)(node, g, grads, ready, needed)
        except Exception as error:
            explain_failure(node, error)
            raise
        for leaf, version in node.saved_versions:  # another thread, too, may have written while the rules read
            if leaf.version != version:
                raise stale_error(node, leaf, version)
        if observer is not None:
            if observer.batches_visits:
                times += (node, start_ns, perf_counter_ns())
                if len(times) > MAX_TIMES:
                    observer.on_visits(times)
                    times.clear()
            else:
                observer.backward(node, g, grad_inputs, start_ns)
        if free:
            node.parents = None
            node.saved = ()
    if times:
        observer.on_visits(times)  # type: ignore[union-attr]
    return found | grads if found else grads


def _newest(node: Node, ready: list[Node], heap: list[tuple[int, Node]]) -> Node:
    """Return the newest of several nodes; the others go to the heap."""
    for other in ready:
        heappush(heap, (-other.order, other))
    ready.clear()
    return heappushpop(heap, (-node.order, node))[1]


def _run_hooks(node: Node, g: Gradient, free: bool) -> Gradient:
    """Return a node's gradient as its hooks replace it; remove the hooks if the node is freed."""
    g = node.hooks(g)
    if free:
        node.hooks.clear()
    return g


def visit_edges(
    node: Node,
    g: Gradient,
    grads: dict[Node | Leaf, Gradient],
    ready: list[Node],
    needed: Collection[Node | Leaf] | None,
    as_differentiable: AsDifferentiable | None = None,
) -> list[Gradient]:
    """Call the derivative of each edge of a node, add the results to the parents' gradients, and return them.

    `codegen` writes the same out for each op. This loop is for nodes of no op, for backward passes that are recorded,
    and for observers that want each input gradient.
    """
    grad_inputs = []
    for parent, partial, args in node.edges or ():
        if needed is None or parent in needed:
            if as_differentiable is not None:
                args = as_differentiable(node, partial, args)
            grad_inputs.append(accumulate(node, parent, partial.vjp(g, *args), grads, ready))
    return grad_inputs


def accumulate(
    node: Node, parent: Node | Leaf, grad_input: Gradient, grads: dict[Node | Leaf, Gradient], ready: list[Node]
) -> Gradient:
    """Add a node's input gradient to the gradient of the parent; return it in the parent's shape."""
    if grad_input.shape != parent.shape:
        grad_input = unbroadcast(grad_input, parent.shape, node)
    if parent in grads:
        grads[parent] = grads[parent] + grad_input
    else:
        grads[parent] = grad_input
        if type(parent) is Node:
            ready.append(parent)
    return grad_input


def unbroadcast(g: Gradient, shape: tuple[int, ...], node: Node | None = None) -> Gradient:
    """Sum a gradient over the axes along which NumPy repeated an input of the given shape."""
    extra = len(g.shape) - len(shape)
    axes = tuple(range(extra)) + tuple(
        extra + i for i, n in enumerate(shape) if n == 1 and g.shape[extra + i : extra + i + 1] != (1,)
    )
    if extra >= 0 and all(n in (1, m) for n, m in zip(shape, g.shape[extra:], strict=True)):
        return g.sum(axis=axes).reshape(shape)
    where = "" if node is None else f"{node.where}: "
    raise ShapeError(
        f"{where}the derivative rule gave shape {g.shape} for an input of shape {shape}; "
        "a rule must return the input's shape, or the shape to which it was broadcast"
    )


def stale_error(node: Node, leaf: Leaf, version: int) -> GraphError:
    """Return the error for a saved array that was written to after the forward pass."""
    return GraphError(
        f"{node.where}: {leaf.where} was written to after this step's forward pass used it "
        f"(version {version} then, {leaf.version} now), so its old value is gone; "
        "call backward before you change it, or compute the loss again"
    )


def _freed_error(node: Node) -> GraphError:
    return GraphError(
        f"{node.where}: backward has already run through this graph, and its saved values are freed; "
        "call backward(retain_graph=True) the first time, compute the loss again, "
        "or detach() what an earlier step computed"
    )


def explain_failure(node: Node, error: Exception) -> None:
    """Raise the cause of an error in a derivative rule if it is known: a write, or a rule that returns no array."""
    for leaf, version in node.saved_versions:
        if leaf.version != version:
            raise stale_error(node, leaf, version) from error
    if isinstance(error, AttributeError) and error.name == "shape":
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        if trace is not None and trace.tb_frame.f_code.co_name in ("_backward", "accumulate"):  # not within the rule
            got = f"{type(error.obj).__name__}; multiply by g, or use np.full_like"
            raise GraphError(f"{node.where}: expected the derivative rule to return an array, got {got}") from error
