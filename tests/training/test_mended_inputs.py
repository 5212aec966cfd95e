"""Inputs that were answered wrongly, or with a bare error, before."""

import subprocess
import sys

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import ArgumentError, CheckpointError, DataError
from microfw.training import Checkpoint, EarlyStopping
from microfw.training.history import History

X = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
Y = np.arange(20) % 3


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


class TestFiles:
    @pytest.mark.parametrize("kind", [Tied, Dropped])
    def test_what_can_be_saved_can_be_loaded(self, kind, tmp_path):
        model = kind()
        mf.save(tmp_path / "a.npz", model)
        again = mf.load(tmp_path / "a.npz", classes=[kind])
        x = np.ones((2, model.a.in_features), np.float32)
        np.testing.assert_array_equal(again(x).numpy(), model(x).numpy())
        assert len(again.parameters()) == len(model.parameters())

    def test_a_file_makes_little_more_than_itself(self, tmp_path, monkeypatch):
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

    def test_modules_are_nested_as_deeply_as_can_be_loaded(self, tmp_path):
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
    def test_swapped_arguments_are_named(self, call, text):
        with pytest.raises(CheckpointError, match=text):
            call(nn.Dense(4, 3))


class TestHistory:
    history = History([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "extra": 1.0}])

    def test_a_column_has_none_where_a_row_lacks_it(self):
        assert self.history.column("extra") == [None, 1.0]
        with pytest.raises(ArgumentError, match="expected one of epoch, loss, extra, got 'other'"):
            self.history.column("other")

    def test_it_is_shown_and_drawn(self):
        assert str(self.history).splitlines() == [
            "epoch    loss   extra",
            "    1  0.5000",
            "    2  0.2500  1.0000",
        ]
        frame = pytest.importorskip("pandas") and self.history.to_frame()
        assert np.isnan(frame["extra"][1]) and frame["extra"][2] == 1
        pytest.importorskip("matplotlib").use("Agg")
        assert np.isnan(self.history.plot("extra").lines[0].get_ydata()[0])


class Stop(mf.Hook):
    """Ends training after an epoch."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self, state):
        state.stop = state.epoch == self.epoch


def trainer(*hooks):
    model = nn.Dense(4, 3, rng=0)
    return mf.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), hooks=hooks)


class TestResumeOfAStoppedRun:
    def run(self, path, *hooks, epochs=5):
        checkpoint = Checkpoint(path)
        trainer(*hooks, checkpoint).fit((X, Y), epochs=epochs, batch_size=5, rng=0, progress=False)

    def test_the_error_names_what_stopped_it(self, tmp_path):
        self.run(tmp_path / "c.npz", Stop(2))
        t = trainer()
        before = t.model.weight.data.copy()
        text = r"ended after epoch 2 with state.stop, and epochs=5; pass epochs above 5 to continue"
        with pytest.raises(CheckpointError, match=text):
            t.fit((X, Y), epochs=5, batch_size=5, resume=tmp_path / "c.npz", progress=False)
        np.testing.assert_array_equal(t.model.weight.data, before)

    def test_more_epochs_go_on(self, tmp_path):
        self.run(tmp_path / "c.npz", Stop(2))
        t = trainer()
        history = t.fit((X, Y), epochs=6, batch_size=5, resume=tmp_path / "c.npz", progress=False)
        assert history.column("epoch") == [1, 2, 3, 4, 5, 6]
        whole = trainer()
        whole.fit((X, Y), epochs=6, batch_size=5, rng=0, progress=False)
        np.testing.assert_array_equal(t.model.weight.data, whole.model.weight.data)

    def test_early_stopping_too(self, tmp_path):
        stopping = EarlyStopping("loss", patience=0, min_delta=10.0, restore=False)
        self.run(tmp_path / "c.npz", stopping)
        again = EarlyStopping("loss", patience=0, min_delta=10.0, restore=False)
        with pytest.raises(CheckpointError, match="state.stop"):
            trainer(again).fit((X, Y), epochs=5, batch_size=5, resume=tmp_path / "c.npz", progress=False)

    def test_a_run_that_ended_goes_on_as_before(self, tmp_path):
        self.run(tmp_path / "c.npz", epochs=3)
        history = trainer().fit((X, Y), epochs=5, batch_size=5, resume=tmp_path / "c.npz", progress=False)
        assert len(history) == 5


class TestInitializers:
    def test_a_group_has_fans_of_its_own(self):
        fans = nn.initializers.fans
        assert fans((64, 1, 3, 3), groups=64) == (9, 9) and fans((8, 2, 5), groups=4) == (10, 10)
        for layer in (nn.Conv2D(64, 64, 3, groups=64, rng=0), nn.Conv1D(256, 256, 9, groups=256, rng=0)):
            assert layer.weight.data.std() == pytest.approx(1 / 3, rel=0.1)

    def test_an_initializer_of_ones_own_need_not_know_groups(self):
        layer = nn.Conv2D(4, 4, 3, groups=2, init=lambda shape, rng: np.ones(shape))
        assert (layer.weight.data == 1).all()

    @pytest.mark.parametrize("make", [
        lambda init: nn.Dense(3, 2, init=init), lambda init: nn.Conv2D(1, 2, 3, init=init),
        lambda init: nn.Conv1D(1, 2, 3, init=init), lambda init: nn.Embedding(3, 2, init=init),
    ])  # fmt: skip
    def test_names(self, make):
        make("he_normal")
        for init in ("no_such", 3, None):
            with pytest.raises(
                ArgumentError, match=r"init to be a function of a shape and rng, or one of glorot_normal"
            ):
                make(init)


class TestNames:
    @pytest.mark.parametrize(
        ("get", "text"),
        [
            (lambda: nn.Linear, r"'Linear'; here it is nn\.Dense"),
            (lambda: nn.BatchNorm1d, r"here it is nn\.BatchNorm1D"),
            (lambda: nn.Conv3d, r"there is none here; did you mean 'Conv[12]D'\?"),
            (lambda: nn.Densse, r"did you mean 'Dense'\?"),
            (lambda: optim.NAdam, r"there is none here; did you mean 'Adam"),
            (lambda: optim.lr_scheduler, r"here it is optim\.schedules"),
            (lambda: mf.from_numpy, r"here it is mf\.tensor"),
            (lambda: nn.qqqqqq, r"there is none here$"),
        ],
    )
    def test_an_error_says_what_it_is_called_here(self, get, text):
        with pytest.raises(AttributeError, match=text):
            get()

    def test_other_ways_to_ask_stay_silent(self):
        assert not hasattr(nn, "Linear") and not hasattr(optim, "__wrapped__")
        assert getattr(nn, "Linear", None) is None
        with pytest.raises(ImportError):
            exec("from microfw.nn import Linear")

    def test_a_miss_imports_nothing_when_python_asks(self):
        code = "import sys, microfw as mf; hasattr(mf.nn, '__wrapped__'); print('microfw._other_names' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"


def test_one_large_label_is_refused_before_memory_is_taken():
    with pytest.raises(DataError, match=r"labels below 1,000,000, got 4294967296; number the classes with np.unique"):
        mf.data.Dataset(np.ones((3, 2)), [0, 1, 2**32])
