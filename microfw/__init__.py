"""microfw: a training micro-framework that counts what its backward pass costs.

The graph: `Tensor`, `tensor`, `no_grad`, `op`, `ops`. Derivatives: `grad`, `value_and_grad`, `vjp`, `jvp`,
`jacobian`, `hessian`, `hvp`, `checkpoint`. Checks: `gradcheck`, `gradgradcheck`, `detect_anomaly`, `testing`.
Models: `nn`, `optim`. Data: `data`. Training: `Trainer`, `Hook`, `training`. Steps replayed: `compile`, `replay`.
Files: `save`, `load`. Cost: `Profiler`, `profiler`. Estimators of scikit-learn: `estimators`. The graph to look at:
`draw`.
"""

import numpy as _np

from microfw import ops as ops  # declares what the operators of Tensor find by name
from microfw._lazy import attach

__getattr__, __dir__, __all__ = attach(__name__, __file__)

# glibc gets memory for large arrays from the system page by page, and returns it when they are freed, in each step,
# until an array as large has been freed once. In a small convolutional net that takes longer than the arithmetic.
_np.empty(1 << 24, _np.uint8)

__version__ = "0.1.0"
