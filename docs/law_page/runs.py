"""Counts and measurements of the page on N + P, from runs of the engine."""

from collections import Counter
from itertools import pairwise
from time import perf_counter

import numpy as np

import microfw as mf
from microfw import nn
from microfw.autograd.graph import reachable
from microfw.law.measure import gc_paused, peak
from microfw.law.scalar_graph import scalar_graph
from microfw.profiler.cost_check import one_step

LOSS = nn.CrossEntropyLoss()
BATCH = 32
WIDTHS, BATCHES = (8, 16, 32, 64), (1, 2, 4, 8, 16, 32)
train, _ = mf.data.load("digits", test_size=0.25, rng=0)


def dense(width=32):
    """Return the net of the page: 64 pixels, one hidden layer, 10 classes."""
    rng = np.random.default_rng(0)
    return nn.Sequential(nn.Dense(64, width, rng=rng), nn.ReLU(), nn.Dense(width, 10, rng=rng))


def convolutional():
    """Return a net whose first layer is a convolution: 4 filters of 3 by 3 on images of 8 by 8."""
    rng = np.random.default_rng(0)
    convolution = nn.Conv2D(1, 4, 3, padding=1, rng=rng)
    return nn.Sequential(convolution, nn.ReLU(), nn.MaxPool2D(2), nn.Flatten(), nn.Dense(64, 10, rng=rng))


def data(rows, images=False):
    """Return inputs and labels of some rows."""
    X = train.X[:rows]
    return (X.reshape(-1, 1, 8, 8) if images else X), train.y[:rows]


def counts(model, rows, images=False):
    """Count one step; return N, P and steps in scalars, and in tensors as "tensors".

    The engine counts the scalar nodes of a step as the scalar graph has them, at once: 30 ms for 32 rows.
    """
    tensors, scalars = one_step(model, *data(rows, images), LOSS).counts()
    found = {"N": scalars.N, "P": scalars.P, "steps": scalars.steps}
    return found | {"tensors": {"N": tensors.N, "P": tensors.P, "steps": tensors.steps}}


def frozen(model, layer):
    """Freeze a layer, and return the model."""
    model[layer].requires_grad_(False)
    return model


def grid():
    """Return counts for each position of the sliders: [N, P, steps] by kind, width, rows, and frozen first layer."""
    found = {}
    for kind, widths in (("dense", WIDTHS), ("conv", (4,))):
        for width in widths:
            for rows in BATCHES:
                for freeze in (False, True):
                    model = dense(width) if kind == "dense" else convolutional()
                    model = frozen(model, 0) if freeze else model
                    c = counts(model, rows, kind == "conv")
                    found[f"{kind} {width} {rows} {int(freeze)}"] = [c["N"], c["P"], c["steps"]]
    assert len(found) <= 60
    return found


def zoom():
    """Return the scalar nodes of each op of the net, for one row: name, shape of the weight, nodes by scalar op."""
    model = dense().astype(np.float64)
    X, y = data(1)
    first, relu, last = model
    with mf.no_grad():
        hidden = first(X.astype(np.float64)).numpy()
        shown = relu(mf.tensor(hidden)).numpy()
        logits = model(X.astype(np.float64)).numpy()
    parts = [  # name, shape, outputs, function, its input, whether the input gets a gradient, parameters
        ("linear", "64 → 32", 32, first, X.astype(np.float64), False, list(first.parameters())),
        ("relu", "32", 32, relu, hidden, True, []),
        ("linear", "32 → 10", 10, last, shown, True, list(last.parameters())),
        ("cross_entropy", "10", 1, lambda x: LOSS(x, y), logits, True, []),
    ]
    found = []
    for name, shape, outputs, part, x, needs, parameters in parts:
        if needs:
            x = mf.tensor(x, requires_grad=True)
            parameters = [x, *parameters]
        graph = scalar_graph(lambda part=part, x=x: part(x).sum(), parameters)
        ops = Counter(node.op.name for node in reachable(graph.loss._node))
        ops["add"] -= outputs - 1  # those of the sum, which makes one number of the outputs
        found.append({"op": name, "shape": shape, "outputs": outputs, "ops": {k: n for k, n in ops.items() if n}})
    return found


