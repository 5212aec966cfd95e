"""The History of a fit as a frame and as a picture."""

from __future__ import annotations

import builtins
import gc
import io
import signal
import sys
from math import nan

import numpy as np
import pytest

from microfw.errors import ArgumentError
from microfw.training import History, Hook, lr_range_test, plot_histories
from tests.helpers.errors import raises
from tests.helpers.training import Terminal, make


def test_history_as_a_frame_and_as_a_picture(iris, monkeypatch):
    plt = pytest.importorskip("matplotlib.pyplot")
    history = make().fit(iris[0], 3, validation=iris[1], rng=0, progress=False)
    frame = history.to_frame()
    assert list(frame) == ["loss", "val_loss", "seconds", "lr", "gradient_norm"]
    assert frame.index.tolist() == [1, 2, 3]
    assert frame["loss"].tolist() == history.column("loss")
    axes = history.plot()
    assert [line.get_label() for line in axes.lines] == ["loss", "val_loss"]
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), history.column("val_loss"))
    assert history.plot("loss", axes=axes) is axes
    assert axes.get_ylabel() == "loss"
    assert len(lr_range_test(make(), iris[0], rng=0).plot().lines) == 2
    plt.close("all")
    with pytest.raises(ArgumentError, match="^History.plot: expected one of .*, got 'lost'; did you mean loss.$"):
        history.plot("lost")
    with raises(ArgumentError, "History.plot: expected numbers in 'size', got an integer beyond the range of floats"):
        History([{"epoch": 1, "size": 10**400}]).plot("size")
    real = builtins.__import__

    def refuse(name, *rest):
        if name.startswith(("pandas", "matplotlib")):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(
        ArgumentError, match="^History.to_frame: expected pandas, got none installed; pip install pandas"
    ):
        history.to_frame()
    with pytest.raises(ArgumentError, match=r'^History.plot: expected Matplotlib, got none installed; pip install "'):
        history.plot()


def test_an_empty_history_has_a_frame():
    assert len(History().to_frame()) == 0


HISTORY = History([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "extra": 1.0}])


def test_a_column_has_none_where_a_row_lacks_it():
    assert HISTORY.column("extra") == [None, 1.0]
    with pytest.raises(ArgumentError, match="expected one of epoch, loss, extra, got 'other'"):
        HISTORY.column("other")


def test_a_history_is_printed_and_plotted():
    assert str(HISTORY).splitlines() == [
        "epoch    loss   extra",
        "    1  0.5000",
        "    2  0.2500  1.0000",
    ]
    frame = pytest.importorskip("pandas") and HISTORY.to_frame()
    assert np.isnan(frame["extra"][1]) and frame["extra"][2] == 1
    pytest.importorskip("matplotlib").use("Agg")
    assert HISTORY.plot("extra").lines[0].get_xdata().tolist() == [2]


def test_a_history_is_printed_whatever_its_names_are():
    assert repr(History([{"epoch": 1, 3: 2.0}])).split() == ["epoch", "3", "1", "2.0000"]


def test_numbers_of_numpy_in_a_history_are_saved(tmp_path, iris):
    class Scores(Hook):
        def on_epoch_end(self, state):
            state.history[-1].update(score=np.float64(0.1), whole=np.int64(3), kept=np.bool_(True))

    trainer = make(hooks=[Scores()])
    trainer.fit(iris[0], epochs=1, progress=False, rng=0)
    trainer.save(tmp_path / "run.npz")
    history = make(hooks=[Scores()]).fit(iris[0], epochs=2, progress=False, rng=0, resume=tmp_path / "run.npz")
    assert (history[0]["score"], history[0]["whole"], history[0]["kept"]) == (0.1, 3, True)


class Stops(Hook):
    """Raises at a step of a run, or in an event of an epoch."""

    def __init__(self, error, at, event="on_step_end"):
        self.error, self.at, self.calls, self.rows = error, at, 0, []
        setattr(self, event, self.count)

    def count(self, state):
        self.calls += 1
        if self.calls == self.at:
            raise self.error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("x")], ids=repr)
