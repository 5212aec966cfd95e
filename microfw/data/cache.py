"""Files of what `load` returned, in the user's cache folder: the next process reads one without scikit-learn.

A cache that is missing, damaged or not writable is as if there were none: no error, no warning.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from hashlib import sha256
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from microfw.data.dataset import Dataset
from microfw.errors import MicrofwError, ShapeError
from microfw.serialization import container

Array = np.ndarray[Any, Any]

VARIABLE = "MICROFW_CACHE"
"""Environment variable: the folder, or empty to switch the cache off."""

MAX_FILES = 64
"""Files kept, the newest; those of digits are the largest, with 0.5 MB."""

OURS = re.compile(r"microfw-\w+-[0-9a-f]{32}\.npz")

FAULTS = (MicrofwError, OSError, LookupError, TypeError, ValueError)


class TargetScaler(NamedTuple):
    """The scaling of a regression's targets.

    Attributes
    ----------
    mean_ : ndarray
        Means, float64, shape (k,).
    scale_ : ndarray
        Standard deviations, float64, shape (k,).
    """

    mean_: Array
    scale_: Array

    def inverse_transform(self, values: Any) -> Array:
        """Return scaled values of shape (N, k) in their original units, in their dtype.

        Examples
        --------
        >>> TargetScaler(np.array([10.0]), np.array([2.0])).inverse_transform([[0.0], [1.5]])
        array([[10.],
               [13.]])
        """
        values = np.asarray(values)
        if values.ndim != 2 or values.shape[1] != len(self.mean_):
            raise ShapeError("to_original", f"targets of shape (N, {len(self.mean_)})", values.shape)
        dtype = np.result_type(values, np.float16)
        original: Array = values * self.scale_.astype(dtype) + self.mean_.astype(dtype)
        return original


def folder() -> str | None:
    """Return the folder of the cache, or None if there is none."""
    given = os.environ.get(VARIABLE)
    if given is not None:
        return os.path.expanduser(given) or None
    if sys.platform == "darwin":
        base = "~/Library/Caches"
    elif sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    base = os.path.expanduser(base)  # unchanged if there is no home
    return os.path.join(base, "microfw") if os.path.isabs(base) else None


def path_of(name: str, source: str, *arguments: Any) -> str | None:
    """Return the path of a dataset's file, or None if there is no cache.

    Parameters
    ----------
    name : str
        Name of the dataset.
    source : str
        Path of the code that makes the dataset; a file belongs to one version of the code.
    *arguments : float or int
        What the dataset depends on.
    """
    base = folder()
    if base is None:
        return None
    try:
        versions = metadata.version("scikit-learn"), np.__version__
        with open(source, "rb") as file:
            key = repr((name, arguments, versions)).encode() + file.read()
    except (OSError, metadata.PackageNotFoundError):
        return None
    return os.path.join(base, f"microfw-{name}-{sha256(key).hexdigest()[:32]}.npz")


def read(path: str) -> tuple[Dataset, Dataset] | None:
    """Return the datasets of a file, or None if it cannot be read."""
    try:
        with container.opened(path, "loading") as file:
            scaler = TargetScaler(file.array("mean"), file.array("scale")) if "mean" in file.places else None
            train, test = (
                Dataset(file.array(f"{part}.X"), file.array(f"{part}.y"), target_scaler=scaler, **file.meta["options"])
                for part in ("train", "test")
            )
    except FAULTS:
        return None
    return train, test


def write(path: str, train: Dataset, test: Dataset) -> None:
    """Write two datasets with the same names and scaler to a file, if possible, and remove the oldest files."""
    arrays = {"train.X": train.X, "train.y": train.y, "test.X": test.X, "test.y": test.y}
    if train.target_scaler is not None:
        arrays |= {"mean": train.target_scaler.mean_, "scale": train.target_scaler.scale_}
    options = {"feature_names": train.feature_names, "target_names": train.target_names, "task": train.task}
    base = os.path.dirname(path)
    with contextlib.suppress(*FAULTS):
        os.makedirs(base, exist_ok=True)
        container.write(path, arrays, {"options": options})
        files = [entry for entry in os.scandir(base) if OURS.fullmatch(entry.name)]
        for entry in sorted(files, key=lambda entry: entry.stat().st_mtime_ns)[:-MAX_FILES]:
            os.unlink(entry.path)
