"""The graph of one step as a picture: `draw`."""

from microfw.drawing.drawing import Drawing, draw

__all__ = ["Drawing", "draw"]
