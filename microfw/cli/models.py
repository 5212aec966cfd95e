"""Models, data and threads of the subcommands that compute."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
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
