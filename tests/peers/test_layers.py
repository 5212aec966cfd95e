"""Layers and losses against PyTorch's: equal values and gradients, but for what docs/guide/differences.md lists."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from tests.cases.layers import LAYERS as ROWS

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]
torch = pytest.importorskip("torch")


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def same(x):
    return x


def turned(x):
    return x.T


# Layers: ours, theirs, the parameters of ours by those of theirs, and shapes to call them with.

PLAIN = [(3, 4), (2, 3, 4)]
AFFINE = {"weight": ("weight", same), "bias": ("bias", same)}
DENSE = {"weight": ("weight", turned), "bias": ("bias", same)}

LAYERS = {
    "Dense": (lambda: nn.Dense(4, 3, rng=0), lambda: torch.nn.Linear(4, 3), DENSE, PLAIN),
    "Dense without bias": (lambda: nn.Dense(4, 3, bias=False, rng=0), lambda: torch.nn.Linear(4, 3, bias=False), {"weight": DENSE["weight"]}, PLAIN),
    "ReLU": (nn.ReLU, torch.nn.ReLU, {}, PLAIN),
    "LeakyReLU": (nn.LeakyReLU, torch.nn.LeakyReLU, {}, PLAIN),
    "PReLU": (nn.PReLU, torch.nn.PReLU, {"weight": AFFINE["weight"]}, PLAIN),
    "PReLU by channel": (lambda: nn.PReLU(4), lambda: torch.nn.PReLU(4), {"weight": AFFINE["weight"]}, [(3, 4), (2, 4, 3)]),
    "ELU": (lambda: nn.ELU(0.7), lambda: torch.nn.ELU(0.7), {}, PLAIN),
    "SiLU": (nn.SiLU, torch.nn.SiLU, {}, PLAIN),
    "Mish": (nn.Mish, torch.nn.Mish, {}, PLAIN),
    "Softsign": (nn.Softsign, torch.nn.Softsign, {}, PLAIN),
    "Sigmoid": (nn.Sigmoid, torch.nn.Sigmoid, {}, PLAIN),
    "Tanh": (nn.Tanh, torch.nn.Tanh, {}, PLAIN),
    "Softplus": (nn.Softplus, torch.nn.Softplus, {}, PLAIN),
    "GELU": (nn.GELU, torch.nn.GELU, {}, PLAIN),
    "GELU by tanh": (lambda: nn.GELU("tanh"), lambda: torch.nn.GELU("tanh"), {}, PLAIN),
    "Softmax": (nn.Softmax, lambda: torch.nn.Softmax(-1), {}, PLAIN),
    "LogSoftmax": (nn.LogSoftmax, lambda: torch.nn.LogSoftmax(-1), {}, PLAIN),
    "Flatten": (nn.Flatten, torch.nn.Flatten, {}, PLAIN),
    "Identity": (nn.Identity, torch.nn.Identity, {}, PLAIN),
    "Dropout": (lambda: nn.Dropout(0.0), lambda: torch.nn.Dropout(0.0), {}, PLAIN),
    "Sequential": (lambda: nn.Sequential(nn.Tanh(), nn.ELU()), lambda: torch.nn.Sequential(torch.nn.Tanh(), torch.nn.ELU()), {}, PLAIN),
    "BatchNorm1D": (lambda: nn.BatchNorm1D(4), lambda: torch.nn.BatchNorm1d(4), AFFINE, [(5, 4), (3, 4, 2)]),
    "BatchNorm1D plain": (lambda: nn.BatchNorm1D(4, affine=False), lambda: torch.nn.BatchNorm1d(4, affine=False), {}, [(5, 4)]),
    "BatchNorm2D": (lambda: nn.BatchNorm2D(3, momentum=0.3), lambda: torch.nn.BatchNorm2d(3, momentum=0.3), AFFINE, [(2, 3, 4, 2)]),
    "LayerNorm": (lambda: nn.LayerNorm(4), lambda: torch.nn.LayerNorm(4), AFFINE, PLAIN),
    "LayerNorm of two axes": (lambda: nn.LayerNorm((3, 4)), lambda: torch.nn.LayerNorm((3, 4)), AFFINE, PLAIN),
    "Conv1D": (lambda: nn.Conv1D(4, 6, 3, 2, 1, 2, 2), lambda: torch.nn.Conv1d(4, 6, 3, 2, 1, 2, 2), AFFINE, [(2, 4, 9)]),
    "Conv1D same": (lambda: nn.Conv1D(4, 3, 4, padding="same"), lambda: torch.nn.Conv1d(4, 3, 4, padding="same"), AFFINE, [(2, 4, 9)]),
    "Conv2D": (lambda: nn.Conv2D(4, 6, (3, 2), 2, 1, 1, 2), lambda: torch.nn.Conv2d(4, 6, (3, 2), 2, 1, 1, 2), AFFINE, [(2, 4, 7, 6), (1, 4, 5, 5)]),
    "Conv2D same": (lambda: nn.Conv2D(3, 2, 3, padding="same"), lambda: torch.nn.Conv2d(3, 2, 3, padding="same"), AFFINE, [(2, 3, 5, 4)]),
    "Conv2D without bias": (lambda: nn.Conv2D(3, 2, 3, dilation=2, bias=False), lambda: torch.nn.Conv2d(3, 2, 3, dilation=2, bias=False), {"weight": AFFINE["weight"]}, [(2, 3, 8, 7)]),
    "MaxPool2D": (lambda: nn.MaxPool2D(2), lambda: torch.nn.MaxPool2d(2), {}, [(2, 3, 6, 4), (2, 3, 7, 5)]),
    "MaxPool2D overlapping": (lambda: nn.MaxPool2D(3, 2, 1), lambda: torch.nn.MaxPool2d(3, 2, 1), {}, [(2, 3, 6, 4)]),
    "AvgPool2D": (lambda: nn.AvgPool2D(2), lambda: torch.nn.AvgPool2d(2), {}, [(2, 3, 6, 4), (2, 3, 7, 5)]),
    "AvgPool2D overlapping": (lambda: nn.AvgPool2D(3, 2, 1), lambda: torch.nn.AvgPool2d(3, 2, 1), {}, [(2, 3, 6, 4)]),
    "GlobalAvgPool2D": (nn.GlobalAvgPool2D, lambda: torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()), {}, [(2, 3, 6, 4)]),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), lambda: torch.nn.GroupNorm(2, 4), AFFINE, [(3, 4), (2, 4, 3), (2, 4, 2, 2)]),
}  # fmt: skip


for _case in ROWS:
    if callable(_case.torch):
        _names = {name: (name, same) for name, _ in _case.make().named_parameters()}
        LAYERS[_case.name] = (_case.make, lambda case=_case: case.torch(torch), _names, _case.shapes)


def paired(ours, theirs, names, seed=0):
    """Give both the same random parameters; return pairs of a parameter and a function that gives PyTorch's gradient."""
    pairs = []
    state = dict(theirs.named_parameters())
    for k, (name, p) in enumerate(ours.named_parameters()):
        peer, change = names[name]
        value = draw(*p.shape, seed=seed + 100 + k)
        p.data = value
        with torch.no_grad():
            state[peer].copy_(torch.tensor(change(value)))
        pairs.append((name, p, lambda peer=peer, change=change: change(state[peer].grad.numpy())))
    assert len(pairs) == len(names)
    return pairs


