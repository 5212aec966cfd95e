"""Inputs of models and losses, made the same way for eager steps, replayed steps and predictions."""

from __future__ import annotations

from typing import Any

import numpy as np

from microfw.autograd.graph import Leaf
from microfw.autograd.tensor import Tensor
from microfw.nn import Embedding, Module

Array = np.ndarray[Any, Any]

PLAIN = "fd?bhilqBHILQ"
"""Type codes of the dtypes that a Tensor can have."""


def dtype_of(model: Module) -> np.dtype[Any]:
    """Return the dtype of a model's first parameter; float32 if the model has none."""
    return next((p.dtype for p in model.parameters() if p.dtype.kind == "f"), np.dtype(np.float32))


def takes_indices(model: Any) -> bool:
    """Return True if a model has a layer that takes integers as indices."""
    return isinstance(model, Module) and any(isinstance(m, Embedding) for _, m in model.named_modules())


def as_data(array: Array) -> Tensor:
    """Return a batch as the read-only Tensor that replayed steps pass to the model and to the loss."""
    plain = type(array) is np.ndarray and array.flags.c_contiguous and array.dtype.char in PLAIN
    if not plain or not array.dtype.isnative:
        tensor = Tensor(array)
    else:  # Tensor() would copy, which takes 2 us to 20 us
        tensor = object.__new__(Tensor)
        tensor._array, tensor._leaf, tensor._node = array.view(), Leaf(array.shape, array.dtype), None
    tensor._array.flags.writeable = False
    return tensor


def as_features(X: Any, model: Module) -> Any:
    """Return rows to predict as an array in the dtype of the model's parameters, as `Trainer.fit` casts its data.

    Integers are not cast if the model takes them as indices. Values that are not numbers are returned unchanged; the
    model's first layer raises an error for them.
    """
    array = np.asarray(X)
    if array.dtype.kind not in "fiubO" or (array.dtype.kind in "iu" and takes_indices(model)):
        return array
    try:
        with np.errstate(over="ignore"):
            return array.astype(dtype_of(model), order="C", copy=False)
    except (TypeError, ValueError, OverflowError):
        return array


def predicted(model: Module, X: Any) -> Array:
    """Return the outputs of a model for a batch, as an array."""
    made = model(as_data(X) if isinstance(X, np.ndarray) and X.dtype.kind in "fiub" else X)
    return made.data if isinstance(made, Tensor) else np.asarray(made)
