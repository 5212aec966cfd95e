"""A sampled profile: one step of every n is timed, and reports name the steps observed."""

from __future__ import annotations

import time

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import ArgumentError
from microfw.profiler import Epoch, Row, Session, compare, report
from microfw.profiler.search import FitProfile, fits_report
from tests.helpers.sampled_loop import LONG, Loop, X, Y, check, observed_steps


def test_only_observed_steps_are_timed():
    loop = Loop()
    with mf.Profiler(loop.model, every=4) as profiler:
        for k in range(10):  # no multiple of 4: counting other steps gives another number
            loop.slow.sleeps = k not in observed_steps(10, 4)
            loop.step()
    (epoch,) = profiler.session.epochs
    check(epoch, 10, 3)
    assert epoch.total_ns >= 7 * LONG * 1e9
    assert epoch.forward_ns + epoch.backward_ns + epoch.update_ns + epoch.data_ns < epoch.total_ns / 2


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("before", [[1, 2, 3, 4, 5, 6, 8], [7, 9]])
def test_data_is_what_came_before_observed_steps(before, compile):
    loop = Loop(compile)
    for _ in range(3):
        loop.step()
    with mf.Profiler(loop.model, every=4) as profiler:
        for k in range(10):
            if k in before:
                time.sleep(LONG)
            loop.step()
    (epoch,) = profiler.session.epochs
    check(epoch, 10, 3)
    slept = 2 * LONG * 1e9
    assert epoch.data_ns >= slept if before == [7, 9] else epoch.data_ns < slept


@pytest.mark.parametrize("compile", [False, True])
def test_evaluation_is_timed_wherever_it_comes(compile):
    loop = Loop(compile)
    with mf.Profiler(loop.model, every=4) as profiler:
        for k in range(10):
            loop.step()
            if k in (0, 2, 3, 9):
                with mf.no_grad():
                    nn.Sequential(nn.Lambda(lambda x: time.sleep(LONG) or x))(X)
    (epoch,) = profiler.session.epochs
    check(epoch, 10, 3)
    assert 4 * LONG * 1e9 <= epoch.evaluation_ns <= epoch.total_ns


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("saved", [(), (0,), (2, 3), (1, 6), (0, 1, 2, 3, 4, 5, 6)])
def test_the_loss_is_that_of_all_steps(compile, saved):
    loop = Loop(compile)
    with mf.Profiler(loop.model, every=4) as profiler:
        for _ in range(2):
            losses = []
            for k in range(7):
                losses.append(loop.step().item())
                if k in saved:
                    profiler.state_dict()
            profiler.end_epoch()
    assert profiler.session.epochs[1].loss == pytest.approx(np.mean(losses))
    assert [e.observed for e in profiler.session.epochs] == [1, 2]


def test_all_replays_are_counted():
    loop = Loop(compile=True)
    with mf.Profiler(loop.model, every=5) as profiler:
        for rows in (16, 48, 16, 48, 7, 16, 48, 8, *[16] * 9):
            loop.step(rows)
        profiler.end_epoch()
        for rows in (16, 48, 16, 16, 48, 9, 16):
            loop.step(rows)
    first, second = profiler.session.epochs
    # Two of 16 and 48 rows each are learnt from, one is observed before it is followed; 7 and 8 come once.
    assert (first.steps, first.replayed) == (17, 10)
    assert (second.steps, second.replayed) == (7, 6)


@pytest.mark.parametrize("compile", [False, True])
def test_a_trace_is_of_observed_steps(compile):
    loop = Loop(compile)
    with mf.Profiler(loop.model, every=3, trace=2) as profiler:
        for _ in range(12):
            loop.step()
    trace = profiler.session.trace
    assert (trace.steps, trace.complete) == (2, True)
    phases = [phase for phase, site, _, _ in trace.events if site == -1]
    assert sorted(phases) == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("every", [2, 16])
