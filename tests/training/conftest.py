"""Data for the tests of training."""

from __future__ import annotations

import numpy as np
import pytest

from microfw.data import Dataset, load


@pytest.fixture(scope="module")
def iris():
    return load("iris", rng=0)


@pytest.fixture(scope="module")
def line():
    X = np.linspace(-1, 1, 64, dtype=np.float32)[:, None]
    return Dataset(X, 2 * X)
