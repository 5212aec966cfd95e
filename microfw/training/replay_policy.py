"""Decide which steps of a Trainer or an estimator are captured and replayed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from microfw.autograd.tensor import Tensor
from microfw.nn import Lambda, Module
from microfw.nn.module import in_microfw
from microfw.optim import Optimizer
from microfw.replay import CompiledStep
from microfw.training.evaluation import Array, dtype_of, takes_indices

EAGER_STEPS = 60
"""Eager steps of a shape before it is captured. A capture takes less time than these steps."""

MIN_STEPS = 100
"""A run of at least this many steps with full batches captures their shape at once.

Capture, checks and replays take less than the eager steps from 40 (LeNet) to 80 steps (64-64-10) on.
"""

BRANCH = "choose between values with ops, such as np.where, not with if or a mask as an index"
OTHERWISE = "see mf.compile for what can be replayed; compile=False hides this line"


class Forward:
    """The function of the compiled step: returns a batch's loss and, if ``wants_outputs``, the model's outputs."""

    def __init__(self, model: Any, loss: Any, wants_outputs: bool) -> None:
        self.model = model
        self.loss = loss
        self.wants_outputs = wants_outputs

    def __call__(self, X: Tensor, y: Tensor) -> Any:
        """Return the loss, or loss and outputs."""
        outputs = self.model(X)
        loss = self.loss(outputs, y)
        return (loss, outputs) if self.wants_outputs else loss  # a replay copies what it returns: 1 us for outputs


class ReplayPolicy:
    """Decides for each batch whether its step is replayed.

    Parameters
    ----------
    model, loss, optimizer : object
        Parts of the training.
    wanted : bool or None
        Whether to replay. None: only if all layers and the loss are this library's.
    wants_outputs : bool
        Whether the outputs of replayed steps are used, as by metrics.
    """

    def __init__(self, model: Any, loss: Any, optimizer: Any, wanted: bool | None, wants_outputs: bool = False) -> None:
        self.seen: Counter[Any] = Counter()
        self.eager_steps = EAGER_STEPS if wanted is None else 0
        self.immediate_rows = 0
        parts = [m for root in (model, loss) if isinstance(root, Module) for _, m in root.named_modules()]
        self.integers = takes_indices(model)
        known = all(map(_known, parts))
        able = isinstance(model, Module) and isinstance(optimizer, Optimizer) and not optimizer.takes_closure
        usual = known and isinstance(loss, Module)
        able = able and optimizer.flat.values.dtype == dtype_of(model)  # replayed steps cast to it
        self.rows = 0
        self.foreign = _foreign(parts, loss) if able and wanted is None and not usual else ""
        chosen = able and (usual if wanted is None else wanted)
        self.wants_outputs = wants_outputs
        self.step = CompiledStep(Forward(model, loss, wants_outputs), optimizer) if chosen else None
        if self.step is not None:
            self.step.strict = True  # a difference from the eager step raises ReplayError, not only a warning
            self.step.trusted = usual

    def expect(self, rows: int, steps: int) -> None:
        """Announce a run of ``steps`` steps with ``rows`` rows each."""
        self.rows = rows
        self.immediate_rows = rows if steps >= MIN_STEPS else 0

    def why_eager(self) -> tuple[str, str] | None:
        """Return why steps of full batches run eagerly, and a fix; None if they are replayed, or cannot be."""
        if self.foreign:
            return self.foreign, "compile=True replays them too, or explains why not"
        if self.step is None:
            return None
        of_full_batches = [key for key in self.step.reasons if key[0][1][0] == self.rows]
        if not of_full_batches or any(key[0][1][0] == self.rows for key in self.step.replays):
            return None
        reason = self.step.reasons[of_full_batches[-1]]
        return reason, BRANCH if reason.endswith("reads the values of a Tensor") else OTHERWISE

    def run(self, X: Array, y: Array, on_loss: Callable[[Array], None], update: Any) -> Tensor | None:
        """Run a batch's step; return the outputs, or the loss; None, with nothing done, if it must run eagerly.

        ``on_loss`` and ``update`` are those of `CompiledStep.run`.
        """
        if self.step is None or (X.dtype.kind != "f" and not self.integers):
            return None
        if self.eager_steps and len(X) != self.immediate_rows:
            key = (X.shape, X.dtype.char, y.shape, y.dtype.char)
            self.seen[key] += 1
            if self.seen[key] <= self.eager_steps:
                return None
        made: Any = self.step.run((X, y), on_loss, update)
        return made[1] if self.wants_outputs else made  # type: ignore[no-any-return]


def _known(module: Module) -> bool:
    """Return True for a layer or loss of this library that calls no user code."""
    return in_microfw(type(module)) and not isinstance(module, Lambda)


def _foreign(parts: list[Module], loss: Any) -> str:
    """Return why a step runs eagerly by default, since a part of it is user code; "" if none is."""
    names = [type(m).__name__ for m in parts if not _known(m)]
    if names:
        return f"{names[0]} runs code of yours"
    return "" if isinstance(loss, Module) else "the loss is a function of yours"
