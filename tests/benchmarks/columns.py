"""One training step, written for each library that takes part.

Every builder takes the sizes of the layers and the size of a batch and returns ``step(X, y) -> loss``: forward,
softmax cross-entropy, backward, SGD with momentum, and the loss as a Python number. All start from the same
float32 weights, use the same rates and give the same losses. Libraries are imported by their builders alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

LR, MOMENTUM = 0.01, 0.9
Step = Callable[[Any, Any], float]


def initial(sizes: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return a weight and a bias for each layer."""
    rng = np.random.default_rng(7)
    return [
        ((rng.standard_normal((n, m)) * np.sqrt(2 / n)).astype(np.float32), np.zeros(m, np.float32))
        for n, m in itertools.pairwise(sizes)
    ]


def hand_written(sizes: tuple[int, ...], batch: int) -> Step:
    """NumPy as one would write it to be read: new arrays everywhere, one layer after the other."""
    layers = initial(sizes)
    speeds = [(np.zeros_like(W), np.zeros_like(b)) for W, b in layers]
    last = len(layers) - 1

    def step(X: Any, y: Any) -> float:
        inputs = []
        out = X
        for k, (W, b) in enumerate(layers):
            inputs.append(out)
            out = out @ W + b
            if k < last:
                out = np.maximum(out, 0)

        rows = np.arange(len(y))
        shifted = out - out.max(axis=1, keepdims=True)
        exps = np.exp(shifted)
        sums = exps.sum(axis=1, keepdims=True)
        loss = (np.log(sums[:, 0]) - shifted[rows, y]).mean()

        delta = exps / sums
        delta[rows, y] -= 1
        delta /= len(y)
        for k in range(last, -1, -1):
            W, b = layers[k]
            dW, db = inputs[k].T @ delta, delta.sum(axis=0)
            if k > 0:
                delta = (delta @ W.T) * (inputs[k] > 0)
            for p, v, g in ((W, speeds[k][0], dW), (b, speeds[k][1], db)):
                v *= MOMENTUM
                v += g
                p -= LR * v
        return float(loss)

    return step


class Layer:
    """A layer of the hand-tuned step: views of the flat buffers, and arrays for what it computes."""

    def __init__(self, n: int, m: int, batch: int, values: np.ndarray, gradients: np.ndarray) -> None:
        self.W, self.b = values[: n * m].reshape(n, m), values[n * m :]
        self.dW, self.db = gradients[: n * m].reshape(n, m), gradients[n * m :]
        self.WT = self.W.T
        self.out = np.empty((batch, m), np.float32)
        self.outT = self.out.T
        self.delta_in = np.empty((batch, n), np.float32)
        self.alive = np.empty((batch, n), bool)


def hand_tuned(sizes: tuple[int, ...], batch: int) -> Step:
    """NumPy with every array allocated once, ``out=`` everywhere, parameters and gradients flat."""
    start = initial(sizes)
    values = np.concatenate([np.concatenate((W.ravel(), b)) for W, b in start])
    gradients, speed, change = np.empty_like(values), np.zeros_like(values), np.empty_like(values)
    layers, at = [], 0
    for W, b in start:
        end = at + W.size + b.size
        layers.append(Layer(*W.shape, batch, values[at:end], gradients[at:end]))
        at = end
    head = layers[-1]
    hidden = layers[:-1]
    down = list(zip(layers[:0:-1], layers[-2::-1], strict=True))  # each layer with the one below it
    rows, ones = np.arange(batch), np.ones(batch, np.float32)
    row, delta = np.empty((batch, 1), np.float32), np.empty_like(head.out)
    share, lr, momentum = np.float32(1 / batch), np.float32(LR), np.float32(MOMENTUM)
    dot, add, subtract, multiply, divide = np.dot, np.add, np.subtract, np.multiply, np.divide
    maximum, greater, exp, log = np.maximum, np.greater, np.exp, np.log

    def step(X: Any, y: Any) -> float:
        h = X
        for layer in hidden:
            out = layer.out
            dot(h, layer.W, out=out)
            add(out, layer.b, out=out)
            h = maximum(out, 0, out=out)
        z = head.out
        dot(h, head.W, out=z)
        add(z, head.b, out=z)

        maximum.reduce(z, axis=1, out=row, keepdims=True)
        subtract(z, row, out=z)
        picked = z[rows, y]
        exp(z, out=z)
        add.reduce(z, axis=1, out=row, keepdims=True)
        divide(z, row, out=delta)
        log(row, out=row)
        loss = (row[:, 0] - picked).mean()

        delta[rows, y] -= 1
        multiply(delta, share, out=delta)
        d = delta
        for layer, below in down:
            dot(below.outT, d, out=layer.dW)
            dot(ones, d, out=layer.db)
            into = layer.delta_in
            dot(d, layer.WT, out=into)
            greater(below.out, 0, out=layer.alive)
            d = multiply(into, layer.alive, out=into)
        dot(X.T, d, out=layers[0].dW)
        dot(ones, d, out=layers[0].db)

        multiply(speed, momentum, out=speed)
        add(speed, gradients, out=speed)
        multiply(speed, lr, out=change)
        subtract(values, change, out=values)
        return float(loss)

    return step