def test_a_trainer_has_the_history_of_every_complete_epoch(error):
    trainer = make()
    assert trainer.history == [] and type(trainer.history) is History
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 4)), rng.integers(0, 3, 40)
    for at in rng.integers(1, 60, 25).tolist():
        trainer.hooks = [Stops(error, at)]
        with pytest.raises(type(error)):
            trainer.fit((X, y), epochs=20, batch_size=10, rng=0, progress=False)
        complete = (at - 1) // 4
        assert trainer.history.column("epoch") == list(range(1, complete + 1))
    trainer.hooks = []
    assert trainer.fit((X, y), epochs=2, progress=False) is trainer.history


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer that sends a signal")
def test_interrupts_at_random_moments_leave_every_complete_epoch(monkeypatch):
    """Fifty fits, with a bar or without, each ended by a signal: no row is lost, none is half done."""
    callbacks = gc.callbacks[:]
    gc.callbacks.clear()  # Hypothesis has one: an error in it, Ctrl-C too, is lost
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 4)), rng.integers(0, 3, 40)
    ended = []

    class Ended(Hook):
        def on_fit_start(self, state):
            ended.clear()
            self.history = state.history

        def on_epoch_end(self, state):
            ended.append(dict(state.history[-1]))

    trainer = make(metrics=["accuracy"], hooks=[hook := Ended()])
    before = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    counts, before_fit = [], trainer.history
    for stream in (Terminal(), io.StringIO()):  # imports what is needed
        monkeypatch.setattr(sys, "stderr", stream)
        trainer.fit((X, y), epochs=2, batch_size=10, validation=(X, y), rng=0)

    def interrupted(seconds):
        nonlocal before_fit
        before_fit = trainer.history
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            trainer.fit((X, y), epochs=3000, batch_size=10, validation=(X, y), rng=0)
        except KeyboardInterrupt:
            return True
        return False

    try:
        raised = 0
        for k in range(50):
            monkeypatch.setattr(sys, "stderr", Terminal() if k % 2 else io.StringIO())
            raised += interrupted(float(rng.uniform(0.005, 0.1)))
            if trainer.history is not hook.history:  # the signal came before the run began
                assert trainer.history is before_fit
                continue
            assert trainer.history == ended
            assert trainer.history.column("epoch") == list(range(1, len(ended) + 1))
            assert all({"loss", "accuracy", "val_loss", "val_accuracy", "seconds"} <= row.keys() for row in ended)
            counts.append(len(ended))
    finally:
        gc.callbacks[:] = callbacks
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert len(set(counts)) > 2
    assert raised >= 40  # Python loses a signal that comes while a finalizer runs


def test_a_hook_sees_the_history_while_fit_runs():
    seen = []

    class Watch(Hook):
        def on_epoch_end(self, state):
            seen.append(len(trainer.history))

    trainer = make()
    trainer.hooks = [Watch()]
    trainer.fit((np.ones((8, 4)), np.arange(8) % 3), epochs=3, progress=False)
    assert seen == [1, 2, 3]


def test_a_second_fit_says_how_many_epochs_were_before(iris):
    trainer = make()
    first = trainer.fit(iris[0], 3, rng=0, progress=False)
    second = trainer.fit(iris[0], 1, rng=0, progress=False)
    assert [row["epoch"] for row in second] == [1]
    assert (first.earlier, second.earlier, trainer.history.earlier) == (0, 3, 3)
    assert repr(second).endswith("\nafter 3 epochs of earlier fits of this Trainer")
    assert "<p>after 3 epochs of earlier fits of this Trainer</p>" in second._repr_html_()
    assert "earlier" not in repr(first) + first._repr_html_() + repr(first + second)
    third = trainer.fit(iris[0], 1, rng=0, progress=False)
    assert third.earlier == 4


def rows(*epochs):
    return History([{"epoch": epoch, "loss": 1.0 / epoch} for epoch in epochs])


@pytest.mark.parametrize(("first", "second", "epochs"), [
    ((1, 2, 3), (1, 2), [1, 2, 3, 4, 5]),  # two fits
    ((1, 2, 3), (3, 4), [1, 2, 3, 6, 7]),  # begins at the last epoch
    ((1, 2), (3, 4), [1, 2, 3, 4]),  # two parts of one fit
    ((), (1, 2), [1, 2]),
    ((1, 2), (), [1, 2]),
])  # fmt: skip
def test_epochs_of_a_sum_are_numbered_on(first, second, epochs):
    a, b = rows(*first), rows(*second)
    total = a + b
    assert type(total) is History and total.column("epoch") == epochs
    assert total.column("loss") == a.column("loss") + b.column("loss")
    assert (a, b) == (rows(*first), rows(*second))
    same = a
    same += b
    assert same is a and same == total
    assert b == rows(*second)


