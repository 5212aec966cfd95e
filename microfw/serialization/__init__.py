"""Files: models and checkpoints, saved durably and loaded with care."""

from microfw._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
