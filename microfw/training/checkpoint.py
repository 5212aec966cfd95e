"""Checkpoint: the hook that saves the state of a training run."""

from __future__ import annotations

import math
import os
import sys
from typing import Any

from microfw.errors import ArgumentError, CheckpointError, check_count, suggest_keywords
from microfw.serialization.atomic_write import check_writable
from microfw.serialization.container import suffix_of
from microfw.training.history import History, check_metric
from microfw.training.hooks import Hook, TrainState


class Checkpoint(Hook):
    """Saves a training run, so that ``fit(..., resume=path)`` continues it bit for bit.

    The file is written after each epoch, after every ``every`` steps if given, and when training ends, also by Ctrl-C.
    It is replaced atomically, so there is a complete file at every moment.

    Parameters
    ----------
    path : str or path-like
        Ends with ``.safetensors`` or ``.npz``.
    every : int, optional
        Also write after each multiple of this number of steps.
    best : str, optional
        An entry of the History, such as "val_loss". The file is then written only after an epoch in which the entry
        is better than in all epochs before, also those of a resumed run and of earlier fits of the Trainer:
        `mf.load(path)` returns the best model.
    mode : "min" or "max", optional
        Whether lower or higher is better. By default the name of the entry decides, as for `EarlyStopping`.

    Raises
    ------
    ArgumentError
        If ``every`` is not a positive integer, or is given with ``best``; in training, if no row has the entry, or if
        it is the fit of an estimator.
    CheckpointError
        In training, if the file cannot be written: before the first step if its folder is missing. An earlier file is
        then not changed.

    Notes
    -----
    A Checkpoint is called after all other hooks, at any position in the list, so that the file contains their changes.
    After an error in training, such as a loss that is not finite, the file is not changed. If `mf.load` cannot
    read the model from the file, such as one of a class whose settings are not attributes, there is a warning.

    Examples
    --------
    >>> import os, tempfile, numpy as np, microfw as mf
    >>> X = np.linspace(-1, 1, 64)[:, None]
    >>> def trainer(*hooks):
    ...     model = mf.nn.Sequential(mf.nn.Dense(1, 8, rng=0), mf.nn.Tanh(), mf.nn.Dense(8, 1, rng=1))
    ...     optimizer = mf.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    ...     return mf.Trainer(model, mf.nn.MSELoss(), optimizer, hooks=hooks)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "training.npz")
    ...     half = trainer(Checkpoint(path)).fit((X, X**2), epochs=5, rng=0, progress=False)
    ...     whole = trainer().fit((X, X**2), epochs=10, progress=False, resume=path)
    >>> straight = trainer().fit((X, X**2), epochs=10, rng=0, progress=False)
    >>> whole.column("loss") == straight.column("loss")
    True
    """

    last = True  # so that the file contains what other hooks change

    @suggest_keywords
    def __init__(
        self,
        path: str | os.PathLike[str],
        every: int | None = None,
        *,
        best: str | None = None,
        mode: str | None = None,
    ) -> None:
        if not isinstance(path, str | os.PathLike):
            raise ArgumentError("Checkpoint", "a path", type(path).__name__)
        suffix_of(path, "Checkpoint")
        if every is not None:
            check_count("Checkpoint", "every", every)
        if best is not None:
            if every is not None:
                raise ArgumentError("Checkpoint", "every or best", "both", "pass two Checkpoints of different paths")
            mode = check_metric("Checkpoint", best, mode)
        elif mode is not None:
            raise ArgumentError("Checkpoint", "best, since mode is given", "none")
        self.path = path
        self.every = every
        self.best = best
        self.mode = mode
        self._saved: Any = None
        self._best = math.nan

    def on_fit_start(self, state: TrainState) -> None:
        """Raise if the file could not be written. Forget what an earlier fit has written.

        The best value is kept if this fit trains the same model further.
        """
        check_writable(os.fspath(self.path), CheckpointError)
        self._saved = None
        if not state.history.earlier:  # of a resumed run the history has all values
            self._best = math.nan

    def on_epoch_start(self, state: TrainState) -> None:
        """Raise in a run that cannot be saved, as that of an estimator."""
        if state.save is None:
            fix = "after the fit call mf.save(path, estimator.module_)"
            raise ArgumentError("Checkpoint", "a fit of a Trainer", "that of an estimator, which saves no runs", fix)

    def on_step_end(self, state: TrainState) -> None:
        """Save after each multiple of ``every`` steps."""
        if self.every is not None and state.steps % self.every == 0:
            self._save(state)

    def on_epoch_end(self, state: TrainState) -> None:
        """Save after an epoch; with ``best``, if its entry is better than all before."""
        if self.best is None:
            self._save(state)
        elif self._improved(state.history, self.best):
            self._save(state)
            self._best = state.history[-1][self.best]

    def _improved(self, history: History, name: str) -> bool:
        # from the history, which a resumed run has from its file: no state to save
        sign = 1 if self.mode == "min" else -1
        entries = [self._best, *history._column(name, "Checkpoint")]
        *before, last = [math.nan if value is None else sign * value for value in entries]
        return not math.isnan(last) and all(math.isnan(value) or last < value for value in before)

    def on_fit_end(self, state: TrainState) -> None:
        """Save if there were steps since the last file, unless an error ended training, or only the best is kept."""
        if self.best is not None:
            return
        failed = isinstance(sys.exception(), Exception)  # KeyboardInterrupt is no Exception
        if state.steps and self._saved != (state.steps, len(state.history)) and not failed:
            self._save(state)

    def _save(self, state: TrainState) -> None:
        if state.save is not None:
            state.save(self.path)
            self._saved = (state.steps, len(state.history))
