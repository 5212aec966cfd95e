"""Gradient clipping, by norm and by value."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError
from microfw.optim.checks import as_list, is_real

Array = np.ndarray[Any, Any]

TINY = 1e-20
"""Sums of squares up to it may have lost terms in float32, where squares below 1e-38 lose digits."""


def clip_grad_norm(parameters: Any, max_norm: float) -> float:
    """Scale all gradients by one factor, so that their norm is at most ``max_norm``.

    The norm is the Euclidean norm of all gradients as one vector ``g``. If it is larger than ``max_norm``,
    ``g = g * max_norm / norm``.

    Parameters
    ----------
    parameters : Optimizer, Tensor or iterable of Tensor
        Parameters with the gradients to clip; gradients that are None are skipped. An empty list has norm 0. An
        exhausted iterator is an error, since it was most likely used before.
    max_norm : float
        Above 0.

    Returns
    -------
    float
        The norm before clipping. If it is NaN or infinite, no gradient is changed, and the optimizer's step raises an
        error that names the parameter.

    Notes
    -----
    Source: Pascanu, Mikolov and Bengio, "On the difficulty of training recurrent neural networks", 2013,
    algorithm 1.

    Examples
    --------
    >>> import microfw as mf
    >>> p = mf.tensor([0.0, 0.0], requires_grad=True)
    >>> p.grad = [3.0, 4.0]
    >>> mf.optim.clip_grad_norm([p], 1.0)
    5.0
    >>> p.grad
    array([0.6, 0.8])
    """
    _check("clip_grad_norm", "max_norm", max_norm)
    gradients = _gradients(parameters, "clip_grad_norm")
    squared = sum([float(np.vdot(g, g)) for g in gradients], 0.0)
    norm = math.sqrt(squared)
    if not TINY < squared < math.inf and all(np.isfinite(g).all() for g in gradients):
        # The gradients are finite, their squares overflow or underflow.
        largest = max([float(np.abs(g).max(initial=0)) for g in gradients], default=0.0)
        if largest:
            parts = [np.divide(g, largest, dtype=np.float64) for g in gradients]
            norm = largest * math.sqrt(sum([float(np.vdot(g, g)) for g in parts]))
    if math.isfinite(norm) and norm > max_norm:
        for g in gradients:
            g *= max_norm / norm
    return norm


def clip_grad_value(parameters: Any, max_value: float) -> float:
    """Limit each entry of the gradients to the range from ``-max_value`` to ``max_value``.

    Parameters
    ----------
    parameters : Optimizer, Tensor or iterable of Tensor
        As for `clip_grad_norm`.
    max_value : float
        Above 0.

    Returns
    -------
    float
        The largest magnitude before clipping. If it is NaN or infinite, no gradient is changed, and the optimizer's
        step raises an error that names the parameter.

    Examples
    --------
    >>> import microfw as mf
    >>> p = mf.tensor([0.0, 0.0], requires_grad=True)
    >>> p.grad = [3.0, -0.5]
    >>> mf.optim.clip_grad_value([p], 1.0)
    3.0
    >>> p.grad
    array([ 1. , -0.5])
    """
    _check("clip_grad_value", "max_value", max_value)
    gradients = _gradients(parameters, "clip_grad_value")
    largest = float(np.max([np.abs(g).max(initial=0) for g in gradients], initial=0))
    if math.isfinite(largest) and largest > max_value:
        for g in gradients:
            np.clip(g, -max_value, max_value, out=g)
    return largest


def _gradients(parameters: Any, where: str) -> list[Array]:
    """Return all gradients that are not None, each once; an optimizer's as one array if none is None."""
    flat = getattr(parameters, "flat", None)
    if flat is not None:
        if not flat.owner.taken_by and all(leaf.grad is leaf.grad_buffer is not None for leaf in flat.leaves):
            return [flat.gradients]
        return [leaf.grad for leaf in flat.leaves if leaf.grad is not None]
    expected = "an optimizer, or parameters"
    tensors = [parameters] if isinstance(parameters, Tensor) else as_list(parameters, where, expected)
    for p in tensors:
        if not isinstance(p, Tensor) or p._leaf is None:
            got = "the result of an op" if isinstance(p, Tensor) else type(p).__name__
            raise ArgumentError(where, expected, got, "pass model.parameters()")
        p._values()  # only to notify: a step that reads gradients cannot be replayed
    # By id: a parameter listed twice must not count twice in the norm.
    return list({id(g): g for p in tensors if p._leaf is not None and (g := p._leaf.grad) is not None}.values())


def _check(where: str, name: str, value: Any) -> None:
    if not is_real(value) or value <= 0:
        raise ArgumentError(where, f"{name} above 0, finite", repr(value))
