"""Networks, losses, optimizers, data and weights of the estimators."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.sparse
from sklearn import datasets
from sklearn.base import clone
from sklearn.metrics import f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale

from microfw import nn, optim
from microfw.errors import ArgumentError, DataError
from microfw.estimators import NeuralClassifier, NeuralRegressor
from tests.helpers.errors import raises
from tests.helpers.estimators import classifier, regressor

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


def rate_network(n_features, n_outputs, rng):
    return nn.Sequential(nn.Dense(n_features, 16, rng=rng), nn.ReLU(), nn.Dense(16, n_outputs, rng=rng), nn.Softplus())


@pytest.mark.parametrize(
    "settings",
    [{"loss": "poisson"}, {"loss": nn.PoissonNLLLoss(log_input=False), "module": rate_network}],
    ids=["logarithms", "rates"],
)
def test_poisson_predicts_rates(settings):
    X = np.linspace(0, 2, 300)[:, None]
    y = np.random.default_rng(0).poisson(np.exp(X.ravel()))
    rates = regressor(max_iter=60, **settings).fit(X, y).predict(X)
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


@pytest.mark.parametrize(
    "loss",
    ["log_loss", "squared_error", "absolute_error", "huber", "poisson", nn.HingeLoss(), nn.BCEWithLogitsLoss()],
    ids=str,
)
def test_labels_with_a_score_above_0_are_predicted(loss):
    X = np.random.default_rng(0).normal(size=(300, 4))
    Y = (X[:, :3] > 0).astype(int)
    model = classifier(loss=loss, optimizer="adam", learning_rate=0.01, max_iter=60, early_stopping=True).fit(X, Y)
    assert model.score(X, Y) > 0.8 and max(model.validation_scores_) > 0.7
    np.testing.assert_array_equal(model.predict(X), model.decision_function(X) > 0)


def test_an_indicator_holds_0_and_1():
    text = "NeuralClassifier: expected an indicator of labels, 0 or 1, got -1; pass (y > 0).astype(int)"
    with raises(DataError, text):
        classifier(loss=nn.HingeLoss()).fit(np.ones((2, 3)), [[-1, 1], [1, -1]])


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


def test_balanced_classes_count_the_weights_of_rows():
    X, y = datasets.make_classification(300, weights=[0.8], random_state=0)
    weights = np.random.default_rng(0).integers(1, 4, 300)
    sums = np.bincount(y, weights)
    by_hand = classifier(class_weight=dict(enumerate(sums.sum() / (2 * sums)))).fit(X, y, weights)
    balanced = classifier(class_weight="balanced").fit(X, y, weights)
    np.testing.assert_array_equal(by_hand.predict_proba(X), balanced.predict_proba(X))


def test_balanced_labels_count_the_weights_of_rows():
    X = np.random.default_rng(0).normal(size=(60, 4))
    Y, weights = (X[:, :3] > [0.5, 0.0, 9.0]).astype(int), np.repeat([2, 1], [20, 40])  # no row has the last label
    twice = np.repeat(np.arange(60), weights)
    options = {"class_weight": "balanced", "batch_size": 80, "max_iter": 3, "shuffle": False}
    weighted = classifier(**options).fit(X, Y, weights)
    np.testing.assert_allclose(
        weighted.loss_curve_, classifier(**options).fit(X[twice], Y[twice]).loss_curve_, rtol=1e-9
    )


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
