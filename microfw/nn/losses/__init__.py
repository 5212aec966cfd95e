"""Losses: how far a prediction is from a target, as one number to descend."""

from typing import TYPE_CHECKING

from microfw._lazy import attach

if TYPE_CHECKING:
    from microfw.nn.losses.base import Loss
    from microfw.nn.losses.classification import BCEWithLogitsLoss, CrossEntropyLoss, HingeLoss, NLLLoss
    from microfw.nn.losses.distances import CosineEmbeddingLoss, TripletMarginLoss
    from microfw.nn.losses.distributions import KLDivLoss, PoissonNLLLoss
    from microfw.nn.losses.regression import HuberLoss, L1Loss, MSELoss
else:
    __getattr__ = attach(
        "microfw.nn.losses",
        {
            "base": "Loss",
            "classification": "BCEWithLogitsLoss CrossEntropyLoss HingeLoss NLLLoss",
            "distances": "CosineEmbeddingLoss TripletMarginLoss",
            "distributions": "KLDivLoss PoissonNLLLoss",
            "regression": "HuberLoss L1Loss MSELoss",
        },
    )

__all__ = [
    "BCEWithLogitsLoss",
    "CosineEmbeddingLoss",
    "CrossEntropyLoss",
    "HingeLoss",
    "HuberLoss",
    "KLDivLoss",
    "L1Loss",
    "Loss",
    "MSELoss",
    "NLLLoss",
    "PoissonNLLLoss",
    "TripletMarginLoss",
]


def __dir__() -> list[str]:
    return __all__
