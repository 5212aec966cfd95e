"""Module: names, modes, copies, saving and printing."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
import typing

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.autograd.scope import path
from microfw.errors import ArgumentError, DataError, DTypeError, GraphError, ShapeError
from tests.helpers.errors import raises
from tests.helpers.models import batch, model


def train(net, optimizer, steps=5, loss_fn=None):
    loss_fn = loss_fn or nn.CrossEntropyLoss()
    for k in range(steps):
        x, y = batch(seed=k)
        optimizer.zero_grad()
        loss_fn(net(x), y).backward()
        optimizer.step()
    return [p.data.copy() for p in net.parameters()]


class Tied(nn.Module):
    def __init__(self):
        self.encoder = nn.Dense(4, 4, rng=0)
        self.blocks = [nn.Dense(4, 4, rng=1), {"gate": nn.Dense(4, 4, rng=2), "act": nn.ReLU()}]
        self.decoder = self.encoder
        self.scale = nn.Parameter([1.0, 2.0, 3.0, 4.0])
        self.offset = mf.tensor(np.zeros(4, np.float32))
        self.size = 4

    def forward(self, x):
        x = self.blocks[1]["act"](self.blocks[0](self.encoder(x)))
        return self.decoder(self.blocks[1]["gate"](x)) * self.scale + self.offset


# Names


def test_parameters_come_in_order_of_assignment_and_once():
    tied = Tied()
    assert [name for name, _ in tied.named_parameters()] == [
        "encoder.weight", "encoder.bias", "blocks.0.weight", "blocks.0.bias",
        "blocks.1.gate.weight", "blocks.1.gate.bias", "scale",
    ]  # fmt: skip
    assert [name for name, _ in tied.named_modules()] == ["", "encoder", "blocks.0", "blocks.1.gate", "blocks.1.act"]
    assert len(tied.parameters()) == 7


def test_names_of_nested_models(watcher):
    class Net(nn.Module):
        def __init__(self):
            self.body = nn.Sequential(nn.Dense(6, 4, rng=0), nn.Sequential(nn.ReLU(), nn.Dense(4, 2, rng=0)))

        def forward(self, x):
            return self.body(x) * 2.0

    net = Net()
    assert [name for name, _ in net.named_parameters()][::2] == ["body.0.weight", "body.1.1.weight"]
    with watcher.on():
        net(batch()[0])
        net.body(batch()[0])
    assert [path(n.scope) for n in watcher.recorded] == ["body.0", "body.1.0", "body.1.1", "Net", "0", "1.0", "1.1"]


class Keyed(nn.Module):
    def __init__(self, *keys):
        self.parts = {key: nn.Sequential({"z": nn.Dense(6, 6, rng=k)}) for k, key in enumerate(keys)}
        if "y.z" in self.parts:
            self.parts["y.z"] = nn.Dense(6, 6, rng=0)

    def forward(self, x):
        for part in self.parts.values():
            x = part(x)
        return x


@pytest.mark.parametrize(
    ("keys", "got"),
    [
        (("y.z", "y"), "parts.y.z for 'y.z' in parts and 'z' in parts.y"),
        (("y", "y.z"), "parts.y.z for 'z' in parts.y and 'y.z' in parts"),
        ((1, "1"), "parts.1 for '1' in parts and '1' in parts"),
    ],
)
def test_two_parts_with_one_path_are_refused_wherever_paths_are_used(keys, got, tmp_path):
    net, x = Keyed(*keys), batch()[0]
    for use in (
        net.parameters, net.state_dict, lambda: net.load_state_dict({}), lambda: net(x), lambda: mf.summary(net, x),
        lambda: mf.save(tmp_path / "net.npz", net), lambda: mf.import_torch(net, {}), lambda: mf.Profiler(net).__enter__(),
    ):  # fmt: skip
        with pytest.raises(
            ArgumentError, match=re.escape(f"Keyed: expected a different path for each part, got {got}")
        ):
            use()
    assert not list(tmp_path.iterdir())
    assert len(Keyed("a.b", "a", 1).state_dict()) == 6


def test_names_follow_a_changed_model():
    net = model()
    net(batch()[0])
    net.layers = (nn.Dense(6, 5, rng=0), nn.Tanh(), nn.Dense(5, 5, rng=0), nn.Dense(9, 3, rng=0))
    with pytest.raises(ShapeError, match=r"^3 Dense: expected x of shape \(N, 9\), got \(16, 5\)"):
        net(batch()[0])


def test_reading_a_model_does_not_rename_its_parameters():
    net = model()
    net.parameters()
    repr(net)
    net[2].parameters()
    x, y = batch()
    loss = nn.CrossEntropyLoss()(net(x), y)
    net[2].weight.data = net[2].weight.data * 2
    with pytest.raises(GraphError, match=r"parameter '2\.weight'"):
        loss.backward()


def test_a_layer_called_alone_is_named_by_its_type():
    with pytest.raises(ShapeError) as info:
        nn.Dense(64, 10)(np.zeros((32, 60), np.float32))
    assert str(info.value) == "Dense: expected x of shape (N, 64), got (32, 60); pass that many features"


def test_wrong_feature_count_names_the_layer():
    net = nn.Sequential(nn.Dense(64, 32, rng=0), nn.ReLU(), nn.Dense(30, 10, rng=0))
    with pytest.raises(ShapeError) as info:
        net(np.zeros((32, 60)))
    assert str(info.value) == "0 Dense: expected x of shape (N, 64), got (32, 60); pass that many features"
    with pytest.raises(ShapeError, match=r"^2 Dense: expected x of shape \(N, 30\), got \(32, 32\)"):
        net(np.zeros((32, 64)))
    for bad in (np.zeros(60), np.zeros(()), np.zeros((60, 64))[:, :0], mf.tensor(np.zeros((2, 60), np.float32))):
        with pytest.raises(ShapeError, match=r"^0 Dense: expected x of shape \(N, 64\), got "):
            net(bad)


@pytest.mark.parametrize("bias", [True, False])
def test_a_weight_of_one_feature_is_not_broadcast(bias):
    layer = nn.Dense(1, 3, bias=bias, rng=0)
    with pytest.raises(ShapeError, match=r"expected x of shape \(N, 1\), got \(5, 2\)"):
        layer(np.zeros((5, 2)))
    with pytest.raises(ShapeError):
        layer(np.zeros((5, 0)))


# Modes


def test_train_and_eval_reach_all_modules():
    net = nn.Sequential(nn.Dropout(0.5, rng=0), nn.Sequential(nn.Dropout(0.5, rng=0)), nn.Dense(2, 2, rng=0))
    assert net.training and net.eval() is net
    assert not any(m.training for _, m in net.named_modules())
    x = np.ones((3, 2), np.float32)
    np.testing.assert_array_equal(net(x).data, net(x).data)
    net.train()
    assert all(m.training for _, m in net.named_modules())


def test_requires_grad_():
    net = model()
    assert net[0].requires_grad_(False) is net[0]
    nn.CrossEntropyLoss()(net(batch()[0]), batch()[1]).backward()
    assert net[0].weight.grad is None and net[2].weight.grad is not None
    net.requires_grad_()
    net.zero_grad()
    nn.CrossEntropyLoss()(net(batch()[0]), batch()[1]).backward()
    assert net[0].weight.grad is not None


def test_astype():
    net = model()
    before = [p.data.copy() for p in net.parameters()]
    assert net.astype("float64") is net
    assert all(p.dtype == np.float64 for p in net.parameters())
    assert net(batch()[0]).dtype == np.float64
    for p, a in zip(net.astype(np.float32).parameters(), before, strict=True):
        np.testing.assert_array_equal(p.data, a)
    with pytest.raises(DTypeError, match="expected float32 or float64, got float16"):
        net.astype(np.float16)
    tied = Tied().astype(np.float64)
    assert tied.offset.dtype == np.float64 and not tied.offset.requires_grad


def test_wrapped_forward_methods_keep_names_defaults_and_kinds_of_their_inputs():
    class Affine(nn.Module):
        def forward(self, image, /, factor=3.0, scope=1.0):
            return image * factor + scope

    class Twice(nn.Module):
        def forward(self, image):
            return (lambda: image * 2)()

    affine, twice = Affine(), Twice()
    assert affine(2.0) == affine.forward(2.0) == 7.0
    assert affine(2.0, scope=0.0) == affine.forward(2.0, 3.0, 0.0) == 6.0
    assert twice(image=2.0) == twice.forward(image=2.0) == 4.0
    assert str(inspect.signature(affine.forward)) == "(image, /, factor=3.0, scope=1.0)"
    for call, text in (
        (lambda: affine(image=1.0), "positional-only arguments passed as keyword arguments: 'image'"),
        (lambda: affine(), "missing 1 required positional argument: 'image'"),
        (lambda: twice(x=1.0), "unexpected keyword argument 'x'"),
        (lambda: twice(1.0, 2.0), "takes 2 positional arguments but 3 were given"),
    ):
        with pytest.raises(TypeError, match=text):
            call()


def test_forward_may_be_a_static_method():
    class Doubled(nn.Module):
        @staticmethod
        def forward(x):
            return x * 2.0

    class Inherited(Doubled):
        pass

    for kind in (Doubled, Inherited):
        assert kind()(3.0) == kind().forward(3.0) == kind.forward(3.0) == 6.0


# Saving


def test_state_dict_round_trip():
    a, b = Tied(), Tied()
    for p in a.parameters():
        p.data = p.data + 1
    state = a.state_dict()
    assert list(state) == [name for name, _ in a.named_parameters()] + ["offset"]
    state["scale"][...] = 9
    assert a.scale.data[0] == 2
    b.load_state_dict(a.state_dict())
    x = np.ones((2, 4), np.float32)
    np.testing.assert_array_equal(a(x).data, b(x).data)
    assert b.encoder is b.decoder


def test_loading_keeps_the_optimizers_views():
    net, other = model(0), model(1)
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    net.load_state_dict(other.state_dict())
    fresh = optim.SGD(other.parameters(), lr=0.1)
    for a, b in zip(train(net, optimizer), train(other, fresh), strict=True):
        np.testing.assert_array_equal(a, b)


def test_parameters_of_the_model_itself_are_read_before_the_first_is_written():
    net = nn.Sequential(*(nn.Dense(2, 2, rng=k) for k in range(3)))
    old = net.state_dict()
    optim.SGD(net.parameters(), lr=0.1)
    net.load_state_dict({f"{(k + 1) % 3}.{n}": getattr(net[k], n) for k in range(3) for n in ("weight", "bias")})
    for name, value in net.state_dict().items():
        np.testing.assert_array_equal(value, old[f"{(int(name[0]) - 1) % 3}{name[1:]}"])
    net.load_state_dict({name: old[name].T if "weight" in name else net[int(name[0])].bias.data for name in old})
    np.testing.assert_array_equal(net[1].weight.data, old["1.weight"].T)


class OfPyTorch:
    """A Tensor that needs a gradient, which NumPy cannot read."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad")


