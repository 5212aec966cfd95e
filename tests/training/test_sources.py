"""Batches that other code makes, and runs that are killed and resumed on nested data, streams and sources."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import ArgumentError, CheckpointError, DataError, ShapeError
from microfw.training import Checkpoint, Hook
from tests.helpers.errors import raises
from tests.helpers.nested import ROWS, SIZE, TARGETS, TASKS, A, B, Loader, bits, build, fit, generated, plain, rows

WITHIN = [task for task in TASKS if task not in ("a generator", "a loader")]
STEPS = -(-ROWS // SIZE)


class Kill(Hook):
    """Kill the process after a step, after all other hooks."""

    last = True

    def __init__(self, step):
        self.step = step

    def on_step_end(self, state):
        if state.steps == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def killed(task, path, step, every, **options):
    """Train in a process that is killed after a step."""
    child = os.fork()
    if not child:
        try:
            trainer, train = build(task, hooks=[Checkpoint(path, every), Kill(step)], **options)
            fit(trainer, train, epochs=3, rng=3)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


def resumed(task, path, **options):
    trainer, train = build(task, **options)
    return trainer, fit(trainer, train, epochs=3, resume=path)


@pytest.mark.parametrize("task", WITHIN)
@pytest.mark.parametrize("step", [3, STEPS + 2])
def test_a_run_killed_within_an_epoch_is_resumed_with_the_same_bits(task, step, tmp_path):
    metrics = {"metrics": ["accuracy"]} if "VAE" not in task and "head" not in task and task != "weights" else {}
    whole, train = build(task, **metrics)
    history = fit(whole, train, epochs=3, rng=3)
    killed(task, tmp_path / "run.npz", step, 1, **metrics)
    again, other = resumed(task, tmp_path / "run.npz", **metrics)
    assert bits(again.model) == bits(whole.model) and rows(other) == rows(history)


def test_heads_and_accumulated_steps_are_resumed_with_the_same_bits(tmp_path):
    options = {"metrics": {"label": "accuracy", "size": "r2"}, "accumulate": 2, "compile": False}
    whole, train = build("two inputs, two heads", **options)
    history = fit(whole, train, epochs=3, rng=3)
    killed("two inputs, two heads", tmp_path / "run.npz", 4, 1, **options)
    again, other = resumed("two inputs, two heads", tmp_path / "run.npz", **options)
    assert bits(again.model) == bits(whole.model) and rows(other) == rows(history)


class Copy(Hook):
    """Saves the run after each step."""

    last = True

    def __init__(self, folder):
        self.folder = folder

    def on_step_end(self, state):
        state.save(self.folder / f"{state.steps}.npz")


@pytest.mark.parametrize(("accumulate", "drop_last"), [(1, True), (2, False), (3, False), (3, True)])
def test_accumulated_batches_of_a_loader_are_resumed_after_every_step(accumulate, drop_last, tmp_path):
    def run(*hooks, resume=None):
        trainer, train = build("a loader with a state", hooks=hooks, accumulate=accumulate)
        history = fit(trainer, train, epochs=2, resume=resume, drop_last=drop_last)
        return bits(trainer.model), rows(history), trainer._run.state.steps

    assert ROWS % SIZE and -(-ROWS // SIZE) % 2
    whole = run(Copy(tmp_path))
    for step in range(1, whole[2] + 1):
        assert run(resume=tmp_path / f"{step}.npz") == whole


class Fail(Hook):
    """Raises in a step, before its update."""

    def __init__(self, step):
        self.step = step

    def on_gradients(self, state):
        if (state.epoch, state.step) == self.step:
            raise KeyboardInterrupt


def add_noise(X, y, rng):
    return X + rng.normal(size=X.shape).astype("f4"), y


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("transform", [None, add_noise])
@pytest.mark.parametrize("task", ["one array, weights", "a stream", "a loader with a state"])
@pytest.mark.parametrize("step", [(1, 1), (2, 1), (2, 3)])
def test_the_batch_of_a_step_that_was_not_completed_is_drawn_again(step, task, transform, accumulate, tmp_path):
    def run(*hooks, **options):
        trainer, train = build(task, hooks=hooks, metrics=["accuracy"], accumulate=accumulate)
        try:
            fit(trainer, train, epochs=3, transform=transform, **options)
        except KeyboardInterrupt:
            assert len(trainer.history) < 3
            trainer.save(tmp_path / "run.npz")
        return bits(trainer.model), rows(trainer.history)

    whole, checkpoint = run(rng=3), tmp_path / "c.npz"
    run(Fail(step), Checkpoint(checkpoint), rng=3)
    assert run(resume=tmp_path / "run.npz") == whole
    if step != (1, 1):  # a Checkpoint saves no run without a step
        assert run(resume=checkpoint) == whole


def test_a_transform_that_is_interrupted_is_called_again_with_the_same_numbers(tmp_path):
    calls = []

    def change(X, y, rng):
        made = add_noise(X, y, rng)
        calls.append(made)
        if len(calls) == STEPS + 3:
            raise KeyboardInterrupt
        return made

    trainer, train = build("one array, weights")
    with pytest.raises(KeyboardInterrupt):
        fit(trainer, train, epochs=3, rng=3, transform=change)
    trainer.save(tmp_path / "run.npz")
    fit(trainer, train, epochs=3, resume=tmp_path / "run.npz", transform=change)
    checked = 1  # a fit checks the first batch with a generator of its own
    np.testing.assert_array_equal(calls[STEPS + 2][0], calls[STEPS + 3 + checked][0])


def test_a_generator_is_resumed_at_the_start_of_an_epoch(tmp_path):
    whole, train = build("a generator")
    history = fit(whole, train, epochs=3, rng=3)
    killed("a generator", tmp_path / "run.npz", STEPS + 2, None)
    again, other = resumed("a generator", tmp_path / "run.npz")
    assert bits(again.model) == bits(whole.model) and rows(other) == rows(history)


@pytest.mark.parametrize("task", ["a generator", "a loader"])
def test_the_middle_of_an_epoch_without_a_state_is_not_saved(task, tmp_path):
    path = tmp_path / "run.npz"
    trainer, train = build(task, hooks=[Checkpoint(path, every=2)])
    with raises(
        CheckpointError,
        f"saving {path}: expected a run at the end of an epoch, got one in the middle of it, on batches from a source "
        "without state_dict and load_state_dict; use Checkpoint without every",
    ):
        fit(trainer, train, epochs=1, rng=3)
    assert not path.exists()


class Interrupt(Hook):
    def on_step_end(self, state):
        if state.steps == STEPS + 2:
            raise KeyboardInterrupt


def test_an_interrupted_epoch_of_a_generator_keeps_the_file_of_the_epoch_before(tmp_path):
    path = tmp_path / "run.npz"
    trainer, train = build("a generator", hooks=[Checkpoint(path), Interrupt()])
    with pytest.raises(KeyboardInterrupt):
        fit(trainer, train, epochs=3, rng=3)
    with pytest.raises(CheckpointError, match="expected a run at the end of an epoch"):
        trainer.save(tmp_path / "other.npz")
    whole, _ = build("a generator")
    fit(whole, train, epochs=3, rng=3)
    assert bits(resumed("a generator", path)[0].model) == bits(whole.model)


def test_a_file_within_an_epoch_needs_a_source_with_a_state(tmp_path):
    path = tmp_path / "run.npz"
    killed("a loader with a state", path, 3, 1)
    trainer, train = build("a loader")
    before = bits(trainer.model)
    with pytest.raises(
        CheckpointError, match="expected a file that this source of batches can continue, got one of another"
    ):
        fit(trainer, train, epochs=3, resume=path)
    assert bits(trainer.model) == before


def test_the_first_batch_is_drawn_once():
    starts = []

    def source(rng):
        starts.append(rng.bit_generator.state["state"]["state"])
        yield from generated(rng)

    trainer, _ = build("a generator")
    fit(trainer, source, epochs=3, rng=3, validation=(A, TARGETS["label"]))
    assert (
        len(starts) == len(set(starts)) == 3
        and starts[0] == np.random.default_rng(3).bit_generator.state["state"]["state"]
    )


def test_accumulated_batches_of_a_source_make_one_step():
    def twos(rng):
        order = rng.permutation(ROWS)
        for k in range(0, ROWS, SIZE // 2):
            yield A[order[k : k + SIZE // 2]], TARGETS["label"][order[k : k + SIZE // 2]]

    made = []
    for source, accumulate in ((generated, 1), (twos, 2)):
        trainer, _ = build("a generator", accumulate=accumulate)
        trainer.model[2].p = 0.0
        history = fit(trainer, source, epochs=2, rng=0)
        made.append((np.concatenate([p.data.ravel() for p in trainer.model.parameters()]), history.column("loss")))
        assert trainer._run.state.steps == 2 * STEPS
    np.testing.assert_allclose(made[0][0], made[1][0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(made[0][1], made[1][1], rtol=1e-5)


def test_batches_smaller_than_the_first_are_left_out():
    trainer, _ = build("a generator")
    fit(trainer, generated, epochs=1, rng=0, drop_last=True)
    assert trainer._run.state.steps == ROWS // SIZE


def test_a_source_of_nested_batches_with_weights():
    def source():
        for k in range(0, ROWS, SIZE):
            part = slice(k, k + SIZE)
            yield {"a": A[part], "b": B[part]}, {name: y[part] for name, y in TARGETS.items()}, np.ones(len(A[part]))

    trainer, _ = build("weights", metrics={"label": "accuracy"})
    history = trainer.fit(source, 3, progress=False, validation=source)
    assert set(history[-1]) >= {"loss/label", "val_loss/size", "accuracy/label", "val_accuracy/label"}


def bad_second(batch):
    return lambda: iter([(A[:5], TARGETS["label"][:5]), batch])


FAULTS = [
    (lambda: generated(np.random.default_rng(0)), {}, ArgumentError,
     "Trainer.fit: expected batches that each epoch can start again, got a generator, which ends; "
     "pass the function that makes it, without calling it"),
    (lambda: lambda: iter([]), {}, DataError, "Trainer.fit: expected at least one batch, got none"),
    (lambda: generated, {"batch_size": 8}, ArgumentError,
     "Trainer.fit: expected no batch_size for batches that a source makes, got 8; set it there"),
    (lambda: generated, {"sampler": lambda n, rng: range(n)}, ArgumentError,
     "Trainer.fit: expected arrays in memory for sampler, got batches from a source; order the rows there"),
    (lambda: lambda: iter([A]), {}, ArgumentError,
     "Trainer.fit, batch 1: expected (X, y) or (X, y, sample_weight), got ndarray; yield it from a generator function"),
    (lambda: lambda: None, {}, ArgumentError,
     "Trainer.fit: expected a function that returns batches, got NoneType; "
     "yield (X, y) in it, or return an iterator"),
    (lambda: lambda epoch, rng: None, {}, ArgumentError,
     "Trainer.fit: expected a function of batches that needs no arguments but rng, got one with (epoch, rng); "
     "give the others a default"),
    (lambda: list(generated(np.random.default_rng(0)))[:2], {}, ArgumentError,
     "Trainer.fit: expected (X, y) or a function that returns batches, got a list of 2 tuples; "
     "pass a function, lambda: iter(batches); or for nested X and y a tuple"),
    (lambda: [[A[:5], A[:5]], [A[5:9], A[5:9]]], {}, ArgumentError,
     "Trainer.fit: expected (X, y) or a function that returns batches, got a list of 2 lists; "
     "pass a function, lambda: iter(batches); or for nested X and y a tuple"),
    (lambda: bad_second((A[:5], TARGETS["label"][:4])), {}, ShapeError,
     "Trainer.fit, batch 2: expected arrays of one length, got 5 rows of X and 4 of y"),
    (lambda: bad_second((A[:5], A[:5, 0])), {}, ShapeError,
     "Trainer.fit, batch 2: expected y as in batch 1, int64, got float32"),
    (lambda: bad_second(((A[:5], A[:5]), TARGETS["label"][:5])), {}, ShapeError,
     "Trainer.fit, batch 2: expected X as in batch 1, float32, got 0 float32, 1 float32"),
    (lambda: bad_second((A[:5] * np.nan, TARGETS["label"][:5])), {}, DataError,
     "Trainer.fit, batch 2: Dataset: expected finite X, got nan at row 0, column 0; "
     "drop the row, or fill it in with sklearn.impute.SimpleImputer"),
]  # fmt: skip


@pytest.mark.parametrize("k", range(len(FAULTS)))
def test_what_a_source_must_not_do(k):
    make, options, kind, text = FAULTS[k]
    model = plain()
    trainer = mf.Trainer(model, nn.CrossEntropyLoss(), mf.optim.SGD(model.parameters(), lr=0.1))
    with raises(kind, text):
        trainer.fit(make(), progress=False, **options)


@pytest.mark.parametrize("n", [2, 3])
def test_lists_of_list_batches_are_no_data(n):
    trainer, _ = build("a loader")
    batches = [[A[:8], TARGETS["label"][:8]]] * n
    for call in (trainer.fit, trainer.evaluate, lambda data: trainer.fit((A, TARGETS["label"]), validation=data)):
        with pytest.raises(ArgumentError, match=f"or a function that returns batches, got a list of {n} lists; pass a"):
            call(batches)


def test_evaluation_of_a_source_and_of_its_rows_are_the_same():
    trainer, _ = build("a loader", metrics=["accuracy"])
    whole, parts = trainer.evaluate((A, TARGETS["label"])), trainer.evaluate(Loader())
    assert parts == pytest.approx(whole, rel=1e-6)


def once():
    """Return a source that returns the same iterator in each epoch."""
    made = iter([(A[:5], TARGETS["label"][:5]), (A[5:9], TARGETS["label"][5:9])])
    return lambda: made


@pytest.mark.parametrize("drop_last", [False, True])
def test_an_epoch_of_a_source_has_a_batch(drop_last):
    trainer, _ = build("a generator")
    text = "Trainer.fit: expected at least one batch in each epoch, got none; return a new iterator each time"
    with raises(DataError, text):
        trainer.fit(once(), 2, progress=False, drop_last=drop_last)
    assert len(trainer.history) == 1


def test_each_validation_on_a_source_has_a_batch():
    trainer, _ = build("a generator")
    with pytest.raises(DataError, match="^Trainer.fit, validation: expected at least one batch in each epoch, got non"):
        trainer.fit((A, TARGETS["label"]), 2, progress=False, validation=once())


@pytest.mark.parametrize(
    ("train", "options"),
    [
        ((A, TARGETS["label"]), {"sampler": lambda n, rng: rng.permutation(n)[: SIZE - 1], "batch_size": SIZE}),
        (lambda: iter([(A, TARGETS["label"])]), {}),
    ],
)
def test_drop_last_leaves_a_step_in_each_epoch(train, options):
    trainer, _ = build("a generator", accumulate=2)
    text = "Trainer.fit, epoch 1: expected the rows of a step, got fewer with drop_last=True; leave drop_last out"
    with raises(DataError, text):
        trainer.fit(train, 2, progress=False, drop_last=True, **options)
    assert trainer._run.state.epoch == 0


FLOATS = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
SUMS = FLOATS[:, :1] * 2


def fresh():
    for k in (0, 32):
        yield FLOATS[k : k + 32].copy(), SUMS[k : k + 32].copy()


def refilled():
    X, y = np.empty((32, 4), np.float32), np.empty((32, 1), np.float32)
    for k in (0, 32):
        X[:], y[:] = FLOATS[k : k + 32], SUMS[k : k + 32]
        yield X, y


def regression(source, accumulate=1, **options):
    """Return the numbers of an epoch, and of an evaluation."""
    model = nn.Sequential(nn.Dense(4, 1, rng=0))
    optimizer = mf.optim.SGD(model.parameters(), lr=0.01)
    trainer = mf.Trainer(model, nn.MSELoss(), optimizer, metrics=["r2"], accumulate=accumulate)
    row = trainer.fit(source, 1, rng=0, progress=False, **options)[0]
    return row["loss"], row["r2"], bits(model), trainer.evaluate(fresh if callable(source) else source)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_source_may_refill_its_arrays(accumulate):
    assert regression(refilled, accumulate) == regression(fresh, accumulate)
    model = nn.Sequential(nn.Dense(4, 1, rng=0))
    trainer = mf.Trainer(model, nn.MSELoss(), mf.optim.SGD(model.parameters(), lr=0.01), metrics=["r2"])
    assert trainer.evaluate(refilled) == trainer.evaluate(fresh)


@pytest.mark.parametrize("data", [fresh, (FLOATS, SUMS), (FLOATS, SUMS, np.ones(64))])
def test_a_transform_may_work_in_place(data):
    def in_place(X, y, rng):
        X *= 3
        y += 1
        return X, y

    assert regression(data, transform=in_place) == regression(data, transform=lambda X, y, rng: (X * 3, y + 1))


def test_a_transform_in_place_leaves_the_arrays_of_a_source_as_they_are():
    batches = [(X.copy(), y.copy()) for X, y in fresh()]

    def in_place(X, y, rng):
        X *= 3
        return X, y

    regression(lambda: iter(batches), transform=in_place)
    np.testing.assert_array_equal(np.concatenate([X for X, _ in batches]), FLOATS)


def test_a_transform_may_refill_its_arrays():
    X_out, y_out = np.empty((32, 4), np.float32), np.empty((32, 1), np.float32)

    def refill(X, y, rng):
        np.multiply(X, 3, X_out[: len(X)])
        y_out[: len(y)] = y
        return X_out[: len(X)], y_out[: len(y)]

    assert regression(fresh, transform=refill) == regression(fresh, transform=lambda X, y, rng: (X * 3, y))


class WithBatches:
    """A loader with an attribute ``batches``."""

    def __init__(self, X, y):
        self.batches = [(X[:6], y[:6]), (X[6:], y[6:])]

    def __iter__(self):
        return iter(self.batches)


def test_a_source_of_a_float64_model_is_evaluated_as_in_validation():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(12, 3)), rng.normal(size=(12, 1))
    model = nn.Sequential(nn.Dense(3, 1, rng=0)).astype(np.float64)
    trainer = mf.Trainer(model, nn.MSELoss(), mf.optim.SGD(model.parameters(), lr=0.1))
    for data in (mf.data.stream(X, y), WithBatches(X, y)):
        history = trainer.fit(data, epochs=1, rng=0, progress=False, validation=data)
        assert history[0]["val_loss"] == trainer.evaluate(data)["loss"]
        np.testing.assert_allclose(trainer.evaluate(data)["loss"], trainer.evaluate((X, y))["loss"], rtol=1e-12)
    X[3] = np.nan
    with pytest.raises(DataError, match="^Trainer.evaluate, in rows 0 to 1: "):
        trainer.evaluate(mf.data.stream(X[2:], y[2:]))
    with pytest.raises(DataError, match="^Trainer.fit, validation, in rows 0 to 1: "):
        trainer.fit(WithBatches(X[6:], y[6:]), validation=mf.data.stream(X[2:], y[2:]), progress=False)
