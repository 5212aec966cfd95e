"""The whole table of ops, one row for each; the rows are next to this file, by family."""

from __future__ import annotations

from tests.cases import (
    convolution,
    elementwise,
    indexing,
    layout,
    linalg,
    loss,
    normalization,
    outside,
    recurrent,
    reduction,
)
from tests.cases.samples import Case, Sample, backwards, floats, plain, repeated, transposed

__all__ = [
    "CASES",
    "DIFFERENTIABLE",
    "NAMES",
    "SAMPLES",
    "backwards",
    "floats",
    "plain",
    "repeated",
    "title",
    "transposed",
]

CASES: list[Case] = [
    case
    for family in (
        elementwise, reduction, layout, indexing, linalg, loss, normalization, recurrent, convolution, outside,
    )
    for case in family.CASES
]  # fmt: skip
NAMES = [case.name for case in CASES]
SAMPLES = [(case, sample) for case in CASES for sample in case.samples]
DIFFERENTIABLE = [(case, sample) for case, sample in SAMPLES if case.op.differentiable]


def title(value):
    """Name a case or a sample in a test's id."""
    return value.name if isinstance(value, Case) else value.label if isinstance(value, Sample) else None
