"""`import_torch` on state dicts written out, and on files made byte by byte: PyTorch is not needed."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import ArgumentError, CheckpointError, DataError, DTypeError, ShapeError
from tests.cases.convolution import slow_conv

rng = np.random.default_rng(0)


def draw(*shape):
    return rng.normal(size=shape)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def loaded(layer, state, **options):
    layer = layer.astype(np.float64).eval()
    assert mf.import_torch(layer, state, **options) is None
    return layer


def close(a, b):
    np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


# Layouts, against PyTorch's formulas


@pytest.mark.parametrize("sizes", [(4, 3), (3, 3)])
def test_dense(sizes):
    x, state = draw(5, sizes[0]), {"weight": draw(*sizes[::-1]), "bias": draw(sizes[1])}
    close(loaded(nn.Dense(*sizes), state)(x).data, x @ state["weight"].T + state["bias"])


def test_convolutions():
    x, state = draw(2, 4, 6, 6), {"weight": draw(6, 2, 3, 2), "bias": draw(6)}
    layer = loaded(nn.Conv2D(4, 6, (3, 2), 2, 1, groups=2), state)
    close(layer(x).data, slow_conv(x, state["weight"], state["bias"], stride=2, padding=1, dilation=1, groups=2))
    x, state = draw(2, 3, 4), {"weight": draw(3, 2, 3), "bias": draw(2)}  # (in, out, taps)
    spread = np.zeros((2, 2, 9))
    for k in range(4):
        spread[:, :, 2 * k : 2 * k + 3] += np.einsum("ni,iot->not", x[:, :, k], state["weight"])
    close(loaded(nn.ConvTranspose1D(3, 2, 3, 2), state)(x).data, spread + state["bias"][:, None])


def test_norms_with_statistics():
    x = draw(5, 3)
    state = {"weight": draw(3), "bias": draw(3), "running_mean": draw(3), "running_var": draw(3) ** 2 + 0.1}
    layer = loaded(nn.BatchNorm1D(3), {**state, "num_batches_tracked": np.array(7)})
    scaled = (x - state["running_mean"]) / np.sqrt(state["running_var"] + 1e-5)
    close(layer(x).data, scaled * state["weight"] + state["bias"])


def test_embedding():
    table = draw(5, 3)
    close(loaded(nn.Embedding(5, 3), {"weight": table})([[4, 0]]).data, table[[[4, 0]]])
    with pytest.raises(
        ArgumentError, match="^import_torch: weight: expected zeros in row 2, the padding_idx, got others; make"
    ):
        mf.import_torch(nn.Embedding(5, 3, padding_idx=2), {"weight": table})
    table[2] = 0
    loaded(nn.Embedding(5, 3, padding_idx=2), {"weight": table})


def steps(state, x, h, cell, suffix="_l0"):
    """Return the hidden state after each step, by the formulas in PyTorch's documentation."""
    w_ih, w_hh, b_ih, b_hh = (state[f"{name}{suffix}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    c, outputs = np.zeros_like(h), []
    for t in range(x.shape[1]):
        a, u = x[:, t] @ w_ih.T + b_ih, h @ w_hh.T + b_hh
        if cell == "RNN":
            h = np.tanh(a + u)
        elif cell == "GRU":
            (ar, az, an), (ur, uz, un) = np.split(a, 3, axis=1), np.split(u, 3, axis=1)
            z = sigmoid(az + uz)
            h = (1 - z) * np.tanh(an + sigmoid(ar + ur) * un) + z * h
        else:
            i, f, g, o = np.split(a + u, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.stack(outputs, axis=1)


def gates(cell, c, h, suffix="_l0"):
    n = {"RNN": 1, "GRU": 3, "LSTM": 4}[cell] * h
    shapes = {"weight_ih": (n, c), "weight_hh": (n, h), "bias_ih": (n,), "bias_hh": (n,)}
    return {name + suffix: draw(*shape) for name, shape in shapes.items()}


@pytest.mark.parametrize("cell", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("size", [4, 3])
def test_recurrent_layers_with_both_biases(cell, size):
    x, state = draw(2, 5, size), gates(cell, size, 3)
    close(loaded(getattr(nn, cell)(size, 3), state)(x)[0].data, steps(state, x, np.zeros((2, 3)), cell))
    with pytest.raises(ArgumentError, match=r"got missing \['bias_hh_l0'\], unexpected \['bias_ih_l0'\]; pass"):
        mf.import_torch(nn.LSTM(4, 3), {k: v for k, v in gates("LSTM", 4, 3).items() if k != "bias_hh_l0"})


def test_attention():
    e, heads = 6, 2
    x = draw(3, 4, e)
    state = {
        "in_proj_weight": draw(3 * e, e), "in_proj_bias": draw(3 * e), "out_proj.weight": draw(e, e), "out_proj.bias": draw(e),
    }  # fmt: skip
    layer = loaded(nn.MultiHeadAttention(e, heads), state)
    q, k, v = np.split(x @ state["in_proj_weight"].T + state["in_proj_bias"], 3, axis=2)
    q, k, v = (a.reshape(3, 4, heads, 3).transpose(0, 2, 1, 3) for a in (q, k, v))
    scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(3)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    joined = (weights @ v).transpose(0, 2, 1, 3).reshape(3, 4, e)
    close(layer(x).data, joined @ state["out_proj.weight"].T + state["out_proj.bias"])


# Names


class Net(nn.Module):
    def __init__(self):
        self.body = [nn.Dense(4, 4, rng=0), nn.BatchNorm1D(4)]
        self.heads = {"left": nn.Dense(4, 4, rng=1), "right": nn.Dense(4, 4, rng=2)}

    def forward(self, x):
        for layer in self.body:
            x = layer(x)
        return {name: head(x) for name, head in self.heads.items()}


def net_state():
    norm = {"weight": draw(4), "bias": draw(4), "running_mean": draw(4), "running_var": draw(4) ** 2}
    state = {f"body.1.{name}": a for name, a in norm.items()}
    for path in ("body.0", "heads.left", "heads.right"):
        state |= {f"{path}.weight": draw(4, 4), f"{path}.bias": draw(4)}
    return state


def everything(model):
    return {name: array.tobytes() for name, array in model.state_dict().items()}


def test_names_are_paths_through_lists_and_dicts():
    state, net = net_state(), loaded(Net(), net_state())
    mf.import_torch(net, state)
    close(net.heads["right"].weight.data, state["heads.right.weight"].T)
    close(net.body[1].running_var.data, state["body.1.running_var"])


@pytest.mark.parametrize(
    "rename",
    [
        {"stem": "body.0", "bn": "body.1", "model.left": "heads.left", "model": "heads", "extra": None},
        lambda name: None if name == "extra.weight" else name.replace("stem", "body.0").replace("bn", "body.1").replace("model", "heads"),
    ],
)  # fmt: skip
def test_names_by_rename(rename):
    state = net_state()
    ways = {"body.0": "stem", "body.1": "bn", "heads": "model"}
    theirs = {next(name.replace(a, b) for a, b in ways.items() if name.startswith(a)): v for name, v in state.items()}
    net = loaded(Net(), {**theirs, "extra.weight": draw(2)}, rename=rename)
    assert everything(net) == everything(loaded(Net(), state))


def test_all_faults_of_names_are_listed_and_nothing_is_changed():
    state, net = net_state(), Net()
    before = everything(net)
    state["heads.middle.weight"] = state.pop("heads.right.weight")
    state["more"] = draw(1)
    del state["body.1.running_var"]
    text = (
        r"^import_torch: expected PyTorch's names to be those of the model, got missing \['body\.1\.running_var', "
        r"'heads\.right\.weight'\], unexpected \['heads\.middle\.weight', 'more'\]; pass rename=\{theirs: ours\}, or strict=False$"
    )
    with pytest.raises(ArgumentError, match=text):
        mf.import_torch(net, state)
    assert everything(net) == before


class Scaled(nn.LSTM):
    def __init__(self):
        super().__init__(2, 3)
        self.scale, self.bias_scale = nn.Parameter(1.0), nn.Parameter(draw(2))


class Positions(nn.MultiHeadAttention):
    def __init__(self):
        super().__init__(4, 2)
        self.position, self.norm = nn.Parameter(draw(5)), nn.LayerNorm(4)


def test_classes_that_inherit_a_layer_may_have_more_parameters():
    lstm = {"weight_ih_l0": draw(12, 2), "weight_hh_l0": draw(12, 3), "bias_ih_l0": draw(12), "bias_hh_l0": draw(12)}
    mine = loaded(Scaled(), {**lstm, "scale": draw(), "bias_scale": (more := draw(2))})
    close(mine.weight_ih.data, lstm["weight_ih_l0"].T)
    close(mine.bias_scale.data, more)
    attention = {
        "in_proj_weight": draw(12, 4),
        "in_proj_bias": draw(12),
        "out_proj.weight": draw(4, 4),
        "out_proj.bias": draw(4),
    }
    more = {"position": draw(5), "norm.weight": draw(4), "norm.bias": draw(4)}
    mine = loaded(Positions(), {**attention, **more})
    close(mine.norm.bias.data, more["norm.bias"])
    close(mine.key.weight.data, attention["in_proj_weight"][4:8].T)


def test_a_count_of_batches_may_be_renamed():
    theirs = {f"0.{name}": np.ones(3) for name in ("weight", "bias", "running_mean", "running_var")}
    for rename in ({"0.num_batches_tracked": None}, {"0": "0"}, lambda name: {name: name for name in theirs}[name]):
        mf.import_torch(nn.Sequential(nn.BatchNorm1D(3)), {**theirs, "0.num_batches_tracked": np.array(1)}, rename)


def test_what_is_left_is_returned():
    state, net = net_state(), Net().astype(np.float64)
    kept = net.heads["right"].weight.data.copy()
    state["heads.middle.weight"] = state.pop("heads.right.weight")  # of the same shape
    left = mf.import_torch(net, {**state, "body.1.num_batches_tracked": np.array(3)}, strict=False)
    assert left.missing_keys == ["heads.right.weight"] and left.unexpected_keys == ["heads.middle.weight"]
    np.testing.assert_array_equal(net.heads["right"].weight.data, kept)
    close(net.heads["left"].weight.data, state["heads.left.weight"].T)


def test_shapes_that_differ_are_listed_and_nothing_is_changed():
    state, net = net_state(), Net()
    before = everything(net)
    state["heads.left.weight"], state["body.1.bias"] = draw(4, 3), draw(5)
    for strict in (True, False):
        with pytest.raises(ShapeError) as info:
            mf.import_torch(net, state, strict=strict)
        assert str(info.value) == (
            "import_torch: expected body.1.bias of shape (4,), got (5,); expected heads.left.weight of shape (4, 4), got (4, 3)"
        )
    assert everything(net) == before


def test_names_that_are_ambiguous():
    model = nn.Sequential(nn.Dense(2, 2, bias=False, rng=0))
    before = everything(model)
    theirs = {"a.weight": np.eye(2), "b.weight": np.ones((2, 2))}
    for strict in (True, False):
        with pytest.raises(
            ArgumentError, match=r"got ambiguous \['a\.weight', 'b\.weight'\], of different values; pass"
        ):
            mf.import_torch(model, theirs, rename={"a": "0", "b": "0"}, strict=strict)
    assert everything(model) == before
    mf.import_torch(model, {"a.weight": np.eye(2), "b.weight": np.eye(2)}, rename={"a": "0", "b": "0"})  # tied there
    np.testing.assert_array_equal(model[0].weight.data, np.eye(2))


def test_tied_weights_stay_tied():
    layer = nn.Dense(2, 2, bias=False, rng=0)
    model = nn.Sequential(layer, nn.Sequential(layer))
    a, b = np.array([[1.0, 2.0], [3.0, 4.0]]), np.eye(2)
    for state in ({"0.weight": a, "1.0.weight": a}, {"1.0.weight": a}, {"0.weight": a}):
        layer.weight.data = b
        mf.import_torch(model, state)
        np.testing.assert_array_equal(layer.weight.data, a.T)
        assert model[0].weight is model[1][0].weight
    with pytest.raises(ArgumentError, match=r"ambiguous \['0\.weight', '1\.0\.weight'\], of different values"):
        mf.import_torch(model, {"0.weight": a, "1.0.weight": b})
    np.testing.assert_array_equal(layer.weight.data, a.T)
    with pytest.raises(ArgumentError, match=r"got missing \['0\.weight'\], unexpected \['2\.weight'\]"):
        mf.import_torch(model, {"2.weight": a})


def test_arguments_that_are_wrong():
    with pytest.raises(ArgumentError, match="^import_torch: expected a Module of microfw first, got dict$"):
        mf.import_torch({}, nn.Dense(2, 2))
    with pytest.raises(
        ArgumentError,
        match=r"^import_torch: expected rename of names that are given, got \['fc'\]; these begin no name$",
    ):
        mf.import_torch(nn.Dense(2, 2), {"weight": np.eye(2), "bias": np.ones(2)}, rename={"fc": "0"})
    with pytest.raises(
        DTypeError, match=r"^import_torch: weight: expected an array of numbers, got dict; pass model\.state_dict\(\)$"
    ):
        mf.import_torch(nn.Dense(2, 2), {"weight": {}, "bias": np.ones(2)})
    checkpoint = {"epoch": 3, "state_dict": {"weight": np.eye(2), "bias": np.ones(2)}}
    for strict in (True, False):
        text = r"^import_torch: expected a state_dict, got a dict with one as its entry 'state_dict'; pass source\['state_dict'\]$"
        with pytest.raises(ArgumentError, match=text):
            mf.import_torch(nn.Dense(2, 2), checkpoint, strict=strict)
    with pytest.raises(CheckpointError, match="^import_torch: expected the path of a file, got int; call"):
        mf.import_torch(nn.Dense(2, 2), 3)
    text = r"^import_torch: expected a state_dict of PyTorch, or a path, got "
    with pytest.raises(ArgumentError, match=text + r"Linear; pass its state_dict\(\)$"):
        mf.import_torch(nn.Dense(2, 2), type("Linear", (), {"state_dict": dict})())
    with pytest.raises(ArgumentError, match=text + r"Dense; call model.load_state_dict\(source.state_dict\(\)\)$"):
        mf.import_torch(nn.Dense(2, 2), nn.Dense(2, 2))
    for rename in ("0", [("0", "0")]):
        with pytest.raises(
            ArgumentError, match="^import_torch: expected rename to be a dict of names, a function or None, got"
        ):
            mf.import_torch(nn.Dense(2, 2), {"weight": np.eye(2), "bias": np.ones(2)}, rename)
    with pytest.raises(
        DTypeError, match=r"^import_torch: weight: expected an array of numbers, got setting .*; pass model\.state_dict"
    ):
        mf.import_torch(nn.Dense(2, 2), {"weight": [[1, 2], [3]], "bias": np.ones(2)})
    with pytest.raises(DataError, match=r"^import_torch: weight: expected finite values of float32, got 1e\+300; "):
        mf.import_torch(nn.Dense(2, 2), {"weight": np.full((2, 2), 1e300), "bias": np.ones(2)})


def test_tensors_of_pytorch_are_taken_from_their_graph_and_device():
    class Theirs:
        """What a Tensor on a device that needs a gradient does."""

        dtype, made = "torch.bfloat16", ()

        def __init__(self, array, done=()):
            self.array, self.done = array, done

        def detach(self):
            return Theirs(self.array, (*self.done, "detach"))

        def cpu(self):
            return Theirs(self.array, (*self.done, "cpu"))

        def float(self):
            return Theirs(self.array, (*self.done, "float"))

        def numpy(self):
            assert self.done == ("detach", "cpu", "float")
            return self.array

    layer = loaded(nn.Dense(2, 2), {"weight": Theirs(np.array([[1.0, 2.0], [3.0, 4.0]])), "bias": Theirs(np.ones(2))})
    np.testing.assert_array_equal(layer.weight.data, [[1, 3], [2, 4]])


# Files


def write(path, arrays, codes=None, notes=None):
    """Write a file as safetensors' package does; `codes` gives names of dtypes that NumPy does not have."""
    names = {"<f2": "F16", "<f4": "F32", "<f8": "F64", "<i8": "I64"}
    header, parts, end = ({"__metadata__": notes} if notes else {}), [], 0
    for name, array in arrays.items():
        parts.append(array.tobytes())
        offsets = [end, end := end + len(parts[-1])]
        dtype = (codes or {}).get(name) or names[array.dtype.str]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": offsets}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(parts))


def test_a_file_of_16_bits_is_widened(tmp_path):
    path = tmp_path / "weights.safetensors"
    weight = np.array([[1.5, -2.0], [0.0, np.pi]], np.float32)
    upper = (weight.view(np.uint32) >> 16).astype(np.uint16)  # bfloat16: the upper half
    bias = np.array([0.1, 1e-7], np.float16)
    write(path, {"0.weight": upper, "0.bias": bias}, {"0.weight": "BF16"}, {"format": "pt"})
    model = nn.Sequential(nn.Dense(2, 2, rng=0))
    assert mf.import_torch(model, path) is None
    with pytest.raises(
        CheckpointError, match=r"got 'BF16'; read weights of PyTorch with mf\.import_torch\(model, path\)$"
    ):
        mf.load(path)
    assert model[0].weight.dtype == np.float32
    np.testing.assert_array_equal(model[0].weight.data, [[1.5, 0.0], [-2.0, 3.140625]])
    np.testing.assert_array_equal(model[0].bias.data, bias.astype(np.float32))


def test_a_file_needs_no_pytorch(tmp_path):
    path = tmp_path / "weights.safetensors"
    write(path, {"weight": np.eye(2, dtype="f4"), "bias": np.zeros(2, "f4")})
    code = (
        "import sys; sys.modules['torch'] = sys.modules['safetensors'] = None; import microfw as mf; "
        f"model = mf.nn.Dense(2, 2); mf.import_torch(model, {str(path)!r}); print(model.weight.data.tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[[1.0, 0.0], [0.0, 1.0]]", done.stderr


def test_files_that_are_refused(tmp_path):
    model, path = nn.Dense(2, 2, rng=0), tmp_path / "weights.safetensors"
    before = everything(model)
    with pytest.raises(
        CheckpointError,
        match=r"weights\.pt: expected a state_dict, or a name that ends with \.safetensors, got .*; write one in",
    ):
        mf.import_torch(model, tmp_path / "weights.pt")
    with pytest.raises(
        CheckpointError, match=r"weights\.safetensors: expected a file that can be read, got FileNotFoundError"
    ):
        mf.import_torch(model, path)
    mf.save(path, model)
    with pytest.raises(
        CheckpointError, match=r"expected a file of PyTorch's weights, got one of mf\.save; read it with mf\.load$"
    ):
        mf.import_torch(model, path)
    write(path, {"weight": np.eye(2, dtype="f4"), "bias": np.zeros(2, "f4")})
    whole = path.read_bytes()
    with pytest.raises(
        CheckpointError, match=r"expected the entries .*; .* for PyTorch's weights use mf\.import_torch$"
    ):
        mf.load(path)
    for damaged in (whole[:-1], whole + b"0", whole[:3], whole.replace(b"F32", b"F8_"), b"x" + whole):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"^import_torch .*weights\.safetensors: expected .*, got "):
            mf.import_torch(model, path)
    write(path, {"weight": np.eye(2, dtype="f4"), "bias": np.zeros(3, "f4")})
    with pytest.raises(ShapeError, match=r"^import_torch: expected bias of shape \(2,\), got \(3,\)$"):
        mf.import_torch(model, path)
    assert everything(model) == before


# load_state_dict


def test_load_state_dict_that_is_not_strict_returns_what_is_left():
    model = nn.Sequential(nn.Dense(2, 2, rng=0), nn.Dense(2, 1, rng=1))
    state = {"0.weight": np.ones((2, 2)), "2.bias": np.ones(1)}
    before = model.state_dict()
    with pytest.raises(
        ArgumentError, match=r"got missing \['0\.bias', '1\.weight', '1\.bias'\] and unknown \['2\.bias'\]; load into"
    ):
        model.load_state_dict(state)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert missing == ["0.bias", "1.weight", "1.bias"] and unexpected == ["2.bias"]
    assert (model[0].weight.data == 1).all()
    np.testing.assert_array_equal(model[1].weight.data, before["1.weight"])
    with pytest.raises(ShapeError, match=r"load_state_dict: 1\.weight: expected shape \(2, 1\), got \(2, 2\)"):
        model.load_state_dict({"0.bias": np.ones(2), "1.weight": np.ones((2, 2))}, strict=False)
    assert not (model[0].bias.data == 1).any()
