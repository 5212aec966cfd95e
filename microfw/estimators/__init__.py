"""scikit-learn's estimators: a classifier and a regressor that are trained by microfw."""

try:
    import sklearn.callback  # noqa: F401
except ImportError:
    raise ImportError(
        "microfw.estimators: expected scikit-learn 1.9 or newer, got an older one; pip install -U scikit-learn"
    ) from None

from microfw.estimators.classifier import NeuralClassifier
from microfw.estimators.regressor import NeuralRegressor

__all__ = ["NeuralClassifier", "NeuralRegressor"]