def close(a, b, name):
    np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11, err_msg=name)


def compare(name, ours, theirs, pairs, arrays, ids=()):
    """Call both on the same arrays, and compare values and gradients."""
    mine = [mf.tensor(a, requires_grad=True) for a in arrays]
    peers = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, z = ours(*mine, *ids), theirs(*peers, *(torch.tensor(i) for i in ids))
    y, z = (y if isinstance(y, list) else [y]), (z if isinstance(z, list) else [z])
    total, other = 0.0, 0.0
    for k, (a, b) in enumerate(zip(y, z, strict=True)):
        close(a.data, b.detach().numpy(), name)
        g = draw(*a.shape, seed=50 + k)
        total, other = total + (a * g).sum(), other + (b * torch.tensor(g)).sum()
    total.backward()
    other.backward()
    for a, b in zip(mine, peers, strict=True):
        close(a.grad, b.grad.numpy(), f"{name}: gradient of the input")
    for p_name, p, gradient in pairs:
        close(p.grad, gradient(), f"{name}: gradient of {p_name}")


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("training", [True, False])
def test_layer(name, training):
    make, peer, names, shapes = LAYERS[name]
    for k, shape in enumerate(shapes):
        ours, theirs = make().astype(np.float64), peer().double()
        pairs = paired(ours, theirs, names)
        buffers = [name for name in ours.state_dict() if name.startswith("running")]
        if buffers:
            ours(mf.tensor(draw(*shape, seed=9)))
            theirs(torch.tensor(draw(*shape, seed=9)))
        ours.train(training)
        theirs.train(training)
        compare(name, ours, theirs, pairs, [draw(*shape, seed=k)])
        for buffer in buffers:
            close(getattr(ours, buffer).data, getattr(theirs, buffer).numpy(), buffer)


