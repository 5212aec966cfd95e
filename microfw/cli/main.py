"""Entry point of the command line: parser of all subcommands, and error handling."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from microfw import __version__
from microfw.cli import compare, law, report, train
from microfw.cli.console import Parser, complain, streams
from microfw.errors import MicrofwError

GUIDE = """\
examples:
  microfw profile digits                     train, and record what each epoch's backward pass costs
  microfw profile digits --hidden 256,256    with two wider layers
  microfw profile wine --json wine.json      save the profile
  microfw report wine.json --epoch 3         print a saved profile, with the layers of one epoch
  microfw report wine.json --html wine.html  write a saved profile as a page
  microfw compare wine.json new.json         list the layers that really changed
  microfw train diabetes --epochs 50         train without a profile
  microfw law digits                         compute one gradient by five strategies, and count the cost of each
  microfw law mine.py:make --html            the same for your model, as a page: make() returns model, loss, X, y
  microfw profile wine --html w.html --law   write a page with profile and law
  microfw law --sweep depth                  measure how these costs grow with the model

words in the report:
  N       op nodes of one training step; in scalars, one node for each operation on numbers
  P       parameters: arrays with a gradient; in scalars, the numbers in them
  N + P   about the steps of one backward pass: it visits each node and each parameter once
  N x P   the most it could take to revisit the nodes for every parameter
"""


def parser() -> Parser:
    """Return the parser of the command line."""
    main = Parser(
        prog="microfw",
        description="Train small models, and measure what their backward pass costs.",
        epilog=GUIDE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    main.add_argument("--version", action="version", version=f"microfw {__version__}")
    subcommands = main.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for command in (train, report, compare, law):
        command.add(subcommands)
    return main


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    with streams() as (out, _):
        command = "microfw"
        try:
            arguments = parser().parse_args(argv)
            command += f" {arguments.command}"
            code = _run(arguments)
        except SystemExit as end:  # after --help, or for a wrong argument
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        out.flush()
        if out.error is not None and not isinstance(out.error, BrokenPipeError):  # a closed pipe is no error
            complain(f"{command}: expected standard output to be written, got {out.error}")
            code = 2
        return code


def _run(arguments: argparse.Namespace) -> int:
    where = f"microfw {arguments.command}"
    try:
        code: int = arguments.run(arguments)
        return code
    except (MicrofwError, OSError, ImportError) as error:
        complain(f"{where}: {str(error).removeprefix(f'{arguments.command}: ')}")
        return 2
    except MemoryError:
        complain(f"{where}: expected enough memory, got too little; take a smaller model or fewer rows")
        return 2
    except KeyboardInterrupt:
        complain(f"{where}: interrupted")
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
