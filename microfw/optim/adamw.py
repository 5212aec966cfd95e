"""AdamW: Adam with decoupled weight decay."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from microfw.optim.adam import Adam


class AdamW(Adam):
    """Adam, with weight decay applied to the parameters, not to the gradient.

    The first line of `Adam`'s equations becomes::

        p = p - lr * weight_decay * p

    so the decay is not scaled by the running means of the gradients.

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
        Decay of the parameters, relative to ``lr``; at least 0.
    amsgrad : bool
        Divide by the largest mean square so far.

    Raises
    ------
    ArgumentError
        If a hyperparameter is out of range, or ``parameters`` is empty.

    Notes
    -----
    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", 2019, algorithm 2, in PyTorch's
    form, with the decay multiplied by the learning rate.

    Examples
    --------
    A parameter whose gradient is 0 decays:

    >>> import numpy as np, microfw as mf
    >>> p = mf.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = mf.optim.AdamW([p], lr=0.1, weight_decay=0.5)
    >>> p.grad = np.zeros(2)
    >>> optimizer.step()
    >>> p
    tensor([0.95, 1.9 ], requires_grad=True)
    """

    def __init__(
        self,
        parameters: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        *,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay=weight_decay, amsgrad=amsgrad)

    def _constants(self, number: Callable[[Any], Any], settings: dict[str, Any]) -> tuple[Any, ...]:
        pull = settings["lr"] * settings["weight_decay"]
        # The decay is not part of the gradient, so Adam's own one is 0.
        return number(1 - pull), *super()._constants(number, settings | {"weight_decay": 0.0})

    def _update(self, constants: Any, p: Any, *arrays: Any) -> None:
        p *= constants[0]
        super()._update(constants[1:], p, *arrays)