@pytest.mark.parametrize("padding", [None, 3])
def test_embedding(padding):
    ours, theirs = nn.Embedding(5, 4, padding).astype(np.float64), torch.nn.Embedding(5, 4, padding).double()
    pairs = paired(ours, theirs, {"weight": AFFINE["weight"]})
    if padding is not None:
        with torch.no_grad():
            theirs.weight[padding] = 0
    compare("Embedding", ours, theirs, pairs, [], [np.array([[2, 0, 2], [3, 3, 1]])])


RECURRENT = {"weight_ih": ("weight_ih_l0", turned), "weight_hh": ("weight_hh_l0", turned), "bias": ("bias_ih_l0", same)}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("start", [True, False])
@pytest.mark.parametrize("kind", ["tanh", "relu", "GRU", "LSTM"])
def test_recurrent(kind, bias, start):
    if kind in ("GRU", "LSTM"):
        ours, theirs = getattr(nn, kind)(4, 3, bias), getattr(torch.nn, kind)(4, 3, bias=bias, batch_first=True)
    else:
        ours, theirs = nn.RNN(4, 3, bias, kind), torch.nn.RNN(4, 3, bias=bias, batch_first=True, nonlinearity=kind)
    ours, theirs = ours.astype(np.float64), theirs.double()
    names = dict(RECURRENT)
    if kind == "GRU":
        names["bias_hh"] = ("bias_hh_l0", same)
    if not bias:
        names = {k: v for k, v in names.items() if "bias" not in k}
    elif kind != "GRU":
        torch.nn.init.zeros_(theirs.bias_hh_l0)
    pairs = paired(ours, theirs, names)
    lstm = kind == "LSTM"

    def mine(x, *state):
        outputs, end = ours(x, (state if lstm else state[0]) if state else None)
        return [outputs, *(end if lstm else [end])]

    def other(x, *state):
        state = tuple(s[None] for s in state)
        outputs, end = theirs(x, (state if lstm else state[0]) if state else None)
        return [outputs, *(e[0] for e in (end if lstm else [end]))]

    states = [draw(2, 3, seed=k) for k in range(1 + lstm)] if start else []
    compare(kind, mine, other, pairs, [draw(2, 6, 4), *states])


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("cross", [True, False])
def test_attention(bias, causal, padded, cross):
    ours = nn.MultiHeadAttention(6, 3, bias, causal).astype(np.float64)
    theirs = torch.nn.MultiheadAttention(6, 3, bias=bias, batch_first=True).double()
    maps = [ours.query, ours.key, ours.value]
    for k, p in enumerate(ours.parameters()):
        p.data = draw(*p.shape, seed=k)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.tensor(np.concatenate([m.weight.data.T for m in maps])))
        theirs.out_proj.weight.copy_(torch.tensor(ours.out.weight.data.T))
        if bias:
            theirs.in_proj_bias.copy_(torch.tensor(np.concatenate([m.bias.data for m in maps])))
            theirs.out_proj.bias.copy_(torch.tensor(ours.out.bias.data))
    pairs = [
        (f"map {k}", m.weight, lambda k=k: theirs.in_proj_weight.grad.numpy()[6 * k : 6 * k + 6].T)
        for k, m in enumerate(maps)
    ]
    pairs.append(("out", ours.out.weight, lambda: theirs.out_proj.weight.grad.numpy().T))
    if bias:
        pairs += [
            (f"bias {k}", m.bias, lambda k=k: theirs.in_proj_bias.grad.numpy()[6 * k : 6 * k + 6])
            for k, m in enumerate(maps)
        ]
    padding = np.zeros((2, 4), bool)
    padding[0, 2:] = padding[1, 1] = True  # not the first key, so that each step has one
    keep = padding if padded else None

    def mine(q, *others):
        return ours(q, *others, key_padding_mask=keep)

    def other(q, *others):
        k, v = others or (q, q)
        hidden = torch.tensor(~np.tri(q.shape[1], k.shape[1], dtype=bool)) if causal else None
        return theirs(q, k, v, key_padding_mask=None if keep is None else torch.tensor(keep), attn_mask=hidden)[0]

    others = [draw(2, 4, 6, seed=k) for k in (11, 12)] if cross else []
    compare("MultiHeadAttention", mine, other, pairs, [draw(2, 3 if cross else 4, 6, seed=10), *others])


