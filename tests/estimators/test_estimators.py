"""The estimators: scikit-learn's own checks, and what its networks cannot do."""

from __future__ import annotations

import copy
import importlib
import importlib.util
import json
import os
import pickle
import re
import subprocess
import sys
import warnings
from collections import Counter
from pathlib import Path

import joblib
import numpy as np
import pytest
import scipy.sparse
from sklearn import datasets
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.metrics import accuracy_score, f1_score, make_scorer
from sklearn.model_selection import GridSearchCV, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler, scale

import microfw as mf
from microfw import nn, optim
from microfw.autograd.mode import MODE, PLAIN
from microfw.errors import ArgumentError, DataError, FileError, NonFiniteError, ShapeError
from microfw.estimators import NeuralClassifier, NeuralRegressor
from microfw.profiler import FitProfile, fits_report, load_fits
from tests.helpers.paths import ROOT

CONFIGURATIONS = [
    "default", "two layers", "layer norm", "linear", "float64, in order", "own network", "another loss",
    "own optimizer, schedule, profile",
]  # fmt: skip


def needs(*names):
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


needs_callbacks = needs("sklearn.callback")


@pytest.fixture(scope="module")
def digits():
    X, y = datasets.load_digits(return_X_y=True)
    return X[:400] / 16, y[:400]


@pytest.fixture(scope="module")
def diabetes():
    X, y = datasets.load_diabetes(return_X_y=True)
    return scale(X), scale(y)


SGD = {
    "optimizer": "sgd",
    "max_grad_norm": 1.0,
    "batch_size": 32,
    "max_iter": 10,
    "hidden_layer_sizes": (16,),
    "random_state": 0,
}


def classifier(**settings):
    return NeuralClassifier(**{"learning_rate": 0.1} | SGD | settings)


def regressor(**settings):
    return NeuralRegressor(**{"learning_rate": 0.01} | SGD | settings)


# scikit-learn's checks


def checked(*names):
    command = [sys.executable, str(ROOT / "tests" / "helpers" / "estimator_checks.py"), *names]
    done = subprocess.run(command, capture_output=True, text=True, env=None, cwd=ROOT, timeout=560)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_all_passed(found):
    for name, kinds in found.items():
        for kind, results in kinds.items():
            assert len(results) >= {"NeuralClassifier": 60, "NeuralRegressor": 55}[kind], name  # 67 and 60 in 1.9
            assert [r for r in results if r[1] != "passed"] == [], (name, kind)


@needs("pandas")
def test_scikit_learns_checks():
    check_all_passed(checked("small"))


@pytest.mark.slow
@needs("pandas", "polars")
def test_scikit_learns_checks_of_eight_configurations():
    found = checked(*CONFIGURATIONS)
    assert len(found) == 8
    check_all_passed(found)


@pytest.mark.slow
@needs("pandas", "polars")
def test_what_makes_weights_unlike_repetition_fails_that_check_only():
    found = checked("dropout", "batch norm", "early stopping")
    assert len(found) == 3
    for name, kinds in found.items():
        for kind, results in kinds.items():
            assert {r[0] for r in results if r[1] != "passed"} == {
                "check_sample_weight_equivalence_on_dense_data", "check_sample_weight_equivalence_on_sparse_data",
            }, (name, kind, [r for r in results if r[1] != "passed"])  # fmt: skip


# Networks, losses, optimizers


def test_sizes_make_layers():
    model = classifier(hidden_layer_sizes=(8, 4), norm="batch", dropout=0.2, activation="gelu", max_iter=1)
    model.fit(*datasets.load_iris(return_X_y=True))
    assert [type(layer).__name__ for layer in model.module_] == [
        "Dense", "BatchNorm1D", "GELU", "Dropout", "Dense", "BatchNorm1D", "GELU", "Dropout", "Dense",
    ]  # fmt: skip
    assert model.module_[0].in_features == 4 and model.module_[-1].out_features == 3


def test_a_module_is_copied_and_starts_from_its_weights(digits):
    net = nn.Sequential(nn.Dense(64, 10, rng=7))
    before = net[0].weight.data.copy()
    model = classifier(module=net, learning_rate=1e-9, max_iter=1, max_grad_norm=None).fit(*digits)
    np.testing.assert_array_equal(net[0].weight.data, before)
    np.testing.assert_allclose(model.module_[0].weight.data, before, atol=1e-6)


def test_a_function_makes_the_module(digits):
    seen = []

    def make(n_features, n_outputs, rng):
        seen.append((n_features, n_outputs, type(rng)))
        return nn.Dense(n_features, n_outputs, rng=rng)

    classifier(module=make, max_iter=1).fit(*digits)
    assert seen == [(64, 10, np.random.Generator)]


