"""What losses refuse: labels, shapes, targets and settings."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import ArgumentError, DataError, DTypeError, ShapeError
from tests.cases.losses import LABELS, LOSSES, PROBABILITIES, SHARES, TUPLES, VECTORS, WEIGHT, T, Z

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


def test_logarithms_of_probabilities_that_are_nan_or_infinite():
    for bad in (np.nan, np.inf):
        for target in ([[bad, -0.1], [-0.5, -1.0]], mf.tensor([[bad, bad], [bad, bad]])):
            with pytest.raises(
                DataError, match="^KLDivLoss: expected logarithms of target probabilities, got (nan|inf)$"
            ):
                nn.KLDivLoss(log_target=True)(mf.tensor(np.log([[0.3, 0.7], [0.5, 0.5]])), target)


@pytest.mark.parametrize("loss_fn", [nn.CrossEntropyLoss(), nn.NLLLoss()])
def test_weights_that_are_all_zero_are_an_error_as_a_tensor_and_in_a_replay(loss_fn):
    model = nn.Dense(3, 3, rng=0)
    step = mf.compile(lambda x, y, w: loss_fn(model(x), y, w), optim.SGD(model.parameters(), lr=0.1))
    x, w = Z.astype(np.float32), np.ones(5, np.float32)
    calls = [
        lambda w: loss_fn(model(x), LABELS, w),
        lambda w: loss_fn(model(x), LABELS, mf.tensor(w)),
        lambda w: step(x, LABELS, w),
    ]
    for call in calls:
        for _ in range(4):
            call(w)
        with pytest.raises(DataError, match="expected a row with a positive weight, got none in this batch"):
            call(0 * w)


def test_logits_of_sequences_and_images_say_how_to_reshape():
    logits, text = (
        mf.tensor(np.zeros((2, 3, 4))),
        r"; reshape the logits to \(-1, C\), classes last, and the labels to \(-1,\)$",
    )
    for labels in (np.zeros((2, 3), int), np.zeros((2, 4), int), mf.tensor(np.zeros((2, 3), int))):
        with pytest.raises(ShapeError, match=text):
            nn.CrossEntropyLoss()(logits, labels)
    with pytest.raises(ShapeError, match=r"; reshape both to \(-1, C\), classes last$"):
        nn.CrossEntropyLoss()(logits, np.full((2, 3, 4), 0.25))


def test_what_are_no_probabilities():
    loss_fn, z = nn.CrossEntropyLoss(), mf.tensor(Z)
    fix = r"; for classes that do not exclude each other use nn\.BCEWithLogitsLoss$"
    with pytest.raises(
        DataError,
        match="^CrossEntropyLoss: expected probabilities that add up to 1 in each row, got 0.5 at row 0" + fix,
    ):
        loss_fn(z, PROBABILITIES / 2)
    with pytest.raises(DataError, match="^CrossEntropyLoss: expected probabilities from 0 to 1, got -.*" + fix):
        loss_fn(z, PROBABILITIES - np.eye(5, 3))
    with pytest.raises(ShapeError, match=r"expected prediction and target of one shape, got \(5, 3\) and \(5, 2\)"):
        loss_fn(z, PROBABILITIES[:, :2])
    with pytest.raises(
        ShapeError, match=r"integer labels \(N,\), N at least 1, got .*; cast probabilities with \.astype\(float\)$"
    ):
        loss_fn(z, np.eye(5, 3, dtype=int))
    with pytest.raises(ShapeError, match="^CrossEntropyLoss: expected a weight for each of 3 classes, got 2 of them"):
        nn.CrossEntropyLoss(weight=[1, 2])(z, PROBABILITIES)
    with pytest.raises(
        ArgumentError,
        match="^CrossEntropyLoss: expected integer labels, since there is an ignore_index, got probabilities",
    ):
        nn.CrossEntropyLoss(ignore_index=0)(z, PROBABILITIES)
    with pytest.raises(ShapeError):
        nn.NLLLoss()(z, PROBABILITIES)


def test_what_is_no_mean_and_variance():
    loss_fn, z = nn.GaussianNLLLoss(), mf.tensor(Z)
    with pytest.raises(
        DTypeError,
        match=r"^GaussianNLLLoss: expected the prediction to be a tuple \(mean, var\), got Tensor; call loss\(\(mean, var\), target\)$",
    ):
        loss_fn(z, T, mf.tensor(SHARES))
    with pytest.raises(DataError, match="expected variances of at least 0, got .*; pass np.exp of an output"):
        loss_fn((z, mf.tensor(-SHARES)), T)
    with pytest.raises(ShapeError, match=r"expected variances of shape \(5, 3\) of float64, got \(5, 1\) of float64"):
        loss_fn((z, mf.tensor(SHARES[:, :1])), T)
    with pytest.raises(DTypeError, match="expected the variance to be a Tensor, got ndarray"):
        loss_fn((z, SHARES), T)
    with pytest.raises(ArgumentError, match="^GaussianNLLLoss: expected a positive eps, got 0"):
        nn.GaussianNLLLoss(eps=0)


def test_settings_out_of_range():
    for kind in {row[0] for row in (LOSSES | TUPLES | VECTORS).values()}:
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


def test_other_losses_say_what_is_wrong():
    with pytest.raises(
        DataError, match="^KLDivLoss: expected target probabilities from 0 to 1, got .* pass log_target=True"
    ):
        nn.KLDivLoss()(mf.tensor(Z), T)
    with pytest.raises(ShapeError, match="^KLDivLoss: expected distributions along the last axis, got a single number"):
        nn.KLDivLoss()(mf.tensor(0.0), 1.0)
    with pytest.raises(DataError, match="^PoissonNLLLoss: expected counts of at least 0, got -1.0"):
        nn.PoissonNLLLoss()(mf.tensor([1.0, 2.0]), [-1, 2])
    with pytest.raises(DataError, match="^PoissonNLLLoss: expected rates of at least 0, got -1.0; pass log_input=True"):
        nn.PoissonNLLLoss(log_input=False)(mf.tensor([-1.0, 2.0]), [1, 2])
    with pytest.raises(ArgumentError, match="^PoissonNLLLoss: expected a positive eps, got 0"):
        nn.PoissonNLLLoss(eps=0)
    a = mf.tensor(Z)
    with pytest.raises(DataError, match="^CosineEmbeddingLoss: expected targets of -1 and 1, got 0"):
        nn.CosineEmbeddingLoss()(a, a, np.zeros(5))
    with pytest.raises(ShapeError, match=r"^CosineEmbeddingLoss: expected targets of shape \(5,\), got \(3,\)"):
        nn.CosineEmbeddingLoss()(a, a, np.ones(3))
    for call in (lambda x: nn.CosineEmbeddingLoss()(x, x, 1), lambda x: nn.TripletMarginLoss()(x, x, x)):
        with pytest.raises(ShapeError, match=r"expected vectors of shape \(N, C\), got \(3,\)"):
            call(a[0])
    with pytest.raises(ShapeError, match="^TripletMarginLoss: expected prediction and target of one shape"):
        nn.TripletMarginLoss()(a, a, a[:2])
    with pytest.raises(ArgumentError, match="^CosineEmbeddingLoss: expected margin from -1 to 1, got 2"):
        nn.CosineEmbeddingLoss(margin=2)
    with pytest.raises(ArgumentError, match="^TripletMarginLoss: expected a positive margin, got 0"):
        nn.TripletMarginLoss(margin=0)
    with pytest.raises(ArgumentError, match="^NLLLoss: expected ignore_index to be an integer, got 1.5"):
        nn.NLLLoss(ignore_index=1.5)
    for options in ({"weight": "sum"}, {"pos_weight": -1.0}, {"weight": [1, np.inf]}):
        with pytest.raises(ArgumentError, match="weight of at least 0 for each class, got"):
            nn.BCEWithLogitsLoss(**options)
    with pytest.raises(
        ShapeError, match=r"expected a pos_weight for each entry of the last axis of \(5, 3\), got 2 of them"
    ):
        nn.BCEWithLogitsLoss(pos_weight=[1, 2])(a, SHARES)
    with pytest.raises(ShapeError, match=r"expected a weight for each entry of the last axis of \(\), got 1 of them"):
        nn.BCEWithLogitsLoss(weight=[1])(mf.tensor(0.0), 1.0)
    for bad in (["a"] * 5, np.ones(5, complex), [None, {}, 1, 1, 1], [[1], [1, 2]]):
        with pytest.raises(DTypeError, match="^MSELoss: expected the target to hold numbers, got (list|ndarray)"):
            nn.MSELoss()(mf.tensor(Z), bad)
        with pytest.raises(
            DTypeError, match="^NLLLoss: expected the sample_weight to hold numbers, got (list|ndarray)"
        ):
            nn.NLLLoss()(mf.tensor(Z), LABELS, bad)
    with pytest.raises(ShapeError, match="expected a sample_weight for each of 1 rows"):
        nn.MSELoss()(mf.tensor(0.0), 1.0, sample_weight=[1.0])
