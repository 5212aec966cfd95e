"""What the profiler counts, against formulas, tracemalloc and the graph walked again."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.autograd.graph import reachable
from microfw.autograd.op import Cost
from microfw.autograd.registry import OPS
from microfw.law.run import law
from microfw.profiler import Layer, Session, report
from microfw.profiler.reports.tables import step_lines

RNG = np.random.default_rng(0)


def data(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def profiled(model, loss, steps=1, every=1, compiled=False):
    """Profile steps of plain descent; the epoch."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = optim.SGD(parameters, lr=1e-3)
    step = mf.compile(loss, optimizer) if compiled else None
    for _ in range(4 if compiled else 0):
        step()
    with mf.Profiler(model, every=every) as profiler:
        for _ in range(steps):
            if step is not None:
                step()
                continue
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
    (epoch,) = profiler.session.epochs
    return epoch


def rows_of(epoch):
    return {row.layer: row for row in epoch.layers()}


# What is frozen

SIZES = [(20, 16), (16, 12), (12, 10)]


def stack(frozen):
    layers = [nn.Dense(*size, rng=k) for k, size in enumerate(SIZES)]
    model = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.Tanh(), layers[2])
    for k in frozen:
        layers[k].requires_grad_(False)
    return model


@pytest.mark.parametrize("frozen", [(0,), (1,), (2,), (0, 1), (1, 2)])
@pytest.mark.parametrize("way", ["eager", "replayed", "sampled"])
def test_frozen_layers_are_counted_forward(frozen, way):
    model, x, t = stack(frozen), data(16, 20), data(16, 10)
    loss_function = nn.MSELoss()
    steps, every = (9, 4) if way == "sampled" else (3, 1)
    epoch = profiled(model, lambda: loss_function(model(x), t), steps, every, way == "replayed")
    if way == "replayed":
        assert epoch.replayed
    rows, total, n = rows_of(epoch), epoch.sum(), epoch.observed
    assert list(rows) == ["0", "1", "2", "3", "4", "MSELoss"]
    first = min(k for k in range(3) if k not in frozen)  # nothing before it needs a gradient
    for k, (i, o) in enumerate(SIZES):
        row, product = rows[str(2 * k)], 2 * 16 * i * o
        assert row.products_forward == n * product
        assert row.flops_forward == n * (product + 16 * o)
        assert row.products_backward == n * product * ((k > first) + (k not in frozen))
        assert row.nodes == row.rules == n * (k >= first)
        assert row.forward_ns > 0
        assert (row.backward_ns > 0) == (k >= first)
        assert row.products_weights == n * product * (k not in frozen)
    assert total.nodes == total.rules == n * (5 - 2 * first + 1)
    assert epoch.ratio().exact
    assert sum(row.forward_ns for row in epoch.rows) + epoch.untagged_forward_ns == epoch.forward_ns
    assert epoch.untagged_forward_ns >= 0


def test_the_products_of_a_frozen_first_layer_are_those_that_pytorch_counts():
    model, x = nn.Sequential(nn.Dense(20, 16, rng=0), nn.ReLU(), nn.Dense(16, 10, rng=1)), data(16, 20)
    model[0].requires_grad_(False)
    epoch = profiled(model, lambda: model(x).sum())
    assert epoch.sum().products_forward == 2 * 16 * (20 * 16 + 16 * 10) == 15_360
    assert epoch.sum().nodes == 2


def test_evaluation_and_frozen_layers_are_kept_apart():
    model, x = stack((0,)), data(16, 20)
    optimizer = optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    with mf.Profiler(model) as profiler:
        model(x).sum().backward()
        with mf.no_grad():
            model(x)
        optimizer.step()
    assert rows_of(profiler.session.epochs[0])["0"].products_forward == 2 * 16 * 20 * 16


def test_a_frozen_layer_in_a_checkpoint_runs_again():
    model, x = stack((0,)), data(16, 20)
    epoch = profiled(model, lambda: mf.checkpoint(model, mf.tensor(x)).sum())
    row = rows_of(epoch)["0"]
    assert (row.products_forward, row.products_backward, row.nodes) == (2 * 16 * 20 * 16, 2 * 16 * 20 * 16, 0)


