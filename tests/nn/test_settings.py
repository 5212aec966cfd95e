"""Settings that are assigned to a layer after it was made: they act as arguments do, or are refused."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import ArgumentError, DTypeError

X = np.random.default_rng(0).normal(size=(2, 4, 8, 8)).astype(np.float32)


@pytest.mark.parametrize(("make", "changes"), [
    (lambda **s: nn.Conv2D(4, 2, 3, rng=0, **s), {"stride": 2, "padding": 1}),
    (lambda **s: nn.Conv2D(4, 2, 3, rng=0, **s), {"dilation": (1, 2), "padding": "same"}),
    (lambda **s: nn.ConvTranspose2D(4, 2, 3, rng=0, **s), {"stride": 2, "output_padding": 1}),
    (lambda **s: nn.MaxPool2D(2, **s), {"stride": 1, "padding": 1}),
    (lambda **s: nn.AvgPool2D(**{"kernel_size": 2, "stride": 2, **s}), {"kernel_size": 3}),
    (lambda **s: nn.GroupNorm(2, 4, **s), {"eps": 0.5}),
    (lambda **s: nn.LeakyReLU(**s), {"slope": 0.5}),
    (lambda **s: nn.Upsample(**{"scale_factor": 2, **s}), {"scale_factor": 3, "mode": "bilinear"}),
])  # fmt: skip
def test_a_setting_that_is_assigned_acts_as_an_argument(make, changes):
    layer = make()
    for name, value in changes.items():
        setattr(layer, name, value)
    expected = make(**changes)
    np.testing.assert_array_equal(layer(X).numpy(), expected(X).numpy())
    assert repr(layer) == repr(expected)
    assert all(getattr(layer, name) == getattr(expected, name) for name in changes)


REFUSED = [
    (nn.MSELoss, "reduction", "avg"), (nn.MSELoss, "reduction", None), (nn.HuberLoss, "delta", -1),
    (nn.CrossEntropyLoss, "label_smoothing", 2.0), (nn.Dropout, "p", 1.0), (nn.Dropout, "p", -0.5),
    (lambda: nn.BatchNorm1D(3), "momentum", None), (lambda: nn.LayerNorm(3), "eps", None),
    (lambda: nn.LayerNorm(3), "affine", False), (lambda: nn.RNN(3, 2), "nonlinearity", "sigmoid"),
    (lambda: nn.LSTM(3, 2), "bidirectional", True), (lambda: nn.LSTM(3, 2, num_layers=2), "dropout", 0.3),
    (lambda: nn.Conv2D(4, 4, 3), "groups", 2), (lambda: nn.Conv2D(4, 4, 3), "kernel_size", 5),
    (lambda: nn.Dense(3, 2), "in_features", 5), (lambda: nn.Dense(3, 2), "bias", False),
    (lambda: nn.TransformerEncoderLayer(4, 2, 8), "activation", "gelu"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "name", "value"), REFUSED)
def test_a_setting_that_cannot_act_is_refused(make, name, value):
    layer = make()
    before = repr(layer)
    with pytest.raises((ArgumentError, DTypeError), match=type(layer).__name__):
        setattr(layer, name, value)
    assert repr(layer) == before


def test_the_rate_of_a_layer_reaches_the_dropouts_in_it():
    layer = nn.TransformerEncoderLayer(4, 2, 8, rng=0)
    layer.dropout = 0.3
    assert layer.dropout.p == layer.self_attn.dropout.p == 0.3


def test_weights_of_classes_that_are_assigned_are_a_buffer():
    loss, z = nn.CrossEntropyLoss(), mf.tensor(np.eye(3))
    loss.weight = np.array([1.0, 2.0, 3.0])
    assert loss(z, [0, 1, 2]).item() == nn.CrossEntropyLoss(weight=[1.0, 2.0, 3.0])(z, [0, 1, 2]).item()
    loss.weight = None
    assert loss(z, [0, 1, 2]).item() == nn.CrossEntropyLoss()(z, [0, 1, 2]).item()


def test_a_subclass_keeps_its_attributes_and_the_checks_of_its_base():
    class Annealed(nn.Dropout):
        def __init__(self, p):
            super().__init__(0.1, rng=0)
            self.p = self.first = p
            self.inner = nn.Dense(2, 2, rng=0)

    layer = Annealed(0.4)
    layer.p = 0.2
    assert (layer.p, layer.first) == (0.2, 0.4)
    with pytest.raises(ArgumentError, match="p from 0 to below 1"):
        layer.p = 2


def test_a_replay_uses_a_setting_that_was_assigned():
    model = nn.Sequential(nn.Conv2D(4, 2, 3, padding=1, rng=0), nn.Flatten())
    step = mf.compile(lambda x: (model(x) ** 2).mean(), optim.SGD(model.parameters(), lr=1e-9))
    before = [step(X).item() for _ in range(5)]
    model[0].stride = 2
    after, right = step(X).item(), (model(X) ** 2).mean().item()
    assert after != before[0] and after == pytest.approx(right, rel=1e-5)
