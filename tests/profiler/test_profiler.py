"""The profiler: what it counts, that times add up, that it attaches and detaches cleanly, what it prints."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.autograd.mode import MODE, PLAIN
from microfw.autograd.registry import OPS
from microfw.errors import ArgumentError, DataError, GraphError
from microfw.profiler import Epoch, Layer, Row, Session, report
from microfw.profiler.recorder import recorder
from microfw.profiler.recorder.log import Log
from microfw.profiler.reports.text import NO_EPOCH
from microfw.profiler.row import COUNTS
from microfw.profiler.session import merged

RNG = np.random.default_rng(0)
X = RNG.random((64, 12)).astype(np.float32)
Y = RNG.integers(0, 4, 64)


class Residual(nn.Module):
    def __init__(self):
        self.inner = nn.Dense(8, 8, rng=1)

    def forward(self, x):
        return x + nn.ReLU()(self.inner(x))


class Shared(nn.Module):
    def __init__(self):
        self.layer = nn.Dense(12, 12, rng=0)
        self.head = nn.Dense(12, 4, rng=1)

    def forward(self, x):
        return self.head(self.layer(self.layer(x)))


def models():
    return {
        "plain": nn.Sequential(nn.Dense(12, 8, rng=0), nn.ReLU(), nn.Dense(8, 4, rng=1)),
        "deep": nn.Sequential(
            nn.Dense(12, 8, rng=0), *[nn.Sequential(nn.Dense(8, 8, rng=k), nn.Tanh()) for k in range(6)], nn.Dense(8, 4)
        ),
        "residual": nn.Sequential(nn.Dense(12, 8, rng=0), Residual(), Residual(), nn.Dense(8, 4, rng=1)),
        "shared": Shared(),
        "dropout": nn.Sequential(nn.Dense(12, 8, rng=0), nn.Dropout(0.5, rng=0), nn.Dense(8, 4, rng=1)),
    }


def run(model, profiler, epochs=2, batch_size=20):
    optimizer = optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    loss_function = nn.CrossEntropyLoss()
    with profiler:
        for epoch in range(epochs):
            for x, y in mf.data.batches((X, Y), batch_size, rng=epoch):
                optimizer.zero_grad()
                loss_function(model(x), y).backward()
                optimizer.step()
            profiler.end_epoch()
    return profiler.session


@pytest.mark.parametrize("name", models())
@pytest.mark.parametrize("every", [1, 3])
def test_times_are_conserved_and_each_node_is_visited_once(name, every):
    model = models()[name]
    session = run(model, mf.Profiler(model, every=every))
    assert [e.epoch for e in session.epochs] == [1, 2]
    for epoch in session.epochs:
        total = epoch.sum()
        assert epoch.steps == 4
        assert epoch.observed == 4 if every == 1 else 1 <= epoch.observed < 4
        assert epoch.untagged_forward_ns >= 0
        assert epoch.untagged_backward_ns >= 0
        assert sum(row.backward_ns for row in epoch.layers()) + epoch.untagged_backward_ns == epoch.backward_ns
        assert sum(row.forward_ns for row in epoch.layers()) + epoch.untagged_forward_ns == epoch.forward_ns
        assert all(type(getattr(row, f)) is int and getattr(row, f) >= 0 for row in epoch.rows for f in COUNTS)
        assert total.rules == total.nodes > 0
        assert epoch.parameters == sum(p.size for p in model.parameters())
        assert epoch.forward_ns + epoch.backward_ns + epoch.update_ns + epoch.data_ns <= epoch.total_ns
    whole = session.total()
    for name_ in COUNTS:
        assert getattr(whole.sum(), name_) == sum(getattr(e.sum(), name_) for e in session.epochs)


def test_layers_carry_the_users_names_in_order():
    model = models()["residual"]
    epoch = run(model, mf.Profiler(model)).epochs[0]
    assert [row.layer for row in epoch.layers()] == [
        "0", "1.inner", "1.ReLU", "1", "2.inner", "2.ReLU", "2", "3", "CrossEntropyLoss",
    ]  # fmt: skip


def test_matrix_products_are_three_forwards_less_the_first():
    model = models()["plain"]
    epoch = run(model, mf.Profiler(model), epochs=1, batch_size=64).epochs[0]
    first, second = 2 * 64 * 12 * 8, 2 * 64 * 8 * 4
    total = epoch.sum()
    assert total.products_forward == first + second
    assert total.products_forward + total.products_backward == 3 * (first + second) - first


def test_freezing_a_layer_lowers_parameters_edges_and_operations_as_predicted():
    free, frozen = models()["plain"], models()["plain"]
    frozen[0].requires_grad_(False)
    a = run(free, mf.Profiler(free), 1, 64).epochs[0]
    b = run(frozen, mf.Profiler(frozen), 1, 64).epochs[0]
    assert a.parameters - b.parameters == 12 * 8 + 8
    # Gone: the first layer's weight and bias, and the way down to it through ReLU and the second layer's data.
    assert a.sum().edges - b.sum().edges == 4
    assert a.sum().products_backward - b.sum().products_backward == 2 * 64 * 12 * 8 + 2 * 64 * 8 * 4
    assert b.sum().nodes == 2
    assert b.sum().rules == 2


def test_diamond_calls_two_rules():
    a = mf.tensor(1.0, requires_grad=True)
    optimizer = optim.SGD([a], lr=0.1)
    with mf.Profiler() as profiler:
        b = a + a
        c = b + b
        c.backward()
        optimizer.step()
    epoch = profiler.session.epochs[0]
    assert a.grad == 4
    assert (epoch.sum().nodes, epoch.sum().rules, epoch.sum().edges, epoch.sum().accumulated) == (2, 2, 4, 2)
    assert epoch.layers()[0].layer == ""
    assert epoch.forward_ns >= epoch.sum().forward_ns > 0  # from the first op to the backward pass


def test_saved_bytes_count_each_array_once_and_no_parameter():
    model = models()["plain"]
    epoch = run(model, mf.Profiler(model), 1, 64).epochs[0]
    saved = {row.layer: row.saved_bytes for row in epoch.layers()}
    assert saved["0"] == 64 * 12 * 4  # the data, for the weight's gradient
    assert saved["1"] == 64 * 8 * 4  # the output, which the next layer shares
    assert saved["2"] == 0


def test_evaluation_is_counted_apart_from_training():
    model = models()["plain"]
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with mf.Profiler(model) as profiler:
        nn.CrossEntropyLoss()(model(X), Y).backward()
        optimizer.step()
        with mf.no_grad():
            model(X)
    epoch = profiler.session.epochs[0]
    assert epoch.evaluation_ns > 0
    assert epoch.sum().nodes == 4


def test_gradient_accumulation_counts_every_backward():
    model = models()["plain"]
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    with mf.Profiler(model) as profiler:
        for part in (slice(0, 32), slice(32, 64)):
            nn.CrossEntropyLoss()(model(X[part]), Y[part]).backward()
        optimizer.step()
    epoch = profiler.session.epochs[0]
    assert (epoch.steps, epoch.sum().rules, epoch.sum().nodes) == (1, 8, 8)


def test_detached_also_when_the_loop_raises():
    before = MODE.get()
    profiler = mf.Profiler(models()["plain"])
    with pytest.raises(ZeroDivisionError), profiler:
        raise ZeroDivisionError
    assert MODE.get() is before is PLAIN
    with pytest.raises(GraphError, match="inside `with profiler:`"):
        profiler.end_epoch()
    with profiler, pytest.raises(GraphError, match="attached already"):
        profiler._attach()


@pytest.mark.usefixtures("measured_overhead")
def test_as_a_hook_it_takes_the_trainers_model_and_metrics():
    train = mf.data.Dataset(X, Y)
    model = models()["plain"]
    profiler = mf.Profiler(name="toy")
    trainer = mf.Trainer(
        model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), metrics=["accuracy"], hooks=[profiler]
    )
    trainer.fit(train, epochs=3, batch_size=32, validation=train, rng=0, progress=False)
    session = profiler.session
    assert [e.steps for e in session.epochs] == [2, 2, 2]
    assert "val_accuracy" in session.epochs[-1].metrics
    assert [layer.name for layer in session.layers] == ["Sequential", "0", "1", "2"]
    assert sum(layer.parameters for layer in session.layers) == 12 * 8 + 8 + 8 * 4 + 4
    assert MODE.get() is PLAIN
    assert 0 <= session.overhead["share"] < 100  # of six steps; a busy machine makes it any share


def test_metrics_may_be_any_finite_numbers():
    class Own(mf.Hook):
        def on_epoch_end(self, state):
            state.history[-1].update(f1=np.float32(0.5), errors=3, right=np.int64(2), best=True, worst=np.nan, kind="a")

    model, profiler = models()["plain"], mf.Profiler()
    hooks = [Own(), profiler]
    trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), hooks=hooks)
    trainer.fit((X, Y), epochs=1, rng=0, progress=False)
    found = profiler.session.epochs[0].metrics
    own = ("f1", "errors", "right", "best", "worst", "kind")
    assert {name: found[name] for name in own if name in found} == {"f1": 0.5, "errors": 3, "right": 2}
    assert "epoch" not in found and all(type(value) is float for value in found.values())


def test_memory_is_bounded_where_every_step_is_another():
    model = models()["plain"]
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    profiler = mf.Profiler(model)
    with profiler:
        for n in range(1, recorder.MAX_GRAPHS + 40):
            rows = np.resize(X, (n, 12))
            optimizer.zero_grad()
            nn.CrossEntropyLoss()(model(rows), np.resize(Y, n)).backward()
            optimizer.step()
        assert profiler._recorder is not None
        assert 0 < len(profiler._recorder.graphs) <= recorder.MAX_GRAPHS
        assert len(profiler._recorder.sequences.all) <= 4 * recorder.MAX_GRAPHS
    total = profiler.session.epochs[0].sum()
    assert total.nodes == total.rules == 4 * (recorder.MAX_GRAPHS + 39)


def test_few_epochs_wait_to_be_read(monkeypatch):
    monkeypatch.setattr("microfw.profiler.profiler.MAX_LOGS", 2)
    model, profiler = models()["plain"], mf.Profiler()
    trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), hooks=[profiler])
    history = trainer.fit((X, Y), 7, 20, rng=0, progress=False)
    assert len(profiler._logs) <= 2
    assert [(e.epoch, e.loss) for e in profiler.session.epochs] == [(row["epoch"], row["loss"]) for row in history]


def test_ops_without_a_declared_cost_are_reported():
    @mf.op(vjp=lambda g, x: 3 * x**2 * g, name="cube_without_cost")
    def cube(x):
        return x**3

    try:
        p = mf.tensor([1.0, 2.0], requires_grad=True)
        optimizer = optim.SGD([p], lr=0.1)
        with mf.Profiler() as profiler:
            cube(p).sum().backward()
            optimizer.step()
        assert "1 calls of ops without a declared cost" in profiler.report(full=True)
    finally:
        del OPS["cube_without_cost"]


@pytest.mark.parametrize("every", [0, -1, 1.5, "2"])
def test_every_must_be_a_positive_integer(every):
    with pytest.raises(ArgumentError, match="Profiler: expected every to be a positive integer"):
        mf.Profiler(every=every)


def test_json_round_trip(tmp_path):
    model = models()["deep"]
    profiler = mf.Profiler(model, name='a "name" </script>')
    run(model, profiler)
    path = tmp_path / "run.profile.json"
    profiler.save(path)
    assert Session.load(path) == profiler.session
    assert json.loads(path.read_text())["version"] == 5
    assert report(Session.load(path)) == profiler.report()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "expected JSON, got .*; was the file cut short?"),
        ("[]", "expected a profile saved by microfw, got other JSON"),
        ('{"epochs": [], "version": 2}', "expected version 5, got 2; read it with the microfw that wrote it"),
        ('{"epochs": [], "version": 99}', "expected version 5, got 99"),
        (
            '{"epochs": [{"epoch": 1, "rows": [{"layer": "0", "nodes": -1}]}], "layers": [], "version": 5}',
            "nodes is -1",
        ),
        ('{"epochs": [{"epoch": 1, "rows": [], "what": 1}], "layers": [], "version": 5}', "got an entry that is wrong"),
    ],
)
def test_bad_files_are_refused_in_one_line(tmp_path, text, says):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(DataError, match=says) as caught:
        Session.load(path)
    assert "\n" not in str(caught.value)


def fixed_session():
    def epoch(number):
        rows = [
            Row(
                "0",
                "linear",
                10,
                20,
                10,
                20,
                1_000_000,
                900_000,
                990_000,
                890_000,
                40_960,
                120_000,
                200_000,
                0,
                1_090_000,
                990_000,
            ),
            Row("1", "relu", 10, 10, 10, 0, 20_000, 40_000, 0, 0, 81_920, 30_000, 50_000),
            Row("MSELoss", "mean", 10, 10, 10, 0, 100, 100, 0, 0, 0, 10_000, 20_000),
        ]
        return Epoch(
            number, 10, 10, 0.5 / number, {"val_r2": 0.75}, 330, 2, 200_000, 300_000, 70_000, 50_000, 0, 700_000,
            rows,
        )  # fmt: skip

    return Session(
        name="toy",
        model="Sequential",
        layers=[Layer("Sequential", "Sequential"), Layer("0", "Dense", 330, 330, 320), Layer("1", "ReLU")],
        epochs=[epoch(1), epoch(2)],
        environment={"python": "3.11.7", "numpy": "2.0.0", "machine": "x86_64", "system": "Linux", "blas_threads": "1"},
        overhead={"ns_per_node": 500.0, "share": 0.05},
    )


EPOCHS = """\
Epochs
epoch  steps    loss  val_r2  forward  backward  update  data  total  backward  /forward   3F - F1
--------------------------------------------------------------------------------------------------
                                   ms        ms      ms    ms     ms   in time   in FLOP  products
