"""Checkpoint of the best epoch, and CSVLogger."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest

import microfw as mf
from microfw.errors import ArgumentError, CheckpointError, FileError
from microfw.estimators import NeuralClassifier
from microfw.training import Checkpoint, CSVLogger, Hook
from tests.helpers.errors import raises
from tests.helpers.training import make, values


class Entry(Hook):
    """Adds an entry to each row, and keeps the parameters of each epoch."""

    def __init__(self, entries):
        self.entries, self.kept = entries, []

    def on_epoch_end(self, state):
        value = self.entries[state.epoch - 1]
        if value is not None:
            state.history[-1]["val_score"] = value
        self.kept.append({k: v.copy() for k, v in state.model.state_dict().items()})


@pytest.mark.parametrize(
    ("mode", "entries", "best"),
    [
        (None, [0.1, 0.5, 0.3, 0.5, 0.4], 2),
        ("min", [0.4, 0.5, 0.3, 0.3, 0.4], 3),
        ("max", [math.nan, 0.1, 0.2, math.nan, 0.1], 3),
        ("min", [0.4, None, 0.2, None, 0.3], 3),
        (None, [0.9, 0.5, 0.3, 0.4, 0.2], 1),
    ],
)
def test_the_file_is_of_the_best_epoch(iris, tmp_path, mode, entries, best):
    path, entry = tmp_path / "best.npz", Entry(entries)
    trainer = make(hooks=[Checkpoint(path, best="val_score", mode=mode), entry])
    trainer.fit(iris[0], 5, 32, rng=0, progress=False)
    for name, value in mf.load(path).state_dict().items():
        np.testing.assert_array_equal(value, entry.kept[best - 1][name])
    assert best == 5 or values(trainer) != {k: v.tobytes() for k, v in entry.kept[best - 1].items()}


def test_a_resumed_run_compares_with_the_epochs_before(iris, tmp_path):
    best, last = tmp_path / "best.npz", tmp_path / "last.npz"
    entries = [0.3, 0.5, 0.2, 0.4, 0.6, 0.1]

    def hooks():
        return [Entry(entries), Checkpoint(best, best="val_score"), Checkpoint(last)]

    make(hooks=hooks()).fit(iris[0], 3, 32, rng=0, progress=False)
    before = best.read_bytes()
    make(hooks=hooks()).fit(iris[0], 4, 32, progress=False, resume=last)
    assert best.read_bytes() == before  # 0.4 is no better than 0.5
    make(hooks=hooks()).fit(iris[0], 6, 32, progress=False, resume=last)
    assert len(make(hooks=hooks()).fit(iris[0], 5, 32, progress=False, resume=best)) == 5  # it is of epoch 5


def test_a_stopped_run_leaves_the_best_epoch(iris, tmp_path):
    class Stop(Hook):
        def on_step_end(self, state):
            if state.epoch == 3:
                raise KeyboardInterrupt

    path, entry = tmp_path / "best.npz", Entry([0.5, 0.1])
    with pytest.raises(KeyboardInterrupt):
        make(hooks=[entry, Stop(), Checkpoint(path, best="val_score")]).fit(iris[0], 5, 32, rng=0, progress=False)
    for name, value in mf.load(path).state_dict().items():
        np.testing.assert_array_equal(value, entry.kept[0][name])


def test_the_best_of_several_fits_stays(iris, tmp_path):
    path = tmp_path / "best.npz"
    hooks = [Entry([0.5, 0.3]), Checkpoint(path, best="val_score")]
    trainer = make(hooks=hooks)
    saved = []
    for entries in ([0.5, 0.3], [0.4, 0.45], [0.2, 0.6]):
        hooks[0].entries = entries
        trainer.fit(iris[0], 2, 32, rng=0, progress=False)
        saved.append(path.read_bytes())
    assert saved[0] == saved[1] != saved[2]
    make(hooks=hooks).fit(iris[0], 2, 32, rng=0, progress=False)  # a new Trainer starts again
    assert path.read_bytes() != saved[2]


@pytest.mark.parametrize(
    ("hooks", "name"),
    [
        (lambda p: [Checkpoint(p), Checkpoint(p.parent / "x" / ".." / p.name, best="loss")], "a.npz"),
        (lambda p: [CSVLogger(p), Hook(), CSVLogger(str(p))], "a.csv"),
    ],
)
def test_two_hooks_write_different_files(hooks, name, tmp_path):
    path = tmp_path / name
    text = f"Trainer: expected hooks that write different files, got {path} twice; pass another path to one"
    with raises(ArgumentError, text):
        make(hooks=hooks(path))


def test_settings_of_the_best(iris, tmp_path):
    path = tmp_path / "best.npz"
    with pytest.raises(ArgumentError, match="^Checkpoint: expected every or best, got both; pass two Checkpoints of"):
        Checkpoint(path, 3, best="val_loss")
    with raises(ArgumentError, "Checkpoint: expected a path, got NoneType"):
        Checkpoint(None)
    with pytest.raises(ArgumentError, match="^Checkpoint: expected best, since mode is given, got none$"):
        Checkpoint(path, mode="min")
    with pytest.raises(ArgumentError, match="^Checkpoint: expected mode 'min' or 'max', got 'low'$"):
        Checkpoint(path, best="val_loss", mode="low")
    with pytest.raises(ArgumentError, match="^Checkpoint: expected metric to be an entry of the History, got 3$"):
        Checkpoint(path, best=3)
    with pytest.raises(ArgumentError, match="^Checkpoint: expected a mode for a metric of this name, got 'size'; pass"):
        Checkpoint(path, best="size")
    with pytest.raises(ArgumentError, match="^Checkpoint: expected one of epoch, loss, .*, got 'val_loss'; pass valid"):
        make(hooks=[Checkpoint(path, best="val_loss")]).fit(iris[0], 1, 32, rng=0, progress=False)
    assert not path.exists()


def read(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_csv_file_has_the_history_after_each_epoch(iris, tmp_path):
    path, seen = tmp_path / "history.csv", []

    class Reader(Hook):
        last = True  # behind the CSVLogger

        def on_epoch_end(self, state):
            seen.append(read(path))

    trainer = make(hooks=[CSVLogger(path), Entry([None, 0.25, 1 / 3]), Reader()], metrics=["accuracy"])
    history = trainer.fit(iris[0], 3, 32, validation=iris[1], rng=0, progress=False)
    assert [len(rows) for rows in seen] == [1, 2, 3]
    for row, own in zip(read(path), history, strict=True):
        assert {k: float(v) for k, v in row.items() if v} == own
    assert [row["val_score"] for row in read(path)] == ["", "0.25", repr(1 / 3)]


def test_a_resumed_run_writes_the_rows_of_before(iris, tmp_path):
    last = tmp_path / "last.npz"
    make(hooks=[Checkpoint(last)]).fit(iris[0], 2, 32, rng=0, progress=False)
    path = tmp_path / "history.csv"
    history = make(hooks=[CSVLogger(path)]).fit(iris[0], 4, 32, progress=False, resume=last)
    assert [float(row["loss"]) for row in read(path)] == history.column("loss")


def test_a_csv_file_that_cannot_be_written_is_refused_before_training(iris, tmp_path):
    trainer = make(hooks=[CSVLogger(tmp_path / "none" / "history.csv")])
    before = values(trainer)
    with pytest.raises(
        FileError, match="history.csv: expected a folder that can be written to, got no such folder; make"
    ):
        trainer.fit(iris[0], 1, 32, rng=0, progress=False)
    assert values(trainer) == before
    with pytest.raises(ArgumentError, match="^CSVLogger: expected the path of a file, got int; call"):
        CSVLogger(3)


@pytest.mark.parametrize("options", [{}, {"best": "loss"}, {"every": 1}])
@pytest.mark.parametrize(
    ("place", "text"),
    [
        ("none/a.npz", "a.npz: expected a folder that can be written to, got no such folder; make it"),
        ("file/a.npz", "a.npz: expected a folder that can be written to, got no such folder; make it"),
        ("folder.npz", "folder.npz: expected a file to replace, got a folder or a device; choose another name"),
    ],
)
def test_a_checkpoint_that_cannot_be_written_is_refused_before_training(iris, tmp_path, place, text, options):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.npz").mkdir()
    trainer = make(hooks=[Checkpoint(tmp_path / place, **options)])
    before = values(trainer)
    with pytest.raises(CheckpointError, match=text):
        trainer.fit(iris[0], 1, 32, rng=0, progress=False)
    assert values(trainer) == before


def test_a_checkpoint_of_an_estimator_is_refused_before_the_first_step(tmp_path):
    made = NeuralClassifier((4,), max_iter=2, hooks=[Checkpoint(tmp_path / "a.npz", best="loss")])
    with raises(
        ArgumentError,
        "Checkpoint: expected a fit of a Trainer, got that of an estimator, which saves no runs; "
        "after the fit call mf.save(path, estimator.module_)",
    ):
        made.fit(np.eye(4), [0, 1, 0, 1])
    assert not hasattr(made, "module_")
