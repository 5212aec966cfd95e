"""The progress bar on a terminal, and progress lines in a file."""

from __future__ import annotations

import gc
import importlib
import re
import sys
import threading

import pytest

from microfw import nn
from microfw.errors import NonFiniteError
from microfw.training import Hook
from microfw.training.progress import bar_class
from tests.helpers.training import At, Root, Terminal, make

progress = importlib.import_module("microfw.training.progress")


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
    assert "epoch 3/3: 100%" in text
    assert f"loss={history[-1]['loss']:.4g}, accuracy={history[-1]['accuracy']:.4g}" in text
    assert threading.active_count() == threads


def pictures(text):
    """Return what a bar has shown, one after the other: epoch, steps done and all, and the rest."""
    found = [
        re.match(r"(?:epoch (\d+)/\d+: )?.*?(\d+)(?:/(\d+)|step) ?(.*)", part)
        for part in text.replace("\n", "\r").split("\r")
    ]
    return [(int(m[1] or 0), int(m[2]), m[3], m[4]) for m in found if m]


def test_the_bar_moves_within_an_epoch_and_shows_the_loss_of_the_step(line, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr(progress, "REFRESH_SECONDS", 0.0)

    class Losses(Hook):
        seen = ()

        def on_step_end(self, state):
            self.seen += (f"step_loss={state.loss:.4g}",)

    losses = Losses()
    trainer = make(1, 1, 1e-3, nn.MSELoss(), hooks=[losses])
    trainer.fit(line, 2, batch_size=16, rng=0)
    steps = -(-len(line.X) // 16)
    within = [picture for picture in pictures(terminal.getvalue()) if "step_loss" in picture[3]]
    assert [(epoch, done) for epoch, done, *_ in within] == [
        (epoch, (epoch - 1) * steps + k) for epoch in (1, 2) for k in range(1, steps + 1)
    ]
    assert all(total == str(2 * steps) for _, _, total, _ in within)
    assert [loss in picture[3] for loss, picture in zip(losses.seen, within, strict=True)] == [True] * 2 * steps
    assert "loss=" in within[steps][3].replace("step_loss=", "")  # of the first epoch's row


def test_the_bar_learns_how_many_steps_an_epoch_of_a_source_has(line, monkeypatch):
    def batches():
        for k in range(0, len(line.X), 10):
            yield line.X[k : k + 10], line.y[k : k + 10]

    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    monkeypatch.setattr(progress, "REFRESH_SECONDS", 0.0)
    make(1, 1, 1e-3, nn.MSELoss()).fit(batches, 3, rng=0)
    steps = -(-len(line.X) // 10)
    seen = pictures(terminal.getvalue())
    assert {total for epoch, _, total, _ in seen if epoch == 1} == {None, str(3 * steps)}
    assert seen[-1][:3] == (3, 3 * steps, str(3 * steps))


def test_a_bar_of_a_run_that_a_hook_ends_is_full(iris, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    make(hooks=[At(4 * 2, lambda state: setattr(state, "stop", True))]).fit(iris[0], 100, rng=0)
    epoch, done, total, _ = pictures(terminal.getvalue())[-1]
    assert (epoch, str(done)) == (2, total)


class Kernel:
    """Stands for IPython in a notebook: keeps what is displayed."""

    config = {"IPKernelApp": {}}  # noqa: RUF012

    def __init__(self):
        self.shown = []

    def get_ipython(self):
        return self

    def display(self, data, raw, display_id):
        assert raw and display_id
        self.update(data, raw)
        return self

    def update(self, data, raw):
        self.shown.append(data["text/plain"])


def test_the_bar_of_a_notebook_without_widgets_replaces_its_text(iris, monkeypatch, capsys):
    kernel = Kernel()
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    monkeypatch.setitem(sys.modules, "IPython.display", kernel)
    monkeypatch.setattr(progress, "best_bar", lambda: importlib.import_module("tqdm.std").tqdm)
    history = make(metrics=["accuracy"]).fit(iris[0], 3, rng=0)
    assert capsys.readouterr() == ("", "")
    epoch, done, total, rest = pictures(kernel.shown[-1])[-1]
    assert (epoch, str(done)) == (3, total)
    assert f"loss={history[-1]['loss']:.4g}, accuracy={history[-1]['accuracy']:.4g}" in rest
    assert all(len(text) <= 100 and "\r" not in text for text in kernel.shown)


def test_the_bar_is_closed_when_training_fails(line, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with pytest.raises(NonFiniteError):
        make(1, 1, 1e-3, nn.MSELoss(), extra=[Root()]).fit(line, 3, rng=0)
    assert terminal.getvalue().endswith("\n")


def test_a_bar_that_ctrl_c_leaves_half_built_is_collected_without_an_error(monkeypatch):
    errors = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: errors.append(found.exc_value))

    for built in ({}, {"disable": False, "gui": False}):
        bar = object.__new__(bar_class())
        vars(bar).update(built)
        del bar
        gc.collect()
    assert errors == []
