"""Programs of sequences and tables, written as for PyTorch: the losses of all steps are equal."""

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


def one_bias(theirs):
    """Keep PyTorch's second bias of an RNN or LSTM at 0: two biases with one gradient move twice as far."""
    for name, p in theirs.named_parameters():
        if "bias_hh" in name:
            p.requires_grad_(False).zero_()


def clip(theirs, most):
    """Clip the norm to exactly the maximum; PyTorch's function divides by the norm plus 1e-6."""
    gradients = [p.grad for p in theirs.parameters() if p.grad is not None]
    norm = T.utils.get_total_norm(gradients)
    if norm > most:
        for g in gradients:
            g.mul_(most / norm)


def test_seq2seq_reverses_digits():
    """An encoder reads digits, a decoder writes them backwards; texts have 2 to 7 digits. Ids: 0 pads, 1 starts."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 8, 64)
    there = np.arange(7) < lengths[:, None]
    source = np.where(there, rng.integers(2, 12, (64, 7)), 0)
    target = np.zeros_like(source)
    for row, n in enumerate(lengths):
        target[row, :n] = source[row, :n][::-1]
    given = np.concatenate([np.ones((64, 1), int), target[:, :-1]], axis=1)

    class Ours(nn.Module):
        def __init__(self):
            self.source, self.target = nn.Embedding(12, 8, padding_idx=0), nn.Embedding(12, 8, padding_idx=0)
            self.encoder, self.decoder, self.out = nn.GRU(8, 16), nn.GRU(8, 16), nn.Dense(16, 12)

        def forward(self, source, lengths, given):
            _, state = self.encoder(self.source(source), lengths=lengths)
            outputs, _ = self.decoder(self.target(given), state)
            return self.out(outputs)

        def write(self, source, lengths):
            _, state = self.encoder(self.source(source), lengths=lengths)
            token, written = np.ones((len(source), 1), int), []
            for _ in range(source.shape[1]):
                output, state = self.decoder(self.target(token), state)
                token = self.out(output).argmax(axis=2)
                written.append(token)
            return np.concatenate(written, axis=1)

    class Theirs(T.Module):
        def __init__(self):
            super().__init__()
            self.source, self.target = T.Embedding(12, 8, padding_idx=0), T.Embedding(12, 8, padding_idx=0)
            self.encoder, self.decoder = T.GRU(8, 16, batch_first=True), T.GRU(8, 16, batch_first=True)
            self.out = T.Linear(16, 12)

        def encode(self, source, lengths):
            packed = T.utils.rnn.pack_padded_sequence(
                self.source(source), lengths, batch_first=True, enforce_sorted=False
            )
            return self.encoder(packed)[1]

        def forward(self, source, lengths, given):
            outputs, _ = self.decoder(self.target(given), self.encode(source, lengths))
            return self.out(outputs)

        def write(self, source, lengths):
            state, token, written = self.encode(source, lengths), torch.ones((len(source), 1), dtype=int), []
            for _ in range(source.shape[1]):
                output, state = self.decoder(self.target(token), state)
                token = self.out(output).argmax(2)
                written.append(token)
            return torch.cat(written, dim=1)

    torch.manual_seed(0)
    theirs = Theirs().double()
    ours = Ours().astype(np.float64)
    mf.import_torch(ours, theirs.state_dict())
    criterion = nn.CrossEntropyLoss(ignore_index=0)
    optimizer, other = optim.Adam(ours.parameters(), lr=0.02), torch.optim.Adam(theirs.parameters(), lr=0.02)
    losses, expected = [], []
    for step in range(40):
        rows = slice(step % 2 * 32, step % 2 * 32 + 32)
        optimizer.zero_grad()
        logits = ours(source[rows], lengths[rows], given[rows])
        loss = criterion(logits.reshape(-1, 12), target[rows].reshape(-1))
        loss.backward()
        optim.clip_grad_norm(optimizer, 0.3)
        optimizer.step()
        losses.append(loss.item())
    x, n, y, z = (torch.tensor(a) for a in (source, lengths, given, target))
    for step in range(40):
        rows = slice(step % 2 * 32, step % 2 * 32 + 32)
        other.zero_grad()
        logits = theirs(x[rows], n[rows], y[rows])
        loss = F.cross_entropy(logits.reshape(-1, 12), z[rows].reshape(-1), ignore_index=0)
        loss.backward()
        clip(theirs, 0.3)
        other.step()
        expected.append(loss.item())
    same(losses, expected)
    with mf.no_grad():
        written = ours.write(source, lengths)
    np.testing.assert_array_equal(written, theirs.write(x, n).numpy())


@replayed
def test_lstm_classifies_ragged_sequences(compiled):
    """Two layers in two directions; the class is that of the most frequent token."""
    rng = np.random.default_rng(1)
    lengths = rng.integers(1, 12, 60)
    labels = rng.integers(0, 3, 60)
    tokens = np.where(rng.random((60, 11)) < 0.6, labels[:, None], rng.integers(0, 6, (60, 11)))

    class Ours(nn.Module):
        def __init__(self):
            self.embed = nn.Embedding(6, 8)
            self.lstm = nn.LSTM(8, 12, num_layers=2, bidirectional=True)
            self.head = nn.Dense(24, 3)

        def forward(self, tokens, lengths):
            _, (h, c) = self.lstm(self.embed(tokens), lengths=lengths)
            return self.head(np.concatenate([h[-2], h[-1]], axis=1))

    class Theirs(T.Module):
        def __init__(self):
            super().__init__()
            self.embed = T.Embedding(6, 8)
            self.lstm = T.LSTM(8, 12, num_layers=2, bidirectional=True, batch_first=True)
            self.head = T.Linear(24, 3)

        def forward(self, tokens, lengths):
            x = T.utils.rnn.pack_padded_sequence(self.embed(tokens), lengths, batch_first=True, enforce_sorted=False)
            _, (h, c) = self.lstm(x)
            return self.head(torch.cat([h[-2], h[-1]], dim=1))

    torch.manual_seed(0)
    theirs, ours = Theirs().double(), Ours().astype(np.float64)
    one_bias(theirs)
    mf.import_torch(ours, theirs.state_dict())
    steps, adam, data = Steps(), optim.Adam(ours.parameters(), lr=0.01), ((tokens, lengths), labels)
    trainer = mf.Trainer(ours, nn.CrossEntropyLoss(), adam, ["accuracy"], hooks=[steps], compile=compiled)
    trainer.fit(data, epochs=10, batch_size=20, rng=3, progress=False)
    rng, other, expected = np.random.default_rng(3), torch.optim.Adam(theirs.parameters(), lr=0.01), []
    for _ in range(10):
        for (x, n), y in mf.data.batches(data, 20, rng=rng):
            other.zero_grad()
            loss = F.cross_entropy(theirs(torch.tensor(x), torch.tensor(n)), torch.tensor(y))
            loss.backward()
            other.step()
            expected.append(loss.item())
    same(steps.losses, expected)
    x, n, y = (torch.tensor(a) for a in (tokens, lengths, labels))
    right = (theirs(x, n).argmax(1) == y).double().mean().item()
    assert trainer.evaluate(data)["accuracy"] == pytest.approx(right)


def test_transformer_language_model_of_characters():
    """Two causal blocks with learned positions; it samples some characters in the end."""
    text = "the quick brown fox jumps over the lazy dog and the slow red hen sits under the old tree " * 4
    characters = sorted(set(text))
    ids = np.array([characters.index(c) for c in text])
    vocabulary, block = len(characters), 16

    class Ours(nn.Module):
        def __init__(self):
            self.tokens, self.positions = nn.Embedding(vocabulary, 16), nn.Embedding(block, 16)
            self.blocks = [
                nn.TransformerEncoderLayer(16, 2, 32, dropout=0, activation="gelu", norm_first=True, causal=True)
                for _ in range(2)
            ]
            self.norm, self.head = nn.LayerNorm(16), nn.Dense(16, vocabulary, bias=False)

        def forward(self, ids):
            x = self.tokens(ids) + self.positions(np.arange(ids.shape[1]))
            for layer in self.blocks:
                x = layer(x)
            return self.head(self.norm(x))

    class Theirs(T.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.positions = T.Embedding(vocabulary, 16), T.Embedding(block, 16)
            options = {"activation": "gelu", "norm_first": True, "batch_first": True}
            self.blocks = T.ModuleList(T.TransformerEncoderLayer(16, 2, 32, 0.0, **options) for _ in range(2))
            self.norm, self.head = T.LayerNorm(16), T.Linear(16, vocabulary, bias=False)

        def forward(self, ids):
            x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
            mask = T.Transformer.generate_square_subsequent_mask(ids.shape[1], dtype=torch.float64)
            for layer in self.blocks:
                x = layer(x, mask, is_causal=True)
            return self.head(self.norm(x))

    torch.manual_seed(0)
    theirs, ours = Theirs().double(), Ours().astype(np.float64)
    mf.import_torch(ours, theirs.state_dict())
    optimizer = optim.AdamW(ours.parameters(), lr=0.01, weight_decay=0.01)
    other = torch.optim.AdamW(theirs.parameters(), lr=0.01, weight_decay=0.01)
    criterion, rng, losses, expected = nn.CrossEntropyLoss(), np.random.default_rng(0), [], []
    for _ in range(30):
        starts = rng.integers(0, len(ids) - block - 1, (8, 1))
        x, y = ids[starts + np.arange(block)], ids[starts + 1 + np.arange(block)]
        loss = criterion(ours(x).reshape(-1, vocabulary), y.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        loss = F.cross_entropy(theirs(torch.tensor(x)).reshape(-1, vocabulary), torch.tensor(y).reshape(-1))
        other.zero_grad()
        loss.backward()
        other.step()
        expected.append(loss.item())
    same(losses, expected)
    ours.eval()
    context, again = ids[None, :4], torch.tensor(ids[None, :4])
    with mf.no_grad():
        for _ in range(20):
            logits = ours(context[:, -block:])[:, -1]
            context = np.concatenate([context, logits.argmax(axis=-1)[:, None]], axis=1)
            again = torch.cat([again, theirs(again[:, -block:])[:, -1].argmax(-1)[:, None]], dim=1)
    np.testing.assert_array_equal(np.asarray(context), again.numpy())


@replayed
def test_tickets_with_text_and_tags(compiled):
    """Keras's page on the functional API: title, body and tags of a ticket give its priority and its department."""
    rng = np.random.default_rng(2)
    title, body = rng.integers(0, 30, (96, 5)), rng.integers(0, 30, (96, 9))
    tags = rng.integers(0, 2, (96, 6)).astype(float)
    priority = (title.mean(axis=1, keepdims=True) > body.mean(axis=1, keepdims=True)).astype(float)
    department = tags.argmax(axis=1) % 4

    class Ours(nn.Module):
        def __init__(self):
            self.title_words, self.body_words = nn.Embedding(30, 8), nn.Embedding(30, 8)
            self.title, self.body = nn.LSTM(8, 12), nn.LSTM(8, 6)
            self.priority, self.department = nn.Dense(24, 1), nn.Dense(24, 4)

        def forward(self, title, body, tags):
            _, (title, _) = self.title(self.title_words(title))
            _, (body, _) = self.body(self.body_words(body))
            x = np.concatenate([title, body, tags], axis=1)
            return {"priority": self.priority(x), "department": self.department(x)}

    class Theirs(T.Module):
        def __init__(self):
            super().__init__()
            self.title_words, self.body_words = T.Embedding(30, 8), T.Embedding(30, 8)
            self.title, self.body = T.LSTM(8, 12, batch_first=True), T.LSTM(8, 6, batch_first=True)
            self.priority, self.department = T.Linear(24, 1), T.Linear(24, 4)

        def forward(self, title, body, tags):
            title, body = self.title(self.title_words(title))[1][0][0], self.body(self.body_words(body))[1][0][0]
            x = torch.cat([title, body, tags], dim=1)
            return self.priority(x), self.department(x)

    torch.manual_seed(0)
    theirs, ours = Theirs().double(), Ours().astype(np.float64)
    one_bias(theirs)
    mf.import_torch(ours, theirs.state_dict())
    binary, labels = nn.BCEWithLogitsLoss(), nn.CrossEntropyLoss()

    def loss(outputs, targets):
        return {
            "priority": binary(outputs["priority"], targets["priority"]),
            "department": 0.2 * labels(outputs["department"], targets["department"]),
        }

    rmsprop, steps = optim.RMSprop(ours.parameters(), lr=0.005), Steps()
    trainer = mf.Trainer(ours, loss, rmsprop, {"department": "accuracy"}, hooks=[steps], compile=compiled)
    data = {"title": title, "body": body, "tags": tags}, {"priority": priority, "department": department}
    history = trainer.fit(data, epochs=8, batch_size=32, rng=3, progress=False)
    rng, other, expected, first = np.random.default_rng(3), torch.optim.RMSprop(theirs.parameters(), lr=0.005), [], []
    for _ in range(8):
        for X, targets in mf.data.batches(data, 32, rng=rng):
            other.zero_grad()
            outputs = theirs(**{name: torch.tensor(a) for name, a in X.items()})
            parts = (
                F.binary_cross_entropy_with_logits(outputs[0], torch.tensor(targets["priority"])),
                0.2 * F.cross_entropy(outputs[1], torch.tensor(targets["department"])),
            )
            sum(parts).backward()
            other.step()
            expected.append(sum(parts).item())
            first.append(parts[0].item())
    same(steps.losses, expected)
    np.testing.assert_allclose(history.column("loss/priority"), np.reshape(first, (8, 3)).mean(axis=1), rtol=1e-9)


