"""microfw: a training micro-framework that counts what its backward pass costs.

The graph: `Tensor`, `tensor`, `no_grad`, `op`, `ops`. Derivatives: `grad`, `value_and_grad`, `vjp`, `jvp`,
`jacobian`, `hessian`, `hvp`, `checkpoint`. Checks: `gradcheck`, `gradgradcheck`, `detect_anomaly`, `testing`.
Models: `nn`, `optim`. Data: `data`. Training: `Trainer`, `Hook`, `training`. Steps replayed: `compile`, `replay`.
Files: `save`, `load`. Cost: `Profiler`, `profiler`. Estimators of scikit-learn: `estimators`. The graph to look at:
`draw`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as _np

from microfw import errors, nn, ops, optim
from microfw.anomaly import detect_anomaly
from microfw.calculus import grad, jvp, value_and_grad, vjp
from microfw.checkpoint import checkpoint
from microfw.gradcheck import gradcheck, gradgradcheck
from microfw.jacobians import hessian, hvp, jacobian
from microfw.op import op
from microfw.recording import no_grad
from microfw.tensor import Tensor, tensor

if TYPE_CHECKING:
    from microfw import data, estimators, profiler, replay, testing, training
    from microfw.drawing import draw
    from microfw.files import load, save
    from microfw.profiler import Profiler
    from microfw.replay import compile
    from microfw.training import Hook, Trainer

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

_ON_USE = {
    "Hook": "training",
    "Profiler": "profiler",
    "Trainer": "training",
    "compile": "replay",
    "draw": "drawing",
    "load": "files",
    "save": "files",
}


def __getattr__(name: str) -> Any:
    """Import what a script without a Trainer never needs when it is first used."""
    if name in _ON_USE:
        return getattr(import_module(f"microfw.{_ON_USE[name]}"), name)
    if name in ("data", "estimators", "profiler", "replay", "testing", "training"):
        return import_module(f"microfw.{name}")
    raise AttributeError(f"module 'microfw' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
