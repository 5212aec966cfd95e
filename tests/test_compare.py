"""Comparing runs: what is noise, what is real, what is exact; and the cost test for other people's suites."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import ArgumentError
from microfw.profiler import Epoch, Row, Session, alternate, assert_cost, compare

LAYERS = {"0": (20, 30), "1": (5, 4), "2": (10, 25), "MSELoss": (6, 2)}


def made_up(rng, epochs=20, slower=(), noise=0.05, day=1.0, mark="", flops=0):
    """Return a session of made-up times: noise on each, and now and then a moment in which something else ran."""
    found = []
    for k in range(epochs):
        rows = []
        for layer, times in LAYERS.items():
            row = Row(layer, "op", nodes=10, flops_forward=1000 + flops * (layer == "2"))
            for phase, us in zip(("forward", "backward"), times, strict=True):
                ns = us * 1e4 * day * (1.2 if (layer, phase) in slower else 1) * np.exp(noise * rng.standard_normal())
                setattr(row, f"{phase}_ns", int(ns + (rng.random() < 0.03) * 1e7))
            rows.append(row)
        both = [sum(getattr(row, f"{phase}_ns") for row in rows) for phase in ("forward", "backward")]
        found.append(
            Epoch(
                k + 1, 10, 10, rows=rows, forward_ns=both[0] + 5000, backward_ns=both[1] + 5000,
                update_ns=int(1e5 * day * np.exp(noise * rng.standard_normal())),
            )
        )  # fmt: skip
    return Session(name="toy", epochs=found, alternated=mark)


@pytest.mark.parametrize("mark", ["", "together"])
def test_identical_runs_differ_in_nothing(mark):
    rng = np.random.default_rng(0)
    pairs = [compare(made_up(rng, mark=mark), made_up(rng, mark=mark)) for _ in range(20)]
    assert sum(any(c.real for c in pair.changes) for pair in pairs) <= 1
    assert all(pair.counts == [] for pair in pairs)


@pytest.mark.parametrize("mark", ["", "together"])
def test_a_layer_that_is_slower_is_named(mark):
    rng = np.random.default_rng(1)
    slower = {("2", "forward"), ("2", "backward")}
    pairs = [compare(made_up(rng, mark=mark), made_up(rng, slower=slower, mark=mark)) for _ in range(20)]
    assert sum(any(c.layer == "2" for c in pair.worse()) for pair in pairs) >= 19
    assert sum(any(c.layer not in ("2", "") for c in pair.worse()) for pair in pairs) <= 1


def test_a_slow_day_is_no_difference_between_runs_of_other_days():
    rng = np.random.default_rng(2)
    a, b = made_up(rng), made_up(rng, day=1.8)
    found = compare(a, b)
    assert not found.alternated
    assert not any(c.real for c in found.changes)
    assert "seconds drift between runs" in str(found)
    a.alternated = b.alternated = "together"  # in alternated runs it would be
    assert all(c.real for c in compare(a, b).changes)


def test_too_few_epochs_are_not_judged_by():
    rng = np.random.default_rng(3)
    found = compare(made_up(rng, 5), made_up(rng, 5, slower={("0", "backward")}))
    assert not any(c.real for c in found.changes)
    assert f"nothing can be called real with 5 epochs; {len(found.changes)} comparisons take {found.needed}." in str(
        found
    )


def test_counts_are_exact():
    rng = np.random.default_rng(4)
    found = compare(made_up(rng), made_up(rng, flops=10))
    assert [(c.layer, c.what, c.a, c.b) for c in found.counts] == [
        ("", "flops_forward", 400, 401),
        ("2", "flops_forward", 100, 101),
    ]
    assert found.worse(0.005) == [found.counts[1]]
    assert found.worse(0.02) == []
    assert "+1.0%" in str(found)
    assert "| <code>2</code> | flops_forward | 100 | 101 | +1.0% |" in found.markdown()


def test_what_is_new_is_new_and_small_layers_are_left_out():
    rng = np.random.default_rng(5)
    a, b = made_up(rng), made_up(rng)
    for epoch in b.epochs:
        epoch.rows.append(Row("3", "op", nodes=10, backward_ns=100))
    found = compare(a, b)
    assert (found.only_a, found.only_b) == ([], ["3"])
    assert [(c.layer, c.what) for c in found.counts] == [("", "nodes")]
    assert not any(c.layer == "3" for c in found.changes)
    assert "Only in b: 3." in str(found)
    assert "Only in a: <code>3</code>." in compare(b, a).markdown()


def test_the_text_fits_whatever_the_names():
    rng = np.random.default_rng(6)
    a, b = made_up(rng), made_up(rng, slower={("2", "forward")})
    for session in (a, b):
        session.name = "x" * 300 + "\x1b[31m"
        for epoch in session.epochs:
            for row in epoch.rows:
                row.layer += ".name" * 60 + "\n</td>"
    text = str(compare(a, b))
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text
    assert "</td>" not in compare(a, b).markdown()


@pytest.mark.parametrize("options", [{"least": -1}, {"least": float("nan")}, {"confidence": 1.0}])
def test_settings_that_cannot_work(options):
    session = made_up(np.random.default_rng(0), 2)
    with pytest.raises(ArgumentError, match="compare: expected"):
        compare(session, session, **options)
    with pytest.raises(ArgumentError, match="an epoch in b"):
        compare(session, Session())
    with pytest.raises(ArgumentError, match="alternate: expected rounds"):
        alternate(lambda: session, lambda: session, 0)


def test_runs_are_made_alternately():
    made = []

    def run(name):
        made.append(name)
        return made_up(np.random.default_rng(len(made)), 2)

    a, b = alternate(lambda: run("a"), lambda: run("b"), 3)
    assert made == ["b", "a", "a", "b", "b", "a", "a", "b"]
    assert [e.epoch for e in a.epochs] == [1, 2, 3, 4, 5, 6]
    assert a.alternated == b.alternated != ""
    assert compare(a, b).alternated


# The cost test

X, Y = np.ones((8, 5), np.float32), np.zeros(8, int)


def test_costs_are_exact_and_nothing_is_left_behind():
    model = nn.Sequential(nn.Dense(5, 4, rng=0), nn.Dropout(0.5, rng=0), nn.Dense(4, 3, rng=1))
    state = copy.deepcopy(model[1].__dict__)
    assert_cost(model, X, nodes=3, parameters=39, parameter_tensors=4, edges=6, steps=7)
    assert_cost(model, X, Y, nn.CrossEntropyLoss(), nodes=4, steps=8)
    products = 2 * 8 * (5 * 4 + 4 * 3)
    profile = mf.profiler.cost_check.one_step(model, X).sum()
    assert profile.products_forward == products
    assert_cost(model, X, flops=profile.flops_forward + profile.flops_backward, saved_bytes=profile.saved_bytes)
    assert all(p.grad is None for p in model.parameters())
    assert str(model[1].__dict__["rng"].bit_generator.state if "rng" in state else "") == str(
        state["rng"].bit_generator.state if "rng" in state else ""
    )


def test_a_cost_that_differs_is_told_with_the_layers():
    model = nn.Sequential(nn.Dense(5, 4, rng=0), nn.ReLU())
    with pytest.raises(AssertionError, match=r"expected nodes 5, got 2; expected parameters 1, got 24\n") as caught:
        assert_cost(model, X, nodes=5, parameters=1)
    assert [line.split()[0] for line in str(caught.value).splitlines()[3:]] == ["0", "1"]


@pytest.mark.parametrize("expected", [{}, {"speed": 1}])
def test_what_is_not_counted_cannot_be_expected(expected):
    with pytest.raises(ArgumentError, match="assert_cost: expected counts among flops"):
        assert_cost(nn.Dense(5, 3, rng=0), X, **expected)