BAD_STATES = {
    "ragged": (
        lambda s: s.update({"2.bias": [[1, 2], [3]]}), DTypeError, "2.bias: expected an array of numbers, got setting an array",
    ),
    "of PyTorch": (
        lambda s: s.update({"2.bias": OfPyTorch()}), DTypeError, r"2.bias: .*; for weights of PyTorch call mf.import_torch\(model, state_dict\)",
    ),
    "masked": (
        lambda s: s.update({"2.bias": np.ma.array(np.zeros(3), mask=[0, 1, 0])}), DataError,
        r"2.bias: expected values without a mask, got a masked array; fill it with .filled\(number\)",
    ),
    "missing": (lambda s: s.pop("2.bias"), ArgumentError, r"Sequential.load_state_dict: expected the names .*got missing \['2.bias'\]"),
    "unknown": (lambda s: s.update(extra=np.zeros(1)), ArgumentError, r"got unknown \['extra'\]"),
    "shape": (
        lambda s: s.update({"2.bias": np.zeros(4)}), ShapeError, r"load_state_dict: 2.bias: expected shape \(3,\), got \(4,\)",
    ),
    "complex": (lambda s: s.update({"2.bias": np.zeros(3, complex)}), DTypeError, "2.bias: expected dtype float32, got complex128"),
    "text": (lambda s: s.update({"2.bias": np.array(["a", "b", "c"])}), DTypeError, "2.bias: expected dtype float32, got <U1"),
    "too large": (
        lambda s: s.update({"2.bias": np.array([1, np.inf, 1e300])}), DataError,
        r"2.bias: expected finite values of float32, got 1e\+300; float32 cannot hold it; cast the model with .astype\('float64'\)",
    ),
    "objects": (lambda s: s.update({"2.bias": np.array([None] * 3)}), DTypeError, "2.bias: expected dtype float32, got object"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_STATES)
def test_loading_is_all_or_nothing(name):
    spoil, error, text = BAD_STATES[name]
    net, state = model(0), model(1).state_dict()
    before = net.state_dict()
    spoil(state)
    with pytest.raises(error, match=text):
        net.load_state_dict(state)
    for key, value in net.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def test_a_state_is_a_mapping():
    text = "Dense.load_state_dict: expected a dict of values by name, got NoneType; pass what state_dict() returned"
    with raises(ArgumentError, text):
        nn.Dense(2, 2).load_state_dict(None)
    with raises(ArgumentError, "Dense.load_state_dict: expected strict to be True or False, got 'no'"):
        nn.Dense(2, 2).load_state_dict({}, strict="no")


def test_the_content_of_a_saved_file_is_no_state(tmp_path):
    layer = nn.Dense(2, 2, rng=0)
    mf.save(tmp_path / "layer.npz", layer)
    with (
        np.load(tmp_path / "layer.npz") as content,
        pytest.raises(ArgumentError, match=r"read it with mf\.load\(path\)$"),
    ):
        layer.load_state_dict(content)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copied_model_and_optimizer_continue_bitwise(duplicate):
    net = model()
    optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    train(net, optimizer)
    other, other_optimizer = duplicate((net, optimizer))
    for p in other.parameters():
        assert np.shares_memory(p.data, other_optimizer.flat.values)
        assert not np.shares_memory(p.data, optimizer.flat.values)
    expected = train(net, optimizer)
    for a, b in zip(expected, train(other, other_optimizer), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_a_copied_model_alone_is_free(duplicate):
    net = model()
    optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    train(net, optimizer)
    other = duplicate(net)
    before = [p.data.copy() for p in other.parameters()]
    train(net, optimizer)
    for p, a in zip(other.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.data, a)
    train(other, optim.SGD(other.parameters(), lr=0.1))
    optimizer.step()


def test_copies_keep_sharing_freezing_and_mode():
    tied = Tied().eval()
    tied.scale.requires_grad = False
    other = pickle.loads(pickle.dumps(tied))
    assert other.encoder is other.decoder and not other.training and not other.scale.requires_grad
    assert [n for n, _ in other.named_parameters()] == [n for n, _ in tied.named_parameters()]
    net = nn.Sequential(nn.Dense(2, 2, rng=0), nn.Dense(2, 2, rng=0))
    net[1].weight = net[0].weight
    assert len(copy.deepcopy(net).parameters()) == 3


# Printing


def test_repr_is_a_tree():
    net = nn.Sequential(nn.Dense(64, 32, rng=0), nn.Sequential(nn.ReLU(), nn.Dense(32, 10, rng=0)))
    net[0].requires_grad_(False)
    rows = repr(net).splitlines()
    assert [row[: row.index(")") + 1] for row in rows] == [
        "Sequential()", "  0: Dense(64 -> 32)", "  1: Sequential()", "    0: ReLU()", "    1: Dense(32 -> 10)",
    ]  # fmt: skip
    assert rows[0].endswith("2,410 parameters, 2,080 frozen")
    assert rows[1].endswith("weight (64, 32), bias (32,)  2,080 parameters, 2,080 frozen")
    assert rows[4].endswith("weight (32, 10), bias (10,)  330 parameters")
    assert all(row == row.rstrip() for row in rows)


def test_repr_of_a_module_of_ones_own():
    text = repr(Tied())
    assert "encoder: Dense(4 -> 4)" in text and "blocks.1.gate: Dense(4 -> 4)" in text
    assert text.splitlines()[0].startswith("Tied()") and "scale (4,)" in text.splitlines()[0]
    assert text.splitlines()[0].endswith("64 parameters")


def test_a_layer_that_is_there_twice_is_shown_twice():
    shared = nn.Dense(2, 2, rng=0)
    rows = repr(nn.Sequential(shared, nn.ReLU(), shared)).splitlines()
    assert [row.strip().partition("  ")[0] for row in rows] == [
        "Sequential()",
        "0: Dense(2 -> 2)",
        "1: ReLU()",
        "2: Dense, the same as 0",
    ]
    assert rows[0].endswith(" 6 parameters")

    class Listed(nn.Module):
        def __init__(self):
            self.parts = [nn.Tanh(), nn.Sequential(nn.ReLU())]
            self.again = self.parts[1]

    assert repr(Listed()).splitlines() == [
        "Listed()",
        "  parts.0: Tanh()",
        "  parts.1: Sequential()",
        "    0: ReLU()",
        "  again: Sequential, the same as parts.1",
    ]


def test_a_parameter_is_replaced_by_one_only():
    layer = nn.Dense(2, 3, rng=0)
    for value in (np.zeros((2, 3), np.float32), mf.tensor(np.zeros((2, 3)))):
        got = type(value).__name__
        with pytest.raises(
            DTypeError, match=rf"^Dense\.weight: expected a Parameter in the place of one, got {got}; wrap"
        ):
            layer.weight = value
    layer.weight = nn.Parameter(np.zeros((2, 3)))
    layer.bias = None
    assert [name for name, _ in layer.named_parameters()] == ["weight"]


def test_editors_know_what_a_call_returns():
    assert typing.get_type_hints(nn.Module.__call__)["return"] is mf.Tensor
