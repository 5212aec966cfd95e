"""Stochastic gradient descent."""

from __future__ import annotations

import math
from collections.abc import Iterable
from time import perf_counter_ns
from typing import Any

import numpy as np

from microfw.errors import ArgumentError, message
from microfw.optim.flat import Flat
from microfw.recording import MODE
from microfw.tensor import Tensor


class SGD:
    """Stochastic gradient descent, with momentum.

    For a parameter ``p`` with gradient ``g``, in this order::

        g = g + weight_decay * p
        v = momentum * v + g
        p = p - lr * v                     # Nesterov: p - lr * (g + momentum * v)

    Parameters
    ----------
    parameters : iterable of Tensor
        ``model.parameters()``. They become views of one buffer, and their gradients of another, which the
        next backward overwrites.
    lr : float
        Learning rate, above 0. Can be changed between steps.
    momentum : float
        From 0 to below 1.
    nesterov : bool
        Look ahead along the momentum; needs one.
    weight_decay : float
        Pull towards 0, at least 0.

    Raises
    ------
    ArgumentError
        If a setting is out of range, or there is no parameter.

    Notes
    -----
    A parameter without a gradient this step is left untouched, its momentum and decay too. Sources: Polyak,
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

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        momentum: float = 0.0,
        *,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        check(lr, momentum, nesterov, weight_decay)
        self.lr = lr
        self.momentum = momentum
        self.nesterov = nesterov
        self.weight_decay = weight_decay
        self.flat = Flat(parameters, "SGD")
        self.velocity = np.zeros_like(self.flat.values)
        self._scratch = np.empty_like(self.flat.values)
        self._arrays: tuple[Any, Any, Any] = ((None, None), None, None)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for leaf in self.flat.leaves:
            leaf.grad = None

    def step(self) -> None:
        """Move the parameters that have a gradient.

        Raises
        ------
        GraphError
            If another optimizer has taken a parameter over.
        NonFiniteError
            If a gradient is NaN or infinite; then no parameter has changed.
        ArgumentError
            If the learning rate was set to something that is not above 0.
        """
        watcher = MODE.get().watcher
        if watcher is None:
            return self._step()
        began = perf_counter_ns()
        try:
            self._step()
        finally:
            watcher.stretches.append(("update", began, perf_counter_ns()))
        watcher.after_update()

    def _step(self) -> None:
        flat = self.flat
        if self._arrays[0] != (self.lr, self.momentum):
            check(self.lr, self.momentum, self.nesterov, self.weight_decay)
            kind = flat.values.dtype
            # NumPy takes an array of one number faster than the number.
            self._arrays = ((self.lr, self.momentum), np.array(self.lr, kind), np.array(self.momentum, kind))
        spans = flat.ready()
        if spans is flat.whole:
            self._move(flat.values, flat.gradients, self.velocity, self._scratch)
            return
        for span in spans:
            self._move(flat.values[span], flat.gradients[span], self.velocity[span], self._scratch[span])

    def _move(self, p: Any, g: Any, v: Any, scratch: Any) -> None:
        _, lr, momentum = self._arrays
        if self.weight_decay:
            g = g + self.weight_decay * p
        if self.momentum:
            v *= momentum
            v += g
            g = g + momentum * v if self.nesterov else v
        np.multiply(g, lr, scratch)
        p -= scratch

    def state_dict(self) -> dict[str, Any]:
        """Return settings and momentum, copied."""
        return {
            "lr": self.lr,
            "momentum": self.momentum,
            "nesterov": self.nesterov,
            "weight_decay": self.weight_decay,
            "velocity": self.velocity.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take settings and momentum from `state_dict`; all of them, or none if anything is wrong."""
        velocity = np.asarray(state["velocity"], self.velocity.dtype)
        if velocity.shape != self.velocity.shape:
            raise ArgumentError(
                message("SGD.load_state_dict", f"velocity of shape {self.velocity.shape}", velocity.shape)
            )
        settings = {k: state[k] for k in ("lr", "momentum", "nesterov", "weight_decay")}
        check(**settings)
        self.__dict__.update(settings)
        self.velocity[...] = velocity

    def __repr__(self) -> str:
        return (
            f"SGD(lr={self.lr}, momentum={self.momentum}, nesterov={self.nesterov}, "
            f"weight_decay={self.weight_decay}; {self.flat.values.size:,} parameters)"
        )


def check(lr: float, momentum: float, nesterov: bool, weight_decay: float) -> None:
    """Raise unless the settings make sense together."""
    for name, value, good, expected in (
        ("lr", lr, lr > 0, "above 0"),
        ("momentum", momentum, 0 <= momentum < 1, "from 0 to below 1"),
        ("weight_decay", weight_decay, weight_decay >= 0, "at least 0"),
    ):
        if not good or not math.isfinite(value):
            raise ArgumentError(message("SGD", f"{name} {expected}, finite", value))
    if nesterov and not momentum:
        raise ArgumentError(message("SGD", "a momentum above 0 with nesterov=True", momentum))