def test_frozen_products_outside_of_modules_are_counted():
    frozen, w, x = mf.tensor(data(8, 6)), nn.Parameter(data(6, 3)), data(5, 8)
    model = nn.Module()
    model.w = w
    epoch = profiled(model, lambda: (mf.tensor(x) @ frozen @ w).sum(), 2)
    assert epoch.sum().products_forward == 2 * 2 * 5 * (8 * 6 + 6 * 3)
    assert epoch.sum().nodes == 2 * 2
    assert epoch.untagged_forward_ns >= 0


def test_the_law_counts_frozen_layers_in_forward():
    model, x, y = stack((0,)), data(4, 20), RNG.integers(0, 10, 4)
    found = law(model, nn.CrossEntropyLoss(), x, y, rows=1, budget=0.05)
    assert found.ratio.products_forward == 2 * sum(i * o for i, o in SIZES)
    assert found.ratio.exact
    by_layer = {row.layer: row.forward for row in found.layers}
    assert by_layer["0"] == 2 * 20 * 16 + 16
    ways = found.way("central differences")
    assert ways.operations == ways.forwards * found.ratio.forward


# Memory


class Recurrent(nn.Module):
    def __init__(self, kind):
        self.cells, self.head = kind(12, 24, rng=0), nn.Dense(24, 5, rng=1)

    def forward(self, x):
        return self.head(self.cells(x)[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        self.attend, self.norm = nn.MultiHeadAttention(16, 4, rng=0), nn.LayerNorm(16)

    def forward(self, x):
        return self.norm(x + self.attend(x))


class Lookup(nn.Module):
    def __init__(self):
        self.table, self.head = nn.Embedding(50, 24, rng=0), nn.Dense(24, 5, rng=1)

    def forward(self, x):
        return self.head(self.table(x).mean(axis=1))


class Cut(nn.Module):
    """A view of a few entries keeps all of them."""

    def __init__(self):
        self.layer, self.w = nn.Dense(12, 400, rng=0), nn.Parameter(data(8))

    def forward(self, x):
        return self.layer(x)[:, :8] * self.w


def flat(*layers, shape):
    body = nn.Sequential(*layers, nn.Flatten())
    with mf.no_grad():
        n = body(data(*shape)).shape[1]
    return nn.Sequential(*layers, nn.Flatten(), nn.Dense(n, 3, rng=9))


MODELS = {
    "dense": lambda: (nn.Sequential(nn.Dense(32, 64, rng=0), nn.ReLU(), nn.Dense(64, 8, rng=1)), (256, 32)),
    "as many rows as inputs": lambda: (nn.Dense(48, 48, rng=0), (48, 48)),
    "tanh": lambda: (nn.Sequential(nn.Dense(32, 64, rng=0), nn.Tanh(), nn.Dense(64, 64, rng=1)), (64, 32)),
    "gelu": lambda: (nn.Sequential(nn.Dense(32, 64, rng=0), nn.GELU(), nn.Dense(64, 64, rng=1)), (64, 32)),
    "softmax": lambda: (nn.Sequential(nn.Dense(32, 64, rng=0), nn.Softmax(), nn.Dense(64, 64, rng=1)), (64, 32)),
    "dropout": lambda: (nn.Sequential(nn.Dense(32, 64, rng=0), nn.Dropout(0.5, rng=0), nn.Dense(64, 8, rng=1)), (64, 32)),
    "convolution": lambda: (flat(nn.Conv2D(1, 4, 3, rng=0), nn.ReLU(), shape=(64, 1, 8, 8)), (64, 1, 8, 8)),
    "convolution of a line": lambda: (flat(nn.Conv1D(2, 4, 3, rng=0), nn.ReLU(), shape=(64, 2, 30)), (64, 2, 30)),
    "max pool": lambda: (
        flat(nn.Conv2D(1, 4, 3, rng=0), nn.MaxPool2D(2), nn.ReLU(), shape=(64, 1, 10, 10)), (64, 1, 10, 10)
    ),
    "average pool": lambda: (flat(nn.Conv2D(1, 4, 3, rng=0), nn.AvgPool2D(2), shape=(64, 1, 10, 10)), (64, 1, 10, 10)),
    "batch norm": lambda: (
        flat(nn.Conv2D(1, 4, 3, rng=0), nn.BatchNorm2D(4), nn.ReLU(), shape=(64, 1, 8, 8)), (64, 1, 8, 8)
    ),
    "layer norm": lambda: (nn.Sequential(nn.Dense(32, 64, rng=0), nn.LayerNorm(64), nn.Dense(64, 8, rng=1)), (64, 32)),
    "lstm": lambda: (Recurrent(nn.LSTM), (32, 10, 12)),
    "gru": lambda: (Recurrent(nn.GRU), (32, 10, 12)),
    "attention": lambda: (Attention(), (16, 20, 16)),
    "a part of an output": lambda: (Cut(), (64, 12)),
    "frozen first": lambda: (stack((0,)), (256, 20)),
    "frozen middle": lambda: (stack((1,)), (256, 20)),
}  # fmt: skip


def held(loss):
    """Return the bytes that a graph keeps, by tracemalloc."""
    for _ in range(3):
        kept = loss()
    del kept
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = loss()
        assert kept.size == 1
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", MODELS)
def test_saved_bytes_are_the_memory_that_the_graph_keeps(name):
    model, shape = MODELS[name]()
    x = data(*shape)
    counted = profiled(model, lambda: model(x).sum()).sum().saved_bytes
    measured = held(lambda: model(x).sum())
    objects = 9000  # of Python, which are no arrays
    assert measured - 0.04 * measured - objects <= counted <= measured * 1.04


def test_indices_are_memory_too():
    model, tokens = Lookup(), RNG.integers(0, 50, (64, 20))
    assert 64 * 20 * 8 <= profiled(model, lambda: model(tokens).sum()).sum().saved_bytes <= 64 * 20 * 8 + 64 * 24 * 4
    w = nn.Parameter(np.ones((100, 100)))
    model = nn.Module()
    model.w = w
    rows, columns = RNG.integers(0, 100, (2, 5000))
    assert profiled(model, lambda: w[rows, columns].sum()).sum().saved_bytes == 2 * 5000 * 8


@pytest.mark.parametrize("rows", [15, 16, 17])
def test_a_batch_of_the_weights_shape_is_no_parameter(rows):
    model, x = nn.Dense(16, 16, rng=0), data(rows, 16)
    assert profiled(model, lambda: model(x).sum()).sum().saved_bytes == rows * 16 * 4
    assert profiled(model, lambda: model(mf.tensor(x)).sum()).sum().saved_bytes == rows * 16 * 4


def test_parameters_are_no_saved_memory_wherever_they_are():
    w, x = nn.Parameter(data(16, 16)), data(16, 16)
    optimizer = optim.SGD([w], lr=0.1)
    with mf.Profiler() as profiler:
        for _ in range(2):
            optimizer.zero_grad()
            (np.tanh(mf.tensor(x) @ w) @ w).sum().backward()  # keeps x, x @ w and the tanh
            optimizer.step()
    assert profiler.session.epochs[0].sum().saved_bytes == 2 * 3 * 16 * 16 * 4


def test_broadcast_arrays_are_as_large_as_their_memory():
    w, v = nn.Parameter(np.ones((100, 100))), nn.Parameter(np.ones(100))
    model = nn.Module()
    model.w, model.v = w, v
    epoch = profiled(model, lambda: (np.broadcast_to(v * 2.0, (100, 100)) * w).sum())
    assert epoch.sum().saved_bytes == 100 * 4


# Settings


@pytest.mark.parametrize(
    ("small", "large"),
    [([2, 2], [3, 3]), ((2, 2), (3, 3)), (np.array([2, 2]).tolist(), [np.int64(3), np.int64(3)]), (2, np.int64(3))],
)
def test_settings_of_any_type_tell_sites_apart(small, large):
    x = nn.Parameter(data(1, 1, 8, 8))
    model = nn.Module()
    model.x = x

    def loss():
        parts = [mf.ops.max_pool(x, kernel=k, stride=3) for k in (small, large, small)]
        return sum(part.sum() for part in parts)

    epoch = profiled(model, loss, 2)
    windows = {"small": 3 * 3, "large": 2 * 2}
    row = next(row for row in epoch.rows if row.op == "max_pool")
    assert row.flops_forward == 2 * (2 * windows["small"] * 3 + windows["large"] * 8)


def test_settings_that_are_arrays_or_objects_are_told_apart_by_their_cost():
    class Times:
        def __init__(self, n):
            self.n = n

    def cost(y, x, *, times):
        n = int(np.sum(times.n if isinstance(times, Times) else times))
        return Cost(n, (n,))

    @mf.op(vjp=lambda g, times: g, cost=cost, name="repeated_for_a_test")
    def repeated(x, *, times):
        return x + 0

    x = nn.Parameter(data(4))
    model = nn.Module()
    model.x = x
    settings = [np.array([1, 2]), np.array([3, 4]), Times(5), Times(6), np.array([1, 2])]
    try:
        epoch = profiled(model, lambda: sum(repeated(x, times=s) for s in settings).sum(), 3)
    finally:
        del OPS["repeated_for_a_test"]
    row = next(row for row in epoch.rows if row.op == "repeated_for_a_test")
    assert row.flops_forward == row.flops_backward == 3 * (3 + 7 + 5 + 6 + 3)


# Reuse


class Gram(nn.Module):
    def __init__(self):
        self.W = nn.Parameter(data(8, 8))

    def forward(self, x):
        h = x @ self.W
        return h @ h.T


class LowRank(nn.Module):
    def __init__(self):
        self.U, self.V = nn.Parameter(data(8, 4)), nn.Parameter(data(4, 8))
        self.U.requires_grad = False

    def forward(self, x):
        return x @ self.U @ self.V


class Transposed(nn.Module):
    def __init__(self):
        self.W = nn.Parameter(data(6, 8))

    def forward(self, x):
        return x @ self.W.T


def reuse_of(model, x, checkpointed=False):
    loss = (lambda: mf.checkpoint(model, x).sum()) if checkpointed else (lambda: model(x).sum())
    epoch = profiled(model, loss, 2)
    name = type(model).__name__
    weights = sum(p.size for p in model.parameters() if p.requires_grad and p.ndim > 1)
    return reuse(epoch, name, weights)


def reuse(epoch, name, weights):
    lines = step_lines(Session(layers=[Layer(name, "", weights=weights)]), epoch)
    return next(line.reuse for line in lines if line.name == name)


@pytest.mark.parametrize("kind", [Gram, LowRank, Transposed])
def test_reuse_is_of_the_weights_that_the_layer_trains(kind):
    assert reuse_of(kind(), data(20, 8)) == 20
    assert reuse_of(kind(), mf.tensor(data(20, 8)), checkpointed=True) == 20


def test_reuse_of_layers_is_how_often_a_weight_is_used():
    assert reuse_of(nn.Dense(8, 3, rng=0), data(20, 8)) == 20
    assert reuse_of(nn.Conv2D(2, 4, 3, rng=0), data(5, 2, 8, 8)) == 5 * 6 * 6
    model = Recurrent(nn.LSTM)
    epoch = profiled(model, lambda: model(data(3, 7, 12)).sum())
    assert reuse(epoch, "cells", 4 * 24 * (12 + 24)) == 3 * 7


def test_a_weight_of_another_layer_is_none_of_ones_own():
    class Tied(nn.Module):
        def __init__(self):
            self.embed = nn.Dense(8, 4, rng=0)
            self.own = nn.Parameter(data(4, 4))

        def forward(self, x):
            return self.embed(x) @ self.own @ self.embed.weight.T

    model, x = Tied(), data(20, 8)
    rows = rows_of(profiled(model, lambda: model(x).sum()))
    assert rows["Tied"].products_weights == 2 * 20 * 4 * 4
    assert rows["embed"].products_weights == 2 * 20 * 8 * 4


# Costs where inputs are broadcast

SHAPES = [((3, 5), (4, 5, 2)), ((4, 3, 5), (5, 2)), ((1, 3, 5), (4, 5, 2)), ((5,), (4, 5, 2)), ((4, 3, 5), (5,)),
          ((2, 1, 3, 5), (4, 5, 2)), ((3, 5), (5, 2)), ((5,), (5,))]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), SHAPES)
