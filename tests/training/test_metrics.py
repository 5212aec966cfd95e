"""Metrics of a Trainer: the built-in ones, scikit-learn's, and your own."""

from __future__ import annotations

import math
import re
from functools import partial

import numpy as np
import pytest

from microfw import nn, optim
from microfw.errors import ArgumentError, ShapeError
from microfw.training import Trainer, metrics
from tests.helpers.errors import raises
from tests.helpers.training import make


def test_built_in_metrics_agree_with_scikit_learn():
    from sklearn.metrics import accuracy_score, r2_score

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 3, (2, 50))
    assert metrics.accuracy(a, b) == accuracy_score(a, b)
    y, p = rng.normal(size=(2, 30, 3))
    assert metrics.r2(y, p) == pytest.approx(r2_score(y, p), rel=1e-12)
    assert metrics.r2([1.0, 1.0], [1.0, 1.0]) == r2_score([1.0, 1.0], [1.0, 1.0])
    assert metrics.r2([1.0, 1.0], [1.0, 2.0]) == r2_score([1.0, 1.0], [1.0, 2.0])


def test_scikit_learns_metrics_by_name(iris):
    from sklearn import metrics as theirs

    trainer = make(metrics=["f1_macro", "neg_log_loss", "roc_auc_ovr", "balanced_accuracy_score", theirs.hamming_loss])
    got = trainer.evaluate(iris[1])
    logits = trainer.predict(iris[1]).astype("f8")
    p, y = np.exp(logits) / np.exp(logits).sum(1, keepdims=True), iris[1].y
    assert got["neg_log_loss"] == pytest.approx(-got["loss"], rel=1e-5)
    assert got["f1_macro"] == theirs.f1_score(y, p.argmax(1), average="macro")
    assert got["roc_auc_ovr"] == pytest.approx(theirs.roc_auc_score(y, p, multi_class="ovr"))
    assert got["balanced_accuracy_score"] == theirs.balanced_accuracy_score(y, p.argmax(1))
    assert got["hamming_loss"] == pytest.approx((p.argmax(1) != y).mean())


def test_certain_probabilities_train_and_count_as_labels_do(iris):
    X, y = iris[0].X, iris[0].y
    rows = []
    for targets in (y, np.eye(3)[y]):
        trainer = make(metrics=["accuracy", "f1_macro"])
        history = trainer.fit((X, targets), 5, 16, validation=(X, targets), rng=0, progress=False)
        rows.append([(row["accuracy"], row["val_f1_macro"], row["loss"]) for row in history])
    np.testing.assert_allclose(rows[0], rows[1], rtol=1e-5)


def test_regression_metrics_by_name(line):
    trainer = make(1, 1, loss=nn.MSELoss(), metrics=["neg_mean_squared_error", "mean_absolute_error", "r2"])
    got = trainer.evaluate(line)
    assert got["neg_mean_squared_error"] == pytest.approx(-got["loss"], rel=1e-5)
    assert got["mean_absolute_error"] == pytest.approx(np.abs(trainer.predict(line) - line.y).mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("acuracy", "did you mean 'accuracy'?"),
        ("mean_absolut_error", "did you mean 'mean_absolute_error'?"),
        ("zzzzzz", "or pass a function f(y_true, y_pred)"),
    ],
)
def test_unknown_metric(name, fix):
    with raises(ArgumentError, f"metrics: expected accuracy, r2, or a name of sklearn.metrics, got {name!r}; {fix}"):
        make(metrics=[name])


def test_bad_metrics(iris, line):
    with raises(ArgumentError, "metrics: expected names and functions f(y_true, y_pred), got 3"):
        make(metrics=[3])
    with raises(ArgumentError, "metrics: expected names and functions f(y_true, y_pred), got array(3)"):
        make(metrics=np.array(3))
    with raises(
        ArgumentError,
        "metrics: expected different names, got 'r2' twice; leave it out, or rename it: function.__name__ = 'other'",
    ):
        make(metrics=["r2", "r2"])
    with raises(ArgumentError, "accuracy: expected labels, got real numbers; use r2 for regression"):
        make(1, 1, loss=nn.MSELoss(), metrics=["accuracy"]).evaluate(line)
    with pytest.raises(ArgumentError, match=r"^metric 'f1': expected targets .* average='binary'[^\n]*$"):
        make(metrics=["f1"]).evaluate(iris[1])
    with raises(ShapeError, "r2: expected targets and predictions of one shape, got (3,) and (3, 1)"):
        metrics.r2(np.zeros(3), np.zeros((3, 1)))


@pytest.mark.parametrize("name", ["val_accuracy", "val_loss", "clipped", "seconds"])
def test_entries_of_the_history_are_no_names_of_metrics(name):
    def metric(y_true, y_pred):
        return 7.0

    metric.__name__ = name
    with raises(
        ArgumentError,
        f"metrics: expected different names, got '{name}', an entry of the History; "
        "leave it out, or rename it: function.__name__ = 'other'",
    ):
        make(metrics=["accuracy", metric])


