"""What profiling costs: measured by steps of the same kind that are run again, which changes nothing."""

from __future__ import annotations

import copy
import sys

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.autograd.mode import MODE
from microfw.errors import GraphError
from microfw.profiler import Session, alternate, report
from microfw.profiler.recorder import overhead
from microfw.profiler.recorder.overhead import Extra, interval
from microfw.profiler.recorder.recorder import Recorder

pytestmark = pytest.mark.usefixtures("measured_overhead")
RNG = np.random.default_rng(0)
X, Y = RNG.random((32, 12), np.float32), RNG.integers(0, 4, 32)


def profiled(kind, steps=30, model=None, **options):
    model = model or nn.Sequential(nn.Dense(12, 8, rng=0), nn.Dropout(0.2, rng=1), nn.ReLU(), nn.Dense(8, 4, rng=1))
    loss = nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=0.01)
    step = mf.compile(lambda x, y: loss(model(x), y), optimizer)
    profiler = mf.Profiler(model, **options)
    with profiler:
        for _ in range(steps):
            if kind == "replayed":
                step(X, Y)
            else:
                optimizer.zero_grad()
                loss(model(X), Y).backward()
                optimizer.step()
    return profiler, model, optimizer, step


@pytest.mark.parametrize("kind", ["eager", "replayed"])
@pytest.mark.parametrize("options", [{}, {"every": 4}, {"trace": 100}])
def test_overhead_is_measured_without_changing_the_profile(kind, options):
    profiler, model, optimizer, step = profiled(
        kind, steps=200, **options
    )  # in fewer, the set-up takes most of the time
    before = copy.deepcopy((optimizer.state_dict(), [p.data.copy() for p in model.parameters()]))
    drawn = copy.deepcopy(model[1].rng.bit_generator.state)
    explained = step.explain()
    found = profiler.session.overhead
    assert found["measured"] == 1
    assert 0 <= found["low"] <= found["share"] <= found["high"] < 100  # set-up and disturbed rounds, both at their caps
    np.testing.assert_equal((optimizer.state_dict(), [p.data for p in model.parameters()]), before)
    assert model[1].rng.bit_generator.state == drawn
    assert step.explain() == explained
    assert profiler.session.epochs[0].sum().nodes == profiler.session.epochs[0].sum().rules
    text = " ".join(profiler.report(full=True).split())
    assert "measured by alternating profiled and plain steps" in text


def test_replays_after_it_are_right_and_checked_when_they_are_due():
    profiler, model, _, step = profiled("replayed", steps=12)
    twin, other, _, again = profiled("replayed", steps=12)
    assert profiler.session.overhead["measured"] == 1  # the other session is not read
    for _ in range(70):
        assert step(X, Y).item() == again(X, Y).item()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert np.array_equal(a.data, b.data)


@pytest.mark.parametrize("change", ["failing op", "large array"])
def test_a_step_that_cannot_be_run_again_is_estimated(change, monkeypatch):
    calls = [0]

    @mf.op(vjp=lambda g: g, name="works_for_a_while")
    def works(x):
        calls[0] += 1
        if calls[0] > 5:
            raise RuntimeError("no more")
        return x + 0

    if change == "large array":
        monkeypatch.setattr("microfw.profiler.recorder.sequence.MAX_KEPT", 10)
    model = nn.Sequential(nn.Dense(12, 4, rng=0), *([nn.Lambda(works)] if change == "failing op" else []))
    profiler, *_ = profiled("eager", steps=5, model=model)
    found = profiler.session.overhead
    assert found["measured"] == 0 and found["share"] >= 0
    assert "slower" in profiler.report(full=True) and "estimated" in profiler.report(full=True)


@pytest.mark.parametrize("lookup", [0, 2000])
def test_the_extra_time_is_that_of_all_steps(lookup, monkeypatch):
    """Observed and other steps, eager and replayed ones, count as often as there were."""
    profiler, *_ = profiled("eager", steps=20, every=4)
    _ = profiler.session
    eager = Extra(np.full(3, 4000.0), np.full(3, 400.0))
    monkeypatch.setattr(overhead, "measure_eager", lambda recorder, traced: (eager, 5))
    monkeypatch.setattr(overhead, "measure_replayed", lambda recorder, traced: None)
    session = Session(every=4, epochs=[copy.deepcopy(profiler.session.epochs[0])])
    epoch = session.epochs[0]
    epoch.total_ns = 5 * (4000 + lookup) + 15 * 400 + 260_000
    epoch.evaluation_ns = epoch.check_ns = epoch.preparation_ns = epoch.set_up_ns = 0
    recorder = Recorder()
    recorder.lookup_ns = 5 * lookup
    found = overhead.overhead(session, recorder)
    assert found["share"] == found["low"] == found["high"] == pytest.approx((26_000 + 5 * lookup) / 260_000, rel=1e-3)
    assert found["ns_per_node"] == 800 + lookup / 5


