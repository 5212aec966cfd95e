"""Adagrad: steps scaled by the sum of all squared gradients so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from microfw.optim.hyperparameter import AT_LEAST_0, POSITIVE, Hyperparameter
from microfw.optim.optimizer import Optimizer


class Adagrad(Optimizer):
    """Adagrad.

    For a parameter ``p`` with gradient ``g`` at its step ``t`` (from 1), in this order::

        g = g + weight_decay * p
        s = s + g**2
        p = p - lr / (1 + (t - 1) * lr_decay) * g / (sqrt(s) + eps)

    Parameters
    ----------
    parameters : iterable of Tensor, or of dict
        ``model.parameters()``, or groups; see `Optimizer`.
    lr : float
        Learning rate, above 0.
    eps : float
        Added to the root, so that small gradients give bounded steps; above 0.
    lr_decay : float
        Decay of the learning rate, see above; at least 0.
    weight_decay : float
        L2 penalty: adds ``weight_decay * p`` to the gradient; at least 0.
    initial : float
        Initial value of the sum, at least 0.

    Raises
    ------
    ArgumentError
        If a hyperparameter is out of range, or ``parameters`` is empty.

    Notes
    -----
    A parameter without a gradient in a step keeps its value, its sum and its step count. Source:
    Duchi, Hazan and Singer, "Adaptive subgradient methods for online learning and stochastic optimization",
    2011, figure 1 with the diagonal matrix, in PyTorch's form.

    Examples
    --------
    >>> import microfw as mf
    >>> p = mf.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = mf.optim.Adagrad([p], lr=0.1)
    >>> (p * p).sum().backward()
    >>> optimizer.step()
    >>> p
    tensor([0.9, 1.9], requires_grad=True)
    """

    lr = Hyperparameter(*POSITIVE)
    eps = Hyperparameter(*POSITIVE)
    lr_decay = Hyperparameter(*AT_LEAST_0)
    weight_decay = Hyperparameter(*AT_LEAST_0)
    initial = Hyperparameter(*AT_LEAST_0)
    STATE = ("total",)
    SQUARES = True
    NEEDS_STEP = True
    STEP_NUMBERS = 2

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1e-2,
        *,  # PyTorch's third argument is lr_decay
        eps: float = 1e-10,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial: float = 0.0,
    ) -> None:
        super().__init__(parameters, lr=lr, eps=eps, lr_decay=lr_decay, weight_decay=weight_decay, initial=initial)

    def _constants(self, number: Callable[[Any], Any], settings: dict[str, Any]) -> tuple[Any, ...]:
        return number(settings["eps"]), settings["weight_decay"], bool(settings["initial"])

    def _step_numbers(self, settings: dict[str, Any], t: int) -> tuple[float, ...]:
        # not when the state is made: ``initial`` may be set before the first step
        added = settings["initial"] if t == 1 else 0.0
        return added, settings["lr"] / (1 + (t - 1) * settings["lr_decay"])

    def _update(self, constants: Any, p: Any, g: Any, total: Any, s: Any) -> None:
        eps, weight_decay, has_initial, initial, rate = constants
        if weight_decay:
            g = g + weight_decay * p
        if has_initial:
            total += initial
        total += np.multiply(g, g, s)
        np.sqrt(total, s)
        s += eps
        np.divide(g, s, s)
        s *= rate
        p -= s
