"""Ops by family. To add one: one declaration in its family's file, one row in the tests' case table."""

from microfw.ops import elementwise, indexing, layout, linalg, loss, reduction

__all__ = ["elementwise", "indexing", "layout", "linalg", "loss", "reduction"]
