"""Runs made in turns: their order, their length, their bar, and what is refused."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import ArgumentError
from microfw.profiler import Epoch, Row, Session, alternate, compare


def run(ns=1000, epochs=2):
    rows = [Row("0", "linear", nodes=1, forward_ns=ns, backward_ns=ns)]
    return Session(epochs=[Epoch(k + 1, 1, 1, forward_ns=ns, backward_ns=ns, rows=rows) for k in range(epochs)])


def test_runs_are_made_alternately():
    made = []

    def one(name):
        made.append(name)
        return run()

    a, b = alternate(lambda: one("a"), lambda: one("b"), 3)
    assert made == ["b", "a", "a", "b", "b", "a", "a", "b"]
    assert [e.epoch for e in a.epochs] == [1, 2, 3, 4, 5, 6]
    assert a.alternated == b.alternated != ""
    found = compare(a, b)
    assert found.alternated
    assert [n for n, _, _ in found.epochs] == [1, 2, 3]


def test_a_round_shows_its_shortest_backward_pass():
    times = iter(range(100, 0, -1))
    a, b = (Session(alternated="x/2", epochs=[run(next(times), 1).epochs[0] for _ in range(6)]) for _ in "ab")
    assert compare(a, b).epochs == [(1, 98, 92), (2, 95, 89)]
    assert "round  backward a" in str(compare(a, b))


@pytest.mark.parametrize(
    ("a", "b", "rounds", "text"),
    [
        (run, run, 0, "expected rounds to be a positive integer, got 0"),
        (run, run, "3", "expected rounds to be a positive integer, got 3"),
        (
            run(), run, 1, "expected a to be a function, got Session; pass a function that builds a model, trains it "
            "and returns profiler.session",
        ),
        (run, lambda: None, 1, r"expected b\(\) to return a Session, got None; return profiler.session"),
        (
            run, Session, 1, r"expected b\(\) to record an epoch, got a session without one; pass the profiler to the "
            r"Trainer: hooks=\[profiler\]",
        ),
        (
            lambda: run(epochs=3), run, 1, "expected the same number of epochs in all runs, got 2 and 3; train both for "
            "the same epochs, and make the model and the profiler in the function",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_alternated(a, b, rounds, text):
    with pytest.raises(ArgumentError, match=f"^alternate: {text}$"):
        alternate(a, b, rounds)


def test_a_run_counts_once():
    one, two = run(), run()
    expected = (
        r"a\(\) to make a new run, got the session of an earlier run; make the model and the profiler in the function"
    )
    with pytest.raises(ArgumentError, match=f"^alternate: expected {expected}"):
        alternate(lambda: one, lambda: two)
    assert [e.epoch for e in one.epochs + two.epochs] == [1, 2, 1, 2]


def test_epochs_of_the_runs_keep_their_numbers():
    made = []

    def kept():
        made.append(run())
        return made[-1]

    alternate(kept, kept, 2)
    assert {tuple(e.epoch for e in session.epochs) for session in made} == {(1, 2)}


def test_a_function_may_return_its_profiler():
    def trained():
        model, profiler = nn.Dense(2, 1, rng=0), mf.Profiler()
        trainer = mf.Trainer(model, nn.MSELoss(), mf.optim.SGD(model.parameters(), lr=0.1), hooks=[profiler])
        trainer.fit((np.ones((4, 2)), np.ones((4, 1))), epochs=1, progress=False)
        return profiler

    a, _ = alternate(trained, trained, 1)
    assert len(a.epochs) == 1


def test_a_bar_counts_the_runs_on_a_terminal(monkeypatch, capsys):
    alternate(run, run, 2)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    alternate(run, run, 2)
    assert "alternate: 100%" in (shown := capsys.readouterr().err) and "6/6" in shown
    alternate(run, run, 2, progress=False)
    assert capsys.readouterr().err == ""
