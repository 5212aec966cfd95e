"""``microfw report``: print a saved profile, or write it in other formats."""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

from microfw.cli.console import use_colour
from microfw.cli.files import Files, write_files
from microfw.errors import ArgumentError
from microfw.profiler.files import PICTURES, content
from microfw.profiler.reports.formats import FORMATS, Format, format_of
from microfw.profiler.reports.report import report
from microfw.profiler.reports.tables import SORTS
from microfw.profiler.session import Session

OPTIONS = FORMATS | {"plot": Format("", "plot.plot", "a figure")}
"""Formats by option. A figure has the suffix of its kind of picture."""

GUIDE = """\
examples:
  microfw profile digits --json run.json              make a profile
  microfw report run.json                             print result, epochs, layers of one step, N and P
  microfw report run.json --full                      print all epochs, layers, ops, phases, backward against forward
  microfw report run.json --epoch 3                   print the layers of one epoch
  microfw report run.json --by layer --sort backward --top 5
  microfw report run.json --html run.html             write a self-contained page
  microfw report run.json --trace run.trace.json      write events for Perfetto, if made with --trace-steps
"""


def add(subcommands: Any) -> None:
    """Declare the arguments of ``microfw report``."""
    command = subcommands.add_parser(
        "report",
        help="print a saved profile",
        description="Print a saved profile, or write it in other formats.",
        epilog=GUIDE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("file", metavar="FILE", help="profile saved by microfw profile --json")
    command.add_argument("--full", action="store_true", help="print all epochs, layers, ops and phases")
    command.add_argument("--epoch", type=int, help="report the layers of this epoch only")
    command.add_argument("--by", choices=["layer", "op"], help="only the table of layers, or of ops")
    command.add_argument("--sort", metavar="COLUMN", help=f"sort by {', '.join(SORTS)}, largest first")
    command.add_argument("--top", type=int, metavar="K", help="maximum rows of a table")
    for name, made in OPTIONS.items():
        command.add_argument(f"--{name}", metavar="FILE", help=f"write {made.title} instead of printing")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print a saved profile, or write it in other formats."""
    session = Session.load(arguments.file)
    files: Files = {}
    for name, made in OPTIONS.items():
        path = getattr(arguments, name)
        if path is None:
            continue
        good = format_of(path) is made if made.suffix else path.lower().endswith(PICTURES)
        if not good:
            ends = made.suffix or ", ".join(PICTURES)
            raise ArgumentError(f"--{name}: expected a name that ends in {ends}, got {path!r}")
        files[path] = partial(content, session, path)
    options = {name: getattr(arguments, name) for name in ("full", "epoch", "by", "sort", "top")}
    if files:
        for name, value in options.items():
            if value is not None and value is not False:  # 0 is a value, too
                got = f"a file of the whole profile, {next(iter(files))}"
                raise ArgumentError(f"--{name}", "a report to print", got, f"leave out --{name}, or write no file")
        write_files(files)
        return 0
    print(report(session, colour=use_colour(), max_rows=options.pop("top"), **options))
    return 0
