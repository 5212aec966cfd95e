"""Text formats of a profile's files. One entry makes a suffix of `Session.save` and an option of ``microfw report``."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

from microfw.profiler.session import Session


class Format(NamedTuple):
    """A format.

    Attributes
    ----------
    suffix : str
        End of the file's name.
    function : str
        ``"module.function"`` in `microfw.profiler.reports`: from a `Session` to text.
    title : str
        What the option of ``microfw report`` writes, for its help.
    """

    suffix: str
    function: str
    title: str

    def text(self, session: Session) -> str:
        """Return the content of the file."""
        module, function = self.function.split(".")  # imported here: a page takes 5 files that other formats do without
        made: str = getattr(import_module(f"microfw.profiler.reports.{module}"), function)(session)
        return made


FORMATS = {
    "html": Format(".html", "html.html", "a page"),
    "trace": Format(".trace.json", "trace.chrome_trace", "events for Perfetto or speedscope"),
    "csv": Format(".csv", "csv.csv", "csv"),
    "markdown": Format(".md", "markdown.markdown", "markdown"),
}
"""By the option of ``microfw report``."""


def format_of(path: str) -> Format | None:
    """Return the format with the longest suffix that a path ends with.

    Examples
    --------
    >>> format_of("run.trace.json").title, format_of("run.txt")
    ('events for Perfetto or speedscope', None)
    """
    name = path.lower()
    name += "l" if name.endswith(".htm") else ""
    return max(
        (made for made in FORMATS.values() if name.endswith(made.suffix)), key=lambda m: len(m.suffix), default=None
    )
