"""Weights of rows by their classes, "balanced" by the weights that the rows have."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.utils.class_weight import compute_sample_weight

from microfw.training.evaluation import Array


def balanced(codes: Array, weight: Array) -> Array:
    """Return the weight of each class, by the rule of scikit-learn 1.7: the sum of the weights counts, not the rows."""
    counts = np.bincount(codes, weight)
    share = np.count_nonzero(counts) * counts
    weights: Array = np.divide(counts.sum(), share, out=np.zeros(len(counts)), where=share > 0)
    return weights


def weights_of_labels(class_weight: Any, y: Array, weight: Array | None) -> Array:
    """Return a weight for each row of an indicator of labels: the product of those of its labels."""
    if weight is None or not isinstance(class_weight, str):
        return np.asarray(compute_sample_weight(class_weight, y))
    columns = y.astype(np.intp).T
    product: Array = np.prod([balanced(column, weight)[column] for column in columns], axis=0)
    return product
