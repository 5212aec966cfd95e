"""RMSprop: steps scaled by a running mean of squared gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from microfw.optim.hyperparameter import AT_LEAST_0, FRACTION, POSITIVE, Hyperparameter
from microfw.optim.optimizer import Optimizer


class RMSprop(Optimizer):
    """RMSprop, with momentum, or centered.

    For a parameter ``p`` with gradient ``g``, in this order::

        g = g + weight_decay * p
        s = alpha * s + (1 - alpha) * g**2
        a = alpha * a + (1 - alpha) * g            # centered only; else 0
        v = momentum * v + g / (sqrt(s - a**2) + eps)
        p = p - lr * v

    Parameters
    ----------
    parameters : iterable of Tensor, or of dict
        ``model.parameters()``, or groups; see `Optimizer`.
    lr : float
        Learning rate, above 0.
    alpha : float
        Decay rate of the running means, from 0 to below 1.
    eps : float
        Added to the root, so that small gradients give bounded steps; above 0.
    momentum : float
        From 0 to below 1.
    centered : bool
        Divide by an estimate of the standard deviation, not by the root mean square.
    weight_decay : float
        L2 penalty: adds ``weight_decay * p`` to the gradient; at least 0.

    Raises
    ------
    ArgumentError
        If a hyperparameter is out of range, or ``parameters`` is empty.

    Notes
    -----
    A parameter without a gradient in a step keeps its value and its state. A variance that is negative by rounding
    counts as 0. Sources: Tieleman and Hinton, "Neural networks for machine learning", lecture 6.5,
    2012; centered: Graves, "Generating sequences with recurrent neural networks", 2013, equations 38 to 41,
    in PyTorch's form.

    Examples
    --------
    >>> import microfw as mf
    >>> p = mf.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = mf.optim.RMSprop([p], lr=0.01, alpha=0.75)
    >>> (p * p).sum().backward()
    >>> optimizer.step()
    >>> p
    tensor([0.98, 1.98], requires_grad=True)
    """

    lr = Hyperparameter(*POSITIVE)
    alpha = Hyperparameter(*FRACTION)
    eps = Hyperparameter(*POSITIVE)
    momentum = Hyperparameter(*FRACTION)
    centered = Hyperparameter()
    weight_decay = Hyperparameter(*AT_LEAST_0)
    STATE = ("square", "mean", "velocity")
    SQUARES = True

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        *,
        momentum: float = 0.0,
        centered: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            parameters, lr=lr, alpha=alpha, eps=eps, momentum=momentum, centered=centered, weight_decay=weight_decay
        )

    def _constants(self, number: Callable[[Any], Any], settings: dict[str, Any]) -> tuple[Any, ...]:
        lr, alpha, eps, momentum, centered, weight_decay = settings.values()
        keep = number(alpha), number(1 - alpha)  # 1 - alpha in float64, then rounded once
        return number(lr), *keep, number(eps), number(momentum) if momentum else None, centered, weight_decay

    def _update(self, constants: Any, p: Any, g: Any, square: Any, mean: Any, v: Any, s: Any) -> None:
        lr, alpha, new, eps, momentum, centered, weight_decay = constants
        if weight_decay:
            g = g + weight_decay * p
        square *= alpha
        np.multiply(g, g, s)
        square += np.multiply(s, new, s)
        if centered:
            mean *= alpha
            mean += np.multiply(g, new, s)
            np.multiply(mean, mean, s)
            np.subtract(square, s, s)
            np.sqrt(np.maximum(s, 0, out=s), s)  # rounding may make a variance negative
        else:
            np.sqrt(square, s)
        s += eps
        np.divide(g, s, s)
        if momentum is not None:
            v *= momentum
            v += s
            np.multiply(v, lr, s)
        else:
            s *= lr
        p -= s
