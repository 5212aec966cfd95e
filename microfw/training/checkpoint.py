"""Checkpoint: the hook that writes where training is."""

from __future__ import annotations

import os
import sys
from typing import Any

from microfw.errors import ArgumentError, message
from microfw.serialization.container import suffix_of
from microfw.training.hooks import Hook, TrainState


class Checkpoint(Hook):
    """Writes where training is, for ``fit(..., resume=path)`` to go on from, bit for bit.

    It writes after each epoch, after some steps if asked to, and when training ends, also by Ctrl-C. The file is
    replaced in one step: whatever happens, one that is complete is there.

    Parameters
    ----------
    path : str or path-like
        Ends with ``.safetensors`` or ``.npz``.
    every : int, optional
        Write after so many steps, too.

    Raises
    ------
    ArgumentError
        If ``every`` is not a positive integer.
    CheckpointError
        In training, if the file cannot be written; what was there before is then as it was.

    Notes
    -----
    It is told of each moment after all other hooks, wherever it stands in the list, so that the file holds what they
    made of it. After an error in training, such as a loss that is not finite, it leaves the file as it is.

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

    last = True

    def __init__(self, path: str | os.PathLike[str], every: int | None = None) -> None:
        suffix_of(path, "Checkpoint")
        if every is not None and (isinstance(every, bool) or not isinstance(every, int) or every < 1):
            raise ArgumentError(message("Checkpoint", "every to be a positive integer", repr(every)))
        self.path = path
        self.every = every
        self._saved: Any = None

    def on_fit_start(self, state: TrainState) -> None:
        """Start again: what an earlier fit wrote is not this one's."""
        self._saved = None

    def on_step_end(self, state: TrainState) -> None:
        """Write after every so many steps."""
        if self.every is not None and state.steps % self.every == 0:
            self._save(state)

    def on_epoch_end(self, state: TrainState) -> None:
        """Write after an epoch."""
        self._save(state)

    def on_fit_end(self, state: TrainState) -> None:
        """Write what was not written yet, unless an error ended training."""
        failed = isinstance(sys.exception(), Exception)  # which KeyboardInterrupt is not
        if state.steps and self._saved != (state.steps, len(state.history)) and not failed:
            self._save(state)

    def _save(self, state: TrainState) -> None:
        if state.save is not None:
            state.save(self.path)
            self._saved = (state.steps, len(state.history))
