"""Training: batches that are too small for a layer, rows that are left out, and runs that a hook stops early."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.data.dataset import Rows
from microfw.errors import ArgumentError, CheckpointError, DataError
from microfw.estimators import NeuralClassifier, NeuralRegressor
from microfw.training import Checkpoint, EarlyStopping, Hook, LearningRate, WeightAveraging
from microfw.training.evaluation import as_data

rng = np.random.default_rng(0)


class Inside(nn.Module):
    """Batch norm in the middle of other modules, in a list and a dict."""

    def __init__(self):
        self.parts = [nn.Dense(3, 4, rng=0), {"norm": nn.Sequential(nn.Residual(nn.BatchNorm1D(4)))}]
        self.head = nn.Dense(4, 1, rng=1)

    def forward(self, x):
        return self.head(self.parts[1]["norm"](self.parts[0](x)))


class NeedsTwo(nn.Module):
    """A user's own layer that compares rows."""

    def forward(self, x):
        if self.training and len(x) < 2:
            raise ValueError("two rows, please")
        return x - x.mean(axis=0)


MODELS = {
    "batch norm": lambda: nn.Sequential(nn.BatchNorm1D(3), nn.Dense(3, 1, rng=0)),
    "nested": Inside,
    "own": lambda: nn.Sequential(NeedsTwo(), nn.Dense(3, 1, rng=0)),
}


def make(model, **options):
    net = model()
    return mf.Trainer(net, nn.MSELoss(), optim.SGD(net.parameters(), lr=0.01), **options)


def sizes(trainer, n, batch_size, **options):
    """Return the rows of the training batches of two epochs."""
    seen = []

    class Spy(nn.Module):
        def __init__(self, body):
            self.body = body

        def forward(self, x):
            made = self.body(x)
            if self.training and made.requires_grad:
                seen.append(len(x))
            return made

    trainer.model = Spy(trainer.model)
    X = np.random.default_rng(1).normal(size=(n, 3))
    trainer.fit((X, X[:, :1]), 2, batch_size, rng=0, progress=False, **options)
    return seen


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(
    ("n", "batch_size", "accumulate", "expected"),
    [
        (33, 32, 1, [33]),
        (65, 32, 1, [32, 33]),
        (34, 32, 1, [32, 2]),
        (64, 32, 1, [32, 32]),
        (33, 8, 4, [8, 8, 8, 9]),  # a step of one row joins the step before
        (21, 4, 2, [4, 4, 4, 4, 5]),  # as a batch of one row joins the batch before
        (25, 4, 3, [4, 4, 4, 4, 4, 5]),
        (3, 2, 1, [3]),
    ],
)
def test_a_last_row_joins_the_batch_before_where_a_layer_needs_two(name, n, batch_size, accumulate, expected, compile):
    trainer = make(MODELS[name], accumulate=accumulate, compile=False)
    assert sizes(trainer, n, batch_size) == expected * 2
    X = np.random.default_rng(1).normal(size=(n, 3))
    history = make(MODELS[name], accumulate=accumulate, compile=compile).fit((X, X[:, :1]), 4, batch_size, rng=0, progress=False)  # fmt: skip
    assert len(history) == 4


def test_a_last_row_is_a_batch_where_no_layer_needs_two():
    assert sizes(make(lambda: nn.Sequential(nn.LayerNorm(3), nn.Dense(3, 1))), 33, 32) == [32, 1] * 2
    images = nn.Sequential(nn.BatchNorm2D(1), nn.Flatten(), nn.Dense(4, 1, rng=0))
    X = rng.normal(size=(5, 1, 2, 2))
    trainer = mf.Trainer(images, nn.MSELoss(), optim.SGD(images.parameters(), lr=0.01))
    assert len(trainer.fit((X, X[:, 0, 0, :1]), 1, 1, progress=False)) == 1  # several values per channel and row


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("n", "batch_size", "accumulate", "text"), [
    (8, 1, 1, "^Trainer.fit: expected a batch_size of at least 2, got 1; a layer needs more than one row: "),
    (8, 1, 4, "^Trainer.fit: expected a batch_size of at least 2, got 1; a layer needs more than one row: "),
    (1, 32, 1, "^Trainer.fit: expected at least 2 rows, got 1; a layer needs more than one row: "),
])  # fmt: skip
def test_what_cannot_be_joined_is_refused_before_anything_trains(name, n, batch_size, accumulate, text):
    class Never(Hook):
        def on_fit_start(self, state):
            raise AssertionError

    trainer = make(MODELS[name], accumulate=accumulate, hooks=[Never()])
    before = {k: v.copy() for k, v in trainer.model.state_dict().items()}
    X = rng.normal(size=(n, 3))
    with pytest.raises((ArgumentError, DataError), match=text):
        trainer.fit((X, X[:, :1]), 1, batch_size, progress=False)
    for key, value in trainer.model.state_dict().items():
        np.testing.assert_array_equal(value, before[key])
    assert all(module.training for _, module in trainer.model.named_modules())


