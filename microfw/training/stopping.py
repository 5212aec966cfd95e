"""Hooks that choose the parameters at the end of a run: early stopping and weight averaging."""

from __future__ import annotations

import math
from difflib import get_close_matches
from typing import Any

import numpy as np

from microfw.data.dataset import check_count, check_flags
from microfw.errors import ArgumentError, suggest_keywords
from microfw.nn import Module
from microfw.optim import Average
from microfw.optim.averaging import check_decay
from microfw.optim.checks import is_real
from microfw.serialization import attributes
from microfw.training.hooks import Hook, TrainState

LOWER_IS_BETTER = ("loss", "error", "deviance", "gradient_norm")
"""Suffixes of metrics that are better when lower; with the prefix ``neg_``, when higher."""

HIGHER_IS_BETTER = ("accuracy", "r2", "score")


def direction(metric: str, where: str) -> str:
    """Return "min" or "max" for a metric by its name, following scikit-learn's names.

    Examples
    --------
    >>> direction("val_loss", "example"), direction("val_f1_macro", "example"), direction("val_loss/score", "example")
    ('min', 'max', 'min')
    """
    name = metric.removeprefix("val_").partition("/")[0]  # without the name of a head, or of a part of the loss
    if name.startswith("neg_") or name.endswith(HIGHER_IS_BETTER):
        return "max"
    if name.endswith(LOWER_IS_BETTER):
        return "min"
    from sklearn.metrics import get_scorer_names

    if name in (scorers := get_scorer_names()):
        return "max"
    near = [known for known in scorers if known.startswith(name)] or get_close_matches(name, ("loss", *scorers), 1)
    fix = f"did you mean {metric.replace(name, near[0])}? Else pass" if near else "pass"
    raise ArgumentError(where, "a mode for a metric of this name", repr(metric), f"{fix} mode='min' or 'max'")


def check_metric(where: str, metric: Any, mode: Any) -> str:
    """Return "min" or "max" for an entry of the History, as given or by its name; raise if it is none."""
    if not isinstance(metric, str):
        raise ArgumentError(where, "metric to be an entry of the History", repr(metric))
    if mode not in (None, "min", "max"):
        raise ArgumentError(where, "mode 'min' or 'max'", repr(mode))
    return mode or direction(metric, where)


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
        if _ran(state, self._start) and self.restore and self.weights is not None:
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


def _ran(state: TrainState, start: tuple[int, int]) -> bool:
    """Return False if a run ended at its start, as when the file to resume from is invalid."""
    return state.save is not None or (state.epoch, state.steps) != start


class WeightAveraging(Hook):
    """Updates an `optim.Average` of the parameters, and uses it for validation and for the final model.

    From the validation to the start of the next epoch the model has the average. In ``on_epoch_end`` other hooks
    therefore see what was validated: `EarlyStopping` restores averages, and `mf.load` loads them from the file of a
    `Checkpoint`, which also has the trained parameters, for a resumed run. If a hook changes parameters in this time,
    the next epoch raises an error, since its start would undo the change.

    Parameters
    ----------
    decay : float
        Weight of the old average at a step, from 0 to below 1.
    keep : bool
        Whether the model has the average at the end. If False, it has the parameters of the last step. An
        `EarlyStopping` restores the best average after that.

    Attributes
    ----------
    average : Average
        The average; None before training.

    Raises
    ------
    ArgumentError
        At the start of the next epoch, or at the end of the fit, if another hook has changed the average in the model.

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

    ends_first = True  # so that EarlyStopping restores after it

    def __init__(self, decay: float = 0.999, keep: bool = True) -> None:
        check_decay("WeightAveraging", decay)
        check_flags("WeightAveraging", keep=keep)
        self.decay = decay
        self.keep = keep
        self.average: Average | None = None
        self._replaced: Any = None  # parameters that the average replaced when training ended
        self._start = (0, 0)

    def on_fit_start(self, state: TrainState) -> None:
        """Start an average at the present parameters, unless the run is resumed."""
        if self.average is None or self.average.optimizer is not state.optimizer or not state.epoch:
            self.average = Average(state.optimizer, self.decay)
        self._replaced = None
        self._start = state.epoch, state.steps

    def on_step_end(self, state: TrainState) -> None:
        """Update the average."""
        assert self.average is not None
        self.average.update()

    def on_validation_start(self, state: TrainState) -> None:
        """Use the average as parameters."""
        self._swap(True)

    def on_epoch_start(self, state: TrainState) -> None:
        """Restore the parameters."""
        self._swap(False)

    def on_fit_end(self, state: TrainState) -> None:
        """Write the average into the model, if ``keep``."""
        self._replaced = self.average and self.average.replaced
        self._swap(False)
        if _ran(state, self._start) and self.keep and self.average is not None:
            state.optimizer.flat.write(self.average.values)

    def state_dict(self) -> dict[str, Any]:
        """Return the average, and the parameters while it is in their place."""
        average = self.average
        replaced = self._replaced if average is None or average.replaced is None else average.replaced
        return {"average": average and average.state_dict(), "parameters": replaced}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` returned, during a run."""
        if state["average"] is None or self.average is None:
            return
        average = Average(self.average.optimizer, self.decay)
        average.load_state_dict(state["average"])
        parameters = state.get("parameters")  # files of older versions have none
        if parameters is not None:
            if np.shape(parameters) != average.values.shape:
                where = "WeightAveraging.load_state_dict"
                raise ArgumentError(where, f"parameters of shape {average.values.shape}", np.shape(parameters))
            average.optimizer.flat.write(parameters)
            average.swap()
        self.average = average

    def _swap(self, away: bool) -> None:
        average = self.average
        if average is None or away is not (average.replaced is None):
            return
        changed = not away and not np.array_equal(average.optimizer.flat.values, average.values, equal_nan=True)
        average.swap()
        if changed:
            expected = "the average to stay in the model from the validation to the next epoch"
            fix = "change parameters in on_step_end, or in on_epoch_start of a hook after WeightAveraging"
            raise ArgumentError("WeightAveraging", expected, "parameters that another hook has changed", fix)
