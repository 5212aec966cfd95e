"""Parts of the hand-tuned steps: parameters in one array, softmax cross-entropy.

Activations have the batch on the last axis, ``(features, batch)``, in an array with one more row of ones. A weight
``(n + 1, m)`` has the bias as its last row. Then the products with the weight also add the bias and sum its gradient,
and take no more time than without the row.

Losses multiply their gradient by the learning rate, so that the update of all parameters is three calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from columns import LR, MOMENTUM

Array = np.ndarray


def empty(*shape: int) -> Array:
    """Return an array of float32."""
    return np.empty(shape, np.float32)


def with_ones(features: int, batch: int) -> Array:
    """Return activations with their row of ones."""
    return np.ones((features + 1, batch), np.float32)


class Parameters:
    """All parameters, their gradients times the learning rate, and their momentum: one array each."""

    def __init__(self, *starts: tuple[Array, ...]) -> None:
        """Take tuples of arrays whose rows are one below the other, such as a weight and its bias."""
        joined = [np.concatenate([a.reshape(-1, a.shape[-1]) for a in start]) for start in starts]
        values = np.concatenate([a.ravel() for a in joined])
        self.values, self.gradients, self.speed = values, np.zeros_like(values), np.zeros_like(values)
        self.pairs, at = [], 0
        for a in joined:
            cut, at = slice(at, at + a.size), at + a.size
            self.pairs.append((values[cut].reshape(a.shape), self.gradients[cut].reshape(a.shape)))

    def updater(self) -> Callable[[], None]:
        """Return the update of SGD with momentum."""
        values, gradients, speed = self.values, self.gradients, self.speed
        momentum = np.float32(MOMENTUM)
        add, multiply, subtract = np.add, np.multiply, np.subtract

        def update() -> None:
            multiply(speed, momentum, out=speed)
            add(speed, gradients, out=speed)
            subtract(values, speed, out=values)

        return update


def cross_entropy(logits: Array) -> Callable[[Any], float]:
    """Return a function of labels that replaces logits ``(batch, classes)`` by their gradient, and returns the loss.

    No maximum is subtracted: the logits of these networks are small.
    """
    batch, classes = logits.shape
    entries = logits.reshape(-1)
    # a product with a matrix of one number: sums over classes times that number, with no broadcast
    sums, spread = empty(batch, classes), np.full((classes, classes), batch / LR, np.float32)
    starts, at = np.arange(0, batch * classes, classes), np.empty(batch, np.int64)
    logs, share, rates = empty(batch), np.full(batch, -1 / batch, np.float32), np.full(batch, LR / batch, np.float32)
    shift = np.log(LR / batch)
    add, divide, exp, log, subtract = np.add, np.divide, np.exp, np.log, np.subtract
    dot = logits.dot

    def loss(labels: Any) -> float:
        exp(logits, out=logits)
        dot(spread, sums)
        divide(logits, sums, out=logits)  # probabilities, times the learning rate, divided by the batch
        add(labels, starts, out=at)
        picked = entries[at]
        log(picked, out=logs)
        subtract(picked, rates, out=picked)
        entries[at] = picked
        return float(logs.dot(share)) + shift

    return loss
