"""Ops by family. To add one: one declaration in its family's file, one row in the tests' case table."""

from microfw.op import Cost, each, moves
from microfw.ops import (
    activations,
    diagonals,
    elementwise,
    factors,
    indexing,
    joining,
    layout,
    linalg,
    lookup,
    loss,
    normalization,
    products,
    recurrent,
    reduction,
    repeating,
)

__all__ = [
    "Cost",
    "activations",
    "diagonals",
    "each",
    "elementwise",
    "factors",
    "indexing",
    "joining",
    "layout",
    "linalg",
    "lookup",
    "loss",
    "moves",
    "normalization",
    "products",
    "recurrent",
    "reduction",
    "repeating",
]
