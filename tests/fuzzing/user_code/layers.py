"""Layers with control flow, state and structure of a user's own."""

import itertools
import random

import numpy as np

import microfw as mf
from microfw import nn
from tests.fuzzing.custom_ops import jitter


def half(x):
    return x * 0.5


def bend(x):
    return np.tanh(x) + 0.1 * x


# Control flow


class Double(nn.Module):
    """Branches on a setting."""

    def __init__(self, on):
        self.on = on

    def forward(self, x):
        if self.on:
            x = x * 2
        return x


class Deep(nn.Module):
    """Repeats a layer as often as a setting says."""

    def __init__(self, inner, count):
        self.inner = inner
        self.count = count

    def forward(self, x):
        for _ in range(self.count):
            x = self.inner(x)
        return x


class Choice(nn.Module):
    """Chooses by name."""

    def __init__(self, kind):
        self.kind = kind

    def forward(self, x):
        return {"tanh": np.tanh, "half": half, "abs": np.abs}[self.kind](x)


class ByMode(nn.Module):
    """Does something else in evaluation."""

    def forward(self, x):
        return x * 1.5 if self.training else x


class BySign(nn.Module):
    """Branches on a value."""

    def forward(self, x):
        return x * 2 if float(x.sum()) > 0 else x


class BySize(nn.Module):
    """Branches on a shape."""

    def forward(self, x):
        return x * 0.5 if x.shape[0] > 3 else x


class Coin(nn.Module):
    """Branches on its generator."""

    def __init__(self, rng):
        self.rng = np.random.default_rng(rng)

    def forward(self, x):
        return x * 2 if self.rng.random() < 0.5 else x


class Dice(nn.Module):
    """Scales by a number that Python's own generator draws."""

    def __init__(self, seed):
        self.dice = random.Random(seed)

    def forward(self, x):
        return x * (0.5 + self.dice.random())


class Cycle(nn.Module):
    """Scales by what an iterator gives next."""

    def __init__(self):
        self.factors = itertools.cycle([1.0, 0.5, 2.0])

    def forward(self, x):
        return x * next(self.factors)


class Noise(nn.Module):
    """Adds noise that no op draws."""

    def __init__(self, rng):
        self.rng = np.random.default_rng(rng)

    def forward(self, x):
        if not self.training:
            return x
        return x + self.rng.normal(0, 0.1, x.shape).astype(x.dtype)


class Countdown(nn.Module):
    """Counts its calls, and scales by them."""

    def __init__(self):
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x * (1 + 1 / self.calls)


class WarmUp(nn.Module):
    """Does something else in its first calls; counts in a list."""

    def __init__(self, steps):
        self.steps = steps
        self.seen = []

    def forward(self, x):
        self.seen.append(len(self.seen))
        return x * 0.1 if len(self.seen) <= self.steps else x


class Moving(nn.Module):
    """Keeps a running mean in a buffer, as an op cannot."""

    def __init__(self, features):
        self.mean = mf.Tensor(np.zeros(features, np.float32))

    def forward(self, x):
        if self.training:
            self.mean.data = 0.9 * self.mean.data + 0.1 * x.data.reshape(-1, x.shape[-1]).mean(0)
        return x - self.mean


class Fragile(nn.Module):
    """Raises at a chosen step."""

    def __init__(self):
        self.broken = False
        self.error = ValueError

    def forward(self, x):
        if self.broken:
            raise self.error("broken on purpose")
        return x


class Jitter:
    """A function object that draws in an op."""

    def __init__(self, rng):
        self.rng = np.random.default_rng(rng)

    def __call__(self, x):
        return jitter(x, rng=self.rng)


# Values that decide shapes or constants


class Positive(nn.Module):
    """Multiplies by a mask that NumPy makes of the values."""

    def forward(self, x):
        return x * (x.data > 0).astype(x.dtype)


class Largest(nn.Module):
    """Keeps the rows' order by value."""

    def forward(self, x):
        return x[np.argsort(x.data.reshape(len(x), -1)[:, 0], kind="stable")]


# Structure


class Concat(nn.Module):
    """Branches side by side."""

    def __init__(self, *branches):
        self.branches = list(branches)

    def forward(self, x):
        return np.concatenate([branch(x) for branch in self.branches], axis=-1)


class Sum(nn.Module):
    """Branches added, in a dict."""

    def __init__(self, **branches):
        self.branches = branches

    def forward(self, x):
        return sum(branch(x) for branch in self.branches.values())


class Chain(nn.Module):
    """Layers in a list, called in a loop."""

    def __init__(self, *layers):
        self.layers = list(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer.forward(x) if isinstance(layer, nn.Flatten) else layer(x)
        return x


class Tied(nn.Module):
    """A layer twice, once by its weight alone."""

    def __init__(self, features, rng):
        self.inner = nn.Dense(features, features, rng=rng)

    def forward(self, x):
        return np.tanh(self.inner(x)) @ self.inner.weight.T


class Gate(nn.Module):
    """Parameters of its own, and ops by operators."""

    def __init__(self, features):
        self.gate = nn.Parameter(np.linspace(-1, 1, features))
        self.shift = [nn.Parameter(np.zeros(features)), nn.Parameter(np.ones(features))]

    def forward(self, x):
        g = 1 / (1 + np.exp(-self.gate))
        return np.where(x > 0, x * g, self.shift[0]) + self.shift[1] * 0.1


class Unroll(nn.Module):
    """A recurrent cell in a Python loop over time."""

    def __init__(self, features, hidden, rng):
        self.cell = nn.Dense(features + hidden, hidden, rng=rng)
        self.hidden = hidden

    def forward(self, x):
        h = np.zeros((x.shape[0], self.hidden), x.dtype)
        for t in range(x.shape[1]):
            h = np.tanh(self.cell(np.concatenate([x[:, t], h], axis=1)))
        return h


class Split(nn.Module):
    """Halves, of which one is not trained through."""

    def forward(self, x):
        k = x.shape[-1] // 2
        return np.concatenate([x[..., :k].detach(), np.square(x[..., k:])], axis=-1)


class Remember(nn.Module):
    """Computes the inner layer again in the backward pass."""

    def __init__(self, inner):
        self.inner = inner

    def forward(self, x):
        return mf.checkpoint(self.inner, x)


class Frozen(nn.Module):
    """A part that records nothing."""

    def __init__(self, inner):
        self.inner = inner

    def forward(self, x):
        with mf.no_grad():
            return self.inner(x)
