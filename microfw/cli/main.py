"""The command line: ``microfw train``, ``profile``, ``report``, ``compare`` and ``law``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NoReturn

import numpy as np

from microfw import __version__, data, nn, optim
from microfw.cli import reports as commands
from microfw.cli.console import complain, streams
from microfw.errors import ArgumentError, MicrofwError, printable
from microfw.law import law, sweep
from microfw.profiler import Profiler, Session
from microfw.profiler.files import PICTURES, content
from microfw.serialization.atomic_write import check_writable
from microfw.serialization.output import encode, picture
from microfw.training import Trainer
from microfw.training.state import Interrupts

GUIDE = """\
examples:
  microfw profile digits                     train, and log what each epoch's backward pass costs
  microfw profile digits --hidden 256,256    the same with two wider layers
  microfw profile wine --json wine.json      keep the profile
  microfw report wine.json --epoch 3         read it again, the layers of one epoch
  microfw report wine.json --html wine.html  the same as a page
  microfw compare wine.json new.json         which layers really changed
  microfw train diabetes --epochs 50         train without a profile
  microfw law digits                         the same gradient by five strategies, and what each takes
  microfw profile wine --html w.html --law   a page with both
  microfw law --sweep depth                  how that grows with the model

words in the report:
  N       op nodes recorded in one training step; counted in scalars, the scalar operations in them
  P       trainable numbers: as many gradients come out of one backward pass
  N + P   about how many steps one backward pass takes, since it visits each node once
  N x P   what visiting the nodes again for every parameter is bounded by
"""


LAW = """Compute the gradient of a small model's loss by backprop, forward mode, differences, the chain rule for
each parameter anew, and a recursion over paths; print what each took, with the definitions beside it."""

LAW_GUIDE = """\
examples:
  microfw law digits                     64 pixels, 16 hidden units, 10 digits: every strategy to its end
  microfw law iris --rows 8              more rows: N grows with them, P does not
  microfw law digits --hidden 64,64      larger: what takes too long is run for some parameters, and says so
  microfw law digits --html law.html     as a page
  microfw law --sweep depth              deeper and deeper models, and the exponent of each strategy's cost

how to read it:
  on the graph of tensors a node is an operation on arrays; on the graph of scalars it is one addition or product
  backprop          each node's rule once: N rules, and a gradient added into each of the P parameters
  forward mode      one pass for each parameter: at most N x P
  differences       the loss computed P + 1 times, or 2P times
  chain rule        for each parameter anew, only over the nodes between it and the loss: at most N x P
  paths             a recursion that knows no order: a visit for each path, and there may be far more than N x P
"""

SMALL = "16"
"""The hidden layers of ``microfw law`` by default."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors take one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and leave with code 2."""
        complain(f"{self.prog}: {message}; see {self.prog} --help")
        self.exit(2)


