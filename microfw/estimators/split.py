"""Split of the rows of a fit into those to train on and those to validate with."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.model_selection import train_test_split

from microfw.errors import DataError
from microfw.training.evaluation import Array
from microfw.training.metrics import cannot


def split(
    rows: int, labels: Array | None, fraction: float, rng: np.random.Generator, where: str
) -> tuple[Array, Array]:
    """Return the numbers of the training rows and of the validation rows.

    Parameters
    ----------
    rows : int
        Number of all rows.
    labels : ndarray of int, optional
        Class of each row. Both parts then have rows of each class, if there are enough.
    fraction : float
        Share of the validation rows.
    rng : numpy.random.Generator
        Decides which rows validate.
    where : str
        Name of the caller, for errors.

    Raises
    ------
    DataError
        If no rows are left to train on.
    """
    count = max(round(fraction * rows), 1)
    if count >= rows:
        got, fix = f"none of {rows} (n_samples = {rows})", "lower validation_fraction, or pass more rows"
        raise DataError(where, "rows to train on", got, fix)
    if labels is not None:
        found = np.bincount(labels)
        kinds = np.count_nonzero(found)
        if found[found > 0].min() < 2 or not kinds <= count <= rows - kinds:
            labels = None  # too few rows for each class in both parts
    seed = int(rng.integers(1 << 31))
    train, test = train_test_split(np.arange(rows), test_size=count, stratify=labels, random_state=seed)
    if labels is not None:
        for part, other in ((test, train), (train, test)):
            _complete(part, other, labels)
    return train, test


def _complete(part: Array, other: Array, labels: Array) -> None:
    """Exchange rows with the other part until this one has each class: stratifying rounds rare ones to no row."""
    for label in np.setdiff1d(labels, labels[part]):
        given = np.flatnonzero(labels[part] == np.bincount(labels[part]).argmax())[0]
        taken = np.flatnonzero(labels[other] == label)[0]
        part[given], other[taken] = other[taken], part[given]


def too_few(rows: int, where: str) -> DataError:
    """Return the error for one validation row, of which there is no R²: it would be NaN in all epochs."""
    fix = "raise validation_fraction, or pass scoring='loss'"
    return DataError(where, "two validation rows, for R²", f"1 of {rows}", fix)


def explain(error: ValueError, estimator: Any, labels: Array | None) -> None:
    """Raise an error that names the class without validation rows, if a scorer may need it, or the scorer."""
    if labels is not None and len(missing := np.setdiff1d(np.arange(len(estimator.classes_)), labels)):
        got = f"none of class {estimator.classes_[missing[0]]} ({estimator.scoring}: {error})"
        fix = "raise validation_fraction, or pass scoring='loss'"
        raise DataError(f"{estimator._where}.fit, early_stopping", "validation rows of each class", got, fix) from error
    if isinstance(estimator.scoring, str):
        raise cannot(estimator.scoring, error) from error
