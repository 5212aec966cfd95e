"""Metrics of predictions, by name or as functions of ``(y_true, y_pred)``.

The loss decides what a prediction is. `CrossEntropyLoss`: the class with the largest output, and so for other losses if
targets are integers and there is an output for each class. `BCEWithLogitsLoss`: 0 or 1. `HingeLoss`: -1 or 1. Else: the
output itself. Targets that are probabilities count as the most probable label. Rows that the loss ignores are left out.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from microfw.data.nested import Columns
from microfw.errors import ArgumentError, ShapeError
from microfw.nn import BCEWithLogitsLoss, CrossEntropyLoss, HingeLoss, NLLLoss
from microfw.training.outputs import check_function

__all__ = ["accuracy", "r2"]

Array = np.ndarray[Any, Any]
Measure = Callable[[Array, Array, Array], float]
"""``measure(targets, outputs, predictions)``."""


def accuracy(y_true: Any, y_pred: Any) -> float:
    """Return the share of labels that are predicted.

    Examples
    --------
    >>> accuracy([0, 1, 2, 2], [0, 1, 2, 1])
    0.75
    """
    y_true, y_pred = _pair(y_true, y_pred, "accuracy")
    if y_pred.dtype.kind == "f" and (y_pred != np.round(y_pred)).any():
        raise ArgumentError("accuracy", "labels", "real numbers", "use r2 for regression")
    return float(np.mean(y_true == y_pred))


def r2(y_true: Any, y_pred: Any) -> float:
    """Return the coefficient of determination, averaged over columns.

    A constant column counts as 1 if predicted exactly, else as 0.

    Examples
    --------
    >>> r2([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])
    0.5
    """
    y_true, y_pred = (a.astype(np.float64).reshape(len(a), -1) for a in _pair(y_true, y_pred, "r2"))
    missed = np.square(y_true - y_pred).sum(axis=0)
    spread = np.square(y_true - y_true.mean(axis=0)).sum(axis=0)
    safe = np.where(spread == 0, 1, spread)  # no division by 0, whose result np.where below would drop
    return float(np.where(spread == 0, missed == 0, 1 - missed / safe).mean())


METRICS: dict[str, Callable[[Any, Any], float]] = {"accuracy": accuracy, "r2": r2}

OF_SCORES = frozenset({
    "average_precision_score", "brier_score_loss", "d2_brier_score", "d2_log_loss_score", "log_loss", "roc_auc_score",
    "top_k_accuracy_score",
})  # fmt: skip
"""Functions of `sklearn.metrics` that take scores or probabilities, with a scorer that passes them."""

WITHOUT_SCORER = frozenset({
    "auc", "coverage_error", "dcg_score", "det_curve", "hinge_loss", "label_ranking_average_precision_score",
    "label_ranking_loss", "ndcg_score", "precision_recall_curve", "roc_curve",
})  # fmt: skip
"""Functions of `sklearn.metrics` that take scores or probabilities, without a scorer."""


RESERVED = frozenset({"epoch", "loss", "seconds", "lr", "gradient_norm", "skipped", "clipped"})
"""Entries of the History that are no metrics; so are those that begin with ``val_``."""


def to_predictions(outputs: Array, targets: Array, loss: Any) -> Array:
    """Return predictions, comparable with the targets, from a model's outputs.

    Examples
    --------
    >>> to_predictions(np.array([[0.1, 0.9], [2.0, 1.0]]), np.array([0, 0]), CrossEntropyLoss())
    array([1, 0])
    """
    if isinstance(loss, BCEWithLogitsLoss):
        return (outputs > 0).astype(targets.dtype)
    if isinstance(loss, HingeLoss):
        return np.where(outputs > 0, 1, -1).astype(targets.dtype)
    several = targets.dtype.kind in "iu" and outputs.ndim == targets.ndim + 1 and outputs.shape[-1] > 1
    return np.asarray(outputs.argmax(axis=-1)) if several or isinstance(loss, CrossEntropyLoss) else outputs


def to_classes(outputs: Array, loss: Any) -> Array:
    """Return the predicted labels of a model's outputs; raise if neither outputs nor loss decide between classes."""
    made = to_predictions(outputs, np.empty(outputs.shape[:-1], np.intp), loss)
    if made is outputs or not made.ndim:
        expected, got = "an output for each class", f"outputs of shape {outputs.shape} and {type(loss).__name__}"
        raise ArgumentError("Trainer.predict_classes", expected, got, "for one output use nn.BCEWithLogitsLoss")
    return made


def measure(metrics: dict[str, Measure], loss: Any, outputs: Array, targets: Array) -> dict[str, float]:
    """Return all metrics of a model's outputs."""
    check_heads(metrics, [""], [""])
    compared = comparable(outputs, targets, loss)
    return {name: metric(*compared) if len(compared[0]) else math.nan for name, metric in metrics.items()}