def test_a_product_that_is_broadcast_is_summed_in_backward(a, b):
    y = np.matmul(np.ones(a), np.ones(b)).shape
    cost = mf.ops.matmul.op.cost(y, a, b)
    product = 2 * np.prod(y, dtype=int) * a[-1]
    given = {"a": np.ones(a), "b": np.ones(b)}
    for k, (partial, shape) in enumerate(zip(mf.ops.matmul.op.partials, (a, b), strict=True)):
        share = partial.vjp(np.ones(y), *(given[source] for source in partial.sources))
        assert cost.derivatives[k] == product + share.size - np.prod(shape, dtype=int)
        assert cost.products_derivatives[k] == product


def test_the_operations_of_a_broadcast_batch():
    a, b = nn.Parameter(np.ones((3, 5))), nn.Parameter(np.ones((4, 5, 2)))
    model = nn.Module()
    model.a, model.b = a, b
    epoch = profiled(model, lambda: np.matmul(a, b).sum())
    assert next(row for row in epoch.rows if row.op == "matmul").flops_backward == 2 * 240 + 3 * 5 * 3


ELEMENTWISE = [op for op in OPS.values() if len(op.inputs) == 2 and not op.variadic and op.cost
               and op.differentiable and not op.params]  # fmt: skip


@pytest.mark.parametrize("op", ELEMENTWISE, ids=lambda op: op.name)
def test_undoing_a_broadcast_is_part_of_each_rule(op):
    """The cost with an input that is broadcast is that without, and a sum."""
    full, small = {"solve": ((4, 3, 3), (3, 3)), "matmul": ((4, 3, 3), (3, 3))}.get(op.name, ((4, 3, 3), (3, 1)))
    try:
        with np.errstate(all="ignore"):
            y = op.call(np.full(full, 0.5) + np.eye(3), np.full(full, 0.5) + np.eye(3)).shape
            if op.call(np.full(small, 0.5) + np.eye(3)[:, : small[1]], np.full(full, 0.5) + np.eye(3)).shape != y:
                pytest.skip("it does not broadcast")
    except Exception:
        pytest.skip("it takes other arrays")
    if y != full:
        pytest.skip("it does not broadcast")
    whole, left = op.cost(y, full, full), op.cost(y, small, full)
    if op.partials[0] is not None:
        assert left.derivatives[0] == whole.derivatives[0] + np.prod(full) - np.prod(small)
    if op.partials[1] is not None and op.name != "matmul":
        right = op.cost(y, full, small)
        assert right.derivatives[1] == whole.derivatives[1] + np.prod(full) - np.prod(small)


# Checkpoints


class Pair(nn.Module):
    def __init__(self):
        self.first, self.second = nn.Dense(8, 8, rng=0), nn.Dense(8, 8, rng=1)

    def forward(self, x):
        h = np.tanh(self.first(x))
        return self.second(h), h


def test_a_checkpoint_adds_no_node():
    start, model, x = nn.Dense(8, 8, rng=2), Pair(), data(5, 8)
    both = nn.Module()
    both.start, both.model = start, model

    def loss(run):
        y, h = run(start(x))
        return (y * h).sum()

    plain = profiled(both, lambda: loss(model), 2)
    again = profiled(both, lambda: loss(lambda h: mf.checkpoint(model, h)), 2)
    nodes = len(reachable(loss(model)._node))
    assert plain.sum().nodes == again.sum().nodes == 2 * nodes
    assert {row.op for row in again.rows} == {row.op for row in plain.rows}
    assert again.sum().rules == again.sum().nodes
    assert report(Session(epochs=[again]))