@pytest.mark.parametrize("alpha", [0.01, 1.0])
def test_classifier_of_moons_with_alpha(alpha):
    """scikit-learn's page on alpha: a penalty on the squared weights, not on biases, smooths the boundary."""
    X, y = pytest.importorskip("sklearn.datasets").make_moons(noise=0.3, random_state=0, n_samples=100)
    torch.manual_seed(0)
    theirs = T.Sequential(T.Linear(2, 20), T.ReLU(), T.Linear(20, 10), T.ReLU(), T.Linear(10, 2)).double()
    network = nn.Sequential(nn.Dense(2, 20), nn.ReLU(), nn.Dense(20, 10), nn.ReLU(), nn.Dense(10, 2))
    mf.import_torch(network.astype(np.float64), theirs.state_dict())
    steps = Steps()
    classifier = mf.estimators.NeuralClassifier(
        module=network,
        alpha=alpha,
        optimizer="sgd",
        learning_rate=0.1,
        batch_size=25,
        shuffle=False,
        max_iter=12,
        n_iter_no_change=None,
        hooks=[steps],
    )
    classifier.fit(X, y)
    other = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    x, labels, expected = torch.tensor(X), torch.tensor(y), []
    for _ in range(12):
        for k in range(0, 100, 25):
            other.zero_grad()
            penalty = sum((layer.weight**2).sum() for layer in theirs if isinstance(layer, T.Linear))
            loss = F.cross_entropy(theirs(x[k : k + 25]), labels[k : k + 25]) + 0.5 * alpha / 25 * penalty
            loss.backward()
            other.step()
            expected.append(loss.item())
    same(steps.losses, expected)
    np.testing.assert_allclose(classifier.predict_proba(X), theirs(x).softmax(1).detach().numpy(), rtol=1e-7)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_classifier_of_iris_as_in_scikit_learn(solver):
    """The estimator starts from the weights of an MLPClassifier, and both are trained further.

    With 1e-8 Adam differs by 1e-5: scikit-learn adds epsilon to the root before it corrects the root's bias.
    """
    X, y = pytest.importorskip("sklearn.datasets").load_iris(return_X_y=True)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    neural = pytest.importorskip("sklearn.neural_network")
    settings = {"alpha": 0.5, "batch_size": 30, "shuffle": False, "n_iter_no_change": 50}
    theirs = neural.MLPClassifier(
        (12,), solver=solver, learning_rate_init=0.02, warm_start=True, max_iter=1, epsilon=1e-16, **settings
    )
    theirs.fit(X, y)
    network = nn.Sequential(nn.Dense(4, 12), nn.ReLU(), nn.Dense(12, 3)).astype(np.float64)
    for layer, weight, bias in zip((network[0], network[2]), theirs.coefs_, theirs.intercepts_, strict=True):
        layer.weight.data, layer.bias.data = weight, bias
    options = {"optimizer_params": {"eps": 1e-16}} if solver == "adam" else {}
    ours = mf.estimators.NeuralClassifier(
        module=network, optimizer=solver, learning_rate=0.02, max_iter=15, **settings, **options
    ).fit(X, y)
    theirs.set_params(max_iter=15).fit(X, y)
    same(ours.loss_curve_, theirs.loss_curve_[-15:])
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-6)


