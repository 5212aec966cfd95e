"""``microfw train`` and ``microfw profile``: train a model on a toy dataset."""

from __future__ import annotations

import argparse
from typing import Any

from microfw import data
from microfw.cli.console import Parser, use_colour
from microfw.cli.files import Files, check_path, write_files
from microfw.cli.models import one_thread, prepare
from microfw.errors import ArgumentError, MicrofwError, printable
from microfw.law import law
from microfw.profiler import Profiler, Session
from microfw.profiler.files import content
from microfw.serialization.output import encode
from microfw.training import Trainer
from microfw.training.state import Interrupts

SETTINGS = ("name", "hidden", "batch_size", "lr", "momentum", "seed", "every")
"""Arguments that a profile stores, for ``microfw compare --rerun``."""


def add(subcommands: Any) -> None:
    """Declare the arguments of ``microfw train`` and ``microfw profile``."""
    text = "train a model on a toy dataset of scikit-learn"
    for name, end in (("train", ""), ("profile", ", and report what backward costs")):
        command = subcommands.add_parser(name, help=text + end, description=f"{text}{end}.".capitalize())
        add_options(command)
        command.set_defaults(run=run)
    add_profile_options(command)


def add_options(command: argparse.ArgumentParser) -> None:
    """Declare the arguments that both commands have."""
    command.add_argument("name", metavar="NAME", help=f"one of {', '.join(data.names())}")
    command.add_argument("--hidden", default="32", metavar="64,32", help="sizes of the hidden layers (32)")
    command.add_argument("--epochs", type=int, default=20, help="passes over the training rows (20)")
    command.add_argument("--batch-size", type=int, default=32, help="rows in a step (32)")
    command.add_argument("--lr", type=float, help="learning rate (0.1; 0.01 for regressions)")
    command.add_argument("--momentum", type=float, default=0.9, help="momentum of SGD (0.9)")
    command.add_argument("--seed", type=int, default=0, help="seed of split, weights and order of rows (0)")
    command.add_argument("--quiet", action="store_true", help="no progress bar")


def add_profile_options(command: argparse.ArgumentParser) -> None:
    """Declare the arguments that only ``microfw profile`` has."""
    command.add_argument("--every", type=int, default=1, metavar="K", help="observe every K-th step only (1)")
    command.add_argument("--trace-steps", type=int, default=0, metavar="K", help="keep the events of K steps (0)")
    command.add_argument("--json", metavar="FILE", help="save the profile")
    command.add_argument("--html", metavar="FILE", help="save the profile as a page")
    command.add_argument("--full", action="store_true", help="print all epochs, layers, ops and phases")
    command.add_argument("--law", action="store_true", help="add the law of the untrained model to the page")


def run(arguments: argparse.Namespace) -> int:
    """Train, with or without a profile; write the requested files, then print."""
    profiler = _profiler(arguments) if arguments.command == "profile" else None
    with one_thread():
        trainer, train_set, test_set, order = prepare(arguments, [profiler] if profiler else [])
        size = min(arguments.batch_size, len(train_set))
        print(f"{arguments.name}: {len(train_set):,} rows to train on, {size:,} a step; {len(test_set):,} to test on")
        full = profiler is None or arguments.full  # the short report has the layers and the result itself
        if full:
            print(trainer.model, end="\n\n" if profiler else "\n")
        found = None
        if profiler is not None and arguments.law:
            print("law of this model before training: one gradient by five strategies")
            found = law(trainer.model, trainer.loss, train_set.X, train_set.y, budget=3.0, name=arguments.name)
        interrupts = Interrupts()
        ended: BaseException | None = None
        with interrupts:
            try:
                fit(arguments, trainer, train_set, test_set, order)
            except (KeyboardInterrupt, MicrofwError) as error:  # the complete epochs are kept
                ended = error
            interrupts.deferred = True
            if profiler is not None and (profiler.session.epochs or ended is None):
                finish(arguments, profiler, found)
        if ended is not None:
            raise ended
        if full:
            result = trainer.evaluate(test_set)
            print("\ntest: " + ", ".join(f"{name} {value:.4f}" for name, value in result.items()))
    return 0


def _profiler(arguments: argparse.Namespace) -> Profiler:
    """Check the arguments of ``microfw profile``, and return a profiler."""
    check_path(arguments.json, "json")
    check_path(arguments.html, "html")
    if arguments.law and not arguments.html:
        raise ArgumentError("--law: expected --html FILE, the page that shows the law, got none")
    return Profiler(every=arguments.every, name=arguments.name, trace=arguments.trace_steps)


def fit(arguments: argparse.Namespace, trainer: Trainer, train_set: Any, test_set: Any, order: Any) -> None:
    """Train for the requested epochs."""
    trainer.fit(
        train_set,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        validation=test_set,
        rng=order,
        progress=not arguments.quiet,
        drop_last=len(train_set) >= arguments.batch_size,  # all steps have the same N, that of `microfw law`
    )


def finish(arguments: argparse.Namespace, profiler: Profiler, found: Any) -> None:
    """Write the files of a profile, and print the report."""
    session = profiler.session
    session.settings = {key: str(value) for key in SETTINGS if (value := getattr(arguments, key)) is not None}
    files: Files = {}
    if arguments.json:
        files[arguments.json] = lambda: content(session, arguments.json)
    if arguments.html:
        files[arguments.html] = lambda: encode(session.html(found))
    write_files(files, profiler.report(full=arguments.full, colour=use_colour()))
    if arguments.json:
        print(printable(f"print it again: microfw report {arguments.json}"))


def repeat(settings: dict[str, str]) -> Session:
    """Make a short run with the settings of a saved profile; return its profile."""
    if "name" not in settings or not set(settings) <= set(SETTINGS):
        raise ArgumentError(f"--rerun: expected the settings of microfw profile, got {', '.join(settings)}")
    options = [f"--{key.replace('_', '-')}={value}" for key, value in settings.items() if key != "name"]
    parser = Parser(prog="microfw profile")
    add_options(parser)
    add_profile_options(parser)
    arguments = parser.parse_args(["--epochs=3", "--quiet", *options, "--", settings["name"]])
    profiler = Profiler(every=arguments.every, name=arguments.name)
    fit(arguments, *prepare(arguments, [profiler]))
    profiler.session.settings = settings
    return profiler.session
