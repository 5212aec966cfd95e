"""Dense networks with ReLU, in each library.

Hand-written NumPy is here as a whole step. The libraries have only the network here; `columns` has their steps. All
start from the same float32 weights. Libraries are imported where they are used.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from columns import LR, MOMENTUM, Step


def initial(sizes: tuple[int, ...]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return a weight and a bias for each layer."""
    rng = np.random.default_rng(7)
    return [
        ((rng.standard_normal((n, m)) * np.sqrt(2 / n)).astype(np.float32), np.zeros(m, np.float32))
        for n, m in itertools.pairwise(sizes)
    ]


def hand_written(sizes: tuple[int, ...]) -> Step:
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


class Dense:
    """The network in each library; arguments are the sizes of the layers and of a batch."""

    shape = (64,)

    def __init__(self, sizes: tuple[int, ...], batch: int) -> None:
        self.sizes, self.batch = sizes, batch

    def parameters(self) -> Any:
        """Return the initial arrays, nested as the functions of them below take them."""
        return initial(self.sizes)

    def hand_written(self) -> Step:
        """Return the readable step."""
        return hand_written(self.sizes)

    def hand_tuned(self) -> Step:
        """Return the preallocated step."""
        return hand_tuned(self.sizes, self.batch)

    def microfw(self) -> Any:
        """Return a model of microfw."""
        from microfw import nn

        modules: list[Any] = []
        for W, b in initial(self.sizes):
            dense = nn.Dense(*W.shape, rng=0)
            dense.weight.data, dense.bias.data = W, b
            modules += [dense, nn.ReLU()]
        return nn.Sequential(*modules[:-1])

    def torch(self) -> Any:
        """Return a model of PyTorch."""
        import torch

        modules: list[Any] = []
        for W, b in initial(self.sizes):
            linear = torch.nn.Linear(*W.shape)
            linear.load_state_dict({"weight": torch.tensor(W.T.copy()), "bias": torch.tensor(b)})
            modules += [linear, torch.nn.ReLU()]
        return torch.nn.Sequential(*modules[:-1])

    def jax(self, layers: Any, X: Any) -> Any:
        """Return the logits."""
        import jax

        *hidden, (W, b) = layers
        for V, c in hidden:
            X = jax.nn.relu(X @ V + c)
        return X @ W + b

    def mygrad(self, layers: Any, X: Any) -> Any:
        """Return the logits."""
        import mygrad as mg
        from mygrad.nnet.activations import relu

        *hidden, (W, b) = layers
        for V, c in hidden:
            X = relu(mg.matmul(X, V) + c)
        return mg.matmul(X, W) + b

    def autograd(self, layers: Any, X: Any) -> Any:
        """Return the logits."""
        import autograd.numpy as anp

        *hidden, (W, b) = layers
        for V, c in hidden:
            X = anp.maximum(anp.dot(X, V) + c, 0)
        return anp.dot(X, W) + b

    def sklearn(self, first: tuple[Any, Any]) -> Any:
        """Return an estimator that has seen a batch, as it must to have weights, and forgotten it."""
        from sklearn.neural_network import MLPClassifier

        model = MLPClassifier(
            self.sizes[1:-1], solver="sgd", learning_rate_init=LR, momentum=MOMENTUM, nesterovs_momentum=False,
            alpha=0, batch_size=self.batch, shuffle=False,
        )  # fmt: skip
        model.partial_fit(*first, classes=np.arange(self.sizes[-1]))
        for k, (W, b) in enumerate(initial(self.sizes)):
            model.coefs_[k][:], model.intercepts_[k][:] = W, b
        for speed in model._optimizer.velocities:  # what is public has no way to clear them
            speed[:] = 0
        return model
