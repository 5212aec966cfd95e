"""Optimizers, learning-rate schedules, clipping and weight averaging. Each is imported on first use."""

from typing import TYPE_CHECKING

from microfw._lazy import attach

if TYPE_CHECKING:
    from microfw.optim import schedules
    from microfw.optim.adagrad import Adagrad
    from microfw.optim.adam import Adam
    from microfw.optim.adamw import AdamW
    from microfw.optim.averaging import Average
    from microfw.optim.clipping import clip_grad_norm, clip_grad_value
    from microfw.optim.lbfgs import LBFGS
    from microfw.optim.optimizer import Optimizer
    from microfw.optim.parallel import DataParallel, RankError
    from microfw.optim.rmsprop import RMSprop
    from microfw.optim.sgd import SGD
else:
    __getattr__ = attach(
        "microfw.optim",
        {
            "adagrad": "Adagrad",
            "adam": "Adam",
            "adamw": "AdamW",
            "averaging": "Average",
            "clipping": "clip_grad_norm clip_grad_value",
            "lbfgs": "LBFGS",
            "optimizer": "Optimizer",
            "parallel": "DataParallel RankError",
            "rmsprop": "RMSprop",
            "schedules": "",
            "sgd": "SGD",
        },
    )

__all__ = [
    "LBFGS",
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Average",
    "DataParallel",
    "Optimizer",
    "RMSprop",
    "RankError",
    "clip_grad_norm",
    "clip_grad_value",
    "schedules",
]


def __dir__() -> list[str]:
    return __all__
