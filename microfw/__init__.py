"""microfw: a training micro-framework that counts what its backward pass costs.

The graph: `Tensor`, `tensor`, `no_grad`, `op`, `ops`. Derivatives: `grad`, `value_and_grad`, `vjp`, `jvp`,
`jacobian`, `hessian`, `hvp`, `checkpoint`. Checks: `gradcheck`, `gradgradcheck`, `detect_anomaly`, `testing`.
Models: `nn`, `optim`. Data: `data`. Training: `Trainer`, `Hook`, `training`. Steps replayed: `compile`, `replay`.
Files: `save`, `load`. Cost: `Profiler`, `profiler`. Estimators of scikit-learn: `estimators`. The graph to look at:
`draw`.
"""

from typing import TYPE_CHECKING

import numpy as _np

from microfw import errors, nn, ops, optim
from microfw._lazy import attach
from microfw.autograd.mode import no_grad
from microfw.autograd.op import op
from microfw.autograd.tensor import Tensor, tensor

if TYPE_CHECKING:
    from microfw import data, estimators, profiler, replay, testing, training
    from microfw.autograd.anomaly import detect_anomaly
    from microfw.autograd.functional import grad, jvp, value_and_grad, vjp
    from microfw.autograd.gradcheck import gradcheck, gradgradcheck
    from microfw.derivatives.checkpoint import checkpoint
    from microfw.derivatives.jacobian import hessian, hvp, jacobian
    from microfw.profiler import Profiler
    from microfw.replay import compile
    from microfw.serialization import load, save
    from microfw.training import Hook, Trainer
    from microfw.visualization import draw
else:  # what not every script needs
    __getattr__ = attach(
        "microfw",
        {
            "autograd.anomaly": "detect_anomaly",
            "autograd.functional": "grad jvp value_and_grad vjp",
            "autograd.gradcheck": "gradcheck gradgradcheck",
            "data": "",
            "derivatives.checkpoint": "checkpoint",
            "derivatives.jacobian": "hessian hvp jacobian",
            "estimators": "",
            "profiler": "Profiler",
            "replay": "compile",
            "serialization": "load save",
            "testing": "",
            "training": "Hook Trainer",
            "visualization": "draw",
        },
    )

# glibc gets memory for large arrays from the system page by page, and returns it when they are freed, in each step,
# until an array as large has been freed once. In a small convolutional net that takes longer than the arithmetic.
_np.empty(1 << 24, _np.uint8)

__version__ = "0.1.0"

__all__ = [
    "Hook",
    "Profiler",
    "Tensor",
    "Trainer",
    "checkpoint",
    "compile",
    "data",
    "detect_anomaly",
    "draw",
    "errors",
    "estimators",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "hessian",
    "hvp",
    "jacobian",
    "jvp",
    "load",
    "nn",
    "no_grad",
    "op",
    "ops",
    "optim",
    "profiler",
    "replay",
    "save",
    "tensor",
    "testing",
    "training",
    "value_and_grad",
    "vjp",
]


def __dir__() -> list[str]:
    return __all__