# Losses: ours, theirs by reduction, a target

LABELS = np.array([2, 0, 1, 2, 2])
IGNORED = np.array([2, -100, 1, -100, 0])
WEIGHT = np.array([0.5, 2.0, 1.0])
SHARES = np.random.default_rng(1).random((5, 3))
COUNTS = np.random.default_rng(2).poisson(2.0, (5, 3)).astype(float)
SIGNS = np.array([1.0, -1.0, 1.0, -1.0, -1.0])
T = torch.nn

LOSSES = {
    "MSELoss": (nn.MSELoss, {}, T.MSELoss, {}, draw(5, 3, seed=4)),
    "L1Loss": (nn.L1Loss, {}, T.L1Loss, {}, draw(5, 3, seed=4)),
    "HuberLoss": (nn.HuberLoss, {"delta": 0.7}, T.HuberLoss, {"delta": 0.7}, draw(5, 3, seed=4)),
    "BCEWithLogitsLoss": (nn.BCEWithLogitsLoss, {}, T.BCEWithLogitsLoss, {}, SHARES),
    "BCEWithLogitsLoss weighted": (
        nn.BCEWithLogitsLoss, {"weight": WEIGHT, "pos_weight": WEIGHT[::-1]},
        T.BCEWithLogitsLoss, {"weight": torch.tensor(WEIGHT), "pos_weight": torch.tensor(WEIGHT[::-1].copy())}, SHARES,
    ),
    "CrossEntropyLoss": (nn.CrossEntropyLoss, {}, T.CrossEntropyLoss, {}, LABELS),
    "CrossEntropyLoss smoothed": (nn.CrossEntropyLoss, {"label_smoothing": 0.1}, T.CrossEntropyLoss, {"label_smoothing": 0.1}, LABELS),
    "CrossEntropyLoss weighted": (
        nn.CrossEntropyLoss, {"weight": WEIGHT, "label_smoothing": 0.2, "ignore_index": -100},
        T.CrossEntropyLoss, {"weight": torch.tensor(WEIGHT), "label_smoothing": 0.2}, LABELS,
    ),
    "CrossEntropyLoss ignoring": (
        nn.CrossEntropyLoss, {"weight": WEIGHT, "ignore_index": -100}, T.CrossEntropyLoss, {"weight": torch.tensor(WEIGHT)}, IGNORED,
    ),
    "CrossEntropyLoss of probabilities": (
        nn.CrossEntropyLoss, {"weight": WEIGHT, "label_smoothing": 0.2},
        T.CrossEntropyLoss, {"weight": torch.tensor(WEIGHT), "label_smoothing": 0.2}, SHARES / SHARES.sum(1, keepdims=True),
    ),
    "NLLLoss": (nn.NLLLoss, {}, T.NLLLoss, {}, LABELS),
    "NLLLoss ignoring": (nn.NLLLoss, {"weight": WEIGHT, "ignore_index": -100}, T.NLLLoss, {"weight": torch.tensor(WEIGHT)}, IGNORED),
    "PoissonNLLLoss": (nn.PoissonNLLLoss, {}, T.PoissonNLLLoss, {}, COUNTS),
    "PoissonNLLLoss full": (nn.PoissonNLLLoss, {"full": True}, T.PoissonNLLLoss, {"full": True}, COUNTS),
}  # fmt: skip

reductions = pytest.mark.parametrize("reduction", ["mean", "sum", "none"])


