"""Profiles of many fits, as a search makes them: plain data, JSON, and one report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from microfw.errors import printable
from microfw.profiler.files import from_dict, to_dict
from microfw.profiler.reports.text import table, whole
from microfw.profiler.session import Epoch, Session


@dataclass
class FitProfile:
    """What one fit of an estimator cost.

    Attributes
    ----------
    estimator : str
        Its class.
    tasks : list of str
        What the fit was a part of, from the outside in, such as a search and one of its evaluations.
    place : list of int
        The numbers of these tasks, by which fits are sorted.
    parameters : dict
        The estimator's settings that are not the defaults, as text.
    session : Session
        Epochs, layers and times.
    """

    estimator: str = ""
    tasks: list[str] = field(default_factory=list)
    place: list[int] = field(default_factory=list)
    parameters: dict[str, str] = field(default_factory=dict)
    session: Session = field(default_factory=Session)

    def to_bytes(self) -> bytes:
        """Return the profile as JSON."""
        return json.dumps(vars(self) | {"session": to_dict(self.session)}, allow_nan=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read what `to_bytes` wrote."""
        made = json.loads(data)
        made["session"] = from_dict(made["session"])
        return cls(**made)

    def rows(self) -> list[dict[str, Any]]:
        """Return a dict for each epoch, for a data frame: the fit, its settings, and in seconds the times of the epoch.

        Of a sampled profile all but ``total_s`` are the times of its observed steps.
        """
        common = {"fit": ".".join(map(str, self.place)), "estimator": self.estimator, **self.parameters}
        return [
            common
            | {"epoch": e.epoch, "steps": e.steps, "observed": e.observed, "loss": e.loss}
            | {f"{phase}_s": getattr(e, f"{phase}_ns") / 1e9 for phase in ("forward", "backward", "update", "total")}
            for e in self.session.epochs
        ]


def fits_report(fits: Sequence[FitProfile], *, most: int = 40, epochs: int = 8) -> str:
    """Describe many fits: what each cost, and its backward pass epoch by epoch.

    Parameters
    ----------
    fits : sequence of FitProfile
        What a `Profiler` has collected.
    most : int
        How many fits to list; the dearest are listed if there are more.
    epochs : int
        Of how many epochs to show the backward time: the first ones, and the last.

    Returns
    -------
    str

    Examples
    --------
    >>> from microfw.profiler import Epoch
    >>> session = Session(epochs=[Epoch(1, steps=4, forward_ns=3_000_000, backward_ns=2_000_000)])
    >>> print(fits_report([FitProfile("NeuralClassifier", place=[0, 3], session=session)]))
    microfw profile: 1 fit of NeuralClassifier, 1 epoch, forward 3.00 ms, backward 2.00 ms
    <BLANKLINE>
    Fits (times in ms)
    fit  epochs  steps  loss  forward  backward   share  settings that differ
    -------------------------------------------------------------------------
    0.3       1      4           3.00      2.00  100.0%
    <BLANKLINE>
    Backward, epoch by epoch (ms)
    fit     1
    ---------
    0.3  2.00
    """
    fits = sorted(fits, key=lambda fit: fit.place)
    totals = [fit.session.total() for fit in fits]
    sampled = any(fit.session.every > 1 for fit in fits)

    def time(e: Epoch, phase: str) -> float:
        return e.taken(phase, sampled) / (1e3 if sampled else 1e6)

    forward, backward = (sum(time(total, phase) for total in totals) for phase in ("forward", "backward"))
    names = ", ".join(dict.fromkeys(fit.estimator for fit in fits))
    title = f"microfw profile: {plural(len(fits), 'fit')}" + (f" of {names}, " if names else ", ")
    title += plural(sum(len(fit.session.epochs) for fit in fits), "epoch")
    title += ", sampled" if sampled else f", forward {forward:,.2f} ms, backward {backward:,.2f} ms"
    if not fits:
        return title
    shown = sorted(sorted(range(len(fits)), key=lambda k: -time(totals[k], "backward"))[:most])
    settings = differing([fits[k] for k in shown])
    rows, by_epoch = [], []
    longest = max(len(fits[k].session.epochs) for k in shown)
    columns = list(range(longest)) if longest <= epochs else [*range(epochs - 1), longest - 1]
    for k, setting in zip(shown, settings, strict=True):
        name, total = ".".join(map(str, fits[k].place)), totals[k]
        times = ["" if sampled and not e.observed else f"{time(e, 'backward'):,.2f}" for e in fits[k].session.epochs]
        share = [] if sampled else [f"{time(total, 'backward') / backward:.1%}" if backward else ""]
        rows.append(
            [name, whole(len(times)), whole(total.steps), "" if total.loss is None else f"{total.loss:.4f}"]
            + [f"{time(total, phase):,.2f}" for phase in ("forward", "backward")]
            + [*share, setting]
        )
        by_epoch.append([name] + [times[e] if e < len(times) else "" for e in columns])
    head = ["fit", "epochs", "steps", "loss", "forward", "backward", *([] if sampled else ["share"])]
    unit = "µs in an observed step" if sampled else "ms"
    cut = f", the {most} dearest of {len(fits)}" if len(fits) > most else ""
    parts = [title, f"Fits (times in {unit}){cut}\n{table([*head, 'settings that differ'], rows, text=True)}"]
    parts.append(f"Backward, epoch by epoch ({unit})\n{table(['fit', *(str(e + 1) for e in columns)], by_epoch)}")
    return printable("\n\n".join(parts))


def differing(fits: Sequence[FitProfile]) -> list[str]:
    """Return for each fit the settings that not all of them share, as text."""
    names = list(dict.fromkeys(name for fit in fits for name in fit.parameters))
    varied = [name for name in names if len({fit.parameters.get(name) for fit in fits}) > 1]
    return [", ".join(f"{name}={fit.parameters[name]}" for name in varied if name in fit.parameters) for fit in fits]


def plural(count: int, noun: str) -> str:
    """Return a count and its noun.

    Examples
    --------
    >>> plural(2, "fit")
    '2 fits'
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
