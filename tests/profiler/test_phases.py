"""Phases of an epoch: each nanosecond is in one of them, in every kind of loop."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.profiler import Session, report
from microfw.profiler.recorder.sampling import every_nth
from microfw.profiler.recorder.stats import GraphStats, OpStats
from tests.helpers import phase_loops
from tests.helpers.sampled_loop import observed_steps


@pytest.fixture(scope="module")
def found():
    """Return what each loop has come to, under a clock that only the loop moves."""
    script = Path(phase_loops.__file__)
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False)
    assert not done.returncode, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", phase_loops.LOOPS)
def test_phases_have_their_time_and_add_up_to_the_epoch(found, name):
    ns, total, wanted, rows = (found[name][key] for key in ("ns", "total", "wanted", "rows"))
    assert sum(ns.values()) == total
    assert {phase: round(ns[phase] / 1e6) for phase in wanted} == wanted
    assert all(round(ns[phase] / 1e6) == 0 for phase in ns.keys() - wanted.keys())
    assert all(value >= 0 for value in (*ns.values(), *rows))


# Steps told apart


def counts(step, steps=4):
    """Return (nodes, rules, accumulated) of steps, and the epoch."""
    with mf.Profiler() as profiler:
        for k in range(steps):
            step(k)
        profiler.end_epoch()
    epoch = profiler.session.epochs[0]
    total = epoch.sum()
    return (total.nodes, total.rules, total.accumulated), epoch


def test_steps_of_the_same_ops_wired_otherwise_are_counted_apart():
    w = nn.Parameter(np.ones(3))

    def step(k):
        a = w * 2.0
        b = a * 3.0
        (b if k % 2 else a).sum().backward()

    assert counts(step)[0] == (10, 10, 4)


def test_a_leaf_used_twice_is_not_two_leaves():
    w, v = nn.Parameter(np.ones(3)), nn.Parameter(np.ones(3))
    assert counts(lambda k: (w * (v if k else w)).sum().backward(), 1)[1].parameters == 3
    assert counts(lambda k: (w * (w if k % 2 else v)).sum().backward())[1].parameters == 6
    assert counts(lambda k: (w * (w if k % 2 else v)).sum().backward())[0] == (8, 8, 8)


def test_results_of_equal_ops_are_told_apart():
    w = nn.Parameter(np.ones(3))

    def step(k):
        a, b = w * 2.0, w * 2.0
        (a + (b if k % 2 else a)).sum().backward()

    assert counts(step)[0] == (2 * 3 + 2 * 4, 2 * 3 + 2 * 4, 2 * 1 + 2 * 2)


def test_forwards_before_their_backwards_belong_to_the_step():
    w = nn.Parameter(np.ones(3))

    def step(k):
        first, second = (w * 2.0).sum(), (w * 3.0 * 4.0).sum()
        first.backward()
        second.backward()

    assert counts(step)[0] == (20, 20, 8)


def test_a_retained_graph_is_walked_twice_and_counted_once():
    w = nn.Parameter(np.ones(3))

    def twice(k):
        loss = (w * 2.0).sum()
        loss.backward(retain_graph=True)
        loss.backward()

    assert counts(twice)[0] == (8, 16, 8)

    def trunk(k):
        h = w * 2.0
        h.sum().backward(retain_graph=True)
        (h * 3.0).sum().backward()

    found, epoch = counts(trunk)
    assert found == (16, 20, 8)
    assert epoch.sum().flops_forward == 4 * (3 + 2 + 3 + 2)


def test_ops_without_a_node_are_told_apart():
    """The profiler keeps which of them followed another one last time."""
    w, x = nn.Parameter(np.ones(3)), mf.tensor(np.ones(3, np.float32))
    optimizer = optim.SGD([w], lr=0.1)

    def step(k):
        y = np.sum(mf.tensor(np.ones((3, 2 + k % 2), np.float32)), axis=1) * 2.0  # from 6 or 9 numbers
        z = np.clip(x * 2.0, 0.0, 1.0 + k) / (y.sum() if k == 3 else y)
        ((x if k == 2 else z) * w).sum().backward()
        optimizer.step()

    together = counts(step, 5)[1].sum()
    alone = [counts(lambda _, k=k: step(k), 1)[1].sum() for k in range(5)]
    for name in ("nodes", "flops_forward", "flops_backward", "uncounted"):
        assert getattr(together, name) == sum(getattr(each, name) for each in alone)


def test_leaves_made_in_each_step_take_no_memory():
    with mf.Profiler() as profiler:
        for _ in range(100):
            w = mf.tensor(np.ones(3), requires_grad=True)
            (w * 2.0).sum().backward()
        assert len(profiler._recorder.sequences.all) == 2
        profiler.end_epoch()
    assert profiler.session.epochs[0].sum().nodes == 200


def test_a_run_without_steps_takes_bounded_memory(monkeypatch):
    monkeypatch.setattr("microfw.profiler.recorder.sequence.MAX_DEPTH", 50)
    w = nn.Parameter(np.ones(3))
    with mf.Profiler() as profiler:
        for _ in range(100):
            (w * 2.0).sum()  # a forward that no backward pass follows
        assert len(profiler._recorder.sequences.all) <= 50


# Sampling


@pytest.mark.parametrize("n", [2, 3, 7, 16, 300])
def test_a_schedule_is_a_function_of_the_steps_number_with_one_step_in_each_block(n):
    schedule, last = every_nth(n), 260 * n  # beyond the blocks after which places repeat
    steps = [k for k in range(last) if schedule(k)]
    every_nth.cache_clear()
    assert steps == [k for k in reversed(range(last)) if every_nth(n)(k)][::-1]
    assert steps[0] == 0
    assert [k // n for k in steps] == list(range(260))


@pytest.mark.parametrize("n", [2, 4, 10, 16, 64, 512])
@pytest.mark.parametrize("period", [2, 3, 4, 16])
def test_a_schedule_observes_each_step_of_a_period_about_as_often(n, period):
    seen = np.bincount([k % period for k in observed_steps(200 * n, n)], minlength=period)
    assert abs(seen / 200 - 1 / period).max() < 0.08


@pytest.mark.parametrize("every", [2, 5])
def test_replays_follow_the_schedule(every):
    model = nn.Dense(3, 2, rng=0)
    loss = nn.CrossEntropyLoss()
    step = mf.compile(lambda x, y: loss(model(x), y), optim.SGD(model.parameters(), lr=0.1))
    X, y = np.ones((4, 3), np.float32), np.zeros(4, np.int64)
    for _ in range(3):
        step(X, y)
    with mf.Profiler(model, every=every) as profiler:
        for _ in range(11):
            step(X, y)
    epoch = profiler.session.epochs[0]
    assert (epoch.steps, epoch.observed) == (11, len(observed_steps(11, every)))
    assert epoch.sum().nodes == epoch.sum().rules == 2 * epoch.observed
    assert epoch.replayed == 10  # one is run eagerly for the profiler to record it


# Files and reports


def test_a_profile_of_the_older_format_has_other_time(tmp_path):
    path = tmp_path / "old.json"
    epoch = {"epoch": 1, "rows": [], "forward_ns": 3, "data_ns": 1, "check_ns": 2, "total_ns": 10}
    path.write_text(json.dumps({"version": 4, "epochs": [epoch], "layers": []}))
    session = Session.load(path)
    assert session.epochs[0].other_ns == 4 and session.epochs[0].unobserved_ns == 0
    session.save(tmp_path / "new.json")
    assert json.loads((tmp_path / "new.json").read_text())["version"] == 5
    assert Session.load(tmp_path / "new.json") == session


@pytest.mark.parametrize("every", [1, 3])
def test_the_report_shows_phases_that_add_up(every):
    model = nn.Dense(3, 2, rng=0)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with mf.Profiler(model, every=every) as profiler:
        for _ in range(5):
            nn.CrossEntropyLoss()(model(np.ones((4, 3), np.float32)), np.zeros(4, np.int64)).backward()
            optimizer.step()
    text = report(profiler.session, full=True)
    lines = text[text.index("Phases (all steps together)") :].split("\n\n")[0].splitlines()[3:]
    names = [
        "data",
        "forward",
        "backward",
        "update",
        "setting up the profiler",
        "other",
        *(["steps not observed"] if every > 1 else []),
        "total",
    ]
    assert [line.split("  ")[0].strip() for line in lines] == names
    times = [float(line.split()[-2].replace(",", "")) for line in lines]
    assert sum(times[:-1]) == pytest.approx(times[-1], abs=0.04)


@pytest.mark.parametrize("kind", ["trained", "frozen", "checkpoint"])
@pytest.mark.parametrize("every", [1, 2])
def test_setting_up_is_no_part_of_a_phase_of_the_step(monkeypatch, every, kind):
    def slowly(made, ms):
        before = made.__init__

        def init(self, *args, **options):
            time.sleep(ms / 1e3)
            before(self, *args, **options)

        monkeypatch.setattr(made, "__init__", init)

    slowly(OpStats, 20)
    slowly(GraphStats, 40)
    body = nn.Sequential(nn.Dense(3, 3, rng=1), nn.Tanh())
    body.requires_grad_(kind != "frozen")
    model = nn.Sequential(body, nn.Dense(3, 2, rng=0))
    run = (lambda x: mf.checkpoint(model, x)) if kind == "checkpoint" else model
    optimizer = optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    with mf.Profiler(model, every=every, trace=1) as profiler:
        for _ in range(5):
            nn.CrossEntropyLoss()(run(np.ones((4, 3), np.float32)), np.zeros(4, np.int64)).backward()
            optimizer.step()
            profiler.end_epoch()
    first, *others = profiler.session.epochs
    assert first.other_ns >= first.set_up_ns >= 120e6
    assert first.forward_ns + first.backward_ns + first.update_ns + first.data_ns < first.total_ns - 120e6
    assert all(e.set_up_ns == 0 for e in others)
    assert all(e.untagged_forward_ns >= 0 and e.untagged_backward_ns >= 0 for e in profiler.session.epochs)
    assert every > 1 or first.unobserved_ns == 0


@pytest.mark.parametrize("order", ["aba", "aa", "abab"])
def test_updates_after_one_backward_pass_are_one_step_in_any_order(order):
    model = nn.Sequential(nn.Dense(3, 2, rng=0), nn.Dense(2, 1, rng=1))
    optimizers = {name: optim.SGD(layer.parameters(), lr=0.1) for name, layer in zip("ab", model, strict=True)}
    with mf.Profiler(model) as profiler:
        for _ in range(3):
            model(np.ones((4, 3), np.float32)).sum().backward()
            for name in order:
                optimizers[name].step()
    assert profiler.session.epochs[0].steps == 3
