"""Sessions of models with all kinds of layers, and of layers with hostile names."""

from __future__ import annotations

import numpy as np

import microfw as mf
from microfw import nn, optim
from microfw.profiler import Epoch, Layer, Row, Session, Trace
from microfw.profiler.session import PHASES

X = np.random.default_rng(0).random((48, 6)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, 48)


class Residual(nn.Module):
    def __init__(self):
        self.inner = nn.Dense(6, 6, rng=0)

    def forward(self, x):
        return x + np.tanh(self.inner(x))


class Recurrent(nn.Module):
    """The same cell, again and again."""

    def __init__(self):
        self.cell, self.into, self.head = nn.Dense(6, 6, rng=0), nn.Dense(1, 6, rng=1), nn.Dense(6, 3, rng=2)

    def forward(self, x):
        state = self.into(x[:, :1])
        for k in range(1, 6):
            state = np.tanh(self.cell(state) + self.into(x[:, k : k + 1]))
        return self.head(state)


class Attention(nn.Module):
    """Each row looks at all rows."""

    def __init__(self):
        self.q, self.k, self.v = (nn.Dense(6, 3, rng=k) for k in range(3))

    def forward(self, x):
        scores = self.q(x) @ self.k(x).T / 3
        weights = np.exp(scores)
        return (weights / weights.sum(1, keepdims=True)) @ self.v(x)


class Shared(nn.Module):
    def __init__(self):
        self.layer, self.head = nn.Dense(6, 6, rng=0), nn.Dense(6, 3, rng=1)

    def forward(self, x):
        return self.head(self.layer(nn.ReLU()(self.layer(x))))


class Free(nn.Module):
    """No layers: parameters of its own."""

    def __init__(self):
        self.w = nn.Parameter(np.full((6, 3), 0.1, np.float32))

    def forward(self, x):
        return x @ self.w


class Sequence(nn.Module):
    """Six numbers as three steps of two, through layers that take sequences."""

    def __init__(self, *layers):
        self.body, self.head = nn.Sequential(*layers), nn.Dense(12, 3, rng=9)

    def forward(self, x):
        y = self.body(np.reshape(x, (-1, 3, 2)))
        return self.head(y.reshape(-1, 12))


class Taken(nn.Module):
    """A recurrent layer, of which the states are taken."""

    def __init__(self, kind):
        self.layer = kind(2, 4, rng=0)

    def forward(self, x):
        return self.layer(x)[0]


class Checkpointed(nn.Module):
    def __init__(self):
        self.body = nn.Sequential(nn.Dense(6, 8, rng=0), nn.Tanh(), nn.Dense(8, 6, rng=1))
        self.head = nn.Dense(6, 3, rng=2)

    def forward(self, x):
        return self.head(mf.checkpoint(self.body, self.head.bias[:1] + x))


class Image(nn.Module):
    """Six numbers as an image."""

    def __init__(self):
        self.conv, self.norm, self.pool = nn.Conv2D(1, 4, 3, padding=1, rng=0), nn.BatchNorm2D(4), nn.MaxPool2D(2, 1)
        self.head = nn.Dense(8, 3, rng=1)

    def forward(self, x):
        y = self.pool(nn.ReLU()(self.norm(self.conv(np.reshape(x, (-1, 1, 2, 3))))))
        return self.head(y.reshape(-1, 8))


def frozen():
    model = nn.Sequential(nn.Dense(6, 6, rng=0), nn.Dense(6, 3, rng=1))
    model[0].requires_grad_(False)
    return model


MODELS = {
    "one layer": lambda: nn.Dense(6, 3, rng=0),
    "deep": lambda: nn.Sequential(*[nn.Dense(6, 6, rng=k) for k in range(12)], nn.Dense(6, 3, rng=0)),
    "wide": lambda: nn.Sequential(nn.Dense(6, 300, rng=0), nn.ReLU(), nn.Dense(300, 3, rng=1)),
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Dense(6, 6, rng=0), nn.Sequential(nn.Tanh())), nn.Dense(6, 3)),
    "residual": lambda: nn.Sequential(Residual(), Residual(), nn.Dense(6, 3, rng=1)),
    "shared": Shared,
    "recurrent": Recurrent,
    "attention": Attention,
    "dropout": lambda: nn.Sequential(nn.Dense(6, 6, rng=0), nn.Dropout(0.3, rng=0), nn.Dense(6, 3, rng=1)),
    "frozen": frozen,
    "no layers": Free,
    "convolutional": Image,
    "lstm": lambda: Sequence(Taken(nn.LSTM)),
    "gru": lambda: Sequence(Taken(nn.GRU)),
    "self-attention": lambda: Sequence(nn.Dense(2, 4, rng=0), nn.MultiHeadAttention(4, 2, rng=1), nn.LayerNorm(4)),
    "checkpointed": Checkpointed,
}


def profiled(name, **options):
    model = MODELS[name]()
    profiler = mf.Profiler(model, name=name, **options)
    optimizer = optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    with profiler:
        for epoch in range(2):
            for x, y in mf.data.batches((X, Y), 16, rng=epoch):
                optimizer.zero_grad()
                nn.CrossEntropyLoss()(model(x), y).backward()
                optimizer.step()
            profiler.end_epoch()
    return profiler.session


# Hostile names

PIECES = [
    "</script><script>window.pwned=1</script>", "<img src=x onerror=window.pwned=1>", '"', "'", "\\", "\0", "\n", "\r",
    "\t", "=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "\u202eabc", "\u2066", "\u2028", "\u2029", "&amp;", "&#0;", "`", "|",
    "${1}", "{{7*7}}", "<!--", "-->", "]]>", "\x1b[31m", "\x7f", "\x85", "\ufeff", "é", "漢字", "😀", "%s", "../..", "javascript:1",
    "__proto__", "constructor", " ", ",", ";", "* [x](javascript:1)", "<svg/onload=window.pwned=1>", "a.b", "\\u0041", "NaN",
]  # fmt: skip


def hostile_names(n=10_000):
    rng = np.random.default_rng(0)
    names = dict.fromkeys(PIECES)
    for k in (1, 2, 3):
        names["".join(rng.choice(PIECES, 4)) + chr(64 + k) * 100_000] = None
    while len(names) < n:
        names["".join(rng.choice(PIECES, rng.integers(1, 5))) + str(len(names))] = None
    return list(names)


def hostile_session(names):
    rows = [Row(name, names[-k], nodes=1, rules=1, forward_ns=5, backward_ns=k % 7 + 1) for k, name in enumerate(names)]
    n = len(names)
    epoch = Epoch(1, 1, 1, 0.5, {}, 3, 1, 6 * n, 9 * n, 1, 0, 0, 20 * n, rows)
    sites = [[row.layer, row.op] for row in rows]
    events = [[PHASES.index("forward"), k, 10 * k, 10 * k + 5] for k in range(n)]
    layers = [Layer(name, names[-k - 1]) for k, name in enumerate(names)]
    name = "".join(PIECES)
    return Session(name=name, model=name, layers=layers, epochs=[epoch], trace=Trace(1, True, sites, events))
