"""What all plots share: axes, colours, titles and legends. Matplotlib is imported on first use."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import ceil
from typing import Any

import numpy as np

from microfw.errors import ArgumentError
from microfw.serialization.output import figure_bytes
from microfw.visualization.text import short

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#a54cff", "#99482d")
"""Colours with a contrast of 3 or more on white and on black, and apart for colour-blind readers."""

MARKERS = "os^vDX"

MAX_COLUMNS = 3
"""Most panels of a new figure next to each other."""

MAX_LABEL = 40
"""Most characters of a name in a plot."""

NOT_SHOWN = ("agg", "cairo", "pdf", "pgf", "ps", "svg", "template")
"""Backends of pyplot that only write files: nothing shows, or closes, the figures that pyplot keeps."""

UNSHOWN: ContextVar[bool] = ContextVar("UNSHOWN", default=False)
"""True while a figure is made for a file."""


def plot_axes(axes: Any, where: str, panels: int = 1, height: float = 4.2) -> Any:
    """Return the axes of a plot in a 1-D array: those given, or those of a new figure.

    A new figure belongs to pyplot if it can show the figure: in a window or, at the end of a cell, in a notebook.
    Otherwise pyplot does not know the figure, and none stays open.

    Parameters
    ----------
    axes : matplotlib Axes or array of them, or None
        Argument of the user.
    where : str
        Name of the method, for errors.
    panels : int
        Number of axes that the plot needs.
    height : float
        Height of a new figure in inches.

    Raises
    ------
    ArgumentError
        If Matplotlib is not installed, or ``axes`` are not as many Axes as the plot needs.
    """
    try:
        from matplotlib import axes as matplotlib_axes
    except ImportError:
        raise ArgumentError(where, "Matplotlib", "none installed", 'pip install "microfw[plot]"') from None
    if axes is None:
        rows, columns = ceil(panels / MAX_COLUMNS), min(panels, MAX_COLUMNS)
        figure = _figure((6.4 if panels == 1 else 5 * columns, height * rows))
        places = figure.subplots(rows, columns, squeeze=False).ravel()
        for place in places[panels:]:
            place.remove()
        return places[:panels]
    given = np.ravel(np.asarray(axes, object))
    if len(given) != panels or not all(isinstance(place, matplotlib_axes.Axes) for place in given):
        wanted = "axes of Matplotlib" if panels == 1 else f"an array of {panels} axes of Matplotlib"
        got = " and ".join(type(place).__name__ for place in given[:3]) or "an empty array"
        call = f"plt.subplots({'' if panels == 1 else f'1, {panels}'})[1]"
        raise ArgumentError(where, wanted, got if len(given) < 4 else f"{len(given)} axes", f"pass axes={call}")
    return given


def _figure(size: tuple[float, float]) -> Any:
    from matplotlib.figure import Figure

    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is None and "IPython" in sys.modules and "inline" in os.environ.get("MPLBACKEND", ""):
        # Jupyter names its backend there, which shows pyplot's figures at the end of a cell, and closes them.
        import matplotlib.pyplot as pyplot
    if pyplot is None or UNSHOWN.get() or pyplot.get_backend().lower() in NOT_SHOWN:
        return Figure(size, layout="constrained")
    return pyplot.figure(figsize=size, layout="constrained")


def name_label(name: object, width: int = MAX_LABEL) -> str:
    r"""Return a user's name as the label of a line: one short line, which Matplotlib's legends do not leave out.

    Examples
    --------
    >>> name_label("val_loss"), name_label("_a\n"), len(name_label("x" * 200))
    ('val_loss', ' _a�', 40)
    """
    text = short(str(name), width)
    return f" {text}" if text.startswith("_") else text


def next_color(axes: Any) -> str:
    """Return the first colour that no line of the axes has; if all are in use, they repeat."""
    used = [line.get_color() for line in axes.lines]
    return min(PALETTE, key=used.count)


def integer_ticks(axes: Any) -> None:
    """Put the ticks of the horizontal axis at whole numbers, such as epochs."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))


