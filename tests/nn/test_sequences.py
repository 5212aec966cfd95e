"""Recurrent layers and attention, step by step."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import ArgumentError, DTypeError
from tests.cases.ops import floats

# Recurrent layers


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_lstm_step_by_step():
    layer = nn.LSTM(2, 3, rng=0).astype(np.float64)
    x, h, c = floats((2, 4, 2)), floats((2, 3), -1, 1, seed=1), floats((2, 3), -1, 1, seed=2)
    y, (last_h, last_c) = layer(mf.tensor(x), (h, c))
    for t in range(4):
        i, f, g, o = np.split(x[:, t] @ layer.weight_ih.data + h @ layer.weight_hh.data + layer.bias.data, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        np.testing.assert_allclose(y.data[:, t], h, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(last_h.data, h, rtol=1e-13)
    np.testing.assert_allclose(last_c.data, c, rtol=1e-13)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_sequences_can_be_read_in_pieces(kind):
    layer = kind(2, 3, rng=0).astype(np.float64)
    x = floats((2, 5, 2))
    with mf.no_grad():
        whole, end = layer(mf.tensor(x))
        first, state = layer(mf.tensor(x[:, :2]))
        second, state = layer(mf.tensor(x[:, 2:]), state)
    np.testing.assert_allclose(np.concatenate([first, second], axis=1).data, whole.data, rtol=1e-13)
    for a, b in zip(np.atleast_1d(np.asarray(state)), np.atleast_1d(np.asarray(end)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-13)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_the_first_state_gets_a_gradient(kind):
    layer = kind(2, 3, rng=0).astype(np.float64)
    x, s = floats((2, 3, 2)), [floats((2, 3), -1, 1, seed=k) for k in (1, 2)]

    def run(x, *s):
        outputs, end = layer(x, s if kind is nn.LSTM else s[0])
        return np.square(outputs).sum() + sum((k + 1.0) * part.sum() for k, part in enumerate(end))

    states = s if kind is nn.LSTM else s[:1]
    assert mf.gradcheck(run, x, *states) <= 1e-6
    assert mf.gradcheck(mf.grad(run, range(len(states) + 1)), x, *states, projections=1) <= 1e-6


@pytest.mark.parametrize(("kind", "nodes"), [(nn.RNN, 7), (nn.GRU, 9), (nn.LSTM, 8)])
def test_a_sequence_is_few_nodes_however_long(kind, nodes, watcher):
    layer = kind(4, 8, rng=0)
    for steps in (2, 50):
        watcher.ran.clear()
        with watcher.on():
            layer(mf.tensor(np.ones((2, steps, 4), np.float32), requires_grad=True))
        assert len(watcher.recorded) == nodes


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_recurrent_layers_stay_finite(kind):
    layer = kind(2, 3, rng=0)
    x = mf.tensor(np.tile(np.array([[1e4, -1e4]], np.float32), (1, 6, 1)), requires_grad=True)
    y, _ = layer(x)
    y.sum().backward()
    assert np.isfinite(y.data).all() and np.isfinite(x.grad).all()


def test_recurrent_weights_start_as_published():
    layer = nn.LSTM(5, 8, rng=0)
    for block in np.split(layer.weight_hh.data, 4, axis=1):
        np.testing.assert_allclose(block @ block.T, np.eye(8), atol=1e-6)
    np.testing.assert_array_equal(layer.bias.data, [0] * 8 + [1] * 8 + [0] * 16)
    assert np.abs(layer.weight_ih.data).max() <= np.sqrt(6 / 13)
    np.testing.assert_array_equal(layer.weight_hh.data, nn.LSTM(5, 8, rng=0).weight_hh.data)
    wide, tall = (nn.initializers.orthogonal(s, 0) for s in ((3, 7), (8, 3)))
    np.testing.assert_allclose(wide @ wide.T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(tall.T @ tall, np.eye(3), atol=1e-6)
    filters = nn.Conv2D(2, 4, 3, init="orthogonal", rng=0).weight.data.reshape(4, 18)
    np.testing.assert_allclose(filters @ filters.T, np.eye(4), atol=1e-6)
    with pytest.raises(ArgumentError, match="^orthogonal: expected a shape of at least two axes"):
        nn.initializers.orthogonal((3,))


# Attention


def attention_by_hand(layer, query, key, value, seen):
    """One head after the other."""
    q, k, v = (
        x @ m.weight.data + m.bias.data for x, m in ((query, layer.query), (key, layer.key), (value, layer.value))
    )
    d = layer.embed_dim // layer.num_heads
    heads = []
    for h in range(layer.num_heads):
        part = slice(h * d, (h + 1) * d)
        e = np.exp(q[..., part] @ np.swapaxes(k[..., part], 1, 2) / np.sqrt(d)) * seen
        total = e.sum(-1, keepdims=True)
        heads.append(e / np.where(total > 0, total, 1) @ v[..., part])
    return np.concatenate(heads, axis=-1) @ layer.out.weight.data + layer.out.bias.data


def test_attention_by_hand():
    q, k, v = floats((2, 3, 4), seed=1), floats((2, 5, 4), seed=2), floats((2, 5, 4), seed=3)
    padding = np.array([[False, False, False, True, True], [True, False, True, False, False]])
    layer = nn.MultiHeadAttention(4, 2, rng=0).astype(np.float64)
    got = layer(mf.tensor(q), mf.tensor(k), mf.tensor(v), key_padding_mask=padding)
    np.testing.assert_allclose(got.data, attention_by_hand(layer, q, k, v, ~padding[:, None, :]), rtol=1e-12)
    np.testing.assert_allclose(
        layer(mf.tensor(q), mf.tensor(k)).data, attention_by_hand(layer, q, k, k, True), rtol=1e-12
    )
    causal = nn.MultiHeadAttention(4, 2, causal=True, rng=0).astype(np.float64)
    seen = np.tri(5, dtype=bool)
    np.testing.assert_allclose(causal(mf.tensor(k)).data, attention_by_hand(causal, k, k, k, seen), rtol=1e-12)
    seen = seen & ~padding[:, None, :]  # the first step of the second row sees nothing
    got = causal(mf.tensor(k), key_padding_mask=padding)
    np.testing.assert_allclose(got.data, attention_by_hand(causal, k, k, k, seen), rtol=1e-12)
    np.testing.assert_array_equal(got.data[1, 0], causal.out.bias.data)


def test_cross_attention_and_its_mask_pass_gradcheck():
    layer = nn.MultiHeadAttention(4, 2, causal=True, rng=0).astype(np.float64)
    padding = np.array([[True, False, False], [False, False, True]])
    inputs = [floats((2, 3, 4), seed=k) for k in (1, 2, 3)]
    assert mf.gradcheck(lambda q, k, v: layer(q, k, v, key_padding_mask=padding), *inputs) <= 1e-6


def test_a_causal_step_does_not_depend_on_later_ones():
    layer = nn.MultiHeadAttention(4, 2, causal=True, rng=0)
    x = floats((1, 5, 4)).astype(np.float32)
    y = x.copy()
    y[:, 3:] += 1
    np.testing.assert_array_equal(layer(x).data[:, :3], layer(y).data[:, :3])


class Tokens(nn.Module):
    def __init__(self, causal):
        self.embed, self.head = nn.Embedding(9, 8, rng=0), nn.Dense(8, 3, rng=2)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, causal=causal, rng=1)

    def forward(self, tokens):
        return self.head(self.layer(self.embed(tokens), key_padding_mask=tokens == 0).mean(axis=1))


@pytest.mark.parametrize("causal", [False, True])
def test_padding_made_of_tokens_is_replayed(causal):
    eager, model, loss_fn = Tokens(causal), Tokens(causal), nn.CrossEntropyLoss()
    optimizer, other = (optim.SGD(m.parameters(), lr=0.1) for m in (eager, model))
    step = mf.compile(lambda tokens, y: loss_fn(model(tokens), y), other)
    rng = np.random.default_rng(0)
    for _ in range(5):
        tokens, y = rng.integers(0, 9, (4, 5)), rng.integers(0, 3, 4)
        loss = loss_fn(eager(tokens), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert step(tokens, y) == loss.item()
    assert "replayed" in step.explain() and "run every time" not in step.explain()
    with pytest.raises(DTypeError, match="expected a boolean key_padding_mask, got float32; true where"):
        eager.layer(np.ones((2, 5, 8)), mf.tensor(np.ones((2, 5), np.float32)))


def test_attention_drops_weights_in_training_only():
    layer = nn.MultiHeadAttention(4, 2, dropout=0.5, rng=0)
    x = floats((1, 5, 4)).astype(np.float32)
    assert not np.array_equal(layer(x).data, layer(x).data)
    np.testing.assert_array_equal(layer.eval()(x).data, layer(x).data)
