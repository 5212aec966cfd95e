"""Losses: how far a prediction is from a target, as one number to descend."""

from microfw._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
