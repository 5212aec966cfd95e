"""Base of recurrent layers and cells: their parameters and states, and the loop over time."""

from __future__ import annotations

from operator import itemgetter
from typing import Any, ClassVar

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.errors import ShapeError
from microfw.nn.checks import as_flag, as_layer_input, positive
from microfw.nn.initializers import glorot_uniform, orthogonal
from microfw.nn.module import Module
from microfw.nn.parameter import Parameter
from microfw.ops.cells import CELLS
from microfw.ops.recurrent import recur, recur_masked, recurrent_inputs


class Recurrent(Module):
    """A layer or a cell; ``_cell`` is its key in `CELLS`."""

    weight_ih: Parameter  # (C, gates * H)
    weight_hh: Parameter  # (H, gates * H)
    bias: Parameter | None  # (gates * H,)
    passes_outputs = True  # in a Sequential
    _cell: ClassVar[str]

    def __init__(self, in_features: int, hidden: int, bias: bool) -> None:
        name = type(self).__name__
        positive(name, in_features=in_features, hidden=hidden)
        as_flag(bias, name, "bias", "num_layers=2")  # PyTorch's third argument is num_layers
        self.in_features, self.hidden = int(in_features), int(hidden)

    def _create(self, suffix: str, c: int, bias: bool, rng: np.random.Generator) -> None:
        """Set the parameters of one layer and direction, with ``c`` input features."""
        kind, h = CELLS[self._cell], self.hidden
        # a block at a time: the fans of a matrix of all blocks would be those of a wider layer
        weight_ih = np.concatenate([glorot_uniform((c, h), rng) for _ in range(kind.gates)], axis=1)
        weight_hh = np.concatenate([orthogonal((h, h), rng) for _ in range(kind.gates)], axis=1)
        setattr(self, f"weight_ih{suffix}", Parameter(weight_ih))
        setattr(self, f"weight_hh{suffix}", Parameter(weight_hh))
        start = np.zeros(kind.gates * h)
        if self._cell == "lstm":
            start[h : 2 * h] = 1  # the forget gate: the memory lasts at first
        setattr(self, f"bias{suffix}", Parameter(start) if bias else None)
        if kind.bias:
            setattr(self, f"bias_hh{suffix}", Parameter(np.zeros(kind.gates * h)) if bias else None)

    def _run(self, x: Any, s0: Any, steps: int, suffix: str = "", mask: Any = None) -> Tensor:
        """Return the states after each step, `(S, T, N, H)`, for inputs `(T * N, C)`."""
        bias, state = getattr(self, f"bias{suffix}"), getattr(self, f"weight_hh{suffix}")
        kind = CELLS[self._cell]
        if kind.bias:  # the bias of the recurrent product
            bias_hh, width = getattr(self, f"bias_hh{suffix}"), state.shape[1]
            first = np.zeros((1, width), x.dtype) if bias_hh is None else bias_hh.reshape((1, width))
            state = np.concatenate([first, state], axis=0)
        rows = recurrent_inputs(
            x,
            getattr(self, f"weight_ih{suffix}"),
            0 if bias is None else bias,
            state,
            gates=kind.gates,
            start=state.shape[0],
        )
        if mask is None:
            return recur(rows, s0, cell=self._cell, steps=steps)
        return recur_masked(rows, mask, s0, cell=self._cell, steps=steps)

    def _first(self, n: int, state: Any, *shapes: tuple[int, ...]) -> tuple[list[Any], bool]:
        """Return the first state `(S, N, H)` of each layer and direction, and if they were given on one axis more."""
        dtype, pair = self.weight_ih.dtype, CELLS[self._cell].states == 2
        count = shapes[0][0] if len(shapes[0]) == 3 else 1
        if state is None:
            return [np.zeros((1 + pair, n, self.hidden), dtype)] * count, count > 1
        if pair and not (isinstance(state, tuple | list) and len(state) == 2):
            raise ShapeError(self.where, "a state of two, (h, c)", type(state).__name__)

        def check(state: Any) -> None:
            if state.shape not in shapes:
                raise ShapeError(self.where, f"a state of shape {' or '.join(map(str, shapes))}", state.shape)

        parts = [as_layer_input(part, dtype, self, check, "the state") for part in (state if pair else (state,))]
        each = [[part if part.ndim == 2 else part[k] for part in parts] for k in range(count)]
        return [np.stack(s) for s in each], parts[0].ndim == 3

    def _last(self, states: list[Any], stacked: bool) -> Any:
        """Return the last of the states of each layer and direction."""
        join = np.stack if stacked else itemgetter(0)
        last = [join([s[k, -1] for s in states]) for k in range(CELLS[self._cell].states)]
        return last[0] if len(last) == 1 else tuple(last)
