"""Training: eager steps, replayed steps and predictions call model and loss with the same objects of the same dtype."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

import microfw as mf
from microfw import nn, optim
from microfw.data import Dataset, load
from microfw.errors import ArgumentError, DataError, DTypeError, MicrofwError, ShapeError
from microfw.training import Checkpoint, EarlyStopping
from tests.helpers.errors import raises
from tests.helpers.training import make

COMPILE = [False, True, None]


class Seen(nn.Module):
    """Notes what a model is called with."""

    def __init__(self, body):
        self.body = body
        self.calls = []

    def forward(self, x):
        self.calls.append((type(x), x.dtype))
        return self.body(x)


def outcome(compile, make, loss, data, epochs=3, **options):
    """Return losses, weights and evaluation of a fit, or the error."""
    model = make()
    trainer = mf.Trainer(model, loss(), optim.SGD(model.parameters(), lr=0.1), compile=compile, **options)
    try:
        losses = trainer.fit(data, epochs, rng=0, progress=False).column("loss")
    except MicrofwError as error:
        return type(error), str(error)
    weights = [p.data.tobytes() for p in model.parameters()]
    return losses, weights, trainer.evaluate(data), trainer.predict(data[0]).tobytes()


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("given", ["f4", "f8", "i8"])
@pytest.mark.parametrize(
    "body",
    [
        lambda: nn.Sequential(nn.Dropout(0.1, rng=0), nn.Dense(4, 3, rng=0)),
        lambda: nn.Sequential(nn.LayerNorm(4), nn.Dense(4, 3, rng=0)),
        lambda: nn.Sequential(nn.Lambda(np.sin), nn.Dense(4, 3, rng=0)),
        lambda: nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Dense(4, 3, rng=0)),
    ],
)
def test_compile_decides_nothing_but_time(body, given, dtype):
    X, y = load("iris", rng=0)[0].X.astype(given), load("iris", rng=0)[0].y
    made = [outcome(c, lambda: body().astype(dtype), nn.CrossEntropyLoss, (X, y)) for c in COMPILE]
    assert made[0] == made[1] == made[2]
    assert isinstance(made[0][0], list)  # and none is an error


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("loss", [
    lambda: nn.CrossEntropyLoss(weight=[1, 5, 2]), lambda: nn.NLLLoss(), lambda: lambda out, y: ((out.sum(axis=1) - y.astype("f4")) ** 2).mean(),
    lambda: lambda out, y: -out[np.arange(len(y)), y].mean(),
])  # fmt: skip
def test_losses_get_the_same_targets_eager_and_replayed(loss, accumulate, iris):
    def make():
        return nn.Sequential(nn.Dense(4, 3, rng=0), nn.LogSoftmax())

    made = [outcome(c, make, loss, (iris[0].X, iris[0].y), accumulate=accumulate) for c in COMPILE]
    assert made[0] == made[1] == made[2] and isinstance(made[0][0], list)


def test_errors_are_the_same_eager_and_replayed(iris):
    class Half(nn.Module):
        def forward(self, x):
            return x if not self.training else x.astype(np.int64)

    found = [outcome(c, lambda: nn.Sequential(Half(), nn.Dense(4, 3, rng=0)), nn.CrossEntropyLoss, (iris[0].X, iris[0].y)) for c in COMPILE]  # fmt: skip
    assert found[0] == found[1] == found[2]
    assert "expected x of float32, got int64" in found[0][1]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize("data", ["pair", "dataset", "other dataset"])
def test_data_have_the_dtype_of_the_model(dtype, data, iris):
    other = np.float64 if dtype == "f4" else np.float32
    train = {
        "pair": (iris[0].X.astype("f8"), iris[0].y),
        "dataset": iris[0],
        "other dataset": Dataset(iris[0].X, iris[0].y, dtype=other),
    }[data]
    model = Seen(nn.Dense(4, 3, rng=0).astype(dtype))
    trainer = mf.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), compile=False)
    trainer.fit(train, 1, validation=train, rng=0, progress=False)
    trainer.evaluate(train)
    trainer.predict(iris[0])
    trainer.predict(iris[0].X.tolist())
    trainer.predict((iris[0].X * 10).astype(int))
    assert set(model.calls) == {(mf.Tensor, np.dtype(dtype))}


def test_no_digit_of_float64_is_lost():
    X = 1 + np.arange(8.0)[:, None] * 1e-9
    seen = []
    model = nn.Dense(1, 1, rng=0).astype("f8")

    def loss(out, y):
        seen.append(y.numpy().copy())
        return ((out - y) ** 2).mean()

    mf.Trainer(model, loss, optim.SGD(model.parameters(), lr=1e-3), compile=False).fit(
        (X, X), 1, 8, rng=0, progress=False
    )
    assert sorted(seen[-1].ravel().tolist()) == X.ravel().tolist()


def test_what_the_model_cannot_hold_is_named():
    X = np.array([[1.0], [1e300]])
    model = nn.Dense(1, 1, rng=0)
    trainer = mf.Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=1e-3))
    with pytest.raises(DataError, match=r"^Dataset: expected finite X, got 1e\+300 at row 1, column 0; scale it down"):
        trainer.fit(Dataset(X, [[0.0], [1.0]], dtype=np.float64), 1, progress=False)


def test_indices_stay_exact_in_predictions():
    class Echo(nn.Module):
        def __init__(self):
            self.table = nn.Embedding(3, 2, rng=0)

        def forward(self, x):
            return x

    model = Echo()
    trainer = mf.Trainer(model, nn.MSELoss(), optim.SGD(model.parameters(), lr=1e-3))
    assert trainer.predict([[2**24 + 1]]).tolist() == [[2**24 + 1]]


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_estimators_call_models_as_the_trainer_does(dtype, iris):
    from microfw.estimators import NeuralClassifier

    body = Seen(nn.Dense(4, 3, rng=0))
    made = NeuralClassifier(module=body, dtype=dtype, max_iter=2).fit(iris[0].X.astype("f8"), iris[0].y)
    made.partial_fit(iris[0].X, iris[0].y, sample_weight=np.ones(len(iris[0])))
    made.predict(iris[0].X.tolist())
    assert {(kind, at) for kind, at in made.module_.calls[1:]} == {(mf.Tensor, np.dtype(dtype))}


FIT = "Trainer.fit: expected"
CLASS_WEIGHT = f"{FIT} class_weight"
REAL = f"{FIT} integer labels for CrossEntropyLoss, got targets of shape (112, 1); pass integer labels, or use nn.MSELoss for"


@pytest.mark.parametrize(
    ("make_options", "kind", "text"),
    [
        (lambda X, y: {"class_weight": {0: -1}}, ArgumentError, f"{CLASS_WEIGHT} of numbers of at least 0, got -1 for label 0"),
        (
            lambda X, y: {"class_weight": {5: 2.0}}, ArgumentError,
            f"{CLASS_WEIGHT} to be a dict of weights by label or 'balanced', got label 5, which y lacks",
        ),
        (
            lambda X, y: {"validation": (X[:, :3], y)}, ShapeError,
            "Trainer.fit, validation: 0 Dense: expected x of shape (N, 4), got (2, 3); pass that many features",
        ),
        (
            lambda X, y: {"validation": (X[:, :3], y, np.ones(len(y)))}, ShapeError,
            "Trainer.fit, validation: 0 Dense: expected x of shape (N, 4), got (2, 3); pass that many features",
        ),
        (
            lambda X, y: {"sampler": lambda n, rng: None}, DataError,
            "sampler(n, rng): expected numbers of rows from 0 to 111, got object of shape (): None",
        ),
        (lambda X, y: {"train": (X, y + 0.5)}, DataError, f"{REAL} regression"),
        (lambda X, y: {"train": (X, y + 0.5, np.ones(len(y)))}, DataError, f"{REAL} regression"),
    ],
)  # fmt: skip
def test_an_error_names_the_argument(make_options, kind, text, iris):
    X, y = iris[0].X, iris[0].y
    with raises(kind, text):
        make().fit(**{"train": (X, y), "epochs": 1, "progress": False, **make_options(X, y)})


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        (sparse.csr_matrix, DTypeError, "Dataset: expected a dense X, got csr_matrix; pass X.toarray()"),
        (lambda X: np.ma.masked_less(X, 2), DataError, "Dataset: expected X without masked entries, got some; pass X.filled(value)"),
        (lambda X: None, ShapeError, "Trainer.predict: expected rows of features, got a single NoneType; pass an array, or a Dataset"),
        (lambda X: 3.0, ShapeError, "Trainer.predict: expected rows of features, got a single float; pass an array, or a Dataset"),
        (lambda X: "abc", ShapeError, "Trainer.predict: expected rows of features, got a single str; pass an array, or a Dataset"),
    ],
)  # fmt: skip
def test_predictions_need_rows_as_a_fit_does(change, kind, text, iris):
    with raises(kind, text):
        make().predict(change(iris[0].X))


# A loss that is a function


class Flat(nn.Module):
    """A linear model with outputs of shape (N,)."""

    def __init__(self):
        self.linear = nn.Dense(3, 1, rng=0)

    def forward(self, x):
        return self.linear(x)[:, 0]


def squared(outputs, targets, weight=None):
    return ((outputs - targets) ** 2).mean()


def squared_column(outputs, targets, weight=None):
    return squared(outputs[:, 0], targets)


def squared_head(outputs, targets, weight=None):
    return {"size": squared(outputs["size"], targets["size"])}


def pairs(outputs, targets, weight=None):
    """A loss of all pairs of rows, which makes squares of outputs and of targets, but of no two of them."""
    z, t = outputs.reshape(-1, 1), targets.reshape(-1, 1)
    return (np.square(z - z.reshape(-1)) * np.exp(-np.square(t - t.reshape(-1)))).mean() + np.square(z).mean()


class Head(nn.Module):
    def __init__(self, body):
        self.body = body

    def forward(self, x):
        return {"size": self.body(x)}


def linear_data(columns):
    X = np.random.default_rng(0).normal(size=(64, 3))
    y = X @ [1.0, 2.0, 3.0] + 1
    return X, y[:, None] if columns else y


SOURCES = {
    "arrays": lambda X, y: (X, y),
    "weights": lambda X, y: (X, y, np.ones(len(X))),
    "a stream": mf.data.stream,
    "a generator": lambda X, y: lambda: iter([(X, y)]),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("model", "loss", "columns"),
    [(Flat, squared, False), (lambda: nn.Dense(3, 1, rng=0), squared, True)]
    + [(lambda: nn.Dense(3, 1, rng=0), squared_column, False), (Flat, pairs, True), (Flat, pairs, False)],
)
def test_a_function_as_loss_gets_targets_in_the_shape_in_which_they_came(model, loss, columns, source):
    body = model()
    trainer = mf.Trainer(body, loss, optim.SGD(body.parameters(), lr=0.1))
    data = SOURCES[source](*linear_data(columns))
    history = trainer.fit(data, 150, rng=0, progress=False, validation=data)
    assert history[-1]["loss"] < 1e-4 and history[-1]["val_loss"] < 1e-4
    assert trainer.evaluate(data)["loss"] == history[-1]["val_loss"]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(
    ("model", "loss", "columns"),
    [(Flat, squared, True), (lambda: nn.Dense(3, 1, rng=0), squared, False)]
    + [(lambda: nn.Dense(3, 1, rng=0), squared_column, True), (lambda: Head(Flat()), squared_head, True)],
)
def test_a_function_as_loss_broadcasts_no_outputs_with_targets(model, loss, columns, source):
    body, (X, y) = model(), linear_data(columns)
    trainer = mf.Trainer(body, loss, optim.SGD(body.parameters(), lr=0.1))
    data = SOURCES[source](X, {"size": y} if loss is squared_head else y)
    outputs, targets, fix = "(N,)", "(N, 1)", "keep the last axis of the outputs"
    if not columns:
        outputs, targets, fix = "(N, 1)", "(N,)", "pass y[:, None]"
    text = "expected a loss of outputs and targets of one shape, got outputs of shape {} and targets of shape {}, "
    text = text.format(outputs, targets) + f"which the loss broadcasts to (N, N); {fix}"
    with raises(ShapeError, f"Trainer.fit: {text}"):
        trainer.fit(data, 1, rng=0, progress=False)
    with raises(ShapeError, f"Trainer.evaluate: {text}"):
        trainer.evaluate(data)


def test_a_function_as_loss_of_a_dataset_gets_its_targets():
    body = nn.Dense(3, 1, rng=0)
    data = Dataset(*linear_data(False))
    trainer = mf.Trainer(body, squared, optim.SGD(body.parameters(), lr=0.1))
    assert trainer.fit(data, 150, rng=0, progress=False)[-1]["loss"] < 1e-4


X, Y = np.random.default_rng(0).normal(size=(12, 4)), np.arange(12) % 3
CE = nn.CrossEntropyLoss()
LABELS = "integer labels for CrossEntropyLoss, got targets of shape (12, 1); pass integer labels, or use nn.MSELoss for regression"
WEIGHTS = "class_weight to be a dict of weights by label or 'balanced', got array([1., 1., 1.])"
FORMS = "a Dataset, (X, y), (X, y, sample_weight), a stream, or batches from a function or a loader"
LOSS = type(
    "TheirLoss", (), {"__module__": "torch.nn.modules.loss", "__call__": len}
)  # a Module of PyTorch is callable
ITEMS = type("TensorDataset", (), {"__getitem__": len, "__len__": len})


def invalid(X, y, rng):
    return np.full_like(X, np.nan), y


def nothing():
    yield None


def fit(data=(X, Y), hooks=(), loss=None, **options):
    return make(hooks=hooks, loss=loss or nn.CrossEntropyLoss()).fit(data, 1, progress=False, **options)


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda: fit(class_weight=np.ones(3)), ArgumentError, f"Trainer.fit: expected {WEIGHTS}"),
        (lambda: fit(class_weight=[1.0]), ArgumentError, f"Trainer.fit: expected {WEIGHTS.partition('array')[0]}[1.0]"),
        (lambda: fit(class_weight=[]), ArgumentError, f"Trainer.fit: expected {WEIGHTS.partition('array')[0]}[]"),
        (lambda: fit(loss=lambda z, y: [CE(z, y)]), ArgumentError,
         "Trainer.fit: expected a loss of one number, got list; return a Tensor, or a dict of them"),
        (lambda: fit(loss=lambda z, y: {1: CE(z, y)}), ArgumentError,
         "Trainer.fit: expected names of parts of the loss to be str, got 1"),
        (lambda: fit(sample_weight=Y), TypeError, "Trainer.fit: expected known keywords, got sample_weight; pass (X, y, sample_weight)"),
        (lambda: fit(sampler=lambda n: range(n)), ArgumentError, "Trainer.fit: expected a function sampler(n, rng), got one with (n)"),
        (lambda: fit(transform=lambda X: X), ArgumentError, "Trainer.fit: expected a function transform(X, y, rng), got one with (X)"),
        (lambda: fit(transform=invalid), DataError, "Trainer.fit, transform: expected finite X, got nan at row 0, column 0"),
        (lambda: fit(hooks=[optim.schedules.Cosine(0.1, 5)]), ArgumentError,
         "Trainer: expected hooks with some of a Hook's methods, got Cosine; wrap a schedule in training.LearningRate"),
        (lambda: fit(loss=LOSS()), ArgumentError,
         "Trainer: expected loss to be a loss such as nn.MSELoss(), got TheirLoss; pass one of microfw.nn, or a function"),
        (lambda: fit(ITEMS()), ArgumentError,
         f"Trainer.fit: expected {FORMS}, got TensorDataset; pass a loader of it, such as PyTorch's DataLoader(data)"),
        (lambda: fit(nothing), ArgumentError,
         "Trainer.fit, batch 1: expected (X, y) or (X, y, sample_weight), got NoneType; yield it from a generator function"),
        (lambda: fit(hooks=[EarlyStopping("val_accuracy")], validation=(X, Y)), ArgumentError,
         "EarlyStopping: expected one of epoch, loss, val_loss, seconds, lr, gradient_norm, got 'val_accuracy'; "
         "pass metrics=['accuracy'] to the Trainer, and validation data"),
        (lambda: make().evaluate((X, Y + 0.5)), DataError, f"Trainer.evaluate: expected {LABELS}"),
        (lambda: mf.Trainer(callbacks=[]), TypeError, "Trainer: expected known keywords, got callbacks; did you mean hooks?"),
        (lambda: EarlyStopping(monitor="loss"), TypeError, "EarlyStopping: expected known keywords, got monitor; did you mean metric?"),
        (lambda: Checkpoint("a.npz", save_best_only=True), TypeError,
         "Checkpoint: expected known keywords, got save_best_only; did you mean best?"),
        (lambda: Dataset(X, Y, dtype="x"), DTypeError, "Dataset: expected dtype to be float32 or float64, got 'x'"),
    ],
)  # fmt: skip
def test_errors_say_what_to_pass(call, kind, text):
    with raises(kind, text):
        call()
