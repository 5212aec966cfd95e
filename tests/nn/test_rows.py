"""Every layer, over the rows of `tests/cases/layers.py`: derivatives, dtypes, values, inputs and settings."""

from __future__ import annotations

import ast
import copy
import inspect
import math
import pickle
import re

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import ArgumentError, DTypeError, GraphError, ShapeError
from tests.cases.layers import LAYERS
from tests.cases.ops import floats
from tests.helpers.models import batch, model
from tests.helpers.paths import ROOT

SEQUENCES = (ROOT / "tests/peers/test_sequences.py").read_text(encoding="utf-8")

layers = pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)


# Rows


def public(base):
    """Return the layers of the library by name, without bases."""
    found = {name: getattr(nn, name) for name in nn.__all__}
    bases = (nn.Module, nn.Loss)
    return {n: k for n, k in found.items() if inspect.isclass(k) and issubclass(k, base) and k not in bases}


def text(path):
    return (ROOT / path).read_text(encoding="utf-8")


def test_each_layer_has_rows_with_what_the_checks_need():
    peers = text("tests/peers/test_layers.py")
    programs = "".join(text(f"tests/fuzzing/{name}.py") for name in ("generator", "library_layers", "own_layers"))
    kinds = {name: kind for name, kind in public(nn.Module).items() if not issubclass(kind, nn.Loss)}
    missing = []
    for name, kind in kinds.items():
        rows = [case for case in LAYERS if case.kind is kind]
        if not rows:
            missing.append(f"{name}: add a row to tests/cases/layers.py")
            continue
        if not any(case.torch for case in rows) and not compared(name, peers):
            missing.append(f"{name}: give the row torch=..., PyTorch's layer or the reason why there is none")
        elif not any(callable(case.torch) or case.reference for case in rows) and name not in named(peers, SEQUENCES):
            missing.append(f"{name}: give the row reference=..., the output by NumPy alone")
        if not any(case.program for case in rows) and not re.search(rf"\b{name}\b", programs):
            missing.append(f"{name}: give the row program=..., how a random program writes the layer")
    assert not missing, "\n".join(missing)
    assert {case.kind for case in LAYERS} == set(kinds.values())


def named(*texts):
    """Return the layers that a text names."""
    return {name for name in nn.__all__ for t in texts if re.search(rf"(?<!torch\.)\bnn\.{name}\b|\"{name}\"", t)}


def test_each_public_layer_of_a_file_is_exported():
    files = sorted((ROOT / "microfw/nn").glob("*.py"))
    defined = {
        node.name for file in files for node in ast.parse(file.read_text()).body if isinstance(node, ast.ClassDef)
    }
    bases = {"Recurrent", "Normalization"}
    loaded = {kind.__name__ for kind in walk(nn.Module) if kind.__module__.startswith("microfw.nn.")}
    missing = sorted(name for name in defined & loaded - bases - set(nn.__all__) if not name.startswith("_"))
    assert not missing, f"export in microfw/nn/__init__.pyi, or begin the name with _: {missing}"


def walk(kind):
    """Yield all subclasses of a class."""
    for below in kind.__subclasses__():
        yield below
        yield from walk(below)


@pytest.mark.parametrize("case", [case for case in LAYERS if case.reference], ids=lambda case: case.name)
def test_outputs_are_those_of_the_reference(case):
    layer = case.make().astype(np.float64)
    for x in case.inputs():
        np.testing.assert_allclose(layer(mf.tensor(x)).numpy(), case.reference(layer, x), rtol=1e-12, atol=1e-12)


def compared(name, peers):
    """Return True if a layer or a loss is compared with PyTorch's, or listed as one that PyTorch does not have."""
    differences = text("docs/guide/differences.md")
    only = differences[differences.index("## Not in PyTorch") :]
    return re.search(rf"(?<!torch\.)\bnn\.{name}\b|\"{name}\"", peers) is not None or f"`{name}`" in only


def test_each_loss_is_compared_with_pytorchs_or_listed_as_ours_alone():
    peers = text("tests/peers/test_layers.py")
    assert [name for name in public(nn.Loss) if not compared(name, peers)] == []


