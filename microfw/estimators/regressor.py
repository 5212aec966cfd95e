"""`NeuralRegressor`: a neural network that predicts numbers, as a scikit-learn estimator."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.utils.validation import column_or_1d

from microfw.data.dataset import Rows
from microfw.errors import DataError
from microfw.estimators import parts
from microfw.estimators.base import NeuralEstimator
from microfw.training.evaluation import Array


class NeuralRegressor(RegressorMixin, NeuralEstimator):  # type: ignore[misc,unused-ignore]
    """A neural network that predicts one or more numbers for each row of features.

    Parameters
    ----------
    hidden_layer_sizes, module, activation, norm, dropout
        As for `NeuralClassifier`; the last layer of a module has one output for each column of y.
    loss : str or Loss
        "squared_error", "absolute_error", "huber", "poisson" (the network outputs the logarithm of the prediction), or
        a loss of `microfw.nn` for numbers. With ``PoissonNLLLoss(log_input=False)`` the output is the prediction.
    alpha, optimizer, optimizer_params, learning_rate, max_grad_norm, batch_size, max_iter, shuffle
        As for `NeuralClassifier`.
    early_stopping, validation_fraction, n_iter_no_change, tol
        As for `NeuralClassifier`.
    scoring : str or callable, optional
        Score of early stopping: a scorer of scikit-learn or "loss"; default R².
    warm_start, dtype, profile, random_state, verbose, hooks, **options
        As for `NeuralClassifier`.

    Attributes
    ----------
    module_, history_, loss_curve_, validation_scores_, n_iter_, profile_
        As of `NeuralClassifier`, like the others.

    Notes
    -----
    Scale large targets, for example with `sklearn.compose.TransformedTargetRegressor`.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw.estimators import NeuralRegressor
    >>> X = np.linspace(-1, 1, 200)[:, None]
    >>> model = NeuralRegressor((32, 32), activation="tanh", learning_rate=0.05, random_state=0)
    >>> model.fit(X, np.hstack([X**2, X**3])).predict([[0.5]]).shape
    (1, 2)
    """

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        *,
        module: Any = None,
        activation: Any = "relu",
        norm: str | None = None,
        dropout: float = 0.0,
        loss: Any = "squared_error",
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
        tags.target_tags.multi_output = True
        return tags

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train one epoch on some rows, starting from the existing network.

        Parameters
        ----------
        X, y, sample_weight
            As for `fit`.

        Returns
        -------
        self
        """
        return self._partial_fit(X, y, sample_weight)

    def predict(self, X: Any) -> Array:
        """Return the prediction for each row, in the shape of y."""
        made = self._outputs(X)
        if getattr(self._learner.loss, "log_input", False):  # the loss takes the logarithm of the rate
            made = np.exp(made)
        return made.ravel() if self._flat else made

    # Targets

    def _make_loss(self) -> Any:
        return parts.loss(self.loss, self._where)

    def _count(self, rows: Rows) -> int:
        return int(rows.y.shape[1])

    def _encoded(self, y: Any, weight: Array | None, fresh: bool, dtype: Any) -> tuple[Array, Array | None]:
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        flat = y.ndim == 1
        targets = y.astype(dtype).reshape(-1, 1) if flat else y.astype(dtype)
        if fresh:
            self._flat = flat
        elif flat != self._flat or targets.shape[1] != self.n_outputs_:
            raise DataError(self._where, f"y of {self.n_outputs_} columns", f"shape {y.shape}")
        return targets, weight

    def _quick_targets(self, y: Array) -> Array | None:
        if y.dtype.kind not in "fiu" or not np.isfinite(np.vdot(y, y)):
            return None
        if y.ndim == 1 and self._flat:
            return y.astype(self._learner.dtype).reshape(-1, 1)
        has_shape = y.ndim == 2 and not self._flat and y.shape[1] == self.n_outputs_
        return y.astype(self._learner.dtype) if has_shape else None

    def _strata(self, targets: Array) -> Array | None:
        return None

    def _decoded(self, targets: Array) -> Array:
        return targets.ravel() if self._flat else targets
