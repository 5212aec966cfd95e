"""What the estimators refuse, and a fit that fails."""

from __future__ import annotations

import re

import numpy as np
import pytest

from microfw import nn, optim
from microfw.errors import ArgumentError, DataError, NonFiniteError, ShapeError
from microfw.training import Hook
from tests.helpers.errors import raises
from tests.helpers.estimators import classifier, regressor


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
        match=r"^NeuralRegressor, epoch \d+, step \d+: expected a finite loss, got inf, first made by ",
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
    ({"loss": nn.CosineEmbeddingLoss()}, "a loss of two arguments, prediction and target, got CosineEmbeddingLoss of first, second, target, sample_weight"),
    ({"norm": "group"}, "norm to be None, 'batch' or 'layer', got 'group'"),
    ({"hidden_layer_sizes": (3, 0)}, r"hidden_layer_sizes to be positive integers, got 0"),
    ({"hidden_layer_sizes": b"x"}, "hidden_layer_sizes to be positive integers, got b'x'"),
    ({"hidden_layer_sizes": {}}, "hidden_layer_sizes to be positive integers, got {}"),
    ({"hidden_layer_sizes": np.array(0)}, r"hidden_layer_sizes to be positive integers, got array\(0\)"),
])  # fmt: skip
def test_settings_are_checked(settings, expected, digits):
    with pytest.raises(ArgumentError, match=f"^NeuralClassifier: expected {expected}"):
        classifier(**settings).fit(*digits)


WRONG = {
    "activation": [3], "module": [3], "optimizer": [3], "loss": [None], "norm": [2], "dropout": ["x", None, 1.0, -0.1, True],
    "optimizer_params": [[1]], "learning_rate": ["adaptive", None, 0.0, float("nan"), -1], "max_grad_norm": [0, "x"],
    "batch_size": [1.5, 0, None, "all", True], "max_iter": [0, 1.5, None, "x"], "shuffle": ["no", None, 1],
    "early_stopping": ["no", None, 1], "scoring": [3], "validation_fraction": [1, "a", None, 0.0],
    "n_iter_no_change": [0, "x", 1.5], "tol": [-1, None, "x"], "class_weight": ["x", 3, {0: -1.0}, {0: float("nan")}, [{0: "a"}]], "warm_start": ["no", np.array([0, 1])],
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


@pytest.mark.parametrize("score", [None, "high", 1j])
def test_a_scorer_must_return_a_number(score, digits):
    model = classifier(early_stopping=True, scoring=lambda estimator, X, y: score)
    with pytest.raises(ArgumentError, match="^NeuralClassifier: expected scoring to return a number, got "):
        model.fit(*digits)


def test_a_module_must_fit(digits):
    with pytest.raises(ShapeError, match=r"expected module to map \(2, 64\) to \(2, 10\), got shape \(2, 4\); give"):
        classifier(module=nn.Dense(64, 4)).fit(*digits)


def test_rows_to_predict_are_numbers_that_the_network_can_hold(digits):
    X, y = digits
    model = classifier(max_iter=1, dtype=np.float32).fit(X, y)
    large = X[:2].astype(np.float64)
    large[0, 0] = 1e39
    with np.errstate(over="ignore"), pytest.raises(ValueError, match="too large for dtype"):
        model.predict_proba(large)
    assert classifier(max_iter=1, dtype=np.float64).fit(X, y).predict(large).shape == (2,)


class Stop(Hook):
    """Stops a fit before its first step."""

    def on_epoch_start(self, state):
        state.stop = True


def test_a_fit_that_a_hook_stops_before_its_first_step_has_all_attributes(digits):
    X, y = digits
    model = classifier(hooks=[Stop()], early_stopping=True).fit(X, y)
    assert model.n_iter_ == 0 and np.isnan(model.loss_) and np.isnan(model.best_loss_)
    assert model.best_validation_score_ is None and model.loss_curve_ == [] and len(model.predict(X)) == len(X)
    trained = classifier(max_iter=2, warm_start=True).fit(X, y)
    loss = trained.loss_
    trained.set_params(hooks=[Stop()]).fit(X, y)
    assert trained.n_iter_ == 2 and trained.loss_ == loss


@pytest.mark.parametrize("scoring", [None, "r2"])
def test_early_stopping_by_r2_needs_two_validation_rows(scoring, diabetes):
    X, y = (part[:12] for part in diabetes)
    model = regressor(early_stopping=True, scoring=scoring, max_iter=2)
    text = "NeuralRegressor.fit, early_stopping: expected two validation rows, for R², got 1 of 12; "
    with raises(DataError, f"{text}raise validation_fraction, or pass scoring='loss'"):
        model.fit(X, y)
    assert not hasattr(model, "module_")
    assert model.set_params(scoring="loss").fit(X, y).n_iter_ == 2
    assert model.set_params(scoring=scoring, validation_fraction=0.2).fit(X, y).n_iter_ == 2


def test_errors_of_partial_fit_name_the_label_as_it_came_and_no_other_call():
    X, y = np.ones((6, 2)), np.arange(6) % 3
    model = classifier().partial_fit(X, y, classes=[0, 1, 2])
    with pytest.raises(DataError, match=r"^NeuralClassifier: expected classes \[0 1 2\], got '0'$"):
        model.partial_fit(X, y.astype(str))
    with pytest.raises(NonFiniteError, match=r"^NeuralClassifier, epoch 2, step 1: "):
        model.partial_fit(X * 1.7e308, y)
