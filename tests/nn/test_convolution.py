"""Convolution and pooling layers: settings, inputs, initial weights, training."""

from __future__ import annotations

import math

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import ArgumentError, ShapeError
from tests.cases.convolution import slow_conv, slow_pool
from tests.cases.samples import whole


def test_layers_compute_what_their_ops_do():
    x = whole((2, 4, 6, 6), 1, np.float32)
    layer = nn.Conv2D(4, 6, (3, 2), stride=2, padding=1, dilation=(1, 2), groups=2, rng=0)
    expected = slow_conv(x, layer.weight.data, layer.bias.data, stride=2, padding=1, dilation=(1, 2), groups=2)
    np.testing.assert_allclose(layer(x).data, expected, rtol=2e-5, atol=1e-5)
    np.testing.assert_array_equal(
        nn.MaxPool2D(3, 2, "same")(x).data, slow_pool(np.max, -np.inf)(x, kernel=3, stride=2, padding="same")
    )
    np.testing.assert_array_equal(nn.AvgPool2D(2)(x).data, slow_pool(np.mean, 0)(x, kernel=2))
    np.testing.assert_allclose(nn.GlobalAvgPool2D()(x).data, x.mean(axis=(2, 3)), rtol=1e-6, atol=1e-6)
    back = nn.Conv1D(1, 1, 3, padding=[(2, 0)], bias=False, rng=0)
    early, late = np.zeros((2, 1, 1, 5), np.float32)
    late[..., 4] = 1
    np.testing.assert_array_equal(back(late).data[..., :4], back(early).data[..., :4])
    assert back(late).data[..., 4] == back.weight.data[0, 0, 2]


def test_a_transposed_layer_is_the_transpose_of_the_convolution_with_its_weight():
    """``<conv(x), g> == <x, transposed(g)>`` for every x and g, and the bias is added."""
    for settings, size in (
        ((3, 2, 1), (6, 8)),
        ((2, 3, 0), (8, 5)),
        ((3, 1, "same"), (4, 5)),
        ((3, 2, "same"), (6, 4)),
    ):
        forth = nn.Conv2D(4, 2, *settings, groups=2, bias=False, rng=0).astype(np.float64)
        x = whole((2, 4, *size), 1)
        y = forth(x).data
        g = whole(y.shape, 2)
        smallest = nn.ConvTranspose2D(2, 4, *settings, groups=2, rng=1)(g).shape[2:]
        more = tuple(n - m for n, m in zip(size, smallest, strict=True))
        back = nn.ConvTranspose2D(2, 4, *settings, output_padding=more, groups=2, rng=1).astype(np.float64)
        back.weight.data = forth.weight.data
        spread = back(g).data - back.bias.data[:, None, None]
        assert spread.shape == x.shape
        assert np.sum(y * g) == pytest.approx(np.sum(x * spread))


def test_values_of_sequence_layers_and_of_upsampling():
    x = whole((2, 3, 7), 1, np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(x, 3, axis=2)[:, :, ::2]
    np.testing.assert_array_equal(nn.MaxPool1D(3, 2)(x).data, windows.max(-1))
    np.testing.assert_allclose(nn.AvgPool1D(3, 2)(x).data, windows.mean(-1))
    np.testing.assert_allclose(nn.GlobalAvgPool1D()(x).data, x.mean(2))
    image = whole((2, 3, 2, 4), 1, np.float64)
    repeated = image.repeat(3, axis=2).repeat(2, axis=3)
    np.testing.assert_array_equal(nn.Upsample(scale_factor=(3, 2))(image).data, repeated)
    # a line through the middles of pixels: at 0.25 and 0.75 between two of them, and level at the ends
    doubled = nn.Upsample(scale_factor=2, mode="linear")(x).data
    np.testing.assert_allclose(doubled[..., 1:-1:2], 0.75 * x[..., :-1] + 0.25 * x[..., 1:])
    np.testing.assert_allclose(doubled[..., 2::2], 0.25 * x[..., :-1] + 0.75 * x[..., 1:])
    np.testing.assert_array_equal(doubled[..., [0, -1]], x[..., [0, -1]])
    both = nn.Upsample(scale_factor=2, mode="bilinear")(image).data
    rows = nn.Upsample(scale_factor=2, mode="linear")(image.transpose(0, 1, 3, 2).reshape(2, 12, 2)).data
    columns = nn.Upsample(scale_factor=2, mode="linear")(
        rows.reshape(2, 3, 4, 4).transpose(0, 1, 3, 2).reshape(2, 12, 4)
    ).data
    np.testing.assert_allclose(both, columns.reshape(2, 3, 4, 8))


def test_errors_of_transposed_and_upsampling_layers():
    with pytest.raises(ShapeError, match=r"^ConvTranspose2D: expected x of shape \(N, 2, H, W\), got \(1, 3, 4, 4\)"):
        nn.ConvTranspose2D(2, 3, 2, rng=0)(np.ones((1, 3, 4, 4)))
    with pytest.raises(
        ShapeError,
        match=r"^0 ConvTranspose1D: expected an x from which some output is left, got \(1, 1, 1\), which gives \(0,\)",
    ):
        nn.Sequential(nn.ConvTranspose1D(1, 1, 2, padding=1, rng=0))(np.ones((1, 1, 1)))
    with pytest.raises(
        ShapeError, match=r"^Upsample: expected x of shape \(N, C, W\), with entries along each axis, got"
    ):
        nn.Upsample(scale_factor=2, mode="linear")(np.ones((1, 1, 4, 4)))


def test_initial_weights_of_a_convolution():
    layer = nn.Conv2D(8, 16, 3, rng=0)
    bound = math.sqrt(6 / (8 * 9 + 16 * 9))
    for p in (layer.weight, layer.bias):
        assert 0.7 * bound < np.abs(p.data).max() <= bound
    np.testing.assert_array_equal(nn.Conv2D(8, 16, 3, rng=0).weight.data, layer.weight.data)
    assert not nn.Conv2D(2, 2, 1, init=nn.initializers.zeros).weight.data.any()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: nn.Conv2D(0, 1, 3), "Conv2D: expected in_channels to be a positive integer, got 0"),
        (lambda: nn.Conv2D(1, 2.5, 3), "Conv2D: expected out_channels to be a positive integer, got 2.5"),
        (lambda: nn.Conv2D(3, 4, 3, groups=2), "Conv2D: expected groups to divide in_channels and out_channels, got 3 and 4 in 2 groups"),
        (lambda: nn.Conv2D(1, 1, (3, 3, 3)), "Conv2D: expected kernel_size to be a positive integer or 2 of them, got (3, 3, 3)"),
        (lambda: nn.Conv1D(1, 1, 0), "Conv1D: expected kernel_size to be a positive integer or 1 of them, got 0"),
        (lambda: nn.Conv2D(1, 1, 3, stride=-1), "Conv2D: expected stride to be"),
        (lambda: nn.Conv2D(1, 1, 3, padding="some"), "Conv2D: expected padding to be 'same', 'valid'"),
        (lambda: nn.MaxPool2D(2, padding=2), "MaxPool2D: expected padding below the kernel_size (2, 2), got 2"),
        (lambda: nn.AvgPool2D(0), "AvgPool2D: expected kernel_size to be"),
        (lambda: nn.MaxPool1D((2, 2)), "MaxPool1D: expected kernel_size to be a positive integer or 1 of them, got (2, 2)"),
        (lambda: nn.ConvTranspose2D(1, 1, 3, 2, output_padding=2), "ConvTranspose2D: expected output_padding from 0 to below the stride 2, and 0 with padding 'same', got 2"),
        (lambda: nn.ConvTranspose1D(1, 1, 3, 2, "same", 1), "ConvTranspose1D: expected output_padding from 0 to below the stride 2, and 0 with"),
        (lambda: nn.Upsample(scale_factor=1.5), "Upsample: expected scale_factor to be a positive integer or 1 of them, got 1.5"),
        (lambda: nn.Upsample(scale_factor=2, mode="cubic"), "Upsample: expected mode to be one of nearest, linear, bilinear, got 'cubic'"),
        (lambda: nn.Upsample(scale_factor=(2, 2, 2), mode="bilinear"), "Upsample: expected scale_factor to be one number, or 2, got (2, 2, 2)"),
    ],
)  # fmt: skip
def test_bad_settings_of_layers(make, text):
    with pytest.raises(ArgumentError) as info:
        make()
    assert str(info.value).startswith(text)


