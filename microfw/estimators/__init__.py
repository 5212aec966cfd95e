"""scikit-learn's estimators: a classifier and a regressor that are trained by microfw."""

from typing import Any

import sklearn

from microfw._lazy import unknown
from microfw.errors import message

try:
    from sklearn.utils.validation import validate_data  # noqa: F401
except ImportError:
    expected, fix = "scikit-learn 1.6 or newer", 'pip install "scikit-learn>=1.6"'
    raise ImportError(message("microfw.estimators", expected, sklearn.__version__, fix)) from None

from microfw.estimators.classifier import NeuralClassifier
from microfw.estimators.regressor import NeuralRegressor

__all__ = ["NeuralClassifier", "NeuralRegressor"]


def __getattr__(name: str) -> Any:
    raise unknown(__name__, name, __all__)


def __dir__() -> list[str]:
    return sorted(__all__)
