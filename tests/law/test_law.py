"""The law: one gradient by five strategies, what each takes, and how that grows."""

from __future__ import annotations

import json
import runpy
from itertools import pairwise

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.autograd.graph import reachable
from microfw.cli import main as cli
from microfw.law.measure import CountingObserver, Problem, peak
from microfw.law.parameter_sample import sampling_order, strata_of, total
from microfw.law.scalar_graph import scalar_graph
from microfw.law.strategies import chain_rule, count_paths, path_recursion, scalar_backprop
from microfw.law.sweeps import VALUES, fit_power_law
from microfw.ops import elementwise, reduction
from microfw.profiler import law, sweep
from tests.cases.ops import DIFFERENTIABLE, title
from tests.helpers.paths import ROOT

NAMES = ["backprop", "forward mode", "central differences", "one-sided differences",
         "backprop", "chain rule per parameter", "paths, no memory"]  # fmt: skip


def dense(*sizes, activation=nn.ReLU, rng=0):
    rng = np.random.default_rng(rng)
    layers = []
    for a, b in pairwise(sizes):
        layers += [nn.Dense(a, b, rng=rng), activation()]
    return nn.Sequential(*layers[:-1])


@pytest.fixture(scope="module")
def digits():
    return mf.data.load("digits", rng=0)[0]


@pytest.fixture(scope="module")
def found(digits):
    return law(dense(64, 8, 10), nn.CrossEntropyLoss(), digits.X, digits.y, name="digits", budget=60)


# The bars, on digits


def test_every_strategy_is_run_for_every_parameter(found):
    assert [w.name for w in found.ways] == NAMES
    P = 64 * 8 + 8 + 8 * 10 + 10
    assert all(w.done == w.of == P and not w.extrapolated for w in found.ways)


def test_the_gradients_agree(found):
    for w in found.ways:
        assert w.difference < (1e-6 if "differences" in w.name else 1e-13), w.name


def test_backprop_calls_one_rule_for_each_node(found):
    for count in found.counts:
        assert count.rules == count.N == found.way("backprop", count.kind).rules
        assert 1 <= count.steps / (count.N + count.P) <= 2
    tensors = found.count("tensors")
    assert (tensors.N, tensors.E, tensors.P) == (4, 7, 4)
    # 64 products and 63 sums and a bias for each hidden unit, and so on; ReLU; the rest is the loss
    layers = 8 * (64 + 63 + 1) + 8 + 10 * (8 + 7 + 1)
    assert layers < found.count("scalars").N < layers + 100
    assert found.count("scalars").accumulated == found.count("scalars").P == 610


def test_differences_compute_the_loss_as_often_as_they_must(found):
    assert found.way("central differences").forwards == 2 * 610
    assert found.way("one-sided differences").forwards == 610 + 1


def test_other_strategies_stay_below_their_bounds(found):
    tensors, scalars = found.count("tensors"), found.count("scalars")
    assert found.way("forward mode").rules <= tensors.N * scalars.P
    chain = found.way("chain rule per parameter")
    assert scalars.steps < chain.rules < scalars.N * scalars.P
    assert found.paths < found.way("paths, no memory").rules * scalars.E / scalars.N * 2


def test_products_follow_the_exact_law(found):
    r = found.ratio
    assert r.products_forward == 2 * (64 * 8 + 8 * 10)
    assert r.products_first == 2 * 64 * 8
    assert r.products_forward + r.products_backward == 3 * r.products_forward - r.products_first
    assert r.forward_seconds > 0 < r.backward_seconds


def test_seconds_and_memory_are_measured(found):
    assert all(w.seconds > 0 and w.peak_bytes > 0 for w in found.ways)
    assert found.way("central differences").peak_bytes < found.way("backprop", "scalars").peak_bytes


def test_layers_say_what_a_parameter_costs(found):
    rows = {row.layer: row for row in found.layers}
    assert rows["0"].parameters == 64 * 8 + 8 and rows["0"].kind == "Dense"
    assert rows["0"].uses == rows["0"].parameters  # a dense layer uses each weight once in a row
    assert rows["2"].forward == 2 * 8 * 10 + 10
    assert sum(row.forward for row in found.layers) == found.ratio.forward
    assert sum(row.backward for row in found.layers) == found.ratio.backward


def test_the_table_defines_its_words(found):
    text = str(found)
    assert max(map(len, text.splitlines())) <= 100
    for words in ("1 row of digits", "op nodes that the loss depends on", "trainable numbers", "N x P is an upper bound",
                  "rule calls + gradients added", "predicted", "paths from the loss", "3F - F1", "Baur & Strassen 1983",
                  "arXiv 2206.01730", "Griewank & Walther 2008", "Seconds may exceed", "uses per P and row"):  # fmt: skip
        assert words in " ".join(text.split()), words


