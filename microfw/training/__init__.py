"""Training: the Trainer, its hooks, metrics, history, checkpoints and learning rates."""

from microfw._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