def comparable(outputs: Array, targets: Array, loss: Any) -> tuple[Array, Array, Array]:
    """Return targets, outputs and predictions of the rows that the loss does not ignore, with targets as labels."""
    predictions = to_predictions(outputs, targets, loss)
    if isinstance(loss, BCEWithLogitsLoss):
        targets = (targets > 0.5).astype(targets.dtype)
    elif isinstance(loss, CrossEntropyLoss) and targets.ndim == 2 and targets.dtype.kind == "f":
        targets = targets.argmax(axis=1)
    ignored = loss.ignore_index if isinstance(loss, CrossEntropyLoss | NLLLoss) else None
    if ignored is None or (kept := targets != ignored).all():
        return targets, outputs, predictions
    return targets[kept], outputs[kept], predictions[kept]


def measure_heads(metrics: dict[str, Measure], loss: Any, outputs: Columns, targets: Columns) -> dict[str, float]:
    """Return all metrics of nested outputs, as ``name/head`` for each head that outputs and targets both have.

    Without such a head a function of the user's gets the nested targets and outputs.
    """
    check_heads(metrics, outputs.paths, targets.paths)
    heads = {path: leaf for path, leaf in zip(outputs.paths, outputs.leaves, strict=True) if path in targets.paths}
    found = {}
    for name, metric in metrics.items():
        if not heads:
            found[name] = metric(targets.tree, outputs.tree, outputs.tree)
        head, one = (metric.head, metric.metric) if isinstance(metric, OfHead) else (None, metric)
        for path in heads if head is None else [head]:
            made, wanted = heads[path], targets.leaves[targets.paths.index(path)]
            key = f"{name}/{path}" if path and head is None else name
            found |= measure({key: one}, loss, made, wanted)
    return found


def check_heads(metrics: dict[str, Any], outputs: Sequence[str], targets: Sequence[str]) -> None:
    """Raise unless metrics can be measured on outputs and targets with these paths."""
    heads = [path for path in outputs if path in targets]
    for name, metric in metrics.items():
        if isinstance(metric, OfHead):
            if metric.head not in heads:
                fix = "pass a list of metrics, without a head" if heads == [""] else ""
                known = "none, since the outputs are one array" if heads == [""] else ", ".join(heads) or "none"
                raise ArgumentError("metrics", f"heads among {known}", repr(metric.head), fix)
        elif not (heads or _takes_trees(metric)):
            names = (", ".join(path or "one array" for path in paths) for paths in (outputs, targets))
            got = "outputs {} and targets {}".format(*names)
            raise ArgumentError(f"metric {name!r}", "a head in outputs and targets", got, "pass f(y_true, y_pred)")


def _takes_trees(metric: Any) -> bool:
    """Return True for a function of the user's, which may take nested targets and outputs."""
    return isinstance(metric, partial) and metric.func is _measured and metric.args[0] not in METRICS.values()


@dataclass(frozen=True)
class OfHead:
    """The measure of one head of nested outputs.

    Parameters
    ----------
    head : str
        Path of the head, such as ``"digit"``, ``"0"`` or ``"body/0"``.
    metric : callable
        Its measure.
    """

    head: str
    metric: Measure

    def __call__(self, targets: Array, outputs: Array, predictions: Array) -> float:
        """Return the measure of the head's arrays."""
        return self.metric(targets, outputs, predictions)


class Measures(dict[str, Measure]):
    """Measures by name, as `resolve` returns them; it returns them unchanged."""


def resolve(metrics: Any) -> Measures:
    """Return the measures of a Trainer's metrics, by name.

    Parameters
    ----------
    metrics : str, callable, an iterable of them, or a dict of these by head
        "accuracy" and "r2" are built in. Any other name is that of a scikit-learn scorer, such as "f1_macro" or
        "neg_log_loss", or of a function in `sklearn.metrics`, such as "mean_absolute_error". A callable is
        ``f(y_true, y_pred)``, or a scorer; its ``__name__`` is its name. Functions of `sklearn.metrics` that take
        scores or probabilities, such as "roc_auc_score" or "log_loss", get these, with the options of a ``partial``.

    Raises
    ------
    ArgumentError
        If a name is unknown or repeated, the metric needs scores and has no scorer, or a function does not take
        targets and predictions.
    """
    if isinstance(metrics, Measures):
        return metrics
    if isinstance(metrics, dict):
        heads = {str(head): resolve(several) for head, several in metrics.items()}
        named = {f"{name}/{head}": OfHead(head, m) for head, several in heads.items() for name, m in several.items()}
        return Measures(named)
    if isinstance(metrics, str) or callable(metrics) or getattr(metrics, "ndim", 1) == 0:
        metrics = [metrics]
    found = Measures()
    for metric in metrics if isinstance(metrics, Iterable) else [metrics]:
        name = metric if isinstance(metric, str) else _name(metric)
        if name in found or name in RESERVED or name.startswith("val_"):
            got = f"{name!r} twice" if name in found else f"{name!r}, an entry of the History"
            fix = "leave it out, or rename it: function.__name__ = 'other'"
            raise ArgumentError("metrics", "different names", got, fix)
        if isinstance(metric, str):
            found[name] = _plain(METRICS[metric]) if metric in METRICS else _named(metric)
        elif _takes_scores(metric):
            found[name] = _of_scores(metric, name)
        elif callable(metric):
            check_function(metric, "f(y_true, y_pred)", f"metric {name!r}")
            found[name] = _plain(metric)
        else:
            raise ArgumentError("metrics", "names and functions f(y_true, y_pred)", repr(metric))
    return found


