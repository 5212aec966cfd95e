"""Data: datasets from arrays and frames, scikit-learn's toy datasets, and batches."""

from typing import TYPE_CHECKING

from microfw._lazy import attach

if TYPE_CHECKING:
    from microfw.data.batching import batches
    from microfw.data.dataset import Dataset
    from microfw.data.toys import load, names
else:
    __getattr__ = attach(
        "microfw.data",
        {
            "batching": "batches",
            "dataset": "Dataset",
            "toys": "load names",
        },
    )

__all__ = ["Dataset", "batches", "load", "names"]


def __dir__() -> list[str]:
    return __all__
