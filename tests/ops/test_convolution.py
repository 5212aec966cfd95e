"""Convolutions and poolings as ops: against loops and their transposes, ties, counts, errors."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import microfw as mf
from microfw import nn, ops
from microfw.errors import ArgumentError, DTypeError, ShapeError
from microfw.ops import convolution
from microfw.ops.convolution import blocks, conv, conv_transpose, plan
from microfw.ops.pooling import avg_pool, max_pool
from microfw.ops.windows import fold, geometry, windows
from tests.cases.convolution import slow_conv, slow_conv_transpose, slow_pool
from tests.cases.samples import whole

SETTINGS = [
    {"stride": stride, "dilation": dilation, "groups": groups, "padding": padding}
    for stride, dilation, groups, padding in itertools.product(
        (1, 2, (3, 1)), (1, (1, 2)), (1, 2), ("same", "valid", 1, (0, (2, 1)))
    )
]


def identify(settings):
    return " ".join(f"{name}={value}" for name, value in settings.items())


@pytest.mark.parametrize("settings", SETTINGS, ids=identify)
@pytest.mark.parametrize("kernel", [(3, 2), (1, 3)], ids=str)
def test_all_combinations_of_settings_agree_with_loops(kernel, settings):
    x, w, b = whole((2, 4, 6, 7), 1), whole((6, 4 // settings["groups"], *kernel), 2), whole((6,), 3)
    y = slow_conv(x, w, b, **settings)
    tx, tw, tb = (mf.tensor(a, requires_grad=True) for a in (x, w, b))
    got = conv(tx, tw, tb, **settings)
    np.testing.assert_array_equal(got.data, y)
    g = whole(y.shape, 4)
    got.backward(g)
    np.testing.assert_array_equal(tx.grad, slow_conv_transpose(g, w, size=x.shape[2:], **settings))
    np.testing.assert_array_equal(tb.grad, g.sum(axis=(0, 2, 3)))
    # <A x, g> = <x, A'g>, and the same for the weight, in which the convolution is linear too
    plain = np.sum((y - b[:, None, None]) * g)
    assert plain == np.sum(x * tx.grad) == np.sum(w * tw.grad)
    transposed = conv_transpose(g, w, size=x.shape[2:], **settings)
    np.testing.assert_array_equal(transposed.data, tx.grad)


@pytest.mark.parametrize("settings", SETTINGS[::5], ids=identify)
def test_windows_and_fold_are_transposes(settings):
    settings = {k: v for k, v in settings.items() if k != "groups"}
    x = whole((2, 3, 6, 7), 1)
    y = windows(x, kernel=(2, 3), **settings)
    g = whole(y.shape, 2)
    assert np.sum(y.data * g) == np.sum(x * fold(g, size=x.shape[2:], **settings).data)


@pytest.mark.parametrize("padding", ["same", "valid", 1, (0, (2, 1))], ids=str)
def test_a_large_convolution_by_rows_agrees_with_one_by_windows(padding):
    x, w, b = whole((80, 4, 14, 15), 1), whole((6, 4, 3, 2), 2), whole((6,), 3)
    geo = plan("conv", x.shape, w.shape, 1, padding)
    assert geo.by_rows and not plan("conv", x.shape, w.shape, 2, padding).by_rows

    def results(x, w, b):
        y, seen = conv.op.value(x, w, b, padding=padding)
        g = whole(y.shape, 4).astype(x.dtype)
        by_weight = [convolution._by_weight(g, x, kept, w.shape, 1, padding, 1, 1) for kept in (seen, None)]
        return y, *by_weight, conv_transpose.op.value(g, w, size=x.shape[2:], padding=padding)

    # whole numbers: sums in any order are the same
    for got, expected in zip(results(x, w, b), results(*(a.astype(object) for a in (x, w, b))), strict=True):
        np.testing.assert_array_equal(got, expected.astype(float))


@pytest.mark.parametrize("dtype", ["f", "d"])
@pytest.mark.parametrize("places", [(24,), (5, 7), (1,), (40, 50)], ids=str)
def test_a_mean_over_places_of_a_convolution_is_that_of_numpy(places, dtype):
    x = np.random.default_rng(0).standard_normal((3, *places, 8)).astype(dtype)
    axes = tuple(range(2, x.ndim))
    images = np.moveaxis(x, -1, 0)
    for keepdims in (False, True):
        got, expected = ops.mean(images, axis=axes, keepdims=keepdims).data, images.mean(axis=axes, keepdims=keepdims)
        assert got.shape == expected.shape and got.dtype == expected.dtype
        np.testing.assert_allclose(got, expected, rtol=0, atol=4 * np.finfo(dtype).eps)


def test_a_large_product_is_cut_into_blocks():
    assert blocks(16 * 72, 1024) == 2 and blocks(72, 4096) == 1
    assert blocks(1 << 16, 1 << 12) == blocks(1 << 16, 4099) == 1, "blocks would be narrow, or of unequal width"
    x, w = whole((64, 8, 4, 4), 1, np.float32), whole((16, 8, 3, 3), 2, np.float32)
    tx, tw = mf.tensor(x, requires_grad=True), mf.tensor(w, requires_grad=True)
    y = conv(tx, tw, 0, padding="same")
    np.testing.assert_array_equal(y.data, slow_conv(x, w, 0, padding="same"))
    g = whole(y.shape, 3, np.float32)
    y.backward(g)
    assert np.sum(w * tw.grad) == np.sum(y.data * g) == np.sum(x * tx.grad)


def test_windows_built_again_give_the_same_gradient(monkeypatch):
    x, w = mf.tensor(whole((2, 2, 5, 4))), whole((3, 2, 3, 3), 1)
    grads = []
    for limit in (convolution.KEPT, 0):
        monkeypatch.setattr(convolution, "KEPT", limit)
        tw = mf.tensor(w, requires_grad=True)
        y = conv(x, tw, 0)
        assert sum(np.ndim(a) == 4 for a in y._node.edges[0][2]) == 1 + (limit > 0), "x, and its windows"
        y.backward(np.ones(y.shape))
        grads.append(tw.grad)
    np.testing.assert_array_equal(*grads)


# Memory order


def test_the_batch_is_last_in_memory_and_any_order_is_taken():
    x, w, b = (mf.tensor(a, requires_grad=True) for a in (whole((3, 2, 6, 6)), whole((4, 2, 3, 3), 1), whole((4,), 2)))
    y = conv(x, w, b, padding="same")
    p = max_pool(np.maximum(y, 0.0), kernel=2)
    for t in (y, p):
        assert t.data.transpose(1, 2, 3, 0).flags.c_contiguous
    flat = np.reshape(p, (3, -1))
    np.testing.assert_array_equal(flat.data, np.ascontiguousarray(p.data).reshape(3, -1))
    g = whole(flat.shape, 3)
    expected = mf.vjp(
        lambda x, w, b: np.reshape(max_pool(np.maximum(conv(x, w, b, padding="same"), 0.0), kernel=2), (3, -1)), x, w, b
    )[1](g)
    for order in itertools.permutations(range(4)):
        back = np.argsort(order)
        inputs = [
            np.ascontiguousarray(t.data.transpose(order)).transpose(back) if t.ndim == 4 else t.data for t in (x, w, b)
        ]
        y = slow_conv(*inputs, padding="same")
        np.testing.assert_array_equal(conv(*inputs, padding="same").data, y)
        upstream = np.ascontiguousarray(g.reshape(p.shape).transpose(order)).transpose(back)
        got = mf.vjp(lambda x, w, b: max_pool(np.maximum(conv(x, w, b, padding="same"), 0.0), kernel=2), *inputs)[1](
            upstream
        )
        with mf.no_grad():
            for a, e in zip(got, expected, strict=True):
                np.testing.assert_array_equal(a, e)


# Ties and special values


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_ties_give_the_gradient_to_the_first(dtype):
    x = mf.tensor(np.array([[[[1, 1, 0, 0], [1, 1, 2, 2], [3, 0, 4, 5], [3, 3, 5, 5]]]], dtype), requires_grad=True)
    max_pool(x, kernel=2).backward(np.array([[[[1, 2], [3, 4]]]], dtype))
    np.testing.assert_array_equal(x.grad[0, 0], [[1, 0, 0, 0], [0, 0, 2, 0], [3, 0, 0, 4], [0, 0, 0, 0]])
    flat = mf.tensor(np.zeros((1, 1, 3, 3), dtype), requires_grad=True)
    max_pool(flat, kernel=2, stride=1).backward(np.ones((1, 1, 2, 2), dtype))
    np.testing.assert_array_equal(flat.grad[0, 0], [[1, 1, 0], [1, 1, 0], [0, 0, 0]])
    tangent = np.arange(9, dtype=dtype).reshape(1, 1, 3, 3)
    pushed = mf.jvp(lambda t: max_pool(t, kernel=2, stride=1), (flat.data,), (tangent,))[1]
    np.testing.assert_array_equal(pushed[0, 0], [[0, 1], [3, 4]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_padding_never_wins(dtype):
    x = mf.tensor(np.full((1, 1, 2, 2), -np.inf, dtype), requires_grad=True)
    y = max_pool(x, kernel=2, padding=1)
    assert (y.data == -np.inf).all()
    y.backward(np.ones((1, 1, 2, 2), dtype))
    np.testing.assert_array_equal(x.grad, np.ones((1, 1, 2, 2)))
    x = mf.tensor(np.full((1, 1, 2, 2), -7.0, dtype), requires_grad=True)
    assert (max_pool(x, kernel=2, padding=1).data == -7).all()
    assert (avg_pool(x, kernel=2, padding=1).data == -7 / 4).all(), "zeros count in a mean"


def test_a_nan_shows_in_its_own_windows_only():
    x = mf.tensor(np.arange(16.0).reshape(1, 1, 4, 4), requires_grad=True)
    values = x.data.copy()
    values[0, 0, 0, 0] = np.nan
    x.data = values
    y = max_pool(x, kernel=2)
    assert np.isnan(y.data[0, 0, 0, 0]) and np.isnan(y.data).sum() == 1
    y.backward(np.ones(y.shape))
    assert x.grad.sum() == 4


@pytest.mark.parametrize("shape", [(1, 2, 7), (2, 2, 5, 6), (1, 1, 4, 3, 5)], ids=str)
@pytest.mark.parametrize(
    "settings",
    [
        {"kernel": 2},
        {"kernel": 3, "stride": 1},
        {"kernel": 3, "stride": 2, "padding": 1},
        {"kernel": 2, "padding": "same"},
    ],
    ids=identify,
)
def test_pools_agree_with_loops(shape, settings):
    x = whole(shape, 1)
    np.testing.assert_array_equal(max_pool(x, **settings).data, slow_pool(np.max, -np.inf)(x, **settings))
    np.testing.assert_allclose(avg_pool(x, **settings).data, slow_pool(np.mean, 0.0)(x, **settings), rtol=1e-15)


# Counts


def digits_net(dtype=np.float32):
    return nn.Sequential(
        nn.Conv2D(1, 8, 3, padding="same", rng=0), nn.ReLU(), nn.MaxPool2D(2),
        nn.Conv2D(8, 16, 3, padding="same", rng=1), nn.ReLU(), nn.Flatten(), nn.Dense(256, 10, rng=2),
    ).astype(dtype)  # fmt: skip


def test_products_are_three_forwards_less_the_first(watcher):
    n = 5
    net, x = digits_net(), whole((n, 1, 8, 8), 1, np.float32)
    with watcher.on():
        nn.CrossEntropyLoss()(net(x), np.arange(n)).backward()
    first, second, dense = 2 * n * 64 * 8 * 9, 2 * n * 16 * 16 * 72, 2 * n * 256 * 10
    forward = first + second + dense
    assert watcher.costs() == (forward, 2 * forward - first)


def test_a_convolutions_parameter_costs_a_dense_ones_times_the_places():
    n = 4
    images = nn.Sequential(
        nn.Conv2D(8, 8, 3, padding="same", bias=False, rng=0), nn.Conv2D(8, 8, 3, padding="same", bias=False, rng=1)
    )
    rows = nn.Sequential(nn.Dense(64, 64, bias=False, rng=0), nn.Dense(64, 64, bias=False, rng=1))
    a_parameter = []
    for net, x in ((images, whole((n, 8, 8, 8), 1, np.float32)), (rows, whole((n, 64), 1, np.float32))):
        with mf.Profiler(net) as profiler:
            net(x).sum().backward()
            mf.optim.SGD(net.parameters(), lr=0.1).step()
            profiler.end_epoch()
        layer = next(row for row in profiler.session.total().layers() if row.layer.startswith("1"))
        a_parameter.append(
            (layer.products_forward + layer.products_backward) / sum(p.size for p in net[1].parameters())
        )
    assert a_parameter[1] == 3 * 2 * n
    assert a_parameter[0] == 64 * a_parameter[1], "8 × 8 places"


# Errors

BAD = [
    (lambda: conv(np.ones((2, 3)), np.ones((1, 3, 1)), 0), ShapeError, r"conv: expected x of shape \(N, C, W\), .*got \(2, 3\)"),
    (lambda: conv(np.ones((1, 3, 4, 4)), np.ones((1, 3, 2)), 0), ShapeError, r"conv: expected a weight of 4 axes, as x has, got \(1, 3, 2\)"),
    (lambda: conv(np.ones((1, 3, 4, 4)), np.ones((2, 2, 3, 3)), 0), ShapeError, r"conv: expected x of shape \(N, 2, H, W\) for a weight \(2, 2, 3, 3\), groups=1, got \(1, 3, 4, 4\)"),
    (lambda: conv(np.ones((1, 4, 4, 4)), np.ones((3, 2, 3, 3)), 0, groups=2), ArgumentError, "conv: expected groups to divide the 3 channels of the weight's first axis, got 2"),
    (lambda: conv(np.ones((1, 4, 4, 4)), np.ones((3, 2, 3, 3)), 0, groups=0), ArgumentError, "conv: expected groups to divide"),
    (lambda: conv(np.ones((1, 1, 4, 4)), np.ones((1, 1, 5, 3)), 0), ShapeError, r"conv: expected an input of at least 5 × 3 with its padding, got 4 × 4 and padding \(\(0, 0\), \(0, 0\)\); use a smaller kernel"),
    (lambda: conv(np.ones((1, 1, 4)), np.ones((1, 1, 3)), 0, dilation=2), ShapeError, "conv: expected an input of at least 5 with"),
    (lambda: conv(np.ones((1, 1, 4)), np.ones((2, 1, 3)), np.ones(3)), ShapeError, r"conv: expected b of shape \(2,\), or 0 for none, got \(3,\)"),
    (lambda: conv(np.ones((1, 1, 4)), np.ones((2, 1, 3)), 2), ShapeError, r"conv: expected b of shape \(2,\), or 0 for none, got \(\)"),
    (lambda: conv(np.ones((1, 1, 4)), np.ones((2, 1, 3)), 0, stride=0), ArgumentError, "conv: expected stride to be a positive integer or 1 of them, got 0"),
    (lambda: conv(np.ones((1, 1, 4)), np.ones((2, 1, 3)), 0, stride=1.5), ArgumentError, "conv: expected stride"),
    (lambda: conv(np.ones((1, 1, 4)), np.ones((2, 1, 3)), 0, dilation=(1, 1)), ArgumentError, "conv: expected dilation"),
    (lambda: conv(np.ones((1, 1, 4)), np.ones((2, 1, 3)), 0, padding="full"), ArgumentError, "conv: expected padding to be 'same', 'valid', an integer from 0 up"),
    (lambda: conv(np.ones((1, 1, 4)), np.ones((2, 1, 3)), 0, padding=-1), ArgumentError, "conv: expected padding"),
    (lambda: conv_transpose(np.ones((1, 2, 4)), np.ones((3, 1, 3))), ShapeError, r"conv_transpose: expected x of shape \(N, 3, W\)"),
    (lambda: conv_transpose(np.ones((1, 1, 4)), np.ones((1, 1, 3)), size=9), ShapeError, r"conv_transpose: expected x of \(7,\) places for size \(9,\)"),
    (lambda: conv_transpose(np.ones((1, 1, 2)), np.ones((1, 1, 3)), padding=2), ArgumentError, "conv_transpose: expected size to be a positive integer"),
    (lambda: windows(np.ones(4), kernel=2), ShapeError, "windows: expected x of shape"),
    (lambda: windows(np.ones((1, 1, 4)), kernel=0), ArgumentError, "windows: expected kernel"),
    (lambda: fold(np.ones((1, 1, 2)), size=3), ShapeError, "fold: expected x of shape"),
    (lambda: fold(np.ones((1, 1, 2, 2)), size=5), ShapeError, r"fold: expected \(4,\) windows in an image of \(5,\), got \(2,\)"),
    (lambda: max_pool(np.ones((1, 4)), kernel=2), ShapeError, "max_pool: expected x of shape"),
    (lambda: max_pool(np.ones((1, 1, 4)), kernel=5), ShapeError, "max_pool: expected an input of at least 5"),
    (lambda: max_pool(np.ones((1, 1, 4)), kernel=2, padding=2), ArgumentError, "max_pool: expected less padding than the kernel"),
    (lambda: max_pool(np.ones((1, 1, 4), int), kernel=2, padding=1), DTypeError, "max_pool: expected floats, since there is padding, got int64"),
    (lambda: avg_pool(np.ones((1, 1, 4)), kernel=2, padding=[(0, 3)]), ArgumentError, "avg_pool: expected less padding than the kernel"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "text"), BAD, ids=[row[2][:60] for row in BAD])
def test_errors_say_what_was_expected(call, error, text):
    with pytest.raises(error, match=f"^{text}"):
        call()


def test_settings_may_be_lists_and_numpys_integers():
    x, w = whole((1, 2, 6, 6)), whole((2, 2, 3, 3), 1)
    expected = conv(x, w, 0, stride=(2, 1), padding=((1, 0), (2, 2))).data
    np.testing.assert_array_equal(conv(x, w, 0, stride=[2, np.int64(1)], padding=[[1, 0], np.int64(2)]).data, expected)
    np.testing.assert_array_equal(conv(x, w, 0, stride=np.array([2, 1]), padding=[(1, 0), (2, 2)]).data, expected)


def test_whole_numbers_and_lists_can_be_pooled():
    np.testing.assert_array_equal(max_pool([[[1, 3, 2, 2]]], kernel=2).data, [[[3, 2]]])
    assert max_pool(np.array([[[1, 3, 2, 2]]]), kernel=2).dtype.kind == "i"


def test_an_empty_batch_has_an_empty_gradient_and_parameters_a_zero_one():
    net = nn.Sequential(digits_net()[0], nn.MaxPool2D(2), nn.AvgPool2D(2), nn.GlobalAvgPool2D())
    y = net(np.zeros((0, 1, 8, 8), np.float32))
    assert y.shape == (0, 8)
    y.sum().backward()
    assert not net[0].weight.grad.any() and not net[0].bias.grad.any()


def test_geometry_is_worked_out_once():
    assert geometry("conv", (8, 8), (3, 3), (1, 1), "same") is geometry("conv", (8, 8), (3, 3), (1, 1), "same")
    assert not geometry("conv", (8, 8), (3, 3)).spots.flags.writeable


# Peers


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("settings", [s for s in SETTINGS if s["padding"] != (0, (2, 1))], ids=identify)
def test_values_and_gradients_are_pytorchs(settings):
    torch = pytest.importorskip("torch")
    if settings["padding"] == "same" and settings["stride"] != 1:
        pytest.skip("PyTorch has no such padding")
    rng = np.random.default_rng(0)
    arrays = (
        rng.standard_normal((2, 4, 6, 7)),
        rng.standard_normal((6, 4 // settings["groups"], 3, 2)),
        rng.standard_normal(6),
    )
    ours = [mf.tensor(a, requires_grad=True) for a in arrays]
    theirs = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, z = conv(*ours, **settings), torch.nn.functional.conv2d(*theirs, **settings)
    np.testing.assert_allclose(y.data, z.detach().numpy(), rtol=1e-9, atol=1e-12)
    g = rng.standard_normal(y.shape)
    y.backward(g)
    z.backward(torch.tensor(g))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=1e-9, atol=1e-12)


@pytest.mark.peers
@pytest.mark.parametrize("settings", [(2, None, 0), (3, 2, 1), (2, 1, 0), ((2, 3), 1, 1)], ids=str)
def test_pools_are_pytorchs_ties_included(settings):
    torch = pytest.importorskip("torch")
    x = whole((2, 3, 7, 6))
    kernel, stride, padding = settings
    for call, name in ((max_pool, "max_pool2d"), (avg_pool, "avg_pool2d")):
        ours, theirs = mf.tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
        y = call(ours, kernel=kernel, stride=stride, padding=padding)
        z = getattr(torch.nn.functional, name)(theirs, *settings)
        np.testing.assert_allclose(y.data, z.detach().numpy(), rtol=1e-12)
        g = whole(y.shape, 1)
        y.backward(g)
        z.backward(torch.tensor(g))
        np.testing.assert_allclose(ours.grad, theirs.grad.numpy(), rtol=1e-12, atol=1e-14)


@pytest.mark.peers
def test_products_are_what_pytorch_counts(watcher):
    torch = pytest.importorskip("torch")
    from torch.utils.flop_counter import FlopCounterMode

    n, x, labels = 4, whole((4, 1, 8, 8), 1, np.float32), np.arange(4)
    with watcher.on():
        nn.CrossEntropyLoss()(digits_net()(x), labels).backward()
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
        torch.nn.Conv2d(8, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(256, 10),
    )  # fmt: skip
    with FlopCounterMode(display=False) as counter:
        torch.nn.functional.cross_entropy(net(torch.from_numpy(x)), torch.from_numpy(labels)).backward()
    assert sum(watcher.costs()) == counter.get_total_flops(), n


def test_a_wrong_call_leaves_the_right_ones_alone():
    """What is worked out once is kept by the settings' types, too: 2.0 is not 2."""
    x, w = np.ones((2, 4, 5, 5)), np.ones((4, 2, 3, 3))
    with pytest.raises(ArgumentError, match="groups to divide the 4 channels"):
        conv(x, w, 0, groups=4 / 2)
    assert conv(x, w, 0, groups=2).shape == (2, 4, 3, 3)
    for bad in ({"stride": 1.0}, {"stride": True}, {"padding": 0.0}):
        with pytest.raises(ArgumentError):
            conv(x, w, 0, groups=2, **bad)
    with pytest.raises(ArgumentError, match="conv_transpose: expected stride"):
        conv_transpose(x, w, groups=2, stride={1: 2})
