"""Drawing of the graph of one step: `draw`."""

from typing import TYPE_CHECKING

from microfw._lazy import attach

if TYPE_CHECKING:
    from microfw.visualization.drawing import Drawing, draw
else:
    __getattr__ = attach(
        "microfw.visualization",
        {
            "drawing": "Drawing draw",
        },
    )

__all__ = ["Drawing", "draw"]


def __dir__() -> list[str]:
    return __all__
