"""Random pairs of models that share layers; each parameter is owned by one of two optimizers."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

import microfw as mf
from microfw import nn, optim
from tests.fuzzing.world import bits, first_difference, flat

OPTIMIZERS = [
    lambda p: optim.SGD(p, lr=0.05),
    lambda p: optim.SGD(p, lr=0.05, momentum=0.9),
    lambda p: optim.Adam(p, lr=0.01),
    lambda p: optim.RMSprop(p, lr=0.01),
    lambda p: optim.Adagrad(p, lr=0.02),
    lambda p: optim.AdamW(p, lr=0.01),
]

MIDDLES = [
    lambda seed: nn.Dense(4, 4, rng=seed),
    lambda seed: nn.Tanh(),
    lambda seed: nn.LayerNorm(4),
    lambda seed: nn.BatchNorm1D(4),
    lambda seed: nn.Dropout(0.3, rng=seed),
    lambda seed: nn.Residual(nn.Sequential(nn.Dense(4, 4, rng=seed), nn.ReLU())),
    lambda seed: nn.PReLU(4),
]


@dataclass
class Pair:
    """Two models with an optimizer each, and the steps: which model, compiled or not, what else, rows, data."""

    seed: int
    layers: list[tuple[int, int]]
    chains: list[list[int]]
    owners: list[int]
    optimizers: list[int]
    first: int
    steps: list[tuple[int, bool, str, int, int]]

    def __str__(self) -> str:
        return "\n  ".join(
            [f"pair {self.seed}", *(f"{name}: {value}" for name, value in vars(self).items() if name != "seed")]
        )


def draw(seed):
    """Draw a pair."""
    rng = random.Random(seed)
    layers = [(rng.randrange(len(MIDDLES)), rng.randrange(100)) for _ in range(rng.randint(2, 5))]
    shared = rng.randrange(len(layers))
    chains = []
    for _ in range(2):
        chain = [shared, *rng.choices(range(len(layers)), k=rng.randint(0, 3))]
        rng.shuffle(chain)
        chains.append(chain)
    steps = []
    for _ in range(rng.randint(8, 14)):
        extra = rng.choice(["", "", "", "", "zero_grad of the other", "step of the other", "both"])
        steps.append((rng.randrange(2), rng.random() < 0.7, extra, rng.choice([3, 3, 3, 4]), rng.randrange(1000)))
    owners = [rng.randrange(2) for _ in range(40)]
    return Pair(seed, layers, chains, owners, rng.choices(range(len(OPTIMIZERS)), k=2), rng.randrange(2), steps)


class Run:
    """A run of a pair, with all steps eager or some of them compiled."""

    def __init__(self, pair, compiled):
        self.pair = pair
        self.compiled = compiled
        layers = [MIDDLES[k](seed) for k, seed in pair.layers]
        entry = nn.Dense(3, 4, rng=7)
        self.models = [
            nn.Sequential(entry, *(layers[k] for k in chain), nn.Dense(4, 2, rng=8 + j))
            for j, chain in enumerate(pair.chains)
        ]
        parameters = list({id(p): p for model in self.models for p in model.parameters()}.values())
        owned = [[p for p, owner in zip(parameters, pair.owners, strict=False) if owner == k] for k in range(2)]
        for k in range(2):
            owned[k] = owned[k] or [owned[1 - k].pop()]
        self.parameters = parameters
        self.optimizers = [None, None]
        for k in (pair.first, 1 - pair.first):  # the order in which they take hold of the parameters
            self.optimizers[k] = OPTIMIZERS[pair.optimizers[k]](owned[k])
        self.functions = [self.function(model) for model in self.models]
        self.steps = [mf.compile(f, optimizer) for f, optimizer in zip(self.functions, self.optimizers, strict=True)]

    def function(self, model):
        return lambda X, y: ((model(X) - y) ** 2).mean()

    def take(self, which, compiled, extra, rows, data):
        """Take a step; return what it left."""
        rng = np.random.default_rng(data)
        X, y = rng.normal(size=(rows, 3)).astype(np.float32), rng.normal(size=(rows, 2)).astype(np.float32)
        optimizer, other = self.optimizers[which], self.optimizers[1 - which]
        if extra == "zero_grad of the other":
            other.zero_grad()
        loss, error = np.zeros(()), ""
        with np.errstate(all="ignore"):
            try:
                if compiled and self.compiled:
                    loss = self.steps[which](X, y).data
                else:
                    optimizer.zero_grad()
                    made = self.functions[which](mf.Tensor(X), mf.Tensor(y))
                    made.backward()
                    optimizer.step()
                    loss = made.data
                if extra in ("step of the other", "both"):
                    other.step()
            except mf.errors.NonFiniteError as found:  # some pairs grow without bound
                error = str(found)
        if extra == "both":
            other.zero_grad()
        return [("loss", bits(loss)), ("error", error), *self.state()]

    def state(self):
        rows = []
        for k, p in enumerate(self.parameters):
            rows += [(f"value {k}", bits(p.data)), (f"gradient {k}", None if p.grad is None else bits(p.grad))]
        for k, model in enumerate(self.models):
            rows += [(f"{k}: {name}", bits(value)) for name, value in model.state_dict().items()]
        for k, optimizer in enumerate(self.optimizers):
            rows += flat(f"optimizer {k}", optimizer.state_dict())
        return rows


def examine_pair(pair):
    """Run a pair both ways; return the first difference, messages that blame the library, and if any step replayed."""
    eager, mixed = Run(pair, False), Run(pair, True)
    for k, step in enumerate(pair.steps):
        difference = first_difference(eager.take(*step), mixed.take(*step))
        if difference is not None:
            return f"step {k} {step}: {difference}", "", False
    text = "\n".join(step.explain() for step in mixed.steps)
    return "", text if "fault of microfw" in text else "", "replayed" in text
