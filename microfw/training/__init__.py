"""Training: the loop over epochs and steps, what it remembers, and where others join in."""

from microfw.training import metrics
from microfw.training.checkpoint import Checkpoint
from microfw.training.history import History
from microfw.training.hooks import Hook, TrainState
from microfw.training.trainer import Trainer

__all__ = ["Checkpoint", "History", "Hook", "TrainState", "Trainer", "metrics"]
