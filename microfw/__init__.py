"""microfw: a training micro-framework that counts what its backward pass costs."""

from microfw import errors, nn, ops, optim
from microfw.calculus import grad, gradcheck, jvp, value_and_grad, vjp
from microfw.graph import no_grad
from microfw.op import op
from microfw.tensor import Tensor, tensor

__version__ = "0.1.0"

__all__ = [
    "Tensor",
    "errors",
    "grad",
    "gradcheck",
    "jvp",
    "nn",
    "no_grad",
    "op",
    "ops",
    "optim",
    "tensor",
    "value_and_grad",
    "vjp",
]
