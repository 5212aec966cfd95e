"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from microfw.errors import ArgumentError
from microfw.optim.hyperparameter import AT_LEAST_0, FRACTION, POSITIVE, Hyperparameter
from microfw.optim.optimizer import Optimizer


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum.

    For a parameter ``p`` with gradient ``g``, in this order::

        g = g + weight_decay * p
        v = momentum * v + g
        p = p - lr * v                     # Nesterov: p - lr * (g + momentum * v)

    Parameters
    ----------
    parameters : iterable of Tensor, or of dict
        ``model.parameters()``, or groups; see `Optimizer`. They become views of one buffer.
    lr : float
        Learning rate, above 0; can be changed between steps.
    momentum : float
        From 0 to below 1.
    nesterov : bool
        Use Nesterov momentum; needs ``momentum`` above 0.
    weight_decay : float
        L2 penalty: adds ``weight_decay * p`` to the gradient; at least 0.

    Raises
    ------
    ArgumentError
        If a hyperparameter is out of range, or ``parameters`` is empty.

    Notes
    -----
    A parameter without a gradient in a step keeps its value and its velocity. Sources: Polyak,
    "Some methods of speeding up the convergence of iteration methods", 1964; Sutskever et al., "On the
    importance of initialization and momentum in deep learning", 2013, equations 3 and 4, in PyTorch's form.

    Examples
    --------
    >>> import microfw as mf
    >>> p = mf.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = mf.optim.SGD([p], lr=0.1)
    >>> (p * p).sum().backward()
    >>> optimizer.step()
    >>> p
    tensor([0.8, 1.6], requires_grad=True)
    """

    lr = Hyperparameter(*POSITIVE)
    momentum = Hyperparameter(*FRACTION)
    nesterov = Hyperparameter()
    weight_decay = Hyperparameter(*AT_LEAST_0)
    STATE = ("velocity",)

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float,
        momentum: float = 0.0,
        *,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr=lr, momentum=momentum, nesterov=nesterov, weight_decay=weight_decay)

    def _check(self, settings: dict[str, Any]) -> None:
        super()._check(settings)
        if settings["nesterov"] and not settings["momentum"]:
            raise ArgumentError("SGD", "a momentum above 0 with nesterov=True", settings["momentum"])

    def _constants(self, number: Callable[[Any], Any], settings: dict[str, Any]) -> tuple[Any, ...]:
        # None, not 0: a test for None is faster in `_update`.
        momentum, weight_decay = settings["momentum"] or None, settings["weight_decay"] or None
        return number(settings["lr"]), momentum and number(momentum), settings["nesterov"], weight_decay

    def _update(self, constants: Any, p: Any, g: Any, v: Any, scratch: Any) -> None:
        lr, momentum, nesterov, weight_decay = constants
        if weight_decay is not None:
            g = g + weight_decay * p
        if momentum is not None:
            np.multiply(v, momentum, v)  # faster than an in-place operator
            np.add(v, g, v)
            if nesterov:
                np.multiply(v, momentum, scratch)
                v = np.add(g, scratch, scratch)
            g = v
        np.multiply(g, lr, scratch)
        np.subtract(p, scratch, p)
