"""Checks of the parameters of an estimator before a fit, with scikit-learn's messages."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np

from microfw.errors import ArgumentError
from microfw.estimators.settings import setting_names
from microfw.nn import Module
from microfw.training.hooks import check_hooks

FLOATS = (np.float64, np.float32)


def _integer(minimum: int) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, numbers.Integral) and not _is_bool(v) and int(v) >= minimum


def _real(test: Callable[[float], bool]) -> Callable[[Any], bool]:
    return lambda v: isinstance(v, numbers.Real) and not _is_bool(v) and bool(test(float(v)))


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool | np.bool_)


def _or_none(rule: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda v: v is None or rule(v)


def _is_dtype(value: Any) -> bool:
    try:
        return value is None or np.dtype(value) in FLOATS
    except TypeError:
        return False


def _is_seed(value: Any) -> bool:
    return value is None or hasattr(value, "integers") or hasattr(value, "randint") or _integer(0)(value)


def _is_dicts(value: Any) -> bool:
    """Return True for a dict of weights, or a list of such dicts, one for each output."""
    if isinstance(value, list):
        return all(isinstance(v, dict) and _is_dicts(v) for v in value)
    return isinstance(value, dict) and all(map(_real(lambda w: 0 <= w < math.inf), value.values()))


BOOLEAN = (_is_bool, "an instance of 'bool'")
SOURCE = (lambda v: isinstance(v, str) or callable(v), "a str or a callable")

RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "activation": SOURCE,
    "norm": (_or_none(lambda v: isinstance(v, str)), "a str or None"),
    "dropout": (_real(lambda v: 0 <= v < 1), "a float in the range [0.0, 1.0)"),
    "module": (lambda v: v is None or isinstance(v, Module) or callable(v), "a Module, a callable or None"),
    "loss": SOURCE,
    "alpha": (_real(lambda v: 0 <= v < math.inf), "a float in the range [0.0, inf)"),
    "hooks": (lambda v: isinstance(v, list | tuple), "a list of hooks"),
    "optimizer": SOURCE,
    "optimizer_params": (_or_none(lambda v: isinstance(v, dict)), "a dict or None"),
    "learning_rate": (
        lambda v: callable(v) or _real(lambda x: x > 0 and math.isfinite(x))(v),
        "a float in the range (0.0, inf) or a callable of the step",
    ),
    "max_grad_norm": (_or_none(_real(lambda v: v > 0)), "a float in the range (0.0, inf) or None"),
    "batch_size": (lambda v: (isinstance(v, str) and v == "auto") or _integer(1)(v), "'auto' or a positive integer"),
    "max_iter": (_integer(1), "a positive integer"),
    "shuffle": BOOLEAN,
    "early_stopping": BOOLEAN,
    "scoring": (lambda v: v is None or isinstance(v, str) or callable(v), "a str, a callable or None"),
    "validation_fraction": (_real(lambda v: 0 < v < 1), "a float in the range (0.0, 1.0)"),
    "n_iter_no_change": (_or_none(_integer(1)), "a positive integer or None"),
    "tol": (_real(lambda v: v >= 0), "a float in the range [0.0, inf)"),
    "class_weight": (
        lambda v: v is None or _is_dicts(v) or (isinstance(v, str) and v == "balanced"),
        "'balanced', an instance of 'dict' with weights in the range [0.0, inf), a list of such dicts or None",
    ),
    "warm_start": BOOLEAN,
    "dtype": (_is_dtype, "float32, float64 or None"),
    "profile": BOOLEAN,
    "random_state": (_is_seed, "an integer in the range [0, inf), a RandomState, a Generator or None"),
    "verbose": (lambda v: _is_bool(v) or _integer(0)(v), "a bool or an integer in the range [0, inf)"),
}
"""Condition on each parameter, as a test and in words. `parts` checks names, such as that of a loss."""


def check_parameters(estimator: Any) -> None:
    """Raise ArgumentError for an invalid parameter.

    Raises
    ------
    ArgumentError
        For the first parameter that is not valid, with its name.
    """
    kind = type(estimator).__name__
    check_hooks(estimator.hooks if isinstance(estimator.hooks, list | tuple) else (), kind)
    for name in setting_names(type(estimator)):  # type: ignore[arg-type]
        holds, description = RULES.get(name, (None, ""))
        if holds is not None and not holds(value := getattr(estimator, name)):
            got = " ".join(repr(value).split())
            raise ArgumentError(f"The {name!r} parameter of {kind} must be {description}. Got {got[:80]} instead.")
