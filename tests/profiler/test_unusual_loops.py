"""Loops without an optimizer, with an unfinished last step, or with a forward pass before the profile."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.profiler import Session, report
from microfw.profiler.epoch import LOSS_OF_PASSES, NOT_RECORDED, UNFINISHED, WITHOUT_BACKWARD, WITHOUT_UPDATES
from microfw.profiler.reports.html import view

X, Y = np.ones((8, 4), "f4"), np.ones((8, 1), "f4")


def counts(epoch):
    return [(c.kind, c.N, c.steps) for c in epoch.counts()]


def by_hand(model):
    for parameter in model.parameters():
        parameter.grad = None
    ((model(X) - Y) ** 2).mean().backward()
    for parameter in model.parameters():
        parameter.data = parameter.data - 0.1 * parameter.grad


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("every", [1, 3])
def test_without_updates_each_backward_pass_is_a_step(ended, every):
    model = nn.Dense(4, 1, rng=0)
    with mf.Profiler(model, every=every) as profiler:
        for _ in range(5):
            by_hand(model)
        if ended:
            profiler.end_epoch()
    (epoch,) = profiler.session.epochs
    assert (epoch.steps, epoch.observed, epoch.notes) == (5, 5, [WITHOUT_UPDATES])
    assert counts(epoch) == [("tensors", 4, 6), ("scalars", 88, 128)]
    for text in (profiler.report(), profiler.report(full=True), profiler.report(by="op"), profiler.session.markdown()):
        assert WITHOUT_UPDATES in text
    assert WITHOUT_UPDATES in profiler.session._repr_html_()
    assert view(profiler.session)["notes"] == [WITHOUT_UPDATES]


def test_steps_of_many_graphs_without_updates_are_all_counted(monkeypatch):
    monkeypatch.setattr("microfw.profiler.recorder.recorder.MAX_GRAPHS", 3)
    model = nn.Dense(4, 1, rng=0)
    with mf.Profiler(model) as profiler:
        for rows in range(1, 9):
            model(X[:rows]).sum().backward()
    assert profiler.session.epochs[0].steps == 8
    assert profiler.session.epochs[0].sum().nodes == 16


def test_notes_are_saved_and_added_up(tmp_path):
    model = nn.Dense(4, 1, rng=0)
    with mf.Profiler(model) as profiler:
        for _ in range(2):
            by_hand(model)
            profiler.end_epoch()
    profiler.save(tmp_path / "a.json")
    session = Session.load(tmp_path / "a.json")
    assert session == profiler.session
    assert session.total().notes == [WITHOUT_UPDATES]


@pytest.mark.parametrize("evaluates", [False, True])
def test_a_block_without_a_backward_pass_says_why_it_is_empty(evaluates):
    model = nn.Dense(4, 1, rng=0)
    with mf.Profiler(model) as profiler:
        if evaluates:
            with mf.no_grad():
                model(X)
    assert profiler.session.epochs == []
    for text in (report(profiler.session), profiler.session.markdown(), profiler.session._repr_html_()):
        assert "no epoch was recorded. An epoch needs a backward pass" in text


def test_an_unfinished_step_is_noted():
    model = nn.Dense(4, 4, rng=0)
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    with mf.Profiler(model) as profiler:
        for _ in range(2):
            model(X).sum().backward()
            optimizer.step()
        profiler.end_epoch()
        model(X).sum().backward()
        optimizer.step()
        model(X).sum().backward()
    assert [(e.steps, e.notes) for e in profiler.session.epochs] == [(2, []), (1, [UNFINISHED])]
    assert "after the last update" in profiler.report(full=True)


def test_a_loss_of_parts_of_a_step_is_noted():
    model = nn.Dense(4, 1, rng=0)
    optimizer = optim.SGD(model.parameters(), lr=1e-9)
    loss = nn.MSELoss()
    with mf.Profiler(model) as profiler:
        for parts in (1, 2):
            for _ in range(3):
                for rows in np.split(X, parts):
                    (loss(model(rows), Y[: len(rows)]) / parts).backward()
                optimizer.step()
            profiler.end_epoch()
    whole, divided = profiler.session.epochs
    assert divided.loss == pytest.approx(whole.loss / 2)
    assert (whole.notes, divided.notes) == ([], [LOSS_OF_PASSES])


def test_a_forward_pass_before_the_profile_is_noted():
    model = nn.Dense(4, 4, rng=0)
    optimizer = optim.SGD(model.parameters(), lr=0.01)
    loss = model(X).sum()
    with mf.Profiler(model) as profiler:
        loss.backward()
        optimizer.step()
        profiler.end_epoch()
        mf.checkpoint(model, mf.tensor(X)).sum().backward()
        optimizer.step()
    assert [e.notes for e in profiler.session.epochs] == [[NOT_RECORDED], []]
    assert "before the profiler was attached" in profiler.report(full=True)


def test_gradients_of_mf_grad_are_not_counted_and_the_report_says_so():
    model, x = nn.Dense(4, 2, rng=0), np.ones((3, 4), np.float32)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with mf.Profiler(model) as profiler:
        for _ in range(3):
            optimizer.step(mf.grad(lambda m: m(x).sum())(model))
    assert profiler.session.epochs[0].notes == [WITHOUT_BACKWARD]
    assert WITHOUT_BACKWARD in " ".join(profiler.report().split())
