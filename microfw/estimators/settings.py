"""Settings that change between the calls of an estimator: applied to the existing network, or refused."""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any

import numpy as np

from microfw.errors import ArgumentError
from microfw.estimators import parts
from microfw.estimators.learner import Learner

NETWORK = ("hidden_layer_sizes", "module", "activation", "norm", "dropout", "dtype")
"""Settings that define the network; they cannot change."""

CONTAINERS = ("hidden_layer_sizes", "optimizer_params")
"""Settings that may be containers; compared by content."""


PREPARED = (
    "loss", "alpha", "optimizer", "optimizer_params", "_options", "learning_rate", "max_grad_norm", "hooks",
)  # fmt: skip
"""Settings that steps are prepared with."""


def current(estimator: Any) -> dict[str, Any]:
    """Return the settings of an estimator by name."""
    settings = {name: getattr(estimator, name) for name in setting_names(type(estimator))}  # type: ignore[arg-type]
    settings["hooks"], settings["_options"] = copy.copy(settings["hooks"]), estimator._options
    for name in CONTAINERS:
        if isinstance(settings[name], list | dict):
            settings[name] = copy.deepcopy(settings[name])
    return settings


@lru_cache(maxsize=64)
def setting_names(kind: Any) -> tuple[str, ...]:
    """Return the names of the settings of a class, also of those that the constructor of a subclass does not take."""
    # kept: inspecting a signature takes 0.2 ms
    takers = [base for base in kind.__mro__ if "__init__" in vars(base) and hasattr(base, "_get_param_names")]
    return tuple(dict.fromkeys(name for base in takers for name in base._get_param_names()))


def same(a: Any, b: Any) -> bool:
    """Return True if two values of a setting are equal."""
    if a is b:
        return True
    try:
        equal = type(a) is type(b) and a == b
        return equal if isinstance(equal, bool) else bool(np.all(equal))
    except (TypeError, ValueError):
        return False


def adopt(learner: Learner, estimator: Any) -> None:
    """Apply the settings that were changed since the last call.

    Raises
    ------
    ArgumentError
        If a changed setting defines the network.
    """
    before, after, where = learner.settings, current(estimator), type(estimator).__name__
    names = {name for name in after if not same(after[name], before[name])}
    for name in NETWORK:
        if name in names:
            expected = f"{name}={before[name]!r}, with which the network was made"
            fix = "set it back, or fit a new network with warm_start=False"
            raise ArgumentError(where, expected, repr(after[name]), fix)
    if "_options" in names:
        old, new = (parts.options(settings["_options"], "module") for settings in (before, after))
        if not same(old, new):
            fix = "set it back, or fit a new network with warm_start=False"
            raise ArgumentError(where, f"module__ settings {old}, with which the network was made", new, fix)
    loss, optimizer, rate = learner.loss, learner.optimizer, after["learning_rate"]
    names |= {"loss"} if learner.loss_differs() else set()
    if "loss" in names:
        loss = estimator._make_loss()
    if names & {"optimizer", "optimizer_params", "_options"}:
        optimizer = parts.optimizer(estimator, learner.model.parameters())
    elif "learning_rate" in names and not callable(rate):
        optimizer.lr = float(rate)
    if "random_state" in names:
        learner.rng.bit_generator.state = parts.generator(estimator.random_state).bit_generator.state
    if names & {*PREPARED}:
        learner.set(loss, optimizer, after)
    else:
        learner.remember(after)