@pytest.mark.parametrize(
    "activation", ["relu", "logistic", "identity", "prelu", "leaky_relu", nn.ELU, lambda: nn.LeakyReLU(0.2)]
)
def test_activations(activation, digits):
    assert classifier(activation=activation, max_iter=15).fit(*digits).score(*digits) > 0.5


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(label_smoothing=0.1), nn.BCEWithLogitsLoss, nn.HingeLoss(), nn.MSELoss()]
)
def test_losses_of_classes(loss, digits):
    model = classifier(loss=loss, max_iter=30).fit(*digits)
    assert model.score(*digits) > 0.8
    likely = not isinstance(loss, nn.HingeLoss | nn.MSELoss)
    assert hasattr(model, "predict_proba") == likely
    if likely:
        np.testing.assert_allclose(model.predict_proba(digits[0]).sum(axis=1), 1)
        np.testing.assert_allclose(np.exp(model.predict_log_proba(digits[0])), model.predict_proba(digits[0]))


@pytest.mark.parametrize("loss", ["log_loss", nn.BCEWithLogitsLoss()])
def test_of_two_classes_the_score_is_the_logit_of_the_probability(loss):
    X, y = datasets.load_breast_cancer(return_X_y=True)
    model = classifier(loss=loss, max_iter=3).fit(scale(X), y)
    p = model.predict_proba(scale(X))
    np.testing.assert_allclose(model.decision_function(scale(X)), np.log(p[:, 1] / p[:, 0]), rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(model.predict(scale(X)), model.decision_function(scale(X)) > 0)


def test_poisson_predicts_rates():
    X = np.linspace(0, 2, 300)[:, None]
    y = np.random.default_rng(0).poisson(np.exp(X.ravel()))
    rates = regressor(loss="poisson", max_iter=60).fit(X, y).predict(X)
    assert rates.min() > 0 and np.abs(rates - np.exp(X.ravel())).mean() < 0.5


@pytest.mark.parametrize("loss", ["absolute_error", "huber", nn.HuberLoss(0.5)])
def test_losses_of_numbers(loss, diabetes):
    assert regressor(loss=loss, max_iter=30).fit(*diabetes).score(*diabetes) > 0.4


def test_optimizers_and_schedules(digits):
    rates = []

    def falling(step):
        rates.append(0.1 * 0.99**step)
        return rates[-1]

    model = classifier(learning_rate=falling, max_iter=2).fit(*digits)
    assert len(rates) == 1 + 2 * 13  # once to make the optimizer
    assert model.history_.column("learning_rate")[-1] == rates[-1]
    made = classifier(optimizer=lambda parameters, lr: optim.SGD(parameters, lr, momentum=0.5), max_iter=1).fit(*digits)
    assert made._learner.optimizer.momentum == 0.5
    assert classifier(optimizer="SGD", optimizer_params={}, max_iter=1).fit(*digits)._learner.optimizer.momentum == 0


def test_steps_are_shortened_to_the_largest_norm(digits):
    X, y = digits
    moved = {}
    for norm in (None, 0.01):
        model = classifier(max_grad_norm=norm, optimizer_params={}, batch_size=len(X), max_iter=1, learning_rate=1.0)
        model.fit(X, y)
        start = classifier(max_iter=1, learning_rate=1e-12).fit(X, y)._learner.optimizer.flat.values
        moved[norm] = np.linalg.norm(model._learner.optimizer.flat.values - start)
    assert moved[None] > 0.02
    np.testing.assert_allclose(moved[0.01], 0.01, rtol=1e-6)


# Data


def test_multilabel():
    X, Y = datasets.make_multilabel_classification(200, 10, n_classes=4, random_state=0)
    model = classifier(max_iter=40).fit(scale(X), Y)
    assert model.predict(scale(X)).shape == Y.shape == model.predict_proba(scale(X)).shape
    assert f1_score(Y, model.predict(scale(X)), average="micro") > 0.8
    np.testing.assert_array_equal(model.predict(scale(X)), model.predict_proba(scale(X)) > 0.5)
    sparse = classifier(max_iter=40).fit(scale(X), scipy.sparse.csr_matrix(Y))
    np.testing.assert_array_equal(sparse.predict(scale(X)), model.predict(scale(X)))
    assert classifier(max_iter=40, class_weight="balanced").fit(scale(X), Y).score(scale(X), Y) > 0.2
    with pytest.raises(DataError, match="expected 4 labels, got y of shape"):
        model.partial_fit(scale(X), Y[:, :3])
    with pytest.raises(DataError, match="expected an indicator of labels, got y of shape"):
        model.partial_fit(scale(X), Y[:, 0])
    with pytest.raises(ArgumentError, match="expected a loss of several labels"):
        classifier(loss=nn.CrossEntropyLoss()).fit(scale(X), Y)


def test_several_outputs(diabetes):
    X, y = diabetes
    Y = np.stack([y, -y, X[:, 0]], axis=1)
    model = regressor(max_iter=40).fit(X, Y)
    assert model.predict(X).shape == Y.shape and model.score(X, Y) > 0.5
    with pytest.raises(DataError, match="expected y of 3 columns, got shape"):
        model.partial_fit(X, Y[:, :2])
    with pytest.raises(DataError, match="expected y of 3 columns, got shape"):
        model.partial_fit(X, y)


@pytest.mark.parametrize("kind", [scipy.sparse.csr_matrix, scipy.sparse.coo_array])
def test_sparse_rows_train_as_dense_ones(kind, digits):
    X, y = digits
    dense, sparse = classifier().fit(X, y), classifier().fit(kind(X), y)
    np.testing.assert_array_equal(dense.predict_proba(X), sparse.predict_proba(kind(X)))


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames(library, digits):
    frames = pytest.importorskip(library)
    X, y = digits
    names = [f"pixel {k}" for k in range(64)]
    frame = frames.DataFrame(dict(zip(names, X.T, strict=True)))
    labels = frames.Series([f"n{k}" for k in y])
    model = make_pipeline(StandardScaler().set_output(transform=library), classifier()).fit(frame, labels)
    assert list(model[-1].feature_names_in_) == names
    assert set(model.predict(frame)) <= {f"n{k}" for k in range(10)}
    assert model.score(frame, labels) > 0.9
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame.rename(columns={names[0]: "x"}) if library == "pandas" else frame.rename({names[0]: "x"}))
    numbers = frames.DataFrame({"a": X[:, 20], "b": X[:, 30]})
    assert regressor(max_iter=1).fit(frame, numbers).predict(frame).shape == (400, 2)


