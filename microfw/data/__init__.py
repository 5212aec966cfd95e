"""Data: scikit-learn's toy datasets, one's own arrays and frames, and batches of both."""

from microfw._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