def test_it_is_plain_data(found):
    again = json.loads(json.dumps(found.to_dict()))
    assert again["ways"][2]["forwards"] == 1220
    assert again["counts"][1]["N"] == found.count("scalars").N


# Other models


class Shared(nn.Module):
    def __init__(self):
        self.weight = nn.Parameter(np.random.default_rng(0).normal(size=(4, 4)))
        self.head = nn.Dense(4, 3, rng=1)

    def forward(self, x):
        for _ in range(3):
            x = x + np.tanh(x @ self.weight)
        return self.head(x)


class Attention(nn.Module):
    def __init__(self):
        rng = np.random.default_rng(0)
        self.q, self.k, self.v = (nn.Parameter(rng.normal(size=(2, 3))) for _ in range(3))

    def forward(self, x):
        x = x.reshape(-1, 2, 2)
        q, k, v = x @ self.q, x @ self.k, x @ self.v
        mixed = reduction.softmax(q @ np.transpose(k, (0, 2, 1)), axis=-1) @ v
        return np.max(mixed, axis=1)


class Windows(nn.Module):
    """A convolution written with an index: one filter over all windows of two."""

    def __init__(self):
        self.filter = nn.Parameter([[0.5], [-1.0]])
        self.head = nn.Dense(3, 3, rng=0)

    def forward(self, x):
        windows = mf.tensor(x)[:, np.array([[0, 1], [1, 2], [2, 3]])]  # N 3 2
        return self.head((windows @ self.filter)[..., 0])


class Recurrent(nn.Module):
    def __init__(self, kind):
        self.cell, self.head = kind(2, 3, rng=0), nn.Dense(3, 3, rng=1)

    def forward(self, x):
        return self.head(self.cell(np.reshape(x, (-1, 2, 2)))[0][:, -1])


class Attending(nn.Module):
    def __init__(self, causal):
        self.attention, self.norm = nn.MultiHeadAttention(2, 1, causal=causal, rng=0), nn.LayerNorm(2)
        self.head = nn.Dense(2, 3, rng=1)

    def forward(self, x):
        return self.head(self.norm(self.attention(np.reshape(x, (-1, 2, 2))))[:, -1])


class Image(nn.Module):
    """Four numbers as an image."""

    def __init__(self, *layers):
        self.body, self.head = nn.Sequential(nn.Conv2D(1, 2, 2, padding=1, rng=0), *layers), nn.Dense(8, 3, rng=1)

    def forward(self, x):
        return self.head(self.body(np.reshape(x, (-1, 1, 2, 2))).reshape(-1, 8))


class Checkpointed(nn.Module):
    def __init__(self):
        self.first, self.body, self.head = nn.Dense(4, 4, rng=0), nn.Dense(4, 4, rng=1), nn.Dense(4, 3, rng=2)

    def forward(self, x):
        return self.head(mf.checkpoint(self.body, self.first(x)))


MODELS = {
    "tanh": (dense(4, 5, 3, activation=nn.Tanh), nn.CrossEntropyLoss()),
    "sigmoid": (dense(4, 5, 3, activation=nn.Sigmoid), nn.CrossEntropyLoss(label_smoothing=0.1)),
    "softplus": (dense(4, 5, 3, activation=nn.Softplus), nn.CrossEntropyLoss(weight=[1, 2, 3])),
    "gelu": (dense(4, 5, 3, activation=nn.GELU), nn.CrossEntropyLoss()),
    "leaky": (dense(4, 5, 3, activation=nn.LeakyReLU), nn.CrossEntropyLoss()),
    "log-softmax": (nn.Sequential(nn.Dense(4, 3, rng=0), nn.LogSoftmax()), nn.CrossEntropyLoss()),
    "dropout": (nn.Sequential(nn.Dropout(0.5), nn.Dense(4, 3, rng=0)), nn.CrossEntropyLoss()),
    "no bias": (nn.Sequential(nn.Dense(4, 3, bias=False, rng=0)), nn.CrossEntropyLoss()),
    "shared": (Shared(), nn.CrossEntropyLoss()),
    "attention": (Attention(), nn.CrossEntropyLoss()),
    "windows": (Windows(), nn.CrossEntropyLoss()),
    "convolution": (Image(nn.Tanh(), nn.MaxPool2D(2, 1)), nn.CrossEntropyLoss()),
    "averages": (Image(nn.BatchNorm2D(2), nn.AvgPool2D(2, 1)), nn.CrossEntropyLoss()),
    "lstm": (Recurrent(nn.LSTM), nn.CrossEntropyLoss()),
    "gru": (Recurrent(nn.GRU), nn.CrossEntropyLoss()),
    "self-attention": (Attending(False), nn.CrossEntropyLoss()),
    "causal": (Attending(True), nn.CrossEntropyLoss()),
    "squared error": (dense(4, 3, 3), nn.MSELoss()),
    "huber": (dense(4, 3, 3), nn.HuberLoss()),
    "binary": (dense(4, 3, 3), nn.BCEWithLogitsLoss()),
}
X4 = np.random.default_rng(7).normal(size=(2, 4))


