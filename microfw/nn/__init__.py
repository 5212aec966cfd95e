"""Layers, losses and initializers: what models are built from."""

from microfw.nn import initializers
from microfw.nn.activations import (
    ELU,
    GELU,
    LeakyReLU,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Softsign,
    Tanh,
)
from microfw.nn.attention import MultiHeadAttention
from microfw.nn.batchnorm import BatchNorm1D, BatchNorm2D
from microfw.nn.dense import Dense
from microfw.nn.dropout import Dropout
from microfw.nn.embedding import Embedding
from microfw.nn.flatten import Flatten
from microfw.nn.groupnorm import GroupNorm
from microfw.nn.layernorm import LayerNorm
from microfw.nn.losses import (
    BCEWithLogitsLoss,
    CosineEmbeddingLoss,
    CrossEntropyLoss,
    HingeLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    Loss,
    MSELoss,
    NLLLoss,
    PoissonNLLLoss,
    TripletMarginLoss,
)
from microfw.nn.module import Module, Parameter
from microfw.nn.plain import Identity, Lambda
from microfw.nn.recurrent import GRU, LSTM, RNN
from microfw.nn.residual import Residual
from microfw.nn.sequential import Sequential

__all__ = [
    "BCEWithLogitsLoss",
    "BatchNorm1D",
    "BatchNorm2D",
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "Dense",
    "Dropout",
    "ELU",
    "Embedding",
    "Flatten",
    "GELU",
    "GRU",
    "GroupNorm",
    "HingeLoss",
    "HuberLoss",
    "Identity",
    "KLDivLoss",
    "L1Loss",
    "LSTM",
    "Lambda",
    "LayerNorm",
    "LeakyReLU",
    "LogSoftmax",
    "Loss",
    "MSELoss",
    "Mish",
    "Module",
    "MultiHeadAttention",
    "NLLLoss",
    "PReLU",
    "Parameter",
    "PoissonNLLLoss",
    "RNN",
    "ReLU",
    "Residual",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Softsign",
    "Tanh",
    "TripletMarginLoss",
    "initializers",
]
