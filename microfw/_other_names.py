"""Names of other libraries with their names here; imported only when a name was not found."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib import import_module

import numpy as np

ROOMS = ("nn", "optim", "data", "training", "profiler")
"""Packages where names are looked for, without regard to case."""  # these import nothing when they are imported

SPELLINGS = (("pooling", "pool"), ("average", "avg"), ("adaptive", "global"), ("normalization", "norm"))

THEIRS = {
    "nn.Dense": "Linear LazyLinear",
    "nn.BatchNorm1D or nn.BatchNorm2D": "BatchNormalization SyncBatchNorm",
    "nn.Conv2D": "Conv Convolution2D",
    "nn.ConvTranspose1D": "Conv1DTranspose",
    "nn.ConvTranspose2D": "Conv2DTranspose ConvTranspose",
    "nn.Upsample": "UpSampling1D UpSampling2D UpsamplingNearest2d UpsamplingBilinear2d",
    "nn.Embedding": "Embed",
    "nn.SiLU": "Swish",
    "nn.RNN": "SimpleRNN",
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
    "optim.schedules.Cosine": "CosineAnnealingLR CosineDecay",
    "optim.schedules.StepDecay": "StepLR MultiStepLR",
    "optim.schedules.OneCycle": "OneCycleLR",
    "optim.schedules.Exponential": "ExponentialLR ExponentialDecay",
    "optim.schedules.ReduceOnPlateau": "ReduceLROnPlateau",
    "optim.schedules.WarmUp": "LinearLR LinearWarmup",
    "training.LearningRate with a function of the step": "LambdaLR LearningRateScheduler",
    "training.WeightAveraging, or optim.Average": "swa_utils SWA",
    "training.Checkpoint": "ModelCheckpoint",
    "training.Hook": "Callback",
    "data.batches": "DataLoader",
    "mf.tensor": "from_numpy as_tensor array Variable",
    "mf.grad, mf.vjp and their like": "autograd func",
    "mf.jacobian": "jacrev jacfwd",
    "mf.compile": "jit",
    "mf.no_grad": "inference_mode set_grad_enabled",
    "the argument rng of what draws": "manual_seed random",
    "estimators.NeuralClassifier or NeuralRegressor": (
        "MLPClassifier MLPRegressor NeuralNetClassifier NeuralNetRegressor"
    ),
}  # fmt: skip
"""What there is here, by names of PyTorch, Keras, JAX, scikit-learn and others that differ in more than case."""

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
    plain = name.lower().rstrip("_")
    for theirs, ours in SPELLINGS:
        plain = plain.replace(theirs, ours)
    for room in sorted(ROOMS, key=lambda room: room != package):
        for own in import_module(f"microfw.{room}").__all__:
            if own.lower() == plain and (room, own) != (package, name):
                return f"{room}.{own}"
    return None
