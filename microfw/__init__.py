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
from microfw.lazy import on_use
from microfw.op import op
from microfw.recording import no_grad
from microfw.tensor import Tensor, tensor

if TYPE_CHECKING:
    from microfw import data, estimators, profiler, replay, testing, training
    from microfw.anomaly import detect_anomaly
    from microfw.calculus import grad, jvp, value_and_grad, vjp
    from microfw.checkpoints import checkpoint
    from microfw.differences import gradcheck, gradgradcheck
    from microfw.drawing import draw
    from microfw.files import load, save
    from microfw.jacobians import hessian, hvp, jacobian
    from microfw.profiler import Profiler
    from microfw.replay import compile
    from microfw.training import Hook, Trainer
else:  # what not every script needs
    __getattr__ = on_use(
        "microfw",
        {
            "anomaly": "detect_anomaly",
            "calculus": "grad jvp value_and_grad vjp",
            "checkpoints": "checkpoint",
            "data": "",
            "differences": "gradcheck gradgradcheck",
            "drawing": "draw",
            "estimators": "",
            "files": "load save",
            "jacobians": "hessian hvp jacobian",
            "profiler": "Profiler",
            "replay": "compile",
            "testing": "",
            "training": "Hook Trainer",
        },
    )

# glibc takes memory for large arrays from the system page by page, and gives it back when they are freed, at each step
# anew, until one as large has been freed. In a small convolutional net that takes longer than its arithmetic.
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