def pencil(*sizes):
    """Return N of a dense net with ReLU and cross-entropy for one row, by the rules of the page."""
    return sum(2 * a * b for a, b in pairwise(sizes)) + sum(sizes[1:-1]) + 3 * sizes[-1] + 3


def check_pencil():
    """Compare the rules with what the engine counts, and return N of the net of the page."""

    def N(x, *layers):
        return one_step(nn.Sequential(*layers), np.ones((1, *x), np.float32), [0], LOSS).counts()[1].N

    for sizes in ((5, 3, 4), (30, 16, 2), (6, 5, 4, 3)):
        layers = [layer for a, b in pairwise(sizes) for layer in (nn.Dense(a, b, rng=0), nn.ReLU())]
        assert N(sizes[:1], *layers[:-1]) == pencil(*sizes)
    residual = N((8,), nn.Dense(8, 6, rng=0), nn.Residual(nn.Dense(6, 6, rng=1)))
    assert residual == 2 * 8 * 6 + 2 * 6 * 6 + 6 + 3 * 6 + 3
    convolution = N((1, 8, 8), nn.Conv2D(1, 2, 3, rng=0), nn.MaxPool2D(2), nn.Flatten(), nn.Dense(18, 4, rng=1))
    assert convolution == 36 * 2 * (2 * 9) + 18 * 3 + 2 * 18 * 4 + 3 * 4 + 3
    padded = N((1, 8, 8), nn.Conv2D(1, 2, 3, padding=1, rng=0), nn.Flatten(), nn.Dense(128, 4, rng=1))
    assert padded == 64 * 2 * (2 * 9) + 2 * 128 * 4 + 3 * 4 + 3
    return pencil(64, 32, 10)


def others(net):
    """Return what methods other than backprop redo for a parameter: counted on scalars, one row, all of them run.

    Parameters
    ----------
    net : dict
        Counts of the net, and of the net with a frozen first layer, for one row.
    """
    model = dense()
    found = mf.profiler.law(model, LOSS, *data(1), budget=60)
    ways = {way.name: way for way in found.ways if way.name != "backprop"}
    assert all(way.done == way.of for name, way in ways.items() if name != "paths, no memory")
    N, P = net["one"]["N"], net["one"]["P"]
    first = P - net["first frozen"]["P"]
    product = N * P
    rows = {
        "backprop": (found.count("scalars").steps, found.way("backprop", "scalars").seconds),
        "chain": (ways["chain rule per parameter"].rules, ways["chain rule per parameter"].seconds),
        "layers": (first * N + (P - first) * net["first frozen"]["N"], redo_layers()),
        "all": (ways["one-sided differences"].forwards * N, ways["one-sided differences"].seconds),
        "paths": (ways["paths, no memory"].rules, ways["paths, no memory"].seconds),
    }
    table = {name: {"count": n, "percent": n / product, "seconds": s} for name, (n, s) in rows.items()}
    table["backprop"]["tensor_seconds"] = found.way("backprop", "tensors").seconds
    return table | {"product": product, "paths_counted": found.paths}


def redo_layers():
    """Return the seconds of differences that compute each layer again from the changed one on; checks the gradient."""
    model = dense().astype(np.float64)
    X, y = data(1)
    X, step, slopes = X.astype(np.float64), 1e-7, []
    LOSS(model(X), y).backward()
    gradient = np.concatenate([p.grad.ravel() for p in model.parameters()])
    with mf.no_grad():
        hidden = model[1](model[0](X))
        start = perf_counter()
        base = LOSS(model(X), y).item()
        for p, layer in [(p, k) for k in (0, 2) for p in model[k].parameters()]:
            for index in np.ndindex(p.shape):
                before = p._array[index]
                p._array[index] = before + step
                output = model(X) if layer == 0 else model[2](hidden)
                slopes.append((LOSS(output, y).item() - base) / step)
                p._array[index] = before
        seconds = perf_counter() - start
    assert np.allclose(slopes, gradient, atol=1e-5)
    return seconds


