"""Hooks and schedules with a state: they start again with each fit that is not resumed."""

import importlib
import math
import pkgutil

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim, training
from microfw.data import Dataset
from microfw.errors import ArgumentError, CheckpointError, GraphError
from microfw.optim import schedules
from microfw.training import Checkpoint, EarlyStopping, Hook, LearningRate, Trainer, WeightAveraging

TIMES = ("seconds",)


def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3))
    return Dataset(X, np.tanh(X @ rng.normal(size=(3, 1)))), Dataset(X[:10], rng.normal(size=(10, 1)))


def make(hooks, lr=0.2, **options):
    model = nn.Sequential(nn.Dense(3, 6, rng=0), nn.Tanh(), nn.Dense(6, 1, rng=1))
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.5)
    return Trainer(model, nn.MSELoss(), optimizer, hooks=hooks, **options)


def outcome(trainer, history):
    rows = [{name: value for name, value in row.items() if name not in TIMES} for row in history]
    return rows, {name: array.tolist() for name, array in trainer.model.state_dict().items()}, trainer.optimizer.lr


class Counting:
    """A schedule of a user's own, with a state and without `reset`."""

    def __init__(self):
        self.calls = 0

    def __call__(self, step):
        self.calls += 1
        return 0.2 / self.calls

    def state_dict(self):
        return {"calls": self.calls}

    def load_state_dict(self, state):
        self.calls = state["calls"]


def plateau():
    return schedules.ReduceOnPlateau(0.1, factor=0.5, patience=0, cooldown=1)


PUBLIC = ("microfw.training.", "microfw.optim.", "microfw.profiler.")
"""Where the hooks are that a user can pass; an estimator makes its own for each fit."""

MAKE = {
    "LearningRate": lambda folder: LearningRate(plateau(), of="val_loss"),
    "LearningRate of steps": lambda folder: LearningRate(schedules.OneCycle(0.3, steps=40)),
    "LearningRate of epochs": lambda folder: LearningRate(schedules.StepDecay(0.3, every=2), of="epoch"),
    "LearningRate of a user's schedule": lambda folder: LearningRate(Counting()),
    "EarlyStopping": lambda folder: EarlyStopping("val_loss", patience=1),
    "WeightAveraging": lambda folder: WeightAveraging(0.7),
    "Checkpoint": lambda folder: Checkpoint(folder / "a.npz", every=3),
    "Checkpoint of the best": lambda folder: Checkpoint(folder / "b.npz", best="val_loss"),
    "CSVLogger": lambda folder: training.CSVLogger(folder / "history.csv"),
    "Clip": lambda folder: importlib.import_module("microfw.training.clipping").Clip(0.5, None),
    "Progress": lambda folder: importlib.import_module("microfw.training.progress").Progress(),
    "ProgressBar": lambda folder: importlib.import_module("microfw.training.progress").ProgressBar(),
    "Profiler": lambda folder: mf.Profiler(),
}


def told(capsys):
    """Return what a hook has written; of a bar, which shows the time, that there was one."""
    text = capsys.readouterr().err
    return "a bar" if "\r" in text else text


def test_every_hook_of_the_library_is_tested():
    for package in (
        training,
        importlib.import_module("microfw.profiler"),
        importlib.import_module("microfw.estimators"),
    ):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)
    found, left = set(), [Hook]
    while left:
        left += (new := [kind for kind in left.pop().__subclasses__() if kind not in found])
        found |= set(new)
    ours = {kind.__name__ for kind in found if kind.__module__.startswith(PUBLIC) and kind.__name__[0] != "_"}
    assert ours == {name for name in MAKE if " " not in name}


@pytest.mark.parametrize("name", MAKE)
def test_two_fits_with_the_same_hook_equal_two_with_new_ones(name, tmp_path, capsys):
    train, validation = data()
    got = []
    for renewed in (False, True):
        trainer = make([MAKE[name](tmp_path)])
        results = []
        for _ in range(2):
            history = trainer.fit(train, 8, 8, validation, rng=0, progress=False)
            results.append((*outcome(trainer, history), told(capsys)))
            if renewed:
                trainer.hooks = [MAKE[name](tmp_path)]
        got.append(results)
    assert got[0] == got[1]


@pytest.mark.parametrize("name", MAKE)
def test_a_hook_starts_again_with_another_model(name, tmp_path, capsys):
    train, validation = data()
    hook = MAKE[name](tmp_path)
    got = []
    for _ in range(2):
        trainer = make([hook])
        got.append((*outcome(trainer, trainer.fit(train, 8, 8, validation, rng=0, progress=False)), told(capsys)))
    assert got[0] == got[1]


def test_a_rate_by_a_function_of_a_metric_starts_as_the_optimizers():
    train, _ = data()
    trainer = make([LearningRate(lambda loss: 0.01 * loss, of="loss")], lr=0.2)
    rates = [trainer.fit(train, 3, 8, rng=0, progress=False).column("lr") for _ in range(2)]
    assert rates[0][0] == rates[1][0] == 0.2
    assert rates[0][1] < 0.2
    trainer.optimizer.lr = 0.05  # which a user sets between two fits
    assert trainer.fit(train, 3, 8, rng=0, progress=False).column("lr")[0] == 0.05


