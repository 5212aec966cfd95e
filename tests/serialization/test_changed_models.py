"""Models that were changed after their constructors: the same function comes back, or they are not saved."""

from __future__ import annotations

import functools
import threading
import types
from collections import deque
from datetime import datetime

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import CheckpointError
from microfw.serialization import attributes, container
from microfw.training import Checkpoint

X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
Y = np.arange(6) % 2


def twice(x):
    return x * 2


class Config:
    def __init__(self, rate, parts=()):
        self.rate, self.parts = rate, list(parts)


class Net(nn.Module):
    """What your own modules have as attributes."""

    def __init__(self, width=4, rng=None):
        self.width, self.rng = width, rng
        self.a, self.act, self.bn = nn.Dense(width, 4, rng=rng), nn.LeakyReLU(0.1), nn.BatchNorm1D(4)
        self.drop, self.b, self.temperature, self.use_bn = nn.Dropout(0.5, rng=rng), nn.Dense(4, 2, rng=rng), 1.0, True
        self.mean, self.seen, self.labels, self.note = np.zeros(width, "f4"), [], {"a": (1, 2.5)}, None
        self.scale = mf.tensor(np.array([1, 2]))
        self.heads = {"x": nn.Dense(4, 2, rng=rng), "y": [nn.Dense(4, 2, rng=rng), 0.5]}
        # compared by their contents
        self.function, self.closure, self.bound = twice, lambda x: x * self.temperature, self.normalized
        self.partial, self.config = functools.partial(np.maximum, -5), Config(0.1, [nn.ReLU(), {"k": 1}])
        self.kind, self.lock, self.queue, self.ufunc = nn.ReLU, threading.Lock(), deque([1]), np.tanh
        self.config.owner = self

    def normalized(self, x):
        return self.bn(x) if self.use_bn else x

    def forward(self, x):
        h = self.closure(self.act(self.a(x - self.mean)))
        h = self.partial(self.drop(self.bound(h))) * self.heads["y"][1] + self.config.rate
        return self.b(self.function(h)) + self.heads["x"](h) + self.heads["y"][0](h)


def calibrate(net):
    net.temperature = 2.5


def switch(net):
    net.use_bn = False


def count(net):
    net.mean = net.mean + np.array([1, np.nan, -0.0, 3], "f4")
    net.seen += [1, -0.0, "größe", None, (True, {3: "x"})]
    net.labels["b"] = np.float32(1.5)


def others(net):
    net.bn.eps, net.drop.p, net.act.slope = 0.1, 0.1, 0.3


def extend(net):
    net.classes_ = ["no", "yes"]


def no_noise(net):
    net.rng = net.drop.rng = None


def noise(net):
    net.rng, net.note = np.random.default_rng(5), np.random.default_rng(6)


def unfrozen(net):
    net.b.requires_grad_(False)
    net.eval()
    net.bn.train()


def state(net):
    return {
        (path, name): repr(value)
        for path, module in net.named_modules()
        for name, value in vars(module).items()
        if name not in ("_named", "training") and " at 0x" not in repr(value) and "locked" not in repr(value)
    }


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
@pytest.mark.parametrize("change", [calibrate, switch, count, others, extend, no_noise, noise, unfrozen, twice])
def test_what_was_changed_after_the_constructor_comes_back(change, suffix, tmp_path):
    path = tmp_path / f"model.{suffix}"
    net = Net(rng=np.random.default_rng(3))
    if change is not twice:  # no change
        change(net)
    mf.save(path, net)
    again = mf.load(path, [Net])
    assert state(again) == state(net)
    assert [p.requires_grad for p in again.parameters()] == [p.requires_grad for p in net.parameters()]
    assert [m.training for _, m in again.named_modules()] == [m.training for _, m in net.named_modules()]
    if change is not no_noise:
        np.testing.assert_array_equal(again(X).numpy(), net(X).numpy())
    mf.save(path, again)  # and again
    assert state(mf.load(path, [Net])) == state(net)


def test_a_file_has_only_what_was_changed(tmp_path):
    path = tmp_path / "model.npz"
    for change, expected in ((None, None), (calibrate, {"": {"temperature": 2.5}}), (others, {"act", "bn", "drop"})):
        net = Net()
        if change:
            change(net)
        mf.save(path, net)
        with container.opened(path, "loading") as contents:
            found = contents.meta["model"].get("changed")
        assert (set(found) if isinstance(expected, set) else found) == expected


class Keep(nn.Module):  # an argument that the constructor changes
    def __init__(self, keep):
        self.keep = 1 - keep

    def forward(self, x):
        return x * self.keep


class Frozen(nn.Module):
    def __init__(self):
        self.a = nn.Dense(4, 2, rng=0).requires_grad_(False).eval()

    def forward(self, x):
        return self.a(x)


class Filled(nn.Module):  # arguments that only choose initial values
    def __init__(self, init=None, rng=None):
        self.init, self.rng = init, rng
        self.a = nn.Dense(4, 2, init=init or "he_normal", rng=rng)

    def forward(self, x):
        return self.a(x)


class Seeded(nn.Module):
    def __init__(self, rng=None):
        self.rng = np.random.default_rng(rng)
        self.order = self.rng.permutation(40)

    def forward(self, x):
        return x * self.order[0]


