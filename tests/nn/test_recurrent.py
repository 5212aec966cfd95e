"""Stacked and bidirectional recurrent layers, sequences of different lengths, cells, and layers behind them."""

from __future__ import annotations

import operator

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import ArgumentError, DataError, DTypeError, GraphError, ShapeError
from tests.cases.ops import floats

KINDS = ["RNN", "GRU", "LSTM"]
kinds = pytest.mark.parametrize("kind", KINDS)
LENGTHS = np.array([2, 5, 1, 4])  # in no order


def make(kind, *sizes, **settings):
    """Return a layer of float64 whose parameters are not 0."""
    layer = getattr(nn, kind)(*sizes, rng=0, **settings).astype(np.float64)
    for k, p in enumerate(layer.parameters()):
        p.data = floats(p.shape, -0.8, 0.8, seed=k)
    return layer


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def step_by_hand(layer, suffix, x, h, c):
    """One step of one row, as the docstrings have it."""
    a = x @ getattr(layer, f"weight_ih{suffix}").data + getattr(layer, f"bias{suffix}").data
    u = h @ getattr(layer, f"weight_hh{suffix}").data
    if isinstance(layer, nn.RNN):
        return np.tanh(a + u), c
    if isinstance(layer, nn.GRU):
        u = u + getattr(layer, f"bias_hh{suffix}").data
        (ar, az, an), (ur, uz, un) = np.split(a, 3), np.split(u, 3)
        z = sigmoid(az + uz)
        return (1 - z) * np.tanh(an + sigmoid(ar + ur) * un) + z * h, c
    i, f, g, o = np.split(a + u, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def by_hand(layer, x, lengths, h0, c0):
    """Outputs, last h and last c, a row, a layer, a direction and a step after the other."""
    directions = ["", "_reverse"] if layer.bidirectional else [""]
    outputs = np.zeros((*x.shape[:2], layer.hidden * len(directions)))
    ends = np.zeros((2, *h0.shape))
    for row, length in enumerate(lengths):
        steps = x[row, :length]
        for k in range(layer.num_layers):
            columns = []
            for d, direction in enumerate(directions):
                at = k * len(directions) + d
                h, c, states = h0[at, row], c0[at, row], []
                for step in steps[::-1] if direction else steps:
                    h, c = step_by_hand(layer, (f"_l{k}" if k else "") + direction, step, h, c)
                    states.append(h)
                ends[:, at, row] = h, c
                columns.append(states[::-1] if direction else states)
            steps = np.concatenate(columns, axis=1)
        outputs[row, :length] = steps
    return outputs, *ends


def call(layer, x, states, **options):
    """Return outputs, last h and, for an LSTM, last c, in a list."""
    outputs, end = layer(x, tuple(states) if isinstance(layer, nn.LSTM) else states[0], **options)
    return [outputs, *(end if isinstance(layer, nn.LSTM) else [end])]


@kinds
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize(("layers", "both"), [(1, True), (2, False), (3, True)])
def test_layers_directions_and_lengths_step_by_step(kind, layers, both, lengths):
    layer = make(kind, 3, 2, num_layers=layers, bidirectional=both)
    x = floats((4, 5, 3), seed=20)
    states = [floats((layers * (1 + both), 4, 2), -1, 1, seed=k) for k in (21, 22)]
    got = call(layer, mf.tensor(x), states, lengths=lengths)
    expected = by_hand(layer, x, [5] * 4 if lengths is None else lengths, *states)
    for a, b in zip(got, expected, strict=False):
        np.testing.assert_allclose(a.data, b, rtol=1e-12, atol=1e-14)


@kinds
def test_gradients_of_ragged_sequences(kind):
    layer = make(kind, 2, 2, num_layers=2, bidirectional=True)
    x, states = floats((4, 5, 2), seed=1), [floats((4, 4, 2), -1, 1, seed=k) for k in (2, 3)]
    states = states if kind == "LSTM" else states[:1]

    def run(x, *states):
        return sum((k + 1) * np.square(part).sum() for k, part in enumerate(call(layer, x, states, lengths=LENGTHS)))

    assert mf.gradcheck(run, x, *states) <= 1e-6
    assert mf.gradcheck(mf.grad(run, range(1 + len(states))), x, *states, projections=1) <= 1e-6


@kinds
def test_padding_has_no_influence_and_no_gradient(kind):
    results = []
    for padding in (0.0, np.nan, 1e300):
        layer = make(kind, 3, 2, num_layers=2, bidirectional=True)
        x = floats((4, 5, 3), seed=5)
        valid = np.arange(5) < LENGTHS[:, None]
        x = mf.tensor(np.where(valid[..., None], x, padding), requires_grad=True)
        outputs, end = layer(x, lengths=LENGTHS)
        assert not outputs.data[~valid].any()
        (outputs.sum() + sum(np.square(part).sum() for part in end)).backward()
        assert not x.grad[~valid].any() and np.abs(x.grad[valid]).min() > 0
        results.append([x.grad, outputs.data, *(p.grad for p in layer.parameters())])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_steps_behind_a_length_cannot_overflow():
    """A state that doubles in each step would be inf before the last one, and its gradient NaN."""
    layer = nn.RNN(1, 1, nonlinearity="relu", rng=0)
    layer.weight_hh.data = [[2.0]]
    x = mf.tensor(np.ones((1, 200, 1), np.float32), requires_grad=True)
    outputs, state = layer(x, lengths=[3])
    outputs.sum().backward()
    assert np.isfinite(state.data).all() and all(np.isfinite(p.grad).all() for p in layer.parameters())


def test_lengths_are_lists_arrays_tensors_and_whole_floats():
    layer, x = make("LSTM", 3, 2, bidirectional=True), floats((4, 5, 3))
    expected = layer(x, lengths=LENGTHS)[0].data
    for lengths in (LENGTHS.tolist(), mf.tensor(LENGTHS), LENGTHS.astype(np.float32), LENGTHS.astype(np.int32)):
        np.testing.assert_array_equal(layer(x, lengths=lengths)[0].data, expected)
    assert layer(x[:0], lengths=[])[0].shape == (0, 5, 4)


X = np.ones((2, 5, 3))
REFUSED = {
    "no steps": (lambda: nn.GRU(3, 4)(X, lengths=[5, 0]), DataError, r"^GRU: expected lengths from 1 to 5, got 0 of row 1; leave out rows without steps$"),
    "too many": (lambda: nn.GRU(3, 4)(X, lengths=[6, 1]), DataError, r"^GRU: expected lengths from 1 to 5, got 6 of row 0; x has 5 steps, padding included$"),
    "a Tensor": (lambda: nn.GRU(3, 4)(X, lengths=mf.tensor([-1, 1])), DataError, r"^GRU: expected lengths from 1 to 5, got -1 of row 0; leave out"),
    "one for all": (lambda: nn.RNN(3, 4)(X, lengths=[5]), ShapeError, r"^RNN: expected lengths of shape \(2,\), got \(1,\); one for each row of x$"),
    "a number": (lambda: nn.RNN(3, 4)(X, lengths=5), ShapeError, r"^RNN: expected lengths of shape \(2,\), got \(\); one for"),
    "text": (lambda: nn.GRU(3, 4)(X, lengths="ab"), DTypeError, r"^GRU: expected lengths to hold numbers, got <U2; encode"),
    "a state of text": (lambda: nn.GRU(3, 4)(X, [["a"] * 4] * 2), DTypeError, r"^GRU: expected the state to hold numbers, got <U1; encode"),
    "a state of float64": (lambda: nn.GRU(3, 4)(X, mf.tensor(np.ones((2, 4)))), DTypeError, r"^GRU: expected the state of float32, got float64; cast"),
    "fractions": (lambda: nn.LSTM(3, 4)(X, lengths=[1, 1.5]), DTypeError, r"^LSTM: expected integer lengths, got 1.5; cast them with .astype\(int\)$"),
    "bools": (lambda: nn.LSTM(3, 4)(X, lengths=[True, True]), DTypeError, "^LSTM: expected integer lengths, got bool; cast"),
    "flat state": (lambda: nn.GRU(3, 4, num_layers=2)(X, np.ones((2, 4))), ShapeError, r"^GRU: expected a state of shape \(2, 2, 4\), got \(2, 4\)$"),
    "half a state": (lambda: nn.LSTM(3, 4, bidirectional=True)(X, (np.ones((2, 2, 4)), np.ones((1, 2, 4)))), ShapeError, r"^LSTM: expected a state of shape \(2, 2, 4\), got \(1, 2, 4\)$"),
    "no layers": (lambda: nn.GRU(3, 4, num_layers=0), ArgumentError, "^GRU: expected num_layers to be a positive integer, got 0$"),
    "layers as the third": (lambda: nn.LSTM(10, 20, 2), ArgumentError, "^LSTM: expected bias to be True or False, got 2; name each setting, as in num_layers=2$"),
    "dropout of one layer": (lambda: nn.LSTM(3, 4, dropout=0.5), ArgumentError, "^LSTM: expected dropout between two layers or more, got num_layers=1$"),
    "much dropout": (lambda: nn.GRU(3, 4, num_layers=2, dropout=1.0), ArgumentError, "^GRU: expected dropout from 0 to below 1, got 1.0$"),
    "cell, a sequence": (lambda: nn.GRUCell(3, 4)(X), ShapeError, r"^GRUCell: expected x of shape \(N, 3\), got \(2, 5, 3\); pass one step, such as x\[:, t\]$"),
    "cell, one state": (lambda: nn.LSTMCell(3, 4)(X[:, 0], np.ones((2, 4))), ShapeError, r"^LSTMCell: expected a state of two, \(h, c\), got ndarray$"),
    "cell, no size": (lambda: nn.LSTMCell(3, 0), ArgumentError, "^LSTMCell: expected hidden to be a positive integer, got 0$"),
    "transformer, features": (lambda: nn.TransformerEncoderLayer(4, 2, 8)(X), ShapeError, r"^TransformerEncoderLayer: expected x of shape \(N, T, 4\), got \(2, 5, 3\); the axes"),
    "transformer, activation": (lambda: nn.TransformerEncoderLayer(4, 2, 8, activation="elu"), ArgumentError, "^TransformerEncoderLayer: expected activation to be 'relu' or 'gelu', got 'elu'$"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    run, error, text = REFUSED[name]
    with pytest.raises(error, match=text):
        run()


def test_the_last_state_has_the_shape_of_the_first():
    x = np.ones((2, 5, 3))
    assert nn.GRU(3, 4)(x, np.ones((2, 4)))[1].shape == (2, 4)
    assert nn.GRU(3, 4)(x, np.ones((1, 2, 4)))[1].shape == (1, 2, 4)
    h, c = nn.LSTM(3, 4)(x, (np.ones((1, 2, 4)), np.ones((1, 2, 4))))[1]
    assert h.shape == c.shape == (1, 2, 4)
    assert nn.RNN(3, 4, num_layers=2)(x)[1].shape == (2, 2, 4)


def test_names_of_parameters():
    layer = nn.GRU(3, 4, num_layers=2, bidirectional=True, rng=0)
    shapes = {name: p.shape for name, p in layer.named_parameters()}
    parts = ["weight_ih", "weight_hh", "bias", "bias_hh"]
    assert list(shapes) == [part + s for s in ("", "_reverse", "_l1", "_l1_reverse") for part in parts]
    assert shapes["weight_ih_reverse"] == (3, 12) and shapes["weight_ih_l1"] == (8, 12)
    assert list(dict(nn.LSTM(3, 4).named_parameters())) == parts[:3]
    assert repr(layer).startswith("GRU(3 -> 4, num_layers=2, bidirectional)")
    stacked = nn.LSTM(2, 3, num_layers=2, rng=0)
    np.testing.assert_array_equal(stacked.bias_l1.data, [0] * 3 + [1] * 3 + [0] * 6)  # the forget gate of each layer


def test_dropout_between_layers_in_training_only():
    layer = nn.LSTM(3, 64, num_layers=2, dropout=0.5, rng=0)
    plain = nn.LSTM(3, 64, num_layers=2, rng=0)
    plain.load_state_dict(layer.state_dict())
    x = floats((8, 5, 3)).astype(np.float32)
    np.testing.assert_array_equal(layer.eval()(x)[0].data, plain(x)[0].data)
    layer.train()
    (_, (h, _)), (_, (other, _)) = layer(x), plain(x)
    np.testing.assert_array_equal(h.data[0], other.data[0])  # the first layer's own states are not changed
    assert not np.array_equal(h.data[1], other.data[1])
    assert not np.array_equal(layer(x)[0].data, layer(x)[0].data)
    layer.bias_l1.data = np.zeros(256)
    layer.weight_hh_l1.data = np.zeros((64, 256))
    layer.weight_ih_l1.data = np.concatenate([np.zeros((64, 128)), np.eye(64), np.zeros((64, 64))], axis=1)
    # the first c of the second layer is tanh of its input / 2: 0 where the input was dropped
    dropped = layer(np.ones((40, 1, 3)))[0].data == 0
    assert abs(dropped.mean() - 0.5) < 0.05


# State carried on


def pieces(data, length):
    return [data[:, t : t + length] for t in range(0, data.shape[1], length)]


@kinds
def test_a_state_is_carried_and_detached(kind):
    """Values are those of the whole sequence, gradients those of the last piece with a constant first state."""
    layer, x = make(kind, 2, 3, num_layers=2), floats((2, 6, 2))
    whole = layer(x)[0].data
    state = None
    for t, piece in enumerate(pieces(x, 2)):
        outputs, end = layer(mf.tensor(piece), state)
        np.testing.assert_allclose(outputs.data, whole[:, 2 * t : 2 * t + 2], rtol=1e-12)
        last, state = state, tuple(part.detach() for part in end) if kind == "LSTM" else end.detach()
        for p in layer.parameters():
            p.grad = None
        outputs.sum().backward()
    got = [p.grad.copy() for p in layer.parameters()]
    constant = tuple(part.numpy() for part in last) if kind == "LSTM" else last.numpy()
    for p in layer.parameters():
        p.grad = None
    layer(mf.tensor(x[:, 4:]), constant)[0].sum().backward()
    for a, p in zip(got, layer.parameters(), strict=True):
        np.testing.assert_array_equal(a, p.grad)


def test_a_state_that_is_not_detached_says_so():
    layer = nn.GRU(2, 3, rng=0)
    outputs, state = layer(np.ones((1, 4, 2)))
    outputs.sum().backward()
    outputs, state = layer(np.ones((1, 4, 2)), state)
    with pytest.raises(
        GraphError, match=r"already run through this graph, .* or detach\(\) what an earlier step computed$"
    ):
        outputs.sum().backward()


def train(compiled):
    """Train on a stream in pieces, with carried states and with lengths; return the losses and the parameters."""
    model = nn.LSTM(2, 3, num_layers=2, bidirectional=True, dropout=0.2, rng=0)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    rng = np.random.default_rng(0)

    def loss_fn(x, lengths, h, c):
        outputs, (h, c) = model(x, (h, c), lengths)
        return np.square(outputs - 0.1).mean(), h, c

    step = mf.compile(loss_fn, optimizer)
    h = c = mf.tensor(np.zeros((4, 3, 3), np.float32))
    losses = []
    for _ in range(24):
        x = mf.tensor(rng.standard_normal((3, 4, 2)).astype(np.float32))
        lengths = mf.tensor(rng.integers(1, 5, 3))
        if compiled:
            loss, h, c = step(x, lengths, h, c)
        else:
            optimizer.zero_grad()
            loss, h, c = loss_fn(x, lengths, h.detach(), c.detach())
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    if compiled:
        assert ": replayed" in str(step.explain())
        with pytest.raises(DataError, match=r"^LSTM: expected lengths from 1 to 4, got 0 of row 0"):
            step(x, mf.tensor([0, 1, 1]), h, c)
    return losses, [p.data for p in model.parameters()]


def test_carried_states_and_lengths_are_replayed():
    (losses, values), (replayed, again) = train(False), train(True)
    assert losses == replayed
    for a, b in zip(values, again, strict=True):
        np.testing.assert_array_equal(a, b)


# Cells


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_a_loop_over_a_cell_is_the_layer(kind):
    layer, cell = make(kind, 3, 4), make(f"{kind}Cell", 3, 4)
    assert list(layer.state_dict()) == list(cell.state_dict())
    x = mf.tensor(floats((2, 5, 3)), requires_grad=True)
    outputs, _ = layer(x)
    np.square(outputs).sum().backward()
    expected, total, state = x.grad.copy(), 0.0, None
    x.zero_grad()
    for t in range(5):
        state = cell(x[:, t], state)
        h = state[0] if kind == "LSTM" else state
        np.testing.assert_allclose(h.data, outputs.data[:, t], rtol=1e-12)
        total = total + np.square(h).sum()
    total.backward()
    np.testing.assert_allclose(x.grad, expected, rtol=1e-11)
    for p, q in zip(layer.parameters(), cell.parameters(), strict=True):
        np.testing.assert_allclose(p.grad, q.grad, rtol=1e-11)


# In a Sequential


@kinds
def test_a_sequential_passes_outputs_on(kind):
    layer, dense, x = make(kind, 3, 4), nn.Dense(4, 2, rng=0).astype(np.float64), floats((2, 5, 3))
    outputs, _ = layer(x)
    for model in (nn.Sequential(layer, dense), nn.Sequential(nn.Sequential(nn.Identity(), layer), dense)):
        np.testing.assert_array_equal(model(x).data, dense(outputs).data)
    last = nn.Sequential(layer, nn.Lambda(lambda y: y[:, -1]), dense)
    np.testing.assert_array_equal(last(x).data, dense(outputs[:, -1]).data)
    picked = nn.Sequential(layer, nn.Lambda(operator.itemgetter((slice(None), -1))), dense)
    np.testing.assert_array_equal(picked(x).data, last(x).data)
    made = nn.Sequential(nn.Identity(), layer)(x)
    assert isinstance(made, tuple) and np.array_equal(made[0].data, outputs.data)


def test_a_sequential_refuses_other_pairs():
    twice = nn.Lambda(lambda x: (x, x))
    for model in (nn.Sequential(twice, nn.Identity()), nn.Sequential(nn.Sequential(twice), nn.Identity())):
        text = (
            "^1 Identity: expected x to be one Tensor or array, got a tuple of 2 from Lambda; return one there, or call"
        )
        with pytest.raises(DTypeError, match=text):
            model(np.ones((2, 3)))
    assert nn.Sequential(nn.Identity(), twice)(1.0) == (1.0, 1.0)  # the last one returns what it likes
    assert nn.Sequential(nn.Lambda(lambda pair: pair[0] + pair[1]))((1.0, 2.0)) == 3.0
    for part in (0, 1):
        model = nn.Sequential(nn.GRU(3, 4), nn.Lambda(operator.itemgetter(part)))
        text = (
            "^1 Lambda: expected a function of the outputs, which GRU passes on without its state, got operator.itemget"
        )
        with pytest.raises(ArgumentError, match=text):
            model(np.ones((2, 5, 3)))


# Transformer


@pytest.mark.parametrize("first", [True, False])
def test_a_transformer_layer_is_made_of_its_parts(first):
    layer = nn.TransformerEncoderLayer(4, 2, 6, 0.0, norm_first=first, causal=True, rng=0).astype(np.float64)
    x, padding = mf.tensor(floats((2, 3, 4))), np.array([[False, False, True], [False, False, False]])

    def feed(y):
        return layer.linear2(np.maximum(layer.linear1(y), 0))

    y = x + layer.self_attn(layer.norm1(x) if first else x, key_padding_mask=padding)
    y = y if first else layer.norm1(y)
    y = y + feed(layer.norm2(y)) if first else layer.norm2(y + feed(y))
    np.testing.assert_array_equal(layer(x, padding).data, y.data)
    assert layer.self_attn.causal


def test_a_transformer_layer_drops_in_training_only():
    layer, x = nn.TransformerEncoderLayer(4, 2, 6, 0.5, rng=0), floats((2, 3, 4))
    assert not np.array_equal(layer(x).data, layer(x).data)
    np.testing.assert_array_equal(layer.eval()(x).data, layer(x).data)