@pytest.mark.parametrize("retain", [False, True])
def test_steps_of_several_passes_add_the_time_in_which_their_ops_are_looked_up(retain, monkeypatch):
    monkeypatch.setattr(overhead, "measure_eager", lambda recorder, traced: (Extra(*2 * [np.full(3, 1000.0)]), 5))
    model = nn.Sequential(nn.Dense(12, 4, rng=0), nn.Tanh(), nn.Dense(4, 4, rng=1))
    with mf.Profiler(model) as profiler:
        for _ in range(20):
            y = model(X)
            nn.CrossEntropyLoss()(y, Y).backward(retain_graph=retain)
            np.square(y if retain else model(X)).mean().backward()
            optim.SGD(model.parameters(), lr=0.1).step()
    recorder = profiler._detached
    assert recorder.lookups >= 20 and recorder.lookup_ns > 0
    nodes = profiler.session.total().sum().nodes
    assert profiler.session.overhead["ns_per_node"] == pytest.approx(200 + recorder.lookup_ns / nodes, abs=0.1)


def test_ops_without_a_node_are_part_of_it_and_are_labelled_as_estimated(monkeypatch):
    """Their inputs are not kept, so a small frozen layer takes their place."""
    model = nn.Sequential(*[nn.Dense(12, 12, rng=k) for k in range(3)], nn.Dense(12, 4, rng=3))
    model[:3].requires_grad_(False)
    profiler, *_ = profiled("eager", steps=20, model=model, every=4)
    nodes, layers = Extra(np.full(3, 1000.0), np.full(3, 100.0)), Extra(np.full(3, 32_000.0), np.full(3, 3200.0))
    monkeypatch.setattr(overhead, "measure_eager", lambda recorder, traced: (nodes, 2))
    monkeypatch.setattr(overhead, "measure_replayed", lambda recorder, traced: None)
    monkeypatch.setattr(overhead, "measure_small", lambda kind: (layers, 16))
    recorder = profiler._detached
    assert recorder.constants == 3 * 5
    recorder.set_up_ns = recorder.between_ns = recorder.lookup_ns = 0
    epoch = profiler._logs[0][1].epoch()
    extra = 5 * 1000 + 15 * 100 + 3 * (5 * 2000 + 15 * 200)
    epoch.total_ns = epoch.evaluation_ns = epoch.check_ns = epoch.preparation_ns = epoch.set_up_ns = 0
    epoch.total_ns = 10 * extra
    found = overhead.overhead(Session(every=4, epochs=[epoch]), recorder)
    assert found["share"] == pytest.approx(1 / 9, rel=1e-3)
    assert found["measured"] == 0


def test_ops_in_a_checkpoint_cost_what_they_do_in_a_small_one_and_are_labelled_as_estimated(monkeypatch):
    """They run twice, and are no part of the step that is repeated."""
    model = nn.Sequential(*[nn.Dense(12, 12, rng=k) for k in range(3)])
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    with mf.Profiler(model) as profiler:
        for _ in range(5):
            (mf.checkpoint(model, X) ** 2).mean().backward()
            optimizer.step()
    recorder, epoch = profiler._detached, profiler._logs[0][1].epoch()
    assert recorder.recomputations == 3 * 5 and epoch.sum().nodes == (3 + 2) * 5
    kinds = {"checkpoint": Extra(np.full(3, 32_000.0), np.full(3, 0.0)), "eager": Extra(np.ones(3), np.ones(3))}
    monkeypatch.setattr(overhead, "measure_eager", lambda recorder, traced: (Extra(*2 * [np.full(3, 1000.0)]), 2))
    monkeypatch.setattr(overhead, "measure_small", lambda kind: (kinds[kind], 16))
    recorder.set_up_ns = recorder.between_ns = recorder.lookup_ns = 0
    epoch.check_ns = epoch.preparation_ns = epoch.set_up_ns = epoch.evaluation_ns = 0
    epoch.total_ns = 10 * 5 * (1000 + 3 * 2000)
    found = overhead.overhead(Session(epochs=[epoch]), recorder)
    assert found["share"] == pytest.approx(1 / 9, rel=1e-3)
    assert found["ns_per_node"] == 7000 / 5
    assert found["measured"] == 0


