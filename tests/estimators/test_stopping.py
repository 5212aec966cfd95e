"""Early stopping of the estimators, and training that continues: copies, warm starts, `partial_fit`."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import scipy.sparse
from sklearn import datasets
from sklearn.base import clone
from sklearn.metrics import accuracy_score, make_scorer

from microfw.errors import ArgumentError, DataError
from microfw.estimators.split import split
from tests.helpers.estimators import classifier, regressor

# Stopping


@pytest.mark.parametrize("scoring", [None, "f1_macro", "neg_log_loss", "loss", make_scorer(accuracy_score)])
def test_stopping_on_any_score_keeps_the_best_epoch(scoring, digits):
    X, y = digits
    model = classifier(
        early_stopping=True,
        scoring=scoring,
        validation_fraction=0.25,
        n_iter_no_change=3,
        max_iter=100,
        learning_rate=0.3,
    )
    model.fit(X, y)
    scores = model.validation_scores_
    assert 4 < model.n_iter_ == len(scores) == len(model.loss_curve_) < 100
    assert model.best_validation_score_ == max(scores) and len(scores) - 1 - int(np.argmax(scores)) >= 3
    assert list(model.history_[0]) == ["epoch", "loss", "learning_rate", "val_loss", "val_score", "seconds"]
    again = classifier(early_stopping=True, scoring=scoring, validation_fraction=0.25, n_iter_no_change=3, learning_rate=0.3,
                       max_iter=int(np.argmax(scores)) + 1).fit(X, y)  # fmt: skip
    np.testing.assert_array_equal(model.predict_proba(X), again.predict_proba(X))


def test_stopping_with_weights_names_and_several_labels(digits, diabetes):
    pandas = pytest.importorskip("pandas")
    X, y = digits
    frame = pandas.DataFrame(X, columns=[f"p{k}" for k in range(64)])
    weights = np.random.default_rng(0).random(len(X))
    for scoring in (None, "balanced_accuracy", "loss"):
        classifier(early_stopping=True, scoring=scoring).fit(frame, y, sample_weight=weights)
    X, Y = datasets.make_multilabel_classification(100, 10, random_state=0)
    assert len(classifier(early_stopping=True, scoring="f1_micro", max_iter=3).fit(X, Y).validation_scores_) == 3
    assert len(regressor(early_stopping=True, max_iter=3).fit(*diabetes).validation_scores_) == 3


def test_stopping_when_the_loss_no_longer_falls():
    X = np.zeros((20, 2))
    model = regressor(n_iter_no_change=2, max_iter=50).fit(X, np.zeros(20))
    assert model.n_iter_ < 50
    assert regressor(n_iter_no_change=None, max_iter=50).fit(X, np.zeros(20)).n_iter_ == 50
    with pytest.raises(DataError, match="n_samples = 1"):
        regressor(early_stopping=True).fit([[1.0]], [1.0])
    text = (
        r"early_stopping: expected rows to train on, got none of 20 \(n_samples = 20\); lower validation_fraction, or"
    )
    with pytest.raises(DataError, match=text):
        regressor(early_stopping=True, validation_fraction=0.99).fit(X, np.zeros(20))
    with pytest.raises(DataError, match="expected rows for norm='batch' to compare, got 1 sample"):
        regressor(norm="batch").fit([[1.0]], [1.0])


def test_verbose_prints_a_line_an_epoch(digits, capsys):
    classifier(max_iter=3, verbose=True).fit(*digits)
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == ["epoch 1", "epoch 2", "epoch 3"]


def test_verbose_shows_a_bar_on_a_terminal(digits, capsys, monkeypatch):
    monkeypatch.setattr("microfw.training.progress.is_terminal", lambda stream: True)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "20")
    classifier(max_iter=3, verbose=True).fit(*digits)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "epoch 3/3: 100%" in shown.err and "loss=" in shown.err


def test_batch_norm_has_no_batch_of_one(digits):
    X, y = digits
    assert classifier(norm="batch", batch_size=57, max_iter=2).fit(X, y).n_iter_ == 2  # 400 = 7 * 57 + 1
    assert classifier(norm="batch", batch_size=57, max_iter=2).fit(scipy.sparse.csr_array(X), y).n_iter_ == 2


# Going on


def test_the_same_seed_gives_the_same_bits(digits):
    X, y = digits
    same = [classifier(dropout=0.3, random_state=seed).fit(X, y).predict_proba(X)
            for seed in (3, 3, np.random.default_rng(3), np.random.default_rng(3), np.random.RandomState(3), np.random.RandomState(3))]  # fmt: skip
    for k in (0, 2, 4):
        np.testing.assert_array_equal(same[k], same[k + 1])
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    other = classifier(random_state=None).fit(X, y).predict_proba(X)
    assert (np.random.get_state()[1] == before).all()  # noqa: NPY002
    assert not np.array_equal(other, classifier(random_state=None).fit(X, y).predict_proba(X))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_goes_on_as_the_original_would(duplicate, digits):
    X, y = digits
    model = classifier(dropout=0.2, norm="batch", max_iter=3, warm_start=True).fit(X, y)
    other = duplicate(model)
    np.testing.assert_array_equal(model.predict_proba(X), other.predict_proba(X))
    for twin in (model, other):
        twin.fit(X, y).partial_fit(X[:40], y[:40])
    np.testing.assert_array_equal(model.predict_proba(X), other.predict_proba(X))
    assert model.n_iter_ == other.n_iter_ == 7
    assert clone(model).get_params() == model.get_params() and not hasattr(clone(model), "module_")


RARE = np.repeat([0, 1, 2], [60, 56, 4])


@pytest.mark.parametrize("scoring", ["neg_log_loss", "roc_auc_ovr", "balanced_accuracy"])
@pytest.mark.filterwarnings("error")
def test_validation_rows_have_each_class_that_has_two_rows(scoring):
    X = np.random.default_rng(0).normal(size=(120, 4))
    model = classifier(early_stopping=True, scoring=scoring, max_iter=2).fit(X, RARE)
    assert np.isfinite(model.validation_scores_).all()


def test_the_error_for_a_score_of_two_classes_names_that_for_more():
    X = np.random.default_rng(0).normal(size=(120, 4))
    with pytest.raises(ArgumentError, match=r"^metric 'roc_auc': .*; for more than two classes use 'roc_auc_ovr' or"):
        classifier(early_stopping=True, scoring="roc_auc", max_iter=2).fit(X, RARE)


def test_parts_of_a_split_have_each_class():
    for labels in (RARE, np.repeat([0, 3, 1], [30, 2, 2]), np.repeat([0, 1], [2, 30])):
        train, test = split(len(labels), labels, 0.1, np.random.default_rng(0), "")
        assert set(labels[train]) == set(labels[test]) == set(labels)
        np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(len(labels)))


def test_a_score_that_needs_a_class_without_validation_rows_names_it():
    X, y = np.random.default_rng(0).normal(size=(21, 4)), np.array([0] * 10 + [1] * 10 + [2])
    text = (
        r"expected validation rows of each class, got none of class [012] \(neg_log_loss: .*; raise validation_fraction"
    )
    with pytest.raises(DataError, match=rf"^NeuralClassifier.fit, early_stopping: {text}"):
        classifier(early_stopping=True, scoring="neg_log_loss").fit(X, y)


def test_warm_start_goes_on(digits):
    X, y = digits
    once = classifier(max_iter=6).fit(X, y)
    twice = classifier(max_iter=3, warm_start=True).fit(X, y).fit(X, y)
    np.testing.assert_array_equal(once.predict_proba(X), twice.predict_proba(X))
    assert once.loss_curve_ == twice.loss_curve_ and twice.n_iter_ == 6
    with pytest.raises(DataError, match=r"NeuralClassifier: expected classes \[0 .* 9\], got 77"):
        twice.fit(X, np.where(y == 0, 77, y))


def test_passes_of_partial_fit_are_epochs(digits):
    X, y = digits
    whole, parts = classifier(max_iter=4).fit(X, y), classifier()
    for _ in range(4):
        parts.partial_fit(X, y, classes=np.arange(10))
    np.testing.assert_array_equal(whole.predict_proba(X), parts.predict_proba(X))
    assert parts.n_iter_ == 4 and len(parts.loss_curve_) == 4


def test_the_fast_path_of_partial_fit_takes_the_same_step(digits, diabetes):
    X, y = digits
    quick, slow = (classifier().partial_fit(X[:32], y[:32], classes=range(10)) for _ in range(2))
    assert quick._quick(X[:32].copy(), y[:32]) is not None and quick._quick(X[:32].tolist(), y[:32]) is None
    quick.partial_fit(X[:32].copy(), y[:32])
    slow.partial_fit(X[:32].tolist(), y[:32].tolist())
    np.testing.assert_array_equal(quick.predict_proba(X), slow.predict_proba(X))
    X, y = diabetes
    quick, slow = (regressor().partial_fit(X[:32], y[:32]) for _ in range(2))
    assert quick._quick(X[:32].copy(), y[:32]) is not None
    quick.partial_fit(X[:32].copy(), y[:32])
    slow.partial_fit(X[:32].tolist(), y[:32].tolist())
    np.testing.assert_array_equal(quick.predict(X), slow.predict(X))


@pytest.mark.parametrize("spoil", [
    lambda X, y: (np.where(np.arange(64) == 3, np.nan, X), y), lambda X, y: (np.where(np.arange(64) == 3, np.inf, X), y),
    lambda X, y: (X, np.full_like(y, 10)), lambda X, y: (X, np.full_like(y, -1)), lambda X, y: (X, y + 0.5),
    lambda X, y: (X[:, :9], y), lambda X, y: (X[:5], y), lambda X, y: (X[:0], y[:0]), lambda X, y: (X[0], y[:1]),
])  # fmt: skip
def test_the_fast_path_of_partial_fit_checks_its_input(spoil, digits):
    X, y = digits
    model = classifier(max_iter=1).fit(X, y)
    before = model.predict_proba(X)
    with pytest.raises(ValueError):
        model.partial_fit(*spoil(X[:32].copy(), y[:32].copy()))
    np.testing.assert_array_equal(model.predict_proba(X), before)


@pytest.mark.parametrize("y", [np.full(32, np.nan), np.full(32, np.inf)])
def test_the_fast_path_of_partial_fit_refuses_targets_that_are_not_finite(y, diabetes):
    model = regressor(max_iter=1).fit(*diabetes)
    with pytest.raises(ValueError, match=r"Input y contains|NaN|infinity"):
        model.partial_fit(diabetes[0][:32].copy(), y)
