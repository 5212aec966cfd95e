"""Training: the Trainer, its hooks, metrics, history, checkpoints and learning rates."""

from typing import TYPE_CHECKING

from microfw._lazy import attach

if TYPE_CHECKING:
    from microfw.training import metrics
    from microfw.training.checkpoint import Checkpoint
    from microfw.training.history import History
    from microfw.training.hooks import Hook, TrainState
    from microfw.training.rates import LearningRate, RangeTest, lr_range_test
    from microfw.training.stopping import EarlyStopping, WeightAveraging
    from microfw.training.trainer import Trainer
else:
    __getattr__ = attach(
        "microfw.training",
        {
            "checkpoint": "Checkpoint",
            "history": "History",
            "hooks": "Hook TrainState",
            "metrics": "",
            "rates": "LearningRate RangeTest lr_range_test",
            "stopping": "EarlyStopping WeightAveraging",
            "trainer": "Trainer",
        },
    )

__all__ = [
    "Checkpoint",
    "EarlyStopping",
    "History",
    "Hook",
    "LearningRate",
    "RangeTest",
    "TrainState",
    "Trainer",
    "WeightAveraging",
    "lr_range_test",
    "metrics",
]


def __dir__() -> list[str]:
    return __all__
