"""Models for tests of the law."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from microfw import nn

NAMES = ["backprop", "forward mode", "central differences", "one-sided differences",
         "backprop", "chain rule per parameter", "paths, no memory"]  # fmt: skip


def dense(*sizes, activation=nn.ReLU, rng=0):
    rng = np.random.default_rng(rng)
    layers = []
    for a, b in pairwise(sizes):
        layers += [nn.Dense(a, b, rng=rng), activation()]
    return nn.Sequential(*layers[:-1])


X4 = np.random.default_rng(7).normal(size=(2, 4))
