"""Models, data and threads of the subcommands that compute."""

from __future__ import annotations

import argparse
import contextlib
import inspect
import runpy
import sys
import traceback
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from microfw import data, nn, optim
from microfw.errors import ArgumentError
from microfw.training import Trainer


def one_thread() -> Any:
    """Return a block in which matrix products use one thread: in small models more threads only wait."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(1, "blas")


def generators(seed: int, n: int) -> list[np.random.Generator]:
    """Return independent random generators from a seed."""
    if seed < 0:
        raise ArgumentError(f"--seed: expected 0 or a positive integer, got {seed}")
    return np.random.default_rng(seed).spawn(n)


def hidden(text: str) -> list[int]:
    """Parse the sizes of hidden layers.

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


def build(rows: Any, layers: str, rng: np.random.Generator) -> nn.Sequential:
    """Return a model for a dataset: Dense layers with ReLU between them. ``layers``: sizes of the hidden ones."""
    outputs: int = (rows.n_classes if rows.task == "classification" else None) or rows.y.shape[1]
    parts: list[nn.Module] = []
    for inputs, size in pairwise([rows.X.shape[1], *hidden(layers), outputs]):
        parts += [nn.Dense(inputs, size, rng=rng), nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def load_model(place: str) -> tuple[nn.Module, Any, Any, Any]:
    """Return model, loss, X and y from a function of the user's, given as ``file.py:function``.

    Raises
    ------
    ArgumentError
        If the file, the function or one of its results is missing, or the user's code raises an error.
    """
    path, _, name = place.rpartition(":")
    before = list(sys.path)
    sys.path.insert(0, str(Path(path).resolve().parent))  # as if Python ran the file
    try:
        with code_of(place):
            scope = runpy.run_path(str(Path(path).resolve()))  # absolute, for errors after a change of the folder
            if not callable(scope.get(name)):
                known = ", ".join(k for k, v in scope.items() if inspect.isfunction(v)) or "none"
                raise ArgumentError(f"{place}: expected a function {name!r} in the file, got {known}")
            _check_signature(place, scope[name])
            made = scope[name]()
    finally:
        sys.path[:] = before
    if not isinstance(made, tuple) or len(made) != 4 or not isinstance(made[0], nn.Module) or not callable(made[1]):
        got = [type(part).__name__ for part in made] if isinstance(made, tuple) else type(made).__name__
        raise ArgumentError(f"{place}: expected (model, loss, X, y), got {got}; return them in this order")
    return made


@contextlib.contextmanager
def code_of(place: str) -> Iterator[None]:
    """Raise ArgumentError, with the line, for an error or an exit in the file of ``file.py:function``."""
    path = Path(place.rpartition(":")[0]).resolve()
    try:
        yield
    except (ArgumentError, MemoryError):
        raise
    except (Exception, SystemExit) as error:
        if isinstance(error, OSError) and Path(str(error.filename)).resolve() == path:
            raise ArgumentError(f"{place}: expected a Python file, got {error.strerror or error}") from None
        lines = [(line.filename, line.lineno) for line in traceback.extract_tb(error.__traceback__)]
        lines = [line for line in lines if Path(line[0]).resolve().is_relative_to(path.parent)]
        text = str(error)
        if isinstance(error, SyntaxError) and error.filename:  # the code did not run
            lines, text = [(error.filename, error.lineno)], str(error.msg)
        if not lines:
            raise
        raised = f"{type(error).__name__}{': ' * bool(text)}{text} ({Path(lines[-1][0]).name}, line {lines[-1][1]})"
        raise ArgumentError(f"{place}: expected code that runs, got {raised}") from error


def _check_signature(place: str, function: Any) -> None:
    """Raise ArgumentError for a function that needs arguments."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # some functions written in C have none
        return
    try:
        signature.bind()
    except TypeError:
        got = f"{place.rpartition(':')[2]}{signature}"
        raise ArgumentError(place, "a function without arguments", got, "give each argument a default") from None


def loss_of(rows: Any) -> nn.Module:
    """Return the loss for a dataset."""
    return nn.CrossEntropyLoss() if rows.task == "classification" else nn.MSELoss()


def prepare(arguments: argparse.Namespace, hooks: Sequence[Any]) -> tuple[Trainer, Any, Any, np.random.Generator]:
    """Return a Trainer, the rows to train on, the rows to test on, and the generator of the order of rows."""
    split, weights, order = generators(arguments.seed, 3)
    train_set, test_set = data.load(arguments.name, rng=split)
    classify = train_set.task == "classification"
    model = build(train_set, arguments.hidden, weights)
    lr = arguments.lr if arguments.lr is not None else 0.1 if classify else 0.01
    trainer = Trainer(
        model,
        loss_of(train_set),
        optim.SGD(model.parameters(), lr=lr, momentum=arguments.momentum),
        metrics=["accuracy" if classify else "r2"],
        hooks=list(hooks),
    )
    return trainer, train_set, test_set, order
