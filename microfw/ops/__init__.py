"""Ops by family. To add one: one declaration in its family's file, one row in the tests' case table."""

from microfw.op import Cost, each, moves
from microfw.ops import (
    diagonals,
    elementwise,
    factors,
    indexing,
    joining,
    layout,
    linalg,
    loss,
    normalization,
    products,
    recurrent,
    reduction,
    repeating,
)

__all__ = [
    "Cost",
    "diagonals",
    "each",
    "elementwise",
    "factors",
    "indexing",
    "joining",
    "layout",
    "linalg",
    "loss",
    "moves",
    "normalization",
    "products",
    "recurrent",
    "reduction",
    "repeating",
]
