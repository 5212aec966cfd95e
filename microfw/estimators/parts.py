"""What an estimator's settings stand for: a network, a loss, an optimizer. Names are looked up where they live."""

from __future__ import annotations

import copy
import difflib
import inspect
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np

from microfw import nn, optim
from microfw.autograd.mode import mode
from microfw.errors import ArgumentError, ShapeError, message
from microfw.nn import activations

ALIASES = {"logistic": "sigmoid", "leaky_relu": "leakyrelu", "swish": "silu"}

LOSSES = {
    "log_loss": nn.CrossEntropyLoss,
    "squared_error": nn.MSELoss,
    "absolute_error": nn.L1Loss,
    "huber": nn.HuberLoss,
    "poisson": nn.PoissonNLLLoss,
}

DEFAULTS: dict[str, dict[str, Any]] = {"SGD": {"momentum": 0.9, "nesterov": True}}
"""Settings that an optimizer's name stands for, unless `optimizer_params` are given."""


def network(settings: Any, inputs: int, outputs: int, rng: np.random.Generator, dtype: Any) -> nn.Module:
    """Build the network of an estimator: its own Module, copied, or layers of its sizes."""
    given = settings.module
    if given is None:
        made: Any = nn.Sequential(*_layers(settings, inputs, outputs, rng))
    elif isinstance(given, nn.Module):
        made = copy.deepcopy(given)
    elif callable(given):
        made = given(inputs, outputs, rng)
    else:
        made = given
    where = type(settings).__name__
    if not isinstance(made, nn.Module):
        expected = "module to be a Module or a function (n_features, n_outputs, rng) that returns one"
        raise ArgumentError(message(where, expected, type(made).__name__))
    made.astype(dtype)
    if given is not None:
        _check_outputs(made, where, inputs, outputs, dtype)
    return made.train()


def _check_outputs(model: nn.Module, where: str, inputs: int, outputs: int, dtype: Any) -> None:
    with mode(recording=False, observer=None, timer=None):
        got = np.shape(model.eval()(np.zeros((2, inputs), dtype)))
    if got != (2, outputs):
        fix = f"give the module's last layer {outputs} outputs"
        raise ShapeError(message(where, f"module to map (2, {inputs}) to (2, {outputs})", f"shape {got}", fix))


def _layers(settings: Any, inputs: int, outputs: int, rng: np.random.Generator) -> list[nn.Module]:
    where, sizes = type(settings).__name__, settings.hidden_layer_sizes
    sizes = list(sizes) if isinstance(sizes, Iterable) else [sizes]
    for size in sizes:
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
            raise ArgumentError(message(where, "hidden_layer_sizes to be positive integers", repr(size)))
    norms: dict[Any, Any] = {None: None, "batch": nn.BatchNorm1D, "layer": nn.LayerNorm}
    if settings.norm not in norms:
        raise ArgumentError(message(where, "norm to be None, 'batch' or 'layer'", repr(settings.norm)))
    norm = norms[settings.norm]
    layers: list[nn.Module] = []
    for size in sizes:
        layers.append(nn.Dense(inputs, int(size), rng=rng))
        if norm is not None:
            layers.append(norm(int(size)))
        layers.append(activation(settings.activation, where))
        if settings.dropout:
            layers.append(nn.Dropout(settings.dropout, rng=rng))
        inputs = int(size)
    return [*layers, nn.Dense(inputs, outputs, rng=rng)]


def activation(given: Any, where: str) -> nn.Module:
    """Return a new layer for an activation's name, class, or function that makes one."""
    if isinstance(given, str):
        known = {k.lower(): v for k, v in vars(activations).items() if k in nn.__all__ and isinstance(v, type)}
        known = {k: v for k, v in known.items() if issubclass(v, nn.Module)} | {"identity": nn.Identity}
        known.pop("module", None)
        given = _named(given, known, "activation", where)
    made = copy.deepcopy(given) if isinstance(given, nn.Module) else given() if callable(given) else given
    if not isinstance(made, nn.Module):
        raise ArgumentError(message(where, "activation to be a name, or to make a Module", repr(given)))
    return made


def loss(given: Any, where: str, multilabel: bool = False) -> Any:
    """Return a loss for a name, a Loss or a class of them."""
    if isinstance(given, str):
        given = _named(given, LOSSES, "loss", where)
        if multilabel and given is nn.CrossEntropyLoss:
            given = nn.BCEWithLogitsLoss
    made = given() if isinstance(given, type) else copy.deepcopy(given)
    if not isinstance(made, nn.Loss) or made.reduction != "mean":
        got = f"reduction {made.reduction!r}" if isinstance(made, nn.Loss) else repr(given)
        raise ArgumentError(message(where, "loss to be a name, or a Loss that is a mean", got))
    return made


def optimizer(settings: Any, parameters: list[nn.Parameter]) -> Any:
    """Return the optimizer of an estimator, by its name in `microfw.optim`, its class, or a function."""
    where, given, rate = type(settings).__name__, settings.optimizer, settings.learning_rate
    options = settings.optimizer_params
    if isinstance(given, str):
        exported = {name.lower(): getattr(optim, name) for name in optim.__all__}
        known = {k: v for k, v in exported.items() if isinstance(v, type) and hasattr(v, "step") and takes_lr(v)}
        given = _named(given, known, "optimizer", where)
    if options is None:
        options = DEFAULTS.get(getattr(given, "__name__", ""), {}) if isinstance(settings.optimizer, str) else {}
    lr = float(rate(0)) if callable(rate) else rate
    try:
        made = given(parameters, lr=lr, **options)
    except TypeError as error:
        raise ArgumentError(message(where, "an optimizer that takes these settings", f"{error}")) from None
    if not hasattr(made, "step") or not hasattr(made, "zero_grad"):
        raise ArgumentError(message(where, "optimizer to be a name of microfw.optim, or to make one", repr(given)))
    return made


@lru_cache(maxsize=64)
def takes_lr(kind: type) -> bool:
    """Whether a class is made as optimizers are: with parameters, then ``lr``."""
    return list(inspect.signature(kind).parameters)[:2] == ["parameters", "lr"]


def _named(name: str, known: dict[str, Any], what: str, where: str) -> Any:
    key = name.lower()
    found = known.get(ALIASES.get(key, key))
    if found is None:
        close = difflib.get_close_matches(key, known, 1)
        fix = f"did you mean {close[0]!r}?" if close else ""
        raise ArgumentError(message(where, f"{what} to be one of {', '.join(sorted(known))}", repr(name), fix))
    return found


def generator(random_state: Any) -> np.random.Generator:
    """Return a generator for a seed, a RandomState, a Generator or None; NumPy's global one is not touched."""
    draw = getattr(random_state, "integers", getattr(random_state, "randint", None))  # a RandomState has the latter
    return np.random.default_rng(random_state if draw is None else draw(1 << 31))
