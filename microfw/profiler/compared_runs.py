"""Checks of the runs that are compared, and their comparable epochs."""

from __future__ import annotations

from typing import Any

from microfw.errors import ArgumentError
from microfw.profiler.session import Epoch, Session


def sessions(*given: Any) -> list[Session]:
    """Return the sessions of sessions or profilers."""
    found = [getattr(x, "session", x) for x in given]
    for x in found:
        if not isinstance(x, Session):
            fix = (
                "compare the sessions that mf.profiler.alternate(run_a, run_b) returns"
                if callable(x)
                else ("read a file with Session.load, or pass profiler.session")
            )
            raise ArgumentError("compare", "two sessions", type(x).__name__, fix)
    if found[0] is found[1]:
        fix = "train each run with its own profiler"
        raise ArgumentError("compare", "the sessions of two runs", "the same session twice", fix)
    return found


def used_epochs(a: Session, b: Session, rounds: list[tuple[Epoch, Epoch]] | None) -> list[list[Epoch]]:
    """Return the comparable epochs of each run: rounds of alternated runs, else epochs with an observed step."""
    if rounds is None:
        used = [[e for e in session.epochs if e.observed] for session in (a, b)]
    else:
        used = [[pair[k] for pair in rounds] for k in range(2)]
    for name, epochs in zip("ab", used, strict=True):
        if not epochs:
            wanted = f"an epoch of {name} with an observed step" if rounds is None else "a round observed in both runs"
            raise ArgumentError("compare", wanted, "none", "sample more often: lower every")
    return used


def number_of_rounds(mark: str, epochs: int) -> int:
    """Return the number of rounds of alternated runs; older files do not have it: then each epoch is one."""
    number = mark.partition("/")[2]
    return min(int(number), epochs) if number.isdecimal() and int(number) else epochs
