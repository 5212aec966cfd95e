"""The scalar graph: each op on scalars, counts by hand, samples and their intervals."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.autograd.graph import reachable
from microfw.law.measure import CountingObserver, Problem, StrategyResult, peak
from microfw.law.parameter_sample import sampling_order, strata_of, total
from microfw.law.report import margins
from microfw.law.scalar_graph import scalar_graph
from microfw.law.strategies import chain_rule, count_paths, path_recursion, scalar_backprop
from microfw.law.sweeps import fit_power_law
from microfw.ops import elementwise
from microfw.profiler import law, sweep
from tests.cases.ops import DIFFERENTIABLE, title
from tests.helpers.law_models import X4, dense
from tests.helpers.thinning import thinned

# The scalar graph


def computes(case, sample):
    """Whether there is a number in what goes in and in what comes out."""
    arrays = sample.arranged()
    return all(np.size(x) for x in arrays) and case.op.call(*arrays, **sample.params).size


WHOLE = ("inv", "solve", "det", "slogdet", "cholesky")  # no loop over entries of objects


@pytest.mark.parametrize(
    ("case", "sample"), thinned([pair for pair in DIFFERENTIABLE if computes(*pair)], 4), ids=title
)
def test_each_op_runs_on_scalars(case, sample):
    function, inputs = case.call(sample)
    tensors = [mf.tensor(x, requires_grad=True) for x in inputs]

    def loss():
        return np.sum(np.square(function(*tensors)))

    if case.name in WHOLE:
        with pytest.raises(
            mf.errors.GraphError, match=f"^{case.name}: expected an op that can be computed with scalars"
        ):
            scalar_graph(loss, tensors)
        return
    end = loss()
    graph = scalar_graph(loss, tensors)
    np.testing.assert_allclose(graph.loss.data, end.data, rtol=1e-12)
    end.backward()
    graph.loss.backward()
    expected = np.concatenate([np.ravel(t.grad) for t in tensors])
    got = np.array([0.0 if leaf.grad is None else leaf.grad for leaf in graph.leaves])
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-12)
    for node in reachable(graph.loss._node):
        assert node.shape == ()


def test_an_op_that_takes_no_objects_is_run_entry_by_entry():
    x = mf.tensor([0.3, 0.7], requires_grad=True)
    graph = scalar_graph(lambda: np.sum(elementwise.erf(x)), [x])  # SciPy's erf takes no objects
    assert [node.op.name for node in reachable(graph.loss._node)] == ["erf", "erf", "add"]


def test_an_op_that_cannot_run_on_scalars_is_named():
    @mf.op(vjp=lambda g, y: -(y.T @ g @ y.T), name="inverse_of_a_matrix")
    def inverse(x):
        """Invert."""
        return np.linalg.inv(x)

    x = mf.tensor([[2.0, 1.0], [1.0, 3.0]], requires_grad=True)
    with pytest.raises(mf.errors.GraphError, match="inverse_of_a_matrix: expected an op that can be computed with"):
        scalar_graph(lambda: np.sum(inverse(x)), [x])


def test_an_op_that_drops_its_tensors_is_an_error():
    @mf.op(vjp=lambda g: g, name="through_floats")
    def through(x):
        """Pass on."""
        return np.array([[float(v) for v in row] for row in x])

    x = mf.tensor([[2.0, 1.0]], requires_grad=True)
    with pytest.raises(mf.errors.GraphError, match="through_floats"):
        scalar_graph(lambda: np.sum(through(x)), [x])


# Counts by hand


def by_hand(build, *values):
    """Run the three strategies on scalars on a graph of numbers."""
    parameters = [mf.tensor(v, requires_grad=True) for v in values]
    problem = Problem(lambda: build(*parameters), parameters, 60, np.random.default_rng(0))
    graph = scalar_graph(problem.loss, parameters, CountingObserver())
    problem.loss().backward()
    problem.gradient = np.array([p.grad for p in parameters])
    return problem, graph


def test_a_diamond_counted_by_hand():
    # a = u v, b = a a, loss = b + a: three paths to a, and from there two edges
    problem, graph = by_hand(lambda u, v: (a := u * v) * a + a, 2.0, 3.0)
    assert count_paths(graph.loss._node) == (6, 1 + 1 + 3)
    walk, counter = scalar_backprop(problem, graph)
    assert (walk.rules, counter.grad_accumulations) == (3, 2)
    assert chain_rule(problem, graph).rules == 2 * 3
    paths = path_recursion(problem, graph)
    assert (paths.rules, paths.difference) == (5, 0)
    np.testing.assert_array_equal(problem.gradient, [13 * 3, 13 * 2])


@pytest.mark.parametrize("doublings", [1, 5, 10])
def test_paths_double(doublings):
    def build(x):
        for _ in range(doublings):
            x = x + x
        return x

    problem, graph = by_hand(build, 1.0)
    assert count_paths(graph.loss._node) == (2**doublings, 2**doublings - 1)
    assert path_recursion(problem, graph).rules == 2**doublings - 1
    assert chain_rule(problem, graph).rules == scalar_backprop(problem, graph)[0].rules == doublings


def test_a_parameters_own_chain_is_all_that_is_walked():
    # s = ((a + b) + c) + d: a and b lie under three nodes, c under two, d under one
    problem, graph = by_hand(lambda a, b, c, d: a + b + c + d, 1.0, 2.0, 3.0, 4.0)
    assert chain_rule(problem, graph).rules == 3 + 3 + 2 + 1
    assert count_paths(graph.loss._node) == (4, 3)


def test_too_many_paths_are_refused_with_their_number():
    def build(x):
        for _ in range(1000):
            x = x + x
        return x * 1e-300

    problem, graph = by_hand(build, 1.0)
    problem.budget = 1.0
    way = path_recursion(problem, graph)
    assert way.rules is way.seconds is way.difference is None
    assert way.note.startswith("not run: it would take about")
    deep = law(dense(4, *[6] * 12, 3), nn.CrossEntropyLoss(), X4, np.array([0, 1]), budget=0.2)
    assert "follows each of the " in str(deep) and "not run" in str(deep)
    assert deep.paths > 6**12
    assert json.loads(json.dumps(deep.to_dict()))["paths"] == deep.paths


def test_a_refusal_names_a_budget_that_is_enough():
    def build(x):
        for _ in range(14):
            x = x + x
        return x

    problem, graph = by_hand(build, 1.0)
    problem.budget = 1e-3
    note = path_recursion(problem, graph).note
    found = re.fullmatch(
        r"not run: it would take about ([\d.]+) s, and the budget is 0.001 s; a budget of ([\d.]+) s would run it", note
    )
    needed, problem.budget = map(float, found.groups())
    assert 1e-3 < needed < problem.budget
    problem.budget *= 50  # other programs may run
    assert path_recursion(problem, graph).rules == 2**14 - 1


def test_a_sample_says_so(digits):
    short = law(dense(64, 16, 10), nn.CrossEntropyLoss(), digits.X, digits.y, budget=1e-3)
    chain = short.way("chain rule per parameter")
    assert chain.extrapolated and 0 < chain.done < chain.of == 1210
    assert f"extrapolated from {chain.done:,} of 1,210" in " ".join(str(short).split())
    assert short.way("one-sided differences").forwards == 1211
    assert all(w.difference is None or w.difference < 1e-6 for w in short.ways)


def unlike_layers():
    """Return a model of 226 parameters whose chains differ much from layer to layer."""
    return dense(4, 8, 8, 8, 4, 3), nn.CrossEntropyLoss(), X4, np.array([0, 1])


@pytest.mark.slow
def test_extrapolated_counts_have_an_interval_that_holds_the_truth():
    truth = law(*unlike_layers(), budget=30.0).way("chain rule per parameter")
    assert not truth.extrapolated and truth.intervals == {}
    held = near = 0
    for seed in range(25):
        way = law(*unlike_layers(), budget=1e-6, rng=seed).way("chain rule per parameter")
        assert 30 <= way.done < way.of == truth.of
        low, high = way.intervals["rules"]
        held += low <= truth.rules <= high
        near += abs(way.rules - truth.rules) < 0.1 * truth.rules
        assert low <= way.rules <= high and way.intervals["operations"][0] <= way.operations
    assert held >= 22  # 95 % intervals
    assert near >= 22


def test_an_interval_is_shown_and_saved():
    found = law(*unlike_layers(), budget=1e-6)
    way = found.way("chain rule per parameter")
    low, high = way.intervals["rules"]
    text = str(found)
    assert max(map(len, text.splitlines())) <= 100
    line = next(line for k, line in enumerate(text.splitlines()) if line.strip().startswith("extrapolated from"))
    assert f"extrapolated from {found.way('forward mode').done} of {way.of}" in line
    assert f"± {round(high - way.rules):,}" in text
    assert f"(extrapolated, {round(low):,} to {round(high):,})" in " ".join(text.split())
    saved = json.loads(json.dumps(found.to_dict()))
    assert [w["intervals"] for w in saved["ways"] if w["name"] == way.name] == [
        {what: list(ends) for what, ends in way.intervals.items()}
    ]
    assert found.way("central differences").intervals.keys() == {"seconds"}
    assert found.page_data()["ways"][-2]["margins"]["rules"] == high - way.rules


def sparse():
    """Return a model of which a loss uses 16 of 2,000 numbers of an embedding."""
    model = nn.Sequential(nn.Embedding(1000, 2, rng=0), nn.Flatten(), nn.Dense(16, 2, rng=1))
    return model, nn.CrossEntropyLoss(), np.arange(8)[None], np.array([1])


def test_parameters_that_the_loss_does_not_use_are_extrapolated_apart():
    truth = law(*sparse(), budget=60.0).way("chain rule per parameter")
    assert not truth.extrapolated
    held = 0
    for seed in range(10):
        way = law(*sparse(), budget=1e-6, rng=seed).way("chain rule per parameter")
        assert 1984 + 30 <= way.done < way.of == truth.of
        for what in ("rules", "operations"):
            low, high = way.intervals[what]
            assert low < high
            held += low <= getattr(truth, what) <= high
            assert getattr(way, what) == pytest.approx(getattr(truth, what), rel=0.15)
    assert held >= 17  # of 20: 95 % intervals


def test_a_margin_reaches_to_the_end_of_the_interval_that_is_cut_below():
    way = StrategyResult("chain", "scalars", rules=3698, done=30, of=2000, intervals={"rules": (90.0, 10159.0)})
    assert margins(way) == {"rules": 6461.0}


def test_a_sample_is_of_every_layer():
    strata = strata_of([12, 3, 40, 1])
    order, first = sampling_order(strata, np.random.default_rng(0))
    assert sorted(order) == list(range(56))
    assert np.bincount(strata[order[:first]]).tolist() == [2, 2, 2, 1]
    many = np.bincount(strata_of([5] * 100))
    assert len(many) == 15 and many.sum() == 500 and set(many.tolist()) == {30, 35}
    values, done = np.where(strata == 2, 100.0, 1.0), np.zeros(56, bool)
    done[order[:first]] = True
    estimate = total(values, done, strata)
    assert (estimate.value, estimate.low, estimate.high) == (4016, 4016, 4016)  # no spread within layers


def test_the_exponent_of_extrapolated_numbers_is_less_certain():
    X, y = np.random.default_rng(0).normal(size=(6, 4)), np.array([0, 1, 2, 0, 1, 2])
    found = sweep("depth", X, y, values=(2, 4, 6), budget=1e-6)
    fit = found.fit("chain rule per parameter", "rules")
    assert fit.sampled
    sizes, rules = found.sizes(), [m.way("chain rule per parameter").rules for m in found.laws]
    assert fit.high - fit.exponent > fit_power_law(sizes, rules)[1]
    assert not found.fit("central differences", "operations").sampled


def test_a_kink_is_reported_as_one():
    """At 0 the slope of relu is 0, and the scalar graph's maximum shares it."""
    model = nn.Sequential(nn.Dense(2, 1, rng=0), nn.ReLU())
    model[0].bias.data = np.zeros(1)
    result = law(model, nn.MSELoss(), np.zeros((1, 2)), np.ones((1, 1)))
    assert result.way("one-sided differences").difference > 1e-6
    assert "a kink is near" in " ".join(str(result).split())


def test_a_large_scalar_graph_is_left_out(digits):
    result = law(dense(64, 8, 10), nn.CrossEntropyLoss(), digits.X, digits.y, max_nodes=100)
    assert [w.graph for w in result.ways] == ["tensors"] * 4
    assert "The scalar graph is left out" in str(result)
    assert "most visits, each P alone" in str(result)


def test_peak_counts_what_is_in_use_at_once():
    def few():
        for _ in range(5):
            np.ones(100_000)

    assert 800_000 <= peak(few) < 900_000
