"""Base of classifier and regressor: settings, checks of data, loop over epochs."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable
from math import isfinite
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator, is_regressor
from sklearn.metrics import check_scoring
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from microfw.data.dataset import Rows
from microfw.errors import ArgumentError, DataError, ShapeError
from microfw.estimators import parts
from microfw.estimators.callback_hook import CallbackHook
from microfw.estimators.callbacks import CallbackSupportMixin, with_callbacks
from microfw.estimators.hooks import Stopping, reports
from microfw.estimators.learner import Learner, outputs, with_weight
from microfw.estimators.settings import adopt, current
from microfw.estimators.snapshots import EstimatorSnapshot, TrainingSnapshot
from microfw.estimators.split import explain, split, too_few
from microfw.estimators.validation import check_parameters
from microfw.training.evaluation import Array
from microfw.training.history import History
from microfw.training.hooks import Hooks
from microfw.training.run import Run

FLOATS = (np.float64, np.float32)

PREFIXES = ("module__", "optimizer__")
"""Beginnings of the names of settings of the module and of the optimizer."""

BRIEF_STEPS = 8
"""Calls of `partial_fit` with up to this many steps do not hold Ctrl-C back."""


class NeuralEstimator(CallbackSupportMixin, BaseEstimator):  # type: ignore[misc,unused-ignore]
    """Base of the estimators; see `NeuralClassifier` and `NeuralRegressor` for the settings."""

    batch_size: int | str
    max_iter: int
    shuffle: bool
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int | None
    tol: float
    warm_start: bool

    history_: History
    loss_curve_: list[float]
    validation_scores_: list[float] | None

    _options: dict[str, Any] = {}  # noqa: RUF012  # of module and optimizer, by name; replaced, never changed

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        signature = inspect.signature(cls.__init__)  # scikit-learn takes each of its names for a setting
        named = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        if "__init__" in vars(cls):
            cls.__init__.__signature__ = signature.replace(parameters=named)  # type: ignore[attr-defined]

    @property
    def _where(self) -> str:
        return type(self).__name__  # in errors

    def _store(self, arguments: dict[str, Any]) -> None:
        """Store the arguments of a constructor, unchanged and under their names, as scikit-learn requires."""
        del arguments["self"]
        options = arguments.pop("options")
        self.__dict__.update(arguments)
        for name in options:
            if not name.startswith(PREFIXES):
                raise TypeError(f"{self._where}.__init__() got an unexpected keyword argument {name!r}")
        if options:
            self._options = options

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the settings by name, those of module and optimizer included."""
        return {**super().get_params(deep), **self._options}

    def set_params(self, **params: Any) -> Self:
        """Change settings by name: ``module__width`` is the setting ``width`` of the module, as in the constructor."""
        options = {name: value for name, value in params.items() if name.startswith(PREFIXES)}
        super().set_params(**{name: value for name, value in params.items() if name not in options})
        if options:  # else a copy that failed would have an attribute more
            self._options = {**self._options, **options}
        return self

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train a new network, or with ``warm_start`` the existing one.

        Parameters
        ----------
        X : array_like, sparse matrix or frame of shape (n_samples, n_features)
            Features.
        y : array_like or frame of shape (n_samples,) or (n_samples, n_outputs)
            Targets.
        sample_weight : array_like of shape (n_samples,), optional
            Weight of each row, at least 0. In a batch of all rows, a weight of 2 equals the row twice, and a weight
            of 0 equals no row; ``norm="batch"`` counts rows.

        Returns
        -------
        self

        Notes
        -----
        A call that fails does not change the estimator. Ctrl-C ends training: the network keeps the weights of the last
        complete step, or with ``early_stopping`` those of the best epoch. Before the end of the first epoch, Ctrl-C
        does not change the estimator.

        Examples
        --------
        >>> from microfw.estimators import NeuralClassifier
        >>> NeuralClassifier(random_state=0).fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1]).predict([[0.0], [3.0]])
        array([0, 1])
        """
        check_parameters(self)
        continues = bool(self.warm_start) and hasattr(self, "_learner")
        before = EstimatorSnapshot(self, continues)
        try:
            self._fit(X, y, sample_weight, continues)
        except BaseException as error:
            if isinstance(error, Exception) or not before.trained():  # Ctrl-C after an epoch keeps the network
                before.restore()
            raise
        return self

    @with_callbacks  # type: ignore[untyped-decorator,unused-ignore]
    def _fit(self, X: Any, y: Any, sample_weight: Any, continues: bool) -> None:
        if continues:
            adopt(self._learner, self)
        rows = self._validated(X, y, sample_weight, fresh=not continues)
        if not continues:
            self._start(rows)
        train, validation = self._split(rows)
        if not self._learner.stepper.denominator(train.y, train.weight) > 0:
            got = f"none of {len(train)}"
            raise DataError(f"{self._where}.fit", "rows that count in the loss", got)
        with CallbackHook(self, X, y, sample_weight) as hook:
            self._train(train, validation, hook)

    def _train(self, train: Rows, validation: Rows | None, callback_hook: CallbackHook) -> None:
        learner, size = self._learner, self._size(len(train))
        state = learner.state
        state.history, state.stop, state.epochs = History(), False, state.epoch + self.max_iter
        patience = sys.maxsize if self.n_iter_no_change is None else int(self.n_iter_no_change)
        evaluate = None if validation is None else self._evaluation(validation)
        if validation is None:
            stopping = Stopping("loss", patience, self.tol, "min", restore=False)
        else:
            stopping = Stopping("val_score", patience, self.tol, "max")
        learner.fit_batches(train, size, len(train))
        if learner.stepper.replay_policy is not None:
            learner.stepper.replay_policy.expect(size, len(train) // size * self.max_iter)
        hooks = Hooks([*learner.hooks, *reports(self), stopping, *([callback_hook] if callback_hook.active else [])])
        shuffle = learner.order(train, size, self.shuffle) is not None
        run = Run(learner.stepper, hooks, train, size, learner.rng, {}, evaluate, shuffle=shuffle, resumable=False)
        with learner.training():
            try:
                run.epochs()
            finally:
                state.epoch -= run.totals is not None  # an epoch that was interrupted
                if state.history:
                    self.best_loss_ = float(np.nanmin([*self.loss_curve_, np.inf]))
                    self.best_validation_score_ = None if validation is None else float(stopping.best)
                elif not hasattr(self, "n_iter_"):  # a hook has stopped the first epoch before a step
                    self.n_iter_, self.loss_, self.best_loss_, self.best_validation_score_ = 0, np.nan, np.nan, None

    def _evaluation(self, validation: Rows) -> Callable[[], dict[str, float]]:
        """Return a function that evaluates the validation rows."""
        # None if an earlier fit, which this one continues, had no early stopping.
        self.validation_scores_ = [] if self.validation_scores_ is None else self.validation_scores_
        scorer = self._scorer()

        def evaluate() -> dict[str, float]:
            loss = self._learner.measure(validation)
            return {"val_loss": loss, "val_score": -loss if scorer is None else scorer(validation)}

        return evaluate

    def _note(self, loss: float) -> None:
        self.loss_ = loss
        self.loss_curve_.append(loss)
        self.n_iter_ = self._learner.state.epoch

    def _start(self, rows: Rows) -> None:
        """Create network, loss and optimizer; drop those of an earlier fit."""
        rng = parts.generator(self.random_state)
        loss = self._make_loss()
        if self.norm == "batch" and len(rows) == 1:
            raise DataError(self._where, "rows for norm='batch' to compare", "1 sample")
        model = parts.network(self, rows.X.shape[1:], self._count(rows), rng, rows.X.dtype)
        self._row_shape = rows.X.shape[1:]
        optimizer = parts.optimizer(self, model.parameters())
        self.module_ = model
        self.n_outputs_ = self._count(rows)
        self._learner = Learner(model, loss, optimizer, current(self), rng, self._where)
        self.history_ = History()
        self.loss_curve_ = []
        self.validation_scores_ = [] if self.early_stopping else None

    def _size(self, n: int) -> int:
        return min(200 if self.batch_size == "auto" else int(self.batch_size), n)

    # partial_fit

    def _quick(self, X: Any, y: Any) -> Rows | None:
        """Return rows if a few fast checks are enough, else None."""
        learner = getattr(self, "_learner", None)
        if learner is None or type(X) is not np.ndarray or type(y) is not np.ndarray or X.ndim != 2:
            return None
        rows, columns = X.shape
        if X.dtype != learner.dtype or columns != self.n_features_in_ or not rows or y.shape[:1] != (rows,):
            return None
        # The sum of squares is finite only if X is; it takes 0.6 of the time of isfinite(X).all() for (200, 64).
        if hasattr(self, "feature_names_in_") or not X.flags.c_contiguous or not isfinite(np.vdot(X, X)):
            return None
        targets = None if learner.differs(self) else self._quick_targets(y)
        return None if targets is None else Rows(X, targets)

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any, classes: Any = None) -> Self:
        rows = self._quick(X, y) if sample_weight is None and classes is None else None
        if rows is None:
            before: Any = EstimatorSnapshot(self, hasattr(self, "_learner"))
        else:
            before = TrainingSnapshot(self._learner, len(X) > self._size(len(X)))
        try:
            self._train_once(self._checked(X, y, sample_weight, classes) if rows is None else rows)
        except BaseException:
            before.restore()
            raise
        return self

    def _checked(self, X: Any, y: Any, sample_weight: Any, classes: Any) -> Rows:
        """Return rows after all checks, for the existing network or a new one."""
        check_parameters(self)
        self._first_call(classes)
        fresh = not hasattr(self, "_learner")
        if not fresh:
            adopt(self._learner, self)
        rows = self._validated(X, y, sample_weight, fresh, partial=True)
        if fresh:
            self._start(rows)
        return rows

    def _first_call(self, classes: Any) -> None:
        """Store what the first call of `partial_fit` fixes for later calls."""

    def _train_once(self, rows: Rows) -> None:
        learner, loss = self._learner, np.nan
        if n := len(rows):  # counted once: a call of __len__ takes as long as ten instructions
            size = self._size(n)
            loss = learner.epoch(rows, n, size, self.shuffle, n <= BRIEF_STEPS * size)
        else:
            learner.state.skipped += 1
        if loss == loss:
            self._note(loss)
        else:  # no row counts: no step was taken
            learner.state.epoch -= bool(n)
            self.n_iter_, self.loss_ = learner.state.epoch, vars(self).get("loss_", np.nan)

    # Data

    def _validated(self, X: Any, y: Any, sample_weight: Any, fresh: bool, partial: bool = False) -> Rows:
        """Return checked rows in the dtype of the network, without rows of weight 0."""
        dtype: Any = (self.dtype or FLOATS) if fresh else self._learner.dtype
        names = {"accept_sparse": "csr", "multi_output": True, "order": "C", "dtype": dtype}
        names["allow_nd"] = self.module is not None
        X, y = validate_data(self, X, y, reset=fresh, y_numeric=is_regressor(self), **names)
        if not fresh:
            self._check_row(X)
        weight = None
        if sample_weight is not None:
            weight = _check_sample_weight(sample_weight, X, dtype=X.dtype, ensure_non_negative=True)
            X, y, weight = with_weight(X, y, weight)
        targets, weight = self._encoded(y, weight, fresh, X.dtype)
        rows = Rows(*with_weight(X, targets, weight))
        if not len(rows) and not partial:
            raise DataError(self._where, "a row with a positive weight", "none")
        return rows

    def _split(self, rows: Rows) -> tuple[Rows, Rows | None]:
        """Return training and validation rows."""
        if not self.early_stopping:
            return rows, None
        where, rng = f"{self._where}.fit, early_stopping", self._learner.rng
        train, test = split(len(rows), self._strata(rows.y), self.validation_fraction, rng, where)
        if len(test) < 2 and is_regressor(self) and self.scoring in (None, "r2"):
            raise too_few(len(rows), where)
        return rows.take(train), rows.take(test)

    def _scorer(self) -> Any:
        """Return a function that scores validation rows, or None if their loss is the score."""
        if self.scoring == "loss":
            return None
        scorer = check_scoring(self, self.scoring)
        accepts_weights = self.scoring is None or getattr(scorer, "_accept_sample_weight", bool)()
        # Scorers call predict. A view shares the network, but takes rows that have been validated already.
        view: Any = object.__new__(type(self))
        view.__dict__.update(vars(self))
        view.__dict__.pop("feature_names_in_", None)  # the rows are arrays here

        def score(rows: Rows) -> float:
            weighted = rows.weight is not None and accepts_weights
            options = {"sample_weight": rows.weight} if weighted else {}
            targets = self._decoded(rows.y)
            try:
                made = scorer(view, rows.X, targets, **options)
            except ValueError as error:
                explain(error, view, self._strata(rows.y))
                raise
            try:
                return float(made)
            except (TypeError, ValueError):
                raise ArgumentError(type(self).__name__, "scoring to return a number", repr(made)) from None

        return score

    def _outputs(self, X: Any) -> Array:
        """Return the outputs of the network for rows to predict."""
        check_is_fitted(self)
        dtype, nd = self._learner.dtype, self.module is not None
        X = validate_data(self, X, reset=False, accept_sparse="csr", dtype=dtype, allow_nd=nd)
        self._check_row(X)
        return outputs(self.module_, X, dtype)

    def _check_row(self, X: Any) -> None:
        """Raise unless rows have the shape of those of the first fit."""
        row = vars(self).get("_row_shape", X.shape[1:])  # estimators of older versions have none
        if X.shape[1:] != row:
            raise ShapeError(self._where, f"X of shape {('N', *row)}".replace("'", ""), X.shape)

    def _as_of_now(self) -> dict[str, Any]:
        """Return the attributes with which a copy predicts as if the fit had ended here."""
        return {
            "module_": copy.deepcopy(self.module_),
            "loss_curve_": list(self.loss_curve_),
            "history_": History(self.history_),
        }
