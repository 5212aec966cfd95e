"""Adam: steps scaled by running means of the gradients and of their squares."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from microfw.optim.hyperparameter import AT_LEAST_0, POSITIVE, Hyperparameter
from microfw.optim.optimizer import Optimizer


def _two_fractions(betas: Any) -> bool:
    return len(betas) == 2 and all(0 <= b < 1 for b in betas)


class Adam(Optimizer):
    """Adam.

    For a parameter ``p`` with gradient ``g`` at its step ``t`` (from 1), in this order::

        g = g + weight_decay * p
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        p = p - lr / (1 - beta1**t) * m / (sqrt(v / (1 - beta2**t)) + eps)

    With ``amsgrad``, the last line uses the largest ``v`` so far.

    Parameters
    ----------
    parameters : iterable of Tensor, or of dict
        ``model.parameters()``, or groups; see `Optimizer`.
    lr : float
        Learning rate, above 0.
    betas : (float, float)
        Decay rates of the two running means, each from 0 to below 1.
    eps : float
        Added to the root, so that small gradients give bounded steps; above 0.
    weight_decay : float
        L2 penalty: adds ``weight_decay * p`` to the gradient; at least 0. `AdamW` decays parameters directly.
    amsgrad : bool
        Divide by the largest mean square so far.

    Raises
    ------
    ArgumentError
        If a hyperparameter is out of range, or ``parameters`` is empty.

    Notes
    -----
    A parameter without a gradient in a step keeps its value, its means and its step count. Sources:
    Kingma and Ba, "Adam: a method for stochastic optimization", 2015, algorithm 1; Reddi et al., "On the
    convergence of Adam and beyond", 2018, algorithm 2, with the bias corrections that PyTorch keeps.

    Examples
    --------
    >>> import microfw as mf
    >>> p = mf.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = mf.optim.Adam([p], lr=0.1)
    >>> (p * p).sum().backward()
    >>> optimizer.step()
    >>> p
    tensor([0.9, 1.9], requires_grad=True)
    """

    lr = Hyperparameter(*POSITIVE)
    betas = Hyperparameter("to be two numbers from 0 to below 1", _two_fractions)
    eps = Hyperparameter(*POSITIVE)
    weight_decay = Hyperparameter(*AT_LEAST_0)
    amsgrad = Hyperparameter()
    STATE = ("mean", "square", "largest")
    SQUARES = True
    NEEDS_STEP = True
    STEP_NUMBERS = 2

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(parameters, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad)

    def _constants(self, number: Callable[[Any], Any], settings: dict[str, Any]) -> tuple[Any, ...]:
        _, betas, _, weight_decay, amsgrad = settings.values()
        means = [number(value) for beta in betas for value in (beta, 1 - beta)]
        return *means, weight_decay, amsgrad

    def _step_numbers(self, settings: dict[str, Any], t: int) -> tuple[float, ...]:
        beta1, beta2 = settings["betas"]
        root, eps = math.sqrt(1 - beta2**t), settings["eps"]
        # eps * root may round to 0 in the dtype of the parameters
        return float(self.flat.values.dtype.type(eps * root)) or eps, settings["lr"] * root / (1 - beta1**t)

    def _update(self, constants: Any, p: Any, g: Any, m: Any, v: Any, largest: Any, s: Any) -> None:
        beta1, new1, beta2, new2, weight_decay, amsgrad, eps, rate = constants
        if weight_decay:
            g = g + weight_decay * p
        m *= beta1
        m += np.multiply(g, new1, s)
        v *= beta2
        np.multiply(g, g, s)
        v += np.multiply(s, new2, s)
        if amsgrad:
            v = np.maximum(largest, v, out=largest)
        # Equal to the equation above; the second correction is outside of the root, which saves a division of an array.
        np.sqrt(v, s)
        s += eps
        np.divide(m, s, s)
        s *= rate
        p -= s
