"""Ops by family. To add one: one declaration in its family's file, one row in the tests' case table."""

from microfw.op import Cost, each, moves
from microfw.ops import convolution, elementwise, indexing, layout, linalg, loss, pooling, reduction, windows

__all__ = [
    "Cost",
    "convolution",
    "each",
    "elementwise",
    "indexing",
    "layout",
    "linalg",
    "loss",
    "moves",
    "pooling",
    "reduction",
    "windows",
]
