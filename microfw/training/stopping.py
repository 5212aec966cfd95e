"""Hooks that decide which parameters a run ends with: early stopping, and averages."""

from __future__ import annotations

import math
from typing import Any

from microfw.errors import ArgumentError, message
from microfw.optim import Average
from microfw.optim.averaging import check_decay
from microfw.optim.checks import is_integer, is_real
from microfw.training.hooks import Hook, TrainState

LOWER = ("loss", "error", "deviance", "gradient_norm")
"""How names end that are to fall; with ``neg_`` before them they are to rise."""

HIGHER = ("accuracy", "r2", "score")


def direction(metric: str, where: str) -> str:
    """Return "min" or "max" for a metric by its name, as scikit-learn names them.

    Examples
    --------
    >>> direction("val_loss", "example"), direction("val_f1_macro", "example")
    ('min', 'max')
    """
    name = metric.removeprefix("val_")
    if name.startswith("neg_") or name.endswith(HIGHER):
        return "max"
    if name.endswith(LOWER):
        return "min"
    from sklearn.metrics import get_scorer_names

    if name in get_scorer_names():
        return "max"
    raise ArgumentError(message(where, "a mode for a metric of this name", repr(metric), "pass mode='min' or 'max'"))


class EarlyStopping(Hook):
    """Ends training when a metric has not improved for some epochs, and brings the best parameters back.

    Parameters
    ----------
    metric : str
        An entry of the History, such as "val_loss" or "val_accuracy". Epochs whose row lacks the entry are not
        compared; the first epoch's row must have the entry.
    patience : int
        How many epochs without an improvement are borne before training ends at the next.
    min_delta : float
        By how much a value must be better than the best so far to be an improvement.
    mode : "min" or "max", optional
        What is better; by the metric's name if not given: errors and losses fall, scores rise.
    restore : bool
        Whether the model gets the parameters and buffers of its best epoch back at the end, however training
        ends. The optimizer's state is not taken back.

    Attributes
    ----------
    best, best_epoch : float, int
        The best value, and when it was.

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

    def __init__(
        self,
        metric: str = "val_loss",
        patience: int = 10,
        min_delta: float = 0.0,
        mode: str | None = None,
        restore: bool = True,
    ) -> None:
        if not is_integer(patience, 0):
            raise ArgumentError(message("EarlyStopping", "patience to be an integer of at least 0", repr(patience)))
        if not isinstance(metric, str):
            raise ArgumentError(message("EarlyStopping", "metric to be an entry of the History", repr(metric)))
        if not is_real(min_delta) or min_delta < 0:
            raise ArgumentError(message("EarlyStopping", "min_delta at least 0, finite", repr(min_delta)))
        if not isinstance(restore, bool):
            raise ArgumentError(message("EarlyStopping", "restore to be True or False", repr(restore)))
        if mode not in (None, "min", "max"):
            raise ArgumentError(message("EarlyStopping", "mode 'min' or 'max'", repr(mode)))
        self.metric = metric
        self.patience = patience
        self.min_delta = min_delta
        self.mode = mode or direction(metric, "EarlyStopping")
        self.restore = restore
        self._start = (0, 0)
        self._reset()

    exact = False
    """Whether the best epoch is that of the best value, even if it is better by less than ``min_delta``."""

    def _reset(self) -> None:
        self.best = math.nan
        self.best_epoch = self._improved = 0
        self.weights: dict[str, Any] | None = None

    def on_fit_start(self, state: TrainState) -> None:
        """Forget an earlier run, unless this one goes on with it."""
        if not state.epoch:
            self._reset()
        self._start = state.epoch, state.steps

    def on_epoch_end(self, state: TrainState) -> None:
        """Compare."""
        row = state.history[-1]
        value = row[self.metric] if self.metric in row else state.history.column(self.metric)[-1]
        if value is None:
            return
        gain = self._gain(value)
        if gain > self.min_delta:
            self._improved = state.epoch
        if gain > (0 if self.exact else self.min_delta):
            self.best, self.best_epoch = value, state.epoch
            if self.restore:
                self.weights = state.model.state_dict()
        if state.epoch - self._improved > self.patience:
            state.stop = True

    def _gain(self, value: float) -> float:
        """Return by how much a value is better than the best so far; any number is better than NaN."""
        if math.isnan(value):
            return -math.inf
        if math.isnan(self.best):
            return math.inf
        return self.best - value if self.mode == "min" else value - self.best

    def on_fit_end(self, state: TrainState) -> None:
        """Bring the best parameters back."""
        if _ran(state, self._start) and self.restore and self.weights is not None and self.best_epoch < state.epoch:
            state.model.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        """Return what it remembers."""
        return {"best": self.best, "best_epoch": self.best_epoch, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` returned."""
        self.best, self.best_epoch, self.weights = (state[name] for name in ("best", "best_epoch", "weights"))
        self._improved = self.best_epoch


