"""One row for each optimizer: its variants, a reference for one parameter, and how it gets to a minimum."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from microfw import optim


def sgd(p, g, s, t, lr, momentum=0.0, weight_decay=0.0, nesterov=False):
    g = g + weight_decay * p
    s["velocity"] = v = momentum * s.get("velocity", 0) + g
    return p - lr * (g + momentum * v if nesterov else v)


def adam(p, g, s, t, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, amsgrad=False):
    g = g + weight_decay * p
    s["mean"] = betas[0] * s.get("mean", 0) + (1 - betas[0]) * g
    s["square"] = betas[1] * s.get("square", 0) + (1 - betas[1]) * g**2
    s["largest"] = np.maximum(s.get("largest", 0), s["square"])
    m = s["mean"] / (1 - betas[0] ** t)
    v = (s["largest"] if amsgrad else s["square"]) / (1 - betas[1] ** t)
    return p - lr * m / (np.sqrt(v) + eps)


def adamw(p, g, s, t, lr=1e-3, weight_decay=0.01, **options):
    return adam(p - lr * weight_decay * p, g, s, t, lr, **options)


def rmsprop(p, g, s, t, lr=1e-2, alpha=0.99, eps=1e-8, momentum=0.0, centered=False, weight_decay=0.0):
    g = g + weight_decay * p
    s["square"] = alpha * s.get("square", 0) + (1 - alpha) * g**2
    s["mean"] = alpha * s.get("mean", 0) + (1 - alpha) * g
    variance = s["square"] - (s["mean"] ** 2 if centered else 0)
    s["velocity"] = momentum * s.get("velocity", 0) + g / (np.sqrt(variance) + eps)
    return p - lr * s["velocity"]


def adagrad(p, g, s, t, lr=1e-2, eps=1e-10, lr_decay=0.0, weight_decay=0.0, initial=0.0):
    g = g + weight_decay * p
    s["total"] = s.get("total", initial) + g**2
    return p - lr / (1 + (t - 1) * lr_decay) * g / (np.sqrt(s["total"]) + eps)


@dataclass
class Row:
    """An optimizer to test.

    ``reference(p, g, state, t, **options)`` returns one parameter's next values; None for one that takes a
    closure. ``peer`` translates options to PyTorch's. ``quadratic`` and ``rosenbrock`` are options with which
    this number of steps reaches the minimum. ``state`` are options with which the optimizer has a state.
    ``program`` is how random programs write it: options to choose from, and assignments between steps, in which ``{0}`` is
    a small number; None for one that takes a closure.
    """

    reference: Callable | None
    variants: dict[str, dict]
    bad: dict[str, list]
    quadratic: tuple[int, dict]
    rosenbrock: tuple[int, dict]
    peer: Callable[[dict], dict] = field(default=dict)
    state: dict = field(default_factory=dict)
    program: tuple[list[str], list[str]] | None = None


NAN, INF = float("nan"), float("inf")
RATES, DECAYS, SHARES = [0, -0.1, NAN, INF, "fast"], [-0.1, NAN, INF], [-0.1, 1.0, NAN]
ADAM = {"lr": RATES, "betas": [(0.9,), (0.9, 1.0), (-0.1, 0.9), 0.9, (0.9, NAN)], "eps": [0, -1, NAN],
        "weight_decay": DECAYS, "amsgrad": ["yes", 2]}  # fmt: skip

CASES: dict[str, Row] = {
    "SGD": Row(
        sgd,
        {
            "plain": {"lr": 0.1},
            "momentum": {"lr": 0.1, "momentum": 0.9},
            "nesterov and decay": {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.1, "nesterov": True},
        },
        {"lr": RATES, "momentum": SHARES, "weight_decay": DECAYS, "nesterov": ["yes"]},
        (200, {"lr": 0.1, "momentum": 0.5}),
        (2000, {"lr": 1e-3, "momentum": 0.9}),
        state={"momentum": 0.9},
        program=(
            ["", "momentum=0.9", "momentum=0.5, nesterov=True", "weight_decay=0.05", "momentum=0.9, weight_decay=0.01"],
            ["lr = {0}", "weight_decay = {0}", "momentum = 0.7", "momentum = np.float64(0.3)", "lr = np.float32({0})"],
        ),
    ),
    "Adam": Row(
        adam,
        {
            "plain": {"lr": 0.05},
            "decay": {"lr": 0.05, "weight_decay": 0.1},
            "amsgrad": {"lr": 0.05, "betas": (0.8, 0.9), "eps": 1e-3, "amsgrad": True, "weight_decay": 0.01},
        },
        ADAM,
        (500, {"lr": 0.1}),
        (2000, {"lr": 0.05}),
        program=(
            ["", "weight_decay=0.05", "amsgrad=True", "betas=(0.8, 0.9), eps=1e-4"],
            ["lr = {0}", "weight_decay = {0}", "amsgrad = True", "betas = (0.7, 0.95)", "eps = 1e-3"],
        ),
    ),
    "AdamW": Row(
        adamw,
        {
            "plain": {"lr": 0.05},
            "decay": {"lr": 0.05, "weight_decay": 0.5},
            "amsgrad": {"lr": 0.05, "betas": (0.8, 0.9), "amsgrad": True, "weight_decay": 0.1},
        },
        ADAM,
        (500, {"lr": 0.1, "weight_decay": 0.0}),
        (2000, {"lr": 0.05, "weight_decay": 0.0}),
        program=(["", "weight_decay=0.2", "amsgrad=True"], ["lr = {0}", "weight_decay = {0}", "eps = 1e-5"]),
    ),
    "RMSprop": Row(
        rmsprop,
        {
            "plain": {"lr": 0.01},
            "momentum": {"lr": 0.01, "momentum": 0.9, "alpha": 0.9},
            "centered and decay": {"lr": 0.01, "centered": True, "weight_decay": 0.1, "eps": 1e-4},
        },
        {"lr": RATES, "alpha": SHARES, "eps": [0], "momentum": SHARES, "weight_decay": DECAYS, "centered": ["yes"]},
        (1000, {"lr": 0.01, "alpha": 0.5, "eps": 0.1}),
        (2000, {"lr": 0.005, "momentum": 0.9, "eps": 1.0}),
        program=(
            ["", "momentum=0.9", "centered=True", "weight_decay=0.05, alpha=0.9"],
            ["lr = {0}", "alpha = 0.8", "momentum = 0.5", "centered = True"],
        ),
    ),
    "Adagrad": Row(
        adagrad,
        {
            "plain": {"lr": 0.1},
            "decays": {"lr": 0.1, "lr_decay": 0.01, "weight_decay": 0.1},
            "initial": {"lr": 0.1, "initial": 0.5, "eps": 1e-6},
        },
        {"lr": RATES, "eps": [0, NAN], "lr_decay": DECAYS, "weight_decay": DECAYS, "initial": DECAYS},
        (500, {"lr": 1.0}),
        (6000, {"lr": 0.3}),
        lambda o: {{"initial": "initial_accumulator_value"}.get(k, k): v for k, v in o.items()},
        program=(["", "lr_decay=0.01", "initial=0.1", "weight_decay=0.05"], ["lr = {0}", "lr_decay = {0}"]),
    ),
    "LBFGS": Row(
        None,
        {
            "plain": {},
            "without a search": {"lr": 0.5, "line_search": False, "iterations": 4},
            "short memory": {"memory": 2, "iterations": 3},
        },
        {"lr": RATES, "iterations": [0, 1.5, 3.0, NAN], "memory": [0, -1, 2.0], "line_search": ["yes"],
         "gradient_tolerance": DECAYS, "change_tolerance": DECAYS},
        (3, {}),
        (5, {}),
        lambda o: {
            {"iterations": "max_iter", "memory": "history_size"}.get(k, k): v for k, v in o.items() if k != "line_search"
        },
    ),
}  # fmt: skip


def make(name, parameters, **options):
    """Return an optimizer of a row; SGD has no default rate."""
    return getattr(optim, name)(parameters, **({"lr": 0.1} if name == "SGD" else {}) | options)
