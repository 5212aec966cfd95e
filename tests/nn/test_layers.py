"""The layers with more to them than a row can say: statistics, sequences, attention, lookups, and what they refuse."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import microfw as mf
from microfw import nn, ops
from microfw.errors import ArgumentError, DataError, DTypeError, ShapeError
from tests.cases.layers import LAYERS
from tests.cases.ops import floats

layers = pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)


@layers
def test_layers_pass_gradcheck_in_evaluation(case):
    layer = case.make().astype(np.float64).eval()
    for x in case.inputs()[:2]:
        assert mf.gradcheck(lambda t: np.square(layer(t)), x, projections=1) <= 1e-6


def test_dropout_passes_gradcheck_in_training():
    layer = nn.Dropout(0.4)

    def same_noise(x):
        layer.rng = np.random.default_rng(3)
        return layer(x) ** 2

    assert mf.gradcheck(same_noise, floats((4, 5))) <= 1e-6


# Batch normalization


def test_batch_norm_follows_the_statistics():
    layer, x = nn.BatchNorm1D(3, momentum=0.25).astype(np.float64), floats((8, 3), 5, 9)
    y = layer(mf.tensor(x)).data
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-14)
    np.testing.assert_allclose(y.var(0), x.var(0) / (x.var(0) + 1e-5))
    np.testing.assert_allclose(layer.running_mean.data, 0.25 * x.mean(0))
    np.testing.assert_allclose(layer.running_var.data, 0.75 + 0.25 * x.var(0, ddof=1))
    before = layer.state_dict()
    assert list(before) == ["weight", "bias", "running_mean", "running_var"]
    z = layer.eval()(mf.tensor(x)).data
    np.testing.assert_allclose(z, (x - before["running_mean"]) / np.sqrt(before["running_var"] + 1e-5))
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]


@pytest.mark.parametrize(("kind", "shape"), [(nn.BatchNorm1D, (4, 3, 5)), (nn.BatchNorm2D, (4, 3, 2, 2))])
def test_batch_norm_of_channels(kind, shape):
    layer, x = kind(3).astype(np.float64), floats(shape, 5, 9)
    rows = np.moveaxis(x, 1, -1).reshape(-1, 3)
    flat = nn.BatchNorm1D(3).astype(np.float64)
    expected = np.moveaxis(flat(mf.tensor(rows)).data.reshape(4, *shape[2:], 3), -1, 1)
    np.testing.assert_allclose(layer(mf.tensor(x)).data, expected, atol=1e-13)
    np.testing.assert_allclose(layer.running_var.data, flat.running_var.data)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_batch_norm_is_copied_with_its_statistics(duplicate):
    layer = nn.BatchNorm1D(3)
    layer(floats((8, 3)))
    other = duplicate(layer)
    np.testing.assert_array_equal(other.running_var.data, layer.running_var.data)
    layer(floats((8, 3), 3, 4))
    assert not np.array_equal(other.running_var.data, layer.running_var.data)
    fresh = nn.BatchNorm1D(3)
    fresh.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(fresh.eval()(floats((2, 3))).data, layer.eval()(floats((2, 3))).data)


def test_one_value_per_channel_has_no_variance():
    for layer, x in ((nn.BatchNorm1D(3), (1, 3)), (nn.BatchNorm2D(3), (1, 3, 1, 1)), (nn.BatchNorm1D(3), (0, 3))):
        with pytest.raises(ShapeError, match="expected more than one value per channel in training, got shape"):
            nn.Sequential(nn.Identity(), layer)(np.ones(x))
        assert np.isfinite(layer.eval()(np.ones(x)).data).all()


def test_training_after_a_batch_norm_is_not_stale():
    layer = nn.BatchNorm1D(3)
    x = mf.tensor(floats((4, 3)).astype(np.float32), requires_grad=True)
    loss = layer.eval()(x).sum() + layer.train()(x).sum() + layer(x).sum()
    loss.backward()
    assert np.isfinite(x.grad).all()


def test_normalising_keeps_digits_far_from_zero():
    """The mean of the squares minus the square of the mean would have none left."""
    x = 1e8 + np.array([[0.0, 1.0, 2.0]])
    y = nn.LayerNorm(3, eps=1e-12).astype(np.float64)(mf.tensor(x)).data
    np.testing.assert_allclose(y, [[-np.sqrt(1.5), 0, np.sqrt(1.5)]], rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize(
    "layer", [nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.BatchNorm1D(4)], ids=lambda m: type(m).__name__
)
def test_constant_input_is_normalised_to_the_bias(layer):
    x = mf.tensor(np.full((3, 4), 7.0, np.float32), requires_grad=True)
    y = layer(x)
    y.backward(floats((3, 4)).astype(np.float32))
    np.testing.assert_array_equal(y.data, 0)
    assert np.isfinite(x.grad).all()


NORMS = {
    "LayerNorm": (lambda: nn.LayerNorm(6), (4, 6)),
    "BatchNorm1D": (lambda: nn.BatchNorm1D(4), (6, 4)),
    "BatchNorm1D of sequences": (lambda: nn.BatchNorm1D(4), (3, 4, 5)),
    "BatchNorm2D": (lambda: nn.BatchNorm2D(2), (3, 2, 4, 5)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), (3, 4, 5)),
}


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("value", [1e6 + 0.1, -123456.78, 1.1, 0.1, 3e-20, 3e30, 3e38])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalising_a_constant_gives_zero(name, value, dtype):
    make, shape = NORMS[name]
    layer = make().astype(dtype)
    x = mf.tensor(np.full(shape, value, dtype), requires_grad=True)
    with np.errstate(all="ignore"):
        y = layer(x)
        np.testing.assert_allclose(y.numpy(), np.zeros(shape), atol=1e-5)
        y.backward(np.random.default_rng(0).normal(size=shape).astype(dtype))
    assert np.all(np.abs(x.grad) < 1e4)
    if abs(value) > 1.0:
        assert not y.numpy().any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalising_keeps_huge_entries_in_range(dtype):
    scale = dtype(np.finfo(dtype).max / 8)
    x = mf.tensor(np.array([[-1.0, 1.0, 0.0], [1.0, 2.0, 6.0]], dtype) * scale, requires_grad=True)
    with np.errstate(all="ignore"):
        y = nn.LayerNorm(3).astype(dtype)(x)
        y.backward(np.ones((2, 3), dtype))
    expected = mf.nn.LayerNorm(3, eps=1e-30).astype(np.float64)(mf.tensor([[-1.0, 1.0, 0.0], [1.0, 2.0, 6.0]]))
    np.testing.assert_allclose(y.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)
    assert np.isfinite(x.grad).all()


def test_a_row_far_from_zero_changes_no_bit_of_the_others():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 8)).astype(np.float32)
    far = np.concatenate([x, 1e6 + x[:1]])
    np.testing.assert_array_equal(nn.LayerNorm(8)(far).numpy()[:5], nn.LayerNorm(8)(x).numpy())


def test_a_replayed_step_normalises_what_comes_far_from_zero():
    losses = {}
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(4, 6)).astype(np.float32) + shift for shift in (0, 0, 0, 1e6, 0, 1e4, 0)]
    batches[5][1] = 1e6
    for compiled in (False, True):
        model = nn.Sequential(nn.LayerNorm(6), nn.Dense(6, 2, rng=0))
        optimizer = mf.optim.SGD(model.parameters(), lr=0.1)
        step = mf.compile(lambda x, m=model: np.mean(np.square(m(x) - 1.0)), optimizer)
        losses[compiled] = []
        for x in batches:
            if compiled:
                loss = step(x)
            else:
                optimizer.zero_grad()
                loss = np.mean(np.square(model(mf.tensor(x)) - 1.0))
                loss.backward()
                optimizer.step()
            losses[compiled].append(loss.item())
    assert losses[True] == losses[False]
    assert "replayed" in step.explain()


def test_the_derivative_of_normalising_far_from_zero_is_differentiated_as_well():
    layer = nn.LayerNorm(3).astype(np.float64)
    x = np.array([[0.0, 1.0, 3.0]])
    with mf.no_grad():
        near, far = (mf.hessian(lambda t, by=by: np.sum(layer(t + by) ** 3))(x) for by in (0.0, 2.0**20))
    np.testing.assert_allclose(far, near, rtol=1e-9, atol=1e-9)


# Vectors of length 1, masked softmax


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zero_and_huge_vectors(dtype):
    top = np.finfo(dtype).max / 4
    x = mf.tensor(np.array([[0, 0], [3 * top / 4, top], [3e-30, 4e-30]], dtype), requires_grad=True)
    lengths = ops.normalization.length(x)
    np.testing.assert_allclose(lengths.data, np.array([0, 1.25 * top, 5e-30], dtype), rtol=1e-6)
    lengths.backward(np.ones(3, dtype))
    np.testing.assert_allclose(x.grad, [[0, 0], [0.6, 0.8], [0.6, 0.8]], rtol=1e-6)
    x.zero_grad()
    y = ops.normalization.unit(x)
    np.testing.assert_allclose(y.data, [[0, 0], [0.6, 0.8], [0.6, 0.8]], rtol=1e-6)
    y.backward(np.array([[1, 1], [1, 0], [0, 0]], dtype))
    np.testing.assert_array_equal(x.grad[0], 0)
    assert mf.grad(mf.grad(lambda t: ops.normalization.length(t * np.zeros(2))))(1.0) == 0


def test_masked_softmax_of_huge_scores():
    x = mf.tensor([[1e4, -1e4, 1e308], [1e4, -1e4, 0.0]], requires_grad=True)
    y = ops.normalization.masked_softmax(x, np.array([[True, True, False], [False, False, False]]))
    np.testing.assert_array_equal(y.data, [[1, 0, 0], [0, 0, 0]])
    y.backward(np.ones((2, 3)))
    np.testing.assert_array_equal(x.grad, 0)


# Activations


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_smooth_activations_stay_finite(dtype):
    x = mf.tensor(np.array([1e4, -1e4, 1e30, -1e30, 0, 60, -60], dtype), requires_grad=True)
    for layer, far in ((nn.ELU(), -1.0), (nn.SiLU(), 0.0), (nn.Mish(), 0.0), (nn.Softsign(), None)):
        x.zero_grad()
        y = layer(x)
        y.backward(np.ones(7, dtype))
        assert np.isfinite(y.data).all() and np.isfinite(x.grad).all(), layer
        if far is not None:
            np.testing.assert_array_equal(y.data[:4], np.array([1e4, far, 1e30, far], dtype))
            np.testing.assert_array_equal(x.grad[:4], [1, 0, 1, 0])


def test_mish_and_silu_keep_their_digits_in_the_tails():
    x = np.array([-700.0, -300.0, -40.0, -20.0])
    e = np.exp(x)  # far to the left tanh(softplus(x)) and sigmoid(x) are exp(x), to the first order
    for layer in (nn.Mish(), nn.SiLU()):
        np.testing.assert_allclose(layer(mf.tensor(x)).data, x * e, rtol=1e-8)
        slope = mf.grad(lambda t: layer(t).sum())(x)  # noqa: B023
        np.testing.assert_allclose(slope, e * (1 + x), rtol=1e-7)


def test_slopes_at_zero():
    assert mf.grad(nn.ELU(0.3))(0.0) == 0.3
    assert mf.grad(nn.SiLU())(0.0) == 0.5
    np.testing.assert_allclose(mf.grad(nn.Mish())(0.0), 0.6, rtol=1e-15)
    np.testing.assert_array_equal(nn.PReLU()(np.array([-4.0, 2.0])).data, [-1, 2])


# Embedding


def test_embedding_looks_up_rows():
    layer = nn.Embedding(5, 3, padding_idx=2, rng=0)
    ids = np.array([[0, 2], [4, 4]])
    y = layer(ids)
    np.testing.assert_array_equal(y.data[0, 1], 0)
    np.testing.assert_array_equal(y.data[1, 0], layer.weight.data[4])
    y.sum().backward()
    np.testing.assert_array_equal(layer.weight.grad[:, 0], [1, 0, 0, 0, 2])
    np.testing.assert_array_equal(layer(ids.astype(np.float32)).data, y.data)
    np.testing.assert_array_equal(layer(mf.tensor(ids)).data, y.data)
    np.testing.assert_array_equal(layer(ids.tolist()).data, y.data)
    assert layer(3).shape == (3,) and layer(np.zeros((0, 2), int)).shape == (0, 2, 3)
    assert repr(layer).startswith("Embedding(5 -> 3, padding_idx=2)")


BAD_INDICES = {
    "too large": ([[0, 5]], DataError, r"^Embedding: expected indices from 0 to 4, got 5 at \(0, 1\); number"),
    "negative": ([-1], DataError, r"expected indices from 0 to 4, got -1 at \(0,\)"),
    "fraction": ([0.5], DTypeError, "expected integer indices, got 0.5; cast them"),
    "nan": ([np.nan], DTypeError, "expected integer indices, got nan"),
    "bool": ([True], DTypeError, "expected integer indices, got bool"),
    "text": (["a"], DTypeError, "expected integer indices, got <U1"),
}


@pytest.mark.parametrize("name", BAD_INDICES)
def test_embedding_refuses(name):
    indices, error, text = BAD_INDICES[name]
    with pytest.raises(error, match=text):
        nn.Embedding(5, 3, rng=0)(np.array(indices))


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


@pytest.mark.parametrize(("kind", "nodes"), [(nn.RNN, 7), (nn.GRU, 8), (nn.LSTM, 9)])
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


def test_embeddings_start_normal():
    w = nn.Embedding(300, 200, rng=0).weight.data
    assert abs(w.mean()) < 0.02 and abs(w.std() - 1) < 0.02 and w.dtype == np.float32
    np.testing.assert_array_equal(w, nn.initializers.normal((300, 200), 0))


def test_recurrent_weights_start_as_published():
    layer = nn.LSTM(5, 8, rng=0)
    for block in np.split(layer.weight_hh.data, 4, axis=1):
        np.testing.assert_allclose(block @ block.T, np.eye(8), atol=1e-6)
    np.testing.assert_array_equal(layer.bias.data, [0] * 8 + [1] * 8 + [0] * 16)
    assert np.abs(layer.weight_ih.data).max() <= np.sqrt(6 / 13)
    np.testing.assert_array_equal(layer.weight_hh.data, nn.LSTM(5, 8, rng=0).weight_hh.data)
    wide, tall = (nn.initializers.orthogonal(s, 0) for s in ((3, 7), (2, 4, 3)))
    np.testing.assert_allclose(wide @ wide.T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(tall.reshape(8, 3).T @ tall.reshape(8, 3), np.eye(3), atol=1e-6)
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


def test_attention_drops_weights_in_training_only():
    layer = nn.MultiHeadAttention(4, 2, dropout=0.5, rng=0)
    x = floats((1, 5, 4)).astype(np.float32)
    assert not np.array_equal(layer(x).data, layer(x).data)
    np.testing.assert_array_equal(layer.eval()(x).data, layer(x).data)


# Residual, Lambda


def test_lambda_and_pickles():
    assert pickle.loads(pickle.dumps(nn.Lambda(np.tanh)))(mf.tensor(0.0)).item() == 0
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(nn.Lambda(lambda x: x))
    x = mf.tensor([1.0])
    assert nn.Identity()(x) is x


# In training


def test_a_trainer_trains_normalised_layers_by_log_probabilities():
    rng = np.random.default_rng(0)
    model = nn.Sequential(
        nn.Dense(4, 16, rng=rng), nn.BatchNorm1D(16), nn.SiLU(),
        nn.Residual(nn.Sequential(nn.LayerNorm(16), nn.Dense(16, 16, rng=rng), nn.Mish())), nn.Dense(16, 3, rng=rng), nn.LogSoftmax(),
    )  # fmt: skip
    train, test = mf.data.load("iris", rng=0)
    trainer = mf.Trainer(
        model, nn.NLLLoss(), mf.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), metrics=["accuracy"]
    )
    trainer.fit(train, epochs=10, batch_size=16, rng=0, progress=False)
    assert trainer.evaluate(test)["accuracy"] > 0.85
    assert np.abs(model[1].running_mean.data).max() > 0.1


def test_a_dataset_of_indices_is_embedded():
    X = np.random.default_rng(0).integers(0, 6, (200, 3))
    model = nn.Sequential(nn.Embedding(6, 4, rng=0), nn.Flatten(), nn.Dense(12, 2, rng=0))
    trainer = mf.Trainer(model, nn.CrossEntropyLoss(), mf.optim.SGD(model.parameters(), lr=0.5), metrics=["accuracy"])
    history = trainer.fit((X, (X[:, 0] > 2).astype(int)), epochs=10, rng=0, progress=False)
    assert history[-1]["accuracy"] > 0.95


# What they refuse

REFUSED = {
    "batch norm, channels": (lambda: nn.BatchNorm1D(3)(np.ones((2, 4))), ShapeError, r"^BatchNorm1D: expected x of shape \(N, 3\) or \(N, 3, L\), got \(2, 4\); pass"),
    "batch norm, axes": (lambda: nn.BatchNorm2D(3)(np.ones((2, 3))), ShapeError, r"^BatchNorm2D: expected x of shape \(N, 3, H, W\), got \(2, 3\)"),
    "layer norm": (lambda: nn.Sequential(nn.LayerNorm(64))(np.ones((32, 60))), ShapeError, r"^0 LayerNorm: expected x of shape \(\.\.\., 64\), got \(32, 60\); pass that many features"),
    "layer norm, number": (lambda: nn.LayerNorm(4)(1.0), ShapeError, r"got \(\)"),
    "group norm": (lambda: nn.GroupNorm(2, 4)(np.ones((2, 6))), ShapeError, r"^GroupNorm: expected x of shape \(N, 4, \.\.\.\), got \(2, 6\)"),
    "group norm, nothing": (lambda: nn.GroupNorm(2, 4)(np.ones((2, 4, 0))), ShapeError, r"got \(2, 4, 0\)"),
    "prelu": (lambda: nn.PReLU(3)(np.ones((2, 4))), ShapeError, r"^PReLU: expected x of shape \(N, 3, \.\.\.\)"),
    "residual": (lambda: nn.Residual(nn.Dense(3, 1, rng=0))(np.ones((2, 3))), ShapeError, r"^Residual: expected the module to keep the shape \(2, 3\), got \(2, 1\); pass a shortcut"),
    "rnn, axes": (lambda: nn.RNN(3, 4)(np.ones((2, 3))), ShapeError, r"^RNN: expected x of shape \(N, T, 3\), got \(2, 3\); the axes are row"),
    "gru, features": (lambda: nn.GRU(3, 4)(np.ones((2, 5, 2))), ShapeError, r"^GRU: expected x of shape \(N, T, 3\), got \(2, 5, 2\)"),
    "lstm, no step": (lambda: nn.LSTM(3, 4)(np.ones((2, 0, 3))), ShapeError, r"got \(2, 0, 3\)"),
    "state": (lambda: nn.GRU(3, 4)(np.ones((2, 5, 3)), np.ones((2, 3))), ShapeError, r"^GRU: expected a state of shape \(2, 4\), got \(2, 3\)"),
    "lstm, one state": (lambda: nn.LSTM(3, 4)(np.ones((2, 5, 3)), np.ones((2, 4))), ShapeError, r"^LSTM: expected a state of two, \(h, c\), got ndarray"),
    "text": (lambda: nn.GRU(3, 4)([[["a", "b", "c"]]]), DTypeError, "^GRU: expected x to hold numbers, got <U1; encode text"),
    "attention, features": (lambda: nn.MultiHeadAttention(4, 2)(np.ones((2, 3, 5))), ShapeError, r"^MultiHeadAttention: expected query of shape \(N, T, 4\), got \(2, 3, 5\)"),
    "attention, rows": (lambda: nn.MultiHeadAttention(4, 2)(np.ones((2, 3, 4)), np.ones((1, 3, 4))), ShapeError, r"expected key of shape \(N, S, 4\), got \(1, 3, 4\)"),
    "attention, value": (lambda: nn.MultiHeadAttention(4, 2)(np.ones((2, 3, 4)), np.ones((2, 3, 4)), np.ones((2, 2, 4))), ShapeError, r"expected value of shape \(N, S, 4\), got \(2, 2, 4\)"),
    "attention, axes": (lambda: nn.MultiHeadAttention(4, 2)(np.ones(4)), ShapeError, r"expected query of shape \(N, T, 4\), got \(4,\)"),
    "mask, dtype": (lambda: nn.MultiHeadAttention(4, 2)(np.ones((2, 3, 4)), key_padding_mask=np.ones((2, 3))), DTypeError, "expected a boolean key_padding_mask, got float64; true where"),
    "mask, shape": (lambda: nn.MultiHeadAttention(4, 2)(np.ones((2, 3, 4)), key_padding_mask=np.ones((2, 4), bool)), ShapeError, r"expected key_padding_mask of shape \(2, 3\), got \(2, 4\)"),
    "mixed dtypes": (lambda: nn.LayerNorm(4)(mf.tensor(np.ones((2, 4)))), DTypeError, r"^LayerNorm: expected x of float32, got float64; cast it with .astype\(np.float32\), or the model"),
    "integer Tensor": (lambda: nn.LSTM(4, 2)(mf.tensor(np.ones((2, 3, 4), int))), DTypeError, r"^LSTM: expected x of float32, got int64; cast it with .astype\(np.float32\)$"),
    "integer Tensor, no weights": (lambda: nn.Mish()(mf.tensor([1, 2])), DTypeError, "^Mish: expected x of float32 or float64, got int64; cast it"),
    "complex": (lambda: nn.ELU()(np.ones(3, complex)), DTypeError, "^ELU: expected x to hold numbers, got complex128; encode"),
    "objects": (lambda: nn.Residual(nn.Identity())(np.array([object()])), DTypeError, "^Residual: expected x to hold numbers, got ndarray"),
    "ragged": (lambda: nn.GroupNorm(2, 4)([[1, 2], [3]]), DTypeError, "^GroupNorm: expected x to hold numbers, got list"),
    "size": (lambda: nn.LSTM(0, 3), ArgumentError, "^LSTM: expected in_features to be a positive integer, got 0"),
    "size, bool": (lambda: nn.Embedding(True, 3), ArgumentError, "^Embedding: expected rows to be a positive integer, got True"),
    "nonlinearity": (lambda: nn.RNN(2, 3, nonlinearity="elu"), ArgumentError, "^RNN: expected nonlinearity to be 'tanh' or 'relu', got 'elu'"),
    "heads": (lambda: nn.MultiHeadAttention(5, 2), ArgumentError, "^MultiHeadAttention: expected heads that divide the features evenly, got 2 heads of 5"),
    "dropout": (lambda: nn.MultiHeadAttention(4, 2, dropout=1), ArgumentError, "expected dropout from 0 to below 1"),
    "groups": (lambda: nn.GroupNorm(3, 4), ArgumentError, "^GroupNorm: expected groups that divide the channels evenly, got 3 groups of 4"),
    "eps": (lambda: nn.LayerNorm(4, eps=0), ArgumentError, "^LayerNorm: expected a positive eps, got 0"),
    "no axes": (lambda: nn.LayerNorm(()), ArgumentError, "^LayerNorm: expected a shape of at least one axis"),
    "momentum": (lambda: nn.BatchNorm1D(4, momentum=2), ArgumentError, "^BatchNorm1D: expected momentum from 0 to 1, got 2"),
    "padding": (lambda: nn.Embedding(4, 2, padding_idx=4), ArgumentError, "^Embedding: expected padding_idx from 0 to 3, got 4"),
    "alpha": (lambda: nn.ELU(np.inf), ArgumentError, "^ELU: expected a finite alpha, got inf"),
    "init": (lambda: nn.PReLU(init=np.nan), ArgumentError, "^PReLU: expected a finite init, got nan"),
    "function": (lambda: nn.Lambda(3), ArgumentError, "^Lambda: expected a function, got int"),
    "module": (lambda: nn.Residual(np.tanh), ArgumentError, "^Residual: expected module to be a Module, got ufunc"),
    "shortcut": (lambda: nn.Residual(nn.ReLU(), np.tanh), ArgumentError, "^Residual: expected shortcut to be a Module"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_layers_refuse(name):
    make, error, text = REFUSED[name]
    with pytest.raises(error, match=text):
        make()
