"""Recurrent layers: sequences read step by step, with a state carried along."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from microfw.autograd.tensor import Tensor
from microfw.errors import DataError, ShapeError
from microfw.nn.checks import as_flag, as_integers, as_layer_input, as_number, positive, require, wrong_shape
from microfw.nn.dropout import Dropout
from microfw.nn.forward_state import as_generator
from microfw.nn.initializers import Seed
from microfw.nn.parameter import Parameter
from microfw.nn.recurrence import Recurrent
from microfw.ops.effects import pure_callback


class _Layer(Recurrent):
    ADDED: ClassVar[dict[str, Any]] = {"num_layers": 1, "bidirectional": False, "dropout": 0.0}

    if TYPE_CHECKING:

        def __call__(self, *inputs: Any, **options: Any) -> tuple[Tensor, Any]: ...  # type: ignore[override]

    def __init__(
        self,
        in_features: int,
        hidden: int,
        bias: bool = True,
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        rng: Seed = None,
    ) -> None:
        super().__init__(in_features, hidden, bias)
        name = type(self).__name__
        positive(name, num_layers=num_layers)
        dropout = as_number(dropout, lambda p: 0 <= p < 1, name, "dropout from 0 to below 1")
        require(num_layers > 1 or not dropout, name, "dropout between two layers or more", "num_layers=1")
        self.num_layers = int(num_layers)
        self.bidirectional = as_flag(bidirectional, name, "bidirectional", "bidirectional=True")
        rng = as_generator(type(self).__name__, rng)
        c = self.in_features
        for suffixes in suffixes_of(self.num_layers, self.bidirectional):
            for suffix in suffixes:
                self._create(suffix, c, bias, rng)
            c = self.hidden * len(suffixes)
        self.dropout = Dropout(dropout, rng=rng) if dropout else None

    @property
    def settings(self) -> dict[str, Any]:
        """Settings that are not attributes of the same name."""
        return {"dropout": self.dropout.p if self.dropout is not None else 0.0}

    def forward(self, x: Any, state: Any = None, lengths: Any = None) -> tuple[Tensor, Any]:
        """Read the sequences."""
        y = as_layer_input(x, self.weight_ih.dtype, self, self._check_shape)
        n, steps, _ = y.shape
        layers = suffixes_of(self.num_layers, self.bidirectional)
        count = len(layers) * len(layers[0])
        one = ((n, self.hidden),) if count == 1 else ()
        first, stacked = self._first(n, state, *one, (count, n, self.hidden))
        mask = None if lengths is None else self._mask(lengths, n, steps)
        # where, since a gradient of 0 times padding of NaN would be NaN
        y = valid(np.transpose(y, (1, 0, 2)), mask)
        states: list[Any] = []
        for k, suffixes in enumerate(layers):
            x = y if k == 0 or self.dropout is None else self.dropout(y)
            outputs = []
            for direction, suffix in enumerate(suffixes):
                rows = np.reshape(x[::-1] if direction else x, (steps * n, x.shape[2]))
                there = mask[::-1] if direction and mask is not None else mask
                s = self._run(rows, first[len(states)], steps, suffix, there)
                states.append(s)
                y = s.reshape(s.shape[1:]) if len(s) == 1 else s[0]
                outputs.append(y[::-1] if direction else y)
            y = valid(outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=2), mask)
        return y.transpose((1, 0, 2)), self._last(states, stacked)

    def _mask(self, lengths: Any, n: int, steps: int) -> Any:
        """Return which steps are valid, `(T, N, 1)`."""
        # checked by an op where the lengths are a Tensor, so that a replay uses those of each batch
        if isinstance(lengths, Tensor):
            return pure_callback(lengths, by=self._valid_steps, args=(n, steps))
        return self._valid_steps(lengths, n, steps)

    def _valid_steps(self, lengths: Any, n: int, steps: int) -> np.ndarray[Any, Any]:
        lengths = as_integers(lengths, self, "lengths")
        if lengths.shape != (n,):
            raise ShapeError(self.where, f"lengths of shape {(n,)}", lengths.shape, "one for each row of x")
        wrong = np.flatnonzero((lengths < 1) | (lengths > steps))
        if wrong.size:
            at = int(wrong[0])
            fix = "leave out rows without steps" if lengths[at] < 1 else f"x has {steps} steps, padding included"
            raise DataError(self.where, f"lengths from 1 to {steps}", f"{lengths[at]} of row {at}", fix)
        mask: np.ndarray[Any, Any] = np.arange(steps)[:, None, None] < lengths[:, None]
        return mask

    def _check_shape(self, x: Any) -> None:
        if x.ndim != 3 or x.shape[2] != self.in_features or not x.shape[1]:
            fix = "the axes are row, step, feature, with at least one step"
            raise wrong_shape(self, f"(N, T, {self.in_features})", x, fix)

    def extra_repr(self) -> str:
        """Return the sizes, and settings that are not the usual ones."""
        shown = [f"{self.in_features} -> {self.hidden}"]
        shown += ["bias=False"] * (self.bias is None)
        shown += [f"num_layers={self.num_layers}"] * (self.num_layers > 1) + ["bidirectional"] * self.bidirectional
        return ", ".join(shown)


@cache
def suffixes_of(num_layers: int, bidirectional: bool) -> tuple[tuple[str, ...], ...]:
    """Return the end of the parameters' names for each layer, and for each of its directions."""
    layers = ["", *(f"_l{k}" for k in range(1, num_layers))]
    return tuple((name, f"{name}_reverse") if bidirectional else (name,) for name in layers)


