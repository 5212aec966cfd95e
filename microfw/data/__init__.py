"""Data: datasets from arrays and frames, scikit-learn's toy datasets, and batches."""

from microfw._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)