def products():
    """Return operations of matrix products for one step at 32 rows, by layer and derivative, and all operations."""
    profiler = mf.Profiler(model := dense())
    optimizer = mf.optim.SGD(model.parameters(), lr=0.1)
    with profiler:
        for _ in range(50):
            optimizer.zero_grad()
            LOSS(model(data(BATCH)[0]), data(BATCH)[1]).backward()
            optimizer.step()
    epoch = profiler.session.total()
    steps, total = epoch.observed, epoch.sum()
    layers = [row for row in epoch.layers() if row.products_forward]
    return {
        "forward": [row.products_forward // steps for row in layers],
        "backward": [row.products_backward // steps for row in layers],
        "ratio": total.flops_backward / total.flops_forward,
        "operations": [total.flops_forward // steps, total.flops_backward // steps],
        "saved": [[row.layer, row.saved_bytes // steps] for row in epoch.layers()],
        "peak": epoch.saved_peak_bytes,
    }


def fastest(*functions, rounds=300, seconds=1.0):
    """Return the minimum seconds of each function; they take turns, so that noise meets all of them."""
    spent = [[] for _ in functions]
    start = perf_counter()
    with gc_paused():
        while len(spent[0]) < rounds and perf_counter() - start < seconds:
            for function, list_ in zip(functions, spent, strict=True):
                function()  # one row takes 38 µs after 512 rows, which emptied the cache, and 32 after itself
                began = perf_counter()
                function()
                list_.append(perf_counter() - began)
    return [min(list_) for list_ in spent]


def times(batches=(1, 2, 8, 32, 128, 512)):
    """Return rows, and microseconds forward and backward of a step, for several batches."""
    model = dense()
    given = [data(rows) for rows in batches]
    forward = [lambda X=X, y=y: LOSS(model(X), y) for X, y in given]
    both = [lambda f=f: f().backward() for f in forward]
    spent = fastest(*forward, *both, rounds=2000, seconds=3)
    halves = zip(batches, spent, spent[len(batches) :], strict=False)
    return [[rows, f * 1e6, (fb - f) * 1e6] for rows, f, fb in halves]


def checkpoints(blocks=16, rows=4096):
    """Return memory and time of a deep net, plain and with a checkpoint around every four layers."""
    rng = np.random.default_rng(0)
    X, y = np.resize(train.X, (rows, 64)), np.resize(train.y, rows)
    layers = [nn.Sequential(nn.Dense(32, 32, rng=rng), nn.Tanh()) for _ in range(blocks)]
    first, last = nn.Dense(64, 32, rng=rng), nn.Dense(32, 10, rng=rng)
    groups = [nn.Sequential(*layers[k : k + 4]) for k in range(0, blocks, 4)]

    def loss(saving):
        h = first(X)
        for group in groups:
            h = mf.checkpoint(group, h) if saving else group(h)
        return LOSS(last(h), y)

    def step(saving):
        for p in parameters:
            p.grad = None
        loss(saving).backward()
        return np.concatenate([p.grad.ravel() for p in parameters])

    parameters = [p for module in (first, *groups, last) for p in module.parameters()]
    assert np.allclose(step(True), step(False))
    forward, plain, saving = fastest(lambda: loss(False), lambda: step(False), lambda: step(True), seconds=2)
    memory = [peak(lambda s=s: step(s)) for s in (False, True)]
    return {
        "MB": [b / 1e6 for b in memory],
        "ms": [plain * 1e3, saving * 1e3],
        "forward_ms": forward * 1e3,
        "forwards": (saving - plain) / forward,
        "blocks": blocks,
        "rows": rows,
    }


def uses_and_costs():
    """Compare a convolution's parameter with a dense layer's: uses in one row, and operations of a step."""
    wide = mf.profiler.law(dense(), LOSS, *data(1), budget=0.01).layers
    small = mf.profiler.law(convolutional(), LOSS, *data(1, True), budget=0.01).layers
    conv, last = (next(row for row in small if row.kind == kind) for kind in ("Conv2D", "Dense"))
    first = next(row for row in wide if row.kind == "Dense")

    def cost(row):
        return (row.forward + row.backward) / row.parameters

    assert first.uses == first.parameters
    return {
        "uses": conv.uses / conv.parameters,
        "costs": [cost(conv), cost(first), cost(last)],
        "parameters": conv.parameters,
    }
