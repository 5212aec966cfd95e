"""A resumed run, and the best model of a run, have the attributes that hooks, the model or the loss have changed."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import CheckpointError
from microfw.serialization import container
from microfw.training import Checkpoint, EarlyStopping, Hook

rng = np.random.default_rng(0)
X = (rng.normal(size=(60, 4)) + 1).astype("f4")
Y = rng.integers(0, 2, 60)


class Net(nn.Module):
    """Numbers, a flag, statistics in an array, a list, and a counter."""

    def __init__(self, span=(0.0, 1.0)):
        self.a, self.b, self.temperature, self.warm = nn.Dense(4, 4, rng=0), nn.Dense(4, 2, rng=1), 5.0, True
        self.mean, self.n, self.sizes, self.span, self.function = np.zeros(4, "f4"), 0, [], span, np.tanh
        self.config, self.text = Config(), "a"

    def forward(self, x):
        if self.training:
            self.n += 1
            self.mean = self.mean + (np.asarray(x).mean(0) - self.mean) / self.n
            self.sizes.append(len(x))
        h = self.a(x - self.mean * self.span[1] / (1 + len(self.sizes)))
        return self.b(h if self.warm else self.function(h)) / (self.temperature + self.config.bias)


class Config:
    bias = 0.0


class Elbo:
    """A loss that is no Module."""

    def __init__(self):
        self.beta, self.loss = 0.0, nn.CrossEntropyLoss()

    def __call__(self, prediction, target):
        return self.loss(prediction, target) + self.beta * (prediction**2).mean()

    def method(self, prediction, target):
        return self(prediction, target)


class ElboModule(nn.Module):
    def __init__(self):
        self.beta = 0.0

    def forward(self, prediction, target):
        return nn.CrossEntropyLoss()(prediction, target) + self.beta * (prediction**2).mean()


class Anneal(Hook):
    """Changes the model and the loss at the end of each epoch."""

    def on_epoch_end(self, state):
        loss = getattr(state.loss_function, "__self__", state.loss_function)
        loss.beta += 0.2
        state.model.temperature *= 0.7
        state.model.warm, state.model.text, state.model.added = False, state.model.text + "b", state.epoch
        state.model.span = (0.0, state.model.span[1] + 0.5)


def trainer(*hooks, loss=Elbo, model=Net):
    made = model()
    return mf.Trainer(made, loss(), optim.SGD(made.parameters(), lr=0.1), hooks=hooks)


def fit(trainer, epochs, **options):
    return trainer.fit((X, Y), epochs=epochs, batch_size=20, rng=0, progress=False, **options).column("loss")


def state(trainer):
    return {
        name: repr(value) for name, value in vars(trainer.model).items() if name not in ("_named", "config", "training")
    }


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@pytest.mark.parametrize("loss", [Elbo, ElboModule, lambda: Elbo().method], ids=["object", "module", "method"])
def test_a_resumed_run_has_the_attributes_of_the_file(loss, suffix, tmp_path):
    path = tmp_path / f"run.{suffix}"
    straight, first, rest = trainer(Anneal(), loss=loss), trainer(Anneal(), loss=loss), trainer(Anneal(), loss=loss)
    losses = fit(straight, 6)
    first.hooks = [Anneal(), Checkpoint(path, every=2)]
    fit(first, 3)
    assert fit(rest, 6, resume=path) == losses
    assert state(rest) == state(straight)
    again = mf.load(path, [Net])
    assert {name: repr(vars(again)[name]) for name in ("temperature", "mean", "n", "sizes", "span", "added")} == {
        name: repr(vars(first.model)[name]) for name in ("temperature", "mean", "n", "sizes", "span", "added")
    }


class Lost(Hook):
    def __init__(self, change):
        self.change = change

    def on_epoch_end(self, state):
        self.change(state)


class Kind:
    pass


LOST = {
    "Net.config": lambda s: setattr(s.model.config, "bias", s.model.config.bias + 1),
    "Net.function": lambda s: setattr(s.model, "function", np.sin),
    "Net.kind": lambda s: setattr(s.model, "kind", Kind),
    "Net.act": lambda s: setattr(s.model, "act", nn.Tanh()),
    "Elbo.loss": lambda s: setattr(s.loss_function, "loss", nn.CrossEntropyLoss(label_smoothing=0.1)),
    "Net.sizes": lambda s: s.model.sizes.extend(range(20_000)),
}


@pytest.mark.parametrize("name", LOST)
def test_what_a_file_cannot_hold_is_a_warning_when_it_is_written(name, tmp_path):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(trainer(Lost(LOST[name]), Checkpoint(tmp_path / "run.npz")), 2)
    texts = [str(w.message) for w in caught]
    assert sum(f"resume=path) does not restore {name}, which has changed since the fit began" in t for t in texts) == 1
    if name.startswith("Net"):
        assert any(f"mf.load cannot read the model, since Net: expected {name} to be" in text for text in texts)


def test_models_that_are_not_changed_are_saved_without_a_word(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(trainer(Checkpoint(tmp_path / "run.npz"), loss=nn.CrossEntropyLoss), 2)
        layers = nn.Sequential(nn.Dense(4, 4, rng=0), nn.Dropout(0.1, rng=0), nn.Dense(4, 2, rng=1))
        plain = trainer(Checkpoint(tmp_path / "run.npz"), loss=nn.CrossEntropyLoss, model=lambda: layers)
        fit(plain, 2)
    with container.opened(tmp_path / "run.npz", "loading") as contents:
        assert "changed" not in contents.meta["model"]
        assert "attributes" not in contents.meta["training"]


def test_files_without_attributes_are_resumed_as_before(tmp_path):
    path = tmp_path / "run.npz"
    fit(trainer(Anneal(), Checkpoint(path)), 2)
    with container.opened(path, "loading") as contents:
        meta, arrays = contents.meta, {name: contents.array(name) for name in contents.places}
    meta = {key: value for key, value in meta.items() if key not in ("format", "version", "sha256")}
    del meta["training"]["attributes"], meta["model"]["changed"]
    meta["model"]["layers"]["$module"]["settings"]["span"] = {"$tuple": [0.0, 1.0]}
    text = meta["training"]["modules"]["model"]
    meta["training"]["modules"]["model"] = text.replace("[0.0,2.0]", "[0.0,1.0]")
    container.write(path, {name: a for name, a in arrays.items() if "changed/" not in name}, meta)
    assert mf.load(path, [Net]).temperature == 5.0
    resumed = trainer(Anneal())
    fit(resumed, 3, resume=path)
    assert resumed.model.temperature == 5.0 * 0.7


@pytest.mark.parametrize("values", [
    {"model": {"a": {"in_features": 3}}, "loss": {}}, {"model": {"": {"a": 3}}, "loss": {}}, {"model": {"x": {"y": 3}}, "loss": {}},
    {"model": {"": {"__class__": 3}}, "loss": {}}, {"model": {}, "loss": 3}, {"model": {}}, {"model": {"": {"training": 1}}, "loss": {}},
])  # fmt: skip
def test_a_damaged_file_sets_no_other_attributes(values, tmp_path):
    path = tmp_path / "run.npz"
    fit(trainer(Checkpoint(path)), 1)
    with container.opened(path, "loading") as contents:
        meta, arrays = contents.meta, {name: contents.array(name) for name in contents.places}
    meta = {key: value for key, value in meta.items() if key not in ("format", "version", "sha256")}
    meta["training"]["attributes"] = values
    container.write(path, arrays, meta)
    other = trainer()
    before = state(other)
    with pytest.raises(CheckpointError, match="resuming from"):
        fit(other, 2, resume=path)
    assert state(other) == before


class Scale(nn.Module):
    def __init__(self):
        self.a, self.drop, self.act = nn.Dense(4, 2, rng=0), nn.Dropout(0.0, rng=0), nn.Identity()
        self.scale, self.offset = 1.0, np.zeros(2, "f4")

    def forward(self, x):
        return self.act(self.drop(self.a(x))) * self.scale + self.offset


class Worsen(Hook):
    """Makes the validation worse after the second epoch."""

    def __init__(self, extra=None):
        self.extra = extra

    def on_epoch_start(self, state):
        if state.epoch > 2:
            state.model.scale, state.model.drop.p, state.loss_function.beta = 2.0, 0.5, 0.1
            state.model.offset[...] = [5, -5]
            if self.extra:
                self.extra(state.model)


@pytest.mark.parametrize("extra", [None, lambda model: setattr(model, "act", nn.Tanh())], ids=["plain", "module"])
def test_early_stopping_restores_the_attributes_of_the_best_epoch(extra):
    stopping = EarlyStopping("val_loss", patience=2)
    made = trainer(Worsen(extra), stopping, model=Scale)
    made.fit((X, Y), epochs=9, rng=0, validation=(X, Y), progress=False)
    assert stopping.best_epoch == 2
    assert made.evaluate((X, Y))["loss"] == stopping.best
    assert (made.model.scale, made.model.drop.p, made.loss.beta) == (1.0, 0.0, 0.0)


def test_a_resumed_early_stopping_restores_the_attributes_of_the_best_epoch(tmp_path):
    path = tmp_path / "run.npz"

    def made(*hooks):
        return trainer(Worsen(), EarlyStopping("val_loss", patience=3), *hooks, model=Scale)

    straight, first, rest = made(), made(Checkpoint(path)), made()
    options = {"rng": 0, "validation": (X, Y), "progress": False}
    whole = straight.fit((X, Y), epochs=9, **options).column("val_loss")
    first.fit((X, Y), epochs=3, **options)
    first.save(path)  # after the best epoch was restored: a run is resumed with what was before
    assert mf.load(path, [Scale]).scale == first.model.scale == 1.0
    assert rest.fit((X, Y), epochs=9, resume=path, **options).column("val_loss") == whole
    assert rest.evaluate((X, Y)) == straight.evaluate((X, Y))
    assert rest.model.scale == straight.model.scale == 1.0
