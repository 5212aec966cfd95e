"""``microfw law``: compute one gradient by five strategies."""

from __future__ import annotations

import argparse
import contextlib
import json
from typing import Any

from microfw import data
from microfw.cli.files import Files, check_path, write_files
from microfw.cli.models import build, code_of, generators, load_model, loss_of, one_thread
from microfw.errors import ArgumentError
from microfw.law import law, sweep
from microfw.law.sweeps import VALUES
from microfw.profiler.files import PICTURES
from microfw.serialization.atomic_write import check_writable
from microfw.serialization.output import encode
from microfw.visualization.plots import picture

DESCRIPTION = """Compute the gradient of a small model's loss by backprop, forward mode, differences, the chain rule
for each parameter, and a recursion over paths; print the cost of each, with definitions."""

GUIDE = """\
examples:
  microfw law digits                     64 pixels, 32 hidden units, 10 digits: every strategy runs for all parameters
  microfw law iris --rows 8              more rows: N grows, P does not
  microfw law digits --hidden 64,64      larger: slow strategies run for a sample of the parameters
  microfw law digits --html              write the page law.html: the graph to walk through, counts, strategies
  microfw law mine.py:make --html        the same for a model of yours: make() returns model, loss, X, y
  microfw law --sweep depth              deeper and deeper models, and the exponent of each strategy's cost

strategies (a node is an operation on arrays in the tensor graph, one addition or product in the scalar graph):
  backprop          each node's rule once: N rule calls, and a gradient added into each of the P parameters
  forward mode      one pass for each parameter: at most N x P
  differences       the loss computed P + 1 times, or 2P times
  chain rule        for each parameter, over the nodes between it and the loss: at most N x P
  paths             a recursion without an order of nodes: one visit for each path, which may be far more than N x P
"""

HIDDEN = "32"
"""Default hidden layers."""


def add(subcommands: Any) -> None:
    """Declare the arguments of ``microfw law``."""
    command = subcommands.add_parser(
        "law",
        help="one gradient by five strategies",
        description=DESCRIPTION,
        epilog=GUIDE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument(
        "name", metavar="NAME", nargs="?", help="toy dataset (digits; iris for depth and batch), or file.py:function"
    )
    command.add_argument("--hidden", metavar="64,32", help="sizes of the hidden layers (32)")
    command.add_argument("--rows", type=int, help="rows of data (1)")
    command.add_argument("--budget", type=float, metavar="S", help="seconds for each strategy (10; in a sweep 0.3)")
    command.add_argument("--sweep", choices=["depth", "width", "batch"], help="family of models, with exponents")
    command.add_argument("--plot", metavar="FILE", help="plot the sweep; needs microfw[plot]")
    command.add_argument("--json", metavar="FILE", help="save the numbers")
    command.add_argument("--html", metavar="FILE", nargs="?", const="law.html", help="save a page (law.html)")
    command.add_argument("--seed", type=int, default=0, help="seed of split, weights and samples (0)")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the law on one model or on a family of models; write the requested files, then print."""
    split, weights = generators(arguments.seed, 2)
    _check(arguments)
    name = arguments.name or ("iris" if arguments.sweep in ("depth", "batch") else "digits")
    options: dict[str, Any] = {"rng": weights, "name": name}
    if arguments.budget is not None:
        options["budget"] = arguments.budget
    found: Any
    with one_thread():
        n = 1 if arguments.rows is None else arguments.rows
        if ".py:" in name:
            # chdir: the file may change the folder, and the paths of the options are relative to this one
            with contextlib.chdir("."), code_of(name):
                found = law(*load_model(name), rows=n, **options)
        else:
            rows = data.load(name, rng=split)[0]
            loss = loss_of(rows)
            if arguments.sweep == "batch" and len(rows) < max(VALUES["batch"]):
                got = f"{name}, which has {len(rows)}"
                raise ArgumentError("--sweep batch", f"a dataset of at least {max(VALUES['batch'])} rows", got)
            if arguments.sweep:
                found = sweep(arguments.sweep, rows.X, rows.y, loss=loss, **options)
            else:
                model = build(rows, HIDDEN if arguments.hidden is None else arguments.hidden, weights)
                found = law(model, loss, rows.X, rows.y, rows=n, **options)
        files: Files = {}
        if arguments.plot:
            files[arguments.plot] = lambda: picture(found.plot, arguments.plot)
        if arguments.html:
            files[arguments.html] = lambda: encode(found.html())
        if arguments.json:
            files[arguments.json] = lambda: encode(json.dumps(found.to_dict(), indent=1))
        write_files(files, str(found))
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raise ArgumentError for arguments that exclude each other, and for files that cannot be written."""
    if arguments.sweep and (arguments.hidden is not None or arguments.rows is not None):
        raise ArgumentError("--sweep: expected no --hidden and no --rows, got one; a sweep makes its own models")
    if ".py:" in (arguments.name or "") and (arguments.hidden is not None or arguments.sweep):
        raise ArgumentError(
            f"{arguments.name}: expected no --hidden and no --sweep, got one; the function makes the model"
        )
    name = arguments.name or ""
    if ".py:" not in name and (":" in name or name.lower().endswith(".py")):
        raise ArgumentError(
            name, "a toy dataset, or file.py:function", repr(name), "for a model of yours: mine.py:make"
        )
    if arguments.plot is not None and not arguments.sweep:
        raise ArgumentError("--plot: expected a sweep to draw, got none; add --sweep depth, width or batch")
    if arguments.html is not None and arguments.sweep:
        raise ArgumentError("--html: expected one model, got a sweep; take --plot")
    if arguments.plot is not None and not arguments.plot.endswith(PICTURES):
        raise ArgumentError(f"--plot: expected a name that ends in {', '.join(PICTURES)}, got {arguments.plot!r}")
    check_path(arguments.html, "html")
    check_path(arguments.json, "json")
    if arguments.plot:
        check_writable(arguments.plot)
