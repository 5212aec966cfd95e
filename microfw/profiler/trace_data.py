"""The events of a traced profile."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Trace:
    """The events of the first steps, one by one, as they followed each other.

    Attributes
    ----------
    steps : int
        How many steps were traced to their end.
    complete : bool
        Whether all the steps that were asked for were; else the run was shorter, or the cap on events was reached.
    sites : list of (layer, op)
        What the events are of.
    events : list of (phase, site, began, ended)
        Which of `PHASES`; which of the sites, or -1 for the whole stretch; nanoseconds from the first event on.
    """

    steps: int = 0
    complete: bool = True
    sites: list[list[str]] = field(default_factory=list)
    events: list[list[int]] = field(default_factory=list)
