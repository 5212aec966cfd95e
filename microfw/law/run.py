"""The law on a model: the same gradient by five strategies, each run and counted.

Backprop takes about N + P steps: it visits each of the N nodes once and adds a gradient into each of the P
parameters. Starting over for each parameter takes up to N x P visits. `law` counts both.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, Never

import numpy as np

from microfw.autograd.graph import Leaf, Node, reachable
from microfw.autograd.mode import mode
from microfw.autograd.state_discovery import find_state
from microfw.autograd.tensor import Tensor
from microfw.data.arrays import as_array
from microfw.data.nested import Columns, as_columns, flatten, same_rows
from microfw.errors import ArgumentError, DTypeError, GraphError, NonFiniteError, ShapeError, refuse_former
from microfw.law import strategies
from microfw.law.data import Law, LayerCost
from microfw.law.measure import CountingObserver, Problem
from microfw.law.scalar_graph import scalar_graph
from microfw.law.walk import record_walk
from microfw.nn.forward_state import as_generator
from microfw.nn.module import Module
from microfw.nn.parameter import Parameter
from microfw.optim.checks import is_integer, is_real
from microfw.profiler.cost_check import check_step, copied, not_copied, one_step, prepared, total_loss
from microfw.profiler.node_count import NodeCount
from microfw.profiler.ratio import Ratio
from microfw.profiler.recorder.naming import OUTSIDE_PREFIX, owner, title_of
from microfw.profiler.reports.counts import undeclared
from microfw.profiler.session import Epoch


def law(
    model: Module,
    loss: Callable[[Any, Any], Tensor],
    X: Any,
    y: Any,
    *,
    rows: int = 1,
    batch: int | None = None,
    budget: float = 10.0,
    max_nodes: int = 200_000,
    rng: int | np.random.Generator = 0,
    name: str = "",
    **former: Never,
) -> Law:
    """Compute the gradient of a model by five strategies, and count the cost of each.

    The strategies: backprop; forward mode, one pass for each parameter; differences, central and one-sided; the chain
    rule for each parameter, without reuse; and a recursion over paths. All run on a copy of the model, in float64 and
    in evaluation mode, so that the loss is a function of the parameters.

    Parameters
    ----------
    model : Module
        Model, called with ``X``.
    loss : callable
        ``loss(prediction, y)``, one number, or a dict of such numbers, which are added. The parameters of a Module are
        trained, too.
    X, y : array_like, or tuple or dict of them
        Data, as `Trainer.fit` takes them. The strategies use the first ``rows`` rows. ``y`` may be None.
    rows : int
        Number of rows.
    batch : int
        Rows of a batch, for which N, P and steps are counted too, without running the strategies; by default 32, or
        all rows of ``X`` if there are fewer.
    budget : float
        Seconds for a strategy. A slower strategy is run for a random sample of at least 30 parameters, with some from
        every layer. Its counts and seconds are then extrapolated, with 95 % intervals.
    max_nodes : int
        Leave out the scalar graph, and the two strategies that need it, if it has more nodes than this.
    rng : int or numpy.random.Generator
        Draws the samples.
    name : str
        Name of the data in the report.

    Returns
    -------
    Law

    Raises
    ------
    ArgumentError
        If the model has no trainable parameters, or ``rows``, ``batch`` or ``budget`` is out of range.
    GraphError
        If the loss is not one number, or differs when it is computed again.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> model = nn.Sequential(nn.Dense(3, 4, rng=0), nn.Tanh(), nn.Dense(4, 2, rng=1))
    >>> found = law(model, nn.CrossEntropyLoss(), np.array([[0.1, 0.2, 0.3]]), np.array([1]))
    >>> [(w.name, w.forwards) for w in found.ways][:4]
    [('backprop', 1), ('forward mode', 1), ('central differences', 52), ('one-sided differences', 27)]
    >>> all(w.difference < 1e-6 for w in found.ways)
    True
    """
    refuse_former("law", former, most_nodes="max_nodes")
    check_step("law", model, y, loss)
    model, loss = copied("law", model, loss)
    model.astype(np.float64).eval()
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    if not named:
        got = f"{type(model).__name__}, which has none"
        raise ArgumentError("law", "a model with trainable parameters", got, "pass model, loss, X, y in this order")
    if isinstance(loss, Module):
        loss.astype(np.float64).eval()
        known = {id(p) for p in model.parameters()}  # a loss may hold the model
        own = [(n, p) for n, p in loss.named_parameters() if p.requires_grad and id(p) not in known]
        named += [(f"{OUTSIDE_PREFIX}{type(loss).__name__}.{n}", p) for n, p in own]
    parts = {"X": _columns(X, "X")} | ({} if y is None else {"y": _columns(y, "y")})
    if not len(parts["X"]):
        raise ArgumentError("law", "rows in X", "none")
    n = same_rows("law", **parts)
    batch = min(32, n) if batch is None else batch
    for argument, value in (("rows", rows), ("batch", batch)):
        if not (is_integer(value, 1) and value <= n):
            raise ArgumentError("law", f"{argument} from 1 to {n}, the rows of X", repr(value))
    if not (is_real(budget) and 0 < budget < np.inf):
        raise ArgumentError("law", "a budget of some seconds", repr(budget))
    if not is_integer(max_nodes, 1):
        raise ArgumentError("law", "max_nodes to be a positive integer", repr(max_nodes))
    if not isinstance(name, str):
        raise ArgumentError("law", "name to be a text", repr(name))
    sizes = rows, batch
    few, many = ((_first(parts["X"], "X", k), _first(parts.get("y"), "y", k)) for k in sizes)
    call = prepared(model, few[0])
    problem = Problem(lambda: total_loss(loss(call(), few[1])), [], budget, as_generator("law", rng))
    with mode(observer=None, timer=None, recording=True):  # a profile around it is of its own steps only
        return _measure(problem, model, loss, name, few, many, sizes, named, max_nodes)


def _measure(
    problem: Problem,
    model: Module,
    loss: Callable[[Any, Any], Tensor],
    name: str,
    few: tuple[Any, Any],
    batch: tuple[Any, Any],
    sizes: tuple[int, int],
    named: list[tuple[str, Parameter]],
    max_nodes: int,
) -> Law:
    """Run the strategies on few rows, and count a batch; see `law`."""
    leaves = {leaf for node in reachable(_check(problem, (model, loss))._node) for leaf in node.parents or ()}
    if other := [_title(leaf) for leaf in leaves - {p._node for _, p in named} if isinstance(leaf, Leaf)]:
        raise not_copied("law", other)
    unused = [n for n, p in named if p._node not in leaves]
    named = [(n, p) for n, p in named if p._node in leaves]
    if not named:
        raise ArgumentError("law", "a loss that depends on a parameter of the model", "none", "use the model's output")
    problem.parameters = [p for _, p in named]
    result, counter, end = strategies.backprop(problem)
    if not np.isfinite(problem.gradient).all():
        raise NonFiniteError("law", "a finite gradient", "NaN or infinity", "start away from singular points")
    found = Law(name, _describe(model), sizes[0], end.item(), problem.budget)
    nodes = reachable(end._node)
    found.counts.append(_count("tensors", nodes, len(named), counter))
    found.batch = sizes[1]
    found.batch_counts = one_step(model, *batch, loss).counts()
    step = one_step(model, *few, loss)
    problem.forward_operations = step.sum().flops_forward
    found.ratio = _time(step.ratio(), problem)
    found.layers = _layers(step, named, model, loss)
    found.ways = [result, strategies.forward_mode(problem)]
    found.ways += [strategies.differences(problem, central) for central in (True, False)]
    scalars = _run_on_scalars(found, problem, step.counts()[1:], max_nodes)
    notes = [found.note]
    if unused:
        notes.append(f"not in P, since they get no gradient: {', '.join(unused)}")
    if len(step.counts()) > len(found.batch_counts):
        notes.append(f"the batch of {sizes[1]:,} rows has too many scalar nodes to be counted")
    if text := undeclared(step):
        notes.append(text[:1].lower() + text[1:-1])
    if problem.vanishes:
        notes.append("the gradient is zero up to rounding, so differences are relative to the largest one of a node")
    found.note = "; ".join(filter(None, notes))
    found.walk = record_walk(problem.loss, model, scalars)
    return found


def _run_on_scalars(found: Law, problem: Problem, expected: list[NodeCount], max_nodes: int) -> Tensor | None:
    """Add the strategies on the scalar graph; return the loss with that graph, None if the graph is left out."""
    n = expected[0].N if expected else 0
    if n > max_nodes:
        found.note = (
            f"the scalar graph is left out: it would have {n:,} nodes (predicted), more than {max_nodes:,}; take "
            "fewer rows, a smaller model, or raise max_nodes"
        )
        found.counts += expected
        return None
    try:
        graph = scalar_graph(problem.loss, problem.parameters, CountingObserver())
    except GraphError as error:
        found.note = f"the scalar graph is left out: {error}"
        found.counts += expected
        return None
    if not abs(graph.loss.item() - found.loss) <= 1e-9 * max(1.0, abs(found.loss)):
        raise GraphError("law", f"the scalar graph to compute the loss {found.loss}", graph.loss.item())
    result, counter = strategies.scalar_backprop(problem, graph)
    found.counts.append(_count("scalars", graph.nodes, problem.size, counter))
    if n not in (0, found.N):
        found.note = f"an op tests values: N is {found.N:,} on these, and {n:,} on usual ones, as in profiles"
    found.counts[-1].operations = found.ratio.forward + found.ratio.backward
    found.paths = strategies.count_paths(graph.loss._node)[0]
    found.ways += [result, strategies.chain_rule(problem, graph), strategies.path_recursion(problem, graph)]
    return graph.loss


def _columns(data: Any, name: str) -> Columns:
    """Return the arrays of data, each with a row for each example."""
    template, leaves, paths = flatten(data)
    arrays = [as_array(leaf, f"{name}/{path}" if path else name) for leaf, path in zip(leaves, paths, strict=True)]
    if not arrays or not all(array.ndim for array in arrays):
        raise ShapeError("law", f"arrays in {name}, with a row for each example", type(data).__name__)
    return Columns(template, arrays, paths)


def _first(columns: Columns | None, name: str, rows: int) -> Any:
    """Return the first rows of data, with floats in float64."""
    return columns and as_columns(columns[:rows].tree, name, np.float64, "law", features=False).tree


def _check(problem: Problem, parts: tuple[Module, Any]) -> Tensor:
    """Return the loss; raise unless it is one finite number that is the same when computed again."""
    try:
        ends = [problem.loss() for _ in range(2)]
    except DTypeError as error:
        other = [t for t in find_state(parts)[1] if t.requires_grad and t.dtype != np.float64]
        raise (not_copied("law", map(_title, other)) if other else error) from None
    for end in ends:
        if not isinstance(end, Tensor) or end.size != 1 or not isinstance(end._node, Node):
            got = f"shape {end.shape}" if isinstance(end, Tensor) else type(end).__name__
            raise GraphError("law", "a loss of one number that depends on the parameters", got)
    if not np.isfinite(ends[0].item()):
        raise NonFiniteError("law", "a finite loss", ends[0].item(), "look at the data and the parameters")
    if ends[0].item() != ends[1].item():
        raise GraphError(
            "law", f"a loss that is {ends[0].item()} each time", ends[1].item(), "let nothing in it be random"
        )
    return ends[0]


def _title(array: Any) -> str:
    return f"a trained array of shape {array.shape}"


def _describe(model: Module) -> str:
    parts = [m for n, m in model.named_modules() if n] or [model]
    inside = [f"{type(m).__name__}({m.extra_repr()})" if m.extra_repr() else type(m).__name__ for m in parts]
    return ", ".join(inside if len(inside) <= 6 else [*inside[:3], f"{len(inside) - 5} more", *inside[-2:]])


def _count(kind: str, nodes: list[Node], P: int, counter: CountingObserver) -> NodeCount:
    edges = sum(len(n.edges or ()) for n in nodes)
    return NodeCount(kind, len(nodes), P, counter.vjp_calls, counter.grad_accumulations, edges)


def _time(ratio: Ratio, problem: Problem) -> Ratio:
    """Add the seconds of forward and backward."""
    times: list[tuple[float, float]] = []
    while len(times) < 50 and sum(map(sum, times)) < 0.1:
        start = perf_counter()
        end = problem.loss()
        middle = perf_counter()
        end.backward()
        times.append((middle - start, perf_counter() - middle))
    for p in problem.parameters:
        p.grad = None
    ratio.forward_seconds, ratio.backward_seconds = (min(t) for t in zip(*times, strict=True))
    return ratio


def _layers(step: Epoch, named: list[tuple[str, Any]], model: Module, loss: Any) -> list[LayerCost]:
    layers = {
        row.layer: LayerCost(row.layer, "", 0, row.flops_forward, row.flops_backward, row.scalar_accumulated or None)
        for row in step.layers()
    }
    modules, title = dict(model.named_modules()), title_of(model)
    if isinstance(loss, Module):
        top = f"{OUTSIDE_PREFIX}{type(loss).__name__}"
        modules |= {f"{top}.{n}" if n else top: part for n, part in loss.named_modules()}
    owners = {id(p): owner(name, modules) or title for name, p in named}
    for _, p in named:
        layers.setdefault(owners[id(p)], LayerCost(owners[id(p)])).parameters += p.size
    modules[title] = modules.pop("")
    for row in layers.values():
        values = vars(modules[row.layer]).values() if row.layer in modules else ()
        shared = {id(p): p.size for p in values if owners.get(id(p), row.layer) != row.layer}
        row.used = row.parameters + sum(shared.values())
        row.kind = type(modules[row.layer]).__name__ if row.layer in modules and row.layer != title else ""
    return list(layers.values())
