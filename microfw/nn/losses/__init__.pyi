# What the package exports; `microfw._lazy.attach` reads it, too.

from microfw.nn.losses.base import Loss as Loss
from microfw.nn.losses.classification import (
    BCEWithLogitsLoss as BCEWithLogitsLoss,
    CrossEntropyLoss as CrossEntropyLoss,
    HingeLoss as HingeLoss,
    NLLLoss as NLLLoss,
)
from microfw.nn.losses.distances import (
    CosineEmbeddingLoss as CosineEmbeddingLoss,
    TripletMarginLoss as TripletMarginLoss,
)
from microfw.nn.losses.distributions import (
    GaussianNLLLoss as GaussianNLLLoss,
    KLDivLoss as KLDivLoss,
    PoissonNLLLoss as PoissonNLLLoss,
)
from microfw.nn.losses.regression import HuberLoss as HuberLoss, L1Loss as L1Loss, MSELoss as MSELoss

__all__: list[str]
