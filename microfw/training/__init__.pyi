# What the package exports; `microfw._lazy.attach` reads it, too.

from microfw.training import metrics as metrics
from microfw.training.averaging import WeightAveraging as WeightAveraging
from microfw.training.checkpoint import Checkpoint as Checkpoint
from microfw.training.csv_logger import CSVLogger as CSVLogger
from microfw.training.history import History as History
from microfw.training.hooks import Hook as Hook, TrainState as TrainState
from microfw.training.plotting import plot_histories as plot_histories
from microfw.training.rates import (
    LearningRate as LearningRate,
    RangeTest as RangeTest,
    lr_range_test as lr_range_test,
)
from microfw.training.stopping import EarlyStopping as EarlyStopping
from microfw.training.trainer import Trainer as Trainer

__all__: list[str]
