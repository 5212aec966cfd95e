"""Weights of PyTorch in this library's layers: every pair, at random sizes, and models from files that PyTorch wrote."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest

import microfw as mf
from microfw import nn

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]
torch = pytest.importorskip("torch")
T = torch.nn

CODES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}


def by_package(state, path):
    pytest.importorskip("safetensors.torch").save_file(state, path, metadata={"format": "pt"})


def by_bytes(state, path):
    """Write the same without the package, as the specification says."""
    header, parts, end = {"__metadata__": {"format": "pt"}}, [], 0
    for name, t in state.items():
        parts.append(t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        offsets = [end, end := end + len(parts[-1])]
        header[name] = {"dtype": CODES[t.dtype], "shape": list(t.shape), "data_offsets": offsets}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


writers = pytest.mark.parametrize("write", [by_package, by_bytes])


class Picked(nn.Module):
    """A recurrent layer whose result is a flat tuple."""

    def __init__(self, layer):
        self.layer = layer

    def forward(self, x):
        return flat(self.layer(x))


def flat(result):
    """Return outputs and last states as one list."""
    if not isinstance(result, tuple):
        return [result]
    return [part for item in result for part in flat(item)]


def bias(d):
    return bool(d.integers(2))


def dense(d):
    a, b, has = *d.integers(1, 9, 2).tolist(), bias(d)
    return nn.Dense(a, b, has), T.Linear(a, b, has), (3, a)


def conv(axes, transposed=False):
    def pair(d):
        g, a, b, k, s = d.integers(1, 4, 5).tolist()
        p, has = min(k - 1, 1), bias(d)
        name = f"Conv{'Transpose' if transposed else ''}{axes}"
        ours, theirs = getattr(nn, f"{name}D"), getattr(T, f"{name}d")
        options = {"stride": s, "padding": p, "groups": g, "bias": has}
        return ours(a * g, b * g, k, **options), theirs(a * g, b * g, k, **options), (2, a * g, *[7, 6][:axes])

    return pair


def norm(ours, theirs, *tail):
    def pair(d):
        c, affine = int(d.integers(1, 7)), bias(d)
        return ours(c, affine=affine), theirs(c, affine=affine), (4, c, *tail)

    return pair


def layer_norm(d):
    shape = tuple(d.integers(1, 5, d.integers(1, 3)).tolist())
    return nn.LayerNorm(shape), T.LayerNorm(shape), (3, *shape)


def group_norm(d):
    g, c = d.integers(1, 4, 2).tolist()
    return nn.GroupNorm(g, g * c), T.GroupNorm(g, g * c), (3, g * c, 5)


def prelu(d):
    c = int(d.integers(1, 5))
    return nn.PReLU(c), T.PReLU(c), (3, c, 4)


def recurrent(kind, **options):
    def pair(d):
        c, h, has = *d.integers(1, 7, 2).tolist(), bias(d)
        more = {"nonlinearity": options["nonlinearity"]} if "nonlinearity" in options else {}
        theirs = getattr(T, kind)(c, h, options.get("num_layers", 1), bias=has, batch_first=True, bidirectional=options.get("bidirectional", False), **more)  # fmt: skip
        return getattr(nn, kind)(c, h, has, **options), theirs, (2, 5, c)

    return pair


def attention(d):
    heads, size, has = *d.integers(1, 4, 2).tolist(), bias(d)
    e = heads * size

    class Self(T.MultiheadAttention):
        def forward(self, x):
            return super().forward(x, x, x)[0]

    return nn.MultiHeadAttention(e, heads, has), Self(e, heads, bias=has, batch_first=True), (2, 5, e)


def encoder(d):
    heads, size, width = d.integers(1, 4, 3).tolist()
    options = {"activation": ["relu", "gelu"][d.integers(2)], "norm_first": bias(d)}
    theirs = T.TransformerEncoderLayer(heads * size, heads, width, batch_first=True, **options)
    return nn.TransformerEncoderLayer(heads * size, heads, width, **options), theirs, (2, 5, heads * size)


def cell(kind):
    def pair(d):
        c, h, has = *d.integers(1, 7, 2).tolist(), bias(d)
        return getattr(nn, kind)(c, h, has), getattr(T, kind)(c, h, has), (3, c)

    return pair


PAIRS = {
    "Dense": dense, "Conv1D": conv(1), "Conv2D": conv(2), "ConvTranspose1D": conv(1, True), "ConvTranspose2D": conv(2, True),
    "BatchNorm1D": norm(nn.BatchNorm1D, T.BatchNorm1d), "BatchNorm1D of sequences": norm(nn.BatchNorm1D, T.BatchNorm1d, 5),
    "BatchNorm2D": norm(nn.BatchNorm2D, T.BatchNorm2d, 3, 4), "LayerNorm": layer_norm, "GroupNorm": group_norm, "PReLU": prelu,
    "RNN": recurrent("RNN"), "RNN of relu": recurrent("RNN", nonlinearity="relu"), "GRU": recurrent("GRU"), "LSTM": recurrent("LSTM"),
    "MultiHeadAttention": attention,
}  # fmt: skip
DEEP = "num_layers" in inspect.signature(nn.LSTM).parameters
if DEEP:
    for _kind in ("RNN", "GRU", "LSTM"):
        PAIRS[f"{_kind}, deep"] = recurrent(_kind, num_layers=3, bidirectional=True)
if "TransformerEncoderLayer" in nn.__all__:
    PAIRS["TransformerEncoderLayer"] = encoder
PAIRS |= {name: cell(name) for name in ("RNNCell", "GRUCell", "LSTMCell") if name in nn.__all__}


def randomized(module, seed):
    """Give a PyTorch model random weights and statistics, in float32."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, t in module.state_dict().items():
            if t.dtype.is_floating_point:
                made = torch.randn(t.shape, generator=generator)
                t.copy_(made.abs() + 0.5 if name.endswith("running_var") else made)
    return module.eval()