@pytest.mark.parametrize("name", MODELS)
def test_all_agree_on(name):
    model, loss = MODELS[name]
    y = np.array([2, 0]) if isinstance(loss, nn.CrossEntropyLoss) else np.array([[0.0, 1, 1], [1, 0, 1]])
    result = law(model, loss, X4, y, rows=2)
    assert [w.name for w in result.ways] == NAMES
    for w in result.ways:
        assert w.note or w.difference < 1e-6, w
    for count in result.counts:
        assert count.rules == count.N
        assert count.steps / (count.N + count.P) <= 2


def test_weight_reuse_is_counted():
    result = law(*MODELS["windows"], X4, np.array([0, 1]), rows=2)
    rows = {row.layer: row for row in result.layers}
    assert rows["Windows"].uses == 2 * 2 * 3  # two weights, three windows in each of two rows
    assert rows["head"].uses == 2 * rows["head"].parameters


def test_a_convolution_uses_a_weight_in_every_place():
    result = law(Image(nn.Tanh(), nn.AvgPool2D(2, 1)), nn.CrossEntropyLoss(), X4, np.array([0, 1]), rows=2)
    rows = {row.layer: row for row in result.layers}
    # 3 x 3 places; a padded zero is a number too, and is multiplied; no bias has fewer uses
    assert rows["body.0"].uses == 2 * 9 * rows["body.0"].parameters
    assert rows["head"].uses == 2 * rows["head"].parameters
    assert result.ratio.exact and not result.ratio.others


def test_a_recurrence_is_no_single_product_and_is_named():
    ratio = law(*MODELS["lstm"], X4, np.array([0, 1])).ratio
    assert ratio.others == ["recur"] and not ratio.exact


def test_a_checkpoint_is_refused_in_one_line():
    says = "^law: expected nodes that are recorded once, got a checkpoint, which runs again; run the law without it"
    with pytest.raises(mf.errors.GraphError, match=says):
        law(Checkpointed(), nn.CrossEntropyLoss(), X4, np.array([0, 1]))


