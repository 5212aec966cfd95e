"""Rows of the indexing ops."""

from __future__ import annotations

import numpy as np

from tests.cases import strategies
from tests.cases.samples import Case, Sample, backwards, floats, repeated, transposed


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


ROWS = np.array([2, 0, 0, -1])


def scattered(x, indices, to, axis=0):
    zeros = np.zeros(to)
    np.add.at(zeros, (slice(None),) * (axis % len(to)) + (np.asarray(indices),), x)
    return zeros


def sortable():
    x = floats((3, 4))
    return [
        Sample("last axis", (x,)),
        Sample("first axis", (x,), {"axis": 0}),
        Sample("three axes", (floats((2, 3, 4)),), {"axis": 1}),
        Sample("ties", (np.array([1.0, 0.0, 1.0, 0.0]),)),
        Sample("empty", (np.zeros((0, 3)),)),
        Sample("transposed", (x,), {}, transposed),
        Sample("negative stride", (x,), {"axis": 0}, backwards),
    ]


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
        "take",
        lambda x, indices, axis=0: np.take(x, indices, axis=axis),
        [
            Sample("rows", (floats((3, 4)), ROWS)),
            Sample("columns", (floats((4, 3)), ROWS), {"axis": 1}),
            Sample("middle", (floats((2, 3, 2)), ROWS), {"axis": -2}),
            Sample("vector", (floats((3,)), ROWS)),
            Sample("a batch of rows", (floats((3, 2)), np.array([[0, 1, 1], [2, 2, -3]]))),
            Sample("one row", (floats((3, 4)), np.array(1))),
            Sample("no rows", (floats((3, 4)), np.zeros(0, int))),
            Sample("of width 0", (np.zeros((3, 0)), ROWS)),
            Sample("small integers", (floats((3, 4)), np.array([2, 0, 2], np.uint8))),
            Sample("a matrix of them", (floats((4, 3)), np.array([[2, 0, 2, 3], [3, 3, 1, 2]]))),
            Sample("transposed", (floats((4, 3)), ROWS), {}, transposed),
            Sample("negative stride", (floats((3, 4)), ROWS), {}, backwards),
            Sample("repeated", (floats((4,)), ROWS), {"axis": 0}, repeated),
        ],
        protocol=lambda x, indices, axis=0: np.take(x, indices, axis=axis),
        without={"0-d": "there is no axis to take along"},
    ),
    Case(
        "scatter",
        scattered,
        [
            Sample("rows", (floats((4, 2)), ROWS), {"to": (3, 2)}),
            Sample("columns", (floats((2, 4)), ROWS), {"to": (2, 3), "axis": 1}),
            Sample("middle", (floats((2, 4, 2)), ROWS), {"to": (2, 3, 2), "axis": -2}),
            Sample("vector", (floats((4,)), ROWS), {"to": (5,)}),
            Sample("a batch of rows", (floats((2, 2, 3)), np.array([[0, 1], [1, 1]])), {"to": (2, 3)}),
            Sample("one row", (floats((4,)), np.array(1)), {"to": (3, 4)}),
            Sample("one entry", (floats(()), np.array(1)), {"to": (3,)}),
            Sample("no rows", (np.zeros((0, 2)), np.zeros(0, int)), {"to": (3, 2)}),
            Sample("small integers", (floats((4, 3)), np.array([2, 0, 2, 3], np.uint8)), {"to": (5, 3)}),
            Sample("transposed", (floats((2, 4)), ROWS), {"to": (3, 2)}, transposed),
            Sample("repeated", (floats((2,)), ROWS[:3]), {"to": (3, 2)}, repeated),
        ],
        protocol=False,
    ),
    Case(
        "argsort",
        lambda x, axis=-1: np.argsort(x, axis=axis, kind="stable"),
        sortable(),
        without={"0-d": "there is no axis to sort along"},
    ),
    Case(
        "argwhere",
        np.argwhere,
        [
            Sample("matrix", (floats((3, 4)) * (np.arange(12).reshape(3, 4) % 3 == 0),)),
            Sample("mask", (np.array([True, False, True]),)),
            Sample("0-d", (np.array(2.0),)),
            Sample("empty", (np.zeros((0, 3)),)),
            Sample("nothing", (np.zeros((2, 3)),)),
        ],
    ),
    Case(
        "gather",
        lambda x, indices: x[tuple(indices)],
        [
            Sample("a matrix's entries", (floats((3, 4)), np.array([[0, 2, 2], [1, -1, -1]]))),
            Sample("rows", (floats((3, 4)), np.array([[0, 2, 0]]))),
            Sample("a table of entries", (floats((2, 3)), np.array([[[0, 1], [1, 1]], [[2, 0], [0, 0]]]))),
            Sample("none", (floats((2, 3)), np.zeros((2, 0), int))),
            Sample("empty", (np.zeros((0, 3)), np.zeros((2, 0), int))),
        ],
        without={"0-d": "there is no axis to take along"},
    ),
    Case(
        "take_along_axis",
        np.take_along_axis,
        [
            Sample("last axis, repeats", (floats((2, 4)), TAKEN), {"axis": -1}),
            Sample("first axis", (floats((3, 3)), TAKEN), {"axis": 0}),
            Sample("argsort", (floats((2, 3)), np.argsort(floats((2, 3)), axis=1)), {"axis": 1}),
            Sample("vector", (floats((4,)), np.array([3, 3, 0])), {"axis": 0}),
            Sample("nothing", (floats((2, 4)), np.zeros((2, 0), int)), {"axis": 1}),
            Sample("one row of indices for all", (floats((3, 4)), np.array([[1, 1, -1]])), {"axis": 1}),
            Sample("one row for all indices", (floats((1, 4)), TAKEN), {"axis": 1}),
            Sample("flat", (floats((2, 3)), np.array([5, 0, 0])), {"axis": None}),
            Sample("negative stride", (floats((2, 4)), TAKEN), {"axis": 1}, backwards),
            Sample("empty", (np.zeros((0, 4)), np.zeros((0, 2), int)), {"axis": 1}),
            Sample("transposed", (floats((4, 2)), TAKEN), {"axis": 1}, transposed),
        ],
        without={"0-d": "there is no axis to take along"},
        random=strategies.take_along_axis,
    ),
]
