"""Recurrent layers: sequences read step by step, with a state carried along."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.errors import ShapeError
from microfw.nn.checks import as_layer_input, positive, require, wrong_shape
from microfw.nn.initializers import Seed, glorot_uniform, orthogonal
from microfw.nn.module import Module, Parameter
from microfw.ops.linalg import linear, matmul
from microfw.ops.recurrent import CELLS, recur


class _Recurrent(Module):
    weight_ih: Parameter  # (C, gates * H)
    weight_hh: Parameter  # (H, gates * H)
    bias: Parameter | None  # (gates * H,)
    _cell: ClassVar[str]

    def __init__(self, in_features: int, hidden: int, bias: bool = True, *, rng: Seed = None) -> None:
        positive(type(self).__name__, in_features=in_features, hidden=hidden)
        self.in_features, self.hidden = int(in_features), int(hidden)
        rng = np.random.default_rng(rng)
        c, h, gates = self.in_features, self.hidden, CELLS[self._cell].gates
        # a block at a time: the fans of a matrix of all blocks would be those of a wider layer
        self.weight_ih = Parameter(np.concatenate([glorot_uniform((c, h), rng) for _ in range(gates)], axis=1))
        self.weight_hh = Parameter(np.concatenate([orthogonal((h, h), rng) for _ in range(gates)], axis=1))
        self.bias = Parameter(np.zeros(gates * h)) if bias else None

    def forward(self, x: Any, state: Any = None) -> tuple[Tensor, Any]:
        """Read the sequences."""
        x = self._sequence(x)
        y = self._run(x, self._state(x, state), *self._before(x))
        return y.transpose((1, 0, 2)), y[-1]

    def _before(self, x: Any) -> tuple[Any, ...]:
        """Return the rows above the recurrent weight."""
        return ()

    def _run(self, x: Any, s0: Any, *before: Any) -> Tensor:
        """Return the states after each step, `(T, N, S)`."""
        n, steps, _ = x.shape
        # one product for all steps, in front of the loop: only h @ weight_hh has to wait for the step before
        turned = np.reshape(np.transpose(x, (1, 0, 2)), (steps * n, self.in_features))
        a = matmul(turned, self.weight_ih) if self.bias is None else linear(turned, self.weight_ih, self.bias)
        rows = np.concatenate([*before, self.weight_hh, a], axis=0)
        return recur(rows, s0, cell=self._cell, steps=steps)

    def _sequence(self, x: Any) -> Any:
        return as_layer_input(x, self.weight_ih.dtype, self, self._check_shape)

    def _check_shape(self, x: Any) -> None:
        if x.ndim != 3 or x.shape[2] != self.in_features or not x.shape[1]:
            fix = "the axes are row, step, feature, with at least one step"
            raise wrong_shape(self, f"(N, T, {self.in_features})", x, fix)

    def _state(self, x: Any, state: Any) -> Any:
        """Return a first state `(N, H)`: the given one, or zeros."""
        shape = (x.shape[0], self.hidden)
        if state is None:
            return np.zeros(shape, self.weight_ih.dtype)

        def check(state: Any) -> None:
            if state.shape != shape:
                raise ShapeError(self.where, f"a state of shape {shape}", state.shape)

        return as_layer_input(state, self.weight_ih.dtype, self, check)

    def extra_repr(self) -> str:
        """Return the sizes."""
        return f"{self.in_features} -> {self.hidden}" + ("" if self.bias is not None else ", bias=False")


class RNN(_Recurrent):
    """A plain recurrent layer, ``h = tanh(x @ weight_ih + h @ weight_hh + bias)`` in each step.

    Parameters
    ----------
    in_features, hidden : int
        Number C of input features at each step, and length H of the state.
    bias : bool
        Whether to add a bias.
    nonlinearity : {"tanh", "relu"}
        The activation applied to the sum.
    rng : int, numpy.random.Generator or None
        Where the initial weights come from: `initializers.glorot_uniform` for the input, `orthogonal` for
        the state. Biases start at 0.

    Returns
    -------
    outputs, state : Tensor
        When called with ``x`` of shape (N, T, C) and optionally a first ``state`` of shape (N, H), zeros by
        default: the state after each step, (N, T, H), and after the last, (N, H).

    Raises
    ------
    ArgumentError
        If a size is not a positive integer, or the nonlinearity is unknown.
    ShapeError
        When called, if ``x`` or ``state`` has another shape.

    Notes
    -----
    Source: Elman, "Finding Structure in Time", 1990. A sequence is one node in the graph, however long. Behind it
    in a `Sequential`, ``Lambda(operator.itemgetter(0))`` picks the outputs.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> outputs, state = nn.RNN(3, 5, rng=0)(np.ones((2, 7, 3)))
    >>> outputs.shape, state.shape
    ((2, 7, 5), (2, 5))
    """

    def __init__(
        self, in_features: int, hidden: int, bias: bool = True, nonlinearity: str = "tanh", *, rng: Seed = None
    ) -> None:
        known = nonlinearity in ("tanh", "relu")
        require(known, "RNN", "nonlinearity to be 'tanh' or 'relu'", repr(nonlinearity))
        self.nonlinearity = nonlinearity
        super().__init__(in_features, hidden, bias, rng=rng)

    @property
    def _cell(self) -> str:  # type: ignore[override]
        return self.nonlinearity


class GRU(_Recurrent):
    """Gated recurrent units.

    In each step, with ``a = x @ weight_ih + bias`` and ``u = h @ weight_hh + bias_hh`` cut into three blocks::

        r = sigmoid(a_r + u_r)
        z = sigmoid(a_z + u_z)
        n = tanh(a_n + r * u_n)
        h = (1 - z) * n + z * h

    Parameters
    ----------
    in_features, hidden : int
        Number C of input features at each step, and length H of the state.
    bias : bool
        Whether to add biases. There are two, since ``r`` weighs the second.
    rng : int, numpy.random.Generator or None
        Where the initial weights come from, as for `RNN`.

    Returns
    -------
    outputs, state : Tensor
        As for `RNN`.

    Raises
    ------
    ArgumentError
        If a size is not a positive integer.
    ShapeError
        When called, if ``x`` or ``state`` has another shape.

    Notes
    -----
    Source: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014, section 2.3, in the
    form of PyTorch's ``nn.GRU``: the blocks in the order r, z, n, and ``r`` applied behind the product.
    """

    _cell = "gru"
    bias_hh: Parameter | None  # (3 * H,)

    def __init__(self, in_features: int, hidden: int, bias: bool = True, *, rng: Seed = None) -> None:
        super().__init__(in_features, hidden, bias, rng=rng)
        self.bias_hh = Parameter(np.zeros(3 * self.hidden)) if bias else None

    def _before(self, x: Any) -> tuple[Any, ...]:
        """Return the bias of the recurrent product."""
        width = 3 * self.hidden
        return (np.zeros((1, width), x.dtype) if self.bias_hh is None else self.bias_hh.reshape((1, width)),)


class LSTM(_Recurrent):
    """Long short-term memory.

    In each step, with ``x @ weight_ih + h @ weight_hh + bias`` cut into four blocks::

        i, f, o = sigmoid(block i), sigmoid(block f), sigmoid(block o)
        g = tanh(block g)
        c = f * c + i * g
        h = o * tanh(c)

    Parameters
    ----------
    in_features, hidden : int
        Number C of input features at each step, and length H of each of the two states.
    bias : bool
        Whether to add a bias.
    rng : int, numpy.random.Generator or None
        Where the initial weights come from, as for `RNN`. The bias of the forget gate ``f`` starts at 1,
        so that the memory lasts at first; the others start at 0.

    Returns
    -------
    outputs : Tensor
        When called with ``x`` of shape (N, T, C) and optionally a first state ``(h, c)``, each of shape
        (N, H), zeros by default: ``h`` after each step, (N, T, H).
    state : tuple of two Tensors
        ``h`` and ``c`` after the last step.

    Raises
    ------
    ArgumentError
        If a size is not a positive integer.
    ShapeError
        When called, if ``x`` or the state has another shape.

    Notes
    -----
    Sources: Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997, with the forget gate of Gers et al.,
    "Learning to Forget", 2000, in the form of PyTorch's ``nn.LSTM``: the blocks in the order i, f, g, o. The
    forget gate's bias: Jozefowicz et al., "An Empirical Exploration of Recurrent Network Architectures",
    2015, section 2.2.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> outputs, (h, c) = nn.LSTM(3, 5, rng=0)(np.ones((2, 7, 3)))
    >>> outputs.shape, h.shape, c.shape
    ((2, 7, 5), (2, 5), (2, 5))
    """

    _cell = "lstm"

    def __init__(self, in_features: int, hidden: int, bias: bool = True, *, rng: Seed = None) -> None:
        super().__init__(in_features, hidden, bias, rng=rng)
        if self.bias is not None:
            start = np.zeros(4 * self.hidden)
            start[self.hidden : 2 * self.hidden] = 1  # the forget gate: the memory lasts at first
            self.bias.data = start

    def forward(self, x: Any, state: Any = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Read the sequences."""
        x = self._sequence(x)
        h = self.hidden
        if state is None:
            s0 = np.zeros((x.shape[0], 2 * h), self.weight_ih.dtype)
        else:
            if not isinstance(state, tuple | list) or len(state) != 2:
                raise ShapeError(self.where, "a state of two, (h, c)", type(state).__name__)
            s0 = np.concatenate([self._state(x, part) for part in state], axis=1)
        y = self._run(x, s0)
        return y[:, :, :h].transpose((1, 0, 2)), (y[-1, :, :h], y[-1, :, h:])
