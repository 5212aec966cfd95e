"""The law on a model: the same gradient by five strategies, each run and counted.

Backprop takes about N + P steps: it visits each of the N nodes once and adds a gradient into each of the P
parameters. Starting over for each parameter takes up to N x P visits. `law` counts both.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from time import perf_counter
from typing import Any, Never

import numpy as np

from microfw.autograd.graph import Node, reachable
from microfw.autograd.mode import mode
from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError, GraphError, NonFiniteError, refuse_former
from microfw.law import strategies
from microfw.law.data import Law, LayerCost
from microfw.law.measure import CountingObserver, Problem
from microfw.law.scalar_graph import scalar_graph
from microfw.law.walk import record_walk
from microfw.nn.checks import as_generator
from microfw.nn.module import Module, Parameter
from microfw.optim.checks import is_integer, is_real
from microfw.profiler.cost_check import check_step, one_step
from microfw.profiler.node_count import NodeCount
from microfw.profiler.ratio import Ratio
from microfw.profiler.recorder.naming import owner, title_of
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
        ``loss(prediction, y)``, one number.
    X, y : array_like
        Data. The strategies use the first ``rows`` rows.
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
    model = copy.deepcopy(model).astype(np.float64).eval()
    if isinstance(loss, Module):
        loss = copy.deepcopy(loss).eval()
    if not len(X):
        raise ArgumentError("law", "rows in X", "none")
    batch = min(32, len(X)) if batch is None else batch
    for argument, value in (("rows", rows), ("batch", batch)):
        if not (is_integer(value, 1) and value <= len(X)):
            raise ArgumentError("law", f"{argument} from 1 to {len(X)}, the rows of X", repr(value))
    if not (is_real(budget) and 0 < budget < np.inf):
        raise ArgumentError("law", "a budget of some seconds", repr(budget))
    X, y = _first(X, max(rows, batch)), _first(y, max(rows, batch))
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    if not named:
        got = f"{type(model).__name__}, which has none"
        raise ArgumentError("law", "a model with trainable parameters", got, "pass model, loss, X, y in this order")
    few = X[:rows], y[:rows]
    problem = Problem(lambda: loss(model(few[0]), few[1]), [], budget, as_generator("law", rng))
    with mode(observer=None, timer=None, recording=True):  # a profile around it is of its own steps only
        return _measure(problem, model, loss, name, few, (X[:batch], y[:batch]), named, max_nodes)


def _measure(
    problem: Problem,
    model: Module,
    loss: Callable[[Any, Any], Tensor],
    name: str,
    few: tuple[Any, Any],
    batch: tuple[Any, Any],
    named: list[tuple[str, Parameter]],
    max_nodes: int,
) -> Law:
    """Run the strategies on few rows, and count a batch; see `law`."""
    leaves = {leaf for node in reachable(_check(problem)._node) for leaf in node.parents or ()}
    unused = [n for n, p in named if p._node not in leaves]
    named = [(n, p) for n, p in named if p._node in leaves]
    if not named:
        raise ArgumentError("law", "a loss that depends on a parameter of the model", "none", "use the model's output")
    problem.parameters = [p for _, p in named]
    result, counter, end = strategies.backprop(problem)
    if not np.isfinite(problem.gradient).all():
        raise NonFiniteError("law", "a finite gradient", "NaN or infinity", "start away from singular points")
    found = Law(name, _describe(model), len(few[0]), end.item(), problem.budget)
    nodes = reachable(end._node)
    found.counts.append(_count("tensors", nodes, len(named), counter))
    found.batch = len(batch[0])
    found.batch_counts = one_step(model, *batch, loss).counts()
    step = one_step(model, *few, loss)
    problem.forward_operations = step.sum().flops_forward
    found.ratio = _time(step.ratio(), problem)
    found.layers = _layers(step, named, model)
    found.ways = [result, strategies.forward_mode(problem)]
    found.ways += [strategies.differences(problem, central) for central in (True, False)]
    scalars = _run_on_scalars(found, problem, step.counts()[1:], max_nodes)
    if unused:
        found.note = "; ".join(filter(None, [found.note, f"not in P, since they get no gradient: {', '.join(unused)}"]))
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
        return None
    if not abs(graph.loss.item() - found.loss) <= 1e-9 * max(1.0, abs(found.loss)):
        raise GraphError("law", f"the scalar graph to compute the loss {found.loss}", graph.loss.item())
    result, counter = strategies.scalar_backprop(problem, graph)
    found.counts.append(_count("scalars", graph.nodes, problem.size, counter))
    found.counts[-1].operations = found.ratio.forward + found.ratio.backward
    found.paths = strategies.count_paths(graph.loss._node)[0]
    found.ways += [result, strategies.chain_rule(problem, graph), strategies.path_recursion(problem, graph)]
    return graph.loss


def _first(data: Any, rows: int) -> Any:
    array = np.asarray(data)[:rows]
    return array.astype(np.float64) if array.dtype.kind == "f" else array


def _check(problem: Problem) -> Tensor:
    """Return the loss; raise unless it is one finite number that is the same when computed again."""
    ends = [problem.loss() for _ in range(2)]
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


def _layers(step: Epoch, named: list[tuple[str, Any]], model: Module) -> list[LayerCost]:
    layers = {
        row.layer: LayerCost(row.layer, "", 0, row.flops_forward, row.flops_backward, row.scalar_accumulated or None)
        for row in step.layers()
    }
    modules, title = dict(model.named_modules()), title_of(model)
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
