"""Ops by family. To add one: one declaration in its family's file, one row in the tests' case table.

A family in `FAMILIES` is imported when it is first used, and has its ops' names there. Each op is found here by its
name, as ``ops.softmax``, besides in its family's module. One shares its module's name, and is found in it:
``ops.windows.windows``.
"""

from typing import TYPE_CHECKING

from microfw._lazy import attach
from microfw.autograd.op import Applicable, Cost, elementwise_cost, zero_cost
from microfw.autograd.registry import OPS
from microfw.ops import effects, elementwise, indexing, layout, linalg, loss, reduction

if TYPE_CHECKING:
    from microfw.ops import (
        convolution,
        diagonals,
        factors,
        joining,
        normalization,
        pooling,
        products,
        recurrent,
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
    "elementwise_cost",
    "elementwise",
    "factors",
    "indexing",
    "joining",
    "layout",
    "linalg",
    "loss",
    "max_pool2d",
    "zero_cost",
    "normalization",
    "effects",
    "pooling",
    "products",
    "recurrent",
    "reduction",
    "repeating",
    "windows",
]

FAMILIES = {
    "convolution": "conv conv_transpose",
    "diagonals": "",
    "factors": "cholesky det inv slogdet solve",
    "joining": "concatenate stack",
    "normalization": "length masked_softmax normalize unit",
    "pooling": "avg_pool max_pool",
    "products": "",
    "recurrent": "recur",
    "repeating": "roll",
    "windows": "fold windows",
}
"""Families that are imported when one of their ops is first used, or a function of NumPy that stands for one."""

_later = attach(
    "microfw.ops",
    FAMILIES | {"images": "avg_pool2d conv1d conv2d conv_transpose2d max_pool2d"},
)


def _own(name: str) -> bool:
    """Whether a name is that of a declared op, and not of one that a user has declared."""
    return name in OPS and (OPS[name].value.__module__ or "").startswith("microfw.ops.")


def __getattr__(name: str) -> Applicable:
    if not _own(name):
        return _later(name)  # type: ignore[no-any-return]
    globals()[name] = found = OPS[name].call  # to be found at once the next time
    return found  # type: ignore[return-value]


def __dir__() -> list[str]:
    return sorted({*__all__, *filter(_own, OPS), *" ".join(FAMILIES.values()).split()})