1         10  0.5000  0.7500     0.20      0.30    0.07  0.05   0.70      1.50      0.92     equal
2         10  0.2500  0.7500     0.20      0.30    0.07  0.05   0.70      1.50      0.92     equal
"""


def test_the_report_of_a_fixed_session():
    text = report(fixed_session(), full=True)
    assert text.startswith("microfw profile: toy Sequential, 2 epochs, 20 steps, 330 parameters\n\nCounts\n")
    assert EPOCHS in text
    assert max(map(len, text.splitlines())) <= 100
    layers = text[text.index("\nLayers") :].split("\n\n")[0]
    rows = {line.split("  ")[0]: line.split() for line in layers.splitlines()}
    assert rows["0 Dense"][2:] == ["1", "330", "12.0", "20.0", "66.7%", "100k", "90k", "576", "155", "4.1k"]
    assert rows["untagged"][-3:] == ["4.0", "3.0", "10.0%"]
    assert rows["total"][1:6] == ["3", "330", "20.0", "30.0", "100.0%"]
    words = " ".join(text.split())
    assert "Matrix products in 20 steps: F = 1,980,000 operations forward, 1,780,000 backward." in words
    assert "3F - F1 = 3,760,000, with F1 = 2,180,000 in ops whose data need no gradient. Counted:" in words
    assert "matrix products                 1.899  counted" in text
    assert "seconds                         2.500  measured" in text
    assert "Profiling made the steps 5.0% slower, estimated: 500 ns a node." in text
    assert "at most, if backward ran again for each parameter" in text


def test_a_report_of_one_epoch_and_of_none():
    session = fixed_session()
    assert "Layers, per step (epoch 2)" in report(session, epoch=2, full=True)
    assert "A step of epoch 2 " in report(session, epoch=2)
    with pytest.raises(ArgumentError, match="expected an epoch from 1 to 2, got 3"):
        report(session, epoch=3)
    with pytest.raises(ArgumentError, match="from 1 to 2, got '2'"):
        report(session, epoch="2")
    assert report(Session()) == f"microfw profile: {NO_EPOCH}"


def test_a_report_fits_whatever_the_names_and_numbers():
    session = fixed_session()
    for row in session.epochs[0].rows:
        row.layer = row.layer + "very.long.name." * 20 + "\x1b[31m\n"
        for name in COUNTS:
            setattr(row, name, getattr(row, name) * 10**5)
    for name in ("forward_ns", "backward_ns", "total_ns"):
        setattr(session.epochs[0], name, getattr(session.epochs[0], name) * 10**5)
    session.layers = []
    text = report(session)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100


def test_a_sampled_report_says_so():
    model = models()["plain"]
    profiler = mf.Profiler(model, every=3)
    run(model, profiler)
    assert "sampled: 3 of 8 steps" in " ".join(profiler.report().split())
    text = profiler.report(full=True)
    assert "sampled: 3 of 8 steps" in text
    assert "sampled on 3 of 8 steps" in text


def test_merging_conserves_sums():
    session = fixed_session()
    both = merged(session.epochs)
    assert both.backward_ns == 600_000
    assert both.sum().backward_ns == 540_000
    assert both.untagged_backward_ns == 60_000
    assert both.parameters == 330


def test_poolings_of_equal_shapes_and_other_kernels_cost_what_they_cost():
    x = mf.tensor(np.ones((1, 1, 6, 6), np.float32), requires_grad=True)

    def flops(*kernels):
        with mf.Profiler() as profiler:
            for kernel in kernels:
                pooled = mf.ops.pooling.avg_pool(x, kernel=kernel, stride=1, padding=kernel // 2)
                assert pooled.shape == x.shape
                pooled.sum().backward()
            profiler.end_epoch()
        return profiler.session.total().sum().flops_forward

    assert flops(1, 3, 1) == 2 * flops(1) + flops(3) > 3 * flops(1)


def test_derivative_functions_leave_the_backward_times_alone():
    """`mf.grad` walks outside of `backward`: its rules are in no row, and the remainder does not change."""
    model = models()["plain"]
    X, y = np.ones((20, 12), np.float32), np.arange(20) % 4
    optimizer, loss_fn = mf.optim.SGD(model.parameters(), lr=0.1), nn.CrossEntropyLoss()
    found = []
    for between in (lambda: None, lambda: mf.grad(lambda m: loss_fn(m(X), y))(model)):
        with mf.Profiler(model) as profiler:
            for _ in range(20):
                optimizer.zero_grad()
                between()
                loss_fn(model(X), y).backward()
                optimizer.step()
        epoch = profiler.session.epochs[0]
        assert epoch.untagged_backward_ns >= 0
        assert epoch.untagged_forward_ns >= 0
        found.append([(row.layer, row.op, row.nodes, row.rules, row.accumulated) for row in epoch.rows])
    assert found[0] == found[1]


def test_ctrl_c_within_a_report_loses_no_epoch(monkeypatch):
    model = nn.Dense(12, 4, rng=0)
    profiler = mf.Profiler()
    trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), hooks=[profiler])
    trainer.fit((X, Y), epochs=3, progress=False)
    add_graph = Log.add_graph
    monkeypatch.setattr(Log, "add_graph", lambda *args: (add_graph(*args), signal.raise_signal(signal.SIGINT)))
    with pytest.raises(KeyboardInterrupt):
        profiler.report()
    monkeypatch.undo()
    assert [(e.epoch, e.sum().nodes) for e in profiler.session.epochs] == [(1, 4), (2, 4), (3, 4)]


def test_one_profiler_at_a_time():
    model = models()["plain"]
    optimizer = mf.optim.SGD(model.parameters(), lr=0.1)
    first, second = mf.Profiler(), mf.Profiler()
    trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optimizer, hooks=[first, second])
    data = np.ones((20, 12), np.float32), np.arange(20) % 4
    with pytest.raises(GraphError, match="^Profiler: expected to be the only one attached, got another; use one at"):
        trainer.fit(data, epochs=1, progress=False)
    with mf.Profiler(model), pytest.raises(GraphError, match="only one attached"), mf.Profiler(model):
        pass
    with first:  # both have let go
        assert not second.session.epochs


def test_a_profilers_model_is_a_module():
    with pytest.raises(ArgumentError, match="^Profiler: expected a Module, or none, got int; pass the model$"):
        mf.Profiler(3)


def test_counts_of_replayed_steps_do_not_depend_on_how_many_there_are():
    rng = np.random.default_rng(0)
    for steps in (20, 300):
        layers = nn.Conv2D(1, 2, 3, rng=0), nn.ReLU(), nn.Flatten(), nn.Dense(32, 3, rng=0)
        model, profiler = nn.Sequential(*layers), mf.Profiler()
        optimizer = optim.SGD(model.parameters(), lr=0.01)
        trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optimizer, hooks=[profiler], compile=True)
        X, y = rng.normal(size=(8 * steps, 1, 6, 6)).astype(np.float32), rng.integers(0, 3, 8 * steps)
        trainer.fit((X, y), 2, 8, rng=0, progress=False)
        for epoch in profiler.session.epochs:
            assert sum(row.rules for row in epoch.rows) == sum(row.nodes for row in epoch.rows) == 5 * steps
        assert profiler.session.epochs[1].replayed == steps