def test_a_dtype_is_kept_or_asked_for(digits):
    X, y = digits
    for given, dtype, expected in (
        (np.float32, None, np.float32),
        (np.float64, None, np.float64),
        (np.float64, np.float32, np.float32),
    ):
        model = classifier(dtype=dtype, max_iter=1).fit(X.astype(given), y)
        assert model.predict_proba(X).dtype == expected == model.module_[0].weight.dtype


# Weights


def test_weights_count_rows_that_often(digits):
    X, y = digits
    weights = np.random.default_rng(0).integers(0, 3, len(X))
    options = {"batch_size": 2000, "max_iter": 5}
    weighted = classifier(**options).fit(X, y, sample_weight=weights)
    repeated = classifier(**options).fit(X.repeat(weights, axis=0), y.repeat(weights))
    np.testing.assert_allclose(weighted.predict_proba(X), repeated.predict_proba(X), rtol=1e-9)
    np.testing.assert_allclose(weighted.loss_curve_, repeated.loss_curve_, rtol=1e-12)


def test_class_weights_are_weights_of_rows():
    X, y = datasets.make_classification(300, weights=[0.9], flip_y=0.2, random_state=0)
    plain, balanced = classifier().fit(X, y), classifier(class_weight="balanced").fit(X, y)
    assert balanced.predict(X).sum() > plain.predict(X).sum()
    by_hand = classifier(class_weight={0: 1, 1: 5}).fit(X, y)
    weighted = classifier().fit(X, y, sample_weight=np.where(y == 1, 5.0, 1.0))
    np.testing.assert_array_equal(by_hand.predict_proba(X), weighted.predict_proba(X))
    with pytest.raises(ArgumentError, match="partial_fit: expected weights by class, got 'balanced'; compute"):
        clone(balanced).partial_fit(X, y, classes=[0, 1])


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
    with pytest.raises(DataError, match="expected rows for norm='batch' to compare, got 1 sample"):
        regressor(norm="batch").fit([[1.0]], [1.0])


def test_verbose_prints_a_line_an_epoch(digits, capsys):
    classifier(max_iter=3, verbose=True).fit(*digits)
    assert [line.split(",")[0] for line in capsys.readouterr().out.splitlines()] == ["epoch 1", "epoch 2", "epoch 3"]


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


def test_the_quick_way_of_partial_fit_is_the_same_step(digits, diabetes):
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
def test_the_quick_way_lets_nothing_wrong_through(spoil, digits):
    X, y = digits
    model = classifier(max_iter=1).fit(X, y)
    before = model.predict_proba(X)
    with pytest.raises(ValueError):
        model.partial_fit(*spoil(X[:32].copy(), y[:32].copy()))
    np.testing.assert_array_equal(model.predict_proba(X), before)


@pytest.mark.parametrize("y", [np.full(32, np.nan), np.full(32, np.inf)])
def test_the_quick_way_takes_no_target_that_is_not_finite(y, diabetes):
    model = regressor(max_iter=1).fit(*diabetes)
    with pytest.raises(ValueError, match=r"Input y contains|NaN|infinity"):
        model.partial_fit(diabetes[0][:32].copy(), y)


# What can fail


class Raises(optim.SGD):
    """An optimizer that is interrupted half-way through a move."""

    at = -1

    def step(self):
        super().step()
        if self.at == 0:
            raise KeyboardInterrupt
        self.at -= 1


