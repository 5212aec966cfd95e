"""Layers over the rows of `tests/cases/layers.py`, and Module: names, copies, saving, printing, errors."""

from __future__ import annotations

import copy
import inspect
import math
import pickle

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.autograd.scope import path
from microfw.errors import ArgumentError, DTypeError, GraphError, ShapeError
from microfw.nn import initializers
from tests.cases.layers import LAYERS
from tests.cases.ops import floats

layers = pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)


def model(rng=0):
    rng = np.random.default_rng(rng)
    return nn.Sequential(nn.Dense(6, 8, rng=rng), nn.ReLU(), nn.Dense(8, 3, rng=rng))


def batch(seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((16, 6)).astype(np.float32), rng.integers(0, 3, 16)


def train(net, optimizer, steps=5, loss_fn=None):
    loss_fn = loss_fn or nn.CrossEntropyLoss()
    for k in range(steps):
        x, y = batch(k)
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


# Rows


def test_each_layer_has_a_row():
    exported = {
        value
        for name in nn.__all__
        if inspect.isclass(value := getattr(nn, name))
        and issubclass(value, nn.Module)
        and not issubclass(value, nn.Loss)
    }
    assert {case.kind for case in LAYERS} == exported - {nn.Module}


@layers
def test_layers_pass_gradcheck_by_input_and_by_parameter(case):
    layer = case.make().astype(np.float64)
    for x in case.inputs():
        assert mf.gradcheck(lambda t: np.square(layer(t)), x) <= 1e-6
        parameters = layer.parameters()
        if not parameters:
            continue
        gradient = mf.grad(lambda m: np.sum(np.square(m(mf.tensor(x)))))(layer)  # noqa: B023
        before = [p.data.copy() for p in parameters]
        way = [floats(p.shape, seed=k) for k, p in enumerate(parameters)]

        def value(h):
            for p, a, d in zip(parameters, before, way, strict=True):  # noqa: B023
                p.data = a + h * d
            return np.sum(np.square(layer(x).data))  # noqa: B023

        slope = (8 * (value(1e-5) - value(-1e-5)) - (value(2e-5) - value(-2e-5))) / 12e-5
        value(0)
        got = sum(np.sum(g * d) for g, d in zip(gradient.values(), way, strict=True))
        assert abs(got - slope) <= 1e-6 * max(1, abs(slope))


@layers
def test_layers_differentiate_again(case):
    layer = case.make().astype(np.float64)
    x = case.inputs()[0]
    assert mf.gradcheck(mf.grad(lambda t: np.sum(np.square(layer(t)))), x) <= 1e-6


@layers
def test_layers_keep_float32(case):
    layer = case.make()
    for x in case.inputs():
        t = mf.tensor(x.astype(np.float32), requires_grad=True)
        y = layer(t)
        assert y.dtype == np.float32
        y.sum().backward()
        assert t.grad.dtype == np.float32
        assert all(p.grad.dtype == np.float32 for p in layer.parameters())


@layers
def test_layers_take_plain_arrays(case):
    layer = case.make()
    x = case.inputs()[0].astype(np.float32)
    with mf.no_grad():
        np.testing.assert_array_equal(np.asarray(layer(x)), layer(mf.tensor(x)).data)


@layers
def test_layers_print_their_settings(case):
    assert repr(case.make()).splitlines()[0].startswith(case.title)


@layers
def test_layers_are_copied_and_pickled(case):
    layer = case.make()
    x = case.inputs()[0].astype(np.float32)
    with mf.no_grad():
        expected = np.asarray(layer(x))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        with mf.no_grad():
            np.testing.assert_array_equal(np.asarray(other(x)), expected)
        assert repr(other) == repr(layer)
        assert not {id(p) for p in other.parameters()} & {id(p) for p in layer.parameters()}


# What they compute


def test_values_of_layers():
    x = floats((3, 4), -3, 3)
    t = mf.tensor(x)
    layer = nn.Dense(4, 2, rng=0).astype(np.float64)
    np.testing.assert_allclose(layer(t).data, x @ layer.weight.data + layer.bias.data)
    np.testing.assert_array_equal(nn.LeakyReLU()(t).data, np.where(x > 0, x, 0.01 * x))
    phi = np.vectorize(lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2))))
    np.testing.assert_allclose(nn.GELU()(t).data, phi(x), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(nn.GELU("tanh")(t).data, phi(x), atol=2e-3)
    np.testing.assert_allclose(nn.Softmax()(t).data.sum(1), 1)
    np.testing.assert_allclose(np.exp(nn.LogSoftmax()(t).data), nn.Softmax()(t).data)
    assert nn.Flatten()(mf.tensor(np.zeros((2, 3, 4)))).shape == (2, 12)


def test_activations_stay_finite():
    x = mf.tensor(np.array([1e4, -1e4, 1e30, -1e30], np.float32), requires_grad=True)
    for layer in (nn.Sigmoid(), nn.Tanh(), nn.Softplus(), nn.Softmax(), nn.LogSoftmax(), nn.ReLU()):
        x.zero_grad()
        y = layer(x)
        y.backward(np.ones(4, np.float32))
        assert np.isfinite(y.data).all() and np.isfinite(x.grad).all(), layer


def test_leaky_relu_at_zero():
    assert mf.grad(lambda x: nn.LeakyReLU(0.3)(x))(0.0) == 0.3


def test_dropout():
    x = mf.tensor(np.ones((200, 200), np.float32), requires_grad=True)
    layer = nn.Dropout(0.25, rng=0)
    y = layer(x)
    assert y.dtype == np.float32
    kept = y.data != 0
    assert abs(kept.mean() - 0.75) < 0.01
    np.testing.assert_allclose(y.data[kept], 1 / 0.75, rtol=1e-6)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, y.data)
    np.testing.assert_array_equal(nn.Dropout(0.25, rng=0)(x).data, y.data)
    assert not np.array_equal(layer(x).data, y.data)
    assert layer.eval()(x) is x and nn.Dropout(0.0)(x) is x
    for p in (-0.1, 1.0, float("nan")):
        with pytest.raises(ArgumentError, match="^Dropout: expected p from 0 to below 1, got"):
            nn.Dropout(p)