def compare(ours, theirs, *inputs):
    """Call both in float64 on the same inputs."""
    mine = flat(ours.eval()(*(mf.tensor(x) for x in inputs)))
    other = flat(theirs.double()(*(torch.tensor(x) for x in inputs)))
    for a, b in zip(mine, other, strict=True):
        b = b.detach().numpy()
        np.testing.assert_allclose(a.data, b.reshape(a.shape), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("seed", range(5))
def test_a_layer_at_random_sizes(name, seed, tmp_path):
    d = np.random.default_rng(seed)
    ours, theirs, shape = PAIRS[name](d)
    ours, theirs = ours.astype(np.float64), randomized(theirs, seed)
    path = tmp_path / "weights.safetensors"
    by_bytes(theirs.state_dict(), path)
    for source in (theirs.state_dict(), path):
        for p in ours.parameters():
            p.data = np.zeros(p.shape)
        mf.import_torch(ours, source)
        theirs.float()
        compare(ours, theirs, d.normal(size=shape))


def test_an_embedding():
    for padding in (None, 2):
        theirs = randomized(T.Embedding(7, 5, padding_idx=padding), 0)
        if padding is not None:
            with torch.no_grad():
                theirs.weight[padding] = 0
        ours = nn.Embedding(7, 5, padding).astype(np.float64)
        mf.import_torch(ours, theirs.state_dict())
        ids = np.array([[0, 2, 6], [2, 5, 1]])
        np.testing.assert_array_equal(ours(ids).data, theirs(torch.tensor(ids)).detach().numpy())


def test_every_layer_with_weights_has_a_pair():
    from tests.cases.layers import LAYERS

    kinds = {case.kind for case in LAYERS if any(isinstance(t, mf.Tensor) for _, t in case.make().children())}
    paired = {type(pair(np.random.default_rng(0))[0]) for pair in PAIRS.values()} | {nn.Embedding}
    assert kinds - paired - {nn.Sequential, nn.Residual} == set()


# Models from files that PyTorch wrote


def lenet():
    return (
        nn.Sequential(
            nn.Conv2D(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2D(2), nn.Conv2D(6, 16, 5), nn.Tanh(), nn.AvgPool2D(2),
            nn.Flatten(), nn.Dense(400, 120), nn.Tanh(), nn.Dense(120, 84), nn.Tanh(), nn.Dense(84, 10),
        ),
        T.Sequential(
            T.Conv2d(1, 6, 5, padding=2), T.Tanh(), T.AvgPool2d(2), T.Conv2d(6, 16, 5), T.Tanh(), T.AvgPool2d(2),
            T.Flatten(), T.Linear(400, 120), T.Tanh(), T.Linear(120, 84), T.Tanh(), T.Linear(84, 10),
        ),
        np.random.default_rng(0).normal(size=(2, 1, 28, 28)),
    )  # fmt: skip


DEPTH = {"num_layers": 2, "bidirectional": True} if DEEP else {}


class Classifier(nn.Module):
    def __init__(self):
        self.embedding = nn.Embedding(11, 6)
        self.lstm = nn.LSTM(6, 8, **DEPTH)
        self.classifier = nn.Dense(16 if DEEP else 8, 3)

    def forward(self, ids):
        return self.classifier(np.mean(self.lstm(self.embedding(ids))[0], axis=1))


class TheirClassifier(T.Module):
    def __init__(self):
        super().__init__()
        self.embedding = T.Embedding(11, 6)
        self.lstm = T.LSTM(6, 8, batch_first=True, **DEPTH)
        self.classifier = T.Linear(16 if DEEP else 8, 3)

    def forward(self, ids):
        return self.classifier(self.lstm(self.embedding(ids))[0].mean(1))


def classifier():
    return Classifier(), TheirClassifier(), np.random.default_rng(1).integers(0, 11, (4, 9))


class Encoder(nn.Module):
    """What `torch.nn.TransformerEncoderLayer` computes, with its names."""

    def __init__(self, e, heads, width):
        self.self_attn = nn.MultiHeadAttention(e, heads)
        self.linear1, self.linear2 = nn.Dense(e, width), nn.Dense(width, e)
        self.norm1, self.norm2 = nn.LayerNorm(e), nn.LayerNorm(e)

    def forward(self, x):
        x = self.norm1(x + self.self_attn(x))
        return self.norm2(x + self.linear2(np.maximum(self.linear1(x), 0)))


class Transformer(nn.Module):
    def __init__(self):
        self.layers = [Encoder(12, 3, 20) for _ in range(2)]
        self.head = nn.Dense(12, 5)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


class TheirTransformer(T.Module):
    def __init__(self):
        super().__init__()
        self.layers = T.ModuleList(T.TransformerEncoderLayer(12, 3, 20, batch_first=True) for _ in range(2))
        self.head = T.Linear(12, 5)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def transformer():
    return Transformer(), TheirTransformer(), np.random.default_rng(2).normal(size=(3, 7, 12))


@writers
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("make", [lenet, classifier, transformer])
def test_a_model_from_a_file(make, dtype, write, tmp_path):
    ours, theirs, x = make()
    theirs = theirs.to(dtype).eval()
    path = tmp_path / "model.safetensors"
    write(theirs.state_dict(), path)
    ours = ours.astype(np.float64)
    mf.import_torch(ours, path)
    compare(ours, theirs, x)
    state = {name: t.data for name, t in ours._walk() if isinstance(t, mf.Tensor)}
    before = {name: a.copy() for name, a in state.items()}
    mf.import_torch(
        ours, {name: t.requires_grad_(t.is_floating_point()) for name, t in theirs.to(dtype).state_dict().items()}
    )
    for name, array in before.items():
        np.testing.assert_array_equal(ours.state_dict()[name], array)


def test_tied_weights(tmp_path):
    """A model whose two layers share a weight, written with both names and with one."""
    shared = T.Linear(4, 4, bias=False)
    theirs = T.ModuleDict({"a": shared, "b": shared})
    assert list(theirs.state_dict()) == ["a.weight", "b.weight"]
    layer = nn.Dense(4, 4, bias=False)
    ours = nn.Sequential({"a": layer, "b": layer})
    mf.import_torch(ours, theirs.state_dict())
    np.testing.assert_array_equal(layer.weight.data, shared.weight.detach().numpy().T)
    only = {"b.weight": torch.eye(4) + 1}
    mf.import_torch(ours, only)
    assert ours["a"].weight is ours["b"].weight
    np.testing.assert_array_equal(layer.weight.data, np.eye(4) + 1)