def test_a_move_that_is_interrupted_is_undone(digits):
    X, y = digits
    model = classifier(optimizer=Raises).partial_fit(X[:32], y[:32], classes=range(10))
    before = model.predict_proba(X)
    model._learner.optimizer.at = 0
    with pytest.raises(KeyboardInterrupt):
        model.partial_fit(X[:32].copy(), y[:32])
    np.testing.assert_array_equal(model.predict_proba(X), before)


def test_nothing_is_trained_on_what_is_not_finite(diabetes):
    X, y = diabetes
    model = regressor(max_grad_norm=None, learning_rate=1e3, max_iter=50, dtype=np.float32)
    with pytest.raises(
        NonFiniteError,
        match=r"^NeuralRegressor.fit, epoch \d+, step \d+: expected a finite loss, got inf, first made by ",
    ):
        model.fit(X, y, sample_weight=np.ones(len(X)))
    assert not hasattr(model, "module_")


@pytest.mark.parametrize(("settings", "expected"), [
    ({"optimizer": "adamm"}, "optimizer to be one of .*sgd, got 'adamm'"),
    ({"optimizer": lambda parameters, lr: None}, "optimizer to be a name of microfw.optim, or to make one, got"),
    ({"optimizer_params": {"betas": 1}}, "an optimizer that takes these settings, got .*betas"),
    ({"activation": "rely"}, "activation to be one of .*, got 'rely'; did you mean 'relu'"),
    ({"loss": "logloss"}, "loss to be one of .*, got 'logloss'; did you mean 'log_loss'"),
    ({"loss": nn.CrossEntropyLoss(reduction="sum")}, "loss to be a name, or a Loss that is a mean, got reduction 'sum'"),
    ({"norm": "group"}, "norm to be None, 'batch' or 'layer', got 'group'"),
    ({"hidden_layer_sizes": (3, 0)}, r"hidden_layer_sizes to be positive integers, got 0"),
])  # fmt: skip
def test_settings_are_checked(settings, expected, digits):
    with pytest.raises(ArgumentError, match=f"^NeuralClassifier: expected {expected}"):
        classifier(**settings).fit(*digits)


WRONG = {
    "activation": [3], "module": [3], "optimizer": [3], "loss": [None], "norm": [2], "dropout": ["x", None, 1.0, -0.1, True],
    "optimizer_params": [[1]], "learning_rate": ["adaptive", None, 0.0, float("nan"), -1], "max_grad_norm": [0, "x"],
    "batch_size": [1.5, 0, None, "all", True], "max_iter": [0, 1.5, None, "x"], "shuffle": ["no", None, 1],
    "early_stopping": ["no", None, 1], "scoring": [3], "validation_fraction": [1, "a", None, 0.0],
    "n_iter_no_change": [0, "x", 1.5], "tol": [-1, None, "x"], "class_weight": ["x", 3], "warm_start": ["no"],
    "dtype": [int, "x", "float16"], "profile": ["yes"], "random_state": ["x", -1, 1.5], "verbose": ["x", -1],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG.items() for value in values])
def test_parameters_are_refused_by_name(name, value, digits):
    text = rf"^The '{name}' parameter of NeuralClassifier must be .+\. Got {re.escape(repr(value))} instead\.$"
    for fit in ("fit", "partial_fit"):
        estimator = classifier(**{name: value})
        with pytest.raises(ArgumentError, match=text):
            getattr(estimator, fit)(*digits)
        assert not [attribute for attribute in vars(estimator) if attribute.endswith("_")]


def test_a_module_must_fit(digits):
    with pytest.raises(ShapeError, match=r"expected module to map \(2, 64\) to \(2, 10\), got shape \(2, 4\); give"):
        classifier(module=nn.Dense(64, 4)).fit(*digits)


# Pipelines, searches, callbacks


def test_a_pipeline_of_a_table_in_a_search():
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame({"age": rng.uniform(18, 80, 200), "town": rng.choice(["A", "B", "C"], 200)})
    y = np.where((frame["age"] > 50) ^ (frame["town"] == "A"), "yes", "no")
    columns = ColumnTransformer([("number", StandardScaler(), ["age"]), ("text", OneHotEncoder(), ["town"])])
    pipeline = make_pipeline(columns, classifier(max_iter=40))
    search = GridSearchCV(pipeline, {"neuralclassifier__hidden_layer_sizes": [(), (16,)]}, cv=3).fit(frame, y)
    assert search.best_params_ == {"neuralclassifier__hidden_layer_sizes": (16,)} and search.best_score_ > 0.9


@pytest.mark.parametrize("wrap", [
    lambda model: model,
    pytest.param(lambda model: make_pipeline(StandardScaler().set_fit_request(sample_weight=True), model), marks=needs_callbacks),
], ids=["alone", "in a pipeline"])  # fmt: skip
def test_metadata_is_routed(wrap, digits):
    """Pipelines of scikit-learn 1.7 and older do not pass weights on to `score`."""
    import sklearn

    X, y = digits
    weights = np.random.default_rng(0).random(len(X))
    with sklearn.config_context(enable_metadata_routing=True):
        model = classifier().set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        found = cross_validate(wrap(model), X, y, cv=2, params={"sample_weight": weights})
    assert found["test_score"].min() > 0.7


