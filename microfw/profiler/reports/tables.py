"""Tables of a session that several reports show: the mean of one step by layer or op, the epochs, the phases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from microfw.profiler.reports.names import OUTSIDE_LABEL
from microfw.profiler.reports.text import decimal, microseconds, short, shorten
from microfw.profiler.row import COUNTS
from microfw.profiler.session import Epoch, Layer, Row, Session


@dataclass
class Line(Row):
    """Row of a table: counts and times of one step, the mean over the observed steps.

    Attributes
    ----------
    name : str
        Layer, op, "untagged" or "total".
    own : Layer
        Type and size of the layer; of other rows without a type.
    share : float
        Part of the backward time.
    """

    name: str = ""
    own: Layer = field(default_factory=lambda: Layer("", ""))
    share: float = 0.0

    @property
    def title(self) -> str:
        """Name and type."""
        return f"{self.name} {self.own.shown_kind}".rstrip()

    @property
    def P(self) -> int:
        """Trained parameters of the layer itself."""
        return self.own.trainable

    @property
    def reuse(self) -> float:
        """Uses of each trained weight of a layer in products; 0 without weights."""
        return self.products_weights / 2 / self.own.weights if self.own.weights else 0

    @property
    def flops(self) -> int:
        """Operations forward and backward."""
        return self.flops_forward + self.flops_backward

    @property
    def flops_each(self) -> float:
        """Operations for each trained parameter that the layer uses, shared ones included; 0 without parameters."""
        used = self.own.used or self.P
        return self.flops / used if used else 0


def step_lines(session: Session, e: Epoch, by: str = "layer") -> list[Line]:
    """Return the mean of one step: a row for each layer or op, then the untagged time and the total."""
    known = {layer.name: layer.steady() for layer in session.layers}

    def line(name: str, row: Row, own: Layer | None = None) -> Line:
        made = Line(row.layer, row.op, name=name, own=own or Layer("", ""))
        for count in COUNTS:
            setattr(made, count, getattr(row, count) / (e.observed or 1))
        made.share = row.backward_ns / (e.backward_ns or 1)
        return made

    if by == "op":
        lines = [line(row.op, row) for row in e.ops()]
    else:
        lines = [line(row.layer or OUTSIDE_LABEL, row, known.get(row.layer)) for row in e.layers()]
    untagged = Row("", forward_ns=e.untagged_forward_ns, backward_ns=e.untagged_backward_ns)
    total = e.sum()
    total.forward_ns, total.backward_ns = e.forward_ns, e.backward_ns
    everything = Layer("", "", trainable=e.parameters)
    return [*lines, line("untagged", untagged), line("total", total, everything)]


class Column(NamedTuple):
    """Column of a table: the two lines of its heading, the attribute of a line, and the text of a number."""

    head: str
    unit: str
    attribute: str
    text: Callable[[float], str] = short

    def cell(self, line: Line) -> str:
        """Return the text of a cell; "" for no nodes, parameters, operations or bytes."""
        value = getattr(line, self.attribute)
        return self.text(value) if value or self.unit in ("µs", "backward") else ""


COLUMNS = {
    "nodes": Column("nodes", "", "nodes"),
    "P": Column("P", "", "P", "{:,}".format),
    "forward": Column("forward", "µs", "forward_ns", microseconds),
    "backward": Column("backward", "µs", "backward_ns", microseconds),
    "share": Column("share of", "backward", "share", "{:.1%}".format),
    "flops_forward": Column("forward", "FLOP", "flops_forward"),
    "flops_backward": Column("backward", "FLOP", "flops_backward"),
    "flops_each": Column("FLOP/P", "", "flops_each"),
    "reuse": Column("reuse", "", "reuse"),
    "saved": Column("saved", "bytes", "saved_bytes"),
}

SORTS = {
    "nodes": "nodes",
    "forward": "forward_ns",
    "backward": "backward_ns",
    "flops": "flops",
    "saved": "saved_bytes",
}
"""Attributes of a line to sort by."""


def step_rows(
    session: Session, e: Epoch, names: Sequence[str], mark: Callable[[str], str], by: str = "layer"
) -> list[list[str]]:
    """Return the heading and the rows of a table of one step: name, type, and the named columns.

    ``mark``: escapes a name for the format of the table.
    """
    columns = [COLUMNS[name] for name in names]
    rows = [
        [mark(line.name), mark(line.own.kind), *(column.cell(line) for column in columns)]
        for line in step_lines(session, e, by)
    ]
    return [[by, "kind", *(f"{column.head} {column.unit}".strip() for column in columns)], *rows]


def validation_metric(epochs: Sequence[Epoch]) -> list[str]:
    """Return the name of the first metric of validation, the loss apart, or nothing; an interrupted epoch has none."""
    metrics = next((e.metrics for e in reversed(epochs) if e.metrics), {})
    return [name for name in metrics if name.startswith("val_") and name != "val_loss"][:1]


def epoch_table(session: Session, epochs: list[Epoch]) -> tuple[str, list[str], list[str], list[list[str]]]:
    """Return the title of a table of epochs, the two lines of its heading, and its rows."""
    sampled, replays = session.every > 1, any(e.replayed for e in session.epochs)
    metrics = validation_metric(session.epochs)
    unit, size = ("s", 1e9) if max(e.total_ns for e in epochs) >= 1e10 else ("ms", 1e6)
    times = ("forward", "backward", "update", "data")
    head = ["epoch", "observed" if sampled else "steps", *(["replayed"] if replays else []), "loss"]
    head += [*(shorten(name, 20) for name in metrics), *times, "total", "backward", "/forward", "3F - F1"]
    units = [""] * (len(head) - 8) + ["µs" if sampled else unit] * 4 + [unit, "in time", "in FLOP", "products"]
    rows = []
    for e in epochs:
        r = e.ratio()
        row = [str(e.epoch), f"{e.observed} of {e.steps}" if sampled else str(e.steps)]
        row += [*([str(e.replayed)] if replays else []), decimal(e.loss), *(decimal(e.metrics.get(m)) for m in metrics)]
        row += [phase_text(e, name, sampled, size) for name in times] + [f"{e.total_ns / size:,.2f}"]
        row += [f"{a / b:.2f}" if b else "" for a, b in ((e.backward_ns, e.forward_ns), (r.backward, r.forward))]
        rows.append([*row, "" if not r.products_forward else "equal" if r.exact and not r.others else "differ"])
    title = "Epochs; times are those of one observed step, but for the total" if sampled else "Epochs"
    return title, head, units, rows


def one_line(head: list[str], units: list[str]) -> list[str]:
    """Return the two lines of a heading, as `epoch_table` makes it, in one.

    Examples
    --------
    >>> one_line(["total", "backward", "/forward"], ["ms", "in time", "in FLOP"])
    ['total ms', 'backward / forward, time', 'backward / forward, FLOP']
    """
    ratios = {"backward in time": "backward / forward, time", "/forward in FLOP": "backward / forward, FLOP"}
    titles = [f"{name} {unit}".strip() for name, unit in zip(head, units, strict=True)]
    return [ratios.get(title, title) for title in titles]


def phase_text(e: Epoch, name: str, sampled: bool, size: float = 1e6) -> str:
    """Return the time of a phase: in an epoch, or if the profile is sampled, in one observed step, in microseconds."""
    ns = e.taken(name, sampled)
    return f"{ns / size:,.2f}" if not sampled else microseconds(ns) if e.observed else ""


def phase_table(e: Epoch, sampled: bool) -> list[list[str]]:
    """Return rows: name, milliseconds and share of each phase. The rows add up to the total."""
    times = {"data": e.data_ns, "forward": e.forward_ns, "backward": e.backward_ns, "update": e.update_ns}
    times |= {"evaluation": e.evaluation_ns, "comparing replays with eager steps": e.check_ns}
    times |= {"preparing replays": e.preparation_ns, "setting up the profiler": e.set_up_ns}
    times["other"] = e.other_ns - e.preparation_ns - e.set_up_ns
    times["steps not observed" if sampled else "not recorded"] = e.unobserved_ns
    times = {name: ns for name, ns in times.items() if ns} | {"total": e.total_ns}
    return [[name, f"{ns / 1e6:,.2f}", f"{ns / (e.total_ns or 1):.1%}"] for name, ns in times.items()]
