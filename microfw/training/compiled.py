"""Steps of a Trainer or an estimator that are replayed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from microfw.nn import Lambda, Module
from microfw.optim import Optimizer
from microfw.replay import CompiledStep
from microfw.tensor import Tensor
from microfw.training.inputs import dtype_of, takes_indices

Array = np.ndarray[Any, Any]

SEEN = 60
"""How many steps of a shape are run before it is captured, which takes about as long as they did."""


WORTH = 150
"""How many steps of a shape must be to come for it to be captured at once."""


class Forward:
    """A batch's loss, and the model's outputs."""

    def __init__(self, model: Any, loss: Any) -> None:
        self.model = model
        self.loss = loss

    def __call__(self, X: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Compute both."""
        outputs = self.model(X)
        return self.loss(outputs, y), outputs


class Compiled:
    """Decides for each batch whether its step is replayed.

    Parameters
    ----------
    model, loss, optimizer : object
        What is trained, and by what.
    wanted : bool or None
        Whether to replay; None is yes for models made of this library's layers alone.
    """

    def __init__(self, model: Any, loss: Any, optimizer: Any, wanted: bool | None) -> None:
        self.seen: Counter[Any] = Counter()
        self.enough = SEEN if wanted is None else 0
        self.many = 0
        parts = [m for root in (model, loss) if isinstance(root, Module) for _, m in root.named_modules()]
        self.integers = takes_indices(model)
        known = all(type(m).__module__.startswith("microfw.") and not isinstance(m, Lambda) for m in parts)
        able = isinstance(model, Module) and isinstance(optimizer, Optimizer) and not optimizer.takes_closure
        usual = known and isinstance(loss, Module)
        able = able and optimizer.flat.values.dtype == dtype_of(model)  # to which a replayed step casts
        chosen = able and (usual if wanted is None else wanted)
        self.step = CompiledStep(Forward(model, loss), optimizer) if chosen else None
        if self.step is not None:
            self.step.strict = True

    def expect(self, rows: int, steps: int) -> None:
        """Tell that so many steps with so many rows each are to come."""
        self.many = rows if steps >= WORTH else 0

    def take(self, X: Array, y: Array, between: Callable[[Array], None], update: Any) -> Tensor | None:
        """Do a batch's step and return the model's outputs; or None if it is to be done as ever.

        ``between`` and ``update`` are as in `CompiledStep.take`.
        """
        if self.step is None or (X.dtype.kind != "f" and not self.integers):
            return None
        if self.enough and len(X) != self.many:
            key = (X.shape, X.dtype.char, y.shape, y.dtype.char)
            self.seen[key] += 1
            if self.seen[key] <= self.enough:
                return None
        outputs: Tensor = self.step.take((X, y), between, update)[1]
        return outputs
