"""Activations, embeddings and residual layers, and what layers refuse."""

from __future__ import annotations

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


def test_embeddings_start_normal():
    w = nn.Embedding(300, 200, rng=0).weight.data
    assert abs(w.mean()) < 0.02 and abs(w.std() - 1) < 0.02 and w.dtype == np.float32
    np.testing.assert_array_equal(w, nn.initializers.normal((300, 200), 0))


# Residual, Lambda


def test_lambda_and_pickles():
    assert pickle.loads(pickle.dumps(nn.Lambda(np.tanh)))(mf.tensor(0.0)).item() == 0
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(nn.Lambda(lambda x: x))
    x = mf.tensor([1.0])
    assert nn.Identity()(x) is x


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
    "state": (lambda: nn.GRU(3, 4)(np.ones((2, 5, 3)), np.ones((2, 3))), ShapeError, r"^GRU: expected a state of shape \(2, 4\) or \(1, 2, 4\), got \(2, 3\)"),
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
    "bias as the third": (lambda: nn.MultiHeadAttention(8, 2, 0.1), ArgumentError, "^MultiHeadAttention: expected bias to be True or False, got 0.1; name each setting, as in dropout=0.1$"),
    "causal": (lambda: nn.MultiHeadAttention(8, 2, causal="no"), ArgumentError, "^MultiHeadAttention: expected causal to be True or False, got 'no'"),
    "dropout, None": (lambda: nn.TransformerEncoderLayer(8, 2, dropout=None), ArgumentError, "expected dropout from 0 to below 1, got None"),
    "activation": (lambda: nn.TransformerEncoderLayer(8, 2, activation=["relu"]), ArgumentError, "expected activation to be 'relu' or 'gelu', got"),
    "mode": (lambda: nn.Upsample(scale_factor=2, mode=["nearest"]), ArgumentError, "^Upsample: expected mode to be one of nearest"),
    "axis": (lambda: nn.Softmax(1.0), ArgumentError, "^Softmax: expected axis to be an integer, got 1.0"),
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
    "residual of a tuple": (lambda: nn.Residual(nn.LSTM(4, 4))(np.ones((2, 3, 4))), DTypeError, "^Residual: expected module to return one Tensor, got a tuple of 2 from LSTM; add the two in a Module of yours$"),
    "shortcut": (lambda: nn.Residual(nn.ReLU(), np.tanh), ArgumentError, "^Residual: expected shortcut to be a Module"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_layers_refuse(name):
    make, error, text = REFUSED[name]
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize("value", ["a", None, [1.0], np.ones(1), True])
@pytest.mark.parametrize("make", [
    nn.LeakyReLU, nn.ELU, nn.Dropout, lambda v: nn.LayerNorm(3, eps=v), lambda v: nn.BatchNorm1D(3, momentum=v),
    lambda v: nn.HuberLoss(delta=v), lambda v: nn.TripletMarginLoss(margin=v),
    lambda v: nn.CosineEmbeddingLoss(margin=v), lambda v: nn.CrossEntropyLoss(label_smoothing=v),
])  # fmt: skip
def test_a_setting_that_is_no_number_is_refused(make, value):
    with pytest.raises(ArgumentError, match=r"^\w+: expected .*, got "):
        make(value)
