"""Programs of images, words and regression, written as for PyTorch or JAX: the losses of all steps are equal."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim

torch = pytest.importorskip("torch")
T, F = torch.nn, torch.nn.functional
pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]


replayed = pytest.mark.parametrize("compiled", [False, True])


def same(ours, theirs):
    np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    assert theirs[-1] < theirs[0]


class Steps(mf.Hook):
    """The loss of each step of a Trainer."""

    def __init__(self):
        self.losses = []

    def on_step_end(self, state):
        self.losses.append(state.loss)


def train(optimizer, losses, loss):
    """Take a step of either library."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())


def test_word2vec_with_negative_samples():
    """Skip-gram: a word's vector finds the words around it among words drawn by their frequency to the power 0.75."""
    text = ("the king rules the land and the queen rules the sea while the farmer works the land " * 6).split()
    words = sorted(set(text))
    ids = np.array([words.index(word) for word in text])
    pairs = np.array(
        [(ids[k], ids[j]) for k in range(len(ids)) for j in range(max(k - 2, 0), min(k + 3, len(ids))) if j != k]
    )
    frequency = np.bincount(ids) ** 0.75
    frequency /= frequency.sum()

    class Ours(nn.Module):
        def __init__(self):
            self.center = nn.Embedding(len(words), 10, init=lambda shape, rng: rng.uniform(-0.05, 0.05, shape))
            self.context = nn.Embedding(len(words), 10)

        def forward(self, center, context, negatives):
            v = self.center(center)
            positive = (v * self.context(context)).sum(axis=1)
            negative = (self.context(negatives) @ v[:, :, None]).squeeze(2)
            return -(np.log(mf.ops.sigmoid(positive)) + np.log(mf.ops.sigmoid(-negative)).sum(axis=1)).mean()

    class Theirs(T.Module):
        def __init__(self):
            super().__init__()
            self.center, self.context = T.Embedding(len(words), 10), T.Embedding(len(words), 10)

        def forward(self, center, context, negatives):
            v = self.center(center)
            positive = (v * self.context(context)).sum(1)
            negative = torch.bmm(self.context(negatives), v[:, :, None]).squeeze(2)
            return -(F.logsigmoid(positive) + F.logsigmoid(-negative).sum(1)).mean()

    torch.manual_seed(0)
    theirs, ours = Theirs().double(), Ours().astype(np.float64)
    mf.import_torch(ours, theirs.state_dict())
    optimizer, other = optim.SGD(ours.parameters(), lr=0.5), torch.optim.SGD(theirs.parameters(), lr=0.5)
    rng, losses, expected = np.random.default_rng(0), [], []
    for step in range(60):
        rows = pairs[rng.integers(0, len(pairs), 64)]
        negatives = rng.choice(len(words), (64, 5), p=frequency)
        optimizer.lr = other.param_groups[0]["lr"] = 0.5 * (1 - step / 60)
        train(optimizer, losses, ours(rows[:, 0], rows[:, 1], negatives))
        train(other, expected, theirs(*(torch.tensor(a) for a in (rows[:, 0], rows[:, 1], negatives))))
    same(losses, expected)
    np.testing.assert_allclose(ours.center.weight.numpy(), theirs.center.weight.detach().numpy(), rtol=1e-6)


def test_linear_regression_from_scratch():
    """d2l, 3.4: parameters are tensors, and the step is written out."""
    rng = np.random.default_rng(0)
    X = rng.standard_normal((200, 2))
    y = X @ [2.0, -3.4] + 4.2 + rng.normal(0, 0.01, 200)
    start = rng.normal(0, 0.01, (2, 1))

    def batches(rng):
        indices = rng.permutation(200)
        for k in range(0, 200, 20):
            yield X[indices[k : k + 20]], y[indices[k : k + 20]]

    w, b = mf.tensor(start.copy(), requires_grad=True), mf.tensor(np.zeros(1), requires_grad=True)
    losses, rng = [], np.random.default_rng(1)
    for _ in range(3):
        for features, labels in batches(rng):
            y_hat = features @ w + b
            loss = ((y_hat - labels.reshape(y_hat.shape)) ** 2 / 2).mean()
            loss.backward()
            with mf.no_grad():
                for param in [w, b]:
                    param -= 0.3 * param.grad
                    param.zero_grad()
            losses.append(loss.item())
    v, c = torch.tensor(start, requires_grad=True), torch.zeros(1, dtype=torch.float64, requires_grad=True)
    expected, rng = [], np.random.default_rng(1)
    for _ in range(3):
        for features, labels in batches(rng):
            y_hat = torch.tensor(features) @ v + c
            loss = ((y_hat - torch.tensor(labels).reshape(y_hat.shape)) ** 2 / 2).mean()
            loss.backward()
            with torch.no_grad():
                for param in [v, c]:
                    param -= 0.3 * param.grad
                    param.grad.zero_()
            expected.append(loss.item())
    same(losses, expected)
    np.testing.assert_allclose(w.numpy().ravel(), [2.0, -3.4], atol=0.01)


