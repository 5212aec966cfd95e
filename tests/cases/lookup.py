"""Rows of lookups in a table."""

from __future__ import annotations

import numpy as np

from cases.samples import Case, Sample, backwards, floats, transposed


def lookup(table, indices, padding=None):
    return table[indices] if padding is None else np.where((indices == padding)[..., None], 0, table[indices])


def add_rows(x, indices, rows):
    made = np.zeros((rows, x.shape[-1]))
    np.add.at(made, indices, x)
    return made


IDS = np.array([[2, 0, 2, 3], [3, 3, 1, 2]])

CASES = [
    Case(
        "lookup",
        lookup,
        [
            Sample("vector", (floats((5, 3)), IDS[0])),
            Sample("matrix", (floats((5, 3)), IDS)),
            Sample("one", (floats((5, 3)), np.array(4))),
            Sample("padding", (floats((5, 3)), IDS), {"padding": 3}),
            Sample("small integers", (floats((5, 3)), IDS.astype(np.uint8))),
            Sample("no indices", (floats((5, 3)), np.zeros((0, 2), int))),
            Sample("transposed", (floats((3, 5)), IDS), {}, transposed),
            Sample("negative stride", (floats((5, 3)), IDS), {"padding": 0}, backwards),
        ],
        protocol=False,
    ),
    Case(
        "add_rows",
        add_rows,
        [
            Sample("vector", (floats((4, 3)), IDS[0]), {"rows": 5}),
            Sample("matrix", (floats((2, 4, 3)), IDS), {"rows": 5}),
            Sample("one", (floats((3,)), np.array(4)), {"rows": 5}),
            Sample("small integers", (floats((4, 3)), IDS[0].astype(np.uint8)), {"rows": 5}),
            Sample("no indices", (np.zeros((0, 3)), np.zeros(0, int)), {"rows": 2}),
            Sample("transposed", (floats((3, 4)), IDS[1]), {"rows": 4}, transposed),
            Sample("negative stride", (floats((4, 3)), IDS[1]), {"rows": 4}, backwards),
        ],
        protocol=False,
    ),
]
