"""Layers, losses and initializers: what models are built from. Each is imported when it is first used."""

from typing import TYPE_CHECKING

from microfw._lazy import attach

if TYPE_CHECKING:
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
    from microfw.nn.avgpool2d import AvgPool2D
    from microfw.nn.batchnorm import BatchNorm1D, BatchNorm2D
    from microfw.nn.conv1d import Conv1D
    from microfw.nn.conv2d import Conv2D
    from microfw.nn.dense import Dense
    from microfw.nn.dropout import Dropout
    from microfw.nn.embedding import Embedding
    from microfw.nn.flatten import Flatten
    from microfw.nn.globalavgpool2d import GlobalAvgPool2D
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
    from microfw.nn.maxpool2d import MaxPool2D
    from microfw.nn.module import Module, Parameter
    from microfw.nn.plain import Identity, Lambda
    from microfw.nn.recurrent import GRU, LSTM, RNN
    from microfw.nn.residual import Residual
    from microfw.nn.sequential import Sequential
else:
    __getattr__ = attach(
        "microfw.nn",
        {
            "activations": "ELU GELU LeakyReLU LogSoftmax Mish PReLU ReLU Sigmoid SiLU Softmax Softplus Softsign Tanh",
            "attention": "MultiHeadAttention",
            "avgpool2d": "AvgPool2D",
            "batchnorm": "BatchNorm1D BatchNorm2D",
            "conv1d": "Conv1D",
            "conv2d": "Conv2D",
            "dense": "Dense",
            "dropout": "Dropout",
            "embedding": "Embedding",
            "flatten": "Flatten",
            "globalavgpool2d": "GlobalAvgPool2D",
            "groupnorm": "GroupNorm",
            "initializers": "",
            "layernorm": "LayerNorm",
            "losses": "BCEWithLogitsLoss CosineEmbeddingLoss CrossEntropyLoss HingeLoss HuberLoss KLDivLoss L1Loss "
            "Loss MSELoss NLLLoss PoissonNLLLoss TripletMarginLoss",
            "maxpool2d": "MaxPool2D",
            "module": "Module Parameter",
            "plain": "Identity Lambda",
            "recurrent": "GRU LSTM RNN",
            "residual": "Residual",
            "sequential": "Sequential",
        },
    )

__all__ = [
    "AvgPool2D",
    "BCEWithLogitsLoss",
    "BatchNorm1D",
    "BatchNorm2D",
    "CosineEmbeddingLoss",
    "Conv1D",
    "Conv2D",
    "CrossEntropyLoss",
    "Dense",
    "Dropout",
    "ELU",
    "Embedding",
    "Flatten",
    "GELU",
    "GRU",
    "GroupNorm",
    "GlobalAvgPool2D",
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
    "MaxPool2D",
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


def __dir__() -> list[str]:
    return __all__
