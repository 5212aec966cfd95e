"""Names of other libraries with their names here, for errors about a name that was not found."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib import import_module
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")

ROOMS = ("nn", "optim", "optim.schedules", "data", "training", "profiler")
"""Packages where names are looked for, without regard to case."""  # these import nothing when they are imported

SPELLINGS = (
    ("pooling", "pool"), ("average", "avg"), ("adaptive", "global"), ("normalization", "norm"), ("annealing", ""),
    ("decay", ""), ("simple", ""), ("lr", ""), ("swish", "silu"), ("1dtranspose", "transpose1d"),
    ("2dtranspose", "transpose2d"),
)  # fmt: skip
"""Parts of names, each with how it is spelled here."""

FUNCTIONS = """
    abs add broadcast_to cat ceil cos cosh diag divide einsum erf exp expm1 flip floor isfinite isnan log log1p
    log_softmax log2 logsumexp matmul maximum median minimum multiply outer power relu roll sigmoid sign sin sinh
    softmax softplus sort split sqrt square stack subtract tan tanh tile tril triu where
"""
"""Methods of PyTorch's Tensors that are functions here."""

THEIRS = {
    "nn.Dense": "Linear LazyLinear",
    "nn.BatchNorm1D or nn.BatchNorm2D": "BatchNormalization SyncBatchNorm",
    "nn.Upsample": "UpSampling1D UpSampling2D UpsamplingNearest2d UpsamplingBilinear2d",
    "nn.Lambda, or a layer such as nn.ReLU": "Activation",
    "nn.Lambda with reshape": "Unflatten Reshape",
    "a list or dict as an attribute of a Module": "ModuleList ModuleDict ParameterList ParameterDict",
    "NumPy itself, as np.concatenate: its functions take Tensors": "functional numpy cat",
    "nn.initializers": "init",
    "nn.Module": "Model Layer",
    "the first layer, which knows its inputs": "Input InputLayer",
    "nn.BCEWithLogitsLoss": "BCELoss BinaryCrossentropy",
    "nn.HuberLoss": "SmoothL1Loss",
    "nn.L1Loss": "MAELoss MeanAbsoluteError",
    "nn.MSELoss": "MeanSquaredError",
    "nn.CrossEntropyLoss": "SparseCategoricalCrossentropy CategoricalCrossentropy SoftmaxCrossEntropyLoss",
    "optim.schedules": "lr_scheduler",
    "optim.schedules.StepDecay": "MultiStepLR",
    "optim.schedules.WarmUp": "LinearLR LinearWarmup",
    "training.LearningRate with a function of the step": "LambdaLR LearningRateScheduler",
    "training.WeightAveraging, or optim.Average": "swa_utils SWA",
    "training.Checkpoint": "ModelCheckpoint",
    "training.Hook": "Callback",
    "data.batches": "DataLoader",
    "mf.tensor": "from_numpy as_tensor array Variable",
    "mf.grad, mf.jacobian, mf.vjp and their like": "autograd func jacrev jacfwd",
    "mf.compile": "jit",
    "mf.no_grad": "inference_mode set_grad_enabled",
    "the argument rng of what draws": "manual_seed random",
    "estimators.NeuralClassifier or NeuralRegressor": (
        "MLPClassifier MLPRegressor NeuralNetClassifier NeuralNetRegressor"
    ),
    "t.reshape": "Tensor.view",
    "t.transpose": "Tensor.permute Tensor.t",
    "np.expand_dims, or t[:, None]": "Tensor.unsqueeze",
    "t.copy, or t.detach": "Tensor.clone",
    "an operator, such as *, @ or **": "Tensor.mul Tensor.div Tensor.sub Tensor.mm Tensor.bmm Tensor.pow",
    "astype for a dtype; there are no devices": (
        "Tensor.to Tensor.float Tensor.double Tensor.half Tensor.long Tensor.cpu Tensor.cuda "
        "Module.to Module.float Module.double Module.half Module.cpu Module.cuda"
    ),
    "t.requires_grad, which can be assigned": "Tensor.requires_grad_",
    "module.named_modules, or module.children": "Module.modules Module.named_children Module.apply",
    "an attribute: self.name = mf.tensor(values) for a buffer": (
        "Module.register_buffer Module.register_parameter Module.add_module"
    ),
    "mf.Trainer": "Module.compile Module.fit Module.predict Module.evaluate",
    "optimizer.groups": "Optimizer.param_groups",
    "optimizer.lr": "Optimizer.learning_rate",
    "module.requires_grad_(False), which freezes it": "Module.requires_grad Module.trainable",
}  # fmt: skip
"""What there is here, by names of PyTorch, Keras, JAX, scikit-learn and others that differ in more than case.

Those of members have the name of the class here before a dot.
"""

