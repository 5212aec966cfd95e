"""Losses: values, derivatives, weights of rows and classes, ignored labels."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import DataError, ShapeError
from tests.cases.losses import LABELS, LOSSES, PROBABILITIES, SHARES, TUPLES, VECTORS, WEIGHT, T, Z, logp

rows = pytest.mark.parametrize("name", LOSSES)


def test_each_loss_has_a_row():
    exported = {
        v for n in nn.__all__ if inspect.isclass(v := getattr(nn, n)) and issubclass(v, nn.Loss) and v is not nn.Loss
    }
    assert {row[0] for row in (LOSSES | TUPLES | VECTORS).values()} == exported


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


@pytest.mark.parametrize(
    "options", [{}, *({"pos_weight": one} for one in (1.0, np.float32(1), np.array(1.0), [1.0]))], ids=str
)
def test_binary_cross_entropy_has_a_gradient_by_the_target(options):
    z, t = np.array([-2.0, 0.5]), np.array([0.25, 1.0])
    loss = nn.BCEWithLogitsLoss(reduction="sum", **options)
    np.testing.assert_allclose(mf.grad(lambda x: loss(mf.tensor(z), x))(t), -z)
    np.testing.assert_allclose(mf.jvp(lambda x: loss(mf.tensor(z), x), (t,), (np.ones(2),))[1], -z.sum())


@pytest.mark.parametrize("shape", [(), (7,), (5, 1), (40, 500), (2, 3, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int8])
def test_the_plain_squared_error_is_what_weights_of_1_give(shape, dtype):
    """The one is an op of its own, with sums of its own for few entries and for many."""
    rng = np.random.default_rng(0)
    z, t = (np.asarray(rng.normal(0, 5, shape), dtype) for _ in range(2))
    y = nn.MSELoss()(mf.tensor(z), t)
    squares = nn.MSELoss("none")(mf.tensor(z), t)
    assert y.dtype == (np.float64 if dtype in (np.int32, np.int8) else dtype)
    np.testing.assert_allclose(y.data, squares.data.mean(dtype=np.float64), rtol=1e-6)
    if dtype is np.float64:
        slope = mf.grad(nn.MSELoss())(z, t)
        np.testing.assert_allclose(slope, 2 * (z - t) / z.size, rtol=1e-15)


def test_the_plain_squared_error_is_one_node():
    z = mf.tensor(np.ones((3, 2)), requires_grad=True)
    assert nn.MSELoss()(z, np.zeros((3, 2)))._node.parents == (z._leaf, None)
    with pytest.raises(ShapeError, match=r"^squared_error: expected two arrays of one shape .*got \(3, 2\) and \(2,\)"):
        mf.ops.loss.squared_error(z, np.zeros(2))
    with pytest.raises(ShapeError, match="at least one entry"):
        mf.ops.loss.squared_error(mf.tensor(np.zeros((0, 2))), np.zeros((0, 2)))


# Vectors


@pytest.mark.parametrize("name", VECTORS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_values_and_derivatives_of_vectors(name, reduction):
    kind, options, others, value = VECTORS[name]
    loss_fn = kind(**options, reduction=reduction)
    expected = {"mean": np.mean, "sum": np.sum, "none": np.asarray}[reduction](value(Z, *others))
    *vectors, target = others
    if kind is nn.TripletMarginLoss:
        vectors, target = [*vectors, target], ()
    else:
        target = (target,)
    loss = loss_fn(mf.tensor(Z), *(mf.tensor(v) for v in vectors), *target)
    np.testing.assert_allclose(loss.data, expected, rtol=1e-12)
    assert mf.gradcheck(lambda *v: loss_fn(*v, *target), Z, *vectors) <= 1e-6
    again = mf.grad(lambda *v: np.sum(np.square(loss_fn(*v, *target))), range(1 + len(vectors)))
    assert mf.gradcheck(again, Z, *vectors) <= 1e-6
    single = [mf.tensor(v.astype(np.float32)) for v in (Z, *vectors)]
    assert loss_fn(*single, *target).dtype == np.float32


# Mean and variance


@pytest.mark.parametrize("name", TUPLES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_values_and_derivatives_of_tuples(name, reduction):
    kind, options, second, target, value = TUPLES[name]
    loss_fn = kind(**options, reduction=reduction)
    losses, w = value(Z, second, target), np.array([1.0, 0.0, 2.0, 3.0, 0.5])
    expected = {"mean": np.mean, "sum": np.sum, "none": np.asarray}[reduction](losses)
    pair = mf.tensor(Z), mf.tensor(second)
    np.testing.assert_allclose(loss_fn(pair, target).data, expected, rtol=1e-13)
    weighted = losses * w[:, None]
    expected = {"mean": weighted.sum() / w.sum() / 3, "sum": weighted.sum(), "none": weighted}[reduction]
    np.testing.assert_allclose(loss_fn(pair, target, w).data, expected, rtol=1e-13)
    assert mf.gradcheck(lambda z, v, t: loss_fn((z, v), t), Z, second, target) <= 1e-6
    again = mf.grad(lambda z, v: np.sum(np.square(loss_fn((z, v), target))), (0, 1))
    assert mf.gradcheck(again, Z, second) <= 1e-6
    assert loss_fn(tuple(mf.tensor(a.astype(np.float32)) for a in (Z, second)), target).dtype == np.float32


def test_a_variance_below_eps_counts_as_eps_and_can_grow():
    var = mf.tensor(np.array([0.0, 0.25, 2.0]), requires_grad=True)
    mean, target = np.array([0.0, 1.0, 2.0]), np.array([1.0, 1.0, 1.0])
    loss = nn.GaussianNLLLoss(eps=0.5, reduction="none")((mf.tensor(mean), var), target)
    used = np.array([0.5, 0.5, 2.0])
    np.testing.assert_allclose(loss.data, (np.log(used) + (mean - target) ** 2 / used) / 2)
    loss.sum().backward()
    np.testing.assert_allclose(var.grad, (1 / used - (mean - target) ** 2 / used**2) / 2)


def test_a_network_of_mean_and_variance_is_replayed():
    def train(compile):
        model = nn.Sequential(nn.Dense(3, 4, rng=0))
        optimizer = mf.optim.SGD(model.parameters(), lr=0.05)
        loss_fn = nn.GaussianNLLLoss(eps=0.3)

        def step(x, y):
            out = model(x)
            return loss_fn((out[:, :2], mf.ops.softplus(out[:, 2:])), y)

        run = mf.compile(step, optimizer) if compile else None
        losses = []
        for k in range(8):
            x, y = np.roll(Z, k, 0).astype(np.float32), T[:, :2].astype(np.float32)
            if run is not None:
                losses.append(run(x, y).item())
                continue
            optimizer.zero_grad()
            loss = step(x, y)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        if run is not None:
            assert run.replays and not run.reasons
        return losses

    assert train(True) == train(False)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zero_vectors_cost_what_they_should(dtype):
    zero, some = np.zeros((2, 3), dtype), np.ones((2, 3), dtype)
    a = mf.tensor(zero, requires_grad=True)
    loss = nn.CosineEmbeddingLoss(margin=-0.5, reduction="none")(a, mf.tensor(some), np.array([1, -1]))
    np.testing.assert_array_equal(loss.data, [1, 0.5])
    loss.sum().backward()
    np.testing.assert_array_equal(a.grad, 0)
    a.zero_grad()
    loss = nn.TripletMarginLoss(reduction="none")(a, mf.tensor(zero), mf.tensor(zero))
    np.testing.assert_array_equal(loss.data, 1)
    loss.sum().backward()
    np.testing.assert_array_equal(a.grad, 0)
    big = mf.tensor(np.full((1, 3), np.finfo(dtype).max / 8), requires_grad=True)
    loss = nn.CosineEmbeddingLoss()(big, mf.tensor(some[:1]), np.array([1]))
    loss.backward()
    assert abs(loss.item()) < 1e-6 and np.isfinite(big.grad).all()


# Weights of the rows


@rows
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_sample_weights(name, reduction):
    kind, options, target, value = LOSSES[name]
    w = np.array([1.0, 0.0, 2.0, 3.0, 0.5])
    loss_fn = kind(**options, reduction=reduction)
    losses = value(Z, target)
    weighted = losses * w.reshape(-1, *[1] * (losses.ndim - 1))
    expected = {"mean": weighted.sum() / (w.sum() * losses[0].size), "sum": weighted.sum(), "none": weighted}[reduction]
    np.testing.assert_allclose(loss_fn(mf.tensor(Z), target, w).data, expected, rtol=1e-13)
    assert mf.gradcheck(lambda z: loss_fn(z, target, sample_weight=w), Z) <= 1e-6
    z = mf.tensor(Z.astype(np.float32))
    assert loss_fn(z, target, w).dtype == np.float32


@pytest.mark.parametrize("name", VECTORS)
def test_sample_weights_of_vectors(name):
    kind, options, others, value = VECTORS[name]
    w = np.array([1.0, 0.0, 2.0, 3.0, 0.5])
    given = [mf.tensor(o) if o.dtype.kind == "f" else o for o in others]
    got = kind(**options)(mf.tensor(Z), *given, w)
    np.testing.assert_allclose(got.data, np.sum(value(Z, *others) * w) / w.sum(), rtol=1e-12)


@rows
def test_a_weight_of_two_is_the_row_twice(name):
    kind, options, target, _ = LOSSES[name]
    twice = [0, 1, 1, 2, 3, 4, 4]
    a = kind(**options)(mf.tensor(Z), target, [1, 2, 1, 1, 2])
    np.testing.assert_allclose(a.data, kind(**options)(mf.tensor(Z[twice]), target[twice]).data, rtol=1e-12)


@rows
def test_bad_sample_weights(name):
    kind, options, target, _ = LOSSES[name]
    loss_fn = kind(**options)
    with pytest.raises(ShapeError, match=r"expected a sample_weight for each of 5 rows, got shape \(4,\)"):
        loss_fn(mf.tensor(Z), target, np.ones(4))
    for bad in ([1, 1, -1, 1, 1], [1, np.nan, 1, 1, 1], [np.inf, 1, 1, 1, 1]):
        with pytest.raises(DataError, match="expected a sample_weight of at least 0 for each row, got"):
            loss_fn(mf.tensor(Z), target, bad)
    with pytest.raises(DataError, match="with a positive weight, got none in this batch"):
        loss_fn(mf.tensor(Z), target, np.zeros(5))


def test_class_and_sample_weights_together():
    w = np.array([1.0, 0.0, 2.0, 3.0, 0.5])
    for kind, scores in ((nn.CrossEntropyLoss, Z), (nn.NLLLoss, logp(Z))):
        got = kind(weight=WEIGHT)(mf.tensor(scores), LABELS, w)
        both = WEIGHT[LABELS] * w
        np.testing.assert_allclose(got.data, np.sum(-both * logp(Z)[np.arange(5), LABELS]) / both.sum(), rtol=1e-13)


# Labels that do not count


@pytest.mark.parametrize("kind", [nn.CrossEntropyLoss, nn.NLLLoss])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("ignored", [-100, 2])
def test_ignored_labels(kind, reduction, ignored):
    labels = np.array([ignored, 0, 1, ignored, 1])
    kept = labels != ignored
    loss_fn = kind(weight=WEIGHT, reduction=reduction, ignore_index=ignored)
    scores = Z if kind is nn.CrossEntropyLoss else logp(Z)
    got, rest = loss_fn(mf.tensor(scores), labels), loss_fn(mf.tensor(scores[kept]), labels[kept])
    if reduction == "none":
        np.testing.assert_array_equal(got.data[~kept], 0)
        got = got[kept]
    np.testing.assert_allclose(got.data, rest.data, rtol=1e-14)
    slope = mf.grad(lambda z: loss_fn(z, labels).sum())(scores)
    np.testing.assert_array_equal(slope[~kept], 0)
    assert mf.gradcheck(lambda z: loss_fn(z, labels), scores) <= 1e-6
    if reduction == "mean":
        text = f"expected a label other than ignore_index {ignored}, got none in this batch"
        with pytest.raises(DataError, match=text):
            loss_fn(mf.tensor(scores), np.full(5, ignored))
    else:
        nothing = loss_fn(mf.tensor(scores), np.full(5, ignored))
        np.testing.assert_array_equal(nothing.data, np.zeros(5) if reduction == "none" else 0)
        np.testing.assert_array_equal(mf.grad(lambda z: loss_fn(z, np.full(5, ignored)).sum())(scores), 0 * scores)
    with pytest.raises(DataError, match="expected labels from 0 to 2, got 3 at row 4"):
        loss_fn(mf.tensor(scores), np.array([ignored, 0, 1, ignored, 3]))


@pytest.mark.parametrize("smooth", [0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_ignored_rows_add_nothing_whatever_their_logits(reduction, smooth):
    loss_fn = nn.CrossEntropyLoss(reduction=reduction, ignore_index=0, label_smoothing=smooth)
    scores, labels = Z.copy(), np.array([0, 2, 1, 0, 1])
    expected = loss_fn(mf.tensor(scores), labels)
    for bad in (-np.inf, np.nan, np.inf):
        scores[0], scores[3, 1] = bad, bad
        for given in (labels, mf.tensor(labels)):
            with np.errstate(invalid="ignore"):
                loss = loss_fn(mf.tensor(scores), given)
            np.testing.assert_allclose(loss.data, expected.data, rtol=1e-14)


def test_a_class_that_is_never_predicted_may_be_ignored():
    masked, labels = Z.copy(), np.array([0, 2, 1, 0, 1])
    masked[:, 0] = -np.inf
    loss_fn, kept = nn.CrossEntropyLoss(ignore_index=0), labels > 0
    rest = nn.CrossEntropyLoss()
    np.testing.assert_allclose(
        loss_fn(mf.tensor(masked), labels).data, rest(mf.tensor(masked[kept]), labels[kept]).data
    )
    slope = mf.grad(lambda z: loss_fn(z, labels))(masked)
    np.testing.assert_array_equal(slope[~kept], 0)
    np.testing.assert_allclose(slope[kept], mf.grad(lambda z: rest(z, labels[kept]))(masked[kept]))


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


def test_weights_of_classes_have_the_digits_of_the_logits():
    z, ones = np.array([[0.3], [-0.2]]), np.ones((2, 1))
    expected = (0.1 * np.log1p(np.exp(-z))).mean()
    for dtype, tolerance in ((np.float64, 1e-15), (np.float32, 1e-6)):
        loss = nn.BCEWithLogitsLoss(pos_weight=0.1)(mf.tensor(z, dtype), ones)
        assert loss.dtype == dtype
        np.testing.assert_allclose(loss.item(), expected, rtol=tolerance)
    loss_fn = nn.CrossEntropyLoss(weight=[0.1, 0.7], reduction="sum")
    np.testing.assert_allclose(
        loss_fn(mf.tensor([[0.3, -0.2]]), np.array([0])).item(), 0.1 * np.log1p(np.exp(-0.5)), rtol=1e-15
    )
    assert loss_fn.denominator([0]) == 0.1


def test_probabilities_that_are_certain_are_labels():
    certain = np.eye(3)[LABELS]
    for options in ({}, {"label_smoothing": 0.2}):
        loss_fn = nn.CrossEntropyLoss(**options)
        of = [mf.value_and_grad(lambda z, y=y: loss_fn(z, y))(Z) for y in (LABELS, certain)]  # noqa: B023
        np.testing.assert_allclose(of[1][0].data, of[0][0].data, rtol=1e-14)
        np.testing.assert_allclose(of[1][1].data, of[0][1].data, atol=1e-15)
    assert nn.CrossEntropyLoss(weight=WEIGHT).denominator(certain) == 5
    far = mf.tensor([[0.0, -np.inf]])  # 0 times minus infinity
    assert nn.CrossEntropyLoss()(far, np.array([[1.0, 0.0]])).item() == 0


def test_probabilities_may_come_from_another_model():
    loss_fn = nn.CrossEntropyLoss(reduction="sum")
    np.testing.assert_array_equal(
        loss_fn(mf.tensor(Z), mf.tensor(PROBABILITIES)).data, loss_fn(mf.tensor(Z), PROBABILITIES.tolist()).data
    )
    slope = mf.grad(lambda t: loss_fn(mf.tensor(Z), mf.ops.softmax(t)))(SHARES)
    assert np.abs(slope).max() > 0.01
    assert mf.gradcheck(lambda t: loss_fn(mf.tensor(Z), mf.ops.softmax(t)), SHARES) <= 1e-6


def test_weights_of_one_change_nothing():
    plain, weighted = nn.CrossEntropyLoss(), nn.CrossEntropyLoss(weight=[1, 1, 1])
    np.testing.assert_allclose(
        mf.grad(lambda z: plain(z, LABELS))(Z), mf.grad(lambda z: weighted(z, LABELS))(Z), atol=1e-15
    )


def test_a_class_of_weight_zero_adds_nothing():
    loss_fn = nn.CrossEntropyLoss(weight=[1, 1, 0])
    gradient = mf.grad(lambda z: loss_fn(z, LABELS))(Z)
    np.testing.assert_array_equal(gradient[LABELS == 2], 0)
    with pytest.raises(DataError, match="expected a label with a positive weight, got none in this batch"):
        loss_fn(mf.tensor(Z), np.full(5, 2))


class Scaled(nn.MSELoss):
    def __init__(self, scale, inner=None, other=2):
        super().__init__()
        self.scale, self.inner = scale, inner


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (nn.CrossEntropyLoss(), "CrossEntropyLoss()"),
        (
            nn.CrossEntropyLoss([1.0, 0.3], label_smoothing=0.1, ignore_index=1),
            "CrossEntropyLoss(weight=[1. , 0.3], label_smoothing=0.1, ignore_index=1)",
        ),
        (nn.NLLLoss(np.ones(200)), "NLLLoss(weight=[1., 1., 1., ..., 1., 1., 1.])"),
        (nn.BCEWithLogitsLoss(pos_weight=3.0), "BCEWithLogitsLoss(pos_weight=[3.])"),
        (nn.HuberLoss(delta=0.3, reduction="sum"), "HuberLoss(delta=0.3, reduction='sum')"),
        (Scaled("x" * 100, nn.MSELoss(), 3), f"Scaled(scale='{'x' * 58}…)\n  inner: MSELoss()"),
    ],
)
def test_repr_shows_the_settings_that_are_not_the_defaults(loss, text):
    assert repr(loss) == text