@pytest.mark.parametrize("name", LOSSES)
@reductions
def test_loss(name, reduction):
    kind, options, peer, peer_options, target = LOSSES[name]
    ours, theirs = kind(**options, reduction=reduction), peer(**peer_options, reduction=reduction)
    compare(name, ours, theirs, [], [draw(5, 3)], [target])


@reductions
def test_poisson_of_rates(reduction):
    ours = nn.PoissonNLLLoss(log_input=False, reduction=reduction)
    theirs = T.PoissonNLLLoss(log_input=False, reduction=reduction)
    compare("PoissonNLLLoss", ours, theirs, [], [np.abs(draw(5, 3)) + 0.1], [COUNTS])


@reductions
@pytest.mark.parametrize("full", [False, True])
def test_gaussian(full, reduction):
    ours, theirs = nn.GaussianNLLLoss(full, 0.5, reduction), T.GaussianNLLLoss(full=full, eps=0.5, reduction=reduction)
    arrays = [draw(5, 3), SHARES, draw(5, 3, seed=4)]  # half of the variances are below eps
    compare("GaussianNLLLoss", lambda m, v, t: ours((m, v), t), lambda m, v, t: theirs(m, t, v), [], arrays)


@pytest.mark.parametrize("log_target", [False, True])
def test_divergence(log_target):
    target = SHARES.copy()
    target[0, 0] = 0.0
    target = np.log(SHARES) if log_target else target
    for reduction, theirs in (("mean", "batchmean"), ("sum", "sum")):
        peer = T.KLDivLoss(reduction=theirs, log_target=log_target)
        compare("KLDivLoss", nn.KLDivLoss(reduction, log_target), peer, [], [draw(5, 3)], [target])
    each = T.KLDivLoss(reduction="none", log_target=log_target)
    compare("KLDivLoss", nn.KLDivLoss("none", log_target), lambda x, t: each(x, t).sum(-1), [], [draw(5, 3)], [target])


@reductions
def test_cosine_embedding(reduction):
    ours = nn.CosineEmbeddingLoss(-0.2, reduction)
    theirs = T.CosineEmbeddingLoss(-0.2, reduction=reduction)
    compare("CosineEmbeddingLoss", ours, theirs, [], [draw(5, 3, seed=1), draw(5, 3, seed=2)], [SIGNS])


@reductions
@pytest.mark.parametrize("swap", [False, True])
def test_triplet_margin(reduction, swap):
    ours = nn.TripletMarginLoss(2.5, swap, reduction)
    theirs = T.TripletMarginLoss(2.5, swap=swap, eps=0, reduction=reduction)
    compare("TripletMarginLoss", ours, theirs, [], [draw(5, 3, seed=k) for k in (1, 2, 3)])


@reductions
def test_hinge(reduction):
    """PyTorch's multi-class margin loss of one score against 0 is the hinge."""
    ours = nn.HingeLoss(reduction)
    reduce = {"mean": torch.mean, "sum": torch.sum, "none": same}[reduction]
    compare("HingeLoss", ours, lambda x, t: reduce(torch.relu(1 - x * t)), [], [draw(5)], [SIGNS])


# The list of differences


def test_listed_differences_are_real():
    """The values of PyTorch that the table names are still PyTorch's."""
    ours, theirs = nn.MultiHeadAttention(4, 2), torch.nn.MultiheadAttention(4, 2, batch_first=True)
    x, padding = draw(1, 3, 4).astype(np.float32), np.ones((1, 3), bool)
    got = theirs(*[torch.tensor(x)] * 3, key_padding_mask=torch.tensor(padding))[0]
    assert got.isnan().all() and np.isfinite(ours(x, key_padding_mask=padding).data).all()
    zero = torch.zeros(1, 2, requires_grad=True)
    T.CosineEmbeddingLoss()(zero, torch.ones(1, 2), torch.ones(1)).backward()
    assert zero.grad.abs().max() > 1e5
    table = torch.nn.Embedding(3, 2, padding_idx=0)
    with torch.no_grad():
        table.weight[0] = 7
    assert table(torch.tensor([0])).detach().numpy().max() == 7
    assert torch.nn.CrossEntropyLoss()(torch.ones(1, 2), torch.tensor([-100])).isnan()