def rows_that_fit(axes: Any, most: int) -> int:
    """Return how many rows of text fit next to each other along the vertical axis, at most ``most``."""
    points = axes.bbox.height * 72 / axes.figure.dpi
    return max(3, min(most, int(points / (1.15 * _font_size("medium")))))


def label_rows(axes: Any, names: list[str]) -> Any:
    """Label rows from top to bottom with names, and return their positions."""
    positions = -np.arange(len(names))
    axes.set_yticks(positions, names, parse_math=False)
    axes.set_ylim(-len(names) + 0.4, 0.6)
    return positions


def finish(axes: Any, title: str, xlabel: str, ylabel: str = "") -> None:
    """Add the title, the labels and, above the data, the legend. Texts that the axes already have stay."""
    from matplotlib.ticker import FixedFormatter

    for text, get, put in ((xlabel, axes.get_xlabel, axes.set_xlabel), (ylabel, axes.get_ylabel, axes.set_ylabel)):
        if not get():
            put(text, parse_math=False)
    handles, labels = axes.get_legend_handles_labels()
    pad = 0.0
    if labels:
        size = _font_size("small")
        width = axes.bbox.width * 72 / axes.figure.dpi
        if isinstance(axes.yaxis.get_major_formatter(), FixedFormatter):  # names of rows make the axes narrower
            names = [line for tick in axes.get_yticklabels() for line in tick.get_text().split("\n")]
            width -= max(0, max(_widths(names, "medium")) - 4 * _font_size("medium"))
        columns = _columns(labels, width)
        legend = axes.legend(
            handles, labels, loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, frameon=False,
            fontsize="small", borderpad=0.2, borderaxespad=0.2, labelspacing=0.3, columnspacing=1.5,
        )  # fmt: skip
        for text in legend.get_texts():
            text.set_parse_math(False)
        pad = size * (1.5 * ceil(len(labels) / columns) + 0.4)
    font = {"fontproperties": axes.title.get_fontproperties(), "color": axes.title.get_color()}
    axes.set_title(axes.get_title() or title, pad=4 + pad, parse_math=False, **font)
    _make_room(axes)


def _columns(labels: list[str], width: float) -> int:
    """Return the number of columns of a legend, as many as fit into a width in points."""
    widths, size = _widths(labels, "small"), _font_size("small")
    for rows in range(1, len(labels)):
        columns = ceil(len(labels) / rows)
        # 2.8: a line and its gap to the text; 1.5: gap between columns; 0.4: borders
        if sum(map(max, np.array_split(widths, columns))) + size * (4.3 * columns - 1.5 + 0.4) <= width:
            return columns
    return 1


def _widths(texts: list[str], size: str) -> list[float]:
    """Return the widths of lines of text in points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    font = FontProperties(size=size)
    return [text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] for text in texts]


def _make_room(axes: Any) -> None:
    """Give the figure of the user's axes a layout with room for title and legend, unless the user placed its axes."""
    from matplotlib.gridspec import SubplotParams

    figure = axes.figure
    if figure.get_layout_engine() is not None or not hasattr(figure, "set_layout_engine"):  # the latter: a subfigure
        return
    specs = [place.get_subplotspec() for place in figure.axes]
    placed = any(
        spec is None or spec.get_topmost_subplotspec().get_gridspec().locally_modified_subplot_params()
        for spec in specs
    )
    if not placed and vars(figure.subplotpars) == vars(SubplotParams()):
        figure.set_layout_engine("tight")  # not constrained: figure.tight_layout() would warn


def _font_size(name: str) -> float:
    from matplotlib.font_manager import FontProperties

    return float(FontProperties(size=name).get_size_in_points())


@contextmanager
def unshown(active: bool = True) -> Iterator[None]:
    """Make figures in this block without pyplot: they are for files."""
    token = UNSHOWN.set(active)
    try:
        yield
    finally:
        UNSHOWN.reset(token)


def picture(plot: Callable[[], Any], path: str) -> bytes:
    """Return a plot as the bytes of a file; the suffix of ``path`` selects the format."""
    with unshown():
        return figure_bytes(np.ravel(plot())[0].figure, path)
