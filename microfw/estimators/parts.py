"""Network, loss, optimizer and generator from the settings of an estimator."""

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
from microfw.errors import ArgumentError, ShapeError
from microfw.nn import activations
from microfw.optim.checks import is_integer

ALIASES = {"logistic": "sigmoid", "leaky_relu": "leakyrelu", "swish": "silu"}

LOSSES = {
    "log_loss": nn.CrossEntropyLoss,
    "squared_error": nn.MSELoss,
    "absolute_error": nn.L1Loss,
    "huber": nn.HuberLoss,
    "poisson": nn.PoissonNLLLoss,
}

DEFAULTS: dict[str, dict[str, Any]] = {"SGD": {"momentum": 0.9, "nesterov": True}}
"""Default settings of optimizers given by name, unless ``optimizer_params`` is set."""


def network(settings: Any, inputs: int, outputs: int, rng: np.random.Generator, dtype: Any) -> nn.Module:
    """Return the network of an estimator: a copy of its ``module``, or layers of ``hidden_layer_sizes``."""
    module = settings.module
    if module is None:
        made: Any = nn.Sequential(*_layers(settings, inputs, outputs, rng))
    elif isinstance(module, nn.Module):
        made = copy.deepcopy(module)
    elif callable(module):
        made = module(inputs, outputs, rng)
    else:
        made = module
    where = type(settings).__name__
    if not isinstance(made, nn.Module):
        expected = "module to be a Module or a function (n_features, n_outputs, rng) that returns one"
        raise ArgumentError(where, expected, type(made).__name__)
    made.astype(dtype)  # before the optimizer is made, which takes the arrays over
    if module is not None:
        _check_outputs(made, where, inputs, outputs, dtype)
    return made.train()


def _check_outputs(model: nn.Module, where: str, inputs: int, outputs: int, dtype: Any) -> None:
    with mode(recording=False, observer=None, timer=None):
        got = np.shape(model.eval()(np.zeros((2, inputs), dtype)))
    if got != (2, outputs):
        fix = f"give the module's last layer {outputs} outputs"
        raise ShapeError(where, f"module to map (2, {inputs}) to (2, {outputs})", f"shape {got}", fix)


def _layers(settings: Any, inputs: int, outputs: int, rng: np.random.Generator) -> list[nn.Module]:
    where, sizes = type(settings).__name__, settings.hidden_layer_sizes
    sizes = list(sizes) if isinstance(sizes, Iterable) else [sizes]
    for size in sizes:
        if not is_integer(size, 1):
            raise ArgumentError(where, "hidden_layer_sizes to be positive integers", repr(size))
    norms: dict[Any, Any] = {None: None, "batch": nn.BatchNorm1D, "layer": nn.LayerNorm}
    if settings.norm not in norms:
        raise ArgumentError(where, "norm to be None, 'batch' or 'layer'", repr(settings.norm))
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


def activation(choice: Any, where: str) -> nn.Module:
    """Return a new activation layer from a name, a class, or a function."""
    if isinstance(choice, str):
        known = {k.lower(): v for k, v in vars(activations).items() if k in nn.__all__ and isinstance(v, type)}
        known = {k: v for k, v in known.items() if issubclass(v, nn.Module)} | {"identity": nn.Identity}
        known.pop("module", None)
        choice = _named(choice, known, "activation", where)
    made = copy.deepcopy(choice) if isinstance(choice, nn.Module) else choice() if callable(choice) else choice
    if not isinstance(made, nn.Module):
        raise ArgumentError(where, "activation to be a name, or to make a Module", repr(choice))
    return made


def loss(choice: Any, where: str, multilabel: bool = False) -> Any:
    """Return a loss from a name, a Loss or a class."""
    if isinstance(choice, str):
        choice = _named(choice, LOSSES, "loss", where)
        if multilabel and choice is nn.CrossEntropyLoss:
            choice = nn.BCEWithLogitsLoss
    made = choice() if isinstance(choice, type) else copy.deepcopy(choice)
    if not isinstance(made, nn.Loss) or made.reduction != "mean":
        got = f"reduction {made.reduction!r}" if isinstance(made, nn.Loss) else repr(choice)
        raise ArgumentError(where, "loss to be a name, or a Loss that is a mean", got)
    return made


def optimizer(settings: Any, parameters: list[nn.Parameter]) -> Any:
    """Return the optimizer of an estimator from a name in `microfw.optim`, a class, or a function."""
    where, choice, rate = type(settings).__name__, settings.optimizer, settings.learning_rate
    options = settings.optimizer_params
    if isinstance(choice, str):
        exported = {name.lower(): getattr(optim, name) for name in optim.__all__}
        known = {k: v for k, v in exported.items() if isinstance(v, type) and hasattr(v, "step") and takes_lr(v)}
        choice = _named(choice, known, "optimizer", where)
    if options is None:
        options = DEFAULTS.get(getattr(choice, "__name__", ""), {}) if isinstance(settings.optimizer, str) else {}
    lr = float(rate(0)) if callable(rate) else rate
    try:
        made = choice(parameters, lr=lr, **options)
    except TypeError as error:
        raise ArgumentError(where, "an optimizer that takes these settings", f"{error}") from None
    if not hasattr(made, "step") or not hasattr(made, "zero_grad"):
        raise ArgumentError(where, "optimizer to be a name of microfw.optim, or to make one", repr(choice))
    return made


@lru_cache(maxsize=64)
def takes_lr(kind: type) -> bool:
    """Return True if the first parameters of a class are ``parameters`` and ``lr``, as for optimizers."""
    return list(inspect.signature(kind).parameters)[:2] == ["parameters", "lr"]


def _named(name: str, known: dict[str, Any], what: str, where: str) -> Any:
    key = name.lower()
    found = known.get(ALIASES.get(key, key))
    if found is None:
        close = difflib.get_close_matches(key, known, 1)
        fix = f"did you mean {close[0]!r}?" if close else ""
        raise ArgumentError(where, f"{what} to be one of {', '.join(sorted(known))}", repr(name), fix)
    return found


def generator(random_state: Any) -> np.random.Generator:
    """Return a new generator from a seed, a RandomState, a Generator or None. NumPy's global state is not used."""
    draw = getattr(
        random_state, "integers", getattr(random_state, "randint", None)
    )  # the second is that of a RandomState
    return np.random.default_rng(random_state if draw is None else draw(1 << 31))
