"""Optimizers: they turn gradients into better parameters."""

from importlib import import_module
from typing import Any

from microfw.optim.adagrad import Adagrad
from microfw.optim.adam import Adam
from microfw.optim.adamw import AdamW
from microfw.optim.averaging import Average
from microfw.optim.clipping import clip_grad_norm, clip_grad_value
from microfw.optim.lbfgs import LBFGS
from microfw.optim.optimizer import Optimizer
from microfw.optim.parallel import DataParallel, RankError
from microfw.optim.rmsprop import RMSprop
from microfw.optim.sgd import SGD

__all__ = [
    "LBFGS",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Average",
    "DataParallel",
    "Optimizer",
    "RMSprop",
    "RankError",
    "clip_grad_norm",
    "clip_grad_value",
    "schedules",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Import the schedules when they are first used: they are dataclasses, which take longer than all else here."""
    if name == "schedules":
        return import_module("microfw.optim.schedules")
    raise AttributeError(f"module 'microfw.optim' has no attribute {name!r}")
