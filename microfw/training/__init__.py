"""Training: the loop over epochs and steps, what it remembers, and where others join in."""

from microfw.training import metrics
from microfw.training.checkpoint import Checkpoint
from microfw.training.history import History
from microfw.training.hooks import Hook, TrainState
from microfw.training.rates import LearningRate, RangeTest, lr_range_test
from microfw.training.stopping import EarlyStopping, WeightAveraging
from microfw.training.trainer import Trainer

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
