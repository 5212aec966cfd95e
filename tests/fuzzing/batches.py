"""Batches of a program: inputs and targets of every kind, and what is wrong with some."""

from __future__ import annotations

import numpy as np


def inputs(rng, program, rows):
    """Return inputs of a number of rows: floats, or tokens."""
    if program.vocabulary:
        return rng.integers(0, program.vocabulary, (rows, *program.shape))
    return rng.normal(size=(rows, *program.shape)).astype(program.dtype)


def target(rng, program, rows):
    """Return targets of a number of rows."""
    k, kind = program.outputs, program.target
    if kind == "labels":
        return rng.integers(0, k, rows)
    if kind == "row signs":
        return (2 * rng.integers(0, 2, rows) - 1).astype(program.dtype)
    if kind == "pairs":
        return rng.normal(size=(rows, 2)).astype(program.dtype)
    made = {
        "floats": lambda: rng.normal(size=(rows, k)),
        "signs": lambda: 2.0 * rng.integers(0, 2, (rows, k)) - 1,
        "shares": lambda: rng.random((rows, k)),
        "distributions": lambda: rng.dirichlet(np.ones(k), rows),
        "counts": lambda: rng.integers(0, 5, (rows, k)).astype(float),
        "sparse": lambda: rng.normal(size=(rows, k)) * (rng.random((rows, k)) < 0.6) + np.eye(rows, k),
    }[kind]()
    return made.astype(program.dtype)


def batch(program, step):
    """Return a step's inputs and targets."""
    rng = np.random.default_rng([program.seed % 2**32, step.data])
    X, y = inputs(rng, program, step.rows), target(rng, program, step.rows)
    if step.fault == "label":
        y[-1] = program.outputs + 3
    elif step.fault == "features":
        X = np.concatenate([X, X], axis=-1)
    elif step.fault == "nan" and program.vocabulary:
        X[0] = program.vocabulary + 5
    elif step.fault == "nan":
        X[0] = np.nan
    return X, y


def dataset(program, rows):
    """Return inputs and targets of a training run."""
    rng = np.random.default_rng(program.seed % 2**32)
    X, y = inputs(rng, program, rows), target(rng, program, rows)
    if program.target == "labels":
        y[: program.outputs] = np.arange(program.outputs)[:rows]
    return X, y