def test_fits_in_threads_are_those_in_turn(digits):
    X, y = digits
    with joblib.parallel_config("threading"):
        threads = cross_val_score(classifier(dropout=0.2), X, y, cv=4, n_jobs=4)
    np.testing.assert_array_equal(threads, cross_val_score(classifier(dropout=0.2), X, y, cv=4))


@needs_callbacks
@needs("rich", "pandas")
@pytest.mark.parametrize("wrap", [
    lambda model: model, lambda model: make_pipeline(StandardScaler(), model),
    lambda model: GridSearchCV(model, {"hidden_layer_sizes": [(4,), (8,)]}, cv=2),
], ids=["alone", "in a pipeline", "in a search"])  # fmt: skip
def test_scikit_learns_callbacks(wrap, digits, capsys):
    from sklearn.callback import ProgressBar, ScoringMonitor

    monitor = ScoringMonitor(scoring="accuracy")
    model = wrap(classifier(max_iter=4).set_callbacks(monitor)).set_callbacks(ProgressBar())
    if isinstance(model, NeuralClassifier):
        model.set_callbacks(ProgressBar(), monitor)
    model.fit(*digits)
    log = monitor.get_logs().data_as_pandas
    assert (log["task_name"] == "epoch").sum() == 4 * (5 if isinstance(model, GridSearchCV) else 1)
    fits = log[log["task_name"] == "fit"].set_index("task_id_path")["accuracy"]
    last = log[log["task_name"] == "epoch"].groupby("parent_task_id_path")["accuracy"].last()
    assert fits.to_dict() == last.to_dict() and len(fits) == (5 if isinstance(model, GridSearchCV) else 1)
    assert model.score(*digits) in fits.tolist()
    assert "100%" in capsys.readouterr().out


class Stops:
    """A callback that ends a fit after so many epochs."""

    def setup(self, estimator, context):
        self.seen = []

    def teardown(self, estimator, context):
        self.seen.append("teardown")

    def on_fit_task_begin(self, estimator, context):
        self.seen.append(f"begin {context.task_name}")

    def on_fit_task_end(self, estimator, context, *, X, y, metadata, fitted_estimator):
        self.seen.append(f"end {context.task_name} {fitted_estimator.score(X, y):.1f} {list(metadata)}")
        assert fitted_estimator.module_ is not estimator.module_
        return context.task_id == 1


@needs_callbacks
def test_a_callback_sees_the_tasks_and_can_stop(digits):
    stops = Stops()
    model = classifier().set_callbacks(stops).fit(*digits, sample_weight=np.ones(400))
    assert model.n_iter_ == 2
    assert [s.split()[:2] for s in stops.seen] == [
        ["begin", "fit"], ["begin", "epoch"], ["end", "epoch"], ["begin", "epoch"], ["end", "epoch"], ["end", "fit"], ["teardown"],
    ]  # fmt: skip
    assert stops.seen[2].endswith("['sample_weight']")


# Releases of scikit-learn that have no callbacks