def valid(x: Any, mask: Any) -> Any:
    """Return ``x`` with zeros where the mask is false."""
    return x if mask is None else np.where(mask, x, 0)


class RNN(_Layer):
    """A plain recurrent layer, ``h = tanh(x @ weight_ih + h @ weight_hh + bias)`` in each step.

    Parameters
    ----------
    in_features, hidden : int
        Number C of input features at each step, and length H of the state.
    bias : bool
        Whether to add a bias.
    nonlinearity : {"tanh", "relu"}
        The activation applied to the sum.
    num_layers : int
        Number L of layers. From the second on, a layer reads the outputs of the one below.
    bidirectional : bool
        Whether each layer also reads the steps from the last to the first, with parameters of its own. The number D of
        directions is then 2, else 1.
    dropout : float
        Probability to drop an entry of the outputs of each layer but the last, in training.
    rng : int, numpy.random.Generator or None
        Where the initial weights come from: `initializers.glorot_uniform` for the input, `orthogonal` for
        the state. Biases start at 0. Dropout draws from the same generator.

    Returns
    -------
    outputs, state : Tensor
        When called with ``x`` of shape (N, T, C) and optionally a first ``state`` of shape (L * D, N, H), zeros by
        default: the state of the last layer after each step, (N, T, D * H), the forward direction first; and the
        state of each layer and direction after its last step, (L * D, N, H), layer by layer, the forward direction
        first. With one layer and one direction both states may be (N, H): the one returned has the shape of the one
        given, (N, H) by default.

        A third argument ``lengths``, integers (N,), is the number of valid steps of each row of ``x``, in any order;
        the steps behind are padding, which may have any values. Outputs there are 0, and no gradient comes from them.
        The last state of a row is that after its last valid step, where the backward direction begins.

    Raises
    ------
    ArgumentError
        If a setting is out of range, or dropout is given for a single layer.
    ShapeError
        When called, if ``x``, ``state`` or ``lengths`` has another shape.
    DTypeError
        When called, if lengths are no whole numbers.
    DataError
        When called, if a length is less than 1 or more than T.

    Notes
    -----
    Source: Elman, "Finding Structure in Time", 1990. Schuster and Paliwal, "Bidirectional Recurrent Neural Networks",
    1997. A sequence is one node in the graph for each layer and direction, however long.

    To read on, call the layer with the next steps and ``state.detach()``: no gradient goes further back than these
    steps, which is truncated backpropagation through time. In a `Sequential` the next layer gets the outputs alone.

    The first layer has the parameters ``weight_ih`` (C, G * H), ``weight_hh`` (H, G * H) and ``bias`` (G * H), where G
    is 1, 3 for `GRU` and 4 for `LSTM`; `GRU` also ``bias_hh`` (G * H). Layer k = 1, 2, … has the same names with
    ``_l{k}`` behind, and D * H in place of C: ``weight_ih_l1``. The backward direction has ``_reverse`` behind:
    ``weight_ih_reverse``, ``weight_ih_l1_reverse``. PyTorch's ``weight_ih_l0`` is our ``weight_ih``, transposed;
    its two biases are summed in ``bias``, but for `GRU`, where they are ``bias`` and ``bias_hh``.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> outputs, state = nn.RNN(3, 5, rng=0)(np.ones((2, 7, 3)))
    >>> outputs.shape, state.shape
    ((2, 7, 5), (2, 5))
    >>> outputs, state = nn.RNN(3, 5, num_layers=2, bidirectional=True, rng=0)(np.ones((2, 7, 3)))
    >>> outputs.shape, state.shape
    ((2, 7, 10), (4, 2, 5))
    """

    def __init__(
        self,
        in_features: int,
        hidden: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        num_layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        rng: Seed = None,
    ) -> None:
        known = nonlinearity in ("tanh", "relu")
        require(known, "RNN", "nonlinearity to be 'tanh' or 'relu'", repr(nonlinearity))
        self.nonlinearity = nonlinearity
        super().__init__(
            in_features, hidden, bias, num_layers=num_layers, bidirectional=bidirectional, dropout=dropout, rng=rng
        )

    @property
    def _cell(self) -> str:  # type: ignore[override]
        return self.nonlinearity


