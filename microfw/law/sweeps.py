"""Growth of cost: the law on a family of models, and the exponent of each strategy's cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from microfw.data.nested import flatten
from microfw.errors import ArgumentError, printable, suggest_keywords
from microfw.law.data import Law
from microfw.law.run import law
from microfw.nn.activations import Tanh
from microfw.nn.dense import Dense
from microfw.nn.forward_state import as_generator
from microfw.nn.losses import CrossEntropyLoss, MSELoss
from microfw.nn.module import Module
from microfw.nn.sequential import Sequential
from microfw.optim.checks import as_list, is_integer
from microfw.serialization.output import figure_bytes, path_text, write_bytes

VALUES = {"depth": (4, 8, 16, 32, 64), "width": (4, 8, 16, 32, 64), "batch": (6, 12, 24, 48, 96)}
"""Values of each variable. Large, so that the first layer, whose data need no gradient, has little weight."""

HIDDEN = 8
"""Width of hidden layers if depth or batch size is varied."""

ROWS = [
    ("backprop", "scalars", "steps"),
    ("backprop", "tensors", "operations"),
    ("backprop", "tensors", "seconds"),
    ("backprop", "scalars", "seconds"),
    ("forward mode", "tensors", "operations"),
    ("forward mode", "tensors", "seconds"),
    ("central differences", "tensors", "operations"),
    ("central differences", "tensors", "seconds"),
    ("one-sided differences", "tensors", "operations"),
    ("one-sided differences", "tensors", "seconds"),
    ("chain rule per parameter", "scalars", "rules"),
    ("chain rule per parameter", "scalars", "seconds"),
]
"""Fitted quantities: strategy, graph, quantity."""


@dataclass
class PowerLaw:
    """Power law of a quantity in `Sweep.size`: the exponent with its 95 % interval.

    ``sampled``: some of the fitted numbers are extrapolated from a sample of the parameters. The interval then includes
    the spread of the sample.
    """

    strategy: str
    graph: str
    quantity: str
    exponent: float
    low: float
    high: float
    sampled: bool = False


@dataclass(repr=False)
class Sweep:
    """The law on a family of models. ``str()`` returns a table, `to_dict` is for JSON, `plot` draws a figure.

    Attributes
    ----------
    over : str
        Variable that differs between the models.
    values : list
        Values of the variable.
    laws : list of Law
        Result for each value.
    fits : list of PowerLaw
        Exponents.
    """

    over: str
    values: list[Any]
    laws: list[Law]
    fits: list[PowerLaw]

    def fit(self, strategy: str, quantity: str, graph: str = "") -> PowerLaw:
        """Return the power law of a strategy and a quantity: steps, operations, rules or seconds."""
        for f in self.fits:
            if f.strategy == strategy and f.quantity == quantity and graph in ("", f.graph):
                return f
        known = sorted({f"{f.strategy} {f.quantity}" for f in self.fits})
        raise ArgumentError("Sweep.fit", f"one of {known}", f"{strategy} {quantity}")

    @property
    def size(self) -> str:
        """What costs are compared with: "N + P", or "N" if P is the same for all values, as in a sweep over batches."""
        return _size(self.laws)

    def sizes(self) -> list[int]:
        """Return the `size` for each value, in scalars."""
        return _sizes(self.laws)

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers in dicts and lists, for JSON."""
        return asdict(self) | {"size": self.size, "laws": [found.to_dict() for found in self.laws]}

    @suggest_keywords
    def plot(self, file: Any = None, axes: Any = None) -> Any:
        """Draw the cost of each strategy over `size`, on logarithmic scales, with the lines N + P and N × P.

        N × P is an upper bound on the visits of the chain rule for each parameter, not on other costs: differences
        compute up to 2 × N × P nodes.

        Parameters
        ----------
        file : path, optional
            File to save the figure to.
        axes : matplotlib Axes, optional
            Axes to draw into; those of a new figure by default.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        ArgumentError
            If Matplotlib is not installed (``microfw[plot]``), or has no format with that suffix.
        FileError
            If the file cannot be written. An existing file is then unchanged.

        Examples
        --------
        >>> axes = sweep("width", [[1.0, 2.0]], [[3.0]], values=(1, 2, 3), budget=0.01).plot()
        >>> axes.get_xlabel(), [line.get_label() for line in axes.lines][-2:]
        ('N + P, in scalars', ['N + P', 'N × P, bound of the chain rule'])
        """
        from microfw.law.plots import plot_sweep
        from microfw.visualization.plots import unshown

        path = None if file is None else path_text(file, "Sweep.plot", "sweep.plot(path)")
        with unshown(path is not None):
            panel = plot_sweep(self, axes)
        if path is not None:
            write_bytes(path, figure_bytes(panel.figure, path))
        return panel

    def __repr__(self) -> str:
        return printable(f"Sweep(over {self.over[:40]}: {len(self.laws)} models, {len(self.fits)} exponents)")

    def _repr_html_(self) -> str:
        from microfw.law.sweep_report import notebook

        return notebook(self)

    def __str__(self) -> str:
        from microfw.law.sweep_report import sweep_report

        return sweep_report(self)


