"""Histories as curves over the epochs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from microfw.errors import ArgumentError, suggest_keywords
from microfw.visualization.plots import finish, integer_ticks, name_label, next_color, plot_axes

if TYPE_CHECKING:
    from microfw.training.history import History

QUANTITIES = {
    "clipped": "share of clipped steps",
    "gradient_norm": "norm of the gradients",
    "lr": "learning rate",
    "seconds": "training time of an epoch, s",
    "skipped": "steps without an update",
}
"""Axis labels of entries whose names are not clear enough."""

VALIDATION = "validation "
"""Before a quantity of which only the entries of the validation data are drawn."""

FEW = 30
"""Curves of so few epochs have a marker at each."""


@suggest_keywords
def plot_histories(
    histories: Iterable[History] | Mapping[str, Iterable[History]], *names: str, axes: Any = None, label: str = ""
) -> Any:
    """Draw the mean of several histories, with the sample standard deviation as a band: runs that differ in their seed.

    ``history.plot(axes=axes)`` draws a single run, also next to the mean, whose line is thicker.

    Parameters
    ----------
    histories : iterable of History, or dict of them
        The runs, in a list. Of one run its own curve is drawn. Epochs that not all runs have are left out. Of a dict
        each value is drawn, and its key is the label.
    *names : str
        Entries to draw; by default ``loss``, and ``val_loss`` if there is one. Entries of one quantity, such as
        ``accuracy`` and ``val_accuracy``, share axes.
    axes : matplotlib Axes or array of them, optional
        One for each quantity; those of a new figure by default.
    label : str
        Name of the runs in the legend.

    Returns
    -------
    matplotlib Axes
        An array of them if there are several quantities.

    Raises
    ------
    ArgumentError
        If ``histories`` is a single history, there is nothing to draw, an epoch comes twice in a history, ``axes`` are
        too few or too many or of another quantity, or Matplotlib (extra ``plot``) is not installed.

    Examples
    --------
    >>> from microfw.training import History
    >>> runs = [History([{"epoch": 1, "loss": 0.9}, {"epoch": 2, "loss": last}]) for last in (0.3, 0.4, 0.5)]
    >>> axes = plot_histories(runs, label="SGD")
    >>> axes.get_legend().get_texts()[0].get_text()
    'SGD, mean of 3 ± std'
    >>> axes = plot_histories(runs[:1], axes=axes, label="one run")
    >>> [line.get_label() for line in axes.lines]
    ['SGD, mean of 3 ± std', 'one run']
    >>> axes = plot_histories({"SGD": runs, "Adam": runs[:1]})
    >>> [line.get_label() for line in axes.lines]
    ['SGD, mean of 3 ± std', 'Adam']
    """
    given: Any = histories
    if isinstance(given, Mapping) and given:
        for name, group in given.items():
            runs = [group] if hasattr(group, "column") else group
            axes = plot_histories(runs, *names, axes=axes, label=f"{label}, {name}" if label else str(name))
        return axes
    if not isinstance(given, Iterable) or hasattr(given, "column"):
        got, fix = type(given).__name__, "call plot_histories([first, second])"
        raise ArgumentError("plot_histories", "a list of histories", got, fix)
    runs = list(given)
    for run in runs:
        if not hasattr(run, "column"):
            raise ArgumentError("plot_histories", "a list of histories", f"one of {type(run).__name__}", "pass History")
    return draw(runs, names, axes, label, "plot_histories")


def draw(runs: Sequence[History], names: tuple[Any, ...], axes: Any, label: str, where: str) -> Any:
    """Draw histories for the method ``where``; see `plot_histories`."""
    if not runs or not all(runs):
        raise ArgumentError(where, "a history with an epoch", "none", "train first")
    for name in names:
        if not isinstance(name, str):
            fix = "pass them one by one, as in history.plot('loss', 'lr')"
            raise ArgumentError(where, "names of entries", type(name).__name__, fix)
    for run in runs:
        epoch, times = Counter(run._column("epoch", where)).most_common(1)[0]
        if times > 1:
            fix = "join histories with first + second, which numbers the epochs on"
            raise ArgumentError(where, "a history with each epoch once", f"{times} rows of epoch {epoch}", fix)
    have = {name for run in runs for row in run for name in row}
    names = names or tuple(name for name in ("loss", "val_loss") if name in have)
    if not names:
        raise ArgumentError(where, "names of entries", "no name, and histories without a loss", "pass names")
    curves = {name: _curve(runs, name, where) for name in names}
    quantities: dict[str, list[str]] = {}
    for name in curves:
        quantities.setdefault(_quantity(name), []).append(name)
    panels = plot_axes(axes, where, len(quantities))
    known = set(map(_quantity, have))
    for place, quantity in zip(panels, quantities, strict=True):
        held = place.get_ylabel()
        if place.lines and held.removeprefix(VALIDATION) in known - {quantity}:
            raise ArgumentError(where, f"axes for {quantity}", f"axes with {held}", "pass others, or axes.twinx()")
    for place, (quantity, group) in zip(panels, quantities.items(), strict=True):
        if all(name.startswith("val_") for name in group):
            quantity = VALIDATION + quantity
        elif place.get_ylabel() == VALIDATION + quantity:  # drawn before, alone
            place.set_ylabel("")
            if place.get_title() == _title(VALIDATION + quantity):
                place.set_title("")
        colors: dict[str, str] = {}
        for name in group:
            epochs, values, left_out = curves[name]
            text = name_label(name if label == "" else f"{label}: {name}" if len(group) > 1 else label)
            text += f", mean of {len(runs)} ± std" if len(runs) > 1 else ""
            text += f" ({left_out} epoch{'s are' if left_out > 1 else ' is'} not in all)" if left_out else ""
            color = colors.setdefault(name.removeprefix("val_"), next_color(place))
            mean, marker = values.mean(axis=0), "" if len(epochs) > FEW else "o" if len(epochs) == 1 else "."
            style: dict[str, Any] = {"ls": "--", "mfc": "none"} if name.startswith("val_") else {"ls": "-"}
            style |= {"lw": 2.5} if len(runs) > 1 else {}
            place.plot(epochs, mean, color=color, marker=marker, label=text, **style)
            if len(runs) > 1:
                with np.errstate(invalid="ignore"):  # of infinite values
                    spread = values.std(axis=0, ddof=1)
                if len(epochs) == 1:
                    place.errorbar(epochs, mean, spread, color=color, capsize=4)
                else:
                    hatch = "///" if name.startswith("val_") else None
                    place.fill_between(
                        epochs, mean - spread, mean + spread, color=color, alpha=0.2, linewidth=0, hatch=hatch
                    )
        integer_ticks(place)
        finish(place, _title(quantity), "epoch", quantity)
    return panels[0] if len(panels) == 1 else panels


def _title(quantity: str) -> str:
    return f"{quantity[:1].upper()}{quantity[1:]} by epoch"


def _quantity(name: str) -> str:
    """Return the axis label of an entry: what it measures, for training and validation, and for all heads."""
    head = name.removeprefix("val_").partition("/")[0] or name
    return name_label(QUANTITIES.get(head, head)).strip()


def _curve(runs: Sequence[History], name: str, where: str) -> tuple[list[Any], Any, int]:
    """Return the epochs at which all runs have an entry, its values (runs, epochs), and the number of other epochs."""
    tables = []
    for run in runs:
        rows = zip(run._column("epoch", where), run._column(name, where), strict=True)
        tables.append({epoch: value for epoch, value in rows if value is not None})
    epochs = [epoch for epoch in tables[0] if all(epoch in table for table in tables)]
    if not epochs:
        raise ArgumentError(where, f"an epoch at which all runs have {name!r}", "none", "draw the runs one by one")
    try:
        values = np.array([[float(table[epoch]) for epoch in epochs] for table in tables])
    except OverflowError:
        raise ArgumentError(where, f"numbers in {name!r}", "an integer beyond the range of floats") from None
    except (TypeError, ValueError):
        raise ArgumentError(where, f"numbers in {name!r}", repr(tables[0][epochs[0]])[:40]) from None
    return epochs, values, len(set().union(*tables)) - len(epochs)