@pytest.fixture
def no_callbacks(monkeypatch):
    """Make estimators as they are without `sklearn.callback`, on any release."""
    monkeypatch.setitem(sys.modules, "sklearn.callback", None)
    for name in [name for name in sys.modules if name.startswith("microfw.estimators")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(mf, "estimators", None)
    return importlib.import_module("microfw.estimators")


def test_estimators_without_callbacks_train_as_with_them(no_callbacks, digits):
    options = {"hidden_layer_sizes": 8, "max_iter": 3, "batch_size": 50, "random_state": 0}
    one = NeuralClassifier(**options).fit(*digits)
    two = no_callbacks.NeuralClassifier(**options).set_callbacks().fit(*digits)
    assert type(one) is not type(two) and one.loss_curve_ == two.loss_curve_
    np.testing.assert_array_equal(one.predict_proba(digits[0]), two.predict_proba(digits[0]))
    profiled = no_callbacks.NeuralClassifier(profile=True, **options).fit(*digits)
    assert profiled.loss_curve_ == one.loss_curve_
    assert [e.loss for e in profiled.profile_.epochs] == one.loss_curve_
    assert [e.steps for e in profiled.profile_.epochs] == [8, 8, 8]
    assert all(e.backward_ns > 0 and e.untagged_backward_ns >= 0 for e in profiled.profile_.epochs)
    assert no_callbacks.NeuralRegressor(8, max_iter=2).fit(*digits).n_iter_ == 2


def test_callbacks_on_an_older_release_name_the_one_they_need(no_callbacks, digits):
    import sklearn

    model = no_callbacks.NeuralClassifier()
    with pytest.raises(ImportError) as info:
        model.set_callbacks(mf.Profiler())
    expected = f"expected scikit-learn 1.9 or newer, which has callbacks, got {sklearn.__version__}"
    fix = 'pip install "scikit-learn>=1.9"'
    assert str(info.value) == f"NeuralClassifier.set_callbacks: {expected}; {fix}"
    before = vars(model).copy()
    model._skl_callbacks = [mf.Profiler()]  # as unpickled from a newer release
    with pytest.raises(ImportError) as info:
        model.fit(*digits)
    assert str(info.value) == f"NeuralClassifier.fit with callbacks: {expected}; {fix}"
    assert vars(model.set_callbacks()) == before  # nothing is left of the fit that failed
    assert model.set_params(max_iter=1).fit(*digits).n_iter_ == 1


def test_the_least_release_of_scikit_learn_is_named():
    code = """
import sklearn, sklearn.utils.validation as v
del v.validate_data
sklearn.__version__ = "1.5.2"
import microfw.estimators
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.stderr.endswith(
        'ImportError: microfw.estimators: expected scikit-learn 1.6 or newer, got 1.5.2; pip install "scikit-learn>=1.6"\n'
    )


def test_balanced_classes_count_the_weights_of_rows():
    X, y = datasets.make_classification(300, weights=[0.8], random_state=0)
    weights = np.random.default_rng(0).integers(1, 4, 300)
    sums = np.bincount(y, weights)
    by_hand = classifier(class_weight=dict(enumerate(sums.sum() / (2 * sums)))).fit(X, y, weights)
    balanced = classifier(class_weight="balanced").fit(X, y, weights)
    np.testing.assert_array_equal(by_hand.predict_proba(X), balanced.predict_proba(X))


# Profiles


def test_profile_is_left_on_the_estimator(digits):
    X, y = digits
    model = classifier(profile=True, max_iter=3).fit(X, y)
    session = pickle.loads(pickle.dumps(model)).profile_
    assert [e.steps for e in session.epochs] == [13, 13, 13]
    assert [e.loss for e in session.epochs] == model.loss_curve_
    assert [layer.name for layer in session.layers] == ["Sequential", "0", "1", "2"]
    assert all(e.untagged_backward_ns >= 0 and e.backward_ns > 0 for e in session.epochs)
    plain = classifier(max_iter=3).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), plain.predict_proba(X))
    assert not hasattr(plain, "profile_")


@needs_callbacks
def test_a_profiler_that_is_set_leaves_its_profile(digits):
    profiler = mf.Profiler()
    model = classifier(profile=True, max_iter=2).set_callbacks(profiler).fit(*digits)
    assert model.profile_ is profiler.fits[0].session
    model.set_params(profile=False).fit(*digits)
    assert [fit.session for fit in profiler.fits][1:] == [model.profile_]


@needs_callbacks
def test_a_search_in_two_processes_leaves_its_profiles_in_a_folder(digits, tmp_path):
    X, y = digits
    profiler = mf.Profiler(folder=tmp_path / "new" / "folder")
    model = make_pipeline(StandardScaler(), classifier(max_iter=3).set_callbacks(profiler))
    grid = {"neuralclassifier__hidden_layer_sizes": [(4,), (32,)]}
    GridSearchCV(model, grid, cv=2, n_jobs=2).fit(X, y)
    check_fits(profiler, 5)
    text = profiler.report()
    assert "5 fits of NeuralClassifier, 15 epochs" in text and "hidden_layer_sizes=(32,)" in text
    row = profiler.fits[0].rows()[0]
    assert row["epoch"] == 1 and row["backward_s"] > 0 and row["estimator"] == "NeuralClassifier"
    assert all(len(line) <= 100 for line in text.splitlines())
    assert load_fits(profiler.folder) == profiler.fits and profiler.fits[0] is profiler.fits[0]
    assert [fit.session.epochs[0].steps for fit in profiler.fits] == [7, 7, 7, 7, 13]  # the last fit is of all rows
    names = [path.name.split("-") for path in Path(profiler.folder).iterdir()]
    assert len(names) == 5 and {name[-3] for name in names} > {str(os.getpid())}  # written by two processes


def check_fits(profiler, count):
    assert len(profiler.fits) == count
    assert Counter(fit.parameters["hidden_layer_sizes"] for fit in profiler.fits) >= Counter({"(4,)": 2, "(32,)": 2})
    for fit in profiler.fits:
        assert fit.tasks[0] == "GridSearchCV fit" and fit.tasks[-1] == "NeuralClassifier fit"
        assert [e.epoch for e in fit.session.epochs] == [1, 2, 3]
        assert all(e.backward_ns > 0 and e.untagged_backward_ns >= 0 for e in fit.session.epochs)
    assert len({tuple(fit.place) for fit in profiler.fits}) == count


@needs_callbacks
@pytest.mark.parametrize("folder", [False, True])
def test_fits_in_threads_are_profiled_apart(digits, folder, tmp_path):
    profiler = mf.Profiler(every=2, folder=tmp_path if folder else None)
    search = GridSearchCV(
        classifier(max_iter=3).set_callbacks(profiler), {"hidden_layer_sizes": [(4,), (32,)]}, cv=2, n_jobs=2
    )
    with joblib.parallel_config("threading"):
        search.fit(*digits)
    check_fits(profiler, 5)
    assert {fit.session.every for fit in profiler.fits} == {2}
    assert load_fits(tmp_path) == (profiler.fits if folder else [])


@needs_callbacks
@pytest.mark.slow
@needs("distributed")
@pytest.mark.filterwarnings("ignore")
def test_a_search_on_two_dask_workers(digits, tmp_path):
    from dask.distributed import Client, LocalCluster

    profiler, grid = mf.Profiler(folder=tmp_path), {"hidden_layer_sizes": [(4,), (32,)]}
    search = GridSearchCV(classifier(max_iter=3).set_callbacks(profiler), grid, cv=2)
    alone = GridSearchCV(classifier(max_iter=3), grid, cv=2).fit(*digits)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster),
        joblib.parallel_config("dask"),
    ):
        search.fit(*digits)
    check_fits(profiler, 5)
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], alone.cv_results_["mean_test_score"])


@needs_callbacks
def test_a_profile_of_a_fit_that_fails_is_kept(diabetes, tmp_path):
    profiler = mf.Profiler(folder=tmp_path)
    first = regressor(max_grad_norm=None, learning_rate=1e3, dtype=np.float32).set_callbacks(profiler)
    for model in (first, pickle.loads(pickle.dumps(first))):
        with pytest.raises(NonFiniteError):
            model.fit(*diabetes)
        assert not hasattr(model, "profile_") and MODE.get() is PLAIN
    assert len(profiler.fits) == 2 and load_fits(tmp_path) == profiler.fits


@needs_callbacks
def test_a_fit_in_another_process_warns_once_if_there_is_no_folder(digits):
    def fit_twice(model):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(*digits).fit(*digits)
        return [str(warning.message) for warning in caught], model

    profiler = mf.Profiler()
    model = classifier(max_iter=1).set_callbacks(profiler)
    for texts, fitted in joblib.Parallel(n_jobs=2)([joblib.delayed(fit_twice)(model)] * 2):
        assert texts == [
            'Profiler: expected folder="profiles" for fits in other processes, got none. '
            "The profile stays in this process: in profile_ of the estimator."
        ]
        assert len(fitted.profile_.epochs) == 1
    assert profiler.fits == [] and fit_twice(model)[0] == [] and len(profiler.fits) == 2


@needs_callbacks
def test_a_folder_of_two_profilers(digits, tmp_path):
    first, second = mf.Profiler(folder=tmp_path, every=2, name="first"), mf.Profiler(folder=str(tmp_path))
    model = classifier(max_iter=1).set_callbacks(first).fit(*digits)
    pickle.loads(pickle.dumps(model)).fit(*digits)
    model.set_callbacks(second).fit(*digits)
    assert [fit.session.every for fit in load_fits(tmp_path)] == [2, 2, 1]
    assert [fit.session.name for fit in first.fits] == ["first", "first"]
    assert [fit.session for fit in second.fits] == [model.profile_]
    assert copy.deepcopy(second).fits == second.fits and mf.Profiler(folder=tmp_path).fits == []


BAD_PROFILES = {
    "cut": b'{"estimator": "E", "pla', "binary": b"\xff\0\x1b[31m", "empty": b"", "a list": b"[]", "no session": b"{}",
    "deep": b"[" * 100_000, "place": b'{"place": ["a"]}', "tasks": b'{"tasks": [1]}', "settings": b'{"parameters": {"a": 1}}',
    "other key": b'{"__class__": 1}', "session": b'{"session": {"epochs": 1}}', "number": b'{"place": [%s]}' % (b"9" * 5000),
}  # fmt: skip


@pytest.mark.parametrize("content", BAD_PROFILES.values(), ids=BAD_PROFILES)
def test_a_file_that_is_no_profile_is_skipped_with_a_warning(content, tmp_path):
    (tmp_path / "2.json").write_bytes(FitProfile("E").to_bytes())
    (tmp_path / ".hidden").write_bytes(content)
    (tmp_path / "1\x1b.json").write_bytes(content)
    with pytest.warns(UserWarning, match="expected the profile of a fit") as caught:
        assert load_fits(tmp_path) == [FitProfile("E")]
    (text,) = [str(warning.message) for warning in caught]
    assert text.startswith(rf"{tmp_path}{os.sep}1\x1b.json: expected the profile of a fit, got ")
    assert text.endswith("; the file is skipped") and text.isprintable() and len(text) < 400


def test_a_folder_or_a_pipe_among_profiles_is_skipped_with_a_warning(tmp_path):
    (tmp_path / "folder").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe")
    with pytest.warns(UserWarning, match="got no regular file; the file is skipped") as caught:
        assert load_fits(tmp_path) == []
    assert len(caught) == len(list(tmp_path.iterdir()))


@needs_callbacks
def test_a_damaged_profile_of_a_search_is_named(digits, tmp_path):
    profiler = mf.Profiler(folder=tmp_path)
    model = pickle.loads(pickle.dumps(classifier(max_iter=1).set_callbacks(profiler)))
    model.fit(*digits).fit(*digits)
    path = min(tmp_path.iterdir())
    path.write_bytes(path.read_bytes()[:100])
    with pytest.warns(UserWarning, match=re.escape(str(path))):
        assert [fit.session for fit in profiler.fits] == [model.profile_]


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    for folder in (file, file / "profiles"):
        with pytest.raises(OSError, match=re.escape(str(folder))):
            mf.Profiler(folder=folder)
    for folder in (3, "", "a\0b"):
        with pytest.raises(ArgumentError, match="Profiler: expected the path of a f"):
            mf.Profiler(folder=folder)
        with pytest.raises(ArgumentError, match="load_fits: expected the path of a f"):
            load_fits(folder)
    with pytest.raises(FileNotFoundError, match="missing"):
        load_fits(tmp_path / "missing")
    monkeypatch.setattr(os, "access", lambda *arguments: False)
    with pytest.raises(FileError, match="expected a folder that can be written to, got one that is read-only"):
        mf.Profiler(folder=tmp_path)


@needs_callbacks
def test_a_profile_that_cannot_be_written_stays_on_the_estimator(digits, tmp_path):
    profiler = mf.Profiler(folder=tmp_path / "gone")
    model = classifier(max_iter=1).set_callbacks(profiler)
    os.rmdir(profiler.folder)
    with pytest.warns(UserWarning, match="expected a folder that can be written to.* in profile_ of the estimator"):
        model.fit(*digits)
    os.mkdir(profiler.folder)
    assert [fit.session for fit in profiler.fits] == [model.profile_] and load_fits(profiler.folder) == []


def test_host_of_a_profiler_names_the_folder():
    with pytest.raises(AttributeError, match=r"Profiler.host was removed; pass Profiler\(folder=...\)"):
        mf.Profiler().host = "login-node"


def test_report_of_many_fits():
    assert fits_report([]) == "microfw profile: 0 fits, 0 epochs, forward 0.00 ms, backward 0.00 ms"
    profile = mf.profiler.Session(epochs=[mf.profiler.Epoch(k, 3, backward_ns=k * 1000) for k in range(1, 13)])
    fits = [FitProfile("E", ["a"], [k], {"p": str(k % 2)}, profile) for k in range(50)]
    text = fits_report(fits, most=3, epochs=4)
    assert "the 3 dearest of 50" in text and "50 fits of E, 600 epochs" in text
    assert "fit     1     2     3    12" in text and text.count("p=1") == 1
    assert FitProfile.from_bytes(fits[0].to_bytes()) == fits[0]
    assert len(fits[0].rows()) == 12 and fits[0].rows()[0]["p"] == "0"


def test_importing_microfw_leaves_scikit_learn_alone():
    code = (
        "import sys, microfw; assert 'sklearn' not in sys.modules; microfw.estimators; assert 'sklearn' in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# Steps that are replayed


@pytest.mark.parametrize("options", [{}, {"dropout": 0.2, "norm": "batch"}, {"max_grad_norm": 0.1}], ids=str)
def test_steps_are_replayed_with_the_same_bits(digits, options, monkeypatch):
    X, y = digits

    def fitted(enough):
        monkeypatch.setattr("microfw.training.replay_policy.MIN_STEPS", enough)
        made = NeuralClassifier(16, batch_size=32, max_iter=4, random_state=0, n_iter_no_change=None, **options)
        made.fit(X, y)
        for k in range(3):
            made.partial_fit(X[k : k + 32].copy(), y[k : k + 32])
        assert [key[0][1] for key in made._learner.stepper.replay_policy.step.replays] == [(32, 64)] * (enough == 1)
        return made

    one, two = fitted(10**9), fitted(1)
    assert one.loss_curve_ == two.loss_curve_
    np.testing.assert_array_equal(one._learner.optimizer.flat.values, two._learner.optimizer.flat.values)
    again = pickle.loads(pickle.dumps(two)).partial_fit(X, y)
    np.testing.assert_array_equal(again.predict(X), two.partial_fit(X, y).predict(X))


def test_targets_of_one_column_meet_the_plan_of_fit(diabetes):
    """A column made of a row without a copy would have other strides."""
    X, y = diabetes
    made = NeuralRegressor(8, batch_size=32, max_iter=15, random_state=0).fit(X, y)
    step = made._learner.stepper.replay_policy.step
    (plan,) = step.replays.values()
    made.partial_fit(X[:32].copy(), y[:32])
    assert step._programs is plan.programs_by_mode and len(step.replays) + len(step.seen) == 1