def test_dropout_continues_its_noise_when_pickled():
    layer = nn.Dropout(0.5, rng=0)
    x = mf.tensor(np.ones(50, np.float32))
    layer(x)
    other = pickle.loads(pickle.dumps(layer))
    np.testing.assert_array_equal(other(x).data, layer(x).data)


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


# Inputs of other types


def test_float64_arrays_and_lists_are_cast_at_the_first_layer():
    net = model()
    x, _ = batch()
    expected = net(x).data
    np.testing.assert_array_equal(net(x.astype(np.float64)).data, expected)
    np.testing.assert_array_equal(net(x.tolist()).data, expected)
    assert net(x.astype(np.float64)).dtype == np.float32
    assert net(np.arange(12).reshape(2, 6)).dtype == np.float32


def test_frames_go_in_as_arrays_do():
    pandas = pytest.importorskip("pandas")
    net, (x, _) = model(), batch()
    frame = pandas.DataFrame(x.astype(float), columns=list("abcdef"))
    np.testing.assert_array_equal(net(frame).data, net(x).data)
    frame["c"] = "text"
    with pytest.raises(
        DTypeError, match=r"^0 Dense: expected x to hold numbers, got DataFrame \(.*encode text columns first"
    ):
        net(frame)


def test_tensors_of_another_dtype_are_not_cast_silently():
    for dtype, fix in ((np.float64, r", or the model with model\.astype\(np\.float64\)$"), (np.int64, "$")):
        x = mf.tensor(batch()[0].astype(dtype))
        expected = rf"^0 Dense: expected x of float32, got {np.dtype(dtype)}; cast it with \.astype\(np\.float32\){fix}"
        with pytest.raises(DTypeError, match=expected):
            model()(x)
    with pytest.raises(DTypeError, match=r"^0 Conv2D: expected x of float32, got float64; cast it with"):
        nn.Sequential(nn.Conv2D(1, 2, 3, rng=0))(mf.tensor(np.ones((1, 1, 4, 4))))


