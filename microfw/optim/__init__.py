"""Optimizers, learning-rate schedules, clipping and weight averaging. Each is imported on first use."""

from microfw._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
