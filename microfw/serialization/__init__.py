"""Files of models and checkpoints: written atomically, read strictly."""

from microfw._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
