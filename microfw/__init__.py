"""microfw: a training micro-framework that counts what its backward pass costs.

The graph: `Tensor`, `tensor`, `no_grad`, `op`, `ops`. Derivatives: `grad`, `value_and_grad`, `vjp`, `jvp`,
`gradcheck`. Models: `nn`, `optim`. Data: `data`. Training: `Trainer`, `Hook`, `training`. Cost:
`Profiler`, `profiler`.
"""

from microfw import data, errors, nn, ops, optim, profiler, training
from microfw.calculus import grad, jvp, value_and_grad, vjp
from microfw.gradcheck import gradcheck
from microfw.op import op
from microfw.profiler import Profiler
from microfw.recording import no_grad
from microfw.tensor import Tensor, tensor
from microfw.training import Hook, Trainer

__version__ = "0.1.0"

__all__ = [
    "Hook",
    "Profiler",
    "Tensor",
    "Trainer",
    "data",
    "errors",
    "grad",
    "gradcheck",
    "jvp",
    "nn",
    "no_grad",
    "op",
    "ops",
    "optim",
    "profiler",
    "tensor",
    "training",
    "value_and_grad",
    "vjp",
]