def network(sizes: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """Return the model in microfw, its loss function and its optimizer."""
    from microfw import nn, optim

    modules: list[Any] = []
    for W, b in initial(sizes):
        dense = nn.Dense(*W.shape, rng=0)
        dense.weight.data, dense.bias.data = W, b
        modules += [dense, nn.ReLU()]
    model = nn.Sequential(*modules[:-1])
    return model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)


def microfw(sizes: tuple[int, ...], batch: int) -> Step:
    """Build what a user of microfw would."""
    model, loss_fn, optimizer = network(sizes)

    def step(X: Any, y: Any) -> float:
        optimizer.zero_grad()
        loss = loss_fn(model(X), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def microfw_replay(sizes: tuple[int, ...], batch: int) -> Step:
    """Build the same with a step that is replayed."""
    from microfw import compile

    model, loss_fn, optimizer = network(sizes)
    step = compile(lambda X, y: loss_fn(model(X), y), optimizer)
    return lambda X, y: step(X, y).item()


def torch_eager(sizes: tuple[int, ...], batch: int) -> Step:
    """Build the same in PyTorch, eager, on one thread."""
    import torch

    torch.set_num_threads(1)
    modules: list[Any] = []
    for W, b in initial(sizes):
        linear = torch.nn.Linear(*W.shape)
        linear.load_state_dict({"weight": torch.tensor(W.T.copy()), "bias": torch.tensor(b)})
        modules += [linear, torch.nn.ReLU()]
    model = torch.nn.Sequential(*modules[:-1])
    loss_fn = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=MOMENTUM)

    def step(X: Any, y: Any) -> float:
        optimizer.zero_grad()
        loss = loss_fn(model(torch.from_numpy(X)), torch.from_numpy(y))
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def jax_jit(sizes: tuple[int, ...], batch: int) -> Step:
    """Build one jitted function a step in JAX, with its own thread pool; the loss is read after every step."""
    import jax
    import jax.numpy as jnp

    def loss_of(layers: Any, X: Any, y: Any) -> Any:
        *hidden, (W, b) = layers
        for V, c in hidden:
            X = jax.nn.relu(X @ V + c)
        logs = jax.nn.log_softmax(X @ W + b)
        return -jnp.take_along_axis(logs, y[:, None], axis=1).mean()

    @jax.jit
    def update(layers: Any, speeds: Any, X: Any, y: Any) -> Any:
        loss, gradients = jax.value_and_grad(loss_of)(layers, X, y)
        speeds = jax.tree.map(lambda v, g: MOMENTUM * v + g, speeds, gradients)
        return jax.tree.map(lambda p, v: p - LR * v, layers, speeds), speeds, loss

    layers = jax.tree.map(jnp.asarray, initial(sizes))
    speeds = jax.tree.map(jnp.zeros_like, layers)

    def step(X: Any, y: Any) -> float:
        nonlocal layers, speeds
        layers, speeds, loss = update(layers, speeds, X, y)
        return float(loss)

    return step


def mygrad(sizes: tuple[int, ...], batch: int) -> Step:
    """Build the same in MyGrad, with the update by hand: it has no optimizer for several parameters."""
    import mygrad as mg
    from mygrad.nnet.activations import relu
    from mygrad.nnet.losses import softmax_crossentropy

    layers = [(mg.tensor(W), mg.tensor(b)) for W, b in initial(sizes)]
    parameters = list(itertools.chain.from_iterable(layers))
    speeds = [np.zeros_like(p.data) for p in parameters]

    def step(X: Any, y: Any) -> float:
        out = X
        for W, b in layers[:-1]:
            out = relu(mg.matmul(out, W) + b)
        W, b = layers[-1]
        loss = softmax_crossentropy(mg.matmul(out, W) + b, y)
        loss.backward()
        for p, v in zip(parameters, speeds, strict=True):
            v *= MOMENTUM
            v += p.grad
            p.data -= LR * v
            p.null_grad()
        return float(loss.item())

    return step


COLUMNS: dict[str, Callable[[tuple[int, ...], int], Step]] = {
    "hand-written NumPy": hand_written,
    "hand-tuned NumPy": hand_tuned,
    "microfw": microfw,
    "microfw replay": microfw_replay,
    "PyTorch eager": torch_eager,
    "JAX jit": jax_jit,
    "MyGrad": mygrad,
}
