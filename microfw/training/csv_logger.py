"""CSVLogger: the hook that writes the history to a file as training runs."""

from __future__ import annotations

import os
from typing import Any

from microfw.serialization.atomic_write import check_writable
from microfw.serialization.output import path_text, write_text
from microfw.training.hooks import Hook, TrainState


class CSVLogger(Hook):
    """Writes the History to a CSV file after each epoch: a column for each entry, a row for each epoch.

    The file is replaced atomically, so that a reader always finds whole rows. A resumed run writes the rows of the
    epochs before, too. Numbers have all their digits.

    Parameters
    ----------
    path : str or path-like
        The file to create or replace.

    Raises
    ------
    FileError
        In training, if the file cannot be written: before the first step if its folder is missing.

    Notes
    -----
    A CSVLogger is called after other hooks, at any position in the list, so that the file has the entries they add.

    Examples
    --------
    >>> import os, tempfile, numpy as np, microfw as mf
    >>> X = np.linspace(-1, 1, 64)[:, None]
    >>> model = mf.nn.Dense(1, 1, rng=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "history.csv")
    ...     trainer = mf.Trainer(
    ...         model, mf.nn.MSELoss(), mf.optim.SGD(model.parameters(), lr=0.1), hooks=[CSVLogger(path)]
    ...     )
    ...     history = trainer.fit((X, 2 * X), epochs=2, rng=0, progress=False)
    ...     with open(path) as file:
    ...         lines = file.read().splitlines()
    >>> lines[0]
    'epoch,loss,seconds,lr,gradient_norm'
    >>> [float(line.split(",")[1]) for line in lines[1:]] == history.column("loss")
    True
    """

    last = True

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = path_text(path, "CSVLogger", "CSVLogger(path)")

    def on_fit_start(self, state: TrainState) -> None:
        """Raise if the file could not be written."""
        check_writable(self.path)

    def on_epoch_end(self, state: TrainState) -> None:
        """Write all rows."""
        write_text(self.path, _text(state.history))


def _text(rows: list[dict[str, Any]]) -> str:
    import csv
    import io

    out = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))  # a hook may add an entry later
    table = csv.DictWriter(out, names, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return out.getvalue()
