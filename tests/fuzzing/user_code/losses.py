"""Losses, and functions of a step, as users write them."""

import types

import numpy as np

import microfw as mf

SCALE = 1.0
TABLE = {"scale": 1.0, "shift": 0.0}
STEPS = [1.0]
WEIGHTS = np.linspace(0.5, 1.5, 4)


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
