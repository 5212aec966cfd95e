"""A replayed step gives the same bits as the eager step, for every layer, loss and optimizer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import microfw as mf
from microfw import nn, optim
from tests.cases.layers import LAYERS
from tests.helpers.replay import Twins, assert_same, drawn, labels, mlp, optimizer_rows, pair, race, values


class Scale(nn.Module):
    """Has a parameter, so that layers without any can be trained through."""

    def __init__(self, features):
        self.factor = nn.Parameter(np.ones(features))

    def forward(self, x):
        return x * self.factor


def squares(y):
    return np.mean(np.square(y))


def noisy(x, steps, seed=0):
    rng = np.random.default_rng(seed)
    return [((x + 0.1 * rng.normal(size=x.shape)).astype(np.float32),) for _ in range(steps)]


def layer_rows():
    for case in LAYERS:
        x = next((x for x in case.inputs() if x.size and x.ndim > 1), None)
        if x is not None:
            for training in (True, False):
                yield pytest.param(case, x, training, id=f"{case.name} {'train' if training else 'eval'}")


def train_layer(case, x, training, steps):
    def make():
        layer = case.make().astype(np.float32).train(training)
        return nn.Sequential(Scale(x.shape[-1]), layer)

    race(make, squares, noisy(x, steps), {"lr": 1e-4, "momentum": 0.9})


@pytest.mark.parametrize(("case", "x", "training"), list(layer_rows()))
def test_replayed_layers_give_the_same_bits(case, x, training):
    train_layer(case, x, training, 6)


@pytest.mark.slow
@pytest.mark.parametrize(("case", "x", "training"), list(layer_rows()))
def test_layers_for_many_steps(case, x, training):
    train_layer(case, x, training, 400)


def floats(rng, rows):
    return rng.normal(size=(rows, 4)).astype(np.float32)


def signs(rng, rows):
    return (2 * rng.integers(0, 2, (rows, 4)) - 1).astype(np.float32)


def shares(rng, rows):
    return rng.random((rows, 4)).astype(np.float32)


def bits(rng, rows):
    return rng.integers(0, 2, (rows, 4))


def distributions(rng, rows):
    p = rng.random((rows, 4))
    return (p / p.sum(1, keepdims=True)).astype(np.float32)


def counts(rng, rows):
    return rng.integers(0, 5, (rows, 4)).astype(np.float32)


LOSSES = {
    "cross-entropy": (nn.CrossEntropyLoss, labels),
    "weighted": (lambda: nn.CrossEntropyLoss([1, 2, 0, 0.5]), labels),
    "smoothed": (lambda: nn.CrossEntropyLoss(label_smoothing=0.1), labels),
    "ignoring": (lambda: nn.CrossEntropyLoss(ignore_index=2), labels),
    "summed": (lambda: nn.CrossEntropyLoss(reduction="sum"), labels),
    "nll": (nn.NLLLoss, labels),
    "nll weighted": (lambda: nn.NLLLoss([1, 2, 0, 0.5], ignore_index=1), labels),
    "mse": (nn.MSELoss, floats),
    "mse of integers": (nn.MSELoss, bits),
    "l1": (nn.L1Loss, floats),
    "huber": (nn.HuberLoss, floats),
    "hinge": (nn.HingeLoss, signs),
    "bce": (nn.BCEWithLogitsLoss, shares),
    "bce weighted": (lambda: nn.BCEWithLogitsLoss([1, 2, 3, 4], 2.0), bits),
    "kl": (nn.KLDivLoss, distributions),
    "kl of logarithms": (lambda: nn.KLDivLoss(log_target=True), lambda rng, n: np.log(distributions(rng, n))),
    "poisson": (lambda: nn.PoissonNLLLoss(full=True), counts),
}


@pytest.mark.parametrize("name", LOSSES)
def test_replayed_losses_give_the_same_bits(name):
    loss, target = LOSSES[name]
    last = [nn.LogSoftmax()] if name.startswith(("nll", "kl")) else []
    race(lambda: mlp(*last), loss(), drawn(8, target))


@pytest.mark.parametrize(("kind", "options"), list(optimizer_rows()))
def test_replayed_optimizers_give_the_same_bits(kind, options):
    race(mlp, nn.CrossEntropyLoss(), drawn(12, labels), options | {"lr": 0.01}, kind)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "options"), list(optimizer_rows()))
def test_optimizers_for_a_thousand_steps(kind, options):
    race(mlp, nn.CrossEntropyLoss(), drawn(1000, labels), options | {"lr": 0.01}, kind)


def random_layer(draw, width):
    kind = draw(st.sampled_from(["dense", "relu", "tanh", "norm", "batch", "dropout", "residual", "softplus", "prelu"]))
    seed = draw(st.integers(0, 9))
    if kind == "dense":
        after = draw(st.integers(1, 6))
        bias = draw(st.booleans())
        return lambda: nn.Dense(width, after, bias=bias, rng=seed), after
    if kind == "residual":
        inner, _ = random_layer(draw, width)
        return lambda: nn.Residual(nn.Sequential(inner(), nn.Dense(inner_width(inner, width), width, rng=seed))), width
    made = {
        "relu": nn.ReLU,
        "tanh": nn.Tanh,
        "norm": lambda: nn.LayerNorm(width),
        "batch": lambda: nn.BatchNorm1D(width),
        "dropout": lambda: nn.Dropout(0.4, rng=seed),
        "softplus": nn.Softplus,
        "prelu": nn.PReLU,
    }[kind]
    return made, width


def inner_width(make, width):
    return np.shape(make().eval()(np.zeros((2, width), np.float32)))[1]


@st.composite
def experiments(draw):
    width, layers = 5, []
    for _ in range(draw(st.integers(1, 5))):
        make, width = random_layer(draw, width)
        layers.append(make)
    toggles = draw(st.lists(st.sampled_from(["", "", "eval", "train", "lr", "rows", "freeze", "thaw"]), max_size=10))
    return layers, width, toggles, draw(st.integers(0, 99))


def one_model(layers, width):
    return nn.Sequential(nn.Dense(5, 5, rng=9), *(make() for make in layers), nn.Dense(width, 4, rng=8))


def run_toggles(layers, width, toggles, seed):
    (eager, compiled), (one, two) = pair(lambda: one_model(layers, width))
    loss = nn.CrossEntropyLoss()
    step = mf.compile(lambda X, y: loss(compiled(X), y), two)
    rng, rows = np.random.default_rng(seed), 6
    for toggle in [*["", "", ""], *toggles, *["", "", ""]]:
        rows = rng.integers(2, 7) if toggle == "rows" else rows
        for model, optimizer in ((eager, one), (compiled, two)):
            if toggle in ("eval", "train"):
                getattr(model, toggle)()
            elif toggle == "lr":
                optimizer.lr *= 0.5
            elif toggle in ("freeze", "thaw"):
                model.layers[0].requires_grad_(toggle == "thaw")
        X, y = rng.normal(size=(rows, 5)).astype(np.float32), rng.integers(0, 4, rows)
        one.zero_grad()
        expected = loss(eager(mf.Tensor(X)), mf.Tensor(y))
        expected.backward()
        one.step()
        assert_same([expected.data], [step(X, y).data])
        assert_same(values(eager), values(compiled))
        assert [p.grad is None for p in eager.parameters()] == [p.grad is None for p in compiled.parameters()]


@settings(max_examples=12, deadline=None)
@given(experiments())
def test_random_models_with_random_toggles(experiment):
    run_toggles(*experiment)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(experiments())
def test_many_random_models_with_random_toggles(experiment):
    run_toggles(*experiment)


def test_an_op_whose_dtype_depends_on_the_data_is_not_rounded():
    """Captured where it gave an integer, it then gives a fraction."""
    name = "whole_or_not"
    counted = mf.op(lambda x: (x > 0).sum() if x.min() < 0 else x.sum(), name=name)
    w = mf.tensor(np.array([-0.02, 0.45]), requires_grad=True)
    step = mf.compile(lambda X, y: w.sum() + counted(w * 1.0), optim.SGD([w], lr=1e-9))
    X, y = np.ones((2, 2)), np.ones(2)
    for _ in range(4):
        step(X, y)
    w.data = np.array([0.3, 0.45])
    assert step(X, y).item() == pytest.approx(1.5)


class Scaled(nn.Module):
    def __init__(self):
        self.scale = nn.Parameter(np.ones(4, np.float32))


def positives(x):
    return np.sum(x[x > 0])


def summed(x):
    y = x * 1
    y[x > 2] = x[x > 2].sum()
    return np.sum(y)


def sorted_sum(x):
    y = np.zeros_like(x) * x
    y[np.argsort(x)] = x[np.argmax(x, keepdims=True)]
    return y[np.argmin(x, keepdims=True)].sum() + np.sum(y)


@pytest.mark.parametrize(("value", "traced"), [(positives, False), (summed, False), (sorted_sum, True)])
def test_entries_at_indices_that_depend_on_the_data(value, traced):
    """As many as a mask has may be another number at the next step, which NumPy would repeat."""
    op = mf.op(vjp=lambda g, x: g * np.ones_like(x))(value)
    model = Scaled()
    optimizer = optim.SGD(model.parameters(), lr=1e-3)
    step = mf.compile(lambda x: op(model.scale * x), optimizer)
    for x in ([3, 4, 5, -1], [4, 3, 5, -1], [5, 3, 4, -1], [5, -1, -1, -1], [-1, -1, -1, -1], [1, 2, 3, 4]):
        x = np.array(x, np.float32)
        expected = value(model.scale.data * x)
        assert step(x).item() == expected
    assert ("as one call" in step.explain()) is not traced and "replayed" in step.explain()


def found(y):
    return [v for v in np.asarray(y).ravel() if v >= 0]


@pytest.mark.parametrize(
    "count",
    [
        lambda y, op: len(np.flatnonzero(y >= 0)),
        lambda y, op: np.nonzero(y >= 0)[0].size,
        lambda y, op: np.argwhere(y >= 0).shape[0],
        lambda y, op: np.where(y >= 0)[0].nbytes,
        lambda y, op: len(y[np.nonzero(y >= 0)]),
        lambda y, op: len(op(y)),
    ],
    ids=["flatnonzero", "nonzero", "argwhere", "where", "index", "op"],
)
def test_how_many_entries_are_found_is_compared(count):
    op = mf.op(lambda x: np.array(found(x)), name="found")
    model = mlp()
    step = mf.compile(lambda X, y: np.mean(model(X)) * count(y, op), optim.SGD(model.parameters(), lr=0.1))
    X = np.ones((3, 5), np.float32)
    for y in ([0, 1, 2, -1], [1, 1, 1, -1], [2, 0, 0, -1], [2, -1, -1, -1], [0, 1, 2, 3], [0, 1, -1, 3]):
        y = mf.tensor(y)
        expected = (np.mean(model(X)) * count(y, op)).item()
        assert step(X, y).item() == expected
    assert step.replays, step.explain()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64, np.int64])
def test_labels_of_any_integer_type_are_replayed_call_by_call(dtype):
    model = nn.Dense(6, 3, rng=0)
    loss = nn.CrossEntropyLoss()
    step = mf.compile(lambda X, y: loss(model(X), y), optim.SGD(model.parameters(), lr=0.1))
    rng = np.random.default_rng(0)
    for _ in range(4):
        X, y = rng.random((300, 6), np.float32), rng.integers(0, 3, 300).astype(dtype)
        expected = loss(model(X), y.astype(np.int64)).item()
        assert step(X, y).item() == expected
    assert step.explain() == f"float32 (300, 6), {np.dtype(dtype)} (300,): replayed"
    for wrong in (3, np.iinfo(dtype).max):
        y = np.array([0, 1, wrong] * 100, dtype)
        with pytest.raises(mf.errors.DataError, match=f"expected labels from 0 to 2, got {wrong} at row 2"):
            step(X, y)


@pytest.mark.parametrize("layout", [np.asfortranarray, lambda x: x[::-1], lambda x: x[:, ::2]])
def test_arrays_of_any_memory_layout_give_the_bits_of_the_eager_step(layout):
    rng = np.random.default_rng(0)
    X, y = layout(rng.normal(size=(32, 14)).astype(np.float32)), rng.integers(0, 3, 32)

    def losses(compiled):
        n, loss_fn = X.shape[1], nn.CrossEntropyLoss()
        model = nn.Sequential(nn.BatchNorm1D(n), nn.Dense(n, 5, rng=0), nn.ReLU(), nn.Dense(5, 3, rng=1))
        optimizer = optim.Adam(model.parameters(), 1e-2)
        step, made = mf.compile(lambda a, b: loss_fn(model(a), b), optimizer), []
        for _ in range(50):
            if compiled:
                loss = step(X, y)
            else:
                optimizer.zero_grad()
                loss = loss_fn(model(X), y)
                loss.backward()
                optimizer.step()
            made.append(loss.item())
        return made

    assert losses(True) == losses(False)


P = np.random.default_rng(5).dirichlet(np.ones(4), 12).astype(np.float32)
SETTINGS = {"smoothing": 0.1, "weight": np.ones(4, np.float32)}


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (lambda z, y: nn.CrossEntropyLoss(label_smoothing=SETTINGS["smoothing"])(z, y), None),
        (lambda z, y: nn.CrossEntropyLoss(weight=SETTINGS["weight"])(z, y), None),
        (lambda z, y: nn.CrossEntropyLoss(ignore_index=0)(z, y), None),
        (lambda z, y: nn.CrossEntropyLoss()(z, y), P),
        (lambda z, y: nn.NLLLoss()(nn.LogSoftmax()(z), y), None),
        (lambda z, y: nn.BCEWithLogitsLoss(pos_weight=SETTINGS["weight"])(z, y), P),
        (lambda z, y: nn.KLDivLoss()(nn.LogSoftmax()(z), y), P),
        (lambda z, y: nn.PoissonNLLLoss()(z, y), P),
    ],
)
def test_losses_that_are_made_in_the_function_are_replayed(loss, target, monkeypatch):
    monkeypatch.setitem(SETTINGS, "weight", np.arange(1, 5, dtype=np.float32))
    twins = Twins(steps=0, lr=0.1, loss=lambda z, y: loss(z, y if target is None else target[: len(y)]))
    twins.go(4)
    assert twins.replays() == 1
    monkeypatch.setitem(SETTINGS, "smoothing", 0.2)
    SETTINGS["weight"][:] = 4, 3, 2, 1
    twins.go(20)
    assert twins.replays() == 1


def test_a_step_that_trains_no_parameter_of_its_optimizer_says_so():
    model, other = mlp(), mlp()
    X, y = drawn(1, labels)[0]
    step = mf.compile(lambda X, y: nn.CrossEntropyLoss()(model(X), y), optim.SGD(other.parameters(), lr=0.1))
    for _ in range(4):
        step(X, y)
    assert step.explain().endswith(": replayed; it trains no parameter of its optimizer")
