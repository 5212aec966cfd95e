"""WeightAveraging: the hook that averages the parameters of all steps."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.errors import ArgumentError, check_flags
from microfw.optim import Average
from microfw.optim.averaging import check_decay
from microfw.training.hooks import Hook, TrainState, ran


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
        if ran(state, self._start) and self.keep and self.average is not None:
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
