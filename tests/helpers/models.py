"""Small classifiers and batches for them."""

from __future__ import annotations

import numpy as np

import microfw as mf
from microfw import nn


def leaf(*values, dtype=np.float64):
    return mf.tensor(np.array(values, dtype), requires_grad=True)


def classifier(rng=0, widths=(6, 8, 5, 3)):
    rng = np.random.default_rng(rng)
    layers = []
    for k, (a, b) in enumerate(zip(widths, widths[1:], strict=False)):
        layers += ([nn.ReLU()] if k else []) + [nn.Dense(a, b, rng=rng)]
    return nn.Sequential(*layers)


def batch(n=16, features=6, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, features)).astype(np.float32), rng.integers(0, classes, n)


def model(rng=0):
    return classifier(rng, (6, 8, 3))