def test_without_a_scalar_graph_the_other_strategies_run():
    class Inverted(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter(np.eye(4) + 0.1)

        def forward(self, x):
            return x @ np.linalg.inv(self.weight)

    result = law(Inverted(), nn.CrossEntropyLoss(), X4, np.array([0, 1]))
    assert [w.graph for w in result.ways] == ["tensors"] * 4
    assert all(w.difference < 1e-6 for w in result.ways)
    assert "The scalar graph is left out: Inverted: inv: expected" in " ".join(str(result).split())
    assert result.ratio.others == ["inv"]


def test_shared_weights_raise_the_steps():
    count = law(*MODELS["shared"], X4, np.array([0, 1])).count("scalars")
    assert count.accumulated == 3 * 16 + 4 * 3 + 3
    assert 1 < count.steps / (count.N + count.P) < 2


def test_the_model_is_left_alone():
    model = dense(4, 5, 3)
    before = model.state_dict()
    law(model, nn.CrossEntropyLoss(), X4, np.array([0, 1]))
    assert model.training
    for name, p in model.named_parameters():
        assert p.dtype == np.float32 and p.grad is None
        np.testing.assert_array_equal(p.data, before[name])


def test_a_frozen_layer_is_not_differentiated():
    model = dense(4, 5, 3)
    model[0].requires_grad_(False)
    result = law(model, nn.CrossEntropyLoss(), X4, np.array([0, 1]))
    assert result.count("scalars").P == 5 * 3 + 3
    assert result.ratio.products_first == 2 * (2 * 4 * 5) + 2 * 5 * 3  # neither factor of the first is trained


# The scalar graph


def computes(case, sample):
    """Whether there is a number in what goes in and in what comes out."""
    arrays = sample.arranged()
    return all(np.size(x) for x in arrays) and case.op.call(*arrays, **sample.params).size


WHOLE = ("inv", "solve", "det", "slogdet", "cholesky")  # no loop over entries of objects


@pytest.mark.parametrize(("case", "sample"), [pair for pair in DIFFERENTIABLE if computes(*pair)], ids=title)
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


def test_an_op_that_lets_the_tensors_fall_is_caught():
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
    assert f"± {round((high - low) / 2):,}" in text
    assert f"(extrapolated, {round(low):,} to {round(high):,})" in " ".join(text.split())
    saved = json.loads(json.dumps(found.to_dict()))
    assert [w["intervals"] for w in saved["ways"] if w["name"] == way.name] == [
        {what: list(ends) for what, ends in way.intervals.items()}
    ]
    assert found.way("central differences").intervals.keys() == {"seconds"}
    assert found.page_data()["ways"][-2]["margins"]["rules"] == (high - low) / 2


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


def test_a_kink_is_told_apart():
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
    assert "upper bound" in str(result)


def test_peak_counts_what_is_in_use_at_once():
    def few():
        for _ in range(5):
            np.ones(100_000)

    assert 800_000 <= peak(few) < 900_000


# Errors


class Frozen(nn.Module):
    def forward(self, x):
        return mf.tensor(x)


class Root(nn.Module):
    def __init__(self):
        self.weight = nn.Parameter([0.0, 1.0])

    def forward(self, x):
        return np.sqrt(self.weight)


class Noisy(nn.Module):
    def __init__(self):
        self.rng = np.random.default_rng(0)
        self.weight = nn.Parameter(np.ones(4))

    def forward(self, x):
        return self.weight * self.rng.normal(size=4)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: law(Frozen(), nn.MSELoss(), X4, X4), "law: expected a model with trainable parameters"),
        (lambda: law(dense(4, 3), nn.CrossEntropyLoss(), X4, [0, 1], rows=3), "rows from 1 to 2, the rows of X"),
        (lambda: law(dense(4, 3), nn.CrossEntropyLoss(), X4, [0, 1], rows=0), "rows from 1 to 2, the rows of X"),
        (lambda: law(dense(4, 3), nn.CrossEntropyLoss(), X4, [0, 1], budget=0), "a budget of some seconds"),
        (lambda: law(dense(4, 3), lambda p, y: p, X4, [0, 1]), r"a loss of one number .* got shape \(1, 3\)"),
        (lambda: law(dense(4, 3), lambda p, y: 0.0, X4, [0, 1]), "a loss of one number .* got float"),
        (lambda: law(dense(4, 3), nn.CrossEntropyLoss(), X4 * np.nan, [0, 1]), "a finite loss, got nan"),
        (lambda: law(Root(), lambda p, y: p.sum(), X4, X4), "a finite gradient"),
        (lambda: law(Noisy(), lambda p, y: p.sum(), X4, X4), "let nothing in it be random"),
        (lambda: sweep("length", X4, [0, 1]), "sweep: expected one of"),
        (lambda: sweep("width", X4, [0, 1], values=[2, 3]), "at least three values"),
        (lambda: sweep("width", X4, [0, 1], values=[2, 2, 2], budget=0.01), "sizes that differ"),
    ],
)
def test_errors(call, says):
    with np.errstate(divide="ignore"), pytest.raises(mf.errors.MicrofwError, match=says):
        call()


def test_asking_for_what_is_not_there(found):
    with pytest.raises(mf.errors.ArgumentError, match="expected one of .*'forward mode'"):
        found.way("sideways")
    assert found.count("atoms") is None


# How cost grows


@pytest.fixture(scope="module")
def small():
    return sweep("width", X4, [0, 1], values=(2, 4, 8), budget=0.05, name="rows")


def test_a_sweep_fits_exponents(small):
    steps = small.fit("backprop", "steps")
    assert abs(steps.exponent - 1) < 1e-9 and steps.low <= steps.exponent <= steps.high
    assert small.fit("central differences", "operations").exponent > 1.5
    assert 1 < small.fit("chain rule per parameter", "rules").exponent < 2
    assert small.sizes() == sorted(small.sizes())
    with pytest.raises(mf.errors.ArgumentError, match="backprop steps"):
        small.fit("backprop", "colour")


def test_a_sweep_prints_and_is_plain_data(small):
    text = str(small)
    assert max(map(len, text.splitlines())) <= 100
    assert "over width of rows" in text and "95 % interval" in text
    assert json.loads(json.dumps(small.to_dict()))["values"] == [2, 4, 8]


