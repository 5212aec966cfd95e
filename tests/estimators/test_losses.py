"""Losses of estimators are copied; a change of the object that was passed is honoured at the next call."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

pytest.importorskip("sklearn", "1.9")

from sklearn.datasets import load_iris

from microfw import nn
from microfw.estimators import NeuralClassifier

X, Y = load_iris(return_X_y=True)


def made(loss):
    options = {"random_state": 0, "max_iter": 2, "warm_start": True, "batch_size": 50}
    return NeuralClassifier((8,), loss=loss, **options).fit(X, Y)


def weights(model):
    return np.concatenate([p.data.ravel() for p in model.module_.parameters()])


class Inner(nn.Loss):
    def __init__(self, by=1.0):
        super().__init__()
        self.inner, self.by = nn.CrossEntropyLoss(), np.array([by])

    def forward(self, outputs, targets):
        return self.inner(outputs, targets) * self.by[0]


def smooth(loss):
    loss.label_smoothing = 0.5


def smooth_inside(loss):
    loss.inner.label_smoothing = 0.5


def triple(loss):
    loss.by = np.array([3.0])


@pytest.mark.parametrize("call", [lambda m: m.fit(X, Y), lambda m: m.partial_fit(m.X, Y)])
@pytest.mark.parametrize(("loss", "change"), [(nn.CrossEntropyLoss, smooth), (Inner, smooth_inside), (Inner, triple)])
def test_a_loss_changed_in_place_is_honoured(loss, change, call):
    one, two, three = (made(loss()) for _ in range(3))
    for m in (one, two, three):
        m.X = X.astype(m._learner.dtype)
        call(m)
    kept = two._learner.loss
    call(pickle.loads(pickle.dumps(two)))
    call(two)
    assert two._learner.loss is kept
    change(one.loss)
    other = loss()
    change(other)
    call(one)
    call(three.set_params(loss=other))
    assert one.loss_ != two.loss_
    np.testing.assert_array_equal(weights(one), weights(three))
