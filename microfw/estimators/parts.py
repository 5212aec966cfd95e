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
from microfw.errors import ArgumentError, ShapeError, described
from microfw.nn import activations
from microfw.optim.checks import is_integer
from microfw.training.evaluation import as_data
from microfw.training.outputs import binds

ALIASES = {"logistic": "sigmoid", "leaky_relu": "leakyrelu", "swish": "silu"}

LOSSES = {
    "log_loss": nn.CrossEntropyLoss,
    "squared_error": nn.MSELoss,
    "absolute_error": nn.L1Loss,
    "huber": nn.HuberLoss,
    "poisson": nn.PoissonNLLLoss,
}

MODULE = "a Module or a function (n_features, n_outputs, rng) that returns one"

DEFAULTS: dict[str, dict[str, Any]] = {"SGD": {"momentum": 0.9, "nesterov": True}}
"""Default settings of optimizers given by name, unless ``optimizer_params`` is set."""


def options(given: dict[str, Any], prefix: str) -> dict[str, Any]:
    """Return the settings of a part, without its prefix.

    Examples
    --------
    >>> options({"module__width": 8, "optimizer__momentum": 0.5}, "module")
    {'width': 8}
    """
    start = f"{prefix}__"
    return {name.removeprefix(start): value for name, value in given.items() if name.startswith(start)}


def network(settings: Any, row: tuple[int, ...], outputs: int, rng: np.random.Generator, dtype: Any) -> nn.Module:
    """Return the network of an estimator: a copy of its ``module``, or layers of ``hidden_layer_sizes``."""
    module, given = settings.module, options(settings._options, "module")
    inputs: Any = row[0] if len(row) == 1 else row
    where = type(settings).__name__
    if given and (isinstance(module, nn.Module) or not callable(module)):
        got = "no module" if module is None else f"a {type(module).__name__}"
        raise ArgumentError(where, f"a class or function as module for module__{next(iter(given))}", got)
    if module is None:
        made: Any = nn.Sequential(*_layers(settings, inputs, outputs, rng))
    elif isinstance(module, nn.Module):
        made = copy.deepcopy(module)
    elif callable(module):
        made = _called(module, (inputs, outputs, rng), given, where, "module")
    else:
        made = module
    if not isinstance(made, nn.Module):
        raise ArgumentError(where, f"module to be {MODULE}", type(made).__name__)
    made.astype(dtype)  # before the optimizer is made, which takes the arrays over
    if module is not None:
        _check_outputs(made, where, row, outputs, dtype)
    return made.train()


def _called(part: Any, args: tuple[Any, ...], given: dict[str, Any], where: str, name: str) -> Any:
    """Return what a class or function makes; raise for a setting that it does not take."""
    try:
        signature = inspect.signature(part)
        signature.bind(*args, **given)
    except TypeError as error:
        expected, got = f"{name}__ settings that {name} takes", str(error).removeprefix("got ")
        if not binds(signature, *args):
            expected, got = f"{name} to be {MODULE}", f"one with {signature}"
        raise ArgumentError(where, expected, got) from None
    except ValueError:  # a function without a signature
        pass
    return part(*args, **given)


def _check_outputs(model: nn.Module, where: str, row: tuple[int, ...], outputs: int, dtype: Any) -> None:
    with mode(recording=False, observer=None, timer=None):
        got = np.shape(model.eval()(as_data(np.zeros((2, *row), dtype))))
    if got != (2, outputs):
        fix = f"give the module's last layer {outputs} outputs"
        raise ShapeError(where, f"module to map {(2, *row)} to (2, {outputs})", f"shape {got}", fix)


class Penalized(nn.Loss):
    """A loss plus an L2 penalty, ``alpha / 2`` times the sum of the squared weights, divided by the rows of the batch.

    Weights are the parameters with two axes or more: not biases, and not the scales of normalizations.
    """

    def __init__(self, loss: nn.Loss, alpha: float, parameters: Iterable[nn.Parameter]) -> None:
        super().__init__()
        self.loss, self.alpha = loss, alpha
        self.weights = [p for p in parameters if p.ndim > 1]

    def denominator(self, targets: Any, sample_weight: Any = None) -> float:
        """Return that of the loss."""
        return self.loss.denominator(targets, sample_weight)

    def forward(self, outputs: Any, targets: Any, sample_weight: Any = None) -> Any:
        """Return loss and penalty."""
        rows = len(targets) if sample_weight is None else float(np.sum(sample_weight))
        loss = self.loss(outputs, targets) if sample_weight is None else self.loss(outputs, targets, sample_weight)
        for weight in self.weights:
            loss = loss + np.square(weight).sum() * (self.alpha / 2 / rows)
        return loss


def _layers(settings: Any, inputs: int, outputs: int, rng: np.random.Generator) -> list[nn.Module]:
    where, sizes = type(settings).__name__, settings.hidden_layer_sizes
    single = not isinstance(sizes, Iterable) or isinstance(sizes, bytes | dict) or getattr(sizes, "ndim", 1) == 0
    sizes = [sizes] if single else list(sizes)
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
    made = copy.deepcopy(choice) if isinstance(choice, nn.Module) else choice
    expected, fix = "activation to be a name, or to make a Module", "pass a class such as nn.Tanh"
    if callable(choice) and not isinstance(choice, nn.Module):
        try:
            made = choice()
        except TypeError as error:  # of a function of arrays
            raise ArgumentError(where, expected, described(choice), fix) from error
    if not isinstance(made, nn.Module):
        raise ArgumentError(where, expected, described(choice), fix)
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
    forward = inspect.signature(made.forward)
    if not binds(forward, None, None):
        expected = "a loss of two arguments, prediction and target"
        raise ArgumentError(where, expected, f"{type(made).__name__} of {', '.join(forward.parameters)}")
    return made


def optimizer(settings: Any, parameters: list[nn.Parameter]) -> Any:
    """Return the optimizer of an estimator from a name in `microfw.optim`, a class, or a function."""
    where, choice, rate = type(settings).__name__, settings.optimizer, settings.learning_rate
    params, given = settings.optimizer_params, options(settings._options, "optimizer")
    if isinstance(choice, str):
        exported = {name.lower(): getattr(optim, name) for name in optim.__all__}
        known = {k: v for k, v in exported.items() if isinstance(v, type) and hasattr(v, "step") and takes_lr(v)}
        choice = _named(choice, known, "optimizer", where)
    if params is None:
        default = isinstance(settings.optimizer, str) and given.get("momentum") != 0  # without it there is no nesterov
        params = DEFAULTS.get(getattr(choice, "__name__", ""), {}) if default else {}
    lr = float(rate(0)) if callable(rate) else rate
    try:
        made = choice(parameters, lr=lr, **{**params, **given})
    except TypeError as error:
        fix = "pass learning_rate" if "lr" in {**params, **given} else ""
        raise ArgumentError(where, "an optimizer that takes these settings", f"{error}", fix) from None
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