def sweep(
    over: str,
    X: Any,
    y: Any,
    *,
    values: Sequence[Any] | None = None,
    build: Callable[[Any], Module] | None = None,
    loss: Callable[[Any, Any], Any] | None = None,
    budget: float = 0.3,
    rng: int | np.random.Generator = 0,
    name: str = "",
) -> Sweep:
    """Run the law on a family of models, and fit the exponent of each strategy's cost.

    Parameters
    ----------
    over : {"depth", "width", "batch"} or str
        Variable: number of hidden layers, width of one hidden layer, or rows of data. With ``build``, any name.
        Without ``build`` the models are networks of Dense and Tanh, not yours.
    X, y : array_like
        Data; integers in ``y`` are classes. With ``build`` and ``loss`` also tuples and dicts, as for `law`.
    values : sequence, optional
        At least three values.
    build : callable, optional
        Returns the model for a value. For your own model on batches: ``sweep("batch", X, y, build=lambda rows:
        model)``.
    loss : callable, optional
        Cross-entropy for classes, squared error otherwise.
    budget : float
        Seconds for each strategy on each model; see `law`.
    rng : int or numpy.random.Generator
        Draws weights and samples.
    name : str
        Name of the data.

    Returns
    -------
    Sweep

    Raises
    ------
    ArgumentError
        If ``over`` is not known, or there are fewer than three values, or too few rows.

    Examples
    --------
    >>> model = Sequential(Dense(2, 3, rng=0), Tanh(), Dense(3, 2, rng=1))
    >>> X, y = np.ones((8, 2)), np.arange(8) % 2
    >>> found = sweep("batch", X, y, values=(2, 4, 8), build=lambda rows: model, budget=0.01)
    >>> found.size, round(found.fit("backprop", "steps").exponent, 2)
    ('N', 1.0)
    """
    if not isinstance(over, str):
        raise ArgumentError("sweep", "a variable's name", repr(over), f"one of {list(VALUES)}, or any name with build=")
    if build is not None and (isinstance(build, Module) or not callable(build)):
        raise ArgumentError(
            "sweep",
            "build, a function that returns the model for a value",
            type(build).__name__,
            "build=lambda value: model",
        )
    if over not in VALUES and (build is None or values is None):
        raise ArgumentError("sweep", f"one of {list(VALUES)}, or build and values", repr(over))
    chosen = as_list(VALUES[over] if values is None else values, "sweep", "values, a sequence", "pass at least three")
    chosen = [value.item() if isinstance(value, np.generic) else value for value in chosen]  # for JSON
    if len(chosen) < 3:
        raise ArgumentError("sweep", "at least three values to fit an exponent", chosen)
    n = len(flatten(X)[1][0])
    low, high = int(over != "depth"), n if over == "batch" else np.inf
    if over in VALUES and (build is None or over == "batch"):
        for value in chosen:
            if not (is_integer(value, low) and value <= high):
                limit = f" to {high}, the rows of X" if over == "batch" else ""
                fix = "pass values=" if values is None else ""
                raise ArgumentError("sweep", f"values that are integers from {low}{limit}", repr(value), fix)
    if not n:
        raise ArgumentError("sweep", "rows in X", "none")
    classify, shape = False, (0,)
    if build is None or loss is None:
        y = np.asarray(y)
        if n != (len(y) if y.ndim else 0):
            raise ArgumentError("sweep", f"y with {n} rows, as X", y.shape or type(y.item()).__name__)
        classify, shape = y.dtype.kind in "iu", y.shape
    if loss is None:
        loss = CrossEntropyLoss() if classify else MSELoss()
    rng = as_generator("sweep", rng)
    ends = 0, 0
    if build is None:
        ends = math.prod(np.shape(X)[1:]), int(y.max()) + 1 if classify else math.prod(shape[1:])
    laws = []
    for value in chosen:
        hidden = {"depth": [HIDDEN] * value, "width": [value]}.get(over, [HIDDEN]) if build is None else []
        model = build(value) if build else _dense([ends[0], *hidden, ends[1]], rng)
        if not isinstance(model, Module):
            raise ArgumentError("sweep", f"build({value!r}) to return a Module", type(model).__name__)
        rows = value if over == "batch" else 1
        found = law(model, loss, X, y, rows=rows, batch=rows, budget=budget, rng=rng, name=name)
        if len(found.ways) < 5:
            raise ArgumentError("sweep", f"models with a scalar graph, at {over} {value}", found.note)
        laws.append(found)
    return Sweep(over, chosen, laws, [_power_law(laws, *row) for row in ROWS])


