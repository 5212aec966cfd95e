"""Ops by family. To add one: its declaration in its family's file, and a row in the tests' table of cases.

Each op is found here by its name, as ``ops.softmax``, and in its family's module. One op shares its module's name:
``ops.windows.windows``. The families in `FAMILIES` are imported when an op of theirs is first used.
"""

from importlib import import_module

from microfw.autograd.op import Applicable, Cost, elementwise_cost, zero_cost
from microfw.autograd.registry import OPS
from microfw.ops import effects, elementwise, indexing, layout, linalg, loss, reduction

FAMILIES = (
    "convolution",
    "diagonals",
    "factors",
    "images",
    "joining",
    "normalization",
    "pooling",
    "products",
    "recurrent",
    "repeating",
    "windows",
)

IMAGES = ("avg_pool2d", "conv1d", "conv2d", "conv_transpose2d", "max_pool2d")
"""Functions of `images`, which call ops."""

__all__ = [
    "Cost",
    "effects",
    "elementwise",
    "elementwise_cost",
    "indexing",
    "layout",
    "linalg",
    "loss",
    "reduction",
    "zero_cost",
    *FAMILIES,
    *IMAGES,
]


def _own(name: str) -> bool:
    """Return True if a name is that of an op of the library, and not of one that a user has declared."""
    return name in OPS and (OPS[name].value.__module__ or "").startswith("microfw.ops.")


def __getattr__(name: str) -> Applicable:
    if name in FAMILIES:
        return import_module(f"microfw.ops.{name}")
    if name in IMAGES:
        found = getattr(import_module("microfw.ops.images"), name)
    else:
        if not _own(name) and not name.startswith("_"):  # Python itself asks for such names
            import_module("microfw.ops.whole")
        if not _own(name):
            raise AttributeError(f"module 'microfw.ops' has no attribute {name!r}", name=name)
        found = OPS[name].call
    globals()[name] = found
    return found  # type: ignore[no-any-return]


def __dir__() -> list[str]:
    import_module("microfw.ops.whole")
    return sorted({*__all__, *filter(_own, OPS)})