@layers
def test_layers_pass_gradcheck_by_input_and_by_parameter(case):
    layer = case.make().astype(np.float64)
    for x in case.inputs():
        assert mf.gradcheck(lambda t: np.square(layer(t)), x) <= 1e-6
        parameters = layer.parameters()
        if not parameters:
            continue
        gradient = mf.grad(lambda m: np.sum(np.square(m(mf.tensor(x)))))(layer)  # noqa: B023
        before = [p.data.copy() for p in parameters]
        way = [floats(p.shape, seed=k) for k, p in enumerate(parameters)]

        def value(h):
            for p, a, d in zip(parameters, before, way, strict=True):  # noqa: B023
                p.data = a + h * d
            return np.sum(np.square(layer(x).data))  # noqa: B023

        slope = (8 * (value(1e-5) - value(-1e-5)) - (value(2e-5) - value(-2e-5))) / 12e-5
        value(0)
        got = sum(np.sum(g * d) for g, d in zip(gradient.values(), way, strict=True))
        assert abs(got - slope) <= 1e-6 * max(1, abs(slope))


@layers
def test_layers_differentiate_again(case):
    layer = case.make().astype(np.float64)
    x = case.inputs()[0]
    assert mf.gradcheck(mf.grad(lambda t: np.sum(np.square(layer(t)))), x) <= 1e-6


@layers
def test_layers_keep_float32(case):
    layer = case.make()
    for x in case.inputs():
        t = mf.tensor(x.astype(np.float32), requires_grad=True)
        y = layer(t)
        assert y.dtype == np.float32
        y.sum().backward()
        assert t.grad.dtype == np.float32
        assert all(p.grad.dtype == np.float32 for p in layer.parameters())


@layers
def test_layers_take_plain_arrays(case):
    layer = case.make()
    x = case.inputs()[0].astype(np.float32)
    with mf.no_grad():
        np.testing.assert_array_equal(np.asarray(layer(x)), layer(mf.tensor(x)).data)


@layers
def test_layers_print_their_settings(case):
    assert repr(case.make()).splitlines()[0].startswith(case.title)


@layers
def test_layers_are_copied_and_pickled(case):
    layer = case.make()
    x = case.inputs()[0].astype(np.float32)
    with mf.no_grad():
        expected = np.asarray(layer(x))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        with mf.no_grad():
            np.testing.assert_array_equal(np.asarray(other(x)), expected)
        assert repr(other) == repr(layer)
        assert not {id(p) for p in other.parameters()} & {id(p) for p in layer.parameters()}


# What they compute


