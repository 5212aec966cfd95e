"""History: one row of plain numbers for each epoch."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Self, SupportsIndex, overload

import numpy as np

from microfw.errors import ArgumentError, message, printable, suggest_keywords
from microfw.visualization.html_table import html_table

MAX_ROWS, MAX_TEXT, MAX_CELL = 20, 2000, 80
"""Most rows and characters of a printed history, and characters of an entry."""

LOWER_IS_BETTER = ("loss", "error", "deviance", "gradient_norm")
"""Suffixes of metrics that are better when lower; with the prefix ``neg_``, when higher."""

HIGHER_IS_BETTER = ("accuracy", "r2", "score")


class History(list[dict[str, Any]]):
    """A list of rows, one dict of plain numbers for each epoch.

    ``json.dumps(history)`` and ``pandas.DataFrame(history)`` work. The rows of a second fit begin with epoch 1 again;
    ``first + second`` has copies of them, with the epochs numbered on. Hooks may add entries to a row. The entries are:

    - ``epoch``: number of the epoch, from 1.
    - ``loss``: mean loss of all rows, by the loss's `Loss.denominator`.
    - the metrics, by name. Loss and metrics are of the outputs in training, while the parameters change.
    - ``val_loss`` and ``val_`` before each metric, if there is validation data.
    - ``seconds``: time of the epoch's training steps, without validation.
    - ``lr``: learning rate of the last step.
    - ``gradient_norm``: root mean square, over the steps, of the norm of all gradients, after clipping.
    - ``skipped``: number of steps without an update, since no row counted in the loss; only if there were any.

    Examples
    --------
    >>> history = History([{"epoch": 1, "loss": 0.7}, {"epoch": 2, "loss": 0.4}])
    >>> history.column("loss")
    [0.7, 0.4]
    >>> history[-1]["loss"]
    0.4
    >>> history
    epoch    loss
        1  0.7000
        2  0.4000
    >>> (history + [{"epoch": 1, "loss": 0.3}]).column("epoch")
    [1, 2, 3]
    """

    earlier: int = 0
    """Epochs of earlier fits of the same Trainer. The rows of a fit begin with epoch 1 all the same."""

    @overload
    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> History: ...

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, str):
            fix = f"history.column({index!r}) is an entry of all rows, history[-1][{index!r}] of the last one"
            raise TypeError(message("History", "the number of a row, or a slice", repr(index), fix))
        found = super().__getitem__(index)
        return History(found) if isinstance(index, slice) else found

    def __add__(self, other: Any) -> History:  # type: ignore[override]
        if not isinstance(other, list):
            return NotImplemented
        made = self.copy()
        made += other
        return made

    def __iadd__(self, other: Iterable[dict[str, Any]]) -> Self:  # type: ignore[misc,override]
        last, rows = self[-1].get("epoch", 0) if self else 0, list(other)
        if rows and rows[0].get("epoch", last + 1) <= last:  # of another fit, which counts from 1 again
            rows = [{**row, "epoch": row["epoch"] + last} if "epoch" in row else row for row in rows]
        self.extend(rows)
        return self

    def copy(self) -> History:
        """Return a History of the same rows."""
        made = History(self)
        made.earlier = self.earlier
        return made

    def column(self, name: str) -> list[Any]:
        """Return one entry of every row; None for rows that lack it, if a hook does not add it to all.

        Raises
        ------
        ArgumentError
            If no row has such an entry.
        """
        return self._column(name, "History.column")

    def best(self, name: str = "val_loss", mode: str | None = None) -> dict[str, Any]:
        """Return the row with the best value of an entry; the first of several.

        Parameters
        ----------
        name : str
            An entry, such as "val_accuracy". Rows that lack it, or in which it is NaN, are left out.
        mode : "min" or "max", optional
            Whether lower or higher is better. By default the name decides: lower for errors and losses, higher for
            scores.

        Raises
        ------
        ArgumentError
            If no row has such an entry, or the name does not decide.

        Examples
        --------
        >>> History([{"epoch": 1, "loss": 0.7}, {"epoch": 2, "loss": 0.4}, {"epoch": 3, "loss": 0.5}]).best("loss")
        {'epoch': 2, 'loss': 0.4}
        """
        values = self._column(name, "History.best")
        choose = min if check_metric("History.best", name, mode) == "min" else max
        rows = [k for k, value in enumerate(values) if value is not None and value == value]
        if not rows:
            raise ArgumentError("History.best", f"a row with a number as {name}", "none")
        return self[choose(rows, key=values.__getitem__)]

    def _column(self, name: str, where: str) -> list[Any]:
        """Return one entry of every row, for the method ``where``."""
        if self and not any(name in row for row in self):
            names = list(map(str, self._names()))
            fix = _meant(str(name), names)
            if where in ("EarlyStopping", "Checkpoint"):
                fix = fix or f"pass metrics=[{str(name).removeprefix('val_')!r}] to the Trainer, and validation data"
            raise ArgumentError(where, f"one of {', '.join(names)}", repr(name), fix)
        return [row.get(name) for row in self]

    def _names(self) -> list[str]:
        """Return the names of all entries, in order of first occurrence."""
        return list(dict.fromkeys(name for row in self for name in row))

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row for each epoch, indexed by its number.

        Raises
        ------
        ArgumentError
            If pandas is not installed.

        Examples
        --------
        >>> History([{"epoch": 1, "loss": 0.7}, {"epoch": 2, "loss": 0.4}]).to_frame()
               loss
        epoch
        1       0.7
        2       0.4
        """
        try:
            import pandas as pd
        except ImportError:
            raise ArgumentError("History.to_frame", "pandas", "none installed", "pip install pandas") from None
        frame = pd.DataFrame(list(self))
        return frame.set_index("epoch") if "epoch" in frame else frame

    @suggest_keywords
    def plot(self, *names: str, axes: Any = None, label: str = "") -> Any:
        """Draw entries over the epochs with Matplotlib (extra ``plot``).

        To compare runs, draw them into the same ``axes``; for the mean and the spread of several, see `plot_histories`.

        ``loss`` is the mean over the steps of an epoch, while the parameters change; ``val_loss`` is computed after
        them. So ``val_loss`` can be below ``loss``.

        Parameters
        ----------
        *names : str
            Entries to draw; by default ``loss``, and ``val_loss`` if there is one. Entries of one quantity, such as
            ``accuracy`` and ``val_accuracy``, share axes.
        axes : matplotlib Axes or array of them, optional
            One for each quantity; those of a new figure by default.
        label : str
            Name of the run in the legend.

        Returns
        -------
        matplotlib Axes
            An array of them if there are several quantities. ``axes.figure.savefig(path)`` writes the figure.

        Raises
        ------
        ArgumentError
            If there is nothing to draw, an epoch comes twice, ``axes`` do not fit, or Matplotlib is not installed.

        Examples
        --------
        >>> history = History([{"epoch": 1, "loss": 0.7, "lr": 0.1}, {"epoch": 2, "loss": 0.4, "lr": 0.1}])
        >>> axes = history.plot()
        >>> axes.get_xlabel(), axes.get_ylabel()
        ('epoch', 'loss')
        >>> [panel.get_ylabel() for panel in history.plot("loss", "lr")]
        ['loss', 'learning rate']
        """
        from microfw.training.plotting import draw

        return draw([self], names, axes, label, "History.plot")

    def __repr__(self) -> str:
        if not self:
            return "History(no epochs)"
        names, rows = self._cells()
        if len(rows) > MAX_ROWS:
            rows[MAX_ROWS // 2 : -MAX_ROWS // 2] = [["…"] * len(names)]
        table = [names, *rows]
        widths = [max(len(cell) for cell in cells) for cells in zip(*table, strict=True)]
        lines = ("  ".join(f"{cell:>{w}}" for cell, w in zip(row, widths, strict=True)) for row in table)
        text = "\n".join([*(line.rstrip() for line in lines), *([self._note] if self.earlier else [])])
        return text if len(text) <= MAX_TEXT else f"History({len(self)} epochs: {', '.join(names)})"[:MAX_TEXT]

    def _repr_html_(self) -> str:
        names, rows = self._cells()
        return html_table(names, rows, self._note if self.earlier else "")

    @property
    def _note(self) -> str:
        return f"after {self.earlier} epoch{'s' * (self.earlier > 1)} of earlier fits of this Trainer"

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        """Return the names of the entries, and each row as texts."""
        names = self._names()
        rows = [[_short(row[name]) if name in row else "" for name in names] for row in self]
        return [printable(" ".join(str(name).split())) for name in names], rows


def _meant(name: str, names: list[str]) -> str:
    """Return how to fix a wrong name of an entry; "" if that is not known."""
    if name.startswith("val_") and not any(known.startswith("val_") for known in names):
        return "pass validation data to fit"
    near = [known for known in names if name and known.startswith(name)] or get_close_matches(name, names, 1)
    return f"did you mean {near[0]}?" if near else ""


def _short(value: Any) -> str:
    """Return a number with four digits; of a small one, four that are not 0. Another value is one line of text."""
    if not isinstance(value, float | np.floating):
        text = printable(" ".join(str(value).split()))
        return text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 1]}…"
    number = float(value)
    return f"{number:.4f}" if not 0 < abs(number) < 0.1 else f"{number:.4g}"


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