def test_a_layer_of_mixed_dtypes_says_so():
    layer = nn.Dense(2, 3, rng=0)
    layer.bias = nn.Parameter(np.zeros(3), np.float64)
    with pytest.raises(DTypeError, match="^Dense: linear: expected Tensors of one dtype, got float32 and float64"):
        layer(np.ones((4, 2)))


def test_what_is_no_array_of_real_numbers():
    pair = nn.Sequential(nn.RNN(3, 2, rng=0), nn.Dense(2, 1, rng=0))
    with pytest.raises(
        DTypeError, match=r"^1 Dense: expected x to be one Tensor or array, got a tuple of Tensors; pick"
    ):
        pair(np.ones((2, 4, 3)))
    for layer in (nn.Dense(4, 3, rng=0), nn.Flatten(), nn.GELU(), nn.LeakyReLU(), nn.ELU()):
        for bad in ({}, [["a", "b"]], [[1.0, 2j]]):
            with pytest.raises((TypeError, ValueError), match=f"^0 {type(layer).__name__}: expected x "):
                nn.Sequential(layer)(bad)
    with pytest.raises(DTypeError, match="^Dense: expected x to hold numbers, got complex128; encode text, and split"):
        nn.Dense(4, 3, rng=0)(np.ones((2, 4), complex))


def test_lists_are_taken_by_layers_without_parameters():
    values = [[-1.0, 2.0], [3.0, -4.0]]
    assert nn.Flatten()(values).shape == (2, 2)
    for layer in (nn.GELU(), nn.LeakyReLU(), nn.ELU()):
        assert layer(values).dtype == np.float32
        np.testing.assert_allclose(layer(values).data, layer(np.array(values, np.float32)).data, rtol=1e-6)
    with pytest.raises(ShapeError, match=r"^Flatten: expected x of shape \(N, \.\.\.\), got \(\); give it an axis"):
        nn.Flatten()(3.0)


def test_an_initializer_returns_the_shape_it_was_asked_for():
    def wrong(shape, rng):
        return np.zeros(shape[:1])

    for name, make in (("Dense", nn.Dense), ("Embedding", nn.Embedding)):
        with pytest.raises(ShapeError, match=rf"^{name}: expected init to return shape \(2, 3\), got \(2,\)$"):
            make(2, 3, rng=0, init=wrong)
    with pytest.raises(ShapeError, match=r"^Conv2D: expected init to return shape \(3, 2, 1, 1\), got \(3,\)$"):
        nn.Conv2D(2, 3, 1, rng=0, init=wrong)


def test_sequential_slices_and_explains():
    net = nn.Sequential(nn.Dense(2, 3, rng=0), nn.ReLU(), nn.Dense(3, 1, rng=1))
    assert isinstance(net[:2], nn.Sequential)
    assert [p is q for p, q in zip(net[:2].parameters(), net.parameters()[:2], strict=True)] == [True, True]
    for layer, got in (
        (nn.ReLU, r"the class ReLU; make one: ReLU\(\)"),
        ([nn.ReLU()], r"list; write Sequential\(\*layers\)"),
        (np.tanh, "ufunc; wrap a function in nn.Lambda"),
        (3, "int"),
    ):
        with pytest.raises(ArgumentError, match=rf"^Sequential: expected layer 0 to be a Module, got {got}$"):
            nn.Sequential(layer)


def test_bad_settings():
    for sizes in ((0, 3), (3, -1), (2.5, 3), ("4", 3)):
        with pytest.raises(ArgumentError, match="^Dense: expected (in|out)_features to be a positive integer, got"):
            nn.Dense(*sizes)
    with pytest.raises(ArgumentError, match="^Sequential: expected layer 1 to be a Module, got function"):
        nn.Sequential(nn.ReLU(), batch)
    with pytest.raises(ArgumentError, match="^GELU: expected approximate to be 'none' or 'tanh', got 'fast'"):
        nn.GELU("fast")
    with pytest.raises(ArgumentError, match="^LeakyReLU: expected a finite slope, got nan"):
        nn.LeakyReLU(float("nan"))
    with pytest.raises(GraphError, match="^Module: expected a forward method, got none; define forward"):
        nn.Module()(1.0)


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