def test_values_of_layers():
    x = floats((3, 4), -3, 3)
    t = mf.tensor(x)
    layer = nn.Dense(4, 2, rng=0).astype(np.float64)
    np.testing.assert_allclose(layer(t).data, x @ layer.weight.data + layer.bias.data)
    np.testing.assert_array_equal(nn.LeakyReLU()(t).data, np.where(x > 0, x, 0.01 * x))
    phi = np.vectorize(lambda v: 0.5 * v * (1 + math.erf(v / math.sqrt(2))))
    np.testing.assert_allclose(nn.GELU()(t).data, phi(x), rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(nn.GELU("tanh")(t).data, phi(x), atol=2e-3)
    np.testing.assert_allclose(nn.Softmax()(t).data.sum(1), 1)
    np.testing.assert_allclose(np.exp(nn.LogSoftmax()(t).data), nn.Softmax()(t).data)
    assert nn.Flatten()(mf.tensor(np.zeros((2, 3, 4)))).shape == (2, 12)


def test_activations_stay_finite():
    x = mf.tensor(np.array([1e4, -1e4, 1e30, -1e30], np.float32), requires_grad=True)
    for layer in (nn.Sigmoid(), nn.Tanh(), nn.Softplus(), nn.Softmax(), nn.LogSoftmax(), nn.ReLU()):
        x.zero_grad()
        y = layer(x)
        y.backward(np.ones(4, np.float32))
        assert np.isfinite(y.data).all() and np.isfinite(x.grad).all(), layer


def test_leaky_relu_at_zero():
    assert mf.grad(lambda x: nn.LeakyReLU(0.3)(x))(0.0) == 0.3


@pytest.mark.parametrize("bits", ["PCG64", "PCG64DXSM", "Philox", "SFC64", "MT19937"])
@pytest.mark.parametrize("p", [0.01, 0.5, 0.9])
def test_dropout_keeps_its_share_with_every_bit_generator(bits, p):
    layer, n = nn.Dropout(p, rng=np.random.Generator(getattr(np.random, bits)(3))), 100_001
    masks = np.array([layer(np.ones(n, np.float32)).data != 0 for _ in range(2)])
    tolerance = 4 * (p * (1 - p) / n) ** 0.5
    np.testing.assert_allclose(masks.mean(1), 1 - p, atol=tolerance)  # also across neighbours, and both draws
    np.testing.assert_allclose((masks[:, 1:] & masks[:, :-1]).mean(), (1 - p) ** 2, atol=tolerance)
    np.testing.assert_allclose((masks[0] & masks[1]).mean(), (1 - p) ** 2, atol=tolerance)


def test_dropout():
    x = mf.tensor(np.ones((200, 200), np.float32), requires_grad=True)
    layer = nn.Dropout(0.25, rng=0)
    y = layer(x)
    assert y.dtype == np.float32
    kept = y.data != 0
    assert abs(kept.mean() - 0.75) < 0.01
    np.testing.assert_allclose(y.data[kept], 1 / 0.75, rtol=1e-6)
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, y.data)
    np.testing.assert_array_equal(nn.Dropout(0.25, rng=0)(x).data, y.data)
    assert not np.array_equal(layer(x).data, y.data)
    assert layer.eval()(x) is x and nn.Dropout(0.0)(x) is x
    for p in (-0.1, 1.0, float("nan")):
        with pytest.raises(ArgumentError, match="^Dropout: expected p from 0 to below 1, got"):
            nn.Dropout(p)


def test_dropout_continues_its_noise_when_pickled():
    layer = nn.Dropout(0.5, rng=0)
    x = mf.tensor(np.ones(50, np.float32))
    layer(x)
    other = pickle.loads(pickle.dumps(layer))
    np.testing.assert_array_equal(other(x).data, layer(x).data)


# Inputs of other types


def test_float64_arrays_and_lists_are_cast_at_the_first_layer():
    net = model()
    x, _ = batch()
    expected = net(x).data
    np.testing.assert_array_equal(net(x.astype(np.float64)).data, expected)
    np.testing.assert_array_equal(net(x.tolist()).data, expected)
    assert net(x.astype(np.float64)).dtype == np.float32
    assert net(np.arange(12).reshape(2, 6)).dtype == np.float32


def test_frames_go_in_as_arrays_do():
    pandas = pytest.importorskip("pandas")
    net, (x, _) = model(), batch()
    frame = pandas.DataFrame(x.astype(float), columns=list("abcdef"))
    np.testing.assert_array_equal(net(frame).data, net(x).data)
    frame["c"] = "text"
    with pytest.raises(
        DTypeError, match=r"^0 Dense: expected x to hold numbers, got DataFrame \(.*encode text columns first"
    ):
        net(frame)


def test_tensors_of_another_dtype_are_not_cast_silently():
    for dtype, fix in ((np.float64, r", or the model with model\.astype\(np\.float64\)$"), (np.int64, "$")):
        x = mf.tensor(batch()[0].astype(dtype))
        expected = rf"^0 Dense: expected x of float32, got {np.dtype(dtype)}; cast it with \.astype\(np\.float32\){fix}"
        with pytest.raises(DTypeError, match=expected):
            model()(x)
    with pytest.raises(DTypeError, match=r"^0 Conv2D: expected x of float32, got float64; cast it with"):
        nn.Sequential(nn.Conv2D(1, 2, 3, rng=0))(mf.tensor(np.ones((1, 1, 4, 4))))


