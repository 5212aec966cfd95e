"""Data: scikit-learn's toy datasets, one's own arrays and frames, and batches of both."""

from microfw.data.batching import batches
from microfw.data.dataset import Dataset
from microfw.data.toys import load, names

__all__ = ["Dataset", "batches", "load", "names"]
