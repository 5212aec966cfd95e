"""Training: the loop over epochs and steps, what it remembers, and where others join in."""

from microfw._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