def test_a_layer_of_mixed_dtypes_says_so():
    layer = nn.Dense(2, 3, rng=0)
    layer.bias = nn.Parameter(np.zeros(3), np.float64)
    with pytest.raises(DTypeError, match="^Dense: linear: expected Tensors of one dtype, got float32 and float64"):
        layer(np.ones((4, 2)))


def test_what_is_no_array_of_real_numbers():
    with pytest.raises(DTypeError, match=r"^Dense: expected x to be one Tensor or array, got a tuple of Tensors; pick"):
        nn.Dense(2, 1, rng=0)(nn.RNN(3, 2, rng=0)(np.ones((2, 4, 3))))
    for layer in (nn.Dense(4, 3, rng=0), nn.Flatten(), nn.GELU(), nn.LeakyReLU(), nn.ELU()):
        for bad in ({}, [["a", "b"]], [[1.0, 2j]]):
            with pytest.raises((TypeError, ValueError), match=f"^0 {type(layer).__name__}: expected x "):
                nn.Sequential(layer)(bad)
    with pytest.raises(DTypeError, match="^Dense: expected x to hold numbers, got complex128; encode text, and split"):
        nn.Dense(4, 3, rng=0)(np.ones((2, 4), complex))


def test_lists_are_taken_by_layers_without_parameters():
    values = [[-1.0, 2.0], [3.0, -4.0]]
    assert nn.Flatten()(values).shape == (2, 2)
    for layer in (nn.GELU(), nn.LeakyReLU(), nn.ELU()):
        assert layer(values).dtype == np.float32
        np.testing.assert_allclose(layer(values).data, layer(np.array(values, np.float32)).data, rtol=1e-6)
    with pytest.raises(ShapeError, match=r"^Flatten: expected x of shape \(N, \.\.\.\), got \(\); give it an axis"):
        nn.Flatten()(3.0)


def test_an_initializer_returns_the_shape_it_was_asked_for():
    def wrong(shape, rng):
        return np.zeros(shape[:1])

    for name, make in (("Dense", nn.Dense), ("Embedding", nn.Embedding)):
        with pytest.raises(ShapeError, match=rf"^{name}: expected init to return shape \(2, 3\), got \(2,\)$"):
            make(2, 3, rng=0, init=wrong)
    with pytest.raises(ShapeError, match=r"^Conv2D: expected init to return shape \(3, 2, 1, 1\), got \(3,\)$"):
        nn.Conv2D(2, 3, 1, rng=0, init=wrong)


def test_sequential_slices_and_explains():
    net = nn.Sequential(nn.Dense(2, 3, rng=0), nn.ReLU(), nn.Dense(3, 1, rng=1))
    assert isinstance(net[:2], nn.Sequential)
    assert [p is q for p, q in zip(net[:2].parameters(), net.parameters()[:2], strict=True)] == [True, True]
    for layer, got in (
        (nn.ReLU, r"the class ReLU; make one: ReLU\(\)"),
        ([nn.ReLU()], r"list; write Sequential\(\*layers\)"),
        (np.tanh, "ufunc; wrap a function in nn.Lambda"),
        (3, "int"),
    ):
        with pytest.raises(ArgumentError, match=rf"^Sequential: expected layer 0 to be a Module, got {got}$"):
            nn.Sequential(layer)


def test_bad_settings():
    for sizes in ((0, 3), (3, -1), (2.5, 3), ("4", 3)):
        with pytest.raises(ArgumentError, match="^Dense: expected (in|out)_features to be a positive integer, got"):
            nn.Dense(*sizes)
    with pytest.raises(ArgumentError, match="^Sequential: expected layer 1 to be a Module, got function"):
        nn.Sequential(nn.ReLU(), batch)
    with pytest.raises(ArgumentError, match="^GELU: expected approximate to be 'none' or 'tanh', got 'fast'"):
        nn.GELU("fast")
    with pytest.raises(ArgumentError, match="^LeakyReLU: expected a finite slope, got nan"):
        nn.LeakyReLU(float("nan"))
    with pytest.raises(GraphError, match="^Module: expected a forward method, got none; define forward"):
        nn.Module()(1.0)
