"""Axes of Matplotlib, which is imported on first use."""

from __future__ import annotations

from typing import Any

from microfw.errors import ArgumentError


def new_axes(axes: Any, where: str = "plot") -> Any:
    """Return the given axes, or new ones."""
    if axes is not None:
        return axes
    try:
        import matplotlib.pyplot as plt
    except ImportError:
        raise ArgumentError(where, "Matplotlib", "none installed", 'pip install "microfw[plot]"') from None
    return plt.subplots(layout="constrained")[1]
