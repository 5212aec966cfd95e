"""Rows of ops that draw, or call functions."""

from __future__ import annotations

import numpy as np

from tests.cases.samples import Case, Sample, floats, transposed


class Same:
    """A generator that draws the same numbers each time."""

    def random(self, shape, dtype):
        return np.random.default_rng(0).random(shape, dtype)


class SameBits:
    """A generator of raw numbers that draws the same each time."""

    @property
    def bit_generator(self):
        return np.random.SFC64(0)


def mask(x, p, rng):
    if isinstance(rng, Same):
        kept = rng.random(x.shape, np.float32) >= p
    else:  # both halves of each number, the lower one first
        numbers = [int(n) for n in rng.bit_generator.random_raw(x.size)]
        halves = [half / 2**32 for n in numbers for half in (n % 2**32, n >> 32)]
        kept = np.reshape(halves[: x.size], x.shape) < 1 - p
    return np.where(kept, 1 / (1 - p), 0)


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
            Sample("raw numbers", (floats((9, 7)),), {"p": 0.3, "rng": SameBits()}),
            Sample("raw numbers, transposed", (floats((4, 3)),), {"p": 0.75, "rng": SameBits()}, transposed),
            Sample("raw numbers, empty", (np.zeros((0, 3)),), {"p": 0.25, "rng": SameBits()}),
            Sample("raw numbers, 0-d", (floats(()),), {"p": 0.25, "rng": SameBits()}),
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
