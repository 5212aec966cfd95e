"""scikit-learn's scorers, applied to computed outputs. Imported on first use, since it needs scikit-learn."""

from __future__ import annotations

import copy
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
from sklearn import metrics
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import make_scorer

from microfw.training.metrics import Array, Measure, cannot, is_of_scores

RANKING = (metrics.roc_auc_score, metrics.average_precision_score, metrics.top_k_accuracy_score)
"""Functions that take scores; others of `OF_SCORES` take probabilities."""


class _Classified(ClassifierMixin, BaseEstimator):  # type: ignore[misc,unused-ignore]
    """An estimator that returns computed predictions; its X are row numbers."""

    def __init__(self, outputs: Any = None, predictions: Any = None) -> None:
        self.outputs = outputs
        self.predictions = predictions
        count = outputs.shape[1] if outputs.ndim == 2 and outputs.shape[1] > 1 else 2
        self.classes_ = np.arange(count)

    def predict(self, rows: Array) -> Array:
        return self.predictions[rows].ravel()  # type: ignore[no-any-return]

    def decision_function(self, rows: Array) -> Array:
        z = self.outputs[rows].astype(np.float64)
        if z.ndim == 2 and z.shape[1] == 2:
            return z[:, 1] - z[:, 0]  # type: ignore[no-any-return]
        return z.ravel() if len(self.classes_) == 2 else z  # type: ignore[no-any-return]

    def predict_proba(self, rows: Array) -> Array:
        z = self.outputs[rows].astype(np.float64)
        if z.ndim == 1 or z.shape[1] == 1:
            z = np.stack((np.zeros(len(z)), z.ravel()), axis=1)
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]


class _Multilabel(ClassifierMixin, BaseEstimator):  # type: ignore[misc,unused-ignore]
    """An estimator that returns computed predictions of several binary labels; its X are row numbers."""

    # no predict_proba: scikit-learn's scorers of probabilities read the rows of several labels as one distribution

    def __init__(self, outputs: Any = None, predictions: Any = None) -> None:
        self.outputs = outputs
        self.predictions = predictions
        self.classes_ = [np.arange(2)] * outputs.shape[1]

    def predict(self, rows: Array) -> Array:
        return self.predictions[rows]  # type: ignore[no-any-return]

    def decision_function(self, rows: Array) -> Array:
        return self.outputs[rows].astype(np.float64)  # type: ignore[no-any-return]


class _Regressed(RegressorMixin, BaseEstimator):  # type: ignore[misc,unused-ignore]
    """An estimator that returns computed predictions; its X are row numbers."""

    def __init__(self, outputs: Any = None) -> None:
        self.outputs = outputs
        self.fitted_ = True

    def predict(self, rows: Array) -> Array:
        return self.outputs[rows]  # type: ignore[no-any-return]


def scored(metric: Any, name: str) -> Measure:
    """Return the measure of a scorer, or of a function that takes scores or probabilities; partials have options."""
    options: dict[str, Any] = {}
    while isinstance(metric, partial):
        metric, options = metric.func, {**metric.keywords, **options}
    if not hasattr(metric, "_score_func"):
        methods = ["decision_function", "predict_proba"] if metric in RANKING else ["predict_proba"]
        if "multi_class" in options:  # of roc_auc_score: for several classes it takes probabilities
            methods.reverse()
        metric = make_scorer(metric, response_method=methods, **options)
    return partial(_measured, name, metric)


def _with_labels(scorer: Any, classes: Any, targets: Array) -> Any:
    """Return a scorer that knows all classes, also those that the targets lack."""
    function, options = scorer._score_func, scorer._kwargs
    # the labels of roc_auc_score are those of its multi_class
    takes_labels = function is not metrics.roc_auc_score and "labels" in signature(function).parameters
    if takes_labels and is_of_scores(function) and "labels" not in options and np.isin(targets, classes).all():
        scorer = copy.copy(scorer)
        scorer._kwargs = {**options, "labels": classes}
    return scorer


def _measured(name: str, scorer: Any, targets: Array, outputs: Array, predictions: Array) -> float:
    model: Any = _Regressed(outputs)
    if predictions is not outputs and predictions.shape == outputs.shape and outputs.ndim == 2 and outputs.shape[1] > 1:
        model, targets = _Multilabel(outputs, np.where(predictions > 0, 1, 0)), np.where(targets > 0, 1, 0)
    elif predictions is not outputs:
        model, targets = _Classified(outputs, predictions), targets.ravel()
        scorer = _with_labels(scorer, model.classes_, targets)
    try:
        return float(scorer(model, np.arange(len(predictions)), targets))
    except (ValueError, TypeError, AttributeError) as error:
        raise cannot(name, error) from None