@pytest.mark.parametrize(
    "model", [Keep(0.3), Frozen().requires_grad_().train(), Seeded(1), Filled(nn.initializers.he_normal, 3)], ids=repr
)
def test_models_that_were_saved_and_could_not_be_loaded(model, tmp_path):
    mf.save(tmp_path / "model.npz", model)
    again = mf.load(tmp_path / "model.npz", [type(model)])
    with mf.no_grad():
        np.testing.assert_array_equal(again(X), model(X))
    assert repr(again) == repr(model)
    assert all(module.training for _, module in again.named_modules())


@pytest.mark.parametrize(("name", "value"), [("eps", 0.1), ("p", 0.4)])
def test_parts_of_a_layer_of_the_library_come_back(name, value, tmp_path):
    layer = nn.TransformerEncoderLayer(4, 2, 6, rng=0).eval()
    part = layer.norm1 if name == "eps" else layer.self_attn.dropout
    setattr(part, name, value)
    mf.save(tmp_path / "layer.npz", layer)
    again = mf.load(tmp_path / "layer.npz")
    assert state(again) == state(layer)
    np.testing.assert_array_equal(again(X[None]).numpy(), layer(X[None]).numpy())


REFUSED = {
    "Net.act to be the module that the constructor makes, LeakyReLU, got Tanh; .*: self.act = act": (
        lambda n: setattr(n, "act", nn.Tanh())
    ),
    "Net.function to be as the constructor makes it, or plain data, got function; make": (
        lambda n: setattr(n, "function", abs_of)
    ),
    "Net.partial to be as": lambda n: setattr(n, "partial", functools.partial(np.maximum, -4)),
    "Net.config to be as": lambda n: setattr(n.config, "rate", 0.2),
    "Net.queue to be as": lambda n: n.queue.append(2),
    "Net.heads to be as": lambda n: n.heads["y"].__setitem__(1, 0.6),
    "Net.kind to be as": lambda n: setattr(n, "kind", nn.Tanh),
    "Net.note to be as the constructor makes it, or plain data, got datetime": (
        lambda n: setattr(n, "note", datetime(2020, 1, 1))
    ),
    "Net.mean to be as": lambda n: setattr(n, "mean", np.array(["a"])),
    "Net.seen to be as": lambda n: n.seen.append(n.seen),
    "Net.temperature to be as the constructor makes it, or plain data, got none": lambda n: delattr(n, "temperature"),
    "scale buffer of kind i, requires_grad=False, got buffer of kind f": (
        lambda n: setattr(n, "scale", mf.tensor(np.array([0.5, 1.0])))
    ),
    "got buffer of kind f, requires_grad=True": lambda n: setattr(n.bn.running_mean, "requires_grad", True),
}


def abs_of(x):
    return abs(x)


@pytest.mark.parametrize("text", REFUSED)
def test_what_a_file_cannot_hold_is_refused_by_name(text, tmp_path):
    net = Net()
    REFUSED[text](net)
    pattern = text if "got buffer" not in text else "settings create again, with "
    with pytest.raises(CheckpointError, match=pattern):
        mf.save(tmp_path / "model.npz", net)
    assert not list(tmp_path.iterdir())


class Pooled(Keep):
    def __getstate__(self):
        return {name: value for name, value in super().__getstate__().items() if name != "made"}


def test_what_getstate_leaves_out_is_not_saved(tmp_path):
    model = Pooled(0.5)
    model.made = datetime(2020, 1, 1)
    mf.save(tmp_path / "model.npz", model)
    assert not hasattr(mf.load(tmp_path / "model.npz", [Pooled]), "made")


def test_the_best_model_of_a_checkpoint_has_what_was_changed(tmp_path):
    path, net = tmp_path / "best.npz", Net(rng=0)
    calibrate(net)
    others(net)
    trainer = mf.Trainer(net, nn.CrossEntropyLoss(), optim.SGD(net.parameters(), lr=0.1))
    trainer.hooks = [Checkpoint(path, best="val_loss")]
    trainer.fit((X, Y), epochs=1, rng=0, validation=(X, Y), progress=False)
    np.testing.assert_array_equal(mf.load(path, [Net]).eval()(X).numpy(), net.eval()(X).numpy())


@pytest.mark.parametrize("changed", [
    {"a": {"weight": 1}}, {"": {"a": 1}}, {"": {"training": False}}, {"": {"_named": 1}}, {"none": {"x": 1}}, {"": 3}, 3,
    {"": {"mean": {"$function": "np.sin"}}}, {"": {"mean": {"$module": {"class": "nn.ReLU", "settings": {}}}}},
    {"": {"mean": {"$array": "none"}}}, {"": {"width": 5}}, {"": {"forward": 1}},
])  # fmt: skip
def test_a_file_sets_plain_attributes_only(changed, tmp_path):
    path, net = tmp_path / "model.npz", Net(rng=0)
    mf.save(path, net)
    with container.opened(path, "loading") as contents:
        meta, arrays = contents.meta, {name: contents.array(name) for name in contents.places}
    meta = {key: value for key, value in meta.items() if key not in ("format", "version", "sha256")}
    meta["model"]["changed"] = changed
    container.write(path, arrays, meta)
    with pytest.raises(CheckpointError):
        mf.load(path, [Net])


def test_a_large_object_takes_little_time_when_a_fit_starts():
    for size, seen in ((10, True), (attributes.MAX_AT_START + 1, False)):
        loss = types.SimpleNamespace(kept=set(range(size)))
        before = attributes.others(attributes.parts(loss))
        loss.kept = {*range(1, size), -1}
        assert (attributes.others(attributes.parts(loss)) != before) is seen  # a larger one is compared by its type
