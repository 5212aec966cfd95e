"""Layers and losses as users write them. Each program executes this file in a namespace of its own.

So two runs of one program share no class, no global variable and no function.
"""

import contextvars
import dataclasses
import itertools
import random
import types

import numpy as np

import microfw as mf
from fuzzing.custom_ops import jitter
from microfw import nn

SCALE = 1.0
TABLE = {"scale": 1.0, "shift": 0.0}
STEPS = [1.0]
WEIGHTS = np.linspace(0.5, 1.5, 4)
LEVEL = contextvars.ContextVar("level", default=1.0)


def half(x):
    return x * 0.5


def bend(x):
    return np.tanh(x) + 0.1 * x


class Plain:
    """An object that is no module."""

    scale = 1.0

    def __init__(self, scale=1.0):
        self.value = scale

    def read(self):
        return self.value


class Slotted:
    """An object without a dictionary."""

    __slots__ = ("scale",)

    def __init__(self, scale=1.0):
        self.scale = scale


class Dynamic:
    """An object that computes its attributes."""

    def __init__(self):
        self.__dict__["inner"] = {"scale": 1.0}

    def __getattr__(self, name):
        try:
            return self.__dict__["inner"][name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name, value):
        self.__dict__["inner"][name] = value


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings that are replaced as a whole."""

    scale: float = 1.0
    names: tuple = ("a", "b")


# Settings of every type


class Times(nn.Module):
    """``value`` is a number of Python or NumPy, or an array."""

    def __init__(self, value):
        self.value = value

    def forward(self, x):
        return x * self.value


class TimesItem(nn.Module):
    """``value`` is a tuple, a list or a dict."""

    def __init__(self, value, key):
        self.value = value
        self.key = key

    def forward(self, x):
        return x * self.value[self.key]


class TimesNested(nn.Module):
    """The factor is deep in containers and objects."""

    def __init__(self):
        self.value = {"parts": [Plain(1.0), (types.SimpleNamespace(scale=1.0), 2)]}

    def forward(self, x):
        first, (second, _) = self.value["parts"]
        return x * first.value * second.scale


class TimesConfig(nn.Module):
    """``config`` is a frozen dataclass."""

    def __init__(self, config):
        self.config = config

    def forward(self, x):
        return x * self.config.scale


class TimesContext(nn.Module):
    """The factor is a context variable."""

    def forward(self, x):
        return x * LEVEL.get()


class Flags(nn.Module):
    """Branches on a set."""

    def __init__(self, *flags):
        self.flags = set(flags)

    def forward(self, x):
        if "double" in self.flags:
            x = x * 2
        return np.tanh(x) if "tanh" in self.flags else x


class TimesSum(nn.Module):
    """``values`` is a list that grows."""

    def __init__(self, values):
        self.values = values

    def forward(self, x):
        return x * (sum(self.values) / len(self.values))


class TimesAttribute(nn.Module):
    """``box`` is a namespace or an object."""

    def __init__(self, box):
        self.box = box

    def forward(self, x):
        return x * self.box.scale


class TimesClass(nn.Module):
    """The factor is an attribute of the class."""

    scale = 1.0

    def forward(self, x):
        return x * type(self).scale


class TimesMethod(nn.Module):
    """The factor is behind a method of another object."""

    def __init__(self, box):
        self.box = box

    def factor(self):
        return 0.5 + 0.5 * self.box.read()

    def forward(self, x):
        return x * self.factor()


class TimesProperty(nn.Module):
    """The factor is behind a property."""

    def __init__(self, level):
        self.level = level

    @property
    def factor(self):
        return 1 / (1 + self.level)

    def forward(self, x):
        return x * self.factor


class TimesGlobal(nn.Module):
    """The factors are global variables."""

    def forward(self, x):
        return x * SCALE * TABLE["scale"] + TABLE["shift"]


class TimesClosure(nn.Module):
    """The factor is in a closure."""

    def __init__(self, scale):
        def read():
            return scale

        def write(value):
            nonlocal scale
            scale = value

        self.read, self.write = read, write

    def forward(self, x):
        return x * self.read()


class TimesDefault(nn.Module):
    """The factor is in a default argument that can be changed in place."""

    def forward(self, x, factors=[1.0]):  # noqa: B006
        return x * factors[0]


class Apply(nn.Module):
    """``function`` can be replaced."""

    def __init__(self, function):
        self.function = function

    def forward(self, x):
        return self.function(x)


class Slot(nn.Module):
    """``act`` is a module or None."""

    def __init__(self, act=None):
        self.act = act

    def forward(self, x):
        return x if self.act is None else self.act(x)


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
    """Raises where it is told to."""

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


# Losses


def squares(out, y):
    return ((out - y) ** 2).mean()


def masked(out, y):
    return ((out - y) ** 2)[y > 0].mean() + 0 * out.sum()


def chosen(out, y):
    return ((out - y) ** 2).reshape(-1)[np.nonzero(y.reshape(-1) > 0)[0]].sum()


def weighted_by_global(out, y):
    return ((out - y) ** 2).mean() * SCALE + abs(out).mean() * TABLE["shift"]


def annealed(out, y):
    return ((out - y) ** 2).mean() * STEPS[-1]


def clipped(out, y):
    return np.clip(out - y, -1, 1).sum() * 0.1 + np.maximum(out - y, 0.0).mean()


def weighted_by_array(out, y):
    return ((out - y) ** 2 * WEIGHTS[: out.shape[1]].astype(out.dtype)).mean()


def weighted_by_target(out, y):
    return (np.where(y > 0, 1.0, 0.5).astype(out.dtype) * (out - y) ** 2).mean()


def picked(out, y):
    return -np.log(np.exp(out)[np.arange(len(y)), y] / np.exp(out).sum(axis=1)).mean()


def by_value(out, y):
    loss = ((out - y) ** 2).mean()
    return loss * 0.5 if loss.item() > 1 else loss


class Objective:
    """A loss object of a user's own."""

    share = 0.5

    def __init__(self, beta=1.0):
        self.beta = beta
        self.options = {"power": 2, "weights": [1.0, 0.5]}
        self.box = types.SimpleNamespace(scale=1.0)

    def __call__(self, out, y):
        return (abs(out - y) ** self.options["power"]).mean() * self.beta * self.box.scale

    def compute(self, out, y):
        return self(out, y) * self.options["weights"][0] + type(self).share * np.square(out).mean()


