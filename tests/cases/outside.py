"""Rows of ops that draw, or call functions."""

from __future__ import annotations

import numpy as np

from tests.cases.samples import Case, Sample, floats, transposed


class Same:
    """A generator that draws the same numbers each time."""

    def random(self, shape, dtype):
        return np.random.default_rng(0).random(shape, dtype)


def mask(x, p, rng):
    return np.where(rng.random(x.shape, np.float32) >= p, 1 / (1 - p), 0)


def called(x, by, args=()):
    return by(x, *args)


CASES = [
    Case(
        "dropout_mask",
        mask,
        [
            Sample("half", (floats((4, 3)),), {"p": 0.5, "rng": Same()}),
            Sample("transposed", (floats((4, 3)),), {"p": 0.25, "rng": Same()}, transposed),
            Sample("empty", (np.zeros((0, 3)),), {"p": 0.25, "rng": Same()}),
            Sample("0-d", (floats(()),), {"p": 0.25, "rng": Same()}),
        ],
        protocol=False,
    ),
    Case(
        "pure_callback",
        called,
        [
            Sample("one argument", (floats((4, 3)),), {"by": np.argsort}),
            Sample("empty", (np.zeros((0, 3)),), {"by": np.ravel}),
            Sample("0-d", (floats(()),), {"by": np.ravel}),
            Sample("more", (floats((4, 3)),), {"by": np.take, "args": (np.array([2, 0]), 0)}),
        ],
        protocol=False,
    ),
]