@pytest.mark.parametrize(
    ("layer", "x", "text"),
    [
        (
            nn.Conv2D(1, 8, 3),
            (32, 64),
            "expected x of shape (N, 1, H, W), got (32, 64); reshape it, the channels second",
        ),
        (
            nn.Conv2D(1, 8, 3),
            (32, 8, 8, 1),
            "expected x of shape (N, 1, H, W), got (32, 8, 8, 1); reshape it, the channels second",
        ),
        (
            nn.Conv2D(1, 8, 3),
            (4, 1, 2, 8),
            "expected an input of at least 3 × 3 with its padding, got 2 × 8 and padding ((0, 0), (0, 0)); use a smaller kernel",
        ),
        (
            nn.Conv1D(2, 8, 3),
            (4, 3, 9),
            "expected x of shape (N, 2, W), got (4, 3, 9); reshape it, the channels second",
        ),
        (nn.MaxPool2D(2), (32, 64), "expected x of shape (N, C, H, W), got (32, 64)"),
        (
            nn.MaxPool2D(4),
            (1, 1, 8, 3),
            "expected an input of at least 4 × 4 with its padding, got 8 × 3 and padding ((0, 0), (0, 0)); use a smaller kernel",
        ),
        (nn.AvgPool2D(2), (2, 3, 4), "expected x of shape (N, C, H, W), got (2, 3, 4)"),
        (nn.GlobalAvgPool2D(), (2, 3, 0, 4), "expected x of shape (N, C, H, W), H and W at least 1, got (2, 3, 0, 4)"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_inputs_name_the_layer(layer, x, text):
    x = np.zeros(x, np.float32)
    kind = type(layer).__name__
    for call, where in ((layer, kind), (nn.Sequential(layer), f"0 {kind}")):
        with pytest.raises(ShapeError) as info:
            call(x)
        assert str(info.value) == f"{where}: {text}"


def test_printed_settings():
    assert nn.Conv2D(4, 8, (3, 1), 2, ((1, 0), (0, 0)), (1, 2), 2, bias=False, rng=0).extra_repr() == (
        "4 -> 8, 3×1, stride=2, padding=((1, 0), 0), dilation=(1, 2), groups=2, bias=False"
    )
    assert nn.MaxPool2D(3, 2, 1).extra_repr() == "3×3, stride=2, padding=1"


def test_a_net_of_every_kind_of_layer_learns_a_little():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((32, 1, 8, 8)).astype(np.float32)
    y = (x[:, 0, :, :4].sum(axis=(1, 2)) > x[:, 0, :, 4:].sum(axis=(1, 2))).astype(int)
    net = nn.Sequential(
        nn.Conv2D(1, 4, 3, padding="same", rng=rng),
        nn.ReLU(),
        nn.AvgPool2D(2),
        nn.Conv2D(4, 4, 2, stride=2, rng=rng),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dense(16, 2, rng=rng),
    )
    optimizer, loss_function = mf.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), nn.CrossEntropyLoss()
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = loss_function(net(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
