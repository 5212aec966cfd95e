"""Nested features and targets, weights, and models and losses that return several things."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import ArgumentError, DataError, DTypeError, NonFiniteError, ShapeError
from microfw.training import Hook
from tests.helpers.errors import raises
from tests.helpers.nested import (
    EPOCHS,
    ROWS,
    SIZE,
    TARGETS,
    TASKS,
    VAE,
    WEIGHT,
    A,
    B,
    TwoHeads,
    bits,
    build,
    elbo,
    fit,
    heads,
    loop,
    plain,
    rows,
)


class Losses(Hook):
    def __init__(self):
        self.losses = []

    def on_step_end(self, state):
        self.losses.append(state.loss)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("profiled", [False, True], ids=["", "profiled"])
def test_a_loop_the_trainer_and_replayed_steps_give_the_same_bits(task, profiled):
    model, losses = loop(task)
    for compiled in (False, True):
        log = Losses()
        trainer, train = build(task, compile=compiled, hooks=[log, *([mf.Profiler()] if profiled else [])])
        fit(trainer, train, rng=3)
        assert log.losses == losses and bits(trainer.model) == bits(model)
        if compiled:
            assert len(trainer._run.stepper.replay_policy.step.replays) == 2, (
                trainer._run.stepper.replay_policy.step.explain()
            )
        if profiled:
            session = trainer.hooks[1].session
            assert [epoch.steps for epoch in session.epochs] == [-(-ROWS // SIZE)] * EPOCHS
            counts = [(epoch.sum().nodes, epoch.sum().rules) for epoch in session.epochs]
            assert len(set(counts)) == 1 and counts[0][0] == counts[0][1] > 0


def test_history_metrics_and_predictions_are_named_by_head():
    trainer, train = build("two inputs, two heads", metrics={"label": ["accuracy"], "size": "r2"})
    history = fit(trainer, train, epochs=3, rng=0, validation=train)
    parts = ["loss", "loss/label", "loss/size", "accuracy/label", "r2/size"]
    assert list(history[-1])[:11] == ["epoch", *parts, *(f"val_{name}" for name in parts)]
    found = trainer.evaluate(train)
    assert found == {name: history[-1][f"val_{name}"] for name in parts}
    assert found["loss"] == pytest.approx(found["loss/label"] + found["loss/size"], rel=1e-6)
    outputs = trainer.predict(train[0], batch_size=7)
    assert {name: head.shape for name, head in outputs.items()} == {"label": (ROWS, 2), "size": (ROWS, 1)}
    assert found["accuracy/label"] == np.mean(outputs["label"].argmax(axis=1) == TARGETS["label"])
    assert found["loss/size"] == pytest.approx(np.mean((outputs["size"] - TARGETS["size"]) ** 2), rel=1e-6)


def test_one_metric_is_measured_for_each_head():
    model = VAE()
    both = mf.Trainer(
        model, lambda out, y: np.square(out[0] - y[0]).mean(), mf.optim.SGD(model.parameters(), lr=0.1), "r2"
    )
    found = both.evaluate((A, (A, A[:, :2])))
    assert list(found) == ["loss", "r2/0", "r2/1"]


def test_a_function_as_metric_gets_nested_outputs_without_a_common_head():
    def spread(y_true, y_pred):
        return float(np.std(y_pred[1]) + 0 * np.sum(y_true))

    trainer, train = build("a VAE", metrics=[spread])
    history = fit(trainer, train, epochs=2, rng=0, validation=train)
    assert history[-1]["val_spread"] == pytest.approx(np.std(trainer.predict(A)[1]), rel=1e-6)


def test_the_loss_of_an_epoch_is_the_mean_over_all_weights():
    trainer, train = build("one array, weights")
    trainer.optimizer.lr = 1e-30  # parameters stay
    trainer.model[2].p = 0.0
    row = fit(trainer, train, epochs=1, rng=0)[0]
    z = trainer.predict(A).astype(float)
    losses = np.log(np.exp(z).sum(axis=1)) - z[np.arange(ROWS), TARGETS["label"]]
    expected = (WEIGHT * losses).sum() / WEIGHT.sum()
    assert row["loss"] == pytest.approx(expected, rel=1e-5)
    assert trainer.evaluate(train)["loss"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["", "sample_weight"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_class_and_sample_weights_multiply(weight, accumulate):
    y = TARGETS["label"]
    by_row = np.where(y == 1, 3.0, 0.5) * (1 if weight is None else weight)
    given = (A, y) if weight is None else (A, y, weight)
    trainers = [build("one array, weights", accumulate=accumulate)[0] for _ in range(2)]
    first = fit(trainers[0], given, rng=0, class_weight={0: 0.5, 1: 3.0})
    second = fit(trainers[1], (A, y, by_row), rng=0)
    assert bits(trainers[0].model) == bits(trainers[1].model) and rows(first) == rows(second)


def test_balanced_classes_count_alike():
    y = (np.arange(ROWS) % 5 == 0).astype(int)
    trainer = build("one array, weights")[0]
    fit(trainer, (A, y), epochs=1, rng=0, class_weight="balanced")
    weight = trainer._run.train.y.weight
    assert weight[y == 0].sum() == pytest.approx(weight[y == 1].sum()) == pytest.approx(ROWS / 2)


@pytest.mark.parametrize("task", ["two inputs, two heads", "weights", "a VAE"])
def test_accumulated_parts_make_the_step_of_the_joined_batch(task):
    made = []
    for size, accumulate in ((10, 1), (5, 2)):
        trainer, train = build(task, accumulate=accumulate)
        for layer in (trainer.model.noise,):
            layer.p = 0.0
        history = trainer.fit(train, 3, size, progress=False, rng=0)
        made.append((np.concatenate([p.data.ravel() for p in trainer.model.parameters()]), history[-1]))
    np.testing.assert_allclose(made[0][0], made[1][0], rtol=1e-3, atol=1e-5)
    for name in made[0][1].keys() - {"seconds", "gradient_norm"}:
        assert made[0][1][name] == pytest.approx(made[1][1][name], rel=1e-4), name


class Whole(TwoHeads):
    """A model that takes all features as one argument."""

    def forward(self, features):
        a, b = features.values() if isinstance(features, dict) else features
        return super().forward(a, b)


@pytest.mark.parametrize("features", [(A, B), {"first": A, "second": B}], ids=["tuple", "dict"])
def test_features_are_one_argument_if_the_model_takes_one(features):
    model, _ = loop("two inputs, two heads")
    whole = Whole()
    trainer = mf.Trainer(whole, heads, mf.optim.AdamW(whole.parameters(), lr=0.02))
    fit(trainer, (features, TARGETS), rng=3)
    assert bits(whole) == bits(model)
    assert trainer.predict(features)["label"].shape == (ROWS, 2)


class Tagger(nn.Module):
    def __init__(self):
        self.table, self.head = nn.Embedding(9, 4, rng=0), nn.Dense(4, 9, rng=1)

    def forward(self, tokens):
        return self.head(self.table(tokens))


def by_token(logits, labels):
    return nn.CrossEntropyLoss()(logits.reshape((-1, 9)), labels.reshape((-1,)))


class Three(nn.Module):
    def __init__(self):
        self.body = nn.Dense(2, 3, rng=0)

    def forward(self, a, b, c=None):
        return self.body(a + b)


@pytest.mark.parametrize(
    ("features", "got"), [(lambda X: (X,) * 4, "4 inputs"), (lambda X: {"a": X, "c": X}, "a, c")], ids=["4", "a, c"]
)
def test_features_that_the_model_does_not_take_are_refused_by_their_names_or_number(features, got):
    X, model = np.ones((4, 2), np.float32), Three()
    trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1))
    for call in (lambda: trainer.fit((features(X), np.arange(4) % 3)), lambda: trainer.predict(features(X))):
        with pytest.raises(ArgumentError, match=f"^Three.forward: expected the inputs a, b, c, got {got}$"):
            call()


@pytest.mark.parametrize("compiled", [False, True])
def test_labels_of_sequences(compiled):
    tokens = np.random.default_rng(0).integers(0, 9, (40, 6))
    model = Tagger()
    trainer = mf.Trainer(model, by_token, mf.optim.Adam(model.parameters(), lr=0.1), "accuracy", compile=compiled)
    history = trainer.fit((tokens, (tokens * 2 + 1) % 9), epochs=30, rng=0, progress=False)
    assert history[-1]["loss"] < 0.1 and history[-1]["accuracy"] > 0.99
    assert trainer.predict(tokens).shape == (40, 6, 9)


def test_arrays_take_the_dtype_of_the_model():
    model = TwoHeads().astype(np.float64)
    seen = set()

    def loss(outputs, targets):
        seen.update((name, target.dtype.name) for name, target in targets.items())
        return heads(outputs, targets)

    trainer = mf.Trainer(model, loss, mf.optim.SGD(model.parameters(), lr=0.1))
    fit(trainer, ((A, B), TARGETS), epochs=1, rng=0)
    assert seen == {("label", "int64"), ("size", "float64")}
    assert trainer.predict((A, B))["size"].dtype == np.float64


def test_a_list_of_inputs_is_refused_as_one_table():
    model = nn.Dense(4, 1, rng=0)
    trainer = mf.Trainer(model, nn.MSELoss(), mf.optim.SGD(model.parameters(), lr=0.1))
    text = (
        "Dataset: expected X to be a full table, got a list of arrays of different shapes; "
        "give all rows the same length, or pass several inputs as a tuple"
    )
    for call in (
        trainer.predict,
        lambda X: trainer.fit((X, np.ones(3)), 1),
        lambda X: trainer.evaluate((X, np.ones(3))),
    ):
        with raises(ShapeError, text):
            call([np.ones((3, 4)), np.ones((3, 2))])


def test_a_transform_draws_from_the_generator_of_the_run():
    def noisy(X, y, rng):
        return X + rng.standard_normal(X.shape).astype("f4"), y

    trainer = build("one array, weights")[0]
    fit(trainer, (A, TARGETS["label"]), epochs=2, rng=3, transform=noisy)
    model, rng = plain(), np.random.default_rng(3)
    optimizer = mf.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(2):
        order = rng.permutation(ROWS)
        for k in range(0, ROWS, SIZE):
            batch = order[k : k + SIZE]
            X, y = noisy(A[batch], TARGETS["label"][batch], rng)
            optimizer.zero_grad()
            nn.CrossEntropyLoss()(model(X), y).backward()
            optimizer.step()
    assert bits(model) == bits(trainer.model)


def test_a_sampler_decides_the_rows_of_an_epoch():
    seen = []

    def loss(outputs, targets):
        seen.append(targets.numpy()[:, 0].astype(int).tolist())
        return np.square(outputs - targets).mean()

    model = nn.Sequential(nn.Dense(1, 1, rng=0))
    trainer = mf.Trainer(model, loss, mf.optim.SGD(model.parameters(), lr=1e-6), compile=False)
    X = np.arange(20.0)[:, None]
    options = {"epochs": 1, "batch_size": 4, "rng": 0, "progress": False}
    trainer.fit((X, X), **options, sampler=lambda n, rng: [3, 3, 19, 0, 7, 7])
    assert seen[-2:] == [[3, 3, 19, 0], [7, 7]]
    trainer.fit((X, X), **options, sampler=lambda n, rng: iter([3, 3, 19, 0, 7, 7]), drop_last=True)
    assert seen[-1] == [3, 3, 19, 0]
    with raises(DataError, "sampler(n, rng): expected numbers of rows from 0 to 19, got int64 of shape (2,): [ 0 20]"):
        trainer.fit((X, X), **options, sampler=lambda n, rng: np.array([0, 20]))


def test_rows_that_do_not_fill_a_step_are_left_out():
    trainer, train = build("two inputs, two heads")
    fit(trainer, train, epochs=1, rng=0, drop_last=True)
    assert trainer._run.state.step == ROWS // SIZE


def test_lbfgs_trains_on_nested_data():
    model = VAE()
    model.noise.p = 0.0
    trainer = mf.Trainer(model, elbo, mf.optim.LBFGS(model.parameters()))
    history = trainer.fit((A, A), epochs=5, batch_size=ROWS, rng=0, progress=False)
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["loss"] == pytest.approx(history[-1]["loss/recon"] + history[-1]["loss/kl"], rel=1e-5)


def test_a_loss_that_is_not_finite_names_the_op():
    trainer, _ = build("two inputs, two heads")
    trainer.model.size.weight.data *= 1e38
    before = bits(trainer.model)
    with pytest.raises(
        NonFiniteError, match=r"^Trainer.fit, epoch 1, step 1: expected a finite loss, got inf, first made"
    ):
        fit(trainer, ((A, B), TARGETS), rng=0)
    assert bits(trainer.model) == before


def one(outputs, targets):
    return np.square(outputs["size"] - targets).mean()


FAULTS = [
    ((((A, B[:3]), TARGETS),), {}, ShapeError, "Trainer.fit: expected arrays of one length, got 45 rows of X/0 and 3 of X/1"),
    ((((A, B), {"label": TARGETS["label"]}),), {}, KeyError, "'size'"),
    (
        (((A, B), TARGETS, -WEIGHT),), {}, DataError,
        f"Trainer.fit: expected a sample_weight of at least 0, got {-WEIGHT.max()} at row {WEIGHT.argmax()}",
    ),
    (
        (((A, B), TARGETS, WEIGHT[:9]),), {}, ShapeError,
        "Trainer.fit: expected a sample_weight for each of 45 rows, got shape (9,)",
    ),
    (
        (((A, np.where(B > 0, np.nan, B)), TARGETS),), {}, DataError,
        "Dataset: expected finite X/1, got nan at row 0, column 0; drop the row, or fill it in with sklearn.impute.SimpleImputer",
    ),
    (
        (((A, B), TARGETS),), {"class_weight": {0: 2.0}}, ArgumentError,
        "Trainer.fit: expected integer labels of shape (N,) in memory for class_weight, got other targets; pass sample_weight",
    ),
    ((((A, B), TARGETS),), {"transform": 3}, ArgumentError, "Trainer.fit: expected a function transform(X, y, rng), got int"),
    (
        (((A, B), TARGETS),), {"transform": lambda X, y, rng: X}, DTypeError,
        "Trainer.fit, transform: expected transform(X, y, rng) to return (X, y), got dict",
    ),
]  # fmt: skip


@pytest.mark.parametrize("k", range(len(FAULTS)))
def test_what_does_not_fit_changes_nothing(k):
    arguments, options, kind, text = FAULTS[k]
    trainer, _ = build("two inputs, two heads")
    if "dict" in text:
        arguments = (({"a": A, "b": B}, TARGETS),)
    if k == 4:
        text = text.replace("row 0, column 0", "row {}, column {}".format(*np.argwhere(B > 0)[0]))
    before = bits(trainer.model)
    with raises(kind, text):
        trainer.fit(*arguments, progress=False, **options)
    assert bits(trainer.model) == before


LOSSES = [
    (lambda out, y: {"a": out["size"]}, ArgumentError, "expected a loss of one number as 'a', got shape (2, 1); use reduction='mean'"),
    (lambda out, y: {"a": 1.0}, ArgumentError, "expected a loss of one number as 'a', got float; use reduction='mean'"),
]  # fmt: skip


@pytest.mark.parametrize(("loss", "kind", "text"), LOSSES)
def test_a_loss_returns_scalars(loss, kind, text):
    model = TwoHeads()
    with raises(kind, f"Trainer.fit: {text}"):
        mf.Trainer(model, loss, mf.optim.SGD(model.parameters(), lr=0.1)).fit(((A, B), TARGETS), progress=False)


def test_a_loss_takes_the_weights():
    model = TwoHeads()
    trainer = mf.Trainer(model, one, mf.optim.SGD(model.parameters(), lr=0.1))
    with raises(
        ArgumentError,
        "Trainer.fit: expected a loss that takes sample_weight, got one without; "
        "give it a third parameter, or leave the weights out",
    ):
        trainer.fit(((A, B), TARGETS["size"], WEIGHT), progress=False)


def test_the_structure_stays():
    calls = []

    def changing(outputs, targets):
        calls.append(1)
        parts = heads(outputs, targets)
        return parts if len(calls) < 3 else {"other": parts["size"]}

    model = TwoHeads()
    trainer = mf.Trainer(model, changing, mf.optim.SGD(model.parameters(), lr=0.1))
    with raises(ShapeError, "Trainer.fit: expected a loss with the parts label, size in each step, got other"):
        trainer.fit(((A, B), TARGETS), progress=False)


def test_heads_that_metrics_name_exist():
    one_array = "none, since the outputs are one array, got 'colour'; pass a list of metrics, without a head"
    for task, metrics, text in (
        ("two inputs, two heads", {"colour": "accuracy"}, "metrics: expected heads among label, size, got 'colour'"),
        ("one array, weights", {"colour": "accuracy"}, f"metrics: expected heads among {one_array}"),
        (
            "a VAE",
            ["r2"],
            "metric 'r2': expected a head in outputs and targets, got outputs 0, 1, 2 and targets one array; "
            "pass f(y_true, y_pred)",
        ),
    ):
        trainer, train = build(task, metrics=metrics)
        before = bits(trainer.model)
        with raises(ArgumentError, text):
            trainer.evaluate(train)
        with raises(ArgumentError, text):
            fit(trainer, train)
        assert bits(trainer.model) == before


@pytest.mark.parametrize("call", [lambda t, data: t.evaluate(data), lambda t, data: t.fit(data, 1, progress=False)])
def test_metrics_of_a_head_need_nested_outputs(call):
    trainer, _ = build("one array, weights", metrics={"": "accuracy", "colour": "accuracy"})
    before = bits(trainer.model)
    with pytest.raises(ArgumentError, match="metrics: expected heads among none, since the outputs are one array, got"):
        call(trainer, (A, TARGETS["label"]))
    assert bits(trainer.model) == before
    trainer.metrics = {"": "accuracy"}  # the path of a single array
    call(trainer, (A, TARGETS["label"]))


def test_batches_of_nested_arrays():
    found = list(mf.data.batches(((A, B), TARGETS, WEIGHT), SIZE, rng=0))
    order = np.random.default_rng(0).permutation(ROWS)
    np.testing.assert_array_equal(np.concatenate([X[1] for X, _, _ in found]), B[order])
    np.testing.assert_array_equal(np.concatenate([y["label"] for _, y, _ in found]), TARGETS["label"][order])
    np.testing.assert_array_equal(np.concatenate([w for _, _, w in found]), WEIGHT[order])
    for X, y in mf.data.batches(((A, B), TARGETS), SIZE, shuffle=False):
        assert X[0].flags.writeable and y["size"].flags.writeable


@pytest.mark.parametrize(("compile", "accumulate"), [(False, 1), (True, 1), (None, 1), (False, 2), (False, 3)])
def test_parts_of_the_loss_are_learned_where_rows_count(compile, accumulate):
    rng = np.random.default_rng(0)
    X, y, w = rng.normal(size=(24, 4)), rng.normal(size=(24, 1)), np.repeat([0.0, 1.0], [8, 16])
    mse = nn.MSELoss()

    def loss(o, t, w):
        return {"fit": mse(o, t, w), "small": 0.1 * (o**2).mean()}

    def batches():
        return ((X[k : k + 4], y[k : k + 4], w[k : k + 4]) for k in range(0, 24, 4))

    def trained(train, **options):
        model = nn.Sequential(nn.Dense(4, 1, rng=0))
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        trainer = mf.Trainer(model, loss, optimizer, compile=compile, accumulate=accumulate, metrics=["r2"])
        history = trainer.fit(train, 2, progress=False, **options)
        names = ("loss", "loss/fit", "loss/small", "r2")
        return [[row[name] for name in names] for row in [*history, trainer.evaluate(train)]]

    expected = trained((X, y, w), batch_size=4, sampler=lambda n, rng: np.arange(n))
    np.testing.assert_allclose(trained(batches)[:2], expected[:2], rtol=1e-5)
    found = trained(mf.data.stream(X, y, w, shuffle=False), batch_size=4)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    model = nn.Dense(4, 1)
    with pytest.raises(ArgumentError, match="a loss of one number, or a dict of them, got an empty dict$"):
        mf.Trainer(model, lambda o, t: {}, optim.SGD(model.parameters(), lr=0.1)).fit((X, y))
