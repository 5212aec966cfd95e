"""Rows of the fused losses."""

from __future__ import annotations

import numpy as np
import scipy.special

from tests.cases import strategies
from tests.cases.reduction import log_softmax
from tests.cases.samples import Case, Sample, backwards, choose, floats, transposed

LABELS = np.array([2, 0, 1, 2, 2])


def cross_entropy(logits, labels):
    return -np.mean(log_softmax(logits)[np.arange(len(labels)), labels])


def bce(z, t):
    p = scipy.special.expit(z)
    return -t * np.log(p) - (1 - t) * np.log(1 - p)


def weighted_bce(z, ones, zeros):
    p = scipy.special.expit(z)
    return -ones * np.log(p) - zeros * np.log(1 - p)


def squared_error(x, t):
    return np.mean(np.square(x - t))


CASES = [
    Case(
        "cross_entropy",
        cross_entropy,
        [
            Sample("batch", (floats((5, 3)), LABELS)),
            Sample("one row", (floats((1, 3)), np.array([1]))),
            Sample("many classes", (floats((3, 130)), np.array([129, 0, 7]))),
            Sample("one class", (floats((2, 1)), np.array([0, 0]))),
            Sample("transposed", (floats((3, 5)), LABELS), {}, transposed),
            Sample("negative stride", (floats((5, 3)), LABELS), {}, backwards),
        ],
        protocol=False,
        without={"0-d": "logits are (N, C)", "empty": "the mean over no rows is an error"},
        random=strategies.cross_entropy,
        analytic=lambda z, labels: np.mean(np.log(np.sum(np.exp(z), axis=1)) - z[np.arange(len(labels)), labels]),
    ),
    Case(
        "squared_error",
        squared_error,
        [
            Sample("batch", (floats((5, 3), seed=1), floats((5, 3), seed=2))),
            Sample("column", (floats((4, 1), seed=1), floats((4, 1), seed=2))),
            Sample("vector", (floats((7,), seed=1), floats((7,), seed=2))),
            Sample("0-d", (floats(()), np.array(0.25))),
            Sample("transposed", (floats((3, 5), seed=1), floats((3, 5), seed=2)), {}, transposed),
            Sample("negative stride", (floats((5, 3), seed=1), floats((5, 3), seed=2)), {}, backwards),
        ],
        protocol=False,
        without={"empty": "the mean over no entries is an error"},
        random=strategies.squared_error,
    ),
    Case(
        "bce_with_logits",
        bce,
        [
            Sample("labels", (floats((3, 4), gap=0.1), choose(0, 3, 4) * 1.0)),
            Sample("probabilities", (floats((3, 4), gap=0.1), floats((3, 4), 0.1, 0.8, seed=1))),
            Sample("0-d", (floats(()), np.array(1.0))),
            Sample("empty", (np.zeros((0, 1)), np.zeros((0, 1)))),
            Sample("transposed", (floats((3, 4)), floats((3, 4), 0.1, 0.8, seed=1)), {}, transposed),
        ],
        protocol=False,
        analytic=lambda z, t: np.log1p(np.exp(z)) - t * z,
    ),
    Case(
        "weighted_bce",
        weighted_bce,
        [
            Sample("weights", (floats((3, 4), gap=0.1), floats((3, 4), 0.1, 5, seed=1), floats((3, 4), 0.1, 0.8))),
            Sample("0-d", (floats(()), np.array(3.0), np.array(1.0))),
            Sample("empty", (np.zeros((0, 1)), np.zeros((0, 1)), np.zeros((0, 1)))),
            Sample(
                "transposed", (floats((3, 4)), floats((3, 4), 0.1, 5, seed=1), floats((3, 4), 0.1, 0.8)), {}, transposed
            ),
        ],
        protocol=False,
        analytic=lambda z, a, b: (a + b) * np.log1p(np.exp(z)) - a * z,
    ),
]