def test_softmax_regression_from_scratch():
    """d2l, 4.4: softmax and cross-entropy are written out, with an index for each row's label."""
    data, _ = mf.data.load("digits", rng=0)
    X, y = data.X.astype(np.float64)[:256], data.y[:256]
    start = np.random.default_rng(0).normal(0, 0.01, (64, 10))

    class SoftmaxRegression(nn.Module):
        def __init__(self):
            self.W = nn.Parameter(start.copy())
            self.b = nn.Parameter(np.zeros(10))

        def forward(self, X):
            return softmax(X.reshape((-1, self.W.shape[0])) @ self.W + self.b)

    def softmax(X):
        X_exp = np.exp(X)
        return X_exp / X_exp.sum(axis=1, keepdims=True)

    def cross_entropy(y_hat, y):
        return -np.log(y_hat[list(range(len(y_hat))), y]).mean()

    model, losses = SoftmaxRegression().astype(np.float64), []
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    for _ in range(4):
        for k in range(0, 256, 32):
            train(optimizer, losses, cross_entropy(model(X[k : k + 32]), y[k : k + 32]))
    W, b = torch.tensor(start, requires_grad=True), torch.zeros(10, dtype=torch.float64, requires_grad=True)
    other, expected = torch.optim.SGD([W, b], lr=0.1), []
    for _ in range(4):
        for k in range(0, 256, 32):
            X_exp = torch.exp(torch.tensor(X[k : k + 32]) @ W + b)
            y_hat = X_exp / X_exp.sum(1, keepdim=True)
            labels = torch.tensor(y[k : k + 32].astype(int))
            train(other, expected, -torch.log(y_hat[list(range(len(y_hat))), labels]).mean())
    same(losses, expected)