def test_a_sweep_is_drawn(small, tmp_path):
    pytest.importorskip("matplotlib")
    figure = small.plot(tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 10_000
    axes = figure.axes[0]
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert len(axes.lines) == 6


def test_a_sweep_of_ones_own():
    result = sweep("heads", X4, [0, 1], values=(1, 2, 4), build=lambda n: dense(4, 2 * n, 3), budget=0.02)
    assert [found.count("scalars").P for found in result.laws] == [(4 * h + h) + (h * 3 + 3) for h in (2, 4, 8)]


def test_the_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    x = np.array([1, 2, 4, 8, 16, 32])
    inside = 0
    for _ in range(400):
        exponent, error = fit_power_law(x, x**1.5 * np.exp(rng.normal(0, 0.2, 6)))
        inside += abs(exponent - 1.5) <= error
    assert 0.92 <= inside / 400 <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("over", VALUES)
def test_bars_of_the_default_sweeps(over):
    train = mf.data.load("digits" if over == "width" else "iris", rng=0)[0]
    result = sweep(over, train.X, train.y, budget=0.1)
    for found in result.laws:
        count = found.count("scalars")
        assert 1 <= count.steps / (count.N + count.P) <= 2
        assert count.rules == count.N
    assert abs(result.fit("backprop", "operations").exponent - 1) <= 0.05
    if over != "batch":
        for strategy in ("forward mode", "central differences", "one-sided differences"):
            assert 1.9 < result.fit(strategy, "operations").exponent < 2.1


# The tutorial


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "docs" / "tutorials" / "why_n_plus_p.py"))
    out = capsys.readouterr().out
    for line in ("N + P = 4 + 2 = 6; steps = 4 visits + 3 added = 7", "as_it_should_be: right", "assigned: gradcheck: ",
                 "without_order: gradcheck: ", "N = 5, P = 2, steps = 5 + 4 = 9", "n = 9: 511 visits along the paths, 9",
                 "the convolution: 4,608 of N = 6,369 nodes, for 40 of P = 690 parameters"):  # fmt: skip
        assert line in out


# The command line


def test_law_of_digits_on_the_command_line(capsys, tmp_path):
    path = tmp_path / "law.json"
    assert cli.main(["law", "digits", "--hidden", "4", "--json", str(path)]) == 0
    out = capsys.readouterr().out
    assert "microfw law: Dense(64 -> 4), ReLU, Dense(4 -> 10), on 1 row of digits" in out
    assert json.loads(path.read_text())["name"] == "digits"


def test_the_law_is_saved_as_a_page(capsys, tmp_path):
    assert cli.main(["law", "iris", "--hidden", "2", "--budget", "0.2", "--html", str(tmp_path / "law.html")]) == 0
    assert "N x P is an upper bound" in (tmp_path / "law.html").read_text()
    run = ["profile", "iris", "--hidden", "2", "--epochs", "1", "--quiet", "--law"]
    assert cli.main([*run, "--html", str(tmp_path / "run.html")]) == 0
    text = (tmp_path / "run.html").read_text()
    assert '"law":{"title":"Dense(4 -' in text and len(text) < 300_000
    capsys.readouterr()
    assert cli.main(run) == 2
    assert (
        capsys.readouterr().err
        == "microfw profile: --law: expected --html FILE, the page that shows the law, got none\n"
    )


def test_the_default_model_is_said_to_be_small(capsys):
    assert cli.main(["law", "iris", "--budget", "0.2"]) == 0
    assert "A small model by default, --hidden 16" in capsys.readouterr().out


@pytest.mark.slow
def test_a_sweep_on_the_command_line(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    assert cli.main(["law", "--sweep", "depth", "--budget", "0.05", "--plot", str(tmp_path / "depth.png")]) == 0
    assert "over depth of iris" in capsys.readouterr().out
    assert (tmp_path / "depth.png").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--rows", "0"], "rows from 1"),
        (["--budget", "nan"], "a budget of some seconds"),
        (["--plot", "x.png"], "--plot: expected a sweep to draw"),
        (["--sweep", "width", "--rows", "2"], "--sweep: expected no --hidden and no --rows"),
        (["--sweep", "width", "--plot", "x.txt"], "--plot: expected a name that ends in .png"),
        (["--sweep", "width", "--html", "x.html"], "--html: expected one model, got a sweep"),
        (["--html", "x.txt"], "--html: expected a name that ends in .html"),
        (["--seed", "-1"], "--seed"),
        (["digit"], "did you mean 'digits'?"),
    ],
)
def test_command_line_errors(capsys, arguments, says):
    assert cli.main(["law", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error and len(error.strip().splitlines()) == 1
