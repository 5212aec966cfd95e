"""Comparing runs: what is noise, what is real, what is exact; and the cost test for other people's suites."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import ArgumentError
from microfw.profiler import Epoch, Row, Session, assert_cost, compare
from tests.helpers.sampled_loop import observed_steps

LAYERS = {"0": (20, 30), "1": (5, 4), "2": (10, 25), "MSELoss": (6, 2)}
ITS_PHASES = [(layer, phase) for layer in LAYERS for phase in ("forward", "backward")]


def made_up(rng, epochs=20, slower=(), noise=0.05, day=1.0, mark="", flops=0, runs=0.0):
    """Return a session of made-up times: noise on each, and now and then a moment in which something else ran.

    ``runs``: noise that three epochs share, as those of one run do.
    """
    found, shared = [], {}
    for k in range(epochs):
        rows = []
        if runs and k % 3 == 0:
            shared = {key: np.exp(runs * rng.standard_normal()) for key in ITS_PHASES}
        for layer, times in LAYERS.items():
            row = Row(layer, "op", nodes=10, flops_forward=1000 + flops * (layer == "2"))
            for phase, us in zip(("forward", "backward"), times, strict=True):
                ns = us * 1e4 * day * (1.2 if (layer, phase) in slower else 1) * np.exp(noise * rng.standard_normal())
                ns *= shared.get((layer, phase), 1)
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
    assert sum(any(c.layer == "2" for c in pair.worse()) for pair in pairs) >= (19 if mark else 15)
    assert sum(any(c.layer not in ("2", "") for c in pair.worse()) for pair in pairs) <= 1


def test_epochs_of_one_run_are_no_independent_rounds():
    """Each run has its memory layout: sixty epochs of twenty runs tell as much as twenty epochs."""
    rng = np.random.default_rng(7)
    pairs = [[made_up(rng, 60, noise=0.01, runs=0.1) for _ in "ab"] for _ in range(20)]
    alarms = {}
    for mark in ("together/20", "together"):  # the second mark has no rounds: each epoch would be one
        for pair in pairs:
            pair[0].alternated = pair[1].alternated = mark
        alarms[mark] = sum(any(c.real for c in compare(*pair).changes) for pair in pairs)
    assert alarms["together/20"] <= 1
    assert alarms["together"] >= 3
    assert compare(*pairs[0]).rounds == 60


def test_a_slowdown_common_to_all_layers_is_no_difference():
    rng = np.random.default_rng(2)
    a, b = made_up(rng), made_up(rng, day=1.8)
    found = compare(a, b)
    assert not found.alternated
    assert not any(c.real for c in found.changes)
    assert "seconds drift between runs" in str(found)
    a.alternated = b.alternated = "together"  # in alternated runs it would be
    assert all(c.real for c in compare(a, b).changes)


def test_too_few_alternated_rounds_are_not_judged_by():
    rng = np.random.default_rng(3)
    a, b = (made_up(rng, 5, slower=slower, mark="together") for slower in ((), {("0", "backward")}))
    found = compare(a, b)
    assert not any(c.real for c in found.changes)
    assert f"5 rounds are too few for valid intervals; {len(found.changes)} comparisons need {found.needed}." in str(
        found
    )


def slower_by(session, factor, layers=LAYERS, update=1.0):
    """Return a copy in which layers, and the update, take longer."""
    session = copy.deepcopy(session)
    for epoch in session.epochs:
        before = {phase: sum(getattr(row, f"{phase}_ns") for row in epoch.rows) for phase in ("forward", "backward")}
        for row in epoch.rows:
            if row.layer in layers:
                row.forward_ns, row.backward_ns = int(row.forward_ns * factor), int(row.backward_ns * factor)
        for phase, ns in before.items():
            more = sum(getattr(row, f"{phase}_ns") for row in epoch.rows) - ns
            setattr(epoch, f"{phase}_ns", getattr(epoch, f"{phase}_ns") + more)
        epoch.update_ns = int(epoch.update_ns * update)
    return session


@pytest.mark.parametrize("mark", ["", "together"])
def test_the_whole_step_comes_first(mark):
    rng = np.random.default_rng(7)
    a, b = made_up(rng, mark=mark), slower_by(made_up(rng, mark=mark), 3, ("0",))
    found = compare(a, b)
    step = found.changes[0]
    assert (step.layer, step.phase, step.real) == ("", "step", True)
    assert step.change == pytest.approx(100 / 112, rel=0.2)  # µs that were added to those of a step
    assert step in found.worse(0.5)
    assert str(found).splitlines()[2].startswith("The whole step: +")


@pytest.mark.parametrize("flops", [0, 50])
def test_a_real_change_without_other_counts_is_marked_where_counts_of_others_differ(flops):
    rng = np.random.default_rng(14)
    a, b = made_up(rng, noise=0.01), slower_by(made_up(rng, noise=0.01, flops=flops), 3, ("0", "2"))
    text = " ".join(str(compare(a, b, min_change=0.5)).split())
    assert "Real: 2 backward is" in text
    assert (text.count("slower, though its counts agree.") == 2) == (flops > 0)  # forward and backward of layer 0
    assert ("updates have no counts" in text) == (flops == 0)


@pytest.mark.parametrize("mark", ["", "together"])
def test_a_slower_optimizer_is_found(mark):
    rng = np.random.default_rng(8)
    pairs = [(made_up(rng, mark=mark), slower_by(made_up(rng, mark=mark), 1, (), 2.0)) for _ in range(10)]
    assert all(any(c.phase == "update" for c in compare(a, b).worse()) for a, b in pairs)


@pytest.mark.parametrize("mark", ["", "together"])
@pytest.mark.parametrize("epochs", [1, 3, 20])
def test_a_new_row_and_one_that_is_gone_count(mark, epochs):
    rng = np.random.default_rng(9)
    a, b = made_up(rng, epochs, mark=mark), made_up(rng, epochs, mark=mark)
    for epoch in b.epochs:
        epoch.rows.append(Row("3", "op", nodes=10, forward_ns=300_000, backward_ns=200_000))
        epoch.forward_ns += 300_000
        epoch.backward_ns += 200_000
    found = compare(a, b)
    new = [c for c in found.changes if c.layer == "3"]
    assert [(c.phase, c.a, c.change, c.real) for c in new] == [
        ("forward", 0, float("inf"), True), ("backward", 0, float("inf"), True),
    ]  # fmt: skip
    assert set(map(id, new)) <= set(map(id, found.worse(0.1)))
    assert "3 forward is new: " in str(found)
    back = compare(b, a)
    assert [(c.phase, c.b, c.change, c.real) for c in back.changes if c.layer == "3"] == [
        ("forward", 0, -1, True), ("backward", 0, -1, True),
    ]  # fmt: skip
    assert not [c for c in back.worse() if c.layer == "3"]
    assert "3 forward is gone: it took " in str(back)


@pytest.mark.parametrize("mark", ["", "together"])
def test_the_backward_of_a_layer_that_is_frozen_in_one_run_is_new_or_gone(mark):
    rng = np.random.default_rng(13)
    a, b = made_up(rng, mark=mark), made_up(rng, mark=mark)
    for epoch in a.epochs:
        epoch.backward_ns -= epoch.rows[0].backward_ns
        epoch.rows[0].backward_ns = 0
    for found, run, text in ((compare(a, b), "a", "0 backward is new: "), (compare(b, a), "b", "0 backward is gone: ")):
        (alone,) = [c for c in found.changes if c.one_sided]
        assert (alone.layer, alone.phase, getattr(alone, run), alone.real) == ("0", "backward", 0, True)
        assert text in str(found) and found.only_a == found.only_b == []


def test_a_layer_of_another_name_is_no_growth():
    rng = np.random.default_rng(10)
    a, b = made_up(rng, noise=0.01), made_up(rng, noise=0.01)
    for epoch in b.epochs:
        epoch.rows[0].layer = "first"
    found = compare(a, b)
    assert [c.layer for c in found.changes if c.one_sided] == ["0", "0", "first", "first"]
    assert found.worse(0.1) == []


@pytest.mark.parametrize("mark", ["", "together"])
@pytest.mark.parametrize(("factor", "grown"), [(1, False), (1.2, False), (1.45, False), (4, True)])
def test_layers_that_all_have_other_names_grew_if_their_time_grew_by_more_than_the_noise(factor, grown, mark):
    """The machine may be slower in the second run; of alternated runs, both are."""
    rng = np.random.default_rng(12)
    a, b = made_up(rng, noise=0.01, mark=mark), made_up(rng, noise=0.01, mark=mark)
    for epoch in b.epochs:
        for row in epoch.rows:
            row.layer, row.forward_ns, row.backward_ns = (
                f"body.{row.layer}", int(factor * row.forward_ns), int(factor * row.backward_ns)
            )  # fmt: skip
        for phase in ("forward_ns", "backward_ns", "update_ns"):
            setattr(epoch, phase, int(factor * getattr(epoch, phase)))
    found = compare(a, b)
    assert any(c.layer.startswith("body.") for c in found.worse(0.1)) == (grown or (bool(mark) and factor > 1.1))
    assert "these may be the same layers under other names" in " ".join(str(found).split())


def test_ops_outside_of_modules_are_named():
    rng = np.random.default_rng(11)
    a, b = made_up(rng, noise=0.01), made_up(rng, noise=0.01)
    for session in (a, b):
        for epoch in session.epochs:
            epoch.rows[0].layer = ""
    found = compare(a, slower_by(b, 2, ("",)))
    assert [c.layer for c in found.worse() if c.layer] == ["(outside)", "(outside)"]


def test_steps_that_differ_are_said_and_counts_are_those_of_a_step():
    rng = np.random.default_rng(12)
    a, b = made_up(rng, 5), made_up(rng, 10)
    found = compare(a, b)
    assert found.counts == []
    assert found.steps == (50, 100)
    assert "Observed steps differ: 50 in a, 100 in b." in str(found)
    assert "Observed steps" not in str(compare(a, made_up(rng, 5)))
    assert (found.replayed, "Replayed steps" in str(found)) == ((0, 0), False)


def test_the_share_of_replayed_steps_is_that_of_all_steps():
    rng = np.random.default_rng(12)
    a, b = made_up(rng, 4), made_up(rng, 4)
    for epoch in (*a.epochs, *b.epochs):
        epoch.steps, epoch.replayed = 16, 12
    found = compare(a, b)
    assert (found.total_steps, found.replayed) == ((64, 64), (48, 48))
    assert "Replayed steps: 75% in a, 75% in b." in str(found)


def test_a_comparison_says_what_it_would_have_found():
    rng = np.random.default_rng(13)
    loud, quiet = (compare(made_up(rng, noise=noise), made_up(rng, noise=noise)) for noise in (0.5, 0.01))
    assert quiet.smallest(quiet.changes[0]) < 0.5 * loud.smallest(loud.changes[0])
    assert "Smallest change that can be detected with this noise: " in str(quiet)


def test_a_drift_that_all_layers_share_is_taken_out_of_new_rows_too():
    rng = np.random.default_rng(14)
    a, b = made_up(rng, noise=0.01), made_up(rng, noise=0.01, day=2.0)
    for epoch in b.epochs:
        epoch.rows.append(Row("3", "op", nodes=10, forward_ns=400_000))
        epoch.forward_ns += 400_000
    found = compare(a, b)
    assert found.drift == pytest.approx(1.0, abs=0.05)
    assert next(c for c in found.changes if c.layer == "3").b == pytest.approx(20_000, rel=0.05)


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


def test_saved_bytes_that_pass_to_another_layer_are_no_growth():
    def run(freeze):
        model = nn.Sequential(nn.Dense(5, 16, rng=0), nn.ReLU(), nn.Dense(16, 3, rng=1))
        model[0].requires_grad_(not freeze)
        with mf.Profiler(model) as profiler:
            nn.CrossEntropyLoss()(model(X), Y).backward()
            mf.optim.SGD(model[2].parameters(), lr=0.01).step()
        return profiler.session

    trained, frozen = run(False), run(True)
    saved = {c.layer: (c.a, c.b) for c in compare(trained, frozen).counts if c.what == "saved_bytes"}
    assert saved[""][1] < saved[""][0] and saved["2"][1] > saved["2"][0]
    assert "saved_bytes" not in {c.what for c in compare(trained, frozen).worse()}
    assert [c.layer for c in compare(frozen, trained).worse() if c.what == "saved_bytes"] == [""]


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


@pytest.mark.parametrize("options", [{"min_change": -1}, {"min_change": float("nan")}, {"confidence": 1.0}])
def test_settings_that_cannot_work(options):
    session = made_up(np.random.default_rng(0), 2)
    with pytest.raises(ArgumentError, match="compare: expected"):
        compare(session, made_up(np.random.default_rng(1), 2), **options)
    with pytest.raises(ArgumentError, match="an epoch in b"):
        compare(session, Session())


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


def test_a_path_is_no_session():
    with pytest.raises(ArgumentError, match="^compare: expected two sessions, got str; read a file with Session.load"):
        compare("a.json", "b.json")


def test_scalar_nodes_are_compared_if_both_runs_have_them():
    def run(indices):
        model = nn.Sequential(nn.Dense(4, 5, rng=0), nn.Lambda(lambda t: t[:, indices]), nn.Dense(5, 3, rng=1))
        with mf.Profiler(model) as profiler:
            model(np.ones((8, 4), np.float32)).sum().backward()
        return profiler.session

    one, all_of_them = run([0] * 5), run([0, 1, 2, 3, 4])
    found = compare(one, all_of_them)
    assert {(c.layer, c.what) for c in found.worse(0) if not c.phase} == {
        (layer, what) for layer in ("", "0") for what in ("scalar_rules", "scalar_accumulated")
    }
    assert "Counts per step: 4 differ." in str(found)
    for row in one.epochs[0].rows:  # as in a file that an older version has saved
        row.scalar_nodes = row.scalar_rules = row.scalar_accumulated = 0
    assert compare(one, all_of_them).counts == []


# Sampled runs


def sampled(every, epochs, kinds=(100, 100, 50), more=1, mark=""):
    """Return a profile of steps whose counts and times are those of ``kinds`` in turns; the first takes longer."""
    found, seen = [], observed_steps(epochs * len(kinds), every)
    for k in range(epochs):
        picked = [kinds[s % len(kinds)] for s in seen if s // len(kinds) == k]
        ns = sum(1000 * kinds[s % len(kinds)] * (1 if s else 10) for s in seen if s // len(kinds) == k)
        rows = [Row(name, "op", nodes=len(picked), flops_forward=more * sum(picked), backward_ns=ns) for name in "01"]
        epoch = Epoch(k + 1, len(kinds), len(picked), rows=rows, backward_ns=2 * ns, parameters=7)
        found.append(epoch if picked else Epoch(k + 1, len(kinds)))
    return Session(every=every, epochs=found, alternated=mark)


@pytest.mark.parametrize("mark", ["", "together/30"])
@pytest.mark.parametrize("a", [(1, 30), (2, 30), (3, 30)])
@pytest.mark.parametrize("b", [(1, 30), (2, 12), (5, 30), (8, 30)])
def test_one_training_that_is_sampled_differently_differs_in_nothing(a, b, mark):
    found = compare(sampled(*a, mark=mark), sampled(*b, mark=mark))
    assert found.worse() == [] and not any(c.real for c in [*found.changes, *found.counts])
    assert [c.what for c in compare(sampled(1, 30), sampled(8, 30, kinds=(100, 100, 100))).counts if c.real] == []


def test_counts_of_differently_sampled_runs_are_judged_by_what_steps_that_were_not_observed_explain():
    found = compare(sampled(1, 40), sampled(5, 40, more=3))
    assert [(c.layer, c.what) for c in found.worse()] == [(layer, "flops_forward") for layer in ("", "0", "1")]
    found = compare(sampled(1, 40), sampled(5, 40))
    assert found.counts and not found.judges_times and found.smallest(found.changes[0]) == np.inf
    text = str(found)
    assert "Times are not judged: a with every=1 and b with every=5 observed other" in text
    assert "(mean of the observed steps)" in text
    words = " ".join(text.split())
    assert "Compared: lower quartiles of the epochs. Confidence: 95%" in words
    assert not found.corrected and found.drift == 0
    assert f"Counts per step: {len(found.counts)} differ, {len(found.counts)} of them by no more than sampling" in words
    assert all(line.endswith("unknown") for line in text.splitlines() if line.startswith("(the whole step)  backward"))


def test_a_layer_of_steps_that_only_one_run_observed_is_not_new():
    a, b = sampled(1, 10), sampled(4, 10)
    for epoch in b.epochs:
        epoch.rows = [Row("2", "op", nodes=1, backward_ns=500_000), *epoch.rows]
    found = compare(a, b)
    assert [(c.layer, c.real) for c in found.changes if c.one_sided] == [("2", False)]
    assert found.worse() == [] and "unknown" in str(found)


def test_runs_that_are_sampled_alike_are_compared_exactly():
    found = compare(sampled(4, 30), sampled(4, 30, more=1.01))
    assert [c.change for c in found.worse(0.005)] == pytest.approx([0.01] * 3)
    assert compare(sampled(4, 30), sampled(4, 30)).judges_times