@pytest.mark.parametrize(("extra", "share", "capped"), [(4e3, (4 + 50) / 46, False), (9e6, (40 + 50) / 10, True)])
def test_only_the_measured_part_is_capped_and_the_report_says_so(monkeypatch, extra, share, capped):
    """Of 100 µs, 50 were the profiler's own set-up."""
    monkeypatch.setattr(overhead, "measure_eager", lambda recorder, traced: (Extra(*2 * [np.full(3, extra)]), 1))
    monkeypatch.setattr(overhead, "measure_replayed", lambda recorder, traced: None)
    epoch = mf.profiler.Epoch(1, 1, 1, total_ns=100_000, set_up_ns=50_000, other_ns=50_000)
    epoch.rows = [mf.profiler.Row("", "add", nodes=1)]
    recorder, session = Recorder(), Session(epochs=[epoch])
    recorder.set_up_ns = 50_000
    session.overhead = found = overhead.overhead(session, recorder)
    assert found["share"] == pytest.approx(share, abs=1e-4)
    assert ("capped" in found) == ("not plausible" in report(session, full=True)) == capped


def test_the_interval_of_a_median_holds_in_19_of_20_samples():
    rng = np.random.default_rng(0)
    ends = [interval(rng.normal(size=21)) for _ in range(2000)]
    assert 0.93 < np.mean([low <= 0 <= high for low, _, high in ends]) < 0.99


def test_old_overheads_are_shown():
    session = Session(overhead={"ns_per_node": 500.0, "share": 0.05}, epochs=[mf.profiler.Epoch(1, 1, 1, total_ns=9)])
    assert "Profiling made the steps 5.0% slower, estimated: 500 ns a node." in " ".join(
        report(session, full=True).split()
    )


def test_of_alternated_runs_only_the_last_measure_their_overhead():
    """A measurement takes longer than such a run."""
    made = []

    def run():
        model = nn.Dense(4, 2, rng=0)
        with mf.Profiler(model) as profiler:
            model(np.ones((3, 4), np.float32)).sum().backward()
            optim.SGD(model.parameters(), lr=1e-3).step()
        made.append(profiler.session)
        return profiler.session

    a, b = alternate(run, run, rounds=2)
    assert [bool(session.overhead) for session in made] == [False] * 4 + [True] * 2
    assert a.overhead
    assert b.overhead


class Renews(nn.Module):
    """Makes a module in each step."""

    def forward(self, x):
        return nn.Lambda(np.tanh)(x)


@pytest.mark.parametrize("kind", [nn.ReLU, Renews])
def test_a_repeated_step_is_observed_by_as_many_calls_as_the_original(monkeypatch, kind):
    made = []
    monkeypatch.setattr(overhead, "measure_eager", lambda recorder, traced: made.append(recorder.example))
    model = nn.Sequential(nn.Dense(12, 8, rng=0), kind(), nn.Dense(8, 4, rng=1))
    profiler, _, optimizer, _ = profiled("eager", model=model)
    assert profiler.session.overhead["measured"] == 0
    step = overhead.RepeatedStep(made[0])
    observed, _ = map(overhead.mode_with, overhead.recorders(False, True))

    loss = nn.CrossEntropyLoss()

    def original():
        optimizer.zero_grad()
        loss(model(X), Y).backward()
        optimizer.step()

    with mf.Profiler(model):
        added = calls(original)
    added -= calls(original)
    assert calls(lambda: step(observed)) - calls(lambda: step(overhead.PLAIN)) == added > 10


def calls(function):
    """Return how many Python functions a call runs, after five calls that make what is kept."""
    for _ in range(5):
        function()
    found = 0

    def count(frame, event, argument):
        nonlocal found
        found += event == "call"

    sys.setprofile(count)
    try:
        function()
    finally:
        sys.setprofile(None)
    return found


def fit(profiler, model, epochs=1):
    data = np.ones((16, 6), np.float32), np.arange(16) % 3
    trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.01), hooks=[profiler])
    trainer.fit(data, epochs=epochs, batch_size=8, rng=0, progress=False)


def test_starts_and_ends_of_all_fits_of_a_session_are_overhead():
    profiler, model = mf.Profiler(), nn.Dense(6, 3, rng=0)
    fit(profiler, model)
    session, spent = profiler._between
    assert session is profiler._session and spent > 0
    assert profiler.session.overhead["share"] > 0  # the next fit adds to it, also after it was read
    profiler._between = session, 10**15
    fit(profiler, model)
    assert profiler._between[0] is session and profiler._between[1] > 10**15
    fit(profiler, nn.Dense(6, 3, rng=1))  # another model, another session
    assert profiler._between[0] is not session and profiler._between[1] < 10**15


def test_a_profiler_of_a_block_that_is_a_hook_too_raises_and_stays_with_the_block():
    profiler, before = mf.Profiler(), MODE.get()
    with pytest.raises(GraphError, match="expected to be attached once"), profiler:
        fit(profiler, nn.Dense(6, 3, rng=0))
    assert MODE.get() is before
    other = mf.Profiler()
    fit(other, nn.Dense(6, 3, rng=0))
    assert other.session.epochs[0].steps == 2