def test_trying_a_row_changes_nothing():
    net = nn.Sequential(nn.Dropout(0.5, rng=0), nn.BatchNorm1D(3), nn.Dense(3, 1, rng=0))
    trainer = mf.Trainer(net, nn.MSELoss(), optim.SGD(net.parameters(), lr=0.01))

    class Look(Hook):
        def on_fit_start(self, state):
            self.seen = net[0].rng.bit_generator.state, net[1].running_mean.data.copy()

    trainer.hooks = [look := Look()]
    X = rng.normal(size=(33, 3))
    trainer.fit((X, X[:, :1]), 1, progress=False)
    assert look.seen[0] == np.random.default_rng(0).bit_generator.state and not look.seen[1].any()


@pytest.mark.parametrize(("n", "batch_size", "accumulate", "expected"), [
    (33, 32, 1, [32]), (70, 32, 1, [32, 32]), (64, 32, 1, [32, 32]), (21, 4, 2, [4, 4, 4, 4]),
])  # fmt: skip
def test_drop_last_leaves_out_what_does_not_fill_a_step(n, batch_size, accumulate, expected):
    trainer = make(MODELS["batch norm"], accumulate=accumulate, compile=False, metrics=["r2"])
    assert sizes(trainer, n, batch_size, drop_last=True) == expected * 2


def test_drop_last_needs_a_step():
    with pytest.raises(DataError) as info:
        sizes(make(MODELS["own"], accumulate=2), 7, 4, drop_last=True)
    assert str(info.value) == (
        "Trainer.fit: expected the 8 rows of a step, got 7 rows with drop_last=True; use a smaller batch_size"
    )


@pytest.mark.parametrize("options", [{}, {"drop_last": True}])
@pytest.mark.parametrize("at", [1, 3, 4])
def test_a_run_with_such_batches_goes_on_bit_for_bit(options, at, tmp_path):
    X = rng.normal(size=(17, 3))  # four steps of four, and a row

    class Stop(Hook):
        def on_step_end(self, state):
            if state.steps == at:
                raise KeyboardInterrupt

    def clean(history):
        return [{k: v for k, v in row.items() if k != "seconds"} for row in history]

    def run(**more):
        trainer = make(MODELS["batch norm"], metrics=["r2"], hooks=more.pop("hooks", []))
        return trainer.fit((X, X[:, :1]), 3, 4, progress=False, **options, **more)

    whole = run(rng=0)
    path = tmp_path / "run.npz"
    with pytest.raises(KeyboardInterrupt):
        run(rng=0, hooks=[Checkpoint(path, every=1), Stop()])
    with pytest.raises(KeyboardInterrupt):
        run(rng=0, hooks=[Checkpoint(path, every=1), type("Late", (Stop,), {"last": True})()])
    assert clean(run(resume=path)) == clean(whole)
    if options:
        trainer = make(MODELS["batch norm"], metrics=["r2"])
        with pytest.raises(CheckpointError, match="expected steps of '4, drop_last' as it was saved, got 4"):
            trainer.fit((X, X[:, :1]), 3, 4, progress=False, resume=path)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
def test_rows_give_the_same_batches_dense_and_sparse(sparse, weighted):
    scipy = pytest.importorskip("scipy.sparse")
    X, y = rng.normal(size=(23, 3)), np.arange(23)
    weight = y / 2 if weighted else None
    rows = Rows(scipy.csr_array(X) if sparse else X, y, weight)
    for size, least, drop, skip in (
        (5, 1, False, 0),
        (11, 2, False, 0),
        (5, 1, True, 1),
        (4, 1, False, 2),
        (30, 1, False, 0),
    ):
        for order in (None, 3):
            draw = None if order is None else np.random.default_rng(order)
            at = np.arange(23) if order is None else np.random.default_rng(order).permutation(23)
            stop = 23 // size * size if drop else 23
            got = list(rows.batches(size, draw, min_rows=least, drop_last=drop, skip=skip))
            assert np.concatenate([b[1] for b in got]).tolist() == at[skip * size : stop].tolist()
            np.testing.assert_array_equal(np.concatenate([b[0] for b in got]), X[at[skip * size : stop]])
            assert all((b[2] is None) is not weighted and (not weighted or (b[2] == b[1] / 2).all()) for b in got)
            assert all(least <= len(b[1]) <= size + least - 1 for b in got)


