"""Rows of the indexing ops."""

from __future__ import annotations

import numpy as np

from cases import strategies
from cases.samples import Case, Sample, floats, transposed


def put(x, *, shape, key):
    zeros = np.zeros(shape)
    np.add.at(zeros, key, x)
    return zeros


KEYS = {
    "integer": 1,
    "negative integer": -1,
    "slice": slice(0, 2),
    "reversed": (slice(None, None, -1), slice(None, None, 2)),
    "ellipsis": (..., 0),
    "new axis": (None, slice(None), None),
    "one entry": (2, 3),
    "nothing": slice(0, 0),
    "integers with repeats": np.array([0, 2, 0, 0]),
    "two integer arrays with repeats": (np.array([0, 0, 2]), np.array([1, 1, 3])),
    "integers in two axes": np.array([[0, 1], [1, 1]]),
    "mask": np.arange(12).reshape(3, 4) % 3 == 0,
    "mask of rows": np.array([True, False, True]),
    "empty mask": np.zeros((3, 4), bool),
    "slice and integers": (slice(None), np.array([3, 3, 0])),
    "integer and integers": (0, np.array([1, 1])),
}


TAKEN = np.array([[0, 0, 2], [1, 1, 1]])


def indexed():
    samples = [Sample(label, (floats((3, 4)),), {"key": key}) for label, key in KEYS.items()]
    return samples + [
        Sample("transposed", (floats((4, 3)),), {"key": (slice(1, 3), 0)}, transposed),
        Sample("0-d", (floats(()),), {"key": ()}),
        Sample("empty", (np.zeros((0, 3)),), {"key": slice(None)}),
    ]


def placed():
    return [
        Sample(label, (floats(np.shape(np.zeros((3, 4))[key])),), {"shape": (3, 4), "key": key})
        for label, key in KEYS.items()
    ]


CASES = [
    Case("getitem", lambda x, key: x[key], indexed(), protocol=False, random=strategies.getitem),
    Case("put", put, placed(), protocol=False, random=strategies.put),
    Case(
        "take_along_axis",
        np.take_along_axis,
        [
            Sample("last axis, repeats", (floats((2, 4)), TAKEN), {"axis": -1}),
            Sample("first axis", (floats((3, 3)), TAKEN), {"axis": 0}),
            Sample("argsort", (floats((2, 3)), np.argsort(floats((2, 3)), axis=1)), {"axis": 1}),
            Sample("vector", (floats((4,)), np.array([3, 3, 0])), {"axis": 0}),
            Sample("nothing", (floats((2, 4)), np.zeros((2, 0), int)), {"axis": 1}),
            Sample("empty", (np.zeros((0, 4)), np.zeros((0, 2), int)), {"axis": 1}),
            Sample("transposed", (floats((4, 2)), TAKEN), {"axis": 1}, transposed),
        ],
        without={"0-d": "there is no axis to take along"},
        random=strategies.take_along_axis,
    ),
]
