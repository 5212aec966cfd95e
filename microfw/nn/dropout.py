"""Dropout: noise in training against overfitting."""

from __future__ import annotations

from typing import Any

from microfw.nn.checks import as_float_input, as_number
from microfw.nn.forward_state import as_generator
from microfw.nn.initializers import Seed
from microfw.nn.module import Module
from microfw.ops.effects import dropout_mask


class Dropout(Module):
    """Zero each entry with probability ``p`` while training, and scale the others by ``1 / (1 - p)``.

    Parameters
    ----------
    p : float
        From 0 up to, and not including, 1.
    rng : int, numpy.random.Generator or None
        Where the noise comes from.

    Notes
    -----
    Source: Srivastava et al., "Dropout", 2014, in the inverted form.
    """

    def __init__(self, p: float = 0.5, *, rng: Seed = None) -> None:
        self.p = as_number(p, lambda p: 0 <= p < 1, "Dropout", "p from 0 to below 1")
        self.rng = as_generator("Dropout", rng)

    def forward(self, x: Any) -> Any:
        """Apply noise in training; return ``x`` itself in evaluation."""
        if not self.training or self.p == 0:
            return x
        x = as_float_input(x, self)
        # the mask is scaled, so that evaluation has nothing to do
        return x * dropout_mask(x, p=self.p, rng=self.rng)

    def extra_repr(self) -> str:
        """Return the probability."""
        return f"{self.p}"