def test_rows_that_the_loss_ignores_are_left_out(iris):
    seen = []

    def count(y_true, y_pred):
        seen.append((len(y_true), len(y_pred)))
        return 0.0

    X, y = iris[0].X, iris[0].y.copy()
    trainer = make(loss=nn.CrossEntropyLoss(ignore_index=9), metrics=["accuracy", "f1_macro", "neg_log_loss", count])
    half = slice(None, None, 2)
    expected = trainer.evaluate((X[half], y[half]))
    y[1::2] = 9
    for data in ((X, y), (X, y, np.ones(len(y)))):  # the latter with `measure_heads`
        assert trainer.evaluate(data) == pytest.approx(expected, rel=1e-6)
    assert set(seen) == {(len(X[half]),) * 2}
    assert np.isnan(list(trainer.evaluate((X[:3], np.full(3, 9))).values())).all()


def test_probabilities_as_targets_count_as_labels(iris):
    X, y = iris[0].X, (iris[0].y == 0).astype(np.float32)[:, None]
    trainer = make(outputs=1, loss=nn.BCEWithLogitsLoss(), metrics=["accuracy", "f1"])
    hard = trainer.evaluate((X, y))
    soft = trainer.evaluate((X, 0.1 + 0.8 * y))
    assert soft["accuracy"] == hard["accuracy"] and soft["f1"] == hard["f1"]


def test_one_output_of_a_loss_of_ones_own_is_no_label(iris):
    X, y = iris[0].X, (iris[0].y == 0).astype(int)
    bce = nn.BCEWithLogitsLoss()

    def loss(z, labels):
        return bce(z, labels.astype(np.float32).reshape((-1, 1)))

    trainer = make(outputs=1, loss=loss, metrics=["accuracy"])
    with raises(
        ShapeError,
        f"accuracy: expected targets and predictions of one shape, got ({len(y)},) and ({len(y)}, 1); "
        "for one output to decide between 0 and 1, the loss is nn.BCEWithLogitsLoss",
    ):
        trainer.evaluate((X, y))
    with raises(
        ArgumentError,
        f"Trainer.predict_classes: expected an output for each class, got outputs of shape ({len(y)}, 1) and "
        "function; for one output use nn.BCEWithLogitsLoss",
    ):
        trainer.predict_classes(X)


@pytest.mark.parametrize("value", [None, "good", np.ones(3)])
def test_a_metric_that_returns_no_number_is_named(iris, value):
    def mine(y_true, y_pred):
        return value

    text = f"metric 'mine': expected a number, got {value!r}; return a float"
    with pytest.raises(ArgumentError, match=f"^{re.escape(text)}$"):
        make(metrics=[mine]).fit(iris[0], 1, progress=False)


def test_an_error_in_a_metric_names_it(iris):
    def mine(y_true, y_pred):
        return 1 / 0

    with pytest.raises(ZeroDivisionError) as info:
        make(metrics=[mine]).fit(iris[0], 1, progress=False)
    assert info.value.__notes__ == ["raised in the metric 'mine', called with targets and predictions"]


class Weighted:
    """A metric that wants a third argument."""

    def __call__(self, y_true, y_pred, weights):
        return 0.0


@pytest.mark.parametrize(
    ("metric", "name", "signature"),
    [
        (lambda y_true: 0.5, "<lambda>", "(y_true)"),
        (lambda y_true, y_pred, *, beta: 0.5, "<lambda>", "(y_true, y_pred, *, beta)"),
        (Weighted(), "Weighted", "(y_true, y_pred, weights)"),
        (partial(Weighted(), y_pred=3), "Weighted", "(y_true, *, y_pred=3, weights)"),
    ],
)
@pytest.mark.parametrize("head", [None, "digit"])
def test_a_function_that_does_not_take_targets_and_predictions_is_refused_before_training(
    metric, name, signature, head
):
    with raises(ArgumentError, f"metric {name!r}: expected a function f(y_true, y_pred), got one with {signature}"):
        make(metrics=[metric] if head is None else {head: metric})


def test_functions_with_options_or_without_a_signature_are_metrics(iris):
    def biased(y_true, y_pred, bias=0.5):
        return bias

    def anything(*arrays, **options):
        return len(arrays)

    got = make(metrics=[biased, anything, math.dist]).evaluate(iris[1])
    assert (got["biased"], got["anything"]) == (0.5, 2) and got["dist"] >= 0
    make(metrics=[max, int])


def test_metrics_count_rows_of_weight_0_but_no_ignored_labels():
    X, y = np.eye(2, dtype=np.float32)[[0, 0, 1, 1]] * 4, np.array([0, 1, 1, 0])
    model = nn.Sequential(nn.Dense(2, 2, rng=0))
    model[0].weight.data = np.eye(2)
    loss = nn.CrossEntropyLoss(ignore_index=-100)
    trainer = Trainer(model, loss, optim.SGD(model.parameters(), lr=0.1), metrics=["accuracy"])
    right = np.array([1.0, 0.0, 1.0, 0.0])
    assert trainer.evaluate((X, y, right))["accuracy"] == 0.5
    assert trainer.evaluate((X, np.where(right, y, -100)))["accuracy"] == 1.0