@replayed
def test_convolutional_autoencoder(compiled):
    """Strided convolutions down to 2 × 2, transposed ones back to 8 × 8; the input is noisy."""
    data, _ = mf.data.load("digits", rng=0)
    clean = data.X[:96].reshape(-1, 1, 8, 8).astype(np.float64)
    clean /= clean.max()

    def noisy(X, y, rng):
        return X + 0.2 * rng.standard_normal(X.shape), y

    ours = nn.Sequential(
        {
            "encoder": nn.Sequential(
                nn.Conv2D(1, 8, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Conv2D(8, 16, 3, stride=2, padding=1),
                nn.ReLU(),
            ),
            "decoder": nn.Sequential(
                nn.ConvTranspose2D(16, 8, 3, stride=2, padding=1, output_padding=1),
                nn.ReLU(),
                nn.ConvTranspose2D(8, 1, 3, stride=2, padding=1, output_padding=1),
                nn.Sigmoid(),
            ),
        }
    ).astype(np.float64)
    torch.manual_seed(0)
    theirs = T.Sequential()
    theirs.encoder = T.Sequential(
        T.Conv2d(1, 8, 3, stride=2, padding=1), T.ReLU(), T.Conv2d(8, 16, 3, stride=2, padding=1), T.ReLU()
    )
    theirs.decoder = T.Sequential(
        T.ConvTranspose2d(16, 8, 3, stride=2, padding=1, output_padding=1),
        T.ReLU(),
        T.ConvTranspose2d(8, 1, 3, stride=2, padding=1, output_padding=1),
        T.Sigmoid(),
    )
    theirs.double()
    mf.import_torch(ours, theirs.state_dict())
    steps = Steps()
    trainer = mf.Trainer(ours, nn.MSELoss(), optim.Adam(ours.parameters(), lr=0.01), hooks=[steps], compile=compiled)
    trainer.fit((clean, clean), epochs=8, batch_size=32, rng=1, progress=False, transform=noisy)
    rng, other, expected = np.random.default_rng(1), torch.optim.Adam(theirs.parameters(), lr=0.01), []
    for _ in range(8):
        for X, y in mf.data.batches((clean, clean), 32, rng=rng):
            X, y = noisy(X, y, rng)
            train(other, expected, F.mse_loss(theirs(torch.tensor(X)), torch.tensor(y)))
    same(steps.losses, expected)
    codes = ours["encoder"](clean[:4]).numpy()
    np.testing.assert_allclose(codes, theirs.encoder(torch.tensor(clean[:4])).detach().numpy(), rtol=1e-6, atol=1e-9)


@replayed
def test_regression_with_a_variance(compiled):
    """Nix and Weigend: the noise of the data grows with x, and a second head learns it."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (120, 1))
    y = np.sin(3 * x) + (0.05 + 0.3 * (x > 0)) * rng.standard_normal((120, 1))

    class Ours(nn.Module):
        def __init__(self):
            self.body = nn.Sequential(nn.Dense(1, 16), nn.Tanh(), nn.Dense(16, 16), nn.Tanh())
            self.mean, self.raw = nn.Dense(16, 1), nn.Dense(16, 1)

        def forward(self, x):
            h = self.body(x)
            return self.mean(h), mf.ops.softplus(self.raw(h))

    class Theirs(T.Module):
        def __init__(self):
            super().__init__()
            self.body = T.Sequential(T.Linear(1, 16), T.Tanh(), T.Linear(16, 16), T.Tanh())
            self.mean, self.raw = T.Linear(16, 1), T.Linear(16, 1)

        def forward(self, x):
            h = self.body(x)
            return self.mean(h), F.softplus(self.raw(h))

    torch.manual_seed(0)
    theirs, ours = Theirs().double(), Ours().astype(np.float64)
    mf.import_torch(ours, theirs.state_dict())
    steps = Steps()
    trainer = mf.Trainer(
        ours, nn.GaussianNLLLoss(), optim.Adam(ours.parameters(), lr=0.01), hooks=[steps], compile=compiled
    )
    trainer.fit((x, y), epochs=20, batch_size=40, rng=2, progress=False)
    rng, other, expected = np.random.default_rng(2), torch.optim.Adam(theirs.parameters(), lr=0.01), []
    for _ in range(20):
        for X, targets in mf.data.batches((x, y), 40, rng=rng):
            mean, var = theirs(torch.tensor(X))
            train(other, expected, F.gaussian_nll_loss(mean, torch.tensor(targets), var))
    same(steps.losses, expected)
    mean, var = trainer.predict(x)
    np.testing.assert_allclose(var, theirs(torch.tensor(x))[1].detach().numpy(), rtol=1e-7)


@replayed
def test_mixture_density_network(compiled):
    """Bishop: x = y + 0.3 sin(2 pi y) has several y for an x; three Gaussians are mixed for each."""
    rng = np.random.default_rng(0)
    t = rng.uniform(0, 1, (128, 1))
    x = t + 0.3 * np.sin(2 * np.pi * t) + rng.uniform(-0.1, 0.1, (128, 1))
    torch.manual_seed(0)
    theirs = T.Sequential(T.Linear(1, 20), T.Tanh(), T.Linear(20, 9)).double()
    ours = nn.Sequential(nn.Dense(1, 20), nn.Tanh(), nn.Dense(20, 9)).astype(np.float64)
    mf.import_torch(ours, theirs.state_dict())

    def likelihood(outputs, t):
        logits, mean, log_sigma = np.split(outputs, 3, axis=1)
        z = (t - mean) / np.exp(log_sigma)
        log_density = -0.5 * z**2 - log_sigma - 0.5 * np.log(2 * np.pi)
        return -mf.ops.logsumexp(mf.ops.log_softmax(logits, axis=1) + log_density, axis=1).mean()

    steps = Steps()
    trainer = mf.Trainer(ours, likelihood, optim.Adam(ours.parameters(), lr=0.02), hooks=[steps], compile=compiled)
    trainer.fit((x, t), epochs=10, batch_size=32, rng=3, progress=False)
    rng, other, expected = np.random.default_rng(3), torch.optim.Adam(theirs.parameters(), lr=0.02), []
    for _ in range(10):
        for X, targets in mf.data.batches((x, t), 32, rng=rng):
            logits, mean, log_sigma = theirs(torch.tensor(X)).chunk(3, dim=1)
            mixture = torch.distributions.MixtureSameFamily(
                torch.distributions.Categorical(logits=logits), torch.distributions.Normal(mean, log_sigma.exp())
            )
            train(other, expected, -mixture.log_prob(torch.tensor(targets[:, 0])).mean())
    same(steps.losses, expected)


@replayed
def test_siamese_network(compiled):
    """Hadsell, Chopra and LeCun: two digits of one class are near, others farther away than a margin."""
    data, _ = mf.data.load("digits", rng=0)
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 300, (2, 160))
    first, second = data.X[rows].astype(np.float64)
    equal = (data.y[rows[0]] == data.y[rows[1]]).astype(np.float64)

    class Ours(nn.Module):
        def __init__(self):
            self.tower = nn.Sequential(nn.Dense(64, 24), nn.ReLU(), nn.Dense(24, 2))

        def forward(self, first, second):
            return np.linalg.norm(self.tower(first) - self.tower(second), axis=1)

    class Theirs(T.Module):
        def __init__(self):
            super().__init__()
            self.tower = T.Sequential(T.Linear(64, 24), T.ReLU(), T.Linear(24, 2))

        def forward(self, first, second):
            return torch.linalg.norm(self.tower(first) - self.tower(second), dim=1)

    def contrastive(distance, equal):
        return (equal * distance**2 + (1 - equal) * np.maximum(1 - distance, 0) ** 2).mean()

    torch.manual_seed(0)
    theirs, ours = Theirs().double(), Ours().astype(np.float64)
    mf.import_torch(ours, theirs.state_dict())
    steps = Steps()
    trainer = mf.Trainer(
        ours, contrastive, optim.SGD(ours.parameters(), lr=0.1, momentum=0.9), hooks=[steps], compile=compiled
    )
    trainer.fit(((first, second), equal), epochs=8, batch_size=40, rng=1, progress=False)
    rng, other, expected = np.random.default_rng(1), torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9), []
    for _ in range(8):
        for (a, b), y in mf.data.batches(((first, second), equal), 40, rng=rng):
            distance, y = theirs(torch.tensor(a), torch.tensor(b)), torch.tensor(y)
            train(other, expected, (y * distance**2 + (1 - y) * torch.clamp(1 - distance, min=0) ** 2).mean())
    same(steps.losses, expected)


def test_maml_on_sine_waves():
    """Finn, Abbeel and Levine, as for JAX: the gradient goes through one step of gradient descent on each wave."""
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    rng = np.random.default_rng(0)
    sizes = [(1, 20), (20, 20), (20, 1)]
    start = [(rng.normal(0, i**-0.5, (i, o)), np.zeros(o)) for i, o in sizes]

    def program(np, grad, value_and_grad, jit, params):
        def network(params, x):
            *hidden, (w, b) = params
            for v, c in hidden:
                x = np.tanh(x @ v + c)
            return x @ w + b

        def loss(params, x, y):
            return np.mean((network(params, x) - y) ** 2)

        def adapted(params, x, y):
            grads = grad(loss)(params, x, y)
            return [(w - 0.1 * dw, b - 0.1 * db) for (w, b), (dw, db) in zip(params, grads, strict=True)]

        def maml(params, tasks):
            return sum(loss(adapted(params, x1, y1), x2, y2) for x1, y1, x2, y2 in tasks) / len(tasks)

        losses, draw, step = [], rng_of(1), jit(value_and_grad(maml))
        for _ in range(25):
            value, grads = step(params, [wave(draw) for _ in range(2)])
            losses.append(float(value))
            params = [(w - 0.02 * dw, b - 0.02 * db) for (w, b), (dw, db) in zip(params, grads, strict=True)]
        return losses

    rng_of = np.random.default_rng

    def wave(rng):
        amplitude, phase = rng.uniform(0.5, 2), rng.uniform(0, np.pi)
        x = rng.uniform(-3, 3, (2, 10, 1))
        y = amplitude * np.sin(x + phase)
        return x[0], y[0], x[1], y[1]

    ours = program(np, mf.grad, mf.value_and_grad, lambda f: f, start)
    same(ours, program(jax.numpy, jax.grad, jax.value_and_grad, jax.jit, start))
