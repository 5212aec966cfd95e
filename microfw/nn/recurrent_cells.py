"""Recurrent cells: one step of a recurrent layer, for loops over time that you write."""

from __future__ import annotations

from typing import Any

from microfw.nn.checks import as_layer_input, wrong_shape
from microfw.nn.forward_state import as_generator
from microfw.nn.initializers import Seed
from microfw.nn.recurrence import Recurrent


class _Cell(Recurrent):
    def __init__(self, in_features: int, hidden: int, bias: bool = True, *, rng: Seed = None) -> None:
        super().__init__(in_features, hidden, bias)
        self._create("", self.in_features, bias, as_generator(type(self).__name__, rng))

    def forward(self, x: Any, state: Any = None) -> Any:
        """Return the state after the step."""
        x = as_layer_input(x, self.weight_ih.dtype, self, self._check_shape)
        n = x.shape[0]
        (first,), _ = self._first(n, state, (n, self.hidden))
        return self._last([self._run(x, first, 1)], False)

    def _check_shape(self, x: Any) -> None:
        if x.ndim != 2 or x.shape[1] != self.in_features:
            raise wrong_shape(self, f"(N, {self.in_features})", x, "pass one step, such as x[:, t]")

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.in_features} -> {self.hidden}" + ("" if self.bias is not None else ", bias=False")


class GRUCell(_Cell):
    """One step of a `GRU`, with parameters of the same names.

    Parameters
    ----------
    in_features, hidden : int
        Number C of input features, and length H of the state.
    bias : bool
        Whether to add biases.
    rng : int, numpy.random.Generator or None
        Where the initial weights come from, as for `GRU`.

    Returns
    -------
    Tensor
        When called with ``x`` of shape (N, C) and optionally a ``state`` of shape (N, H), zeros by default: the
        state after the step, (N, H).

    Raises
    ------
    ArgumentError
        If a size is not a positive integer.
    ShapeError
        When called, if ``x`` or ``state`` has another shape.

    Notes
    -----
    `GRU` reads a whole sequence as one node, in less time than a loop over its steps.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> cell, x, state = nn.GRUCell(3, 5, rng=0), np.ones((2, 7, 3)), None
    >>> for t in range(7):
    ...     state = cell(x[:, t], state)
    >>> np.allclose(state, nn.GRU(3, 5, rng=0)(x)[1])
    True
    """

    _cell = "gru"


class LSTMCell(_Cell):
    """One step of an `LSTM`, with parameters of the same names.

    Parameters
    ----------
    in_features, hidden : int
        Number C of input features, and length H of each of the two states.
    bias : bool
        Whether to add a bias.
    rng : int, numpy.random.Generator or None
        Where the initial weights come from, as for `LSTM`.

    Returns
    -------
    tuple of two Tensors
        When called with ``x`` of shape (N, C) and optionally a state ``(h, c)``, each of shape (N, H), zeros by
        default: ``h`` and ``c`` after the step.

    Raises
    ------
    ArgumentError
        If a size is not a positive integer.
    ShapeError
        When called, if ``x`` or the state has another shape.

    Notes
    -----
    `LSTM` reads a whole sequence as one node, in less time than a loop over its steps.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> h, c = nn.LSTMCell(3, 5, rng=0)(np.ones((2, 3)))
    >>> h.shape, c.shape
    ((2, 5), (2, 5))
    """

    _cell = "lstm"
