"""N, P and steps are the same in the profile, the law and the drawing."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.autograd.mode import mode
from microfw.law.measure import CountingObserver
from microfw.law.scalar_graph import scalar_graph
from microfw.profiler import NodeCount, law
from microfw.profiler.cost_check import one_step
from tests.helpers.law_models import dense
from tests.law.test_models import Attending, Image, Recurrent, Shared

X = np.random.default_rng(5).normal(size=(32, 4)) * 0.3
LABELS = np.random.default_rng(6).integers(0, 3, 32)


@mf.op(vjp=lambda g, x: g * (3 * x * x), name="cubed_for_a_test")
def cubed(x):
    """Return the cube."""
    return x * x * x


class Residual(nn.Module):
    def __init__(self):
        self.inner, self.head = nn.Dense(4, 4, rng=0), nn.Dense(4, 3, rng=1)

    def forward(self, x):
        return self.head(np.tanh(self.inner(x)) + x)


class LastStep(nn.Module):
    """Uses the last of three steps: the earlier outputs of the head are nodes that the loss does not reach."""

    def __init__(self):
        self.head = nn.Dense(2, 3, rng=0)

    def forward(self, x):
        return self.head(np.reshape(x, (-1, 2, 2)))[:, -1]


class Encoder(nn.Module):
    def __init__(self):
        self.encoder, self.head = nn.Dense(4, 3, rng=0), nn.Dense(4, 3, rng=1)

    def forward(self, x):
        return self.head(self.encoder(x) @ self.encoder.weight.T)


class Parts(nn.Module):
    """Multiplies two parts of the same shape of what its layer returns."""

    def __init__(self, parts):
        self.inner, self.parts = nn.Dense(4, 6, rng=0), parts

    def forward(self, x):
        first, second = self.parts(self.inner(x))
        return first * np.tanh(second)


ROW = np.arange(1)[:, None]
PARTS = {
    "slices": lambda h: (h[:, :3], h[:, 3:]),
    "ellipsis": lambda h: (h[..., ::2], h[..., 1::2]),
    "split": lambda h: np.split(h, 2, axis=1),
    "take": lambda h: (np.take(h, [0, 1, 4], axis=1), np.take(h, [5, 2, 3], axis=1)),
    "lists": lambda h: (h[:, [0, 1, 2]], h[:, [3, 4, 5]]),
    "arrays": lambda h: (h[ROW, [0, 1, 2]], h[ROW, [3, 4, 5]]),
    "cross": lambda h: (np.cross(h[:, :3], h[:, 3:]), h[:, :3]),
}


def frozen(k):
    model = dense(4, 5, 3)
    model[k].requires_grad_(False)
    return model


def biases(model):
    """Train the biases of a model only."""
    for name, p in model.named_parameters():
        p.requires_grad = "bias" in name
    return model


MODELS = {
    "dense": lambda: dense(4, 5, 3),
    "deep": lambda: dense(4, 4, 4, 4, 3, activation=nn.Tanh),
    "convolution": lambda: Image(nn.ReLU(), nn.MaxPool2D(2, 1)),
    "average pooling": lambda: Image(nn.LeakyReLU(), nn.AvgPool2D(2, 1)),
    "padded pooling": lambda: Image(nn.Tanh(), nn.MaxPool2D(2, padding=1)),
    "residual": Residual,
    "shared": Shared,
    "tied": Encoder,
    "first layer frozen": lambda: frozen(0),
    "last layer frozen": lambda: frozen(2),
    "biases": lambda: biases(dense(4, 5, 3)),
    "biases of a convolution": lambda: biases(Image(nn.MaxPool2D(2, 1))),
    "biases of an lstm": lambda: biases(Recurrent(nn.LSTM)),
    "biases of attention": lambda: biases(Attending(False)),
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "attention": lambda: Attending(False),
    "causal attention": lambda: Attending(True),
    "last step": LastStep,
    "own op": lambda: nn.Sequential(nn.Dense(4, 3, rng=0), nn.Lambda(cubed)),
}


def counted_by_the_engine(model, loss, X, y):
    """Return the counts of a scalar graph that is recorded, and the calls of its rules."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    graph, counter = scalar_graph(lambda: loss(model(X), y), parameters, CountingObserver()), CountingObserver()
    with mode(observer=counter):
        graph.loss.backward()
    return NodeCount("scalars", len(graph.nodes), len(graph.leaves), counter.vjp_calls, counter.grad_accumulations)


