"""Layers, losses and initializers: what models are built from. Each is imported when it is first used."""

from microfw._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