READ_ONLY = ("requires_grad", "trainable", "param_groups", "learning_rate")
"""Members of the table that would do nothing where they are assigned."""

FORMER = {"Count": "profiler.NodeCount", "Fit": "profiler.PowerLaw", "Way": "profiler.StrategyResult"}


def hint(package: str, name: str, known: Iterable[str]) -> str:
    """Return how an error ends for a name that a package does not have.

    Examples
    --------
    >>> hint("microfw.nn", "Linear", ["Dense"])
    '; here it is nn.Dense'
    >>> hint("microfw", "Conv2d", ["nn"])
    '; here it is mf.nn.Conv2D'
    >>> hint("microfw.optim", "NAdam", ["Adam", "SGD"])
    "; there is none here; did you mean 'Adam'?"
    """
    here = {theirs: ours for ours, names in THEIRS.items() for theirs in names.split()}
    if package == "microfw" and name.islower():  # a function, not the layer whose name differs in case
        if name in np.__all__:
            return f"; here it is np.{name}: NumPy's functions take Tensors"
        if hasattr(import_module("microfw.ops"), name):
            return f"; here it is mf.ops.{name}"
    former = FORMER.get(name) if package == "microfw.profiler" else None
    if found := former or here.get(name) or _spelled_otherwise(package.partition(".")[2], name):
        outside = package == "microfw" and found.partition(".")[0] in (*ROOMS, "estimators")
        return f"; here it is {'mf.' * outside}{found}"
    close = difflib.get_close_matches(name, list(known), 1, 0.6)
    return "; there is none here" + (f"; did you mean {close[0]!r}?" if close else "")


def _spelled_otherwise(package: str, name: str) -> str | None:
    """Return the name here of which another library's is another spelling; in the given package first."""
    plain = _spelled(name)
    for room in sorted(ROOMS, key=lambda room: room != package):
        for own in import_module(f"microfw.{room}").__all__:
            if _spelled(own) == plain and (room, own) != (package, name):
                return f"{room}.{own}"
    return None


def _spelled(name: str) -> str:
    plain = name.lower().rstrip("_")
    for theirs, ours in SPELLINGS:
        plain = plain.replace(theirs, ours)
    return plain


class OtherName:
    """A member that other libraries' classes have, but not this one: an AttributeError with what there is here."""

    # A descriptor for each name: with a __getattr__, Python 3.11 takes 40 ns more for every attribute that is read.

    def __init__(self, home: type, name: str, known: str) -> None:
        self.home, self.name, self.known = home, name, known

    def __get__(self, instance: Any, owner: type) -> Any:
        later = owner.__mro__[owner.__mro__.index(self.home) + 1 :]
        if any(self.name in vars(kind) for kind in later):  # such as a mixin of the user's
            return getattr(super(self.home, owner if instance is None else instance), self.name)
        text = f"{owner.__name__!r} object has no attribute {self.name!r}{hint('microfw', self.known, ())}"
        raise AttributeError(text, name=self.name)


class UnassignableName(OtherName):
    """A name that is not assigned either: the value would have no effect. Classes of the user's may use the name."""

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is not None and self.name in vars(instance):
            return vars(instance)[self.name]
        return super().__get__(instance, owner)

    def __set__(self, instance: Any, value: Any) -> None:
        kind = type(instance)
        if self.name != "requires_grad" and not kind.__module__.startswith("microfw."):
            vars(instance)[self.name] = value
            return
        text = f"{kind.__name__!r} object has no attribute {self.name!r} to assign{hint('microfw', self.known, ())}"
        raise AttributeError(text, name=self.name)

    def __delete__(self, instance: Any) -> None:
        del vars(instance)[self.name]


def with_other_names(kind: type[T]) -> type[T]:
    """Give a class the errors for names of the table, and for a Tensor those for functions; they are not in `dir`."""
    own = kind.__name__.removesuffix("Base")
    names = {name: name for name in FUNCTIONS.split() if own == "Tensor"}
    for known in " ".join(THEIRS.values()).split():
        if known.startswith(f"{own}."):
            names[known.partition(".")[2]] = known
    for name, known in names.items():
        setattr(kind, name, (UnassignableName if name in READ_ONLY else OtherName)(kind, name, known))
    kind.__dir__ = lambda self: [k for k in object.__dir__(self) if k not in names or hasattr(self, k)]  # type: ignore[method-assign]
    return kind
