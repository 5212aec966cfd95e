"""Runs scikit-learn's checks of estimators, with the array API on, and prints the results as JSON.

SciPy reads the environment when it is imported, so this is a process of its own: `tests/estimators/test_estimators.py` starts it.
"""

from __future__ import annotations

import json
import os
import sys
import warnings

os.environ["SCIPY_ARRAY_API"] = "1"

from sklearn.utils.estimator_checks import check_estimator

from microfw import nn, optim
from microfw.estimators import NeuralClassifier, NeuralRegressor


def made(n_features, n_outputs, rng):
    """A custom network."""
    body = nn.Sequential(nn.Dense(n_features, 16, rng=rng), nn.SiLU())
    return nn.Sequential(body, nn.Residual(nn.Dense(16, 16, rng=rng)), nn.Tanh(), nn.Dense(16, n_outputs, rng=rng))


def falling(step):
    """A custom schedule."""
    return 0.2 / (1 + step / 50)


SGD = {"optimizer": "sgd", "max_grad_norm": 1.0}
SMALL = SGD | {"hidden_layer_sizes": (16,), "learning_rate": 0.05, "max_iter": 50}

CONFIGURATIONS = {
    "default": {},
    "small": SMALL,
    "two layers": SGD | {"hidden_layer_sizes": (32, 16), "activation": "tanh", "optimizer_params": {"momentum": 0.8}},
    "layer norm": {"hidden_layer_sizes": 32, "norm": "layer", "activation": "gelu"},
    "linear": SGD | {"hidden_layer_sizes": (), "learning_rate": 0.05, "n_iter_no_change": None},
    "float64, in order": SMALL | {"dtype": "float64", "shuffle": False, "batch_size": 64},
    "own network": SMALL | {"module": made},
    "another loss": SMALL,
    "own optimizer, schedule, profile": SMALL | {"optimizer": optim.SGD, "learning_rate": falling, "profile": True},
}
LOSSES = {NeuralClassifier: nn.BCEWithLogitsLoss(), NeuralRegressor: "huber"}

# With these a row of weight 2 cannot be the row twice: it gets another noise, another share of the batch's
# statistics, or another place in the split. All other checks must pass.
UNLIKE = {
    "dropout": SMALL | {"dropout": 0.1},
    "batch norm": SMALL | {"norm": "batch"},
    "early stopping": SGD
    | {"hidden_layer_sizes": (16,), "learning_rate": 0.05, "early_stopping": True, "scoring": "loss"},
}


def results(kind, name):
    """Return what became of each check: (name, status, what was raised)."""
    settings = CONFIGURATIONS.get(name) or UNLIKE.get(name) or {}
    if name == "another loss":
        settings = settings | {"loss": LOSSES[kind]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = check_estimator(kind(**settings), on_fail=None, on_skip=None)
    return [(r["check_name"], r["status"], " ".join(str(r["exception"]).split())[:300]) for r in found]


if __name__ == "__main__":
    kinds = (NeuralClassifier, NeuralRegressor)
    print(json.dumps({name: {kind.__name__: results(kind, name) for kind in kinds} for name in sys.argv[1:]}))