def test_an_optimizer_that_searches_is_sampled_too(every):
    loop = Loop()
    loop.optimizer = optim.LBFGS(loop.model.parameters(), iterations=3)

    def closure():
        loop.optimizer.zero_grad()
        loss = loop.loss(loop.model(X), Y)
        loss.backward()
        return loss

    with mf.Profiler(loop.model, every=every) as profiler:
        for _ in range(4):
            loop.optimizer.step(closure)
    (epoch,) = profiler.session.epochs
    assert (epoch.steps, epoch.observed) == (4, 4 // min(every, 4))
    assert epoch.sum().nodes == epoch.sum().rules >= 4 * epoch.observed
    assert epoch.forward_ns + epoch.backward_ns + epoch.update_ns + epoch.data_ns <= epoch.total_ns


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("every", [2, 4, 16])
def test_steps_of_two_optimizers_in_turns_are_both_observed(every, compile):
    layers = nn.Dense(12, 3, rng=0), nn.Dense(12, 8, rng=1)
    model = nn.Sequential(*layers)  # names them "0" and "1"
    optimizers = [optim.SGD(layer.parameters(), lr=0.1) for layer in layers]
    steps = [lambda layer=layer: (layer(X) ** 2).mean() for layer in layers]
    if compile:
        steps = [mf.compile(step, optimizer) for step, optimizer in zip(steps, optimizers, strict=True)]
    with mf.Profiler(model, every=every) as profiler:
        for k in range(25 * every):
            loss = steps[k % 2]()
            if not compile:
                loss.backward()
                optimizers[k % 2].step()
    (epoch,) = profiler.session.epochs
    assert (epoch.steps, epoch.observed) == (25 * every, 25)
    assert {row.layer: row.rules for row in epoch.layers() if row.layer} == {
        str(k): sum(step % 2 == k for step in observed_steps(25 * every, every)) for k in range(2)
    }
    assert epoch.parameters == layers[1].weight.size + layers[1].bias.size  # of the larger step


# Reports


def sampled():
    """Return a profile of three epochs of four steps, one step of each observed."""
    loop = Loop()
    profiler = mf.Profiler(loop.model, every=4, name="some")
    with profiler:
        for _ in range(3):
            for _ in range(4):
                loop.step()
            profiler.end_epoch()
    return profiler.session


@pytest.mark.usefixtures("measured_overhead")
def test_reports_say_what_was_observed(tmp_path):
    session = sampled()
    assert [(e.steps, e.observed) for e in session.epochs] == [(4, 1), (4, 1), (4, 1)]
    first = session.epochs[0]
    first.forward_ns += 1_000_000 - first.forward_ns % 1_000_000  # some whole milliseconds
    session.epochs[1] = Epoch(2, steps=4, total_ns=7_000_000)  # as if none had been
    text = report(session, full=True)
    assert "sampled: 2 of 12 steps" in text
    assert "Epochs; times are those of one observed step, but for the total" in text
    table = text[text.index("epoch  observed") :].splitlines()[1:]
    assert table[2].split()[:4] == ["1", "1", "of", "4"]
    assert f"{first.forward_ns / 1e3:,.1f}" in table[2].split()
    assert table[3].split() == ["2", "0", "of", "4", "7.00"]
    assert "sampled on 2 of 12 steps" in text
    assert "Profiling made the steps " in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 100
    markdown = session.markdown()
    assert "3 epochs, 12 steps, 2 of them observed." in markdown
    assert "Epochs; times are those of one observed step, but for the total" in markdown
    assert "| 2 | 0 of 4 |" in markdown
    notebook = session._repr_html_()
    assert "Epochs; times are those of one observed step, but for the total" in notebook and "0 of 4" in notebook
    session.save(tmp_path / "a.json")
    assert Session.load(tmp_path / "a.json") == session
    assert compare(session, Session.load(tmp_path / "a.json")).changes[0].change == 0


@pytest.mark.parametrize("mark", ["", "together"])
def test_epochs_without_an_observed_step_are_not_compared(mark):
    def made(slower, gaps):
        row = Row("0", "linear", nodes=1, backward_ns=1000 * slower), Row("1", "linear", nodes=1, backward_ns=1000)
        seen = [
            Epoch(1, 16, 1, forward_ns=9, backward_ns=2000 * slower, update_ns=9, rows=list(row)) for _ in range(30)
        ]
        for k in gaps:
            seen[k] = Epoch(1, 16)
        return Session(every=20, epochs=seen, alternated=mark)

    found = compare(made(1, range(0, 12)), made(2, range(12, 18)))
    assert [tuple(e)[1:] for e in found.epochs] == [(2000, 4000)] * 12
    assert found.rounds == (12 if mark else 18)
    assert [(c.layer, c.real) for c in found.changes if c.layer == "0"] == [("0", True)]
    with pytest.raises(ArgumentError) as info:
        compare(made(1, []), made(1, range(30)))
    wanted = "a round observed in both runs" if mark else "an epoch of b with an observed step"
    assert str(info.value) == f"compare: expected {wanted}, got none; sample more often: lower every"


def test_a_step_of_a_sampled_profile_is_one_of_those_observed():
    session = sampled()
    pytest.importorskip("matplotlib").use("agg")
    left, _ = session.plot()
    assert left.get_title() == "An observed step by epoch"
    scale = {"time, ms": 1e6, "time, µs": 1e3}[left.get_ylabel()]
    bars = left.containers[0]
    assert [bar.get_height() for bar in bars] == pytest.approx(
        [e.forward_ns / e.observed / scale for e in session.epochs]
    )


def test_fits_of_a_sampled_search_are_said_by_the_step():
    def fit(k, steps):
        observed = -(-steps // 16)
        epoch = Epoch(1, steps, observed, forward_ns=2000 * observed, backward_ns=k * 1000 * observed)
        return FitProfile("E", ["a"], [k], {}, Session(every=16, epochs=[epoch]))

    text = fits_report([fit(3, 16), fit(2, 17)])
    assert text.startswith(
        "microfw profile: 2 fits of E, 2 epochs, sampled\n\nFits (times in µs in an observed step)\n"
    )
    table = text.splitlines()
    assert table[3].split()[:6] == ["fit", "epochs", "steps", "loss", "forward", "backward"] and "share" not in text
    assert [line.split()[-2:] for line in table[5:7]] == [["2.00", "2.00"], ["2.00", "3.00"]]
    assert "Backward, epoch by epoch (µs in an observed step)" in text
    assert fit(3, 16).rows()[0]["observed"] == 1
    two = fit(3, 16)
    two.session.epochs.append(Epoch(2, 15))
    assert fits_report([two]).splitlines()[-1].split() == ["3", "3.00"]


def test_fits_list_default_settings_and_their_report_refuses_what_it_does_not_have():
    def fit(k, parameters):
        return FitProfile("E", ["a"], [k], parameters, Session(epochs=[Epoch(1, 1, 1, backward_ns=1000)]))

    fits = [fit(0, {"alpha": "1"}), fit(1, {"alpha": "1", "rate": "0.1"})]
    lines = fits_report(fits).splitlines()[5:7]
    assert [line.split()[-1] for line in lines] == ["rate=default", "rate=0.1"]
    for name, wrong in (("max_rows", 0), ("max_rows", -1), ("max_rows", "x"), ("epochs", 0), ("epochs", True)):
        with pytest.raises(
            ArgumentError, match=f"fits_report: expected {name} to be a positive integer, got {wrong!r}"
        ):
            fits_report(fits, **{name: wrong})
    with pytest.raises(TypeError, match="unexpected keyword argument 'full'"):
        fits_report(fits, full=True)


def test_a_sampled_epoch_says_so_and_one_without_an_observed_step_is_not_reported():
    model, profiler = nn.Dense(4, 3, rng=0), mf.Profiler(every=12)
    trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), hooks=[profiler])
    data = np.ones((40, 4), np.float32), np.zeros(40, int)
    trainer.fit(data, epochs=3, batch_size=5, rng=0, progress=False)  # steps 0 and 15 of 24 are observed
    first, _, last = profiler.session.epochs
    assert "Epoch(1, 1 of 8 steps observed, loss " in repr(first)
    assert "ms in these, total " in repr(first)
    assert "times are those of one observed step, but for the total" in first._repr_html_()
    assert "Epoch(3, 0 of 8 steps observed, loss " in repr(last)
    assert "backward" not in repr(last)
    assert "A step of epoch 1" in profiler.session.report(epoch=1)
    for options in ({}, {"full": True}, {"by": "op"}):
        with pytest.raises(ArgumentError, match="report: expected an epoch with an observed step, got epoch 3; report"):
            profiler.session.report(epoch=3, **options)
