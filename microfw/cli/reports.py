"""What ``microfw report`` and ``microfw compare`` do."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from microfw.errors import ArgumentError, FileError, printable
from microfw.profiler.comparison import alternate, compare
from microfw.profiler.files import content
from microfw.profiler.reports.comparison import worst
from microfw.profiler.reports.text import COLUMNS, report
from microfw.profiler.session import Session
from microfw.serialization.output import encode, write_bytes

FORMATS = {"html": ".html", "trace": ".trace.json", "csv": ".csv", "markdown": ".md", "plot": ""}
"""What a profile can be written as, and the end that the file's name must have."""

COMPARE = """Compare two saved profiles and say which differences are real: B is judged against A."""

COMPARE_GUIDE = """\
what is compared:
  counts   (nodes, operations, bytes) of a step are exact: whatever differs is listed
  times    of the whole step first, then of its phases and layers; machines drift, so what all layers share is
           taken out, and how much they differ widens all intervals
  --rerun  makes both runs again, a round of one and a round of the other in turn, and needs no correction
A layer that only one run has is a difference. A time is real if its interval leaves zero out, for all comparisons
together, and if the change reaches --least. Exit codes: 0, or 1 with --fail-above if the step, a layer or a count
really grew by more, new layers included, or 2 for an error.

examples:
  microfw compare main.json branch.json
  microfw compare main.json branch.json --fail-above 10% --markdown comment.md     in CI
  microfw compare main.json branch.json --rerun                                    on one machine, in seconds
"""

REPORT_GUIDE = """\
examples:
  microfw profile digits --json run.json              make one
  microfw report run.json                             epochs, counts, layers, ops, backward against forward
  microfw report run.json --epoch 3                   the layers of one epoch
  microfw report run.json --by layer --sort backward --top 5
  microfw report run.json --html run.html             a page; needs nothing else
  microfw report run.json --trace run.trace.json      for Perfetto or speedscope, if made with --trace-steps
"""


def add_report(commands: Any) -> None:
    """Declare what ``microfw report`` takes."""
    text = {"epilog": REPORT_GUIDE, "formatter_class": argparse.RawDescriptionHelpFormatter}
    command = commands.add_parser(
        "report", help="read a saved profile", description="Print a saved profile, or write it in another form.", **text
    )
    command.add_argument("file", metavar="FILE", help="what profile --json has saved")
    command.add_argument("--epoch", type=int, help="describe the layers of this epoch only")
    command.add_argument("--by", choices=["layer", "op"], help="only the table of layers, or of ops")
    command.add_argument("--sort", metavar="COLUMN", help=f"largest first, by {', '.join(COLUMNS)}")
    command.add_argument("--top", type=int, metavar="K", help="so many rows of a table (24)")
    for name in FORMATS:
        what = {"trace": "the events for Perfetto or speedscope", "html": "a page", "plot": "a figure"}.get(name, name)
        command.add_argument(f"--{name}", metavar="FILE", help=f"write {what} instead of printing")


def add_compare(commands: Any) -> None:
    """Declare what ``microfw compare`` takes."""
    text = {"description": COMPARE, "epilog": COMPARE_GUIDE, "formatter_class": argparse.RawDescriptionHelpFormatter}
    command = commands.add_parser("compare", help="tell which of two runs costs more", **text)
    command.add_argument("a", metavar="A", help="a saved profile")
    command.add_argument("b", metavar="B", help="another one")
    smallest = {"type": percent, "dest": "min_change"}
    command.add_argument(
        "--min-change", metavar="5%", help="smallest change that is real (10%%; rerun 5%%)", **smallest
    )
    command.add_argument("--least", help=argparse.SUPPRESS, **smallest)  # former name
    command.add_argument("--fail-above", type=percent, metavar="10%", help="exit with 1 if something really grew more")
    command.add_argument("--rerun", action="store_true", help="make both runs again, alternately, and compare seconds")
    command.add_argument("--rounds", type=int, default=20, help="how often with --rerun (20)")
    command.add_argument("--markdown", metavar="FILE", help="write Markdown too")


def percent(text: str) -> float:
    """Read a percentage.

    Examples
    --------
    >>> percent("10%"), percent("2.5")
    (0.1, 0.025)
    """
    value = float(text.removesuffix("%")) / 100
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


def show(arguments: argparse.Namespace) -> int:
    """Print a saved profile, or write it in other formats."""
    session = Session.load(arguments.file)
    files: dict[str, Callable[[], bytes]] = {}
    for name, end in FORMATS.items():
        path = getattr(arguments, name)
        if path is None:
            continue
        if not path.endswith(end):
            raise ArgumentError(f"--{name}: expected a name that ends in {end}, got {path!r}")
        files[path] = partial(content, session, path)
    if files:
        deliver(files)
        return 0
    options = {"epoch": arguments.epoch, "by": arguments.by, "sort": arguments.sort}
    if arguments.top is not None:
        options["max_rows"] = arguments.top
    print(report(session, colour=colourful(), **options))
    return 0


def deliver(files: Mapping[str, Callable[[], bytes]], text: str = "") -> None:
    """Write files, then print a text and the files' names.

    Nothing is written unless the contents of all files could be made. A file that cannot be written keeps neither the
    others nor the text back.

    Raises
    ------
    FileError
        After that, for the first file that could not be written.
    """
    contents = {path: make() for path, make in files.items()}
    errors = []
    saved = []
    for path, made in contents.items():
        try:
            write_bytes(path, made)
            saved.append(path)
        except FileError as error:
            errors.append(error)
    if text:
        print(text)
    for path in saved:
        print(printable(f"saved to {path}"))
    if errors:
        raise errors[0]


def colourful() -> bool:
    """Return whether to print in colour: on a terminal, unless NO_COLOR or TERM says not to."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def judge(arguments: argparse.Namespace, train: Callable[[dict[str, str]], Session]) -> int:
    """Compare two profiles; ``train`` makes a run again from its settings. Returns the exit code."""
    a, b = (Session.load(path) for path in (arguments.a, arguments.b))
    if arguments.rerun:
        for path, session in ((arguments.a, a), (arguments.b, b)):
            if not session.settings:
                raise ArgumentError(
                    f"--rerun: expected {path} to be made by microfw profile, got a run of another script; "
                    "make runs alternately with mf.profiler.alternate"
                )
        first, second = a.settings, b.settings
        a, b = alternate(lambda: train(first), lambda: train(second), arguments.rounds)
    if a.name == b.name and not arguments.rerun:
        a.name, b.name = arguments.a, arguments.b
    found = compare(a, b, min_change=arguments.min_change)
    files = {arguments.markdown: lambda: encode(found.markdown())} if arguments.markdown else {}
    deliver(files, str(found))
    if arguments.fail_above is not None:
        worse = found.worse(arguments.fail_above)
        if worse:
            print(f"\nFAILED: above {arguments.fail_above:.0%}: {worst(worse)}")
            return 1
    return 0
