"""NeuralClassifier: a network that tells classes apart, as a scikit-learn estimator."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import (
    _check_partial_fit_first_call,
    check_classification_targets,
    type_of_target,
)
from sklearn.utils.validation import check_is_fitted, column_or_1d

from microfw import nn
from microfw.data.rows import Rows
from microfw.errors import ArgumentError, DataError, message
from microfw.estimators import parts
from microfw.estimators.base import NeuralEstimator
from microfw.estimators.learner import Array

LABELLED = (nn.CrossEntropyLoss, nn.NLLLoss)
LIKELY = (*LABELLED, nn.BCEWithLogitsLoss)


def _has_probabilities(estimator: Any) -> bool:
    loss = parts.loss(estimator.loss, type(estimator).__name__)
    if not isinstance(loss, LIKELY):
        raise AttributeError(f"{type(loss).__name__} gives no probabilities; use loss='log_loss'")
    return True


class NeuralClassifier(ClassifierMixin, NeuralEstimator):  # type: ignore[misc,unused-ignore]
    """A neural network that classifies rows of features.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
        Width of each hidden layer; ``()`` for a linear model.
    module : Module or callable, optional
        The network itself, instead of layers of sizes. A Module is copied and starts from its own weights; a
        function ``f(n_features, n_outputs, rng)`` returns one. Its last layer gives a number for each class.
    activation : str, class or callable
        "relu", "tanh", "sigmoid" ("logistic"), "identity" or any other of `microfw.nn`, by name in small letters;
        or what makes a layer.
    norm : {None, "batch", "layer"}
        What comes between a hidden layer and its activation.
    dropout : float
        Share of each hidden layer's outputs that is zeroed in training.
    loss : str or Loss
        "log_loss": cross-entropy of one of several classes, or of each label by itself. Of other losses of
        `microfw.nn`, those of labels get labels, `HingeLoss` gets -1 and 1 for each class, and others 0 and 1.
    optimizer : str, class or callable
        The name of an optimizer of `microfw.optim`, in small letters, or ``f(parameters, lr=...)``.
    optimizer_params : dict, optional
        Its other settings. "sgd" by name has ``momentum=0.9, nesterov=True`` by default.
    learning_rate : float or callable
        Length of steps, or a function of the number of steps taken, such as a schedule of `microfw.optim`.
    max_grad_norm : float, optional
        To what norm the gradient of all parameters together is shortened, if it is longer.
    batch_size : int or "auto"
        Rows in a step; "auto" is 200, or all rows if there are fewer.
    max_iter : int
        How many epochs to train at most.
    shuffle : bool
        Whether each epoch goes through the rows in a new order.
    early_stopping : bool
        Set rows aside, score them after each epoch, stop when the score no longer rises, and keep the weights of
        the best epoch. Otherwise training stops when the loss no longer falls.
    scoring : str or callable, optional
        The score of early stopping: any of scikit-learn's scorers, "loss", or accuracy by default.
    validation_fraction : float
        The share of rows that is set aside, each class alike.
    n_iter_no_change : int or None
        How many epochs may pass without an improvement; None never stops.
    tol : float
        The least that counts as one.
    class_weight : dict or "balanced", optional
        What the rows of each class count; those of a weight of 0 are left out.
    warm_start : bool
        Whether `fit` goes on from what is there. Settings that were changed since hold from now on; those that the
        network was made of (its layers, ``dtype``) are refused. So does `partial_fit`.
    dtype : dtype, optional
        float32 or float64; that of X by default.
    profile : bool
        Whether `fit` leaves ``profile_``: what each epoch and layer cost.
    random_state : int, RandomState, Generator or None
        Where weights, order and noise come from. An int gives the same bits each time.
    verbose : bool
        Whether to print a line for each epoch.

    Attributes
    ----------
    classes_ : ndarray
        The labels.
    module_ : Module
        The network.
    history_ : History
        A row for each epoch of `fit`: ``loss``, ``val_loss``, ``val_score``, ``learning_rate``, ``seconds``.
    loss_curve_, validation_scores_ : list of float
        The loss and the score of each epoch.
    loss_, best_loss_, best_validation_score_ : float
        The last one, the least, and the highest score.
    n_iter_, n_features_in_, n_outputs_ : int
        Epochs, columns of X, and numbers that the network gives.
    feature_names_in_ : ndarray
        The names of the columns, if X was a frame.
    profile_ : Session
        Profile of the fit, with ``profile=True`` or a `Profiler` among the callbacks: see `microfw.profiler.report`.

    Raises
    ------
    ArgumentError
        If a setting is out of range or unknown.
    NonFiniteError
        If a loss or a gradient turns NaN or infinite. The weights are as they were before that step.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from microfw.estimators import NeuralClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = make_pipeline(StandardScaler(), NeuralClassifier(16, dropout=0.1, learning_rate=0.05, random_state=0))
    >>> bool(model.fit(X, y).score(X, y) > 0.95)
    True
    """

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        *,
        module: Any = None,
        activation: Any = "relu",
        norm: str | None = None,
        dropout: float = 0.0,
        loss: Any = "log_loss",
        optimizer: Any = "adam",
        optimizer_params: dict[str, Any] | None = None,
        learning_rate: Any = 0.001,
        max_grad_norm: float | None = None,
        batch_size: int | str = "auto",
        max_iter: int = 200,
        shuffle: bool = True,
        early_stopping: bool = False,
        scoring: Any = None,
        validation_fraction: float = 0.1,
        n_iter_no_change: int | None = 10,
        tol: float = 1e-4,
        class_weight: Any = None,
        warm_start: bool = False,
        dtype: Any = None,
        profile: bool = False,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            hidden_layer_sizes, module, activation, norm, dropout, loss, optimizer, optimizer_params, learning_rate,
            max_grad_norm, batch_size, max_iter, shuffle, early_stopping, scoring, validation_fraction,
            n_iter_no_change, tol, warm_start, dtype, profile, random_state, verbose,
        )  # fmt: skip
        self.class_weight = class_weight

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train on some rows once, in batches, going on from what is there.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        classes : array_like
            All classes that there will be; needed in the first call.

        Returns
        -------
        self
        """
        if self.class_weight == "balanced":
            fix = "compute the weights once, and pass them as sample_weight or as a dict"
            raise ArgumentError(message("NeuralClassifier.partial_fit", "weights by class", "'balanced'", fix))
        return self._partial_fit(X, y, sample_weight, classes)

    def _first_call(self, classes: Any) -> None:
        if classes is not None or not hasattr(self, "classes_"):
            _check_partial_fit_first_call(self, classes)

    def predict(self, X: Any) -> Array:
        """Return the class of each row, or for several labels a 1 for each that it has."""
        z = self._outputs(X)
        if self._multilabel:
            return (z > 0).astype(np.intp)
        return self.classes_[z.argmax(axis=1)]  # type: ignore[no-any-return]

    def decision_function(self, X: Any) -> Array:
        """Return a score for each class; for two classes the second's less the first's."""
        z = self._outputs(X)
        if self._multilabel or len(self.classes_) > 2:
            return z
        if isinstance(self._learner.loss, nn.BCEWithLogitsLoss):  # the logit of the probability
            z = -np.logaddexp(0, -z)
        return z[:, -1] - z[:, 0]

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator,unused-ignore]
    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class for each row, or for several labels of each label."""
        z = self._outputs(X)
        with np.errstate(over="ignore"):
            if isinstance(self._learner.loss, nn.BCEWithLogitsLoss):
                p = 1 / (1 + np.exp(-z))
                return p if self._multilabel else p / p.sum(axis=1, keepdims=True)
            e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator,unused-ignore]
    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithm of `predict_proba`, exact also where a probability underflows."""
        check_is_fitted(self)
        if isinstance(self._learner.loss, nn.BCEWithLogitsLoss):
            with np.errstate(divide="ignore"):
                return np.log(self.predict_proba(X))  # type: ignore[no-any-return]
        z = self._outputs(X)
        z = z - z.max(axis=1, keepdims=True)
        return z - np.log(np.exp(z).sum(axis=1, keepdims=True))  # type: ignore[no-any-return]

    # Targets

    def _make_loss(self) -> Any:
        loss = parts.loss(self.loss, type(self).__name__, self._multilabel)
        if self._multilabel and isinstance(loss, LABELLED):
            expected = "a loss of several labels, such as 'log_loss' or BCEWithLogitsLoss"
            raise ArgumentError(message(type(self).__name__, expected, type(loss).__name__))
        return loss

    def _count(self, rows: Rows) -> int:
        return len(self.classes_)

    def _encoded(self, y: Any, weight: Array | None, fresh: bool, dtype: Any) -> tuple[Array, Array | None]:
        """Return targets as the loss wants them, and weights in which those of the classes are."""
        y = y.toarray() if hasattr(y, "toarray") else y
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        kind = "multiclass" if y.ndim == 1 else type_of_target(y)  # else the check above would have raised
        if kind not in ("binary", "multiclass", "multilabel-indicator"):
            raise DataError(message(type(self).__name__, "one label a row, or an indicator of labels", f"y: {kind}"))
        fresh_classes = fresh and not (hasattr(self, "classes_") and not hasattr(self, "_learner"))
        multilabel = y.ndim == 2
        if fresh:
            self._multilabel = multilabel
        elif multilabel != self._multilabel:
            expected = "an indicator of labels" if self._multilabel else "one label a row"
            raise DataError(message(type(self).__name__, expected, f"y of shape {y.shape}"))
        if multilabel:
            return self._encoded_labels(y, weight, fresh_classes, dtype)
        if fresh_classes:
            self.classes_, codes = np.unique(y, return_inverse=True)
        else:
            codes = np.searchsorted(self.classes_, y).clip(0, len(self.classes_) - 1)
            unknown = self.classes_[codes] != y
            if unknown.any():
                raise DataError(message(type(self).__name__, f"classes {self.classes_}", y[unknown][0]))
        self._plain = self.classes_.dtype.kind in "iu" and np.array_equal(self.classes_, np.arange(len(self.classes_)))
        if self.class_weight is not None:
            by_class = compute_class_weight(self.class_weight, classes=self.classes_, y=y)
            if weight is not None and isinstance(self.class_weight, str):  # "balanced" by weight: scikit-learn 1.7
                counts = np.bincount(codes, weight, len(self.classes_))
                by_class = counts.sum() / (len(counts) * counts)
            mine = by_class.astype(dtype)[codes]
            weight = mine if weight is None else weight * mine
        return self._targets(codes, dtype), weight

    def _encoded_labels(self, y: Any, weight: Any, fresh: bool, dtype: Any) -> tuple[Array, Array | None]:
        if fresh:
            self.classes_ = np.arange(y.shape[1])
        elif y.shape[1] != len(self.classes_):
            raise DataError(message(type(self).__name__, f"{len(self.classes_)} labels", f"y of shape {y.shape}"))
        if self.class_weight is not None:
            mine = compute_sample_weight(self.class_weight, y).astype(dtype)
            weight = mine if weight is None else weight * mine
        self._plain = False
        return y.astype(dtype), weight

    def _targets(self, codes: Array, dtype: Any) -> Array:
        loss = self._make_loss()
        if isinstance(loss, LABELLED):
            return codes.astype(np.intp, copy=False)
        hot = np.eye(len(self.classes_), dtype=dtype)[codes]
        return 2 * hot - 1 if isinstance(loss, nn.HingeLoss) else hot

    def _quick_targets(self, y: Array) -> Array | None:
        weighted = self.class_weight is not None
        if weighted or not self._plain or y.ndim != 1 or y.dtype.kind not in "iu" or y.min() < 0:
            return None
        quick = isinstance(self._learner.loss, LABELLED) and y.max() < len(self.classes_)
        return y if quick else None

    def _strata(self, targets: Array) -> Array | None:
        if self._multilabel:
            return None
        return targets if targets.ndim == 1 else targets.argmax(axis=1)

    def _decoded(self, targets: Array) -> Array:
        if self._multilabel:
            return targets.astype(np.intp)
        return self.classes_[self._strata(targets)]
