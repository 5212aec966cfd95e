"""One gradient by five strategies on digits: what each takes, and its bounds."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import ArgumentError
from microfw.profiler import law, sweep
from tests.helpers.law_models import NAMES, X4, dense


@pytest.fixture(scope="module")
def found(digits):
    return law(dense(64, 8, 10), nn.CrossEntropyLoss(), digits.X, digits.y, name="digits", budget=60)


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


@pytest.mark.parametrize(("call", "text"), [
    (lambda law: law.count("scalar"), "Law.count: expected 'tensors' or 'scalars', got 'scalar'"),
    (lambda law: law.way("backprop"),
     "Law.way: expected one of law.way('backprop', 'tensors'), law.way('backprop', 'scalars'), got 'backprop'"),
    (lambda law: law.way("backprop", "scalar"), "Law.way: expected one of law.way('backprop', 'tensors'), law.way('forw"),
    (lambda law: law.way("forward"), "Law.way: expected one of law.way('backprop', 'tensors'), law.way('forward mode', "),
])  # fmt: skip
def test_names_that_mean_nothing_or_two_results_are_refused(found, call, text):
    with pytest.raises(ArgumentError, match=f"^{re.escape(text)}"):
        call(found)


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
    for words in ("1 row of digits", "nodes: ops; operations on numbers", "trainable arrays; numbers", "N x P is an upper bound",
                  "derivative rules called", "predicted", "paths from the loss", "3F - F1", "Baur & Strassen 1983",
                  "arXiv 2206.01730", "Griewank & Walther 2008", "Seconds may exceed", "uses per P and row"):  # fmt: skip
        assert words in " ".join(text.split()), words


def test_a_law_is_plain_data(found):
    again = json.loads(json.dumps(found.to_dict()))
    assert again["ways"][2]["forwards"] == 1220
    assert again["counts"][1]["N"] == found.count("scalars").N


def test_its_numbers_are_properties(found):
    c = found.count("scalars")
    assert (found.N, found.P, found.steps, found.bound) == (c.N, c.P, c.steps, c.N * c.P)
    assert f"N {found.N:,}, P {found.P:,}, {found.steps:,} steps in scalars" in repr(found)
    for words in ("``N``", "``P``", "``E``", "``rules``", "``accumulated``", "``steps``", "``operations``"):
        assert words in " ".join(mf.profiler.Law.__doc__.split()).replace("``steps`` of", "``steps``"), words


def test_without_a_scalar_graph_its_numbers_raise(found):
    tensors = replace(found, counts=found.counts[:1], note="the scalar graph is left out: a loop")
    for name in ("N", "P", "steps", "bound"):
        with pytest.raises(mf.errors.GraphError) as info:
            getattr(tensors, name)
        assert str(info.value) == (
            "Law: expected counts in scalars, got none: the scalar graph is left out: a loop; "
            'for tensors take law.count("tensors")'
        )


def test_a_law_is_saved(found, tmp_path):
    for name in ("law.html", "law.json"):
        found.save(tmp_path / name)
    assert (tmp_path / "law.html").read_text(encoding="utf-8") == found.html()
    assert json.loads((tmp_path / "law.json").read_text()) == json.loads(json.dumps(found.to_dict()))
    with pytest.raises(mf.errors.ArgumentError, match=r"^Law.save: expected a name that ends in .html, .json, .png, .svg or .pdf, got 'law.txt'"):  # fmt: skip
        found.save("law.txt")
    pytest.importorskip("matplotlib")
    found.save(tmp_path / "law.png")
    assert (tmp_path / "law.png").read_bytes().startswith(b"\x89PNG")


def test_a_batch_is_of_rows_that_exist():
    loss, X, y = nn.CrossEntropyLoss(), np.ones((5, 4)), [0, 1, 2, 0, 1]
    found = law(dense(4, 3), loss, X, y, budget=0.01)
    assert found.batch == 5 and "With 5 rows, P stays 15" in " ".join(str(found).split())
    for batch in (1, 2):
        found = law(dense(4, 3), loss, X, y, rows=2, batch=batch, budget=0.01)
        assert found.batch == batch and "rows, P stays" not in found.html() + str(found)
    assert "<p></p>" not in found.html()


def test_a_limit_that_is_reached_is_left_out(found):
    batch = [replace(c, P=0) for c in found.batch_counts]
    assert "additions. So backprop takes" in str(found) and "With more rows this approaches" in str(found)
    text = str(replace(found, batch_counts=batch))
    assert "additions. So backprop takes" in text and "With more rows this approaches" not in text


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
        (lambda: law(dense(4, 3), nn.CrossEntropyLoss(), X4, [0, 1], batch=3), "batch from 1 to 2, the rows of X"),
        (lambda: law(dense(4, 3), nn.CrossEntropyLoss(), X4, [0, 1], batch=0), "batch from 1 to 2, the rows of X"),
        (lambda: law(dense(4, 3), nn.CrossEntropyLoss(), X4, [0, 1], budget=0), "a budget of some seconds"),
        (lambda: law(dense(4, 3), lambda p, y: p, X4, [0, 1]), r"a loss of one number .* got shape \(1, 3\)"),
        (lambda: law(dense(4, 3), lambda p, y: 0.0, X4, [0, 1]), "a loss of one number .* got float"),
        (lambda: law(dense(4, 3), lambda p, y: p.sum() * np.nan, X4, [0, 1]), "a finite loss, got nan"),
        (lambda: law(Root(), lambda p, y: p.sum(), X4, X4), "a finite gradient"),
        (lambda: law(Noisy(), lambda p, y: p.sum(), X4, X4), "let nothing in it be random"),
        (lambda: law(nn.MSELoss(), dense(4, 3), X4, X4), "got MSELoss, which has none; pass model, loss, X, y in this"),
        (lambda: law(dense(4, 3), nn.MSELoss, X4, X4), "got the class MSELoss; make one: MSELoss"),
        (lambda: law(dense(4, 3), nn.CrossEntropyLoss(), X4[:0], []), "law: expected rows in X, got none"),
        (lambda: law(dense(4, 3), nn.CrossEntropyLoss(), X4, [0, 1], rows="2"), "rows of X, got '2'"),
        (lambda: law(dense(4, 3), nn.CrossEntropyLoss(), X4, [0, 1], budget="2"), "some seconds, got '2'"),
        (
            lambda: sweep("batch", X4, [0, 1]),
            "sweep: expected values that are integers from 1 to 2, the rows of X, got 6;",
        ),
        (lambda: sweep("width", X4, [0, 1], values=[1, 2, "3"]), "integers from 1, got '3'"),
        (lambda: sweep("depth", X4[:0], []), "sweep: expected rows in X, got none"),
        (lambda: sweep("length", X4, [0, 1]), "sweep: expected one of"),
        (lambda: sweep("width", X4, [0, 1], values=[2, 3]), "at least three values"),
        (lambda: sweep("width", X4, [0, 1], values=[2, 2, 2], budget=0.01), "sizes that differ"),
        (lambda: law(dense(4, 3), None, X4, [0, 1]), r"got none; call law\(model, loss, X, y\)"),
        (lambda: law(dense(4, 3), nn.MSELoss(), X4, X4, max_nodes=0), "max_nodes to be a positive integer, got 0"),
        (lambda: law(dense(4, 3), nn.MSELoss(), X4, X4, max_nodes="a"), "max_nodes to be a positive integer, got 'a'"),
        (lambda: law(dense(4, 3), nn.MSELoss(), X4, X4, name=5), "law: expected name to be a text, got 5"),
        (
            lambda: sweep("k", X4, [0, 1], values=[1, 2, 3], build=dense(4, 3)),
            "got Sequential; build=lambda value: model",
        ),
        (lambda: sweep("k", X4, [0, 1], values=[1, 2, 3], build=str), r"build\(1\) to return a Module, got str"),
        (lambda: sweep("width", X4, None), "y with 2 rows, as X, got NoneType"),
        (lambda: sweep("width", X4, []), r"y with 2 rows, as X, got \(0,\)"),
        (lambda: sweep("width", X4, [0, 1], values=3), "sweep: expected values, a sequence, got int"),
        (lambda: sweep(["width"], X4, [0, 1]), r"a variable's name, got \['width'\]"),
        (lambda: mf.profiler.Session().html(5), "Session.html: expected what mf.profiler.law returns, got int"),
    ],
)
def test_errors(call, says):
    with np.errstate(divide="ignore"), pytest.raises(mf.errors.MicrofwError, match=says):
        call()


def test_a_batch_that_is_too_large_to_count_is_noted(monkeypatch):
    monkeypatch.setattr("microfw.profiler.scalar_tape.MAX_ENTRIES", 1000)
    X = np.tile(X4, (100, 1))
    found = law(nn.Dense(4, 3, rng=0), nn.CrossEntropyLoss(), X, np.zeros(200, int), batch=200, budget=0.01)
    assert found.note == "the batch of 200 rows has too many scalar nodes to be counted"
    assert [count.kind for count in found.batch_counts] == ["tensors"]


class Empty(nn.Module):
    def __init__(self):
        self.w = nn.Parameter(np.zeros((0, 3)))

    def forward(self, x):
        return x[:, :3] + self.w.sum(axis=0)


def test_a_parameter_without_entries_has_a_gradient_without_entries():
    found = law(Empty(), nn.MSELoss(), X4, X4[:, :3], budget=0.01)
    assert [w.difference for w in found.ways] == [0.0] * 4 and "zero up to rounding" not in found.note


class Centered(nn.Module):
    """Its outputs sum to zero, for all weights."""

    def __init__(self, factor):
        self.w, self.factor = nn.Parameter(np.array([[0.3, 0.1, 0.2]])), factor

    def forward(self, x):
        w = self.w * self.factor
        return w - w.mean(axis=1, keepdims=True)


@pytest.mark.parametrize("factor", [1.0, 1e-3, 7.0])
def test_a_gradient_of_rounding_errors_is_zero(factor):
    found = law(Centered(factor), lambda p, t: p.sum() * 0.01, np.ones((1, 1)), None, budget=0.01)
    assert max(w.difference for w in found.ways) < 1e-7
    assert "gradient is zero up to rounding" in found.note and "a kink is near" not in str(found)


def test_a_small_gradient_is_compared_by_its_own_size():
    model = nn.Dense(4, 3, rng=0)
    found = law(model, lambda p, t: 1e-30 * np.square(p).sum(), X4, None, budget=0.01)
    assert not found.note and 0 < found.way("central differences").difference < 1e-6


def test_another_N_than_in_profiles_is_noted():
    found = law(nn.Dense(4, 3, rng=0), nn.CrossEntropyLoss(), 1e3 * X4, [0, 1], rows=2, budget=0.01)
    usual = found.count("scalars", batch=True).N
    assert usual == law(nn.Dense(4, 3, rng=0), nn.CrossEntropyLoss(), X4, [0, 1], rows=2, budget=0.01).N < found.N
    assert f"N is {found.N:,} on these, and {usual:,} on usual ones" in " ".join(str(found).split())
