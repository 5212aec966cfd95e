"""Layers, losses and initializers: what models are built from."""

from microfw.nn import initializers
from microfw.nn.activations import GELU, LeakyReLU, LogSoftmax, ReLU, Sigmoid, Softmax, Softplus, Tanh
from microfw.nn.dense import Dense
from microfw.nn.dropout import Dropout
from microfw.nn.flatten import Flatten
from microfw.nn.losses import BCEWithLogitsLoss, CrossEntropyLoss, HingeLoss, HuberLoss, L1Loss, Loss, MSELoss
from microfw.nn.module import Module, Parameter
from microfw.nn.sequential import Sequential

__all__ = [
    "BCEWithLogitsLoss",
    "CrossEntropyLoss",
    "Dense",
    "Dropout",
    "Flatten",
    "GELU",
    "HingeLoss",
    "HuberLoss",
    "L1Loss",
    "LeakyReLU",
    "LogSoftmax",
    "Loss",
    "MSELoss",
    "Module",
    "Parameter",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "initializers",
]
