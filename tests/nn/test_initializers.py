"""Initializers: variances, and which layers take which."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest

from microfw import nn
from microfw.errors import ArgumentError, DTypeError, ShapeError
from microfw.nn import initializers

INITS = {
    "he_normal": lambda i, o: 2 / i,
    "he_uniform": lambda i, o: 2 / i,
    "glorot_normal": lambda i, o: 2 / (i + o),
    "glorot_uniform": lambda i, o: 2 / (i + o),
}


@pytest.mark.parametrize("name", INITS)
def test_initializers(name):
    init = getattr(initializers, name)
    w = init((300, 200), 0)
    assert w.dtype == np.float32 and w.shape == (300, 200)
    np.testing.assert_allclose(w.var(), INITS[name](300, 200), rtol=0.02)
    assert abs(w.mean()) < 0.01
    np.testing.assert_array_equal(w, init((300, 200), 0))
    assert not np.array_equal(w, init((300, 200), 1))
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(w, init((300, 200), rng))
    assert not np.array_equal(w, init((300, 200), rng))
    if "uniform" in name:
        bound = math.sqrt(3 * INITS[name](300, 200))
        assert np.abs(w).max() <= bound * (1 + 1e-6)
    window = init((40, 30, 3, 3), 0)
    np.testing.assert_allclose(window.var(), INITS[name](270, 360), rtol=0.05)
    for shape in ((), (3,), (0, 3), (3, 0)):
        assert init(shape, 0).shape == shape


def test_every_initializer_is_tested():
    public = {
        n
        for n, f in vars(initializers).items()
        if inspect.isfunction(f) and f.__module__ == initializers.__name__ and not n.startswith("_")
    }
    assert public == {
        *INITS,
        "fans",
        "normal",
        "orthogonal",
        "zeros",
        "uniform",
        "constant",
        "blank",
        "initial",
        "initial_bias",
    }


def test_constant_is_the_same_everywhere():
    values = initializers.constant((2, 3), 0.25)
    assert values.dtype == np.float32 and values.tolist() == [[0.25] * 3] * 2


@pytest.mark.parametrize("name", [*INITS, "normal", "orthogonal", "zeros"])
def test_blank_layers_are_zero_and_no_larger_than_a_limit(name):
    init = getattr(initializers, name)
    with initializers.blank(12):
        assert not init((2, 3), 0).any() and not init((3, 2), 0).any()
        with pytest.raises(ArgumentError, match="blank: expected shapes that fit the limit, got .1, 1."):
            init((1, 1), 0)
    assert init((200, 3), 0).any() == (name != "zeros")


def test_layers_take_their_rng_and_init():
    np.testing.assert_array_equal(nn.Dense(3, 2, rng=0).weight.data, nn.Dense(3, 2, rng=0).weight.data)
    assert not np.array_equal(nn.Dense(3, 2).weight.data, nn.Dense(3, 2).weight.data)
    layer = nn.Dense(30, 20, rng=0, init=initializers.he_normal)
    np.testing.assert_array_equal(layer.weight.data, initializers.he_normal((30, 20), np.random.default_rng(0)))
    bound = math.sqrt(6 / 50)
    assert 0.5 * bound < np.abs(layer.bias.data).max() <= bound
    assert not initializers.zeros((3,)).any()
    drawn = initializers.uniform((1000,), 0, 0.5)
    assert drawn.dtype == np.float32 and 0.49 < np.abs(drawn).max() <= 0.5
    rng = np.random.default_rng(0)
    assert not np.array_equal(nn.Dense(3, 3, rng=rng).weight.data, nn.Dense(3, 3, rng=rng).weight.data)


def test_fans_are_those_of_one_group():
    fans = nn.initializers.fans
    assert fans((64, 1, 3, 3), groups=64) == (9, 9) and fans((8, 2, 5), groups=4) == (10, 10)
    for layer in (nn.Conv2D(64, 64, 3, groups=64, rng=0), nn.Conv1D(256, 256, 9, groups=256, rng=0)):
        assert layer.weight.data.std() == pytest.approx(1 / 3, rel=0.1)


def test_an_initializer_of_ones_own_need_not_know_groups():
    layer = nn.Conv2D(4, 4, 3, groups=2, init=lambda shape, rng: np.ones(shape))
    assert (layer.weight.data == 1).all()


@pytest.mark.parametrize("make", [
    lambda init: nn.Dense(3, 2, bias_init=init, rng=0), lambda init: nn.Conv1D(1, 2, 3, bias_init=init, rng=0),
    lambda init: nn.Conv2D(3, 2, 3, bias_init=init, rng=0), lambda init: nn.ConvTranspose2D(3, 2, 3, bias_init=init, rng=0),
    lambda init: nn.ConvTranspose1D(3, 2, 3, bias_init=init, rng=0),
])  # fmt: skip
def test_biases_start_as_their_initializer_says(make):
    assert not make("zeros").bias.data.any()
    np.testing.assert_array_equal(make(lambda shape, rng: np.arange(2.0)).bias.data, [0, 1])
    np.testing.assert_array_equal(make(None).bias.data, make(None).bias.data)
    assert make("normal").weight.data.tolist() == make(None).weight.data.tolist()
    name = type(make(None)).__name__
    with pytest.raises(
        ArgumentError, match=rf"^{name}: expected bias_init to be a function of a shape and rng, or one of"
    ):
        make("no_such")
    with pytest.raises(ShapeError, match=rf"^{name}: expected bias_init to return shape \(2,\), got \(3,\)$"):
        make(lambda shape, rng: np.zeros(3))
    with pytest.raises(DTypeError, match=rf"^{name}: expected bias_init to return real numbers, got complex128$"):
        make(lambda shape, rng: np.zeros(shape, complex))


@pytest.mark.parametrize("make", [
    lambda init: nn.Dense(3, 2, init=init), lambda init: nn.Conv2D(1, 2, 3, init=init),
    lambda init: nn.Conv1D(1, 2, 3, init=init), lambda init: nn.ConvTranspose2D(1, 2, 3, init=init), lambda init: nn.Embedding(3, 2, init=init),
])  # fmt: skip
def test_names(make):
    make("he_normal")
    text = "init to be a function of a shape and rng, or one of glorot_normal"
    for init in ("no_such", 3, None):
        with pytest.raises(ArgumentError, match=text):
            make(init)
    for init, ours in (("xavier_uniform", "glorot_uniform"), ("kaiming_normal_", "he_normal")):
        with pytest.raises(ArgumentError, match=rf"{text}.*, got '{init}'; here it is {ours}$"):
            make(init)
    for init in (np.zeros, initializers.constant, lambda shape: np.zeros(shape)):
        with pytest.raises(
            ArgumentError, match=rf"{text}.*, got .*, which raises TypeError.*; wrap it, as in lambda shape, rng"
        ):
            make(init)


@pytest.mark.parametrize("rng", ["a", -1, 1.5])
def test_a_wrong_rng_says_what_it_may_be(rng):
    from microfw.data import batches

    for where, call in (
        ("Dense", lambda: nn.Dense(2, 3, rng=rng)),
        ("Dropout", lambda: nn.Dropout(0.5, rng=rng)),
        ("Conv1D", lambda: nn.Conv1D(2, 3, 1, rng=rng)),
        ("ConvTranspose2D", lambda: nn.ConvTranspose2D(2, 3, 1, rng=rng)),
        ("Embedding", lambda: nn.Embedding(2, 3, rng=rng)),
        ("LSTM", lambda: nn.LSTM(2, 3, rng=rng)),
        ("GRUCell", lambda: nn.GRUCell(2, 3, rng=rng)),
        ("MultiHeadAttention", lambda: nn.MultiHeadAttention(4, 2, rng=rng)),
        ("TransformerEncoderLayer", lambda: nn.TransformerEncoderLayer(4, 2, 8, rng=rng)),
        ("batches", lambda: next(batches((np.ones((4, 2)), np.ones(4)), 2, rng=rng))),
    ):
        with pytest.raises(ArgumentError) as caught:
            call()
        expected = "rng to be an integer of at least 0, a numpy.random.Generator or None"
        assert str(caught.value) == f"{where}: expected {expected}, got {rng!r}"


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("init", ["he_normal", "he_uniform", "glorot_uniform"])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 8), (8, 64)])
def test_a_transposed_convolution_counts_the_inputs_of_an_output(inputs, outputs, init, groups):
    weight = nn.ConvTranspose2D(inputs, outputs, 3, groups=groups, init=init, rng=0).weight
    assert weight.shape == (inputs, outputs // groups, 3, 3)
    right = 2 / (9 * inputs / groups) if init.startswith("he") else 4 / (9 * (inputs + outputs) / groups) / 2
    assert weight.data.var() == pytest.approx(right, rel=0.15)


def test_each_output_of_a_transposed_convolution_keeps_the_weights_drawn_for_it():
    def count(shape, rng):
        return np.arange(np.prod(shape)).reshape(shape)  # (outputs, inputs of a group, window)

    weight = nn.ConvTranspose1D(4, 6, 1, groups=2, init=count, rng=0).weight.data[..., 0]
    np.testing.assert_array_equal(weight, [[0, 2, 4], [1, 3, 5], [6, 8, 10], [7, 9, 11]])