@replayed
def test_matrix_factorization_recommends(compiled):
    """Ratings are a product of a user's and a film's vector, plus biases of both, plus the mean."""
    rng = np.random.default_rng(4)
    user, film = rng.integers(0, 30, 400), rng.integers(0, 40, 400)
    taste, kind = rng.standard_normal((30, 3)), rng.standard_normal((40, 3))
    ratings = np.clip(3 + (taste[user] * kind[film]).sum(axis=1), 1, 5)

    class Ours(nn.Module):
        def __init__(self, mean):
            self.mean = mean
            self.users, self.films = nn.Embedding(30, 8), nn.Embedding(40, 8)
            self.user_bias, self.film_bias = nn.Embedding(30, 1), nn.Embedding(40, 1)

        def forward(self, user, film):
            product = (self.users(user) * self.films(film)).sum(axis=1)
            return self.mean + product + self.user_bias(user).squeeze(1) + self.film_bias(film).squeeze(1)

    class Theirs(T.Module):
        def __init__(self, mean):
            super().__init__()
            self.mean = mean
            self.users, self.films = T.Embedding(30, 8), T.Embedding(40, 8)
            self.user_bias, self.film_bias = T.Embedding(30, 1), T.Embedding(40, 1)

        def forward(self, user, film):
            product = (self.users(user) * self.films(film)).sum(1)
            return self.mean + product + self.user_bias(user).squeeze(1) + self.film_bias(film).squeeze(1)

    torch.manual_seed(0)
    theirs, ours = Theirs(ratings.mean()).double(), Ours(ratings.mean()).astype(np.float64)
    mf.import_torch(ours, theirs.state_dict())
    steps, adam = Steps(), optim.Adam(ours.parameters(), lr=0.03, weight_decay=1e-4)
    trainer = mf.Trainer(ours, nn.MSELoss(), adam, hooks=[steps], compile=compiled)
    trainer.fit(((user, film), ratings), epochs=6, batch_size=64, rng=5, progress=False)
    rng, other, expected = (
        np.random.default_rng(5),
        torch.optim.Adam(theirs.parameters(), lr=0.03, weight_decay=1e-4),
        [],
    )
    for _ in range(6):
        for (u, f), y in mf.data.batches(((user, film), ratings), 64, rng=rng):
            other.zero_grad()
            loss = F.mse_loss(theirs(torch.tensor(u), torch.tensor(f)), torch.tensor(y))
            loss.backward()
            other.step()
            expected.append(loss.item())
    same(steps.losses, expected)
    found = trainer.predict((user, film))
    np.testing.assert_allclose(found, theirs(torch.tensor(user), torch.tensor(film)).detach().numpy(), rtol=1e-9)


