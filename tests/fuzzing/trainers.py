"""Runs a program in a Trainer, with compile False, True and by default, and as the loop that it is."""

from __future__ import annotations

import contextlib
import warnings

import numpy as np

import microfw as mf
from microfw.training import replay_policy
from tests.fuzzing.batches import dataset
from tests.fuzzing.world import World, bits, first_difference

SKIP = {"profiler attached", "profiler detached"}


class Changes(mf.Hook):
    """Makes the program's changes between steps, and keeps the state after each."""

    def __init__(self, program, world, data):
        self.steps = program.steps
        self.world = world
        self.sample = data.X[:4], data.y[:4]
        self.left = []

    def on_step_end(self, state):
        self.left.append([("loss", bits(np.asarray(state.loss))), *self.world.state()])
        self.world.change(self.steps[state.steps % len(self.steps)], *self.sample, SKIP)


@contextlib.contextmanager
def soon(program):
    """Let a default Trainer replay after a few steps, since programs are short."""
    before = {name: getattr(replay_policy, name) for name in ("EAGER_STEPS", "MIN_STEPS")}
    try:
        for name in before:
            setattr(replay_policy, name, 3 if name == "EAGER_STEPS" or program.seed % 2 else 10**9)
        yield
    finally:
        for name, value in before.items():
            setattr(replay_policy, name, value)


def make_data(program):
    X, y = dataset(program, program.trainer["rows"])
    task = "classification" if program.target == "labels" else "regression"
    return mf.data.Dataset(X, y, task=task, dtype=np.dtype(program.dtype))


def fit(program, compile):
    """Train; return the state after each step, and how it ended."""
    world, data = World(program), make_data(program)
    changes = Changes(program, world, data)
    options = {k: v for k, v in program.trainer.items() if k in ("clip_norm", "clip_value", "accumulate", "metrics")}
    hooks = [changes, mf.Profiler()] if program.trainer.get("profiler") else [changes]
    end = "done"
    with soon(program), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            trainer = mf.Trainer(
                world["model"], world["criterion"], world["optimizer"], hooks=hooks, compile=compile, **options
            )
            validation = data if program.trainer.get("validation") else None
            history = trainer.fit(
                data,
                program.trainer["epochs"],
                program.trainer["batch_size"],
                validation,
                program.seed % 1000,
                progress=False,
            )
            rows = [{k: v for k, v in row.items() if k != "seconds"} for row in history]
            end = repr(rows)
        except (Exception, KeyboardInterrupt) as error:
            end = f"{type(error).__name__}: {error}"
    told = [str(w.message) for w in caught if not issubclass(w.category, RuntimeWarning | DeprecationWarning)]
    changes.left.append([("end", end), ("warnings", repr(told)), *world.state()])
    return changes.left


def loop(program):
    """Train as in the loop that a Trainer is; return the state after each step."""
    world, data = World(program), make_data(program)
    model, optimizer, criterion = (
        world["model"].train(),
        world["optimizer"],
        world["criterion"],
    )  # as a Trainer keeps them
    left, done, rng = [], 0, np.random.default_rng(program.seed % 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(program.trainer["epochs"]):
            for X, y in mf.data.batches(data, program.trainer["batch_size"], rng=rng):
                try:
                    optimizer.zero_grad()
                    # Tensors, as in a Trainer: code of a model's own may compute an array times np.float64 in float64
                    loss = criterion(model(mf.tensor(X)), mf.tensor(y))
                    if not np.isfinite(loss.item()):
                        return left
                    loss.backward()
                    optimizer.step()
                    done += 1
                    left.append([("loss", bits(np.asarray(loss.item()))), *world.state()])
                    world.change(program.steps[done % len(program.steps)], data.X[:4], data.y[:4], SKIP)
                except (Exception, KeyboardInterrupt):
                    return left
    return left


def compare(one, two, names, whole=True):
    """Return the first difference between two runs."""
    for k, (a, b) in enumerate(zip(one, two, strict=False)):
        difference = first_difference(a, b)
        if difference is not None:
            return f"after step {k}, {names}: {difference}"
    return f"{len(one)} and {len(two)} steps, {names}" if whole and len(one) != len(two) else ""


def examine_trainers(program, result):
    """Run a program in all Trainers, and compare."""
    eager, replayed, default = (fit(program, compile) for compile in (False, True, None))
    if not program.steps_alone and len(eager) > 2:
        values = [[row for row in left if row[0].startswith("value")] for left in (eager[0], eager[-1])]
        result.moved = first_difference(*values) is not None
    result.difference = compare(eager, replayed, "Trainer with compile=False and True")
    result.difference = result.difference or compare(eager, default, "Trainer with compile=False and by default")
    alone = (
        program.free and program.steps_alone and not {"clip_norm", "clip_value", "accumulate"} & set(program.trainer)
    )
    if not result.difference and alone:
        result.difference = compare(loop(program), eager[:-1], "loop and Trainer with compile=False", whole=False)