@pytest.mark.parametrize("estimator", [NeuralClassifier, NeuralRegressor])
@pytest.mark.parametrize("kind", ["setting", "module"])
def test_estimators_follow_the_same_rule(estimator, kind):
    X, y = rng.normal(size=(41, 3)), np.arange(41) % 2

    def module(inputs, outputs, rng):
        return nn.Sequential(
            nn.Dense(inputs, 4, rng=rng), nn.Sequential(nn.BatchNorm1D(4)), nn.Dense(4, outputs, rng=rng)
        )

    options = {"norm": "batch"} if kind == "setting" else {"module": module}
    made = estimator(4, batch_size=20, max_iter=2, random_state=0, **options).fit(X, y)
    assert made.n_iter_ == 2
    assert made.partial_fit(X, y).n_iter_ == 3
    before = made.predict(X)
    with pytest.raises(DataError, match=rf"^{estimator.__name__}: expected at least 2 rows, got 1; a layer needs more"):
        made.partial_fit(X[:1], y[:1])
    np.testing.assert_array_equal(made.predict(X), before)
    with pytest.raises(
        ArgumentError, match=rf"^{estimator.__name__}: expected a batch_size of at least 2, got 1; a layer"
    ):
        estimator(4, batch_size=1, max_iter=2, **options).fit(X, y)


# A run that a hook stops


class Stop(Hook):
    """Stops at a moment of an epoch, and notes which moments came."""

    def __init__(self, moment, epoch):
        self.moment, self.epoch, self.log = moment, epoch, []

    def _come(self, name, state):
        self.log.append(name)
        if name == self.moment and state.epoch >= self.epoch:
            state.stop = True


for _name in (
    "on_fit_start",
    "on_epoch_start",
    "on_gradients",
    "on_step_end",
    "on_validation_start",
    "on_epoch_end",
    "on_fit_end",
):
    setattr(Stop, _name, lambda self, state, name=_name: self._come(name, state))


@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("epoch", [0, 1, 2])
@pytest.mark.parametrize(
    "moment",
    [
        "on_fit_start",
        "on_epoch_start",
        "on_gradients",
        "on_step_end",
        "on_validation_start",
        "on_epoch_end",
        "on_fit_end",
    ],
)
def test_a_hook_can_stop_at_any_moment(moment, epoch, compile, tmp_path):
    X = rng.normal(size=(20, 3))
    hooks = [
        stop := Stop(moment, epoch), mf.Profiler(), EarlyStopping("val_loss"), WeightAveraging(0.5),
        LearningRate(lambda step: 0.01), Checkpoint(tmp_path / "run.npz"),
    ]  # fmt: skip
    trainer = make(MODELS["batch norm"], hooks=hooks, clip_norm=1.0, metrics=["r2"], compile=compile)
    history = trainer.fit((X, X[:, :1]), 3, 5, validation=(X, X[:, :1]), rng=0)
    first = max(epoch, 1)
    rows = {"on_fit_start": 0 if epoch == 0 else 3, "on_epoch_start": first - 1, "on_fit_end": 3}.get(moment, first)
    assert len(history) == rows
    assert all(np.isfinite(value) for row in history for value in row.values())
    assert history.column("epoch") == list(range(1, rows + 1))
    assert stop.log.count("on_epoch_end") == rows and stop.log[-1] == "on_fit_end"
    if moment in ("on_gradients", "on_step_end"):
        assert stop.log.count("on_step_end") == 4 * (first - 1) + 1
    assert trainer._run.state.epoch == rows


def test_an_epoch_that_was_stopped_before_its_first_step_comes_again():
    X = rng.normal(size=(20, 3))

    def run(hooks, epochs):
        trainer = make(MODELS["batch norm"], hooks=hooks)
        generator = np.random.default_rng(0)
        trainer.fit((X, X[:, :1]), epochs, 5, rng=generator, progress=False)
        return generator.bit_generator.state, trainer.model[1].weight.data.tobytes()

    assert run([Stop("on_epoch_start", 3)], 5) == run([], 2)


@pytest.mark.parametrize("change", [lambda a: a, lambda a: pickle.loads(pickle.dumps(a)), np.asfortranarray])
def test_batches_of_any_layout_and_dtype_object_become_read_only_tensors_with_the_dtypes_of_numpy(change):
    for values in (np.arange(6.0).reshape(2, 3), np.arange(6).reshape(2, 3), np.array([True, False])):
        made = as_data(change(values))
        assert np.array_equal(made._array, values)
        assert made._array.dtype is values.dtype and not made._array.flags.writeable
        assert values.flags.writeable
