"""Optimizers: they turn gradients into better parameters."""

from microfw.optim.sgd import SGD

__all__ = ["SGD"]
