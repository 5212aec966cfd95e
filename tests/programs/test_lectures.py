"""The programs of a lecture series: a net on two moons, and character models of names."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import make_moons

import microfw as mf
from microfw import nn, optim

torch = pytest.importorskip("torch")
F = torch.nn.functional
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

TEXT = "ada alan barbara claude dennis edsger frances grace john katherine ken leslie linus margaret niklaus"
NAMES = TEXT.split()
LETTERS = "." + "".join(sorted(set("".join(NAMES))))
CODE = {letter: k for k, letter in enumerate(LETTERS)}
V = len(LETTERS)


def contexts(size):
    """Return the letters before each letter of the names, and that letter."""
    pairs = []
    for name in NAMES:
        codes = [0] * size + [CODE[letter] for letter in name + "."]
        pairs += [(codes[k : k + size], codes[k + size]) for k in range(len(name) + 1)]
    return tuple(np.array(part) for part in zip(*pairs, strict=True))


def test_micrograd_differentiates_an_expression():
    results = []
    for tensor, relu in ((torch.tensor, F.relu), (mf.tensor, mf.ops.relu)):
        a, b = (tensor(value, dtype=torch.float64 if relu is F.relu else None) for value in (-4.0, 2.0))
        a.requires_grad = b.requires_grad = True
        c = a + b
        d = a * b + b**3
        c += c + 1
        c += 1 + c + (-a)
        d += d * 2 + relu(b + a)
        d += 3 * d + relu(b - a)
        e = c - d
        f = e**2
        g = f / 2.0
        g += 10.0 / f
        g.backward()
        results.append([g.item(), float(a.grad), float(b.grad)])
    np.testing.assert_allclose(*results, rtol=1e-12)
    np.testing.assert_allclose(results[1], [24.7041, 138.8338, 645.5773], atol=5e-5)


def test_micrograd_separates_two_moons():
    X, y = make_moons(n_samples=100, noise=0.1, random_state=1)
    y = y * 2 - 1
    theirs = torch.nn.Sequential(
        torch.nn.Linear(2, 16), torch.nn.ReLU(), torch.nn.Linear(16, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1)
    ).double()
    ours = nn.Sequential(nn.Dense(2, 16), nn.ReLU(), nn.Dense(16, 16), nn.ReLU(), nn.Dense(16, 1)).astype("float64")
    mf.import_torch(ours, theirs.state_dict())

    expected = []
    for k in range(50):
        scores = theirs(torch.tensor(X))[:, 0]
        loss = F.relu(1 - torch.tensor(y) * scores).mean() + 1e-4 * sum((p * p).sum() for p in theirs.parameters())
        theirs.zero_grad()
        loss.backward()
        for p in theirs.parameters():
            p.data -= (1.0 - 0.9 * k / 50) * p.grad
        expected.append(loss.item())

    losses = []
    for k in range(50):
        scores = ours(X)[:, 0]
        loss = mf.ops.relu(1 - y * scores).mean() + 1e-4 * sum((p * p).sum() for p in ours.parameters())
        ours.zero_grad()
        loss.backward()
        for p in ours.parameters():
            p.data -= (1.0 - 0.9 * k / 50) * p.grad
        losses.append(loss.item())

    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert losses[-1] < 0.3


def test_makemore_bigrams():
    xs, ys = contexts(1)
    start = np.random.default_rng(0).normal(size=(V, V))

    W, expected = torch.tensor(start, requires_grad=True), []
    for _ in range(50):
        counts = (F.one_hot(torch.tensor(xs[:, 0]), V).double() @ W).exp()
        probs = counts / counts.sum(1, keepdims=True)
        loss = -probs[torch.arange(len(ys)), torch.tensor(ys)].log().mean() + 0.01 * (W**2).mean()
        W.grad = None
        loss.backward()
        W.data += -20 * W.grad
        expected.append(loss.item())

    W, losses = mf.tensor(start, requires_grad=True), []
    for _ in range(50):
        counts = np.exp(np.eye(V)[xs[:, 0]] @ W)
        probs = counts / counts.sum(1, keepdims=True)
        loss = -np.log(probs[np.arange(len(ys)), ys]).mean() + 0.01 * (W**2).mean()
        W.grad = None
        loss.backward()
        W.data += -20 * W.grad
        losses.append(loss.item())

    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert losses[-1] < 0.7 * losses[0]


def test_makemore_net_of_three_letters():
    X, Y = contexts(3)
    rng = np.random.default_rng(0)
    start = [rng.normal(size=shape) for shape in [(V, 2), (6, 30), 30, (30, V), V]]
    rows = [rng.integers(0, len(X), 32) for _ in range(60)]

    parameters, expected = [torch.tensor(value) for value in start], []
    for p in parameters:
        p.requires_grad = True
    C, W1, b1, W2, b2 = parameters
    for ix in rows:
        emb = C[torch.tensor(X[ix])]
        h = torch.tanh(emb.view(-1, 6) @ W1 + b1)
        loss = F.cross_entropy(h @ W2 + b2, torch.tensor(Y[ix]))
        for p in parameters:
            p.grad = None
        loss.backward()
        for p in parameters:
            p.data += -0.1 * p.grad
        expected.append(loss.item())

    parameters, losses = [mf.tensor(value) for value in start], []
    for p in parameters:
        p.requires_grad = True
    C, W1, b1, W2, b2 = parameters
    for ix in rows:
        emb = C[X[ix]]
        h = np.tanh(emb.reshape(-1, 6) @ W1 + b1)
        loss = mf.ops.cross_entropy(h @ W2 + b2, Y[ix])
        for p in parameters:
            p.grad = None
        loss.backward()
        for p in parameters:
            p.data += -0.1 * p.grad
        losses.append(loss.item())

    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


def test_makemore_recurrent_cell():
    class TheirCell(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.start = torch.nn.Parameter(torch.zeros(1, 16))
            self.wte = torch.nn.Embedding(V, 8)
            self.cell = torch.nn.Linear(8 + 16, 16)
            self.head = torch.nn.Linear(16, V)

        def forward(self, idx, targets):
            emb, hidden = self.wte(idx), []
            h = self.start.expand(len(idx), -1)
            for i in range(idx.shape[1]):
                h = torch.tanh(self.cell(torch.cat([emb[:, i], h], dim=1)))
                hidden.append(h)
            logits = self.head(torch.stack(hidden, 1))
            return F.cross_entropy(logits.view(-1, V), targets.view(-1), ignore_index=-1)

    class OurCell(nn.Module):
        def __init__(self):
            self.start = nn.Parameter(np.zeros((1, 16)))
            self.wte = nn.Embedding(V, 8)
            self.cell = nn.Dense(8 + 16, 16)
            self.head = nn.Dense(16, V)
            self.loss = nn.CrossEntropyLoss(ignore_index=-1)

        def forward(self, idx, targets):
            emb, hidden = self.wte(idx), []
            h = np.broadcast_to(self.start, (len(idx), 16))
            for i in range(idx.shape[1]):
                h = np.tanh(self.cell(np.concatenate([emb[:, i], h], axis=1)))
                hidden.append(h)
            logits = self.head(np.stack(hidden, 1))
            return self.loss(logits.reshape(-1, V), targets.reshape(-1))

    longest = max(map(len, NAMES))
    x = np.array([[0] + [CODE[c] for c in name] + [0] * (longest - len(name)) for name in NAMES])
    y = np.array([[CODE[c] for c in name] + [0] + [-1] * (longest - len(name)) for name in NAMES])
    theirs, ours = TheirCell().double(), OurCell().astype("float64")
    mf.import_torch(ours, theirs.state_dict())

    optimizer, expected = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.01, betas=(0.9, 0.99)), []
    for _ in range(30):
        loss = theirs(torch.tensor(x), torch.tensor(y))
        theirs.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        expected.append(loss.item())

    optimizer, losses = optim.AdamW(ours.parameters(), lr=0.01, weight_decay=0.01, betas=(0.9, 0.99)), []
    for _ in range(30):
        loss = ours(x, y)
        ours.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("compiled", [False, True])
def test_text_by_truncated_backpropagation(compiled):
    text = " ".join([TEXT] * 3)
    letters = sorted(set(text))
    codes = np.array([letters.index(letter) for letter in text[: 4 * 64 + 1]])
    x, y = codes[:-1].reshape(4, 64), codes[1:].reshape(4, 64)
    n = len(letters)

    class Their(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(n, 8)
            self.gru = torch.nn.GRU(8, 16, 2, batch_first=True)
            self.head = torch.nn.Linear(16, n)

        def forward(self, x, state):
            outputs, state = self.gru(self.embedding(x), state)
            return self.head(outputs), state

    class Our(nn.Module):
        def __init__(self):
            self.embedding = nn.Embedding(n, 8)
            self.gru = nn.GRU(8, 16, num_layers=2)
            self.head = nn.Dense(16, n)

        def forward(self, x, state):
            outputs, state = self.gru(self.embedding(x), state)
            return self.head(outputs), state

    theirs, ours = Their().double(), Our().astype("float64")
    mf.import_torch(ours, theirs.state_dict())

    optimizer, expected = torch.optim.Adam(theirs.parameters(), lr=0.02), []
    for _ in range(5):
        state = torch.zeros(2, 4, 16, dtype=torch.float64)
        for k in range(0, 64, 8):
            optimizer.zero_grad()
            logits, state = theirs(torch.tensor(x[:, k : k + 8]), state.detach())
            loss = F.cross_entropy(logits.reshape(-1, n), torch.tensor(y[:, k : k + 8]).reshape(-1))
            loss.backward()
            optimizer.step()
            expected.append(loss.item())

    optimizer, losses = optim.Adam(ours.parameters(), lr=0.02), []

    def piece(x, y, state):
        logits, state = ours(x, state)
        return mf.ops.cross_entropy(logits.reshape(-1, n), y.reshape(-1)), state

    def step(x, y, state):
        optimizer.zero_grad()
        loss, state = piece(x, y, state.detach())
        loss.backward()
        optimizer.step()
        return loss, state

    if compiled:
        step = mf.compile(piece, optimizer)
    for _ in range(5):
        state = mf.tensor(np.zeros((2, 4, 16)))
        for k in range(0, 64, 8):
            loss, state = step(x[:, k : k + 8], y[:, k : k + 8], state)
            losses.append(loss.item())

    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:8])
    if compiled:
        assert "replayed" in str(step.explain())


def test_makemore_batch_normalization():
    X, Y = contexts(3)
    rng = np.random.default_rng(0)
    start = [rng.normal(size=shape) * scale for shape, scale in [((V, 4), 1), ((12, 30), 0.5), ((30, V), 0.01), (V, 0)]]
    start += [np.ones((1, 30)), np.zeros((1, 30))]
    rows = [rng.integers(0, len(X), 32) for _ in range(40)]

    parameters, expected = [torch.tensor(value, requires_grad=True) for value in start], []
    C, W1, W2, b2, bngain, bnbias = parameters
    mean_running, std_running = torch.zeros(1, 30).double(), torch.ones(1, 30).double()
    for ix in rows:
        hpreact = C[torch.tensor(X[ix])].view(32, -1) @ W1
        mean, std = hpreact.mean(0, keepdim=True), hpreact.std(0, keepdim=True)
        h = torch.tanh(bngain * (hpreact - mean) / std + bnbias)
        with torch.no_grad():
            mean_running = 0.9 * mean_running + 0.1 * mean
            std_running = 0.9 * std_running + 0.1 * std
        loss = F.cross_entropy(h @ W2 + b2, torch.tensor(Y[ix]))
        for p in parameters:
            p.grad = None
        loss.backward()
        for p in parameters:
            p.data += -0.1 * p.grad
        expected.append(loss.item())
    h = torch.tanh(bngain * (C[torch.tensor(X)].view(len(X), -1) @ W1 - mean_running) / std_running + bnbias)
    expected.append(F.cross_entropy(h @ W2 + b2, torch.tensor(Y)).item())

    parameters, losses = [mf.tensor(value, requires_grad=True) for value in start], []
    C, W1, W2, b2, bngain, bnbias = parameters
    mean_running, std_running = np.zeros((1, 30)), np.ones((1, 30))
    for ix in rows:
        hpreact = C[X[ix]].reshape(32, -1) @ W1
        mean, std = hpreact.mean(0, keepdims=True), hpreact.std(0, keepdims=True, ddof=1)
        h = np.tanh(bngain * (hpreact - mean) / std + bnbias)
        with mf.no_grad():
            mean_running = 0.9 * mean_running + 0.1 * mean
            std_running = 0.9 * std_running + 0.1 * std
        loss = mf.ops.cross_entropy(h @ W2 + b2, Y[ix])
        for p in parameters:
            p.grad = None
        loss.backward()
        for p in parameters:
            p.data += -0.1 * p.grad
        losses.append(loss.item())
    h = np.tanh(bngain * (C[X].reshape(len(X), -1) @ W1 - mean_running) / std_running + bnbias)
    losses.append(mf.ops.cross_entropy(h @ W2 + b2, Y).item())

    np.testing.assert_allclose(losses, expected, rtol=1e-9)
    assert losses[-1] < 0.9 * losses[0]