BAD_STATES = {
    "missing": (lambda s: s.pop("2.bias"), ArgumentError, r"Sequential.load_state_dict: expected the names .*got missing \['2.bias'\]"),
    "unknown": (lambda s: s.update(extra=np.zeros(1)), ArgumentError, r"got unknown \['extra'\]"),
    "shape": (
        lambda s: s.update({"2.bias": np.zeros(4)}), ShapeError, r"load_state_dict: 2.bias: expected shape \(3,\), got \(4,\)",
    ),
    "complex": (lambda s: s.update({"2.bias": np.zeros(3, complex)}), DTypeError, "2.bias: expected dtype float32, got complex128"),
    "text": (lambda s: s.update({"2.bias": np.array(["a", "b", "c"])}), DTypeError, "2.bias: expected dtype float32, got <U1"),
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


# Initializers

INITS = {
    "he_normal": lambda i, o: 2 / i,
    "he_uniform": lambda i, o: 2 / i,
    "glorot_normal": lambda i, o: 2 / (i + o),
    "glorot_uniform": lambda i, o: 2 / (i + o),
}


@pytest.mark.parametrize("name", INITS)
def test_initializers(name):
    init = getattr(initializers, name)
    w = init((300, 200), 0)
    assert w.dtype == np.float32 and w.shape == (300, 200)
    np.testing.assert_allclose(w.var(), INITS[name](300, 200), rtol=0.02)
    assert abs(w.mean()) < 0.01
    np.testing.assert_array_equal(w, init((300, 200), 0))
    assert not np.array_equal(w, init((300, 200), 1))
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(w, init((300, 200), rng))
    assert not np.array_equal(w, init((300, 200), rng))
    if "uniform" in name:
        bound = math.sqrt(3 * INITS[name](300, 200))
        assert np.abs(w).max() <= bound * (1 + 1e-6)
    window = init((40, 30, 3, 3), 0)
    np.testing.assert_allclose(window.var(), INITS[name](270, 360), rtol=0.05)
    for shape in ((), (3,), (0, 3), (3, 0)):
        assert init(shape, 0).shape == shape


def test_every_initializer_is_tested():
    public = {
        n
        for n, f in vars(initializers).items()
        if inspect.isfunction(f) and f.__module__ == initializers.__name__ and not n.startswith("_")
    }
    assert public == {*INITS, "fans", "normal", "orthogonal", "zeros", "uniform", "constant", "blank", "initial"}


def test_constant_is_the_same_everywhere():
    values = initializers.constant((2, 3), 0.25)
    assert values.dtype == np.float32 and values.tolist() == [[0.25] * 3] * 2


@pytest.mark.parametrize("name", [*INITS, "normal", "orthogonal", "zeros"])
def test_blank_layers_are_zero_and_no_larger_than_a_limit(name):
    init = getattr(initializers, name)
    with initializers.blank(12):
        assert not init((2, 3), 0).any() and not init((3, 2), 0).any()
        with pytest.raises(ArgumentError, match="blank: expected shapes that fit the limit, got .1, 1."):
            init((1, 1), 0)
    assert init((200, 3), 0).any() == (name != "zeros")


def test_layers_take_their_rng_and_init():
    np.testing.assert_array_equal(nn.Dense(3, 2, rng=0).weight.data, nn.Dense(3, 2, rng=0).weight.data)
    assert not np.array_equal(nn.Dense(3, 2).weight.data, nn.Dense(3, 2).weight.data)
    layer = nn.Dense(30, 20, rng=0, init=initializers.he_normal)
    np.testing.assert_array_equal(layer.weight.data, initializers.he_normal((30, 20), np.random.default_rng(0)))
    bound = math.sqrt(6 / 50)
    assert 0.5 * bound < np.abs(layer.bias.data).max() <= bound
    assert not initializers.zeros((3,)).any()
    drawn = initializers.uniform((1000,), 0, 0.5)
    assert drawn.dtype == np.float32 and 0.49 < np.abs(drawn).max() <= 0.5
    rng = np.random.default_rng(0)
    assert not np.array_equal(nn.Dense(3, 3, rng=rng).weight.data, nn.Dense(3, 3, rng=rng).weight.data)


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
