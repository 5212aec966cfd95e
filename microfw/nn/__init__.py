"""Layers, losses and initializers: what models are built from."""

from microfw.nn import initializers
from microfw.nn.activations import GELU, LeakyReLU, LogSoftmax, ReLU, Sigmoid, Softmax, Softplus, Tanh
from microfw.nn.avgpool2d import AvgPool2D
from microfw.nn.conv1d import Conv1D
from microfw.nn.conv2d import Conv2D
from microfw.nn.dense import Dense
from microfw.nn.dropout import Dropout
from microfw.nn.flatten import Flatten
from microfw.nn.globalavgpool2d import GlobalAvgPool2D
from microfw.nn.losses import BCEWithLogitsLoss, CrossEntropyLoss, HingeLoss, HuberLoss, L1Loss, Loss, MSELoss
from microfw.nn.maxpool2d import MaxPool2D
from microfw.nn.module import Module, Parameter
from microfw.nn.sequential import Sequential

__all__ = [
    "AvgPool2D",
    "BCEWithLogitsLoss",
    "Conv1D",
    "Conv2D",
    "CrossEntropyLoss",
    "Dense",
    "Dropout",
    "Flatten",
    "GELU",
    "GlobalAvgPool2D",
    "HingeLoss",
    "HuberLoss",
    "L1Loss",
    "LeakyReLU",
    "LogSoftmax",
    "Loss",
    "MSELoss",
    "MaxPool2D",
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
