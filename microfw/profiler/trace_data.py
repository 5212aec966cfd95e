"""Events of a traced profile."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Trace:
    """Events of the first steps, in order of time.

    Attributes
    ----------
    steps : int
        Number of completely traced steps.
    complete : bool
        Whether all requested steps were traced. If False, the run was shorter or the limit on events was reached.
    sites : list of (layer, op)
        Layers and ops of the events.
    events : list of (phase, site, start_ns, end_ns)
        Index into `PHASES`; index into ``sites``, or -1 for the whole phase; nanoseconds since the first event.
    """

    steps: int = 0
    complete: bool = True
    sites: list[list[str]] = field(default_factory=list)
    events: list[list[int]] = field(default_factory=list)
