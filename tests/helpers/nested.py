"""Nested training tasks: data, models and losses, each with the loop that a user would write."""

from __future__ import annotations

import numpy as np

import microfw as mf
from microfw import nn

ROWS = 45
EPOCHS = 12
SIZE = 10


def data():
    """Return features with two inputs, targets of two heads, and weights."""
    rng = np.random.default_rng(7)
    A, B = rng.standard_normal((ROWS, 4)).astype("f4"), rng.standard_normal((ROWS, 3)).astype("f4")
    targets = {"label": (A.sum(axis=1) > 0).astype(np.intp), "size": (B[:, :1] * 2).astype("f4")}
    return A, B, targets, rng.uniform(0.5, 2, ROWS).astype("f4")


class TwoHeads(nn.Module):
    """A model with two inputs and two heads, and with noise."""

    def __init__(self):
        self.a, self.b = nn.Dense(4, 8, rng=0), nn.Dense(3, 8, rng=1)
        self.noise = nn.Dropout(0.2, rng=5)
        self.label, self.size = nn.Dense(8, 2, rng=2), nn.Dense(8, 1, rng=3)

    def forward(self, a, b):
        z = self.noise(np.tanh(self.a(a) + self.b(b)))
        return {"label": self.label(z), "size": self.size(z)}


cross_entropy, squared_error = nn.CrossEntropyLoss(), nn.MSELoss()


def heads(outputs, targets, weight=None):
    label = cross_entropy(outputs["label"], targets["label"], weight)
    return {"label": label, "size": squared_error(outputs["size"], targets["size"], weight)}


class VAE(nn.Module):
    """A variational autoencoder, with noise from its own generator through a layer."""

    def __init__(self):
        self.encode, self.mean, self.logvar = nn.Dense(4, 8, rng=0), nn.Dense(8, 2, rng=1), nn.Dense(8, 2, rng=2)
        self.decode, self.noise = nn.Dense(2, 4, rng=3), nn.Dropout(0.5, rng=4)

    def forward(self, x):
        h = np.tanh(self.encode(x))
        mean, logvar = self.mean(h), self.logvar(h)
        noise = self.noise(np.ones(mean.shape, np.float32)) - 1  # of mean 0 and variance 1
        return self.decode(mean + np.exp(0.5 * logvar) * noise), mean, logvar


def elbo(outputs, x):
    recon, mean, logvar = outputs
    kl = -0.5 * (1 + logvar - mean * mean - np.exp(logvar)).sum(axis=1).mean()
    return {"recon": np.square(recon - x).mean(), "kl": kl}


def plain():
    return nn.Sequential(nn.Dense(4, 8, rng=0), nn.Tanh(), nn.Dropout(0.2, rng=5), nn.Dense(8, 2, rng=1))


def generated(rng):
    """Yield the batches of an epoch, in an order drawn from ``rng``."""
    A, _, targets, _ = data()
    order = rng.permutation(ROWS)
    for k in range(0, ROWS, SIZE):
        yield A[order[k : k + SIZE]], targets["label"][order[k : k + SIZE]]


class Loader:
    """A loader like PyTorch's DataLoader, with a state: it shuffles with its own generator."""

    class Foreign:
        """A tensor of another library."""

        def __init__(self, array):
            self.array = array

        def numpy(self):
            return self.array

    def __init__(self, stateful=False):
        self.rng, self.left = np.random.default_rng(4), None
        if stateful:
            self.state_dict, self.load_state_dict = self._state, self._load

    def __iter__(self):
        A, _, targets, _ = data()
        if self.left is None:
            self.left = self.rng.permutation(ROWS).tolist()
        while self.left:
            rows, self.left = self.left[:SIZE], self.left[SIZE:]
            yield [self.Foreign(A[rows]), self.Foreign(targets["label"][rows])]
        self.left = None

    def _state(self):
        return {"rng": self.rng.bit_generator.state, "left": None if self.left is None else list(self.left)}

    def _load(self, state):
        self.rng.bit_generator.state = state["rng"]
        self.left = None if state["left"] is None else [int(row) for row in state["left"]]


A, B, TARGETS, WEIGHT = data()

TASKS = {
    "two inputs, two heads": (TwoHeads, heads, lambda: ((A, B), TARGETS)),
    "weights": (TwoHeads, heads, lambda: ({"a": A, "b": B}, TARGETS, WEIGHT)),
    "one array, weights": (plain, cross_entropy, lambda: (A, TARGETS["label"], WEIGHT)),
    "a VAE": (VAE, elbo, lambda: (A, A)),
    "a stream": (plain, cross_entropy, lambda: mf.data.stream(A, TARGETS["label"], block_bytes=160)),
    "a generator": (plain, cross_entropy, lambda: generated),
    "a loader": (plain, cross_entropy, Loader),
    "a loader with a state": (plain, cross_entropy, lambda: Loader(stateful=True)),
}
"""Model, loss, and a function that returns the training data."""


def build(task, **options):
    make, loss, source = TASKS[task]
    model = make()
    optimizer = mf.optim.AdamW(model.parameters(), lr=0.02)
    return mf.Trainer(model, loss, optimizer, **options), source()


def fit(trainer, train, epochs=EPOCHS, **options):
    made = callable(train) or isinstance(train, Loader)
    return trainer.fit(train, epochs, **({} if made else {"batch_size": SIZE}), progress=False, **options)


def batches(train, rng):
    """Return the batches of an epoch of a loop."""
    if callable(train):
        return train(rng)
    if isinstance(train, Loader):
        return ([part.numpy() for part in batch] for batch in train)
    return mf.data.batches(train, SIZE, rng=rng)


def loop(task, seed=3, epochs=EPOCHS):
    """Train with the loop that a user would write; return the model and the losses of all steps."""
    trainer, train = build(task)
    model, loss, optimizer, rng = trainer.model, trainer.loss, trainer.optimizer, np.random.default_rng(seed)
    losses = []
    for _ in range(epochs):
        for X, y, *weight in batches(train, rng):
            optimizer.zero_grad()
            outputs = model(*X) if isinstance(X, tuple) else model(**X) if isinstance(X, dict) else model(X)
            total = loss(outputs, y, *weight)
            if isinstance(total, dict):
                first, second = total.values()
                total = first + second
            total.backward()
            optimizer.step()
            losses.append(total.item())
    return model, losses


def bits(model):
    return {name: values.tobytes() for name, values in model.state_dict().items()}


def rows(history):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]
