"""Drawing of the graph of one step: `draw`."""

from microfw._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
