"""Ops by family. To add one: one declaration in its family's file, one row in the tests' case table."""

from microfw.op import Cost, each, moves
from microfw.ops import elementwise, indexing, layout, linalg, loss, reduction

__all__ = ["Cost", "each", "elementwise", "indexing", "layout", "linalg", "loss", "moves", "reduction"]
