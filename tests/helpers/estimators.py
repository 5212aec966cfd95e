"""Estimators and settings for their tests."""

from __future__ import annotations

import importlib
import importlib.util

import pytest

from microfw.estimators import NeuralClassifier, NeuralRegressor


def needs(*names):
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


needs_callbacks = needs("sklearn.callback")


SGD = {
    "optimizer": "sgd",
    "max_grad_norm": 1.0,
    "batch_size": 32,
    "max_iter": 10,
    "hidden_layer_sizes": (16,),
    "random_state": 0,
}


def classifier(**settings):
    return NeuralClassifier(**{"learning_rate": 0.1} | SGD | settings)


def regressor(**settings):
    return NeuralRegressor(**{"learning_rate": 0.01} | SGD | settings)
