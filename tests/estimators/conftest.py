"""Data of scikit-learn for the tests of estimators."""

from __future__ import annotations

import pytest
from sklearn import datasets
from sklearn.preprocessing import scale


@pytest.fixture(scope="module")
def digits():
    X, y = datasets.load_digits(return_X_y=True)
    return X[:400] / 16, y[:400]


@pytest.fixture(scope="module")
def diabetes():
    X, y = datasets.load_diabetes(return_X_y=True)
    return scale(X), scale(y)
