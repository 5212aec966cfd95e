"""scikit-learn's toy datasets, split and scaled. Each is an entry of the table `TOYS`."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from microfw.data import cache as files
from microfw.data.dataset import Dataset
from microfw.errors import ArgumentError, check_flags
from microfw.optim.checks import is_integer

Array = np.ndarray[Any, Any]


class Toy(NamedTuple):
    """A toy dataset.

    Attributes
    ----------
    make : callable
        ``make(sklearn.datasets, seed)`` returns features, targets, feature names and target names.
    task : str
        "classification" or "regression".
    unit : float or None
        Number by which all features are divided; None divides each by its standard deviation.
    """

    make: Callable[[Any, int], tuple[Array, Array, Any, Any]]
    task: str
    unit: float | None = None


def _stored(name: str) -> Callable[[Any, int], tuple[Array, Array, Any, Any]]:
    def make(datasets: Any, seed: int) -> tuple[Array, Array, Any, Any]:
        bunch = getattr(datasets, f"load_{name}")()
        return bunch.data, bunch.target, bunch.feature_names, bunch.get("target_names")

    return make


def _drawn(name: str, **options: Any) -> Callable[[Any, int], tuple[Array, Array, Any, Any]]:
    def make(datasets: Any, seed: int) -> tuple[Array, Array, Any, Any]:
        X, y = getattr(datasets, f"make_{name}")(1000, random_state=seed, **options)
        return X, y, None, None

    return make


TOYS: dict[str, Toy] = {
    # Pixels from 0 to 16. Scaling each to unit variance enlarges the rare ones at the border, which costs one
    # percentage point of accuracy.
    "digits": Toy(_stored("digits"), "classification", unit=8.0),
    "iris": Toy(_stored("iris"), "classification"),
    "wine": Toy(_stored("wine"), "classification"),
    "breast_cancer": Toy(_stored("breast_cancer"), "classification"),
    "diabetes": Toy(_stored("diabetes"), "regression"),
    "linnerud": Toy(_stored("linnerud"), "regression"),
    "moons": Toy(_drawn("moons", noise=0.2), "classification"),
    "circles": Toy(_drawn("circles", noise=0.1, factor=0.5), "classification"),
    "blobs": Toy(_drawn("blobs", centers=4, cluster_std=1.5), "classification"),
    "friedman1": Toy(_drawn("friedman1", noise=1.0), "regression"),
}


def names() -> list[str]:
    """Return the names of the datasets that `load` returns.

    Examples
    --------
    >>> names()[:3]
    ['digits', 'iris', 'wine']
    """
    return list(TOYS)


def load(
    name: str, test_size: float = 0.25, rng: int | np.random.Generator | None = 0, *, cache: bool = True
) -> tuple[Dataset, Dataset]:
    """Load one of scikit-learn's toy datasets, split it, and scale it.

    For classification the split is stratified. Features, and the targets of a regression, are centred and divided by
    their standard deviation, both of the training part; pixels of digits are all divided by 8 instead.

    Parameters
    ----------
    name : str
        One of `names`. moons, circles, blobs and friedman1 have 1,000 random rows.
    test_size : float or int
        Share of the test part, or its number of rows.
    rng : int, numpy.random.Generator or None
        Decides the split, and the rows of a random dataset.
    cache : bool
        Read the result of an earlier call from the user's cache folder, without scikit-learn, or keep it there. None as
        rng uses no cache. The environment variable ``MICROFW_CACHE`` is another folder, or empty for no cache.

    Returns
    -------
    train, test : Dataset
        float32 features; integer labels, or scaled float32 targets of shape (N, k). `Dataset.to_original` returns
        targets in their units.

    Raises
    ------
    ArgumentError
        If the name, the size or the seed is invalid.

    Examples
    --------
    >>> train, test = load("iris", rng=0)
    >>> train
    Dataset(112 rows, 4 features, classification into 3 classes)
    >>> test.target_names
    ['setosa', 'versicolor', 'virginica']
    """
    toy = TOYS.get(name) if isinstance(name, str) else None
    if toy is None:
        close = difflib.get_close_matches(str(name).lower(), TOYS, 1, 0.5)
        fix = f"did you mean {close[0]!r}?" if close else "for your own arrays use mf.data.Dataset(X, y)"
        raise ArgumentError("load", f"one of {', '.join(TOYS)}", repr(name), fix)
    check_flags("load", cache=cache)
    seed = _seed(rng)
    # Importing scikit-learn takes longer than everything else in a short script.
    path = None
    if cache and rng is not None and isinstance(test_size, int | float):
        path = files.path_of(name, __file__, test_size, seed)
    kept = files.read(path) if path else None
    if kept is None:
        kept = _make(toy, test_size, seed)
        if path:
            files.write(path, *kept)
    return kept


def _make(toy: Toy, test_size: float, seed: int) -> tuple[Dataset, Dataset]:
    """Return a dataset in two parts, split and scaled by scikit-learn."""
    from sklearn import datasets
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    X, y, feature_names, target_names = toy.make(datasets, seed)
    classify = toy.task == "classification"
    try:
        parts = train_test_split(X, y, test_size=test_size, random_state=seed, stratify=y if classify else None)
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ArgumentError("load", "a test_size that splits", repr(test_size), reason) from None
    X_train, X_test, y_train, y_test = parts
    unit = toy.unit or 1.0
    scaler = StandardScaler(with_std=toy.unit is None).fit(X_train / unit)
    target_scaler = None
    if not classify:
        y_train, y_test = (part.reshape(len(part), -1) for part in (y_train, y_test))
        fitted = StandardScaler().fit(y_train)
        target_scaler = files.TargetScaler(fitted.mean_, fitted.scale_)
        y_train, y_test = fitted.transform(y_train), fitted.transform(y_test)
    elif target_names is None:
        target_names = [str(k) for k in range(int(y.max()) + 1)]
    options = {"feature_names": feature_names, "target_names": target_names, "task": toy.task}
    train, test = (
        Dataset(scaler.transform(part / unit), targets, target_scaler=target_scaler, **options)
        for part, targets in ((X_train, y_train), (X_test, y_test))
    )
    return train, test


def _seed(rng: int | np.random.Generator | None) -> int:
    """Return a seed for scikit-learn: the int itself, or one drawn from the Generator."""
    if rng is None or isinstance(rng, np.random.Generator):
        return int(np.random.default_rng(rng).integers(2**32))
    if not is_integer(rng, 0) or rng >= 2**32:
        raise ArgumentError("load", "rng to be a Generator or an integer from 0 to 2**32 - 1", repr(rng))
    return int(rng)
