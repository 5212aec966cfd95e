"""Ops by family. To add one: one declaration in its family's file, one row in the tests' case table."""

from microfw.op import Cost, each, moves
from microfw.ops import (
    activations,
    elementwise,
    indexing,
    layout,
    linalg,
    lookup,
    loss,
    normalization,
    recurrent,
    reduction,
)

__all__ = [
    "Cost",
    "activations",
    "each",
    "elementwise",
    "indexing",
    "layout",
    "linalg",
    "lookup",
    "loss",
    "moves",
    "normalization",
    "recurrent",
    "reduction",
]
