"""The progress bar on a terminal, and progress lines in a file."""

from __future__ import annotations

import sys
import threading

import pytest

from microfw import nn
from microfw.errors import NonFiniteError
from tests.helpers.training import At, Root, Terminal, make


def test_progress_in_a_file_is_a_line_for_each_tenth(iris, capsys):
    trainer = make(metrics=["accuracy"])
    history = trainer.fit(iris[0], 25, validation=iris[1], rng=0)
    out, err = capsys.readouterr()
    assert out == ""
    assert "\r" not in err
    lines = err.splitlines()
    assert [line.split()[1] for line in lines] == ["3/25", "5/25", "8/25", "10/25", "13/25", "15/25", "18/25", "20/25",
                                                   "23/25", "25/25"]  # fmt: skip
    assert lines[0].startswith("epoch  3/25  loss ")
    last = history[-1]
    assert lines[-1] == (
        f"epoch 25/25  loss {last['loss']:.4g}  accuracy {last['accuracy']:.4g}  "
        f"val_loss {last['val_loss']:.4g}  val_accuracy {last['val_accuracy']:.4g}"
    )


def test_progress_tells_of_an_end_before_time(iris, capsys):
    make(hooks=[At(4 * 7, lambda state: setattr(state, "stop", True))]).fit(iris[0], 100, rng=0)
    assert capsys.readouterr().err.split()[:2] == ["epoch", "7/100"]


def test_progress_can_be_off(iris, capsys):
    make().fit(iris[0], 3, rng=0, progress=False)
    assert capsys.readouterr() == ("", "")


def test_progress_on_a_terminal_is_one_bar(iris, monkeypatch):
    threads = threading.active_count()
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    history = make(metrics=["accuracy"]).fit(iris[0], 3, rng=0)
    text = terminal.getvalue()
    assert "\r" in text
    assert text.count("\n") == 1
    assert "3/3" in text
    assert f"loss={history[-1]['loss']:.4g}, accuracy={history[-1]['accuracy']:.4g}" in text
    assert threading.active_count() == threads


def test_the_bar_is_closed_when_training_fails(line, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with pytest.raises(NonFiniteError):
        make(1, 1, 1e-3, nn.MSELoss(), extra=[Root()]).fit(line, 3, rng=0)
    assert terminal.getvalue().endswith("\n")
