"""Whether training comes to what scikit-learn's networks come to: same shape, rate, momentum, batches, epochs.

Run with ``pytest -m slow -s tests/parity`` to see the table.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import pytest

import microfw as mf
from microfw.data import load
from microfw.training import Trainer

SEEDS = range(20)
EPOCHS = 30
BATCH = 32
HIDDEN = 64
MOMENTUM = 0.9


class Case(NamedTuple):
    lr: float
    short: float  # how far below scikit-learn's mean score is still parity


CASES = {
    "digits": Case(0.05, 0.005),
    "iris": Case(0.05, 0.005),
    "wine": Case(0.05, 0.005),
    "breast_cancer": Case(0.05, 0.005),
    "moons": Case(0.05, 0.005),
    "circles": Case(0.05, 0.005),
    "blobs": Case(0.05, 0.005),
    "diabetes": Case(0.005, 0.02),
    "friedman1": Case(0.01, 0.02),
}


def ours(train, test, lr, seed):
    rng = np.random.default_rng(seed)
    classify = train.task == "classification"
    outputs = train.n_classes if classify else train.y.shape[1]
    model = mf.nn.Sequential(
        mf.nn.Dense(train.X.shape[1], HIDDEN, rng=rng), mf.nn.ReLU(), mf.nn.Dense(HIDDEN, outputs, rng=rng)
    )
    # MLPRegressor descends half of the squared error: half the rate on the whole is the same step.
    optimizer = mf.optim.SGD(model.parameters(), lr if classify else lr / 2, MOMENTUM, nesterov=True)
    loss, metric = (mf.nn.CrossEntropyLoss(), "accuracy") if classify else (mf.nn.MSELoss(), "r2")
    trainer = Trainer(model, loss, optimizer, metrics=[metric])
    trainer.fit(train, EPOCHS, BATCH, rng=rng, progress=False)
    return trainer.evaluate(test)[metric]


def theirs(train, test, lr, seed):
    from sklearn.neural_network import MLPClassifier, MLPRegressor

    kind = MLPClassifier if train.task == "classification" else MLPRegressor
    model = kind(
        hidden_layer_sizes=(HIDDEN,),
        solver="sgd",
        alpha=0,
        batch_size=BATCH,
        learning_rate_init=lr,
        momentum=MOMENTUM,
        nesterovs_momentum=True,
        max_iter=EPOCHS,
        tol=0,
        n_iter_no_change=10**6,
        random_state=seed,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it has not converged
        model.fit(train.X, train.y if train.y.ndim == 1 else train.y.ravel())
    return model.score(test.X, test.y)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_as_good_as_scikit_learn(name, capsys):
    case = CASES[name]
    pairs = []
    for seed in SEEDS:
        train, test = load(name, rng=seed)
        pairs.append((ours(train, test, case.lr, seed), theirs(train, test, case.lr, seed)))
    a, b = np.array(pairs).T
    error = (a - b).std(ddof=1) / np.sqrt(len(a))
    bound = max(case.short, 2 * error)
    with capsys.disabled():
        print(
            f"\n{name:13}  microfw {a.mean():.4f}  scikit-learn {b.mean():.4f}  "
            f"difference {(a - b).mean():+.4f} ± {error:.4f}  allowed {-bound:+.4f}",
            end="",
        )
    assert (a - b).mean() >= -bound