def parser() -> Parser:
    """Build the parser."""
    main = Parser(
        prog="microfw",
        description="Train small models, and read what their backward pass costs.",
        epilog=GUIDE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    main.add_argument("--version", action="version", version=f"microfw {__version__}")
    subcommands = main.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for name, what in (("train", "train a model on a toy dataset"), ("profile", "train, and log the backward cost")):
        command = subcommands.add_parser(name, help=what, description=f"{what.capitalize()} of scikit-learn's.")
        command.add_argument("name", metavar="NAME", help=f"one of {', '.join(data.names())}")
        command.add_argument("--hidden", default="64", metavar="64,32", help="sizes of the hidden layers (64)")
        command.add_argument("--epochs", type=int, default=20, help="passes over the training rows (20)")
        command.add_argument("--batch-size", type=int, default=32, help="rows in a step (32)")
        command.add_argument("--lr", type=float, help="learning rate (0.1; 0.01 for regressions)")
        command.add_argument("--momentum", type=float, default=0.9, help="share of the last step to keep (0.9)")
        command.add_argument("--seed", type=int, default=0, help="of the split, the weights and the order (0)")
        command.add_argument("--quiet", action="store_true", help="no progress bar")
    command.add_argument("--every", type=int, default=1, metavar="K", help="observe every K-th step only (1)")
    command.add_argument("--trace-steps", type=int, default=0, metavar="K", help="keep the events of K steps (0)")
    command.add_argument("--json", metavar="FILE", help="save the profile")
    command.add_argument("--html", metavar="FILE", help="save it as a page")
    command.add_argument("--law", action="store_true", help="show the law on the page, run on the model as it begins")
    commands.add_report(subcommands)
    commands.add_compare(subcommands)
    text: dict[str, Any] = {
        "description": LAW,
        "epilog": LAW_GUIDE,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }
    _law_options(subcommands.add_parser("law", help="one gradient by five strategies", **text))
    return main


def _law_options(command: argparse.ArgumentParser) -> None:
    """Declare what ``microfw law`` takes."""
    command.add_argument("name", metavar="NAME", nargs="?", help="a toy dataset (digits; iris over depth and batch)")
    command.add_argument("--hidden", metavar="64,32", help="hidden layers; few, to run all of it (16)")
    command.add_argument("--rows", type=int, help="rows of data (1)")
    command.add_argument("--budget", type=float, metavar="S", help="seconds for each strategy (10; in a sweep 0.3)")
    command.add_argument("--sweep", choices=["depth", "width", "batch"], help="a family of models, and its exponents")
    command.add_argument("--plot", metavar="FILE", help="draw the sweep; needs microfw[plot]")
    command.add_argument("--json", metavar="FILE", help="save the numbers")
    command.add_argument("--html", metavar="FILE", help="save them as a page; not of a sweep")
    command.add_argument("--seed", type=int, default=0, help="of the split, the weights and the samples (0)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    with streams() as (out, _):
        command = "microfw"
        try:
            arguments = parser().parse_args(argv)
            command += f" {arguments.command}"
            code = _run(arguments)
        except SystemExit as end:  # after --help, or for a wrong argument
            code = int(end.code or 0)
        out.flush()
        if out.error is not None and not isinstance(out.error, BrokenPipeError):  # a reader that has seen enough
            complain(f"{command}: expected standard output to be written, got {out.error}")
            code = 2
        return code


def _run(arguments: argparse.Namespace) -> int:
    where = f"microfw {arguments.command}"
    try:
        if arguments.command == "report":
            return commands.show(arguments)
        with one_thread():
            if arguments.command == "compare":
                return commands.judge(arguments, again)
            (show_law if arguments.command == "law" else train)(arguments)
    except (MicrofwError, OSError, ImportError) as error:
        complain(f"{where}: {str(error).removeprefix(f'{arguments.command}: ')}")
        return 2
    except MemoryError:
        complain(f"{where}: expected enough memory, got too little; take a smaller model or fewer rows")
        return 2
    except KeyboardInterrupt:
        complain(f"{where}: interrupted")
        return 130
    return 0


def one_thread() -> Any:
    """Let matrix products use one thread: in small models more of them only wait for each other."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, "blas")


def train(arguments: argparse.Namespace) -> None:
    """Train on a toy dataset, with a profile or without; write the files that were asked for, then print."""
    profiler = None
    if arguments.command == "profile":
        for end in ("json", "html"):
            named(getattr(arguments, end), end)
        if arguments.law and not arguments.html:
            raise ArgumentError("--law: expected --html FILE, the page that shows it, got none")
        profiler = Profiler(every=arguments.every, name=arguments.name, trace=arguments.trace_steps)
    trainer, train_set, test_set, order = prepare(arguments, profiler)
    print(f"{arguments.name}: {len(train_set):,} rows to train on, {len(test_set):,} to test on")
    print(trainer.model)
    found = None
    if arguments.command == "profile" and arguments.law:
        print("the law on this model, before it is trained: one gradient by five strategies")
        found = law(trainer.model, trainer.loss, train_set.X, train_set.y, budget=3.0, name=arguments.name)
    interrupts = Interrupts()
    ended: BaseException | None = None
    with interrupts:
        try:
            fit(arguments, trainer, train_set, test_set, order)
        except (KeyboardInterrupt, MicrofwError) as error:  # the epochs that are complete are kept
            ended = error
        interrupts.deferred = True
        if profiler is not None and (profiler.session.epochs or ended is None):
            finish(arguments, profiler, found)
    if ended is not None:
        raise ended
    result = trainer.evaluate(test_set)
    print("\ntest: " + ", ".join(f"{name} {value:.4f}" for name, value in result.items()))


def finish(arguments: argparse.Namespace, profiler: Profiler, found: Any) -> None:
    """Write the files of a profile, and print it."""
    session = profiler.session
    session.settings = settings(arguments)
    files: dict[str, Callable[[], bytes]] = {}
    if arguments.json:
        files[arguments.json] = lambda: content(session, arguments.json)
    if arguments.html:
        files[arguments.html] = lambda: encode(session.html(found))
    commands.deliver(files, "\n" + profiler.report(colour=commands.colourful()))
    if arguments.json:
        print(printable(f"read it again: microfw report {arguments.json}"))


def named(path: str | None, end: str) -> None:
    """Check that a file's name says what will be in it."""
    if path is not None and (not path.endswith("." + end) or path.endswith(".trace.json")):
        raise ArgumentError(f"--{end}: expected a name that ends in .{end}, got {path!r}")
    if path is not None:
        check_writable(path)


def prepare(arguments: argparse.Namespace, profiler: Profiler | None) -> tuple[Trainer, Any, Any, Any]:
    """Return what trains a toy model: the Trainer, both parts of the data, and the generator of their order."""
    if arguments.seed < 0:
        raise ArgumentError(f"--seed: expected 0 or a positive integer, got {arguments.seed}")
    split, weights, order = np.random.default_rng(arguments.seed).spawn(3)
    train_set, test_set = data.load(arguments.name, rng=split)
    classify = train_set.task == "classification"
    outputs: int = (train_set.n_classes if classify else None) or train_set.y.shape[1]
    model = build([train_set.X.shape[1], *hidden(arguments.hidden), outputs], weights)
    lr = arguments.lr if arguments.lr is not None else 0.1 if classify else 0.01
    trainer = Trainer(
        model,
        nn.CrossEntropyLoss() if classify else nn.MSELoss(),
        optim.SGD(model.parameters(), lr=lr, momentum=arguments.momentum),
        metrics=["accuracy" if classify else "r2"],
        hooks=[profiler] if profiler else [],
    )
    return trainer, train_set, test_set, order


def fit(arguments: argparse.Namespace, trainer: Trainer, train_set: Any, test_set: Any, order: Any) -> None:
    """Train for the epochs that were asked for."""
    trainer.fit(
        train_set,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        validation=test_set,
        rng=order,
        progress=not arguments.quiet,
    )


KEPT = ("name", "hidden", "batch_size", "lr", "momentum", "seed", "every")
"""What of the arguments a profile keeps, so that it can be made again."""


def settings(arguments: argparse.Namespace) -> dict[str, str]:
    """Return how a run was made, as text."""
    return {key: str(value) for key in KEPT if (value := getattr(arguments, key)) is not None}


def again(kept: dict[str, str]) -> Session:
    """Make a short run with the settings of another one, and return its profile."""
    if "name" not in kept or not set(kept) <= set(KEPT):
        raise ArgumentError(f"--rerun: expected the settings of microfw profile, got {', '.join(kept)}")
    options = [f"--{key.replace('_', '-')}={value}" for key, value in kept.items() if key != "name"]
    arguments = parser().parse_args(["profile", "--epochs=3", "--quiet", *options, "--", kept["name"]])
    profiler = Profiler(every=arguments.every, name=arguments.name)
    fit(arguments, *prepare(arguments, profiler))
    profiler.session.settings = kept
    return profiler.session


def show_law(arguments: argparse.Namespace) -> None:
    """Run the law on a toy dataset, on one model or on a family, and print what was found."""
    if arguments.seed < 0:
        raise ArgumentError(f"--seed: expected 0 or a positive integer, got {arguments.seed}")
    if arguments.sweep and (arguments.hidden is not None or arguments.rows is not None):
        raise ArgumentError("--sweep: expected no --hidden and no --rows, got one; a sweep makes its own models")
    if arguments.plot and not arguments.sweep:
        raise ArgumentError("--plot: expected a sweep to draw, got none; add --sweep depth, width or batch")
    if arguments.html and arguments.sweep:
        raise ArgumentError("--html: expected one model, got a sweep; take --plot")
    if arguments.plot and not arguments.plot.endswith(PICTURES):
        raise ArgumentError(f"--plot: expected a name that ends in {', '.join(PICTURES)}, got {arguments.plot!r}")
    named(arguments.html, "html")
    for path in filter(None, (arguments.plot, arguments.json)):
        check_writable(path)
    name = arguments.name or ("iris" if arguments.sweep in ("depth", "batch") else "digits")
    split, weights = np.random.default_rng(arguments.seed).spawn(2)
    rows = data.load(name, rng=split)[0]
    classify = rows.task == "classification"
    loss = nn.CrossEntropyLoss() if classify else nn.MSELoss()
    options: dict[str, Any] = {"rng": weights, "name": name}
    if arguments.budget is not None:
        options["budget"] = arguments.budget
    found: Any
    if arguments.sweep:
        found = sweep(arguments.sweep, rows.X, rows.y, loss=loss, **options)
    else:
        outputs: int = (rows.n_classes if classify else None) or rows.y.shape[1]
        model = build(
            [rows.X.shape[1], *hidden(SMALL if arguments.hidden is None else arguments.hidden), outputs], weights
        )
        found = law(model, loss, rows.X, rows.y, rows=1 if arguments.rows is None else arguments.rows, **options)
        if arguments.hidden is None:
            print(f"A small model by default, --hidden {SMALL}, so that every strategy can run to its end.\n")
    files: dict[str, Callable[[], bytes]] = {}
    if arguments.plot:
        files[arguments.plot] = lambda: picture(found.plot(), arguments.plot)
    if arguments.html:
        files[arguments.html] = lambda: encode(found.html())
    if arguments.json:
        files[arguments.json] = lambda: encode(json.dumps(found.to_dict(), indent=1))
    commands.deliver(files, str(found))


def hidden(text: str) -> list[int]:
    """Read the sizes of hidden layers.

    Examples
    --------
    >>> hidden("64,32"), hidden("")
    ([64, 32], [])
    """
    try:
        sizes = [int(size) for size in text.split(",") if size.strip()]
    except ValueError:
        sizes = [0]
    if any(size < 1 for size in sizes):
        raise ArgumentError(f"--hidden: expected positive sizes like 64,32, got {text!r}")
    return sizes


def build(sizes: Sequence[int], rng: Any) -> nn.Sequential:
    """Make a model of Dense layers with ReLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Dense(inputs, outputs, rng=rng), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


if __name__ == "__main__":
    raise SystemExit(main())
