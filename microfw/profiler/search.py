"""Profiles of many fits, as of a search: data, one file a fit, one report of all."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any, Never, Self

from microfw.errors import ArgumentError, message, printable, refuse_former
from microfw.optim.checks import is_integer
from microfw.profiler.files import build, parse, to_dict
from microfw.profiler.reports.text import decimal, plural, table, whole
from microfw.profiler.session import Epoch, Session
from microfw.serialization.output import Path, path_text


@dataclass
class FitProfile:
    """Cost of one fit of an estimator.

    Attributes
    ----------
    estimator : str
        Name of the estimator's class.
    tasks : list of str
        Names of the tasks that the fit was a part of, outermost first: a search, one of its evaluations, the fit.
    place : list of int
        Numbers of these tasks, each among the tasks of its parent. Reports sort fits by them.
    parameters : dict
        Settings of the estimator that are not the defaults, as text. `rows` leaves defaults out, too.
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
        """Return the profile that `to_bytes` wrote.

        Raises
        ------
        ValueError
            If ``data`` is no such profile.
        """
        fit = build(cls, json.loads(data))
        fit.session = parse(fit.session, "session")
        return fit

    def rows(self) -> list[dict[str, Any]]:
        """Return one dict an epoch, for a data frame: the fit, its settings, and the times of the epoch in seconds.

        If the profile is sampled, all times but ``total_s`` are sums over observed steps.
        """
        common = {"fit": ".".join(map(str, self.place)), "estimator": self.estimator, **self.parameters}
        return [
            common
            | {"epoch": e.epoch, "steps": e.steps, "observed": e.observed, "loss": e.loss}
            | {f"{phase}_s": getattr(e, f"{phase}_ns") / 1e9 for phase in ("forward", "backward", "update", "total")}
            for e in self.session.epochs
        ]


def load_fits(folder: Path) -> list[FitProfile]:
    """Return the profiles that fits wrote into a folder, sorted by start time: those of all searches and processes.

    A file that is no profile of a fit is skipped, with a warning that names it. Hidden files are skipped.

    Parameters
    ----------
    folder : str or path-like
        The folder of ``Profiler(folder=...)``.

    Returns
    -------
    list of FitProfile
        See `fits_report`.

    Raises
    ------
    OSError
        If the folder cannot be read.
    """
    return list(read_fits(path_text(folder, "load_fits", 'load_fits("profiles")')).values())


def read_fits(folder: str, part: str = "", known: Container[str] = ()) -> dict[str, FitProfile]:
    """Return the profiles of a folder by file name, sorted: names that contain ``part`` and are not ``known``."""
    fits = {}
    for name in sorted(os.listdir(folder)):
        if name.startswith(".") or part not in name or name in known:
            continue
        path = os.path.join(folder, name)
        try:
            if not os.path.isfile(path):  # opening a pipe would block
                raise OSError("no regular file")
            with open(path, "rb") as file:
                fits[name] = FitProfile.from_bytes(file.read())
        except (ValueError, OSError, RecursionError, MemoryError) as error:
            text = message(path, "the profile of a fit", str(error) or type(error).__name__, "the file is skipped")
            warnings.warn(text, stacklevel=3)
    return fits


def file_name(start_ns: int, profiler: str) -> str:
    """Return a unique file name for a profile; names sort by the start of the fit."""
    import platform

    return f"{start_ns}-{platform.node()}-{os.getpid()}-{profiler}-{os.urandom(8).hex()}.json"


def fits_report(fits: Sequence[FitProfile], *, max_rows: int = 40, epochs: int = 8, **former: Never) -> str:
    """Return the report of many fits: the cost of each, and the time of its backward pass for each epoch.

    Parameters
    ----------
    fits : sequence of FitProfile
        `Profiler.fits`, or the result of `load_fits`.
    max_rows : int
        Maximum number of fits to list: those with the longest backward passes.
    epochs : int
        Number of epochs to list: the first ones and the last.

    Returns
    -------
    str

    Raises
    ------
    ArgumentError
        If ``max_rows`` or ``epochs`` is not a positive integer.

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
    refuse_former("fits_report", former, most="max_rows")
    for setting, number in (("max_rows", max_rows), ("epochs", epochs)):
        if not is_integer(number, 1):
            raise ArgumentError("fits_report", f"{setting} to be a positive integer", repr(number))
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
    shown = sorted(sorted(range(len(fits)), key=lambda k: -time(totals[k], "backward"))[:max_rows])
    settings = differing([fits[k] for k in shown])
    rows, by_epoch = [], []
    longest = max(len(fits[k].session.epochs) for k in shown)
    columns = list(range(longest)) if longest <= epochs else [*range(epochs - 1), longest - 1]
    for k, setting in zip(shown, settings, strict=True):
        name, total = ".".join(map(str, fits[k].place)), totals[k]
        times = ["" if sampled and not e.observed else f"{time(e, 'backward'):,.2f}" for e in fits[k].session.epochs]
        share = [] if sampled else [f"{time(total, 'backward') / backward:.1%}" if backward else ""]
        rows.append(
            [name, whole(len(times)), whole(total.steps), decimal(total.loss)]
            + [f"{time(total, phase):,.2f}" for phase in ("forward", "backward")]
            + [*share, setting]
        )
        by_epoch.append([name] + [times[e] if e < len(times) else "" for e in columns])
    head = ["fit", "epochs", "steps", "loss", "forward", "backward", *([] if sampled else ["share"])]
    unit = "µs in an observed step" if sampled else "ms"
    cut = f", the {max_rows} dearest of {len(fits)}" if len(fits) > max_rows else ""
    parts = [title, f"Fits (times in {unit}){cut}\n{table([*head, 'settings that differ'], rows, text=True)}"]
    parts.append(f"Backward, epoch by epoch ({unit})\n{table(['fit', *(str(e + 1) for e in columns)], by_epoch)}")
    return printable("\n\n".join(parts))


def differing(fits: Sequence[FitProfile]) -> list[str]:
    """Return for each fit, as text, the settings in which the fits differ. Profiles do not have default values."""
    names = list(dict.fromkeys(name for fit in fits for name in fit.parameters))
    varied = [name for name in names if len({fit.parameters.get(name) for fit in fits}) > 1]
    return [", ".join(f"{name}={fit.parameters.get(name, 'default')}" for name in varied) for fit in fits]