def counted_by_the_drawing(model, loss, X, y):
    picture = mf.draw(loss(model(X), y), model).picture
    leaves = {leaf.id: prod(leaf.shape) for leaf in picture.leaves if leaf.kind == "parameter"}
    added = sum(source in leaves for op in picture.ops for source in op.inputs)
    n = len(picture.ops)
    return NodeCount("tensors", n, len(leaves), n, added, picture.edges), sum(leaves.values())


def profiled(model, loss, *batches):
    """Return the counts of steps that are trained and observed."""
    optimizer = mf.optim.SGD(model.parameters(), lr=1e-9)
    with mf.Profiler(model) as profiler:
        for x, y in batches:
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
    return profiler.session.epochs[0].counts()


@pytest.mark.parametrize("rows", [1, 32])
@pytest.mark.parametrize("name", MODELS)
def test_profile_law_and_drawing_agree(name, rows):
    loss, X_, y = nn.CrossEntropyLoss(), X[:rows], LABELS[:rows]
    model = MODELS[name]().astype(np.float64)
    tensors, scalars = profiled(model, loss, (X_, y))
    engine = counted_by_the_engine(model, loss, X_, y)
    drawn, numbers = counted_by_the_drawing(model, loss, X_, y)
    assert (scalars.N, scalars.P, scalars.rules, scalars.accumulated) == (
        engine.N, engine.P, engine.rules, engine.accumulated
    )  # fmt: skip
    assert tensors == drawn and numbers == scalars.P
    assert one_step(model, X_, y, loss).counts() == [tensors, scalars]
    assert (scalars.unreached > 0) == ("attention" in name or name == "last step")
    if rows == 1 and name in ("dense", "causal attention", "own op"):
        found = law(model, loss, X, LABELS, budget=1e-3, max_nodes=20_000)
        assert found.count("tensors") == tensors
        for field in ("N", "P", "rules", "accumulated", "operations"):
            assert getattr(found.count("scalars"), field) == getattr(scalars, field), field
        assert found.batch_counts == one_step(model, X, LABELS, loss).counts()


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_the_same_shape_are_told_apart(name):
    model = Parts(PARTS[name])
    found = law(model, nn.CrossEntropyLoss(), X, LABELS, budget=1e-3, batch=1)
    scalars, engine = found.count("scalars", batch=True), found.count("scalars")
    for field in ("N", "P", "rules", "accumulated", "unreached"):
        assert getattr(scalars, field) == getattr(engine, field), field
    assert scalars.unreached == 0 and scalars.accumulated >= model.inner.weight.size + model.inner.bias.size
    assert profiled(model, nn.CrossEntropyLoss(), (X[:1], LABELS[:1]), (X[:1], LABELS[:1]))[1] == scalars


def test_the_net_of_the_docs_has_the_numbers_of_the_docs(digits):
    found = law(dense(64, 32, 10), nn.CrossEntropyLoss(), digits.X, digits.y, budget=1e-3)
    tensors, row, batch = found.count("tensors"), found.count("scalars"), found.count("scalars", batch=True)
    assert (tensors.N, tensors.P, tensors.steps) == (4, 4, 8)
    assert (row.N, row.P, row.steps) == (4_801, 2_410, 7_211)
    assert (batch.N, batch.P, batch.steps) == (153_632, 2_410, 230_752)
    assert batch.steps == batch.N + 32 * batch.P
    assert round(batch.steps / (batch.N + batch.P), 2) == 1.48
    text = " ".join(str(found).split())
    assert "So backprop takes 1.48 times N + P steps. With more rows this approaches 1.50" in text


def test_batches_of_different_sizes_are_averaged():
    model, loss = dense(4, 5, 3).astype(np.float64), nn.CrossEntropyLoss()
    batches = [(X[:8], LABELS[:8]), (X[8:12], LABELS[8:12])]
    mean = sum(one_step(model, *batch, loss).counts()[1].N for batch in batches) / 2
    assert round(mean) == profiled(model, loss, *batches)[1].N