class GRU(_Layer):
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
    num_layers, bidirectional, dropout, rng
        As for `RNN`.

    Returns
    -------
    outputs, state : Tensor
        As for `RNN`.

    Raises
    ------
    ArgumentError
        If a setting is out of range, or dropout is given for a single layer.
    ShapeError
        When called, if ``x`` or ``state`` has another shape.

    Notes
    -----
    Source: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder", 2014, section 2.3, in the
    form of PyTorch's ``nn.GRU``: the blocks in the order r, z, n, and ``r`` applied behind the product. `RNN` lists the
    names of the parameters.
    """

    _cell = "gru"
    bias_hh: Parameter | None  # (3 * H,)


class LSTM(_Layer):
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
        Whether to add a bias. That of the forget gate ``f`` starts at 1, so that the memory lasts at first; the others
        start at 0.
    num_layers, bidirectional, dropout, rng
        As for `RNN`.

    Returns
    -------
    outputs : Tensor
        As for `RNN`: ``h`` after each step.
    state : tuple of two Tensors
        ``h`` and ``c`` after the last step, each as for `RNN`. The first state is also given as ``(h, c)``.

    Raises
    ------
    ArgumentError
        If a setting is out of range, or dropout is given for a single layer.
    ShapeError
        When called, if ``x`` or the state has another shape.

    Notes
    -----
    Sources: Hochreiter and Schmidhuber, "Long Short-Term Memory", 1997, with the forget gate of Gers et al.,
    "Learning to Forget", 2000, in the form of PyTorch's ``nn.LSTM``: the blocks in the order i, f, g, o. The
    forget gate's bias: Jozefowicz et al., "An Empirical Exploration of Recurrent Network Architectures",
    2015, section 2.2. `RNN` lists the names of the parameters.

    Examples
    --------
    >>> import numpy as np
    >>> from microfw import nn
    >>> outputs, (h, c) = nn.LSTM(3, 5, rng=0)(np.ones((2, 7, 3)))
    >>> outputs.shape, h.shape, c.shape
    ((2, 7, 5), (2, 5), (2, 5))
    """

    _cell = "lstm"
