"""Ops by family. To add one: one declaration in its family's file, one row in the tests' case table."""

from microfw.op import Cost, each, moves
from microfw.ops import (
    convolution,
    diagonals,
    elementwise,
    factors,
    indexing,
    joining,
    layout,
    linalg,
    loss,
    normalization,
    pooling,
    products,
    recurrent,
    reduction,
    repeating,
    windows,
)

__all__ = [
    "Cost",
    "convolution",
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
    "pooling",
    "products",
    "recurrent",
    "reduction",
    "repeating",
    "windows",
]
