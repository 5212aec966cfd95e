"""Optimizers: they turn gradients into better parameters."""

from microfw.optim.parallel import DataParallel as DataParallel  # wraps one of the optimizers below
from microfw.optim.sgd import SGD

__all__ = ["SGD"]
