"""`NeuralClassifier`: a neural network that classifies, as a scikit-learn estimator."""

from __future__ import annotations

import math
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _check_partial_fit_first_call, check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, column_or_1d

from microfw import nn
from microfw.data.dataset import Rows
from microfw.errors import ArgumentError, DataError
from microfw.estimators import parts
from microfw.estimators.base import NeuralEstimator
from microfw.estimators.class_weights import balanced, weights_of_labels
from microfw.training.evaluation import Array

LABEL_LOSSES = (nn.CrossEntropyLoss, nn.NLLLoss)
PROBABILITY_LOSSES = (*LABEL_LOSSES, nn.BCEWithLogitsLoss)
NUMBER_LOSSES = (nn.MSELoss, nn.L1Loss, nn.HuberLoss, nn.PoissonNLLLoss)


def _has_probabilities(estimator: Any) -> bool:
    loss = parts.loss(estimator.loss, type(estimator).__name__)
    if not isinstance(loss, PROBABILITY_LOSSES):
        raise AttributeError(f"{type(loss).__name__} gives no probabilities; use loss='log_loss'")
    return True


class NeuralClassifier(ClassifierMixin, NeuralEstimator):  # type: ignore[misc,unused-ignore]
    """A neural network that classifies rows of features.

    Parameters
    ----------
    hidden_layer_sizes : int or sequence of int
        Width of each hidden layer; ``()`` for a linear model.
    module : Module or callable, optional
        Network to use instead of hidden layers. A Module is copied and starts from its own weights; a function or class
        ``f(n_features, n_outputs, rng)`` returns a Module. The last layer has one output for each class. With a module,
        X may have three or four axes; ``n_features`` is then the shape of a row, such as (C, H, W).
    activation : str, class or callable
        "relu", "tanh", "sigmoid" ("logistic"), "identity" or any other activation of `microfw.nn`, by name in lower
        case; or a class or function that returns a layer.
    norm : {None, "batch", "layer"}
        Normalization between a hidden layer and its activation.
    dropout : float
        Fraction of the outputs of each hidden layer that is set to 0 in training.
    loss : str or Loss
        "log_loss": cross-entropy over the classes, or of each label separately; or a loss of `microfw.nn`. Losses of
        labels get labels, `HingeLoss` gets -1 and 1 for each class, and others get 0 and 1. Of several labels, a
        label is predicted if its output is above 0, or nearer to 1 than to 0 with a loss of numbers.
    alpha : float
        L2 penalty, as in scikit-learn: ``alpha / 2`` times the sum of the squared weights, divided by the rows of the
        batch, is added to the loss. Biases and other parameters with one axis have none.
    optimizer : str, class or callable
        Name of an optimizer of `microfw.optim` in lower case, or ``f(parameters, lr=...)``.
    optimizer_params : dict, optional
        Other settings of the optimizer. Default for "sgd" by name: ``momentum=0.9, nesterov=True``.
    learning_rate : float or callable
        Learning rate, or a function of the number of steps taken, such as a schedule of `microfw.optim`.
    max_grad_norm : float, optional
        Maximum norm of the gradient of all parameters together; longer gradients are scaled down.
    batch_size : int or "auto"
        Rows in a step; "auto" is 200, or all rows if there are fewer.
    max_iter : int
        Maximum number of epochs.
    shuffle : bool
        Whether each epoch uses the rows in a new random order.
    early_stopping : bool
        If True, score validation rows after each epoch, stop when the score no longer improves, and keep the weights of
        the best epoch. If False, stop when the loss no longer improves.
    scoring : str or callable, optional
        Score of early stopping: a scorer of scikit-learn or "loss"; default accuracy.
    validation_fraction : float
        Fraction of rows for validation, stratified by class.
    n_iter_no_change : int or None
        Epochs without improvement before training stops; None never stops.
    tol : float
        Smallest change that is an improvement.
    class_weight : dict or "balanced", optional
        Weight of the rows of each class; rows of weight 0 are left out.
    warm_start : bool
        If True, `fit` continues with the existing network, as `partial_fit` always does. Changed settings are used from
        then on; changed settings of the network (layers, ``dtype``) raise an error.
    dtype : dtype, optional
        float32 or float64; default that of X.
    profile : bool
        If True, `fit` sets ``profile_``, the cost of each epoch and layer. `partial_fit` records nothing.
    random_state : int, RandomState, Generator or None
        Source of weights, order of rows and noise. With an int, results are bitwise reproducible.
    verbose : bool
        If True, show a bar on a terminal and in a notebook; elsewhere print a line for each epoch.
    hooks : sequence of Hook
        Called at the events of `fit`; see `microfw.training.Hook`. `partial_fit` calls only ``on_gradients``.
    **options : object
        Settings of the parts: ``module__width=8`` is passed to the class or function ``module`` as ``width=8``, and
        ``optimizer__momentum=0.5`` to the optimizer. `set_params` and searches change them by these names.

    Attributes
    ----------
    classes_ : ndarray
        Class labels.
    module_ : Module
        Trained network.
    history_ : History
        One row for each epoch of `fit`: ``epoch``, ``loss``, ``learning_rate``, with early stopping ``val_loss`` and
        ``val_score``, ``seconds``, and ``skipped`` if a step made no update.
    loss_curve_, validation_scores_ : list of float
        Loss and score of each epoch.
    loss_, best_loss_, best_validation_score_ : float
        Last loss, smallest loss, and highest score.
    n_iter_, n_features_in_, n_outputs_ : int
        Number of epochs, of columns of X, and of outputs of the network.
    feature_names_in_ : ndarray
        Names of the columns, if X was a frame.
    profile_ : Session
        Profile of the last `fit`, with ``profile=True`` or a `Profiler` as a callback: see `microfw.profiler.report`.

    Raises
    ------
    ArgumentError
        If a setting is out of range or unknown.
    NonFiniteError
        If a loss or a gradient becomes NaN or infinite. The weights are those before that step.

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
        alpha: float = 0.0,
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
        hooks: Any = (),
        **options: Any,
    ) -> None:
        self._store(locals())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Train one epoch on some rows, starting from the existing network.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.
        classes : array_like
            All classes; required in the first call.

        Returns
        -------
        self
        """
        if self.class_weight == "balanced":
            fix = "compute the weights once, and pass them as sample_weight or as a dict"
            raise ArgumentError("NeuralClassifier.partial_fit", "weights by class", "'balanced'", fix)
        return self._partial_fit(X, y, sample_weight, classes)

    def _first_call(self, classes: Any) -> None:
        if classes is not None or not hasattr(self, "classes_"):
            _check_partial_fit_first_call(self, classes)

    def predict(self, X: Any) -> Array:
        """Return the class of each row; for multilabel targets, an indicator of labels."""
        z = self._outputs(X)
        if self._multilabel:
            return (z > self._threshold).astype(np.intp)
        return self.classes_[z.argmax(axis=1)]  # type: ignore[no-any-return]

    @property
    def _threshold(self) -> float:
        """The output above which a label is predicted."""
        loss = self._learner.loss
        if not isinstance(loss, NUMBER_LOSSES):
            return 0.0  # of logits
        # The middle of the targets 0 and 1. A Python float: the scores keep the dtype of the outputs.
        return -math.log(2) if getattr(loss, "log_input", False) else 0.5

    def decision_function(self, X: Any) -> Array:
        """Return a score for each class; for two classes, the second score minus the first.

        A label of multilabel targets is predicted if its score is above 0.
        """
        z = self._outputs(X)
        if self._multilabel:
            return z - self._threshold
        if len(self.classes_) > 2:
            return z
        if isinstance(self._learner.loss, nn.BCEWithLogitsLoss):  # the logit of the probability
            z = -np.logaddexp(0, -z)
        return z[:, -1] - z[:, 0]

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator,unused-ignore]
    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class, or of each label, for each row."""
        z = self._outputs(X)
        with np.errstate(over="ignore"):
            if isinstance(self._learner.loss, nn.BCEWithLogitsLoss):
                p = 1 / (1 + np.exp(-z))
                return p if self._multilabel else p / p.sum(axis=1, keepdims=True)
            e = np.exp(z - z.max(axis=1, keepdims=True))  # the largest exponent is 0, so none overflows
        return e / e.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]

    @available_if(_has_probabilities)  # type: ignore[untyped-decorator,unused-ignore]
    def predict_log_proba(self, X: Any) -> Array:
        """Return the logarithm of `predict_proba`, exact even if a probability underflows."""
        check_is_fitted(self)
        if isinstance(self._learner.loss, nn.BCEWithLogitsLoss):
            with np.errstate(divide="ignore"):
                return np.log(self.predict_proba(X))  # type: ignore[no-any-return]
        z = self._outputs(X)
        z = z - z.max(axis=1, keepdims=True)
        return z - np.log(np.exp(z).sum(axis=1, keepdims=True))  # type: ignore[no-any-return]

    # Targets

    def _make_loss(self) -> Any:
        loss = parts.loss(self.loss, self._where, self._multilabel)
        if self._multilabel and isinstance(loss, LABEL_LOSSES):
            expected = "a loss of several labels, such as 'log_loss' or BCEWithLogitsLoss"
            raise ArgumentError(self._where, expected, type(loss).__name__)
        return loss

    def _count(self, rows: Rows) -> int:
        return len(self.classes_)

    def _encoded(self, y: Any, weight: Array | None, fresh: bool, dtype: Any) -> tuple[Array, Array | None]:
        """Return targets in the form of the loss, and weights that include class weights."""
        y = y.toarray() if hasattr(y, "toarray") else y
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        check_classification_targets(y)
        kind = "multiclass" if y.ndim == 1 else type_of_target(y)  # the check above has raised for other targets
        if kind not in ("binary", "multiclass", "multilabel-indicator"):
            raise DataError(self._where, "one label a row, or an indicator of labels", f"y: {kind}")
        # partial_fit sets classes_ in its first call, before there is a network.
        fresh_classes = fresh and not (hasattr(self, "classes_") and not hasattr(self, "_learner"))
        multilabel = y.ndim == 2
        if fresh:
            self._multilabel = multilabel
        elif multilabel != self._multilabel:
            expected = "an indicator of labels" if self._multilabel else "one label a row"
            raise DataError(self._where, expected, f"y of shape {y.shape}")
        if multilabel:
            return self._encoded_labels(y, weight, fresh_classes, dtype)
        if fresh_classes:
            self.classes_, codes = np.unique(y, return_inverse=True)
        else:
            codes = np.searchsorted(self.classes_, y).clip(0, len(self.classes_) - 1)
            unknown = self.classes_[codes] != y
            if unknown.any():
                raise DataError(self._where, f"classes {self.classes_}", repr(y[unknown].tolist()[0]))
        # Labels 0, 1, 2, … need no search in classes_; partial_fit then takes them as they are.
        self._labels_are_codes = self.classes_.dtype.kind in "iu" and np.array_equal(
            self.classes_, np.arange(len(self.classes_))
        )
        if self.class_weight is not None:
            by_class = compute_class_weight(self.class_weight, classes=self.classes_, y=y)
            if weight is not None and isinstance(self.class_weight, str):
                by_class = balanced(codes, weight)
            class_weights = by_class.astype(dtype)[codes]
            weight = class_weights if weight is None else weight * class_weights
        return self._targets(codes, dtype), weight

    def _encoded_labels(self, y: Any, weight: Any, fresh: bool, dtype: Any) -> tuple[Array, Array | None]:
        if fresh:
            self.classes_ = np.arange(y.shape[1])
        elif y.shape[1] != len(self.classes_):
            raise DataError(self._where, f"{len(self.classes_)} labels", f"y of shape {y.shape}")
        other = (y != 0) & (y != 1)
        if other.any():
            raise DataError(self._where, "an indicator of labels, 0 or 1", f"{y[other][0]}", "pass (y > 0).astype(int)")
        if self.class_weight is not None:
            class_weights = weights_of_labels(self.class_weight, y, weight).astype(dtype)
            weight = class_weights if weight is None else weight * class_weights
        self._labels_are_codes = False
        return self._signed(y.astype(dtype)), weight

    def _targets(self, codes: Array, dtype: Any) -> Array:
        if isinstance(loss := self._make_loss(), LABEL_LOSSES):
            if (ignored := loss.ignore_index or 0) < 0 and ignored in self.classes_:  # not the number of a class
                expected, fix = f"no label {ignored}, the ignore_index of the loss", "leave its rows out"
                raise DataError(self._where, expected, "some", fix)
            return codes.astype(np.intp, copy=False)
        return self._signed(np.eye(len(self.classes_), dtype=dtype)[codes])

    def _signed(self, hot: Array) -> Array:
        """Return 0 and 1 as -1 and 1 if the loss takes these."""
        return 2 * hot - 1 if isinstance(self._make_loss(), nn.HingeLoss) else hot

    def _quick_targets(self, y: Array) -> Array | None:
        plain = self.class_weight is None and self._labels_are_codes
        if not plain or y.ndim != 1 or y.dtype.kind not in "iu" or y.item(y.argmin()) < 0:  # y.min() takes 1 us more
            return None
        quick = isinstance(self._learner.loss, LABEL_LOSSES) and y.item(y.argmax()) < len(self.classes_)
        return y if quick else None

    def _strata(self, targets: Array) -> Array | None:
        if self._multilabel:
            return None
        return targets if targets.ndim == 1 else targets.argmax(axis=1)

    def _decoded(self, targets: Array) -> Array:
        if self._multilabel:
            return (targets > 0).astype(np.intp)
        return self.classes_[self._strata(targets)]
