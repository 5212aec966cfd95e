"""Losses: values, derivatives, stability, reductions, and what they refuse."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
from op_cases import floats

import microfw as mf
from microfw import nn
from microfw.errors import ArgumentError, DataError, DTypeError, ShapeError

LABELS = np.array([2, 0, 1, 2, 2])
Z = floats((5, 3), -3, 3)
T = floats((5, 3), -3, 3, seed=4) + 0.031
SIGNS = np.where(floats((5, 3), seed=5) > 0, 1.0, -1.0)
SHARES = floats((5, 3), 0.05, 0.9, seed=6)
WEIGHT = np.array([0.5, 2.0, 1.0])

# A row for each loss: its class, its options, a target, and its values entry by entry.
LOSSES = {
    "MSELoss": (nn.MSELoss, {}, T, lambda z, t: (z - t) ** 2),
    "L1Loss": (nn.L1Loss, {}, T, lambda z, t: abs(z - t)),
    "HuberLoss": (
        nn.HuberLoss, {"delta": 0.7}, T, lambda z, t: np.where(abs(z - t) <= 0.7, (z - t) ** 2 / 2, 0.7 * (abs(z - t) - 0.35)),
    ),
    "HingeLoss": (nn.HingeLoss, {}, SIGNS, lambda z, t: np.maximum(0, 1 - t * z)),
    "BCEWithLogitsLoss": (
        nn.BCEWithLogitsLoss, {}, SHARES, lambda z, t: -t * np.log(1 / (1 + np.exp(-z))) - (1 - t) * np.log(1 / (1 + np.exp(z))),
    ),
    "CrossEntropyLoss": (nn.CrossEntropyLoss, {}, LABELS, lambda z, y: -logp(z)[np.arange(len(y)), y]),
    "CrossEntropyLoss smoothed": (
        nn.CrossEntropyLoss, {"label_smoothing": 0.1}, LABELS, lambda z, y: -np.sum((0.9 * np.eye(3)[y] + 0.1 / 3) * logp(z), 1),
    ),
}  # fmt: skip

rows = pytest.mark.parametrize("name", LOSSES)


def logp(z):
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def test_each_loss_has_a_row():
    exported = {
        v for n in nn.__all__ if inspect.isclass(v := getattr(nn, n)) and issubclass(v, nn.Loss) and v is not nn.Loss
    }
    assert {row[0] for row in LOSSES.values()} == exported


@rows
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_values_and_derivatives(name, reduction):
    kind, options, target, value = LOSSES[name]
    loss_fn = kind(**options, reduction=reduction)
    expected = value(Z, target)
    expected = {"mean": np.mean, "sum": np.sum, "none": np.asarray}[reduction](expected)
    loss = loss_fn(mf.tensor(Z), target)
    assert loss.shape == expected.shape
    np.testing.assert_allclose(loss.data, expected, rtol=1e-13)
    assert mf.gradcheck(lambda z: loss_fn(z, target), Z) <= 1e-6
    assert mf.gradcheck(mf.grad(lambda z: np.sum(np.square(loss_fn(z, target)))), Z) <= 1e-6


@rows
def test_float32_and_repeated_walks(name):
    kind, options, target, _ = LOSSES[name]
    z = mf.tensor(Z.astype(np.float32), requires_grad=True)
    loss = kind(**options)(z, target)
    assert loss.dtype == np.float32 and loss.shape == ()
    loss.backward(retain_graph=True)
    first = z.grad.copy()
    z.zero_grad()
    loss.backward()
    assert z.grad.dtype == np.float32
    np.testing.assert_array_equal(first, z.grad)
    np.testing.assert_allclose(first, mf.grad(lambda t: kind(**options)(t, target))(Z), rtol=1e-4, atol=1e-6)


@rows
def test_one_row(name):
    kind, options, target, value = LOSSES[name]
    assert mf.gradcheck(lambda z: kind(**options)(z, target[:1]), Z[:1]) <= 1e-6


@pytest.mark.parametrize("name", ["MSELoss", "L1Loss", "HuberLoss", "BCEWithLogitsLoss"])
def test_a_target_may_need_a_gradient_or_be_a_tensor(name):
    kind, options, target, _ = LOSSES[name]
    loss = kind(**options)(mf.tensor(Z), mf.tensor(target))
    np.testing.assert_array_equal(loss.data, kind(**options)(mf.tensor(Z), target).data)


@pytest.mark.parametrize("name", ["MSELoss", "L1Loss", "HuberLoss"])
def test_the_gradient_by_the_target_is_the_opposite(name):
    kind, options, target, _ = LOSSES[name]
    a, b = mf.grad(lambda z, t: kind(**options)(z, t), (0, 1))(Z, target)
    np.testing.assert_allclose(a, -b)


# Class weights and smoothing


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smooth", [0.0, 0.2, 1.0])
def test_class_weights(reduction, smooth):
    loss_fn = nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=smooth, reduction=reduction)
    target = (1 - smooth) * np.eye(3)[LABELS] + smooth / 3
    losses = -np.sum(WEIGHT * target * logp(Z), axis=1)
    expected = {"mean": losses.sum() / WEIGHT[LABELS].sum(), "sum": losses.sum(), "none": losses}[reduction]
    np.testing.assert_allclose(loss_fn(mf.tensor(Z), LABELS).data, expected, rtol=1e-13)
    assert mf.gradcheck(lambda z: loss_fn(z, LABELS), Z) <= 1e-6


def test_weights_of_one_change_nothing():
    plain, weighted = nn.CrossEntropyLoss(), nn.CrossEntropyLoss(weight=[1, 1, 1])
    np.testing.assert_allclose(
        mf.grad(lambda z: plain(z, LABELS))(Z), mf.grad(lambda z: weighted(z, LABELS))(Z), atol=1e-15
    )


def test_a_class_of_weight_zero_has_no_say():
    loss_fn = nn.CrossEntropyLoss(weight=[1, 1, 0])
    gradient = mf.grad(lambda z: loss_fn(z, LABELS))(Z)
    np.testing.assert_array_equal(gradient[LABELS == 2], 0)
    with pytest.raises(DataError, match="expected a label with a positive weight, got none in this batch"):
        loss_fn(mf.tensor(Z), np.full(5, 2))


# Stability


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "options", [{}, {"reduction": "sum"}, {"label_smoothing": 0.1}, {"weight": [1.0, 2.0]}], ids=str
)
def test_cross_entropy_of_huge_logits(dtype, options):
    loss_fn = nn.CrossEntropyLoss(**options)
    for good, y in ((1, [0, 1]), (-1, [1, 0])):
        z = mf.tensor(good * np.array([[1e4, -1e4], [-1e4, 1e4]], dtype), requires_grad=True)
        loss = loss_fn(z, np.array(y))
        loss.backward()
        assert np.isfinite(loss.data) and np.isfinite(z.grad).all()
        if not options:
            assert abs(loss.item()) < 1e-6
            np.testing.assert_array_equal(z.grad, 0)
    z = mf.tensor(np.array([[1e4, -1e4]], dtype), requires_grad=True)
    loss = nn.CrossEntropyLoss()(z, np.array([1]))
    loss.backward()
    assert loss.item() == 2e4
    np.testing.assert_array_equal(z.grad, [[1, -1]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_of_very_different_size_do_not_disturb_each_other(dtype):
    """One row of huge logits, and one whose digits must survive beside it."""
    z = np.array([[0.3, -0.2, 0.9], [1e4, 0, -1e4], [-60.0, -61.0, -62.5], [30.0, 31.0, 10.0]], dtype)
    y = np.array([1, 0, 2, 0])
    got = mf.grad(lambda t: nn.CrossEntropyLoss()(t, y))(z)
    for k in range(4):
        alone = mf.grad(lambda t: nn.CrossEntropyLoss()(t, y[k : k + 1]))(z[k : k + 1].astype(np.float64))  # noqa: B023
        np.testing.assert_allclose(got[k : k + 1] * 4, alone, rtol=20 * np.finfo(dtype).eps, atol=1e-30)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("gap", [0.0, 20.0, 40.0])
def test_small_gradients_keep_their_digits_beside_larger_rows(dtype, gap):
    z = np.array([[gap, gap - 1], [0.0, -40.0]], dtype)
    got = mf.grad(lambda t: nn.CrossEntropyLoss()(t, np.array([0, 0])))(z)
    p = np.exp(-40.0) / (1 + np.exp(-40.0))
    np.testing.assert_allclose(got[1], [-p / 2, p / 2], rtol=40 * np.finfo(dtype).eps)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7, 10, 32, 100])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_perfect_prediction_costs_nothing(n, dtype):
    loss = nn.CrossEntropyLoss()(mf.tensor(np.tile(np.array([[200.0, 0.0]], dtype), (n, 1))), np.zeros(n, int))
    assert 0 <= loss.item() <= 4 * np.finfo(dtype).eps * max(1, np.log(n))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_binary_cross_entropy_of_huge_logits(dtype):
    z = mf.tensor(np.array([1e4, 1e4, -1e4, -1e4], dtype), requires_grad=True)
    loss = nn.BCEWithLogitsLoss(reduction="none")(z, np.array([0, 1, 0, 1]))
    np.testing.assert_array_equal(loss.data, [1e4, 0, 0, 1e4])
    loss.backward(np.ones(4, dtype))
    np.testing.assert_array_equal(z.grad, [1, 0, 0, -1])


def test_huber_is_continuous_at_delta():
    for x in (1.0 - 1e-9, 1.0 + 1e-9):
        np.testing.assert_allclose(mf.grad(lambda z: nn.HuberLoss()(z, [0.0]))(np.array([x])), [1], atol=1e-8)
    np.testing.assert_allclose(nn.HuberLoss()(mf.tensor([3.0]), [0.0]).item(), 2.5)


# Bad input


WRONG_LABELS = {
    "negative": ([0, 1, -1, 2, 0], "expected labels from 0 to 2, got -1 at row 2; encode them as 0, 1, 2"),
    "very negative": ([0, 1, -9, 2, 0], "expected labels from 0 to 2, got -9 at row 2"),
    "too large": ([0, 1, 2, 3, 0], "expected labels from 0 to 2, got 3 at row 3; encode them as 0, 1, 2"),
    "floats": (
        [0.0, 1.0, 2.0, 0.0, 0.0],
        "expected integer labels of shape (N,), got float64; cast them with .astype(int)",
    ),
    "booleans": ([True, False, True, True, True], "expected integer labels of shape (N,), got bool"),
    "text": (["a", "b", "a", "b", "c"], "expected integer labels of shape (N,), got <U1"),
}


@pytest.mark.parametrize("name", WRONG_LABELS)
@pytest.mark.parametrize("options", [{}, {"reduction": "none"}, {"label_smoothing": 0.1}, {"weight": WEIGHT}], ids=str)
@pytest.mark.parametrize("how", [np.asarray, list])
def test_wrong_labels(name, options, how):
    labels, text = WRONG_LABELS[name]
    with pytest.raises(DataError) as info:
        nn.CrossEntropyLoss(**options)(mf.tensor(Z), how(labels))
    assert str(info.value).startswith(f"CrossEntropyLoss: {text}")


def test_labels_of_any_integer_type():
    expected = nn.CrossEntropyLoss()(mf.tensor(Z), LABELS).data
    for dtype in (np.int8, np.uint8, np.int32, np.uint64):
        np.testing.assert_array_equal(nn.CrossEntropyLoss()(mf.tensor(Z), LABELS.astype(dtype)).data, expected)
    np.testing.assert_array_equal(nn.CrossEntropyLoss()(mf.tensor(Z), LABELS.tolist()).data, expected)
    np.testing.assert_array_equal(nn.CrossEntropyLoss()(mf.tensor(Z), mf.tensor(LABELS)).data, expected)


@pytest.mark.parametrize("options", [{}, {"reduction": "none"}, {"label_smoothing": 0.1}], ids=str)
def test_shapes_of_labels(options):
    loss_fn = nn.CrossEntropyLoss(**options)
    with pytest.raises(ShapeError) as info:
        loss_fn(mf.tensor(Z), LABELS[:, None])
    assert str(info.value) == (
        "CrossEntropyLoss: expected logits (N, C) and integer labels (N,), N at least 1, got (5, 3) and (5, 1); "
        "flatten the labels with y.ravel()"
    )
    for logits, labels in (
        (Z, LABELS[:4]),
        (Z[0], LABELS),
        (Z[None], LABELS),
        (Z, np.array(1)),
        (Z, np.eye(3, dtype=int)[LABELS]),
    ):
        with pytest.raises(ShapeError, match="^CrossEntropyLoss: expected logits"):
            loss_fn(mf.tensor(logits), labels)
    with pytest.raises(ShapeError, match="skip empty batches"):
        loss_fn(mf.tensor(np.zeros((0, 3))), np.zeros(0, int))
    with pytest.raises(DTypeError, match="^CrossEntropyLoss: expected the logits to be a Tensor, got ndarray"):
        loss_fn(Z, LABELS)


@pytest.mark.parametrize("kind", [nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.HingeLoss, nn.BCEWithLogitsLoss])
def test_nothing_is_broadcast(kind):
    name = kind.__name__
    with pytest.raises(ShapeError) as info:
        kind()(mf.tensor(np.ones((4, 1))), np.ones(4))
    assert str(info.value) == (
        f"{name}: expected prediction and target of one shape, got (4, 1) and (4,); reshape the target with y[:, None]"
    )
    for p, t in (((4,), (4, 1)), ((4, 3), (3,)), ((4, 3), ()), ((4, 1), (4, 2))):
        with pytest.raises(ShapeError, match=f"^{name}: expected prediction and target of one shape"):
            kind()(mf.tensor(np.ones(p)), np.ones(t))
    with pytest.raises(
        ShapeError, match=rf"^{name}: expected at least one row, got shape \(0, 2\); skip empty batches"
    ):
        kind()(mf.tensor(np.ones((0, 2))), np.ones((0, 2)))
    with pytest.raises(
        DTypeError, match=f"^{name}: expected the prediction to be a Tensor, got ndarray; pass the model's"
    ):
        kind()(np.ones(3), np.ones(3))


def test_targets_out_of_range():
    with pytest.raises(
        DataError, match=r"^HingeLoss: expected targets of -1 and 1, got 0.0; map labels 0 and 1 by 2 \* y - 1"
    ):
        nn.HingeLoss()(mf.tensor([1.0, 2.0]), [0, 1])
    for bad in ([0.5, 1.5], [-0.1, 1.0], [np.nan, 1.0]):
        with pytest.raises(DataError, match="^BCEWithLogitsLoss: expected targets from 0 to 1, got"):
            nn.BCEWithLogitsLoss()(mf.tensor([1.0, 2.0]), bad)
    with pytest.raises(DataError):
        nn.HingeLoss()(mf.tensor([1.0]), [np.nan])


def test_settings_out_of_range():
    for kind in {row[0] for row in LOSSES.values()}:
        with pytest.raises(
            ArgumentError, match=f"^{kind.__name__}: expected reduction to be 'mean', 'sum' or 'none', got 'avg'"
        ):
            kind(reduction="avg")
    for delta in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ArgumentError, match="^HuberLoss: expected a positive delta"):
            nn.HuberLoss(delta)
    for smooth in (-0.1, 1.1, float("nan")):
        with pytest.raises(ArgumentError, match="expected label_smoothing from 0 to 1"):
            nn.CrossEntropyLoss(label_smoothing=smooth)
    for weight in ([-1, 1, 1], [0, 0], [[1, 1]], [np.nan, 1]):
        with pytest.raises(ArgumentError, match="expected a weight of at least 0 for each class"):
            nn.CrossEntropyLoss(weight=weight)
    with pytest.raises(ShapeError, match="expected a weight for each of 3 classes, got 2 of them"):
        nn.CrossEntropyLoss(weight=[1, 1])(mf.tensor(Z), LABELS)


# Peers


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_pytorch_agrees():
    torch = pytest.importorskip("torch")
    t = {
        "MSELoss": lambda r: torch.nn.MSELoss(reduction=r), "L1Loss": lambda r: torch.nn.L1Loss(reduction=r),
        "HuberLoss": lambda r: torch.nn.HuberLoss(delta=0.7, reduction=r),
        "BCEWithLogitsLoss": lambda r: torch.nn.BCEWithLogitsLoss(reduction=r),
        "CrossEntropyLoss": lambda r: torch.nn.CrossEntropyLoss(reduction=r),
        "CrossEntropyLoss smoothed": lambda r: torch.nn.CrossEntropyLoss(label_smoothing=0.1, reduction=r),
    }  # fmt: skip
    weighted = dict(LOSSES)
    weighted["weighted"] = (nn.CrossEntropyLoss, {"weight": WEIGHT, "label_smoothing": 0.2}, LABELS, None)
    t["weighted"] = lambda r: torch.nn.CrossEntropyLoss(torch.tensor(WEIGHT), label_smoothing=0.2, reduction=r)
    for name, peer in t.items():
        kind, options, target, _ = weighted[name]
        for reduction in ("mean", "sum", "none"):
            z, theirs = mf.tensor(Z, requires_grad=True), torch.tensor(Z, requires_grad=True)
            loss, other = kind(**options, reduction=reduction)(z, target), peer(reduction)(theirs, torch.tensor(target))
            np.testing.assert_allclose(loss.data, other.detach().numpy(), rtol=1e-12, err_msg=f"{name} {reduction}")
            loss.sum().backward()
            other.sum().backward()
            np.testing.assert_allclose(
                z.grad, theirs.grad.numpy(), rtol=1e-11, atol=1e-15, err_msg=f"{name} {reduction}"
            )
