"""Ops by family. To add one: one declaration in its family's file, one row in the tests' case table.

Each op is found here by its name, as ``ops.softmax``, besides in its family's module. One shares its module's
name, and is found in it: ``ops.windows.windows``.
"""

from microfw.graph import OPS
from microfw.op import Applicable, Cost, each, moves
from microfw.ops import (
    convolution,
    diagonals,
    effects,
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
from microfw.ops.images import avg_pool2d, conv1d, conv2d, conv_transpose2d, max_pool2d

__all__ = [
    "Cost",
    "avg_pool2d",
    "conv1d",
    "conv2d",
    "conv_transpose2d",
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
    "max_pool2d",
    "moves",
    "normalization",
    "effects",
    "pooling",
    "products",
    "recurrent",
    "reduction",
    "repeating",
    "windows",
]

_NAMED = {name: op.call for name, op in OPS.items()}
"""What users declare is theirs, and not found here."""


def __getattr__(name: str) -> Applicable:
    if name in _NAMED:
        return _NAMED[name]  # type: ignore[return-value]
    raise AttributeError(f"module 'microfw.ops' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_NAMED})