def test_sums_and_copies_of_histories_are_histories():
    a = rows(1, 2)
    a.earlier = 4
    copy = a.copy()
    assert type(copy) is History and copy == a and copy is not a and copy.earlier == 4
    assert (a + a + a).column("epoch") == [1, 2, 3, 4, 5, 6] and (a + a).earlier == 4
    a += a
    assert a.column("epoch") == [1, 2, 3, 4]
    assert (rows(1) + [{"epoch": 1}, {"other": 2}]) == [{"epoch": 1, "loss": 1.0}, {"epoch": 2}, {"other": 2}]
    with pytest.raises(TypeError, match="unsupported operand"):
        a + 3


def test_the_sum_of_two_fits_is_drawn_as_one_curve(iris):
    pytest.importorskip("matplotlib").use("Agg")
    trainer = make()
    first, second = (trainer.fit(iris[0], 3, rng=0, progress=False) for _ in range(2))
    line = (first + second).plot().lines[0]
    assert line.get_xdata().tolist() == [1, 2, 3, 4, 5, 6]
    assert line.get_ydata().tolist() == first.column("loss") + second.column("loss")
    joined = History([*first, *second])
    fix = "join histories with first + second, which numbers the epochs on"
    for draw, where in ((joined.plot, "History.plot"), (lambda: plot_histories([first, joined]), "plot_histories")):
        with raises(ArgumentError, f"{where}: expected a history with each epoch once, got 2 rows of epoch 1; {fix}"):
            draw()


def test_a_wrong_name_of_an_entry_suggests_what_was_meant():
    history = History([{"epoch": 1, "loss": 0.5, "accuracy": 0.5}])
    text = "expected one of epoch, loss, accuracy, got"
    with raises(ArgumentError, f"History.column: {text} 'acc'; did you mean accuracy?"):
        history.column("acc")
    with raises(ArgumentError, f"History.column: {text} 'val_loss'; pass validation data to fit"):
        history.column("val_loss")
    with raises(ArgumentError, f"History.column: {text} 'x'"):
        history.column("x")
    with raises(ArgumentError, f"History.plot: {text} 'acc'; did you mean accuracy?"):
        history.plot("acc")
    with raises(ArgumentError, f"plot_histories: {text} 'lss'; did you mean loss?"):
        plot_histories([history], "lss")


def test_the_best_row():
    history = History([{"epoch": k, "loss": v, "mine": v} for k, v in enumerate((3.0, nan, 1.0, 1.0), 1)])
    history.append({"epoch": 5, "accuracy": 0.5})
    assert history.best("loss") is history[2] and history.best("mine", "max") is history[0]
    assert history.best("accuracy") is history[4]
    text = "History.best: expected a mode for a metric of this name, got 'mine'; pass mode='min' or 'max'"
    with raises(ArgumentError, text):
        history.best("mine")
    with raises(
        ArgumentError,
        "History.best: expected one of epoch, loss, mine, accuracy, got 'val_loss'; pass validation data to fit",
    ):
        history.best()
    with raises(ArgumentError, "History.best: expected a row with a number as loss, got none"):
        History([{"loss": nan}]).best("loss")


def test_an_entry_in_the_place_of_a_row_says_what_has_it():
    fix = "history.column('loss') is an entry of all rows, history[-1]['loss'] of the last one"
    with raises(TypeError, f"History: expected the number of a row, or a slice, got 'loss'; {fix}"):
        rows(1, 2)["loss"]


def test_small_numbers_have_four_digits():
    text = repr(History([{"epoch": 1, "loss": 1.00412e-05, "val_loss": 0.00381234, "lr": 0.0, "norm": 12.34567}]))
    assert text.split("\n")[1].split() == ["1", "1.004e-05", "0.003812", "0.0000", "12.3457"]


def test_an_entry_is_one_short_line_without_control_characters():
    history = History([{"epoch": 1, "\x1b[31m": np.eye(2), "float32": np.float32(1 / 3), "long": list(range(10_000))}])
    names, row = repr(history).splitlines()
    assert names.split() == ["epoch", r"\x1b[31m", "float32", "long"]
    assert row.split()[1:6] == ["[[1.", "0.]", "[0.", "1.]]", "0.3333"] and row.endswith("…") and len(row) < 130
    assert len(history._repr_html_()) < 1000
