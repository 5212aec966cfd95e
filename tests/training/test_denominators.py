"""A mean is a mean of what the loss averages: accumulated steps, epochs, evaluation, ranks; and steps that have none."""

from __future__ import annotations

import math

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import ArgumentError, DataError
from microfw.training import Checkpoint, Hook, LearningRate, WeightAveraging

rng = np.random.default_rng(0)
X = rng.normal(size=(24, 4))
LABELS = np.array([0, 1, 0, 0, 2, 2, 1, 2, 0, 0, 0, 0, 1, 1, 2, 0, 0, 1, 2, 2, 0, 1, 0, 1])
ONE = (LABELS == 1).astype(float)[:, None]


def head(outputs=3):
    return nn.Dense(4, outputs, rng=0).astype("f8")


LOSSES = {
    "labels": (lambda **k: nn.CrossEntropyLoss(**k), LABELS, 3),
    "ignored": (lambda **k: nn.CrossEntropyLoss(ignore_index=0, **k), LABELS, 3),
    "weights": (lambda **k: nn.CrossEntropyLoss(weight=[1, 10, 0.5], **k), LABELS, 3),
    "both, smooth": (lambda **k: nn.CrossEntropyLoss([1, 10, 0.5], 0.1, ignore_index=0, **k), LABELS, 3),
    "a class of weight 0": (lambda **k: nn.CrossEntropyLoss(weight=[0, 1, 2], **k), LABELS, 3),
    "nll": (lambda **k: nn.NLLLoss(weight=[1, 10, 1], ignore_index=2, **k), LABELS, 3),
    "probabilities": (
        lambda **k: nn.CrossEntropyLoss(weight=[1, 10, 1], label_smoothing=0.1, **k),
        np.abs(X[:, :3]) / np.abs(X[:, :3]).sum(1, keepdims=True),
        3,
    ),
    "mse": (lambda **k: nn.MSELoss(**k), X[:, :2], 2),
    "l1": (lambda **k: nn.L1Loss(**k), X[:, :1], 1),
    "huber": (lambda **k: nn.HuberLoss(**k), X[:, :1], 1),
    "hinge": (lambda **k: nn.HingeLoss(**k), 2 * ONE - 1, 1),
    "bce": (lambda **k: nn.BCEWithLogitsLoss(pos_weight=3, **k), ONE, 1),
    "bce, columns": (lambda **k: nn.BCEWithLogitsLoss(weight=[1, 5], **k), np.hstack([ONE, 1 - ONE]), 2),
    "poisson": (lambda **k: nn.PoissonNLLLoss(**k), ONE, 1),
    "kl": (lambda **k: nn.KLDivLoss(**k), np.hstack([ONE, 1 - ONE]), 2),
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_mean_of_joined_batches_follows_the_denominators(name):
    make, y, outputs = LOSSES[name]
    mean, total = make(), make(reduction="sum")
    z = mf.tensor(np.random.default_rng(1).normal(size=(24, outputs)))
    parts = [slice(0, 5), slice(5, 6), slice(6, 24)]
    counts = [mean.denominator(y[p]) for p in parts]
    assert sum(counts) == pytest.approx(mean.denominator(y)) == total.denominator(y)
    losses = [mean(z[p], y[p]).item() for p, count in zip(parts, counts, strict=True) if count]
    joined = np.average(losses, weights=[count for count in counts if count])
    assert mean(z, y).item() == pytest.approx(joined, rel=1e-12)
    entries = (
        outputs if y.ndim == 2 and name not in ("kl", "probabilities") else 1
    )  # a row's loss is the mean over its entries
    assert total(z, y).item() == pytest.approx(joined * mean.denominator(y) * entries, rel=1e-12)
    weight = np.random.default_rng(2).random(24)
    counts = [mean.denominator(y[p], weight[p]) for p in parts]
    losses = [mean(z[p], y[p], weight[p]).item() for p, count in zip(parts, counts, strict=True) if count]
    joined = np.average(losses, weights=[count for count in counts if count])
    assert mean(z, y, weight).item() == pytest.approx(joined, rel=1e-12)


def test_denominators_of_lists_tensors_and_single_numbers():
    loss = nn.CrossEntropyLoss(weight=[1.0, 10.0, 2.0], ignore_index=2)
    assert loss.denominator([0, 1, 2]) == loss.denominator(mf.Tensor(np.array([0, 1, 2]))) == 11
    assert loss.denominator([0, 1, 2], [2, 0.5, 7]) == 7
    assert nn.MSELoss().denominator(3.0) == 1
    assert nn.CosineEmbeddingLoss().denominator([1, -1]) == 2
    with pytest.raises(DataError, match="^CrossEntropyLoss: expected labels from 0 to 2, got 3 at row 0"):
        loss.denominator([3])


def trained(loss, y, outputs, accumulate, batch_size, model=head, optimizer=None, hooks=(), **options):
    net = model(outputs)
    made = optimizer(net.parameters()) if optimizer else optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    trainer = mf.Trainer(net, loss, made, accumulate=accumulate, hooks=hooks, **options)
    history = trainer.fit((X, y), 3, batch_size, rng=0, progress=False)
    return np.concatenate([p.data.ravel() for p in net.parameters()]), history, trainer


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("name", LOSSES)
def test_accumulated_steps_are_those_of_the_joined_batch(name, reduction):
    make, y, outputs = LOSSES[name]
    whole, rows, _ = trained(make(reduction=reduction), y, outputs, 1, 8)
    for accumulate, batch_size in ((4, 2), (8, 1)):  # some parts have ignored labels only
        parts, others, _ = trained(make(reduction=reduction), y, outputs, accumulate, batch_size)
        np.testing.assert_allclose(parts, whole, rtol=1e-10, atol=1e-13)
        assert others.column("loss") == pytest.approx(rows.column("loss"), rel=1e-10)
        assert others.column("gradient_norm") == pytest.approx(rows.column("gradient_norm"), rel=1e-10)


@pytest.mark.parametrize("batch_size", [3, 7, 24])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_the_loss_of_an_epoch_is_that_of_evaluate(name, batch_size, reduction):
    make, y, outputs = LOSSES[name]
    net = head(outputs)
    trainer = mf.Trainer(net, make(reduction=reduction), optim.SGD(net.parameters(), lr=1e-300))
    row = trainer.fit((X, y), 1, batch_size, validation=(X, y), rng=0, progress=False)[0]
    assert row["loss"] == pytest.approx(row["val_loss"], rel=1e-12)
    assert trainer.evaluate((X, y), batch_size=5)["loss"] == pytest.approx(row["loss"], rel=1e-12)


def test_a_plain_function_averages_over_rows_and_an_object_may_say_otherwise():
    class Half:
        def __call__(self, out, y):
            return ((out - y) ** 2)[y.numpy()[:, 0] > 0].mean()

        def denominator(self, targets, sample_weight=None):
            return float((targets[:, 0] > 0).sum())

    for loss in (lambda out, y: ((out - y) ** 2).mean(), Half()):
        whole = trained(loss, X[:, :1], 1, 1, 8)[0]
        np.testing.assert_allclose(trained(loss, X[:, :1], 1, 4, 2)[0], whole, rtol=1e-10)

    class Wrong(Half):
        def denominator(self, targets, sample_weight=None):
            return math.nan

    text = "^Trainer.fit: expected a denominator of at least 0, finite, got nan from Wrong.denominator$"
    with pytest.raises(ArgumentError, match=text):
        trained(Wrong(), X[:, :1], 1, 1, 8)


# Steps in which no row counts


class Calls(Hook):
    def __init__(self):
        self.steps, self.gradients, self.ends = [], 0, 0

    def on_gradients(self, state):
        self.gradients += 1

    def on_step_end(self, state):
        self.steps.append((state.step, state.steps, state.skipped))

    def on_fit_end(self, state):
        self.state = state


def ordered():
    """Return labels of which whole batches of 4 are ignored in any order: all but one row."""
    y = np.zeros(24, int)
    y[3] = 1
    return y


@pytest.mark.parametrize("compile", [False, True, None])
def test_a_step_in_which_no_row_counts_makes_no_update(compile):
    calls, rates = Calls(), []

    def schedule(step):
        rates.append(step)
        return 0.1

    def make(parameters):
        return optim.AdamW(parameters, lr=0.1, weight_decay=0.1)

    loss = nn.CrossEntropyLoss(ignore_index=0)
    hooks = [calls, LearningRate(schedule)]
    weights, history, trainer = trained(loss, ordered(), 3, 1, 4, optimizer=make, hooks=hooks, metrics=["accuracy"], compile=compile)  # fmt: skip
    assert calls.gradients == len(calls.steps) == 3
    assert [steps for _, steps, _ in calls.steps] == [1, 2, 3] and rates == [0, 1, 2]
    assert calls.state.skipped == 15 and calls.state.steps == 3
    assert history.column("skipped") == [5, 5, 5]
    assert trainer.optimizer.counts.tolist() == [3, 3]
    alone = head()
    optimizer = make(alone.parameters())
    for row in history:  # the same three updates
        optimizer.zero_grad()
        value = loss(alone(X[3:4]), np.array([1]))
        value.backward()
        optimizer.step()
        assert row["loss"] == pytest.approx(value.item(), rel=1e-12)
    np.testing.assert_allclose(weights, np.concatenate([p.data.ravel() for p in alone.parameters()]), rtol=1e-10)


def test_a_skipped_step_leaves_buffers_and_generators_alone():
    def make(outputs):
        return nn.Sequential(nn.BatchNorm1D(4), nn.Dropout(0.5, rng=0), nn.Dense(4, outputs, rng=0)).astype("f8")

    seen = []

    class Spy(Hook):
        def on_step_end(self, state):
            seen.append(state.model[1].rng.bit_generator.state)

    average = WeightAveraging(0.5)
    _, history, trainer = trained(nn.CrossEntropyLoss(ignore_index=0), ordered(), 3, 1, 4, make, hooks=[Spy(), average], metrics=["accuracy"])  # fmt: skip
    assert trainer.model[1].rng.bit_generator.state == seen[-1]
    other = nn.Sequential(nn.BatchNorm1D(4)).astype("f8")
    for batch in range(3):
        assert len(seen) == 3 and history[batch]["skipped"] == 5
    other(X[:4])
    assert not np.allclose(trainer.model[0].running_mean.data, 0)
    assert all(0 <= row["accuracy"] <= 1 for row in history)


def test_history_has_no_column_of_skipped_steps_where_there_are_none():
    _, history, _ = trained(nn.CrossEntropyLoss(ignore_index=0), np.where(LABELS == 0, 1, LABELS), 3, 1, 8)
    assert "skipped" not in history[0]


def test_earlier_rows_get_a_0_when_a_step_is_skipped_later():
    class Later(Hook):
        def on_epoch_end(self, state):
            if state.epoch == 2:
                state.loss_function.ignore_index = 0

    loss = nn.CrossEntropyLoss()
    _, history, _ = trained(loss, ordered(), 3, 1, 4, hooks=[Later()])
    assert history.column("skipped") == [0, 0, 5]


def test_a_set_in_which_no_row_counts():
    loss = nn.CrossEntropyLoss(ignore_index=0)
    net = head()
    trainer = mf.Trainer(net, loss, optim.SGD(net.parameters(), lr=0.1), metrics=["accuracy"])
    nothing = np.zeros(24, int)
    with pytest.raises(
        DataError, match="^Trainer.fit: expected rows that count in the loss, got none of 24: all labels"
    ):
        trainer.fit((X, nothing), 1, progress=False)
    found = trainer.evaluate((X, nothing))
    assert math.isnan(found["loss"]) and math.isnan(found["accuracy"])
    row = trainer.fit((X, LABELS), 1, validation=(X, nothing), rng=0, progress=False)[0]
    assert math.isnan(row["val_loss"]) and row["loss"] > 0


@pytest.mark.parametrize("index", [7, 255])
def test_an_ignored_label_need_not_be_a_class(index):
    y = np.where(LABELS == 0, index, LABELS)
    weights, history, _ = trained(nn.CrossEntropyLoss(ignore_index=index), y, 3, 1, 6)
    same, others, _ = trained(nn.CrossEntropyLoss(ignore_index=0), LABELS, 3, 1, 6)
    np.testing.assert_array_equal(weights, same)
    with pytest.raises(DataError, match=f"labels from 0 to 2, as the model's outputs, got {index}"):
        trained(nn.CrossEntropyLoss(ignore_index=1), y, 3, 1, 6)


@pytest.mark.parametrize("form", ["pair", "weights", "dataset", "source"])
def test_an_ignored_label_may_be_negative(form):
    losses = {}
    for index in (-100, 0):
        y, net = np.where(LABELS == 0, index, LABELS), head()
        data = {
            "pair": (X, y),
            "weights": (X, y, np.ones(24)),
            "dataset": mf.data.Dataset(X, y, ignore_index=index),
            "source": lambda y=y: iter([(X, y)]),
        }[form]
        loss = nn.CrossEntropyLoss(ignore_index=index)
        trainer = mf.Trainer(net, loss, optim.SGD(net.parameters(), lr=0.1))
        losses[index] = trainer.fit(data, 2, validation=data, rng=0, progress=False).column("val_loss")
        losses[index].append(trainer.evaluate(data)["loss"])
    assert losses[-100] == losses[0]


def test_a_negative_label_that_the_loss_does_not_ignore_is_found_before_training():
    data, net = mf.data.Dataset(X, np.where(LABELS == 2, -100, LABELS), ignore_index=-100), head()
    trainer = mf.Trainer(net, nn.CrossEntropyLoss(), optim.SGD(net.parameters(), lr=0.1))
    text = "labels from 0 to 2, as the model's outputs, got -100 at row 4; pass ignore_index=-100 to the loss"
    with pytest.raises(DataError, match=f"^Trainer.fit: expected {text}$"):
        trainer.fit(data, 1, progress=False)


def test_a_resumed_run_goes_on_counting(tmp_path):
    def make():
        net = head()
        optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        return mf.Trainer(net, nn.CrossEntropyLoss(ignore_index=0), optimizer, metrics=["accuracy"])

    def clean(history):
        return [{k: v for k, v in row.items() if k != "seconds"} for row in history]

    whole = make().fit((X, ordered()), 4, 4, rng=0, progress=False)
    path = tmp_path / "run.npz"

    first = make()
    first.hooks = [Checkpoint(path)]
    first.fit((X, ordered()), 2, 4, rng=0, progress=False)
    again = make().fit((X, ordered()), 4, 4, progress=False, resume=path)
    assert clean(again) == clean(whole)
    middle = make()
    middle.hooks = [Checkpoint(tmp_path / "middle.npz", every=1), Interrupt(2)]
    with pytest.raises(KeyboardInterrupt):
        middle.fit((X, ordered()), 4, 4, rng=0, progress=False)
    again = make().fit((X, ordered()), 4, 4, progress=False, resume=tmp_path / "middle.npz")
    assert clean(again) == clean(whole)


class Interrupt(Hook):
    def __init__(self, steps):
        self.count = steps

    def on_step_end(self, state):
        if state.steps == self.count:
            raise KeyboardInterrupt


# Ranks


class Rank:
    """MPI for two ranks of which this is the first; the other sends given values."""

    rank, size = 0, 2

    def __init__(self, other=lambda sent: np.zeros_like(sent)):
        self.other = other
        self.sent = []

    def allgather(self, mine):
        return [mine, mine]

    def Bcast(self, array, root):
        pass

    def Iallreduce(self, place, sent):
        self.sent.append(sent.copy())
        sent += self.other(sent)
        return self

    def Wait(self):
        pass


def test_ranks_are_weighted_with_their_denominators(mpi):
    loss, net = nn.CrossEntropyLoss(weight=[1, 10, 1], ignore_index=2), head()
    comm = Rank()
    optimizer = optim.DataParallel(optim.SGD(net.parameters(), lr=0.1), comm)
    mf.Trainer(net, loss, optimizer).fit((X, LABELS), 1, 24, rng=0, progress=False)
    size = net.weight.size + net.bias.size
    assert comm.sent[1][size + 2] == loss.denominator(LABELS)
    joined = head()
    loss(joined(X), LABELS).backward()
    gradient = np.concatenate([p.grad.ravel() for p in joined.parameters()])
    np.testing.assert_allclose(comm.sent[1][:size], gradient * loss.denominator(LABELS), rtol=1e-9)


def test_a_rank_without_rows_that_count_takes_part_in_the_step(mpi):
    def other(sent):
        made = np.zeros_like(sent)
        made[:17] = [1.0] * 15 + [1.0, 1.0]  # gradients, and that there are some
        made[17] = 1.0
        return made

    net, calls = head(), Calls()
    before = net.weight.data.copy()
    optimizer = optim.DataParallel(optim.SGD(net.parameters(), lr=0.5), Rank(other))
    loss = nn.CrossEntropyLoss(ignore_index=0)
    history = mf.Trainer(net, loss, optimizer, hooks=[calls]).fit((X, ordered()), 1, 4, rng=0, progress=False)
    assert len(calls.steps) == 6 and "skipped" not in history[0]
    assert not np.allclose(net.weight.data, before)
    net = head()
    optimizer = optim.DataParallel(optim.SGD(net.parameters(), lr=0.5), Rank())
    history = mf.Trainer(net, loss, optimizer).fit((X, ordered()), 1, 4, rng=0, progress=False)
    assert history[0]["skipped"] == 5


def test_no_update_where_no_rank_has_rows(mpi):
    p = nn.Parameter([1.0])
    optimizer = optim.DataParallel(optim.SGD([p], lr=0.5, weight_decay=0.1), Rank())
    (p * 2).sum().backward()
    assert optimizer.step(rows=0) is False and p.item() == 1
    assert optimizer.step(rows=2) is True and p.item() < 1
    net = nn.Dense(1, 1)
    ranks = optim.DataParallel(optim.SGD(net.parameters(), lr=1.0), Rank())
    text = "^Trainer: expected a mean with DataParallel, got MSELoss with reduction='sum'; use reduction='mean'$"
    with pytest.raises(ArgumentError, match=text):
        mf.Trainer(net, nn.MSELoss(reduction="sum"), ranks)


@pytest.mark.parametrize(("accumulate", "batch"), [(1, 24), (2, 12)])
def test_a_reduction_that_a_hook_changes_counts_from_then_on(accumulate, batch):
    class ToSum(Hook):
        def on_epoch_start(self, state):
            state.loss_function.reduction = "sum"

    found = []
    for loss, hooks in ((nn.MSELoss(reduction="sum"), ()), (nn.MSELoss(), [ToSum()])):
        net = head(1)
        trainer = mf.Trainer(net, loss, optim.SGD(net.parameters(), lr=1e-3), hooks=hooks, accumulate=accumulate)
        history = trainer.fit((X, ONE), 1, batch, rng=0, progress=False)
        found.append((history[0]["loss"], net.weight.data.tolist()))
    assert found[0] == found[1]


def test_smoothed_labels_of_weight_0_are_not_joined(mpi):
    def trainer(weight, smoothing, ranks=False, **options):
        net = head()
        optimizer = optim.SGD(net.parameters(), lr=0.1)
        optimizer = optim.DataParallel(optimizer, Rank()) if ranks else optimizer
        return mf.Trainer(net, nn.CrossEntropyLoss(weight, smoothing), optimizer, **options)

    text = (
        "^Trainer: expected class weights above 0 with label_smoothing in joined batches, got one of 0; "
        "leave label_smoothing out, or join no batches, as by accumulate$"
    )
    for options in ({"accumulate": 2}, {"ranks": True}):
        with pytest.raises(ArgumentError, match=text):
            trainer([0, 1, 1], 0.2, **options)
        trainer([0, 1, 1], 0.0, **options), trainer([0.5, 1, 1], 0.2, **options)
    trainer([0, 1, 1], 0.2)


def test_a_batch_of_smoothed_labels_of_weight_0_is_not_left_out_of_an_evaluation():
    X, y = np.random.default_rng(0).normal(size=(8, 4)), np.array([0, 0, 0, 0, 1, 2, 1, 2])
    model = nn.Sequential(nn.Dense(4, 3, rng=0))
    loss = nn.CrossEntropyLoss(weight=[0.0, 1.0, 1.0], label_smoothing=0.2)
    trainer = mf.Trainer(model, loss, optim.SGD(model.parameters(), lr=0.1))
    whole = trainer.evaluate((X, y), batch_size=4)["loss"]
    mixed = np.arange(8).reshape(2, 4).T.ravel()
    for train in ((X, y, np.ones(8)), mf.data.stream(X, y, shuffle=False)):
        np.testing.assert_allclose(trainer.evaluate(train, batch_size=8)["loss"], whole, rtol=1e-6)
        with pytest.raises(ArgumentError, match="a class weight above 0 in each batch, with label_smoothing, got"):
            trainer.evaluate(train, batch_size=4)
    found = trainer.evaluate((X[mixed], y[mixed], np.ones(8)), batch_size=4)["loss"]
    np.testing.assert_allclose(found, whole, rtol=1e-6)
