"""Names of other libraries with their names here; imported only when a name was not found."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LAYERS = {
    "Linear": "nn.Dense", "LazyLinear": "nn.Dense", "BatchNorm1d": "nn.BatchNorm1D", "BatchNorm2d": "nn.BatchNorm2D",
    "BatchNormalization": "nn.BatchNorm1D or nn.BatchNorm2D", "LayerNormalization": "nn.LayerNorm",
    "GroupNormalization": "nn.GroupNorm", "Conv1d": "nn.Conv1D", "Conv2d": "nn.Conv2D", "Conv": "nn.Conv2D",
    "MaxPool2d": "nn.MaxPool2D", "MaxPooling2D": "nn.MaxPool2D", "AvgPool2d": "nn.AvgPool2D",
    "AveragePooling2D": "nn.AvgPool2D", "AdaptiveAvgPool2d": "nn.GlobalAvgPool2D", "Embed": "nn.Embedding",
    "GlobalAveragePooling2D": "nn.GlobalAvgPool2D", "MultiheadAttention": "nn.MultiHeadAttention", "Swish": "nn.SiLU",
    "Activation": "nn.Lambda, or a layer such as nn.ReLU", "ModuleList": "a list as an attribute of a Module",
    "ModuleDict": "a dict as an attribute of a Module", "ParameterList": "a list as an attribute of a Module",
    "relu": "nn.ReLU", "Relu": "nn.ReLU",
    "functional": "NumPy's functions, called on Tensors", "init": "nn.initializers", "Model": "nn.Module",
    "Layer": "nn.Module", "Input": "the first layer, which knows its inputs", "BCELoss": "nn.BCEWithLogitsLoss",
    "SmoothL1Loss": "nn.HuberLoss", "MAELoss": "nn.L1Loss", "MeanSquaredError": "nn.MSELoss",
    "SparseCategoricalCrossentropy": "nn.CrossEntropyLoss", "BinaryCrossentropy": "nn.BCEWithLogitsLoss",
    "SoftmaxCrossEntropyLoss": "nn.CrossEntropyLoss", "SimpleRNN": "nn.RNN", "Dropout1d": "nn.Dropout",
    "Unflatten": "nn.Lambda with reshape", "Reshape": "nn.Lambda with reshape",
}  # fmt: skip

OPTIMIZERS = {
    "lr_scheduler": "optim.schedules", "clip_grad_norm_": "optim.clip_grad_norm", "RMSProp": "optim.RMSprop",
    "clip_grad_value_": "optim.clip_grad_value", "Momentum": "optim.SGD with momentum", "sgd": "optim.SGD",
    "adam": "optim.Adam", "adamw": "optim.AdamW", "swa_utils": "optim.Average",
    "StepLR": "optim.schedules.StepDecay", "CosineAnnealingLR": "optim.schedules.Cosine",
}  # fmt: skip

TOP = {
    "from_numpy": "mf.tensor", "as_tensor": "mf.tensor", "array": "mf.tensor", "Variable": "mf.tensor",
    "autograd": "mf.grad, mf.vjp and their like", "jit": "mf.compile", "func": "mf.grad, mf.vjp and their like",
    "manual_seed": "the argument rng of what draws", "random": "the argument rng of what draws",
    "numpy": "NumPy itself, called on Tensors", "jacrev": "mf.jacobian", "jacfwd": "mf.jacobian",
    "inference_mode": "mf.no_grad", "set_grad_enabled": "mf.no_grad", "Dataset": "mf.data.Dataset",
    "Module": "mf.nn.Module", "Sequential": "mf.nn.Sequential", "Dense": "mf.nn.Dense", "SGD": "mf.optim.SGD",
    "Linear": "mf.nn.Dense", "Parameter": "mf.nn.Parameter", "Adam": "mf.optim.Adam", "DataLoader": "mf.data.batches",
    "relu": "np.maximum(x, 0), or mf.nn.ReLU",
}  # fmt: skip

FORMER = {"Count": "profiler.NodeCount", "Fit": "profiler.PowerLaw", "Way": "profiler.StrategyResult"}

SCHEDULES = {
    "CosineAnnealingLR": "schedules.Cosine", "CosineDecay": "schedules.Cosine", "OneCycleLR": "schedules.OneCycle",
    "ExponentialLR": "schedules.Exponential", "ExponentialDecay": "schedules.Exponential",
    "StepLR": "schedules.StepDecay", "ReduceLROnPlateau": "schedules.ReduceOnPlateau", "LinearLR": "schedules.WarmUp",
    "LinearWarmup": "schedules.WarmUp", "LambdaLR": "a function of the step",
}  # fmt: skip

TRAINING = {
    "ModelCheckpoint": "training.Checkpoint", "Callback": "training.Hook", "SWA": "training.WeightAveraging",
    "LearningRateScheduler": "training.LearningRate",
}  # fmt: skip

ESTIMATORS = {
    "MLPClassifier": "estimators.NeuralClassifier", "NeuralNetClassifier": "estimators.NeuralClassifier",
    "MLPRegressor": "estimators.NeuralRegressor", "NeuralNetRegressor": "estimators.NeuralRegressor",
}  # fmt: skip

DATA = {"DataLoader": "data.batches", "TensorDataset": "data.Dataset"}

NAMES = {
    "microfw": TOP, "microfw.nn": LAYERS, "microfw.optim": OPTIMIZERS, "microfw.profiler": FORMER,
    "microfw.optim.schedules": SCHEDULES, "microfw.training": TRAINING, "microfw.estimators": ESTIMATORS,
    "microfw.data": DATA,
}  # fmt: skip


def hint(package: str, name: str, known: Iterable[str]) -> str:
    """Return how an error ends for a name that a package does not have.

    Examples
    --------
    >>> hint("microfw.nn", "Linear", ["Dense"])
    '; here it is nn.Dense'
    >>> hint("microfw.optim", "NAdam", ["Adam", "SGD"])
    "; there is none here; did you mean 'Adam'?"
    """
    found = NAMES.get(package, {}).get(name)
    if found is not None:
        return f"; here it is {found}"
    close = difflib.get_close_matches(name, list(known), 1, 0.6)
    return "; there is none here" + (f"; did you mean {close[0]!r}?" if close else "")