def test_recurrent_language_model_with_carried_state():
    """PyTorch's word_language_model: two LSTM layers, tied weights, clipping, and a state carried and detached."""
    text = "a rose is a rose is a rose and a thorn is a thorn but a rose with a thorn is still a rose . " * 12
    words = sorted(set(text.split()))
    ids = np.array([words.index(word) for word in text.split()])
    stream = ids[: len(ids) // 4 * 4].reshape(4, -1)
    pieces = [(stream[:, k : k + 8], stream[:, k + 1 : k + 9]) for k in range(0, stream.shape[1] - 8, 8)]

    class Ours(nn.Module):
        def __init__(self):
            self.encoder = nn.Embedding(len(words), 12)
            self.rnn = nn.LSTM(12, 12, num_layers=2)
            self.bias = nn.Parameter(np.zeros(len(words)))

        def forward(self, x, state):
            outputs, state = self.rnn(self.encoder(x), state)
            return outputs @ self.encoder.weight.T + self.bias, state

    class Theirs(T.Module):
        def __init__(self):
            super().__init__()
            self.encoder = T.Embedding(len(words), 12)
            self.rnn = T.LSTM(12, 12, 2, batch_first=True)
            self.decoder = T.Linear(12, len(words))
            self.decoder.weight = self.encoder.weight

        def forward(self, x, state):
            outputs, state = self.rnn(self.encoder(x), state)
            return self.decoder(outputs), state

    torch.manual_seed(0)
    theirs, ours = Theirs().double(), Ours().astype(np.float64)
    one_bias(theirs)
    mf.import_torch(ours, theirs.state_dict(), rename={"decoder.bias": "bias", "decoder.weight": None})
    optimizer, criterion = optim.SGD(ours.parameters(), lr=1.0), nn.CrossEntropyLoss()
    other, losses, expected = torch.optim.SGD(theirs.parameters(), lr=1.0), [], []
    for _ in range(4):
        state = None
        for x, y in pieces:
            optimizer.zero_grad()
            if state is not None:
                state = tuple(part.detach() for part in state)
            logits, state = ours(x, state)
            loss = criterion(logits.reshape(-1, len(words)), y.reshape(-1))
            loss.backward()
            optim.clip_grad_norm(optimizer, 0.25)
            optimizer.step()
            losses.append(loss.item())
        state = None
        for x, y in pieces:
            other.zero_grad()
            if state is not None:
                state = tuple(part.detach() for part in state)
            logits, state = theirs(torch.tensor(x), state)
            loss = F.cross_entropy(logits.reshape(-1, len(words)), torch.tensor(y).reshape(-1))
            loss.backward()
            clip(theirs, 0.25)
            other.step()
            expected.append(loss.item())
    same(losses, expected)