def make_loss(beta):
    def loss(out, y):
        return ((out - y) ** 2).mean() * beta

    def change(value):
        nonlocal beta
        beta = value

    loss.change = change
    return loss


class Penalty:
    """A loss with a sum over the parameters."""

    def __init__(self, model, size=0.01):
        self.model = model
        self.size = size

    def __call__(self, out, y):
        return ((out - y) ** 2).mean() + self.size * sum((p * p).sum() for p in self.model.parameters())


# The step's function


class Task:
    """A step's function as an object, and as a method."""

    def __init__(self, model, criterion):
        self.model = model
        self.criterion = criterion

    def __call__(self, X, y):
        return self.criterion(self.model(X), y)

    def both(self, X, y):
        out = self.model(X)
        return self.criterion(out, y), out


def compute(model, criterion, X, y):
    return criterion(model(X), y)


def penalized(model, criterion):
    def f(X, y):
        slope = mf.grad(lambda x: np.square(model(x)).sum())(X)
        return criterion(model(X), y) + 0.01 * np.square(slope).sum()

    return f


def make_f(model, criterion):
    def f(X, y):
        out = model(X)
        return criterion(out, y), out

    return f


def add_gradients(f, X, y):
    made = f(X, y)
    (made[0] if isinstance(made, tuple) else made).backward()


def evaluate(model, X):
    flags = [(m, m.training) for _, m in model.named_modules()]
    model.eval()
    with mf.no_grad():
        model(X)
    for m, training in flags:
        m.training = training