def _dense(sizes: Sequence[int], rng: np.random.Generator) -> Sequential:
    layers: list[Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [Dense(inputs, outputs, rng=rng), Tanh()]
    return Sequential(*layers[:-1])


def _size(laws: Sequence[Law]) -> str:
    return "N + P" if len({found.P for found in laws}) > 1 else "N"


def _sizes(laws: Sequence[Law]) -> list[int]:
    # a constant P in the sum would bend the power law of costs that grow as N does
    P = _size(laws) == "N + P"
    return [found.N + found.P * P for found in laws]


def quantity_of(found: Law, strategy: str, graph: str, quantity: str) -> tuple[float, tuple[float, float] | None]:
    """Return a quantity of a strategy, and its interval if the quantity is extrapolated."""
    if quantity == "steps":
        return float(found.steps), None
    result = found.way(strategy, graph)
    return float(getattr(result, quantity)), result.intervals.get(quantity)


def _power_law(laws: Sequence[Law], strategy: str, graph: str, quantity: str) -> PowerLaw:
    numbers = [quantity_of(found, strategy, graph, quantity) for found in laws]
    x = _sizes(laws)
    exponent, error = fit_power_law(x, [v for v, _ in numbers])
    sizes = np.log(x)
    slopes = (sizes - sizes.mean()) / np.sum(
        np.square(sizes - sizes.mean())
    )  # derivative of the exponent by each number
    margins = [math.log(ends[1] / ends[0]) / 2 if ends else 0.0 for _, ends in numbers]
    error = math.hypot(error, float(np.linalg.norm(slopes * margins)))
    return PowerLaw(
        strategy, graph, quantity, exponent, exponent - error, exponent + error, any(ends for _, ends in numbers)
    )


def fit_power_law(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Fit ``y ~ x ** exponent``; return the exponent and half the width of its 95 % interval.

    Examples
    --------
    >>> exponent, error = fit_power_law([1, 2, 4, 8], [3, 12, 48, 192])
    >>> round(exponent, 12), error < 1e-12
    (2.0, True)
    """
    from scipy.special import stdtrit

    a, b = np.log(np.asarray(x, float)), np.log(np.asarray(y, float))
    spread = float(np.sum(np.square(a - a.mean())))
    if not spread > 0:
        raise ArgumentError("fit_power_law", "sizes that differ", list(x))
    exponent = float((a - a.mean()) @ (b - b.mean())) / spread
    rest = b - b.mean() - exponent * (a - a.mean())
    freedom = len(a) - 2
    error = math.sqrt(float(rest @ rest) / freedom / spread) * float(stdtrit(freedom, 0.975))
    return exponent, error
