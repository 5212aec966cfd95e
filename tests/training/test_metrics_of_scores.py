"""Metrics that compare targets with scores or probabilities get these, by any of their names."""

import inspect
from functools import partial

import numpy as np
import pytest
from sklearn import metrics
from sklearn.datasets import load_iris
from sklearn.metrics import log_loss, roc_auc_score

import microfw as mf
from microfw import nn, optim
from microfw.errors import ArgumentError

X, Y = load_iris(return_X_y=True)
BINARY = (Y > 0).astype(int)


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def trainer(outputs, loss, metric):
    model = nn.Dense(4, outputs, rng=0)
    return mf.Trainer(model, loss, optim.SGD(model.parameters(), lr=0.1), metrics=[metric])


NAMES = {
    "roc_auc_score": lambda y, p: metrics.roc_auc_score(y, p[:, 1]),
    "average_precision_score": lambda y, p: metrics.average_precision_score(y, p[:, 1]),
    "log_loss": metrics.log_loss,
    "brier_score_loss": lambda y, p: metrics.brier_score_loss(y, p[:, 1]),
}


@pytest.mark.parametrize("by", ["name", "function"])
@pytest.mark.parametrize("name", NAMES)
def test_two_logits(name, by):
    t = trainer(2, nn.CrossEntropyLoss(), name if by == "name" else getattr(metrics, name))
    got = t.evaluate((X, BINARY))[name]
    assert got == pytest.approx(NAMES[name](BINARY, softmax(t.predict(X).astype(float))), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_partial_gets_what_its_function_gets_with_its_options(name):
    function = getattr(metrics, name)
    inner = partial(function, sample_weight=np.arange(150))
    inner.__name__ = "inner"  # without a name, Python joins a partial and its partial
    outer = partial(inner, sample_weight=None)
    outer.__name__ = "outer"
    t = trainer(2, nn.CrossEntropyLoss(), "accuracy")
    t.metrics = [partial(function, sample_weight=np.arange(150)), outer]
    expected = NAMES[name](BINARY, softmax(t.predict(X).astype(float)))
    got = t.evaluate((X, BINARY))
    assert got["outer"] == pytest.approx(expected, rel=1e-6)
    assert got[name] != got["outer"]


@pytest.mark.parametrize("name", NAMES)
def test_one_logit(name):
    t = trainer(1, nn.BCEWithLogitsLoss(), name)
    z = t.predict(X).astype(float)
    expected = NAMES[name](BINARY, softmax(np.concatenate([0 * z, z], axis=1)))
    assert t.evaluate((X, BINARY[:, None].astype(np.float32)))[name] == pytest.approx(expected, rel=1e-6)


def test_log_probabilities():
    model = nn.Sequential(nn.Dense(4, 3, rng=0), nn.LogSoftmax())
    t = mf.Trainer(model, nn.NLLLoss(), optim.SGD(model.parameters(), lr=0.1), metrics=[log_loss])
    expected = log_loss(Y, softmax(t.predict(X).astype(float)))
    assert t.evaluate((X, Y))["log_loss"] == pytest.approx(expected, rel=1e-6)


def test_three_classes():
    t = trainer(3, nn.CrossEntropyLoss(), "roc_auc_ovr")
    expected = roc_auc_score(Y, softmax(t.predict(X).astype(float)), multi_class="ovr")
    assert t.evaluate((X, Y))["roc_auc_ovr"] == pytest.approx(expected, rel=1e-6)
    with pytest.raises(ArgumentError, match="for more than two classes use 'roc_auc_ovr' or 'roc_auc_ovo'"):
        trainer(3, nn.CrossEntropyLoss(), roc_auc_score).evaluate((X, Y))

    t.metrics = [partial(roc_auc_score, multi_class="ovr")]
    assert t.evaluate((X, Y))["roc_auc_score"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("lacking", [0, 2])
def test_rows_that_lack_a_class_have_probabilities_of_it(lacking):
    def top_2(y, p, labels):
        return metrics.top_k_accuracy_score(y, p, k=2, labels=labels)

    names, functions = {"neg_log_loss": -1, "log_loss": 1, "top_k_accuracy": 1}, [log_loss, log_loss, top_2]
    if "labels" in inspect.signature(metrics.brier_score_loss).parameters:  # scikit-learn 1.6 knows no other classes
        names |= {"neg_brier_score": -1, "d2_log_loss_score": 1}
        functions += [metrics.brier_score_loss, metrics.d2_log_loss_score]
    t = trainer(3, nn.CrossEntropyLoss(), "accuracy")
    t.metrics = list(names)
    rows = lacking != Y
    p, got = softmax(t.predict(X[rows]).astype(float)), t.evaluate((X[rows], Y[rows]))
    for (name, sign), function in zip(names.items(), functions, strict=True):
        assert got[name] == pytest.approx(sign * function(Y[rows], p, labels=[0, 1, 2]), rel=1e-6)


def test_rows_of_one_class_of_two_have_a_log_loss():
    t = trainer(1, nn.BCEWithLogitsLoss(), "neg_log_loss")
    got = t.evaluate((X[:9], np.zeros((9, 1), np.float32)))
    assert got["neg_log_loss"] == pytest.approx(-got["loss"], rel=1e-6)


def test_scorers_are_metrics():
    f1, loss = metrics.make_scorer(metrics.f1_score, average="macro"), metrics.get_scorer("neg_log_loss")
    t = trainer(3, nn.CrossEntropyLoss(), f1)
    t.metrics = [f1, loss, "f1_macro", "neg_log_loss"]
    got = t.evaluate((X, Y))
    assert got["f1_score"] == got["f1_macro"]
    assert got["log_loss"] == got["neg_log_loss"]


@pytest.mark.parametrize("metric", ["hinge_loss", metrics.ndcg_score, partial(metrics.ndcg_score, k=1)])
def test_metrics_of_scores_without_a_scorer_are_refused(metric):
    with pytest.raises(ArgumentError, match="compares targets with scores or probabilities; compute it from"):
        trainer(2, nn.CrossEntropyLoss(), metric)


def test_a_function_of_ones_own_gets_labels():
    def roc_auc_score(y_true, y_pred):
        return float(set(np.unique(y_pred)) <= {0, 1})

    assert trainer(2, nn.CrossEntropyLoss(), roc_auc_score).evaluate((X, BINARY))["roc_auc_score"] == 1


LABELS = np.stack([Y == 0, Y > 0, X[:, 0] > 5.8], axis=1).astype(np.float32)


@pytest.mark.parametrize("loss", [nn.BCEWithLogitsLoss(), nn.HingeLoss()])
@pytest.mark.parametrize(
    "name", ["f1_macro", "f1_micro", "f1_samples", "precision_weighted", "recall_macro", "jaccard_macro"]
)
def test_several_binary_labels(name, loss):
    t = trainer(3, loss, name)
    t.model.bias.data = -t.predict(X).mean(axis=0)  # both labels in each column
    z = t.predict(X)
    targets = LABELS if isinstance(loss, nn.BCEWithLogitsLoss) else 2 * LABELS - 1
    kind, average = name.split("_")
    score = getattr(metrics, f"{kind}_score")
    options = {"average": average, "zero_division": 0.0}
    got = t.evaluate((X, targets))[name]
    assert got == pytest.approx(score(LABELS, z > 0, **options), rel=1e-6)


@pytest.mark.parametrize("name", ["roc_auc", "average_precision"])
def test_scores_of_several_binary_labels(name):
    t = trainer(3, nn.BCEWithLogitsLoss(), name)
    expected = getattr(metrics, f"{name}_score")(LABELS, t.predict(X))
    assert t.evaluate((X, LABELS))[name] == pytest.approx(expected, rel=1e-6)


def test_probabilities_of_several_binary_labels_are_no_distribution():
    with pytest.raises(ArgumentError, match="^metric 'neg_log_loss': expected targets and outputs that it can compare"):
        trainer(3, nn.BCEWithLogitsLoss(), "neg_log_loss").evaluate((X, LABELS))
