"""Models in files: what comes back is what was saved, in both formats, and what cannot come back is refused at once."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import ArgumentError, CheckpointError
from microfw.serialization import architecture, container, tree
from microfw.serialization.strict import FormatError
from tests.cases.layers import LAYERS, Ragged, Read, Weighed

FORMATS = ["npz", "safetensors"]

LOSSES = [
    nn.BCEWithLogitsLoss([1.0, 2.0], 3.0, "sum"), nn.CosineEmbeddingLoss(0.1, "sum"), nn.HingeLoss("none"),
    nn.CrossEntropyLoss([1.0, 0.0, 2.0], 0.1, "sum", -1), nn.CrossEntropyLoss(), nn.HuberLoss(2.0, "sum"),
    nn.KLDivLoss("sum", True), nn.L1Loss("sum"), nn.MSELoss("none"), nn.NLLLoss([1.0, 2.0], "sum", 3),
    nn.GaussianNLLLoss(True, 0.1, "sum"), nn.PoissonNLLLoss(False, True, 1e-3, "sum"), nn.TripletMarginLoss(0.5, True, "sum"),
]  # fmt: skip


def everything(model):
    """Return all that is to come back, in plain values."""
    return (
        repr(model),
        [(k, v.dtype.str, v.shape, v.tobytes()) for k, v in model.state_dict().items()],
        [(name, p.requires_grad) for name, p in model.named_parameters()],
        [(name, type(m), m.training) for name, m in model.named_modules()],
        [plain(m) for _, m in model.named_modules()],
    )


def plain(module):
    settings = {}
    for name, value in vars(module).items():
        if isinstance(value, np.random.Generator):
            settings[name] = repr(value.bit_generator.state)
        elif not isinstance(value, mf.Tensor | nn.Module | tuple) and not name.startswith("_"):
            settings[name] = value
    return settings


@pytest.fixture(params=FORMATS)
def path(request, tmp_path):
    return tmp_path / f"model.{request.param}"


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.name)
def test_every_layer_comes_back(case, path):
    layer = case.make()
    mf.save(path, layer)
    again = mf.load(path, [Weighed, Read, Ragged])
    assert everything(again) == everything(layer)
    x = case.inputs()[0].astype(np.float32)
    assert np.array_equal(again(x), layer(x))


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_every_loss_comes_back(loss, path):
    mf.save(path, loss)
    assert everything(mf.load(path)) == everything(loss)


def test_every_loss_is_in_the_list_of_losses_to_save():
    public = {value for name in nn.__all__ if isinstance(value := getattr(nn, name), type)}
    losses = {kind for kind in public if issubclass(kind, nn.Loss)} - {nn.Loss}
    assert {type(loss) for loss in LOSSES} == losses


@pytest.mark.parametrize("name", ["nn.Module", "nn.Loss", "nn.Parameter", "nn.initializers", "nn.Missing", "Dense", 3])
def test_a_file_names_layers_of_the_library_only(name):
    with pytest.raises(FormatError, match="a layer of the library, or a class that was passed"):
        architecture.build({"$module": {"class": name, "settings": {}}}, {}, 100)


def test_noise_modes_frozen_parameters_and_dtypes_come_back(path):
    rng = np.random.Generator(np.random.Philox(5))
    model = nn.Sequential(nn.Dense(3, 4, rng=0), nn.Dropout(0.5, rng=rng), nn.BatchNorm1D(4), nn.Dropout(0.2, rng=rng))
    model.astype(np.float64)(np.ones((5, 3)))
    model[0].requires_grad_(False)
    model[2].eval()
    mf.save(path, model)
    again = mf.load(path)
    assert everything(again) == everything(model)
    assert again[1].rng is again[3].rng
    x = np.random.default_rng(0).standard_normal((6, 3))
    assert np.array_equal(again(x).numpy(), model(x).numpy())


@pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_every_random_generator_comes_back(kind, path):
    layer = nn.Dropout(0.5, rng=np.random.Generator(getattr(np.random, kind)(3)))
    layer.rng.random(5)
    mf.save(path, layer)
    assert np.array_equal(mf.load(path).rng.random(9), layer.rng.random(9))


def test_a_layer_that_comes_twice_is_one(path):
    dense = nn.Dense(3, 3, rng=0)
    mf.save(path, nn.Sequential(dense, nn.ReLU(), dense))
    again = mf.load(path)
    assert again[0] is again[2]


class Wide(nn.Module):
    def __init__(self, width, body=None, options=(1, [2.5, None], {"a": "b"}), rng=None):
        self.width, self.body, self.options = width, body, options
        self.weight = nn.Parameter(np.random.default_rng(rng).random(width))

    def forward(self, x):
        return self.body(x * self.weight)


def test_classes_of_ones_own(path):
    model = Wide(3, nn.Sequential(nn.Dense(3, 2, rng=0), nn.Lambda(np.sin)))
    mf.save(path, model)
    for classes in ([Wide], {"Wide": Wide}):
        again = mf.load(path, classes)
        assert everything(again) == everything(model)
        assert again.options == model.options
    with pytest.raises(
        CheckpointError, match="expected a layer of the library, or a class that was passed, got 'Wide'"
    ):
        mf.load(path)


class Hidden(nn.Module):
    def __init__(self, width):
        self.weight = nn.Parameter(np.ones(width))


class Shown(Hidden):
    def init_arguments(self):
        return {"width": self.weight.size}


class Varying(Hidden):
    def __init__(self, width):
        super().__init__(width)
        self.width = 1


class Odd:
    pass


def tied():
    model = nn.Sequential(nn.Dense(3, 3, rng=0), nn.Dense(3, 3, rng=1))
    model[1].weight = model[0].weight
    return model


@pytest.mark.parametrize(("make", "match"), [
    (lambda: Hidden(3), "Hidden to have an attribute for its parameter 'width', got none; set self.width = width, or"),
    (lambda: Varying(3), r"settings create again, with weight \(3,\), got \(1,\)"),
    (lambda: nn.Lambda(lambda x: x), "a function with a name, got <lambda>; define it with def"),
    (tied, "settings create again, with 1.weight nothing, got .3, 3."),
    (lambda: Wide(3, options=Odd()), "Wide.options to be a number, text, an array"),
    (lambda: Wide(3, options=np.ones(2)), "settings without arrays"),
    (lambda: 3, "expected a Module, got int"),
])  # fmt: skip
def test_what_could_not_be_loaded_is_not_saved(make, match, path):
    mf.save(path, nn.ReLU())
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=match):
        mf.save(path, make())
    assert path.read_bytes() == before


def test_init_arguments_say_what_attributes_do_not(path):
    mf.save(path, Shown(3))
    assert everything(mf.load(path, [Shown])) == everything(Shown(3))


class Active(nn.Module):
    def __init__(self, act, kind=nn.ReLU):
        self.act, self.kind = act, kind

    def forward(self, x):
        return self.kind()(self.act(x))


def test_layers_of_the_library_may_be_among_the_classes(path):
    model = nn.Sequential(nn.Dense(2, 2, rng=0), Active(nn.ReLU()))
    mf.save(path, model)
    for classes in ([Active, nn.ReLU], [Active, nn.Dense, nn.ReLU, nn.Sequential], {"Active": Active, "ReLU": nn.ReLU}):
        assert everything(mf.load(path, classes)) == everything(model)
    mf.save(path, nn.Sequential(nn.ReLU()))
    assert type(mf.load(path, [nn.ReLU])[0]) is nn.ReLU


@pytest.mark.parametrize("classes", [Active, 5, "x", [None], [nn.ReLU()], nn.ReLU(), {"Active": 3}])
def test_classes_are_a_list_of_classes(classes, path):
    mf.save(path, nn.ReLU())
    with pytest.raises(
        ArgumentError, match=r"^mf.load: expected classes to be a list or dict of classes and functions, got "
    ):
        mf.load(path, classes)


def test_two_classes_of_one_name_are_refused(path):
    other = type("Wide", (Wide,), {})
    with pytest.raises(CheckpointError, match="classes and functions of different names"):
        mf.save(path, nn.Sequential(Wide(3), other(3)))


def test_names(tmp_path):
    for name in ("model.pkl", "model", "model.npz.gz"):
        with pytest.raises(CheckpointError, match="a name that ends with .safetensors or .npz"):
            mf.save(tmp_path / name, nn.ReLU())
        with pytest.raises(CheckpointError, match="a name that ends with .safetensors or .npz"):
            mf.load(tmp_path / name)
    with pytest.raises(CheckpointError, match="expected a file that can be read, got FileNotFoundError"):
        mf.load(tmp_path / "none.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(CheckpointError, match="expected a file, got a folder or a device"):
        mf.load(tmp_path / "folder.npz")


def test_the_same_model_gives_the_same_bytes(tmp_path):
    for ending in FORMATS:
        texts = []
        for k in range(2):
            mf.save(tmp_path / f"{k}.{ending}", nn.Sequential(nn.Dense(3, 2, rng=0), nn.Dropout(0.5, rng=0)))
            texts.append((tmp_path / f"{k}.{ending}").read_bytes())
        assert texts[0] == texts[1]


def test_numpy_reads_npz(tmp_path):
    model = nn.Sequential(nn.Dense(3, 2, rng=0), nn.Dense(2, 2, rng=0))
    mf.save(tmp_path / "a.npz", model)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        for name, values in model.state_dict().items():
            assert np.array_equal(file[name], values) and file[name].dtype == values.dtype
        about = json.loads(file["microfw.json"])
    assert (about["format"], about["version"]) == ("microfw", 1)
    done = subprocess.run([sys.executable, "-m", "zipfile", "-t", tmp_path / "a.npz"], capture_output=True, text=True)
    assert "Done testing" in done.stdout, done


def test_other_libraries_read_safetensors(tmp_path):
    reading = pytest.importorskip("safetensors.numpy")
    model = nn.Sequential(nn.Dense(3, 2, rng=0), nn.BatchNorm1D(2))
    mf.save(tmp_path / "a.safetensors", model)
    read = reading.load_file(tmp_path / "a.safetensors")
    assert {k: v.tobytes() for k, v in read.items()} == {k: v.tobytes() for k, v in model.state_dict().items()}
    # What that library writes of it is read here, too: another order and other spaces.
    from safetensors import safe_open

    with safe_open(tmp_path / "a.safetensors", "numpy") as file:
        notes = file.metadata()
    reading.save_file(read, tmp_path / "b.safetensors", notes)
    assert everything(mf.load(tmp_path / "b.safetensors")) == everything(model)


@pytest.mark.peers
def test_pytorch_reads_safetensors(tmp_path):
    torch = pytest.importorskip("safetensors.torch")
    mf.save(tmp_path / "a.safetensors", nn.Dense(3, 2, rng=0))
    read = torch.load_file(tmp_path / "a.safetensors")
    assert np.array_equal(read["weight"].numpy(), nn.Dense(3, 2, rng=0).weight.numpy())


ODD = [
    np.zeros((0, 3)), np.float32(2.5) * np.ones(()), np.arange(6).reshape(2, 3).T, np.ones(5)[::2], np.array([True, False]),
    np.arange(3, dtype=">i4"), np.arange(4, dtype=np.uint8), np.array([np.nan, -0.0, np.inf]), np.float16([1, 2]),
]  # fmt: skip


@pytest.mark.parametrize("ending", FORMATS)
def test_arrays_of_all_kinds_come_back(tmp_path, ending):
    arrays = {f"{'größe/' * (k % 2)}{k}": array for k, array in enumerate(ODD)}
    container.write(tmp_path / f"a.{ending}", arrays, {})
    with container.opened(tmp_path / f"a.{ending}", "reading") as contents:
        for name, array in arrays.items():
            read = contents.array(name)
            assert read.shape == array.shape and read.dtype == array.dtype.newbyteorder("<")
            assert read.tobytes() == array.astype(read.dtype).tobytes()


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([None]), np.ones(2, complex), np.ones(2, np.longdouble)])
def test_arrays_that_files_cannot_hold(tmp_path, array):
    with pytest.raises(CheckpointError, match="'a' to be of a dtype among"):
        container.write(tmp_path / "a.npz", {"a": array}, {})


def test_a_name_that_means_something_else(tmp_path):
    with pytest.raises(CheckpointError, match="__metadata__"):
        container.write(tmp_path / "a.safetensors", {"__metadata__": np.ones(2)}, {})


VALUES = [
    None, True, 3, -(2**100), 2.5, -0.0, 1e-320, float("inf"), float("-inf"), "text", "größe \ud800", [], (), {},
    (1, [2, (3,)]), {"a": {"b": [1.5]}}, {3: "x", "$y": 1, (1, 2): None}, {"$array": "x"}, np.float32(1.1), np.int64(3),
    np.arange(3), {"deep": [{"er": np.ones((2, 2))}]},
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_values_come_back(value):
    arrays = {}
    text = json.dumps(tree.pack(value, "x", arrays), allow_nan=False)
    again = tree.unpack(json.loads(text), arrays.__getitem__)
    assert repr(again) == repr(value)
    assert type(again) is type(value)


def test_nan_comes_back():
    assert np.isnan(tree.unpack(json.loads(json.dumps(tree.pack(float("nan"), "x", {}))), None))


@pytest.mark.parametrize("value", [
    {"$array": 3}, {"$scalar": [1]}, {"$tuple": 3}, {"$tuple": {"a": 1}}, {"$float": "1.5"}, {"$float": []}, {"$dict": [[1]]},
    {"$dict": [[[], 1]]}, {"$dict": [1]}, {"$other": 1}, {"$tuple": [], "a": 1}, {"a": 1, "$tuple": []}, {"$scalar": "x"},
])  # fmt: skip
def test_values_that_pack_never_makes_are_refused(value):
    with pytest.raises(FormatError):
        tree.unpack(value, lambda name: np.ones(2))


@pytest.mark.slow
def test_a_file_takes_no_more_memory_than_it_has_to(tmp_path):
    """Peak memory is at most twice the file and 16 MiB: layers are made without drawing their weights."""
    sizes = nn.Sequential(nn.LSTM(600, 600, rng=0), nn.LayerNorm(600), nn.Dense(600, 4000, rng=0))
    for ending in FORMATS:
        path = tmp_path / f"a.{ending}"
        mf.save(path, sizes)
        code = (
            "import sys, resource; import microfw as mf, numpy as np\n"
            "mf.save(sys.argv[1] + '.small.npz', mf.nn.Dropout(0.5)); mf.load(sys.argv[1] + '.small.npz')\n"
            "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "model = mf.load(sys.argv[1])\n"
            "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
        )
        command = [sys.executable, "-c", code, str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        assert int(done.stdout) * 1024 < 2 * path.stat().st_size + (16 << 20), done.stdout + done.stderr


def test_settings_that_were_added_to_a_layer_are_in_files_only_if_they_are_used(path):
    """Files of version 0.1 do not have them, and are still read."""
    for kind in (nn.RNN, nn.GRU, nn.LSTM):
        layer = kind(3, 4, rng=0)
        layers = architecture.describe(layer, {})
        first = {"in_features": 3, "hidden": 4, "bias": True} | ({"nonlinearity": "tanh"} if kind is nn.RNN else {})
        assert layers["$module"]["settings"] == first
        again = architecture.build(layers, {}, 10_000)
        assert (again.num_layers, again.bidirectional, again.dropout) == (1, False, None)
    layer = nn.LSTM(3, 4, num_layers=2, bidirectional=True, dropout=0.25, rng=0)
    mf.save(path, layer)
    assert everything(mf.load(path)) == everything(layer)
    layers["$module"]["settings"]["layers"] = 2
    with pytest.raises(FormatError, match="the settings in_features, hidden, bias, num_layers, bidirectional, dropout"):
        architecture.build(layers, {}, 10_000)


def test_models_that_were_loaded_train_on(path):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 3)), rng.integers(0, 2, 40)
    model = nn.Sequential(
        nn.Dense(3, 8, rng=0), nn.BatchNorm1D(8), nn.ReLU(), nn.Dropout(0.5, rng=0), nn.Dense(8, 2, rng=1)
    )
    mf.save(path, model)
    ends = []
    for one in (model, mf.load(path), copy.deepcopy(mf.load(path))):
        trainer = mf.Trainer(one, nn.CrossEntropyLoss(), mf.optim.SGD(one.parameters(), lr=0.1, momentum=0.9))
        trainer.fit((X, y), 3, 8, rng=0, progress=False)
        ends.append([v.tobytes() for v in one.state_dict().values()])
    assert ends[0] == ends[1] == ends[2]


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self):
        self.a = nn.Dense(16, 16, rng=0)
        self.b = nn.Dense(16, 16, rng=1)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.b(self.a(x))


class Dropped(nn.Module):
    """A constructor that makes a layer and drops it."""

    def __init__(self):
        self.a = nn.Dense(50, 50, rng=0)
        self.a = nn.Dense(4, 4, rng=0)

    def forward(self, x):
        return self.a(x)


@pytest.mark.parametrize("kind", [Tied, Dropped])
def test_what_can_be_saved_can_be_loaded(kind, tmp_path):
    model = kind()
    mf.save(tmp_path / "a.npz", model)
    again = mf.load(tmp_path / "a.npz", classes=[kind])
    x = np.ones((2, model.a.in_features), np.float32)
    np.testing.assert_array_equal(again(x).numpy(), model(x).numpy())
    assert len(again.parameters()) == len(model.parameters())


def test_loading_refuses_arrays_much_larger_than_the_file(tmp_path, monkeypatch):
    mf.save(tmp_path / "a.npz", Dropped())
    with monkeypatch.context() as patch:
        patch.setattr(nn.Dense, "__init__", nn.Dense.__init__)

        class Large(Dropped):
            def __init__(self):
                super().__init__()
                self.a = nn.Dense(2000, 2000, rng=0)
                self.a = nn.Dense(4, 4, rng=0)

        with pytest.raises(CheckpointError, match="shapes that fit the limit"):
            mf.load(tmp_path / "a.npz", classes={"Dropped": Large})


def test_modules_are_nested_as_deeply_as_can_be_loaded(tmp_path):
    model = nn.Dense(2, 2, rng=0)
    for _ in range(99):
        model = nn.Sequential(model)
    mf.save(tmp_path / "a.npz", model)
    x = np.ones((1, 2), np.float32)
    np.testing.assert_array_equal(mf.load(tmp_path / "a.npz")(x).numpy(), model(x).numpy())
    with pytest.raises(CheckpointError, match="at most 100 modules inside of each other, got more; join them"):
        mf.save(tmp_path / "b.npz", nn.Sequential(model))
    assert not (tmp_path / "b.npz").exists()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda m: mf.save(m, "m.npz"),
            r"mf.save: expected the path of a file, got Dense; call mf.save\(path, model\)",
        ),
        (lambda m: mf.load(m), r"loading: expected the path of a file, got Dense; call mf.load\(path\)"),
        (lambda m: mf.save("m.npz", "n.npz"), r"expected a Module, got str; call mf.save\(path, model\)"),
    ],
)
def test_swapped_arguments_are_named(call, text):
    with pytest.raises(CheckpointError, match=text):
        call(nn.Dense(4, 3))


class OwnDense(nn.Dense):
    def forward(self, x):
        return super().forward(x) * 2.0


class OwnSequential(nn.Sequential):
    pass


def test_a_subclass_that_inherits_the_constructor_of_a_layer_is_saved(tmp_path):
    model = OwnSequential(OwnDense(3, 2, rng=0), nn.ReLU(), OwnDense(2, 2, bias=False, rng=1))
    mf.save(tmp_path / "model.npz", model)
    loaded = mf.load(tmp_path / "model.npz", classes=[OwnDense, OwnSequential])
    assert [type(m) for _, m in loaded.named_modules()] == [type(m) for _, m in model.named_modules()]
    x = np.ones((1, 3), np.float32)
    np.testing.assert_array_equal(loaded(x).data, model(x).data)


def test_a_layer_with_a_forward_of_its_own_is_not_saved(tmp_path):
    model = nn.Sequential(nn.Dense(2, 2, rng=0))
    model[0].forward = lambda x: x
    with pytest.raises(
        CheckpointError, match="expected Dense with the forward of its class, got one that was assigned"
    ):
        mf.save(tmp_path / "model.npz", model)
    assert not list(tmp_path.iterdir())
