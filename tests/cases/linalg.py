"""Rows of linear algebra."""

from __future__ import annotations

import numpy as np

from tests.cases import strategies
from tests.cases.samples import Case, Sample, backwards, floats, repeated, transposed


def products(*shapes):
    return [Sample(f"{a} @ {b}", (floats(a, seed=1), floats(b, seed=2))) for a, b in shapes]


def regular(*batch, n=3, seed=1):
    """Matrices far from singular ones."""
    return floats((*batch, n, n), -1, 1, seed=seed) + 2 * np.eye(n)


def det(x):
    """Determinant of what has an inverse; of a singular matrix it has no derivative."""
    if np.any(np.linalg.svd(x, compute_uv=False) < 1e-6):
        raise np.linalg.LinAlgError
    return np.linalg.det(x)


def definite(*batch, n=3):
    """Symmetric positive definite matrices."""
    half = floats((*batch, n, n), -1, 1)
    return half @ np.swapaxes(half, -1, -2) + np.eye(n)


def of_square(make):
    return [
        Sample("matrix", (make(),)),
        Sample("1 x 1", (make(n=1),)),
        Sample("batch", (make(2),)),
        Sample("batch of batches", (make(2, 2, n=2),)),
        Sample("no rows", (np.zeros((0, 0)),)),
        Sample("no matrices", (np.zeros((0, 3, 3)),)),
        Sample("transposed", (make(),), {}, transposed),
        Sample("repeated", (make(n=2),), {}, repeated),
    ]


SQUARE = {"0-d": "a matrix has two axes"}

CASES = [
    Case(
        "matmul",
        np.matmul,
        [
            *products(
                ((3, 4), (4, 2)),
                ((4,), (4,)),
                ((4,), (4, 2)),
                ((3, 4), (4,)),
                ((2, 3, 4), (4, 5)),
                ((2, 3, 4), (2, 4, 5)),
                ((2, 1, 3, 4), (5, 4, 2)),
                ((3, 4), (2, 4, 5)),
                ((2, 3, 4), (4,)),
                ((4,), (2, 4, 3)),
                ((1, 3, 4), (2, 4, 5)),
                ((0, 4), (4, 2)),
                ((3, 0), (0, 2)),
                ((0, 3, 4), (4, 2)),
            ),
            Sample("transposed", (floats((4, 3), seed=1), floats((2, 4), seed=2)), {}, transposed),
            Sample("negative stride", (floats((3, 4), seed=1), floats((4, 2), seed=2)), {}, backwards),
            Sample("repeated", (floats((2, 3), seed=1), floats((3, 2), seed=2)), {}, repeated),
        ],
        without={"0-d": "a product of matrices has at least one axis; NumPy refuses a number"},
        random=strategies.matmul,
    ),
    Case(
        "linear",
        lambda x, w, b: x @ w + b,
        [
            Sample("batch", (floats((5, 3), seed=1), floats((3, 2), seed=2), floats((2,), seed=3))),
            Sample("vector", (floats((3,), seed=1), floats((3, 2), seed=2), floats((2,), seed=3))),
            Sample("three axes", (floats((2, 4, 3), seed=1), floats((3, 2), seed=2), floats((2,), seed=3))),
            Sample("one row", (floats((1, 3), seed=1), floats((3, 2), seed=2), floats((2,), seed=3))),
            Sample("bias of one row", (floats((5, 3), seed=1), floats((3, 2), seed=2), floats((1, 2), seed=3))),
            Sample("bias of one number", (floats((5, 3), seed=1), floats((3, 2), seed=2), floats((1,), seed=3))),
            Sample("many rows", (floats((4100, 1), seed=1), floats((1, 2), seed=2), floats((2,), seed=3))),
            Sample("no rows", (np.zeros((0, 3)), floats((3, 2), seed=2), floats((2,), seed=3))),
            Sample(
                "transposed", (floats((3, 5), seed=1), floats((2, 3), seed=2), floats((2,), seed=3)), {}, transposed
            ),
            Sample(
                "negative stride", (floats((5, 3), seed=1), floats((3, 2), seed=2), floats((2,), seed=3)), {}, backwards
            ),
        ],
        protocol=False,
        without={"0-d": "the features are an axis of x"},
        random=strategies.linear,
    ),
    Case("inv", np.linalg.inv, of_square(regular), without=SQUARE),
    Case("det", det, of_square(regular), protocol=np.linalg.det, without=SQUARE),
    Case(
        "slogdet",
        lambda x: np.stack(np.linalg.slogdet(x)),
        [*of_square(regular), Sample("negative", (regular()[[1, 0, 2]],))],
        protocol=False,
        without=SQUARE,
    ),
    Case(
        "cholesky",
        np.linalg.cholesky,
        [*of_square(definite), Sample("lower half", (np.tril(definite()),))],
        without=SQUARE,
    ),
    Case(
        "solve",
        np.linalg.solve,
        [
            Sample("vector", (regular(), floats((3,), seed=2))),
            Sample("columns", (regular(), floats((3, 2), seed=2))),
            Sample("batch", (regular(2), floats((2, 3, 2), seed=2))),
            Sample("batch of matrices, one vector", (regular(2), floats((3,), seed=2))),
            Sample("batch of matrices, one matrix", (regular(2), floats((3, 1), seed=2))),
            Sample("one matrix, batch of columns", (regular(), floats((2, 3, 2), seed=2))),
            Sample("both repeated", (regular(2, 1), floats((2, 3, 1), seed=2))),
            Sample("no columns", (regular(), np.zeros((3, 0)))),
            Sample("no rows", (np.zeros((0, 0)), np.zeros((0, 2)))),
            Sample("transposed", (regular(), floats((2, 3), seed=2)), {}, transposed),
            Sample("repeated", (regular(n=2), floats((2, 1), seed=2)), {}, repeated),
        ],
        without=SQUARE,
    ),
]
