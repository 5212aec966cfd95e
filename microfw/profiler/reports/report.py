"""Reports of a session for a terminal."""

from __future__ import annotations

from typing import Never

from microfw.errors import ArgumentError, printable, refuse_former
from microfw.optim.checks import is_integer
from microfw.profiler.reports.first_look import first_look
from microfw.profiler.reports.full import full_report, step_table, title
from microfw.profiler.reports.tables import SORTS
from microfw.profiler.reports.text import NO_EPOCH, Text, coloured
from microfw.profiler.session import Session


def report(
    session: Session,
    *,
    full: bool = False,
    epoch: int | None = None,
    max_rows: int | None = None,
    by: str | None = None,
    sort: str | None = None,
    colour: bool = False,
    **former: Never,
) -> str:
    """Return a text report of a profile.

    The short report has 29 lines of 80 columns: the result, the backward cost of the epochs, the layers of a step of
    the median epoch, and N, P and steps.

    Parameters
    ----------
    session : Session
        The profile.
    full : bool
        If True, return all epochs, counts, layers, ops, phases, and the ratio of backward to forward, in 100 columns.
    epoch : int, optional
        Report the steps of this epoch only. Default: in the short report, those of the epoch with the median time
        forward and backward; else those of all epochs together.
    max_rows : int, optional
        Maximum number of rows in a table of layers, ops or epochs. The last row of layers or ops adds up the others.
        Default: in the short report, what fits; in a full report, 24 layers and ops, and all epochs.
    by : {"layer", "op"}, optional
        Only the table of layers, or that of ops, with all columns.
    sort : str, optional
        Sort by ``nodes``, ``forward``, ``backward``, ``flops`` or ``saved``, largest first; default order of first use.
    colour : bool
        If True, add the colour codes of a terminal.

    Returns
    -------
    str

    Raises
    ------
    ArgumentError
        If the epoch, table or column does not exist.

    Examples
    --------
    >>> from microfw.profiler import Epoch, Row
    >>> rows = [Row("0", "linear", nodes=2, rules=2, forward_ns=4_000, backward_ns=6_000)]
    >>> session = Session(epochs=[Epoch(1, steps=2, observed=2, forward_ns=5_000, backward_ns=8_000, rows=rows)])
    >>> print(report(session, by="op"))
    microfw profile: a model, 1 epoch, 2 steps
    <BLANKLINE>
    Ops, per step (1 epoch)
    op        nodes  P  forward  backward  share of  forward  backward  FLOP/P  reuse  saved
    ----------------------------------------------------------------------------------------
                             µs        µs  backward     FLOP      FLOP                 bytes
    linear        1         2.0       3.0     75.0%
    untagged                0.5       1.0     25.0%
    total         1         2.5       4.0    100.0%
    """
    refuse_former("report", former, most="max_rows")
    if by not in (None, "layer", "op"):
        raise ArgumentError("report", 'by to be "layer" or "op"', repr(by))
    if sort is not None and sort not in SORTS:
        raise ArgumentError("report", f"a column to sort by from {', '.join(SORTS)}", repr(sort))
    if max_rows is not None and not is_integer(max_rows, 1):
        raise ArgumentError("report", "a positive number of rows", repr(max_rows))
    if not session.epochs:
        return Text(f"microfw profile: {NO_EPOCH}")
    numbers = [e.epoch for e in session.epochs]
    if epoch is not None and epoch not in numbers:
        raise ArgumentError(f"report: expected an epoch from {numbers[0]} to {numbers[-1]}, got {epoch!r}")
    chosen = session.epochs[numbers.index(epoch)] if epoch is not None else None
    if chosen and chosen.steps and not chosen.observed and session.every > 1:
        expected = "an epoch with an observed step"
        raise ArgumentError("report", expected, f"epoch {epoch}", "report another epoch, or sample with a lower every")
    if by is not None:
        parts = ["\n".join([title(session), *session.total().notes]), step_table(session, chosen, by, max_rows, sort)]
    else:
        parts = (full_report if full else first_look)(session, chosen, max_rows, sort)
    parts = [printable(part) for part in parts]
    return Text("\n\n".join(map(coloured, parts) if colour else parts))
