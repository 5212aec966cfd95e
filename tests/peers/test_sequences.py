"""Recurrent layers against PyTorch's packed sequences, cells and transformer layers: equal values and gradients."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]
torch = pytest.importorskip("torch")

TOLERANCE = 1e-9


def close(name, a, b):
    assert a.shape == b.shape, name
    assert np.max(np.abs(a - b), initial=0.0) <= TOLERANCE, name


def theirs_of(name):
    """Return PyTorch's name of a recurrent layer's parameter."""
    forward = name.removesuffix("_reverse")
    base, _, k = forward.partition("_l")
    return f"{'bias_ih' if base == 'bias' else base}_l{k or 0}{name[len(forward) :]}"


def share(ours, theirs, rng, name_of):
    """Give both the same random parameters; PyTorch's second biases, which ours have no place for, become 0."""
    state = dict(theirs.named_parameters())
    pairs = []
    with torch.no_grad():
        for p in state.values():
            p.zero_()
        for name, p in ours.named_parameters():
            p.data = rng.uniform(-0.7, 0.7, p.shape)
            state[name_of(name)].copy_(torch.tensor(p.data.T if p.ndim == 2 else p.data))
            pairs.append((name, p, state[name_of(name)]))
    return pairs


def compare(rng, inputs, results, pairs):
    """Compare values, then the gradients of a random sum of them."""
    total, other = 0.0, 0.0
    for k, (a, b) in enumerate(zip(*results, strict=True)):
        close(f"result {k}", a.data, b.detach().numpy())
        g = rng.standard_normal(a.shape)
        total, other = total + (a * g).sum(), other + (b * torch.tensor(g)).sum()
    total.backward()
    other.backward()
    for k, (a, b) in enumerate(zip(*inputs, strict=True)):
        close(f"gradient of input {k}", a.grad, b.grad.numpy())
    for name, p, q in pairs:
        close(f"gradient of {name}", p.grad, q.grad.numpy().T if p.ndim == 2 else q.grad.numpy())


def both(*arrays):
    return [mf.tensor(a, requires_grad=True) for a in arrays], [torch.tensor(a, requires_grad=True) for a in arrays]


def flat(outputs, end):
    return [outputs, *end] if isinstance(end, tuple) else [outputs, end]


@pytest.mark.parametrize("seed", range(200))
def test_ragged_batches(seed):
    """Layers, directions, lengths, biases and first states at random, rows in any order, padding of NaN."""
    rng = np.random.default_rng(seed)
    kind, settings = [("RNN", {}), ("RNN", {"nonlinearity": "relu"}), ("GRU", {}), ("LSTM", {})][seed % 4]
    c, h, n, steps = (int(rng.integers(1, most + 1)) for most in (5, 6, 6, 9))
    layers, two, bias = int(rng.integers(1, 4)), bool(rng.integers(2)), bool(rng.random() < 0.8)
    settings |= {"num_layers": layers, "bidirectional": two, "bias": bias}
    ours = getattr(nn, kind)(c, h, rng=0, **settings).astype(np.float64)
    theirs = getattr(torch.nn, kind)(c, h, batch_first=True, **settings).double()
    pairs = share(ours, theirs, rng, theirs_of)
    lengths = rng.integers(1, steps + 1, n)
    x = np.where(np.arange(steps)[:, None] < lengths[:, None, None], rng.standard_normal((n, steps, c)), np.nan)
    states = [rng.standard_normal((layers * (1 + two), n, h)) for _ in range(1 + (kind == "LSTM"))]
    given = bool(rng.random() < 0.7)
    inputs = both(x, *(states if given else []))
    (x, *state), (y, *other) = inputs
    state, other = (None if not s else tuple(s) if kind == "LSTM" else s[0] for s in (state, other))
    packed = torch.nn.utils.rnn.pack_padded_sequence(y, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
    outputs, end = theirs(packed, other)
    outputs, _ = torch.nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True, total_length=steps)
    mine, last = ours(x, state, lengths)
    if not given and layers == 1 and not two:  # one layer's state is (N, H), unless it was given otherwise
        last = tuple(s.reshape((1, n, h)) for s in last) if kind == "LSTM" else last.reshape((1, n, h))
    compare(rng, inputs, (flat(mine, last), flat(outputs, end)), pairs)


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("two", [True, False])
def test_stacked_layers_without_lengths(kind, two):
    rng = np.random.default_rng(0)
    settings = {"num_layers": 3, "bidirectional": two}
    ours = getattr(nn, kind)(4, 5, rng=0, **settings).astype(np.float64)
    theirs = getattr(torch.nn, kind)(4, 5, batch_first=True, **settings).double()
    pairs = share(ours, theirs, rng, theirs_of)
    (x,), (y,) = inputs = both(rng.standard_normal((3, 7, 4)))
    compare(rng, inputs, (flat(*ours(x)), flat(*theirs(y))), pairs)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["GRUCell", "LSTMCell"])
def test_cells(kind, bias):
    rng = np.random.default_rng(0)
    ours = getattr(nn, kind)(4, 3, bias, rng=0).astype(np.float64)
    theirs = getattr(torch.nn, kind)(4, 3, bias=bias).double()
    pairs = share(ours, theirs, rng, lambda name: "bias_ih" if name == "bias" else name)
    inputs = both(rng.standard_normal((5, 4)), *rng.standard_normal((1 + (kind == "LSTMCell"), 5, 3)))
    (x, *state), (y, *other) = inputs
    if kind == "GRUCell":
        results = [ours(x, *state)], [theirs(y, *other)]
    else:
        results = ours(x, tuple(state)), theirs(y, tuple(other))
    compare(rng, inputs, results, pairs)


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("causal", [True, False])
def test_transformer_layer(first, activation, causal):
    rng = np.random.default_rng(0)
    ours = nn.TransformerEncoderLayer(6, 3, 8, 0.0, activation, norm_first=first, causal=causal).astype(np.float64)
    theirs = torch.nn.TransformerEncoderLayer(6, 3, 8, 0.0, activation, norm_first=first, batch_first=True).double()
    state, pairs = dict(theirs.named_parameters()), []
    for name, p in ours.named_parameters():
        p.data = rng.uniform(-0.7, 0.7, p.shape)
        if "self_attn" not in name:
            pairs.append((name, p, state[name]))
    maps = [ours.self_attn.query, ours.self_attn.key, ours.self_attn.value]
    pairs += [("out", ours.self_attn.out.weight, state["self_attn.out_proj.weight"])]
    pairs += [("out bias", ours.self_attn.out.bias, state["self_attn.out_proj.bias"])]
    with torch.no_grad():
        for _, p, q in pairs:
            q.copy_(torch.tensor(p.data.T if p.ndim == 2 else p.data))
        state["self_attn.in_proj_weight"].copy_(torch.tensor(np.concatenate([m.weight.data.T for m in maps])))
        state["self_attn.in_proj_bias"].copy_(torch.tensor(np.concatenate([m.bias.data for m in maps])))
    padding = np.zeros((4, 5), bool)
    padding[0, 3:] = padding[1, 1] = True  # not the first step, so that each step sees one
    (x,), (y,) = inputs = both(rng.standard_normal((4, 5, 6)))
    hidden = torch.tensor(~np.tri(5, dtype=bool)) if causal else None
    results = [ours(x, padding)], [theirs(y, src_mask=hidden, src_key_padding_mask=torch.tensor(padding))]
    compare(rng, inputs, results, pairs)
    for k, m in enumerate(maps):
        close("map", m.weight.grad.T, state["self_attn.in_proj_weight"].grad.numpy()[6 * k : 6 * k + 6])