def _ran(state: TrainState, start: tuple[int, int]) -> bool:
    """Return False if a run ended at its start, as where the file to resume from was refused."""
    return state.save is not None or (state.epoch, state.steps) != start


class WeightAveraging(Hook):
    """Keeps an `optim.Average` of the parameters, validates with it, and leaves it in the model at the end.

    Parameters
    ----------
    decay : float
        How much of the average is kept at a step, from 0 to below 1.
    keep : bool
        Whether the model has the average at the end. False leaves the last step's parameters, or those that an
        `EarlyStopping` before this hook in the list brings back: it sees the averages.

    Attributes
    ----------
    average : Average
        The average; None before training.

    Examples
    --------
    >>> import microfw as mf
    >>> train, test = mf.data.load("iris", rng=0)
    >>> model = mf.nn.Sequential(mf.nn.Dense(4, 3, rng=0))
    >>> optimizer = mf.optim.SGD(model.parameters(), lr=0.5)
    >>> trainer = mf.Trainer(model, mf.nn.CrossEntropyLoss(), optimizer, hooks=[WeightAveraging(0.9)])
    >>> history = trainer.fit(train, epochs=20, validation=test, rng=0, progress=False)
    >>> trainer.evaluate(test)["loss"] == history[-1]["val_loss"]
    True
    """

    def __init__(self, decay: float = 0.999, keep: bool = True) -> None:
        check_decay("WeightAveraging", decay)
        if not isinstance(keep, bool):
            raise ArgumentError(message("WeightAveraging", "keep to be True or False", repr(keep)))
        self.decay = decay
        self.keep = keep
        self.average: Average | None = None
        self._away = False
        self._start = (0, 0)

    def on_fit_start(self, state: TrainState) -> None:
        """Start from the parameters as they are, unless this run goes on with another."""
        if self.average is None or self.average.optimizer is not state.optimizer or not state.epoch:
            self.average = Average(state.optimizer, self.decay)
        self._start = state.epoch, state.steps

    def on_step_end(self, state: TrainState) -> None:
        """Take a step's parameters in."""
        assert self.average is not None
        self.average.update()

    def on_validation_start(self, state: TrainState) -> None:
        """Validate with the average."""
        self._swap(True)

    def on_epoch_end(self, state: TrainState) -> None:
        """Go on with the parameters."""
        self._swap(False)

    def on_fit_end(self, state: TrainState) -> None:
        """Leave the average in the model."""
        self._swap(False)
        if _ran(state, self._start) and self.keep and self.average is not None:
            state.optimizer.flat.write(self.average.values)

    def state_dict(self) -> dict[str, Any]:
        """Return the average."""
        return {"average": None if self.average is None else self.average.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what `state_dict` returned, while training."""
        if state["average"] is not None and self.average is not None:
            self.average.load_state_dict(state["average"])

    def _swap(self, away: bool) -> None:
        if self.average is not None and away is not self._away:
            self.average.swap()
            self._away = away
