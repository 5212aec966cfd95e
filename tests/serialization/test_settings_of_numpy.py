"""Settings that are numbers of NumPy, as of a grid, are Python's numbers: in layers, in losses, and in files."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.training import Checkpoint

X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)

MAKERS = {
    "Dropout": lambda of: nn.Dropout(of(0.5), rng=0), "LeakyReLU": lambda of: nn.LeakyReLU(of(0.5)),
    "ELU": lambda of: nn.ELU(of(0.5)), "PReLU": lambda of: nn.PReLU(init=of(0.5)),
    "LayerNorm": lambda of: nn.LayerNorm(4, eps=of(0.5)), "GroupNorm": lambda of: nn.GroupNorm(2, 4, eps=of(0.5)),
    "BatchNorm1D": lambda of: nn.BatchNorm1D(4, eps=of(0.5), momentum=of(0.5)),
    "GRU": lambda of: nn.Sequential(nn.GRU(4, 3, num_layers=2, dropout=of(0.5), rng=0), nn.Identity()),
    "TransformerEncoderLayer": lambda of: nn.TransformerEncoderLayer(4, 2, 8, dropout=of(0.5), rng=0),
}  # fmt: skip

LOSSES = {
    "CrossEntropyLoss": lambda of: nn.CrossEntropyLoss(label_smoothing=of(0.5)),
    "HuberLoss": lambda of: nn.HuberLoss(of(0.5)), "PoissonNLLLoss": lambda of: nn.PoissonNLLLoss(False, eps=of(0.5)),
    "CosineEmbeddingLoss": lambda of: nn.CosineEmbeddingLoss(of(0.5)),
    "TripletMarginLoss": lambda of: nn.TripletMarginLoss(of(0.5)),
    "GaussianNLLLoss": lambda of: nn.GaussianNLLLoss(eps=of(0.5)),
}  # fmt: skip

NUMBERS = [np.float16, np.float32, np.float64, np.longdouble]


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", MAKERS)
def test_layers_of_numbers_of_numpy_are_those_of_numbers_of_python(name, number, tmp_path):
    path = tmp_path / "model.npz"
    mine, plain = MAKERS[name](number), MAKERS[name](float)
    mf.save(path, mine)
    x = X[:, None] if name in ("GRU", "TransformerEncoderLayer") else X
    outputs = [model(mf.tensor(x)) for model in (mf.load(path), mine, plain)]
    assert all(y.dtype == np.float32 and np.array_equal(y, outputs[2]) for y in outputs)


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", LOSSES)
def test_losses_of_numbers_of_numpy_are_those_of_numbers_of_python(name, number, tmp_path):
    path = tmp_path / "loss.npz"
    mf.save(path, LOSSES[name](number))
    y = mf.tensor(abs(X))
    target = np.full(X.shape, 0.25, np.float32)
    inputs = {
        "CosineEmbeddingLoss": (y, target, np.ones(6)),
        "TripletMarginLoss": (y, target, X),
        "GaussianNLLLoss": ((y, y), target),
    }
    values = [
        loss(*inputs.get(name, (y, target))) for loss in (mf.load(path), LOSSES[name](number), LOSSES[name](float))
    ]
    assert all(value.dtype == np.float32 and value.item() == values[2].item() for value in values)


def test_settings_that_are_set_later_are_saved_as_numbers_of_python(tmp_path):
    path = tmp_path / "model.npz"
    layer = nn.Dropout(0.5, rng=0)
    layer.p = np.float32(0.25)
    mf.save(path, layer)
    assert (type(mf.load(path).p), mf.load(path).p) == (float, 0.25)


def test_settings_of_integers_and_truth_values_of_numpy_are_saved(tmp_path):
    path = tmp_path / "model.npz"
    for layer in (nn.Softmax(np.int64(1)), nn.MultiHeadAttention(4, 2, np.True_, np.True_), nn.KLDivLoss(log_target=np.True_),
                  nn.NLLLoss(ignore_index=np.int8(1))):  # fmt: skip
        mf.save(path, layer)
        assert repr(mf.load(path)) == repr(layer)


def test_the_best_model_of_a_search_over_a_grid_can_be_loaded(tmp_path):
    path = tmp_path / "best.npz"
    for p in np.linspace(0, 0.4, 2):
        model = nn.Sequential(nn.Dense(4, 6, rng=0), nn.Dropout(p, rng=1), nn.Dense(6, 3, rng=2))
        trainer = mf.Trainer(
            model, nn.CrossEntropyLoss(), optim.Adam(model.parameters()), hooks=[Checkpoint(path, best="loss")]
        )
        trainer.fit((X, np.arange(6) % 3), epochs=1, rng=0, progress=False)
        assert mf.load(path)[1].p == p


class Acting(nn.Module):
    def __init__(self, function=np.tanh):
        self.function, self.layer = function, nn.Dense(4, 3, rng=0)

    def forward(self, x):
        return self.function(self.layer(x))


def twice(x):
    return x * 2


@pytest.mark.parametrize("suffix", ["npz", "safetensors"])
def test_ufuncs_of_numpy_may_be_among_the_classes(tmp_path, suffix):
    path, model = tmp_path / f"model.{suffix}", Acting()
    mf.save(path, model)
    for classes in ([Acting], [Acting, np.tanh], {"Acting": Acting, "f": np.tanh}, [Acting, np.tanh, nn.Dense]):
        assert mf.load(path, classes).function is np.tanh
    mf.save(path, nn.Sequential(Acting(), Acting(twice), nn.ReLU()))
    assert mf.load(path, [Acting, twice, np.tanh, np.sin, nn.ReLU, nn.Sequential])[1].function is twice


def test_a_function_of_ones_own_may_become_a_ufunc(tmp_path):
    mf.save(tmp_path / "model.npz", Acting(twice))
    assert mf.load(tmp_path / "model.npz", {"Acting": Acting, "twice": np.positive}).function is np.positive