def test_a_plateau_sets_the_first_epochs_rate_too():
    history = make([LearningRate(plateau(), of="val_loss")], lr=0.7).fit(
        data()[0], 2, 8, data()[1], rng=0, progress=False
    )
    assert history.column("lr")[0] == 0.1


@pytest.mark.parametrize(
    ("schedule", "of", "text"),
    [
        (schedules.ReduceOnPlateau(0.1), "step", "LearningRate: expected ReduceOnPlateau of a metric, such as 'val_loss', got of='step'"),
        (schedules.ReduceOnPlateau(0.1), "epoch", "LearningRate: expected ReduceOnPlateau of a metric, such as 'val_loss', got of='epoch'"),
        (schedules.Cosine(0.1, 10), "loss", "LearningRate: expected Cosine of 'step' or 'epoch', got of='loss'"),
        (schedules.WarmUp(0.1, 10), "val_loss", "LearningRate: expected WarmUp of 'step' or 'epoch', got of='val_loss'"),
        (schedules.Cosine(0.1, 10), "epochs", "LearningRate: expected of 'step', 'epoch' or an entry of the History, got 'epochs'"),
        (abs, 3, "LearningRate: expected of 'step', 'epoch' or an entry of the History, got 3"),
    ],
)  # fmt: skip
def test_schedules_of_what_they_are_no_function_of(schedule, of, text):
    with pytest.raises(ArgumentError) as info:
        LearningRate(schedule, of)
    assert str(info.value) == text


@pytest.mark.parametrize(
    ("make_hook", "text"),
    [
        (lambda: EarlyStopping(3), "EarlyStopping: expected metric to be an entry of the History, got 3"),
        (lambda: EarlyStopping(min_delta="a"), "EarlyStopping: expected min_delta at least 0, finite, got 'a'"),
        (lambda: EarlyStopping(min_delta=math.nan), "EarlyStopping: expected min_delta at least 0, finite, got nan"),
        (lambda: EarlyStopping(min_delta=True), "EarlyStopping: expected min_delta at least 0, finite, got True"),
        (lambda: EarlyStopping(restore="no"), "EarlyStopping: expected restore to be True or False, got 'no'"),
        (lambda: WeightAveraging(True), "WeightAveraging: expected decay from 0 to below 1, got True"),
        (lambda: WeightAveraging(math.nan), "WeightAveraging: expected decay from 0 to below 1, got nan"),
        (lambda: WeightAveraging(keep="no"), "WeightAveraging: expected keep to be True or False, got 'no'"),
    ],
)  # fmt: skip
def test_hooks_with_settings_that_cannot_work(make_hook, text):
    with pytest.raises(ArgumentError) as info:
        make_hook()
    assert str(info.value) == text


@pytest.mark.parametrize("kind", ["EarlyStopping", "WeightAveraging"])
def test_a_refused_resume_leaves_the_model_as_it_is(kind, tmp_path):
    train, validation = data()
    path = tmp_path / "run.npz"

    class Refusing(Hook):
        def state_dict(self):
            return {"a": 1}

        def load_state_dict(self, state):
            if state["a"] == 1 and self.refuse:
                self.refuse = False
                raise ValueError("no")

        refuse = False

        def on_step_end(self, state):
            pass

    last = Refusing()
    trainer = make([MAKE[kind](tmp_path), last])
    trainer.fit(train, 4, 8, validation, rng=0, progress=False)
    trainer.save(path)
    for p in trainer.model.parameters():
        p.data = p.data + 1
    before = trainer.model.state_dict()
    last.refuse = True
    with pytest.raises(CheckpointError, match="expected a state that fits, got no"):
        trainer.fit(train, 8, 8, validation, progress=False, resume=path)
    for name, array in trainer.model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_averaging_goes_on_with_the_model_that_is_resumed(tmp_path):
    train, _ = data()
    path = tmp_path / "run.npz"
    hook = WeightAveraging(0.7, keep=False)
    make([hook, Checkpoint(path)]).fit(train, 3, 8, rng=0, progress=False)
    fresh = WeightAveraging(0.7, keep=False)
    got = []
    for one in (hook, fresh):
        trainer = make([one])
        trainer.fit(train, 6, 8, progress=False, resume=path)
        assert one.average.optimizer is trainer.optimizer
        got.append(one.average.values.tolist())
    assert got[0] == got[1]


def test_an_average_of_parameters_that_were_taken_over_is_refused():
    model = nn.Dense(2, 1, rng=0)
    average = optim.Average(optim.SGD(model.parameters(), lr=0.1))
    optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(GraphError, match="^Average.update: expected to own its parameters, got parameter 'bias' taken"):
        average.update()
    with pytest.raises(GraphError, match="taken over"):
        average.swap()
    assert average._away is None


def test_a_range_test_trains_with_the_trainers_settings():
    train, _ = data()
    found = [
        mf.training.lr_range_test(make([], **options), train, steps=20, batch_size=8, rng=0)
        for options in ({}, {"clip_norm": 1e-3})
    ]
    assert found[0].losses[-1] != found[1].losses[-1]


@pytest.mark.parametrize(
    "options", [{"low": "a"}, {"high": None}, {"low": True}, {"smooth": "a"}, {"smooth": math.nan}]
)
def test_range_tests_refuse_what_is_no_number(options):
    with pytest.raises(ArgumentError, match="^lr_range_test: expected"):
        mf.training.lr_range_test(make([]), data()[0], **options)
