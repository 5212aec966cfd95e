"""EarlyStopping: the hook that ends training, and restores the best parameters."""

from __future__ import annotations

import math
from typing import Any

from microfw.errors import ArgumentError, check_count, check_flags, suggest_keywords
from microfw.nn import Module
from microfw.optim.checks import is_real
from microfw.serialization import attributes
from microfw.training.history import check_metric
from microfw.training.hooks import Hook, TrainState, ran


class EarlyStopping(Hook):
    """Ends training when a metric has not improved for some epochs, and restores the best parameters.

    Parameters
    ----------
    metric : str
        An entry of the History, such as "val_loss" or "val_accuracy". Epochs whose row lacks the entry are not
        compared; the first epoch's row must have the entry.
    patience : int
        Epochs without an improvement after which training ends at the next such epoch.
    min_delta : float
        Difference from the best value above which a value is an improvement.
    mode : "min" or "max", optional
        Whether lower or higher is better. By default the metric's name decides: lower for errors and losses, higher
        for scores.
    restore : bool
        Whether to restore parameters, buffers, settings and other attributes of the best epoch when training ends, also
        by an error: the model's, and those of the loss. Objects that are changed in place are not restored.
        The optimizer's state is not restored.

    Attributes
    ----------
    best : float
        The best value.
    best_epoch : int
        Its epoch.

    Examples
    --------
    >>> import microfw as mf
    >>> train, test = mf.data.load("breast_cancer", rng=0)
    >>> model = mf.nn.Sequential(mf.nn.Dense(30, 32, rng=0), mf.nn.ReLU(), mf.nn.Dense(32, 2, rng=1))
    >>> stopping = EarlyStopping("val_loss", patience=3)
    >>> trainer = mf.Trainer(
    ...     model, mf.nn.CrossEntropyLoss(), mf.optim.Adam(model.parameters(), lr=0.01), hooks=[stopping]
    ... )
    >>> history = trainer.fit(train, epochs=200, validation=test, rng=0, progress=False)
    >>> len(history) == stopping.best_epoch + 4 < 100
    True
    >>> trainer.evaluate(test)["loss"] == stopping.best == min(history.column("val_loss"))
    True
    """

    @suggest_keywords
    def __init__(
        self,
        metric: str = "val_loss",
        patience: int = 10,
        min_delta: float = 0.0,
        mode: str | None = None,
        restore: bool = True,
    ) -> None:
        check_count("EarlyStopping", "patience", patience, 0)
        if not is_real(min_delta) or min_delta < 0:
            raise ArgumentError("EarlyStopping", "min_delta at least 0, finite", repr(min_delta))
        check_flags("EarlyStopping", restore=restore)
        self.mode = check_metric("EarlyStopping", metric, mode)
        self.metric = metric
        self.patience = patience
        self.min_delta = min_delta
        self.restore = restore
        self._start = (0, 0)
        self._parts: tuple[Any, ...] = ()
        self._reset()

    exact = False
    """Whether a value better by less than ``min_delta`` also sets the best epoch."""

    def _reset(self) -> None:
        self.best = math.nan
        self.best_epoch = self._improved = 0
        self.weights: dict[str, Any] | None = None
        self.loss_weights: dict[str, Any] | None = None
        self._attributes: list[list[attributes.Change]] = []

    def on_fit_start(self, state: TrainState) -> None:
        """Forget an earlier run, unless it is resumed."""
        if not state.epoch:
            self._reset()
        self._start = state.epoch, state.steps
        self._parts = state.model, state.loss_function

    def on_epoch_end(self, state: TrainState) -> None:
        """Compare the metric, and stop after too many epochs without an improvement."""
        row = state.history[-1]
        value = row[self.metric] if self.metric in row else state.history._column(self.metric, "EarlyStopping")[-1]
        if value is None:
            return
        gain = self._gain(value)
        # Two epochs: small gains count as best, but do not extend the patience (``exact``).
        if gain > self.min_delta:
            self._improved = state.epoch
        if gain > (0 if self.exact else self.min_delta):
            self.best, self.best_epoch = value, state.epoch
            if self.restore:
                self.weights, loss = state.model.state_dict(), state.loss_function
                self.loss_weights = loss.state_dict() if isinstance(loss, Module) else None
                self._attributes = [attributes.snapshot(part) for part in (state.model, loss)]
        if state.epoch - self._improved > self.patience:
            state.stop = True

    def _gain(self, value: float) -> float:
        """Return how much better a value is than the best so far. Any number is better than NaN."""
        if math.isnan(value):
            return -math.inf
        if math.isnan(self.best):
            return math.inf
        return self.best - value if self.mode == "min" else value - self.best

    def on_fit_end(self, state: TrainState) -> None:
        """Restore the best parameters."""
        if ran(state, self._start) and self.restore and self.weights is not None:
            for kept in self._attributes:
                attributes.apply(kept)
            state.model.load_state_dict(self.weights)
            if self.loss_weights:
                state.loss_function.load_state_dict(self.loss_weights)

    def state_dict(self) -> dict[str, Any]:
        """Return the best value, its epoch and its parameters."""
        own: dict[str, Any] = {"loss_weights": self.loss_weights} if self.loss_weights else {}
        if changed := [attributes.by_path(*pair) for pair in zip(self._parts, self._attributes, strict=False)]:
            own |= {"attributes": changed} if any(changed) else {}
        return {"best": self.best, "best_epoch": self.best_epoch, "weights": self.weights, **own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned."""
        self.best, self.best_epoch, self.weights = (state[name] for name in ("best", "best_epoch", "weights"))
        self.loss_weights = state.get("loss_weights")
        if self.weights is not None:  # the attributes of the model that the file has are restored before those of hooks
            found = zip(self._parts, state.get("attributes", [{}, {}]), strict=False)
            self._attributes = [attributes.snapshot(part, values) for part, values in found]
        self._improved = self.best_epoch
