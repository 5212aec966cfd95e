# What the package exports; `microfw._lazy.attach` reads it, too.

from microfw.nn import initializers as initializers
from microfw.nn.activations import (
    ELU as ELU,
    GELU as GELU,
    LeakyReLU as LeakyReLU,
    LogSoftmax as LogSoftmax,
    Mish as Mish,
    PReLU as PReLU,
    ReLU as ReLU,
    Sigmoid as Sigmoid,
    SiLU as SiLU,
    Softmax as Softmax,
    Softplus as Softplus,
    Softsign as Softsign,
    Tanh as Tanh,
)
from microfw.nn.attention import MultiHeadAttention as MultiHeadAttention
from microfw.nn.avgpool1d import AvgPool1D as AvgPool1D
from microfw.nn.avgpool2d import AvgPool2D as AvgPool2D
from microfw.nn.batchnorm import BatchNorm1D as BatchNorm1D, BatchNorm2D as BatchNorm2D
from microfw.nn.conv1d import Conv1D as Conv1D
from microfw.nn.conv2d import Conv2D as Conv2D
from microfw.nn.convtranspose1d import ConvTranspose1D as ConvTranspose1D
from microfw.nn.convtranspose2d import ConvTranspose2D as ConvTranspose2D
from microfw.nn.dense import Dense as Dense
from microfw.nn.dropout import Dropout as Dropout
from microfw.nn.embedding import Embedding as Embedding
from microfw.nn.flatten import Flatten as Flatten
from microfw.nn.globalavgpool1d import GlobalAvgPool1D as GlobalAvgPool1D
from microfw.nn.globalavgpool2d import GlobalAvgPool2D as GlobalAvgPool2D
from microfw.nn.groupnorm import GroupNorm as GroupNorm
from microfw.nn.layernorm import LayerNorm as LayerNorm
from microfw.nn.losses import (
    BCEWithLogitsLoss as BCEWithLogitsLoss,
    CosineEmbeddingLoss as CosineEmbeddingLoss,
    CrossEntropyLoss as CrossEntropyLoss,
    GaussianNLLLoss as GaussianNLLLoss,
    HingeLoss as HingeLoss,
    HuberLoss as HuberLoss,
    KLDivLoss as KLDivLoss,
    L1Loss as L1Loss,
    Loss as Loss,
    MSELoss as MSELoss,
    NLLLoss as NLLLoss,
    PoissonNLLLoss as PoissonNLLLoss,
    TripletMarginLoss as TripletMarginLoss,
)
from microfw.nn.maxpool1d import MaxPool1D as MaxPool1D
from microfw.nn.maxpool2d import MaxPool2D as MaxPool2D
from microfw.nn.module import Module as Module
from microfw.nn.parameter import Parameter as Parameter
from microfw.nn.plain import Identity as Identity, Lambda as Lambda
from microfw.nn.recurrent import GRU as GRU, LSTM as LSTM, RNN as RNN
from microfw.nn.recurrent_cells import GRUCell as GRUCell, LSTMCell as LSTMCell
from microfw.nn.residual import Residual as Residual
from microfw.nn.sequential import Sequential as Sequential
from microfw.nn.transformer import TransformerEncoderLayer as TransformerEncoderLayer
from microfw.nn.upsample import Upsample as Upsample

__all__: list[str]
