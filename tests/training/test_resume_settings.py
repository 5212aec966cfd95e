"""A resumed run has the modes, frozen parameters and settings of the file; another model or loss is refused."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import CheckpointError
from microfw.training import Checkpoint, Hook, saving

rng = np.random.default_rng(0)
X = rng.normal(size=(40, 4)).astype(np.float32)
Y = X[:, :1] * 2 - X[:, 1:2]


class Scale(nn.Module):
    def __init__(self, factor, kind="plain"):
        self.factor, self.kind = factor, kind

    def forward(self, x):
        return x * self.factor


class Tempered(nn.Module):  # no attribute `secret`: a model that files cannot describe
    def __init__(self, secret, layer):
        self.layer = layer

    def forward(self, x):
        return self.layer(x)


class InSecondEpoch(Hook):
    def __init__(self, change):
        self.change = change

    def on_epoch_start(self, state):
        if state.epoch == 2:
            self.change(state)


def trainer(*hooks, act=None, loss=None, p=0.2, kind="plain", wrap=lambda model: model):
    act = nn.Tanh() if act is None else act
    parts = nn.Dense(4, 6, rng=0), nn.BatchNorm1D(6), act, nn.Dropout(p, rng=3), Scale(1.0, kind), nn.Dense(6, 1, rng=1)
    model = wrap(nn.Sequential(*parts))
    parts[0].requires_grad_(False)
    return mf.Trainer(model, loss or nn.HuberLoss(0.5), optim.SGD(model.parameters(), lr=0.05), hooks=hooks)


def fit(trainer, epochs, **options):
    return trainer.fit((X, Y), epochs=epochs, batch_size=8, rng=0, progress=False, **options).column("loss")


def unfreeze(state):
    state.model[0].requires_grad_(True)


def freeze_statistics(state):
    state.model[1].eval()


def drop_more(state):
    state.model[3].p = np.float64(0.6)


def scale(state):
    state.model[4].factor, state.model[4].kind = 2, "other"


def sharpen(state):
    state.loss_function.delta = 0.1


@pytest.mark.parametrize("change", [unfreeze, freeze_statistics, drop_more, scale, sharpen])
def test_what_a_hook_has_changed_comes_back(change, tmp_path):
    path = tmp_path / "run.npz"
    straight = fit(trainer(InSecondEpoch(change)), 5)
    fit(trainer(InSecondEpoch(change), Checkpoint(path)), 3)
    assert fit(trainer(InSecondEpoch(change)), 5, resume=path) == straight


@pytest.mark.filterwarnings("ignore:.*mf.load cannot read the model")
def test_modes_and_rates_come_back_in_a_model_that_files_cannot_describe(tmp_path):
    def change(state):
        state.model.layer[0].requires_grad_(True)
        state.model.layer[1].eval()
        state.model.layer[3].p = 0.6

    path, hook = tmp_path / "run.npz", InSecondEpoch(change)

    def made(*hooks, **options):
        return trainer(hook, *hooks, wrap=lambda model: Tempered(1, model), **options)

    straight = fit(made(), 5)
    fit(made(Checkpoint(path)), 3)
    assert fit(made(), 5, resume=path) == straight
    with pytest.raises(CheckpointError, match=r"layer\.2 of the model as it was saved, 'nn.Tanh', got 'nn.ReLU'"):
        fit(made(act=nn.ReLU()), 5, resume=path)


OTHERS = {
    "activation": ({"act": nn.ReLU()}, "expected 2 of the model as it was saved, 'nn.Tanh', got 'nn.ReLU'; build the same"),
    "loss": ({"loss": nn.L1Loss()}, "expected the loss as it was saved, 'nn.HuberLoss', got 'nn.L1Loss'"),
    "reduction": ({"loss": nn.HuberLoss(reduction="sum")}, "expected reduction of the loss as it was saved, 'mean', got 'sum'"),
    "function": ({"loss": lambda y, t: abs(y - t).mean()}, "expected the loss as it was saved, 'nn.HuberLoss', got '<lambda>'"),
    "no module": ({"wrap": lambda model: Tempered(1, model)}, "of the model as it was saved"),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_another_model_or_loss_is_refused_and_nothing_is_changed(name, tmp_path):
    options, match = OTHERS[name]
    path = tmp_path / "run.npz"
    fit(trainer(Checkpoint(path)), 1)
    other = trainer(p=0.5, **options)
    before = other.model.state_dict()
    with pytest.raises(CheckpointError, match=match):
        fit(other, 2, resume=path)
    after = other.model.state_dict()
    assert all(np.array_equal(after[key], before[key]) for key in before)
    assert [(p.requires_grad) for p in other.model.parameters()] == [False] * 2 + [True] * 4


def test_other_sizes_and_activations_by_name_are_refused(tmp_path):
    path = tmp_path / "run.npz"
    for first, second, text in (
        (nn.GELU("tanh"), nn.GELU(), "expected approximate of 2 of the model as it was saved, 'tanh', got 'none'"),
        (nn.Softmax(1), nn.Softmax(0), "expected axis of 2 of the model as it was saved, 1, got 0"),
        (nn.Lambda(np.tanh), nn.Lambda(np.sin), "expected function of 2 of the model as it was saved"),
    ):
        fit(trainer(Checkpoint(path), act=first), 1)
        with pytest.raises(CheckpointError, match=text):
            fit(trainer(act=second), 2, resume=path)


def test_after_a_failed_resume_modes_and_settings_are_as_before(tmp_path):
    class Broken(Hook):
        def __init__(self, number):
            self.number = number

        def state_dict(self):
            return {"number": self.number}

        def load_state_dict(self, state):
            if state["number"] != self.number:
                raise ValueError("broken")

    path = tmp_path / "run.npz"
    fit(
        trainer(
            InSecondEpoch(drop_more),
            InSecondEpoch(unfreeze),
            InSecondEpoch(freeze_statistics),
            Broken(1),
            Checkpoint(path),
        ),
        2,
    )
    other = trainer(Broken(2))
    with pytest.raises(CheckpointError, match="broken"):
        fit(other, 3, resume=path)
    assert (other.model[3].p, other.model[1].training, other.model[0].weight.requires_grad) == (0.2, True, False)


def noisy(X, y, rng):
    return X + rng.normal(size=X.shape).astype(X.dtype), y


def other(X, y, rng):
    return X, y


def drawn(n, rng):
    return rng.integers(0, 9, n)


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        ({"transform": noisy}, {}, "expected the transform of the saved run, noisy, got none; pass the same transform"),
        ({}, {"transform": noisy}, "expected the transform of the saved run, none, got noisy; leave transform out"),
        ({"transform": noisy}, {"transform": other}, "saved run, noisy, got other; pass the same transform"),
        ({"sampler": drawn}, {}, "expected the sampler of the saved run, drawn, got none; pass the same sampler"),
        ({"class_weight": None}, {"sampler": drawn}, "expected the sampler of the saved run, none, got drawn; leave"),
    ],
)
def test_another_transform_or_sampler_is_refused(tmp_path, before, after, text):
    path = tmp_path / "run.npz"
    fit(trainer(Checkpoint(path)), 1, **before)
    with pytest.raises(CheckpointError, match=text):
        fit(trainer(), 2, resume=path, **after)
    same = {name: functools.partial(function) for name, function in before.items() if function}
    if same:  # a partial has no name of its own
        with pytest.raises(CheckpointError, match="got partial"):
            fit(trainer(), 2, resume=path, **same)
    assert fit(trainer(), 2, resume=path, **before) == fit(trainer(), 2, **before)


def test_files_from_before_transforms_were_compared_are_resumed(tmp_path, monkeypatch):
    path, capture = tmp_path / "run.npz", saving.capture
    monkeypatch.setattr(saving, "capture", lambda run: {k: v for k, v in capture(run).items() if k != "options"})
    fit(trainer(Checkpoint(path)), 1, transform=noisy)
    assert fit(trainer(), 2, resume=path, transform=noisy) == fit(trainer(), 2, transform=noisy)


def test_other_metrics_within_an_epoch_are_named(tmp_path):
    class Saved(Hook):
        last = True

        def on_step_end(self, state):
            if state.steps == 7:
                state.save(path)

    path = tmp_path / "run.npz"
    fit(trainer(Saved()), 2)
    expected = (
        "expected no metrics within an epoch, as it was saved, got r2; pass the same metrics, or resume a file from"
    )
    with pytest.raises(CheckpointError, match=expected):
        fit(measured(trainer()), 2, resume=path)
    fit(measured(trainer(Saved())), 2)
    with pytest.raises(
        CheckpointError, match="expected metrics within an epoch, as it was saved, got none; pass the same"
    ):
        fit(trainer(), 2, resume=path)
    assert fit(measured(trainer()), 2, resume=path) == fit(trainer(), 2)


def measured(trainer):
    trainer.metrics = "r2"
    return trainer
