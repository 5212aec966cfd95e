"""Rows of the layout ops."""

from __future__ import annotations

import numpy as np

from tests.cases import strategies
from tests.cases.samples import Case, Sample, backwards, floats, repeated, transposed

CASES = [
    Case(
        "reshape",
        lambda x, shape: np.reshape(x, shape),  # by position: its name is newer than NumPy 2.0
        [
            Sample("matrix", (floats((3, 4)),), {"shape": (2, 6)}),
            Sample("flat", (floats((3, 4)),), {"shape": -1}),
            Sample("guess", (floats((2, 3, 4)),), {"shape": (4, -1)}),
            Sample("to 0-d", (floats((1, 1)),), {"shape": ()}),
            Sample("from 0-d", (floats(()),), {"shape": (1, 1)}),
            Sample("empty", (np.zeros((0, 3)),), {"shape": (3, 0)}),
            Sample("transposed", (floats((3, 4)),), {"shape": (6, 2)}, transposed),
            Sample("negative stride", (floats((3, 4)),), {"shape": (6, 2)}, backwards),
            Sample("repeated", (floats((4,)),), {"shape": (6, 2)}, repeated),
        ],
        random=strategies.reshape,
    ),
    Case(
        "transpose",
        np.transpose,
        [
            Sample("matrix", (floats((3, 4)),)),
            Sample("cycle", (floats((2, 3, 4)),), {"axes": (1, 2, 0)}),
            Sample("negative axes", (floats((2, 3, 4)),), {"axes": (-1, 0, -2)}),
            Sample("0-d", (floats(()),)),
            Sample("vector", (floats((3,)),)),
            Sample("empty", (np.zeros((0, 3)),)),
            Sample("negative stride", (floats((3, 4)),), {}, backwards),
        ],
        random=strategies.transpose,
    ),
    Case(
        "broadcast_to",
        lambda x, to: np.broadcast_to(x, to),
        [
            Sample("row", (floats((4,)),), {"to": (3, 4)}),
            Sample("column", (floats((3, 1)),), {"to": (2, 3, 4)}),
            Sample("0-d", (floats(()),), {"to": (2, 3)}),
            Sample("same", (floats((2, 3)),), {"to": (2, 3)}),
            Sample("to nothing", (floats((1, 3)),), {"to": (0, 3)}),
            Sample("empty", (np.zeros((0, 3)),), {"to": (2, 0, 3)}),
            Sample("transposed", (floats((3, 1)),), {"to": (2, 1, 3)}, transposed),
        ],
        protocol=lambda x, to: np.broadcast_to(x, to),
        random=strategies.broadcast_to,
    ),
    Case(
        "concatenate",
        lambda *xs, axis=0: np.concatenate(xs, axis=axis),
        [
            Sample("two", (floats((2, 3), seed=1), floats((1, 3), seed=2))),
            Sample("three, last axis", tuple(floats((2, n), seed=n) for n in (1, 2, 3)), {"axis": -1}),
            Sample("one", (floats((2, 3)),)),
            Sample("with an empty one", (floats((2, 3)), np.zeros((0, 3)))),
            Sample("transposed", (floats((3, 2), seed=1), floats((3, 2), seed=2)), {"axis": 1}, transposed),
        ],
        protocol=lambda *xs, axis=0: np.concatenate(xs, axis=axis),
        without={"0-d": "there is no axis to join along"},
        random=strategies.concatenate,
    ),
    Case(
        "stack",
        lambda *xs, axis=0: np.stack(xs, axis=axis),
        [
            Sample("two", (floats((2, 3), seed=1), floats((2, 3), seed=2))),
            Sample("three, last axis", tuple(floats((2, 3), seed=n) for n in (1, 2, 3)), {"axis": -1}),
            Sample("second axis", (floats((2, 3), seed=1), floats((2, 3), seed=2)), {"axis": 1}),
            Sample("one", (floats((2, 3)),)),
            Sample("0-d", (floats((), seed=1), floats((), 1, 2, seed=2))),
            Sample("empty", (np.zeros((0, 3)), np.zeros((0, 3))), {"axis": 1}),
            Sample("transposed", (floats((3, 2), seed=1), floats((3, 2), seed=2)), {"axis": 1}, transposed),
            Sample("negative stride", (floats((3,), seed=1), floats((3,), seed=2)), {"axis": 1}, backwards),
            Sample("repeated", (floats((2,), seed=1), floats((2,), seed=2)), {}, repeated),
        ],
        protocol=lambda *xs, axis=0: np.stack(xs, axis=axis),
    ),
    Case(
        "roll",
        np.roll,
        [
            Sample("flat", (floats((3, 4)),), {"shift": 5}),
            Sample("rows", (floats((3, 4)),), {"shift": 1, "axis": 0}),
            Sample("columns, back", (floats((3, 4)),), {"shift": -1, "axis": -1}),
            Sample("both", (floats((3, 4)),), {"shift": (1, 2), "axis": (0, 1)}),
            Sample("one shift for two axes", (floats((3, 4)),), {"shift": 2, "axis": (1, 0)}),
            Sample("twice the same axis", (floats((3, 4)),), {"shift": (1, 3), "axis": (1, 1)}),
            Sample("0-d", (floats(()),), {"shift": 1}),
            Sample("empty", (np.zeros((0, 3)),), {"shift": 1, "axis": 1}),
            Sample("transposed", (floats((3, 4)),), {"shift": 5}, transposed),
            Sample("negative stride", (floats((3, 4)),), {"shift": 1, "axis": 0}, backwards),
            Sample("repeated", (floats((4,)),), {"shift": 1, "axis": 0}, repeated),
        ],
    ),
]