def _plain(function: Callable[[Any, Any], Any]) -> Measure:
    return partial(_measured, function)


def _measured(function: Callable[[Any, Any], Any], targets: Array, outputs: Array, predictions: Array) -> float:
    try:
        value = function(targets, predictions)
    except Exception as error:
        if function not in METRICS.values():  # whose errors name them
            error.add_note(f"raised in the metric {_name(function)!r}, called with targets and predictions")
        raise
    try:
        return float(value)
    except (TypeError, ValueError):
        got = " ".join(repr(value).split())
        raise ArgumentError(f"metric {_name(function)!r}", "a number", got[:80], "return a float") from None


def _name(metric: Any) -> str:
    """Return the name of a metric; of a partial or a scorer that has none, the name of its function."""
    if not hasattr(metric, "__name__") and (inner := _inner(metric)) is not None:
        return _name(inner)
    return str(getattr(metric, "__name__", type(metric).__name__))


def _inner(metric: Any) -> Any:
    """Return the function of a partial or a scorer; None for anything else."""
    if isinstance(metric, partial):
        return _inner(metric.func) or metric.func
    return metric._score_func if _is_scorer(metric) else None


def _is_scorer(metric: Any) -> bool:
    return type(metric).__module__ == "sklearn.metrics._scorer"


def _named(name: str) -> Measure:
    """Return the measure of a metric of scikit-learn."""
    from sklearn import metrics

    if name in metrics.get_scorer_names():
        return _of_scores(metrics.get_scorer(name), name)
    function = getattr(metrics, name, None) if name in metrics.__all__ else None
    if function is None or isinstance(function, type):
        known = [*METRICS, *metrics.get_scorer_names()]
        known += [n for n in metrics.__all__ if n.endswith(("_score", "_error"))]
        begun = [full for full in known if name and full.startswith(name)]  # as "acc" begins accuracy
        close = begun or difflib.get_close_matches(name, known, 1, 0.5)
        fix = f"did you mean {close[0]!r}?" if close else "or pass a function f(y_true, y_pred)"
        raise ArgumentError("metrics", "accuracy, r2, or a name of sklearn.metrics", repr(name), fix)
    return _of_scores(function, name) if _takes_scores(function) else partial(_compared, name, function)


def _takes_scores(metric: Any) -> bool:
    """Return True for a scorer, and for a function of scikit-learn that takes scores or probabilities, not labels."""
    return _is_scorer(metric) or is_of_scores(_inner(metric) or metric)


def is_of_scores(function: Any) -> bool:
    """Return True for a function of scikit-learn that takes scores or probabilities."""
    name = getattr(function, "__name__", "")
    if name not in OF_SCORES and name not in WITHOUT_SCORER:
        return False
    from sklearn import metrics

    return getattr(metrics, name, None) is function


def _of_scores(metric: Any, name: str) -> Measure:
    """Return the measure of a scorer, or of a function that takes scores or probabilities."""
    if not _is_scorer(metric) and getattr(_inner(metric) or metric, "__name__", "") in WITHOUT_SCORER:
        got = f"{name!r}, which compares targets with scores or probabilities"
        fix = "compute it from the outputs of Trainer.predict"
        raise ArgumentError("metrics", "a metric of labels, or a scorer's name", got, fix)
    from microfw.training._scorers import scored

    return scored(metric, name)


def _compared(name: str, function: Any, targets: Array, outputs: Array, predictions: Array) -> float:
    try:
        return float(function(targets, predictions))
    except (ValueError, TypeError) as error:
        raise cannot(name, error) from None


def cannot(name: str, error: Exception) -> ArgumentError:
    """Return the error for a metric that scikit-learn could not compute."""
    reason = " ".join(str(error).split())
    begun = name.removesuffix("_score")
    fix = f"for more than two classes use {begun + '_ovr'!r} or {begun + '_ovo'!r}" if "multi_class" in reason else ""
    expected = "targets and outputs that it can compare"
    return ArgumentError(f"metric {name!r}", expected, f"others ({reason})", fix)


def _pair(y_true: Any, y_pred: Any, where: str) -> tuple[Array, Array]:
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if y_true.shape != y_pred.shape:
        single = where == "accuracy" and y_pred.shape == (*y_true.shape, 1)
        fix = "for one output to decide between 0 and 1, the loss is nn.BCEWithLogitsLoss" if single else ""
        raise ShapeError(where, "targets and predictions of one shape", f"{y_true.shape} and {y_pred.shape}", fix)
    return y_true, y_pred


@dataclass
class Validation:
    """Evaluates the validation data of a fit: returns entries of an epoch's row."""

    trainer: Any
    data: Any

    def __call__(self) -> dict[str, float]:
        """Return the loss and the metrics, each with ``val_`` before its name."""
        return {f"val_{name}": value for name, value in self.trainer.evaluate(self.data).items()}


def __dir__() -> list[str]:
    return sorted(__all__)
