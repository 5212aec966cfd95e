"""``microfw compare``: find the real differences between two profiles."""

from __future__ import annotations

import argparse
from typing import Any

from microfw.cli.files import check_path, write_files
from microfw.cli.models import one_thread
from microfw.cli.train import repeat
from microfw.errors import ArgumentError
from microfw.profiler.alternation import alternate
from microfw.profiler.comparison import compare
from microfw.profiler.reports.comparison import worst
from microfw.profiler.session import Session
from microfw.serialization.output import encode

DESCRIPTION = "Compare two saved profiles and print the real differences: changes are of B relative to A."

GUIDE = """\
what is compared:
  counts   (nodes, operations, bytes) of a step are exact: every difference is listed
  times    of the whole step, its phases and its layers; machines drift, so all times are corrected by the change that
           layers with equal counts share, and the spread of these layers widens all intervals
  --rerun  repeats both runs, in alternating rounds; needs no correction
A layer that only one run has is a difference. A time difference is real if its interval excludes zero, for all
comparisons together, and if it is at least --min-change. Exit codes: 0; 1 with --fail-above, if the step, a layer or
a count really grew by more, new layers included; 2 for an error.

examples:
  microfw compare main.json branch.json
  microfw compare main.json branch.json --fail-above 10% --markdown comment.md     in CI
  microfw compare main.json branch.json --rerun                                    on one machine, in seconds
"""


def add(subcommands: Any) -> None:
    """Declare the arguments of ``microfw compare``."""
    command = subcommands.add_parser(
        "compare",
        help="find what really differs between two profiles",
        description=DESCRIPTION,
        epilog=GUIDE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("a", metavar="A", help="saved profile")
    command.add_argument("b", metavar="B", help="another saved profile")
    smallest: dict[str, Any] = {"type": percent, "dest": "min_change"}
    command.add_argument("--min-change", metavar="5%", help="smallest real change (10%%; with --rerun 5%%)", **smallest)
    command.add_argument("--least", help=argparse.SUPPRESS, **smallest)  # former name of --min-change
    command.add_argument("--fail-above", type=percent, metavar="10%", help="exit with 1 if a real change is larger")
    command.add_argument("--rerun", action="store_true", help="repeat both runs alternately, and compare seconds")
    command.add_argument("--rounds", type=int, help="rounds with --rerun (30)")
    command.add_argument("--markdown", metavar="FILE", help="write Markdown too")
    command.set_defaults(run=run)


def percent(text: str) -> float:
    """Parse a percentage.

    Examples
    --------
    >>> percent("10%"), percent("2.5")
    (0.1, 0.025)
    """
    value = float(text.removesuffix("%")) / 100
    if not 0 <= value < float("inf"):
        raise ValueError(text)
    return value


def run(arguments: argparse.Namespace) -> int:
    """Compare two profiles; return the exit code."""
    check_path(arguments.markdown, "md", "markdown")
    if arguments.rounds is not None and not arguments.rerun:
        raise ArgumentError("--rounds", "--rerun, which repeats the runs", "none")
    a, b = (Session.load(path) for path in (arguments.a, arguments.b))
    if arguments.rerun:
        for path, session in ((arguments.a, a), (arguments.b, b)):
            if not session.settings:
                raise ArgumentError(
                    f"--rerun: expected {path} to be made by microfw profile, got a run of another script; "
                    "make runs alternately with mf.profiler.alternate"
                )
        first, second = a.settings, b.settings
        rounds = 30 if arguments.rounds is None else arguments.rounds
        with one_thread():
            a, b = alternate(lambda: repeat(first), lambda: repeat(second), rounds)
    if a.name == b.name and not arguments.rerun:
        a.name, b.name = arguments.a, arguments.b
    found = compare(a, b, min_change=arguments.min_change)
    files = {arguments.markdown: lambda: encode(found.markdown())} if arguments.markdown else {}
    write_files(files, str(found))
    if arguments.fail_above is not None:
        worse = found.worse(arguments.fail_above)
        if worse:
            print(f"\nFAILED: above {100 * arguments.fail_above:.6g}%: {worst(found, worse)}")
            return 1
    return 0
