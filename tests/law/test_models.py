"""The law of other models: shared, recurrent, convolutional, frozen and checkpointed."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.ops import reduction
from microfw.profiler import law
from tests.helpers.law_models import NAMES, X4, dense


class Shared(nn.Module):
    def __init__(self):
        self.weight = nn.Parameter(np.random.default_rng(0).normal(size=(4, 4)))
        self.head = nn.Dense(4, 3, rng=1)

    def forward(self, x):
        for _ in range(3):
            x = x + np.tanh(x @ self.weight)
        return self.head(x)


class Attention(nn.Module):
    def __init__(self):
        rng = np.random.default_rng(0)
        self.q, self.k, self.v = (nn.Parameter(rng.normal(size=(2, 3))) for _ in range(3))

    def forward(self, x):
        x = x.reshape(-1, 2, 2)
        q, k, v = x @ self.q, x @ self.k, x @ self.v
        mixed = reduction.softmax(q @ np.transpose(k, (0, 2, 1)), axis=-1) @ v
        return np.max(mixed, axis=1)


class Windows(nn.Module):
    """A convolution written with an index: one filter over all windows of two."""

    def __init__(self):
        self.filter = nn.Parameter([[0.5], [-1.0]])
        self.head = nn.Dense(3, 3, rng=0)

    def forward(self, x):
        windows = mf.tensor(x)[:, np.array([[0, 1], [1, 2], [2, 3]])]  # N 3 2
        return self.head((windows @ self.filter)[..., 0])


class Recurrent(nn.Module):
    def __init__(self, kind):
        self.cell, self.head = kind(2, 3, rng=0), nn.Dense(3, 3, rng=1)

    def forward(self, x):
        return self.head(self.cell(np.reshape(x, (-1, 2, 2)))[0][:, -1])


class Attending(nn.Module):
    def __init__(self, causal):
        self.attention, self.norm = nn.MultiHeadAttention(2, 1, causal=causal, rng=0), nn.LayerNorm(2)
        self.head = nn.Dense(2, 3, rng=1)

    def forward(self, x):
        return self.head(self.norm(self.attention(np.reshape(x, (-1, 2, 2))))[:, -1])


class Image(nn.Module):
    """Four numbers as an image."""

    def __init__(self, *layers):
        self.body, self.head = nn.Sequential(nn.Conv2D(1, 2, 2, padding=1, rng=0), *layers), nn.Dense(8, 3, rng=1)

    def forward(self, x):
        return self.head(self.body(np.reshape(x, (-1, 1, 2, 2))).reshape(-1, 8))


class Checkpointed(nn.Module):
    def __init__(self):
        self.first, self.body, self.head = nn.Dense(4, 4, rng=0), nn.Dense(4, 4, rng=1), nn.Dense(4, 3, rng=2)

    def forward(self, x):
        return self.head(mf.checkpoint(self.body, self.first(x)))


MODELS = {
    "tanh": (dense(4, 5, 3, activation=nn.Tanh), nn.CrossEntropyLoss()),
    "sigmoid": (dense(4, 5, 3, activation=nn.Sigmoid), nn.CrossEntropyLoss(label_smoothing=0.1)),
    "softplus": (dense(4, 5, 3, activation=nn.Softplus), nn.CrossEntropyLoss(weight=[1, 2, 3])),
    "gelu": (dense(4, 5, 3, activation=nn.GELU), nn.CrossEntropyLoss()),
    "leaky": (dense(4, 5, 3, activation=nn.LeakyReLU), nn.CrossEntropyLoss()),
    "log-softmax": (nn.Sequential(nn.Dense(4, 3, rng=0), nn.LogSoftmax()), nn.CrossEntropyLoss()),
    "dropout": (nn.Sequential(nn.Dropout(0.5), nn.Dense(4, 3, rng=0)), nn.CrossEntropyLoss()),
    "no bias": (nn.Sequential(nn.Dense(4, 3, bias=False, rng=0)), nn.CrossEntropyLoss()),
    "shared": (Shared(), nn.CrossEntropyLoss()),
    "attention": (Attention(), nn.CrossEntropyLoss()),
    "windows": (Windows(), nn.CrossEntropyLoss()),
    "convolution": (Image(nn.Tanh(), nn.MaxPool2D(2, 1)), nn.CrossEntropyLoss()),
    "averages": (Image(nn.BatchNorm2D(2), nn.AvgPool2D(2, 1)), nn.CrossEntropyLoss()),
    "lstm": (Recurrent(nn.LSTM), nn.CrossEntropyLoss()),
    "gru": (Recurrent(nn.GRU), nn.CrossEntropyLoss()),
    "self-attention": (Attending(False), nn.CrossEntropyLoss()),
    "causal": (Attending(True), nn.CrossEntropyLoss()),
    "squared error": (dense(4, 3, 3), nn.MSELoss()),
    "huber": (dense(4, 3, 3), nn.HuberLoss()),
    "binary": (dense(4, 3, 3), nn.BCEWithLogitsLoss()),
}


@pytest.mark.parametrize("name", MODELS)
def test_all_strategies_agree(name):
    model, loss = MODELS[name]
    y = np.array([2, 0]) if isinstance(loss, nn.CrossEntropyLoss) else np.array([[0.0, 1, 1], [1, 0, 1]])
    result = law(model, loss, X4, y, rows=2)
    assert [w.name for w in result.ways] == NAMES
    for w in result.ways:
        assert w.note or w.difference < 1e-6, w
    for count in result.counts:
        assert count.rules == count.N - count.unreached
        assert (count.unreached > 0) == (name in ("self-attention", "causal") and count.kind == "scalars")
        assert count.steps / (count.N + count.P) <= 2


def test_weight_reuse_is_counted():
    result = law(*MODELS["windows"], X4, np.array([0, 1]), rows=2)
    rows = {row.layer: row for row in result.layers}
    assert rows["Windows"].uses == 2 * 2 * 3  # two weights, three windows in each of two rows
    assert rows["head"].uses == 2 * rows["head"].parameters


def test_a_convolution_uses_a_weight_in_every_place():
    result = law(Image(nn.Tanh(), nn.AvgPool2D(2, 1)), nn.CrossEntropyLoss(), X4, np.array([0, 1]), rows=2)
    rows = {row.layer: row for row in result.layers}
    # 3 x 3 places; a padded zero is a number too, and is multiplied; no bias has fewer uses
    assert rows["body.0"].uses == 2 * 9 * rows["body.0"].parameters
    assert rows["head"].uses == 2 * rows["head"].parameters
    assert result.ratio.exact and not result.ratio.others


def test_a_recurrence_is_no_single_product_and_is_named():
    ratio = law(*MODELS["lstm"], X4, np.array([0, 1])).ratio
    assert ratio.others == ["recur"] and not ratio.exact


def test_a_checkpoint_is_refused_in_one_line():
    says = "^law: expected nodes that are recorded once, got a checkpoint, which runs again; run the law without it"
    with pytest.raises(mf.errors.GraphError, match=says):
        law(Checkpointed(), nn.CrossEntropyLoss(), X4, np.array([0, 1]))


def test_without_a_scalar_graph_the_other_strategies_run():
    class Inverted(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter(np.eye(4) + 0.1)

        def forward(self, x):
            return x @ np.linalg.inv(self.weight)

    result = law(Inverted(), nn.CrossEntropyLoss(), X4, np.array([0, 1]))
    assert [w.graph for w in result.ways] == ["tensors"] * 4
    assert all(w.difference < 1e-6 for w in result.ways)
    assert "The scalar graph is left out: Inverted: inv: expected" in " ".join(str(result).split())
    assert result.ratio.others == ["inv"]


def test_shared_weights_raise_the_steps():
    count = law(*MODELS["shared"], X4, np.array([0, 1])).count("scalars")
    assert count.accumulated == 3 * 16 + 4 * 3 + 3
    assert 1 < count.steps / (count.N + count.P) < 2


def test_a_shared_weight_counts_for_each_of_its_layers():
    model = dense(4, 4, 4)
    model[2].weight = model[0].weight
    found = law(model, nn.MSELoss(), X4, X4, budget=1e-3)
    layers = {row.layer: row for row in found.layers}
    assert [(layers[name].parameters, layers[name].used) for name in "02"] == [(20, 20), (4, 20)]
    assert [row[6] for row in found.page_data()["layers"] if row[0] in "02"] == [1, 1]


def test_the_model_is_left_alone():
    model = dense(4, 5, 3)
    before = model.state_dict()
    law(model, nn.CrossEntropyLoss(), X4, np.array([0, 1]))
    assert model.training
    for name, p in model.named_parameters():
        assert p.dtype == np.float32 and p.grad is None
        np.testing.assert_array_equal(p.data, before[name])


def test_a_frozen_layer_is_not_differentiated():
    model = dense(4, 5, 3)
    model[0].requires_grad_(False)
    result = law(model, nn.CrossEntropyLoss(), X4, np.array([0, 1]))
    assert result.count("scalars").P == 5 * 3 + 3
    assert result.ratio.products_first == 2 * (2 * 4 * 5) + 2 * 5 * 3  # neither factor of the first is trained


def test_a_profile_around_a_law_is_of_its_own_steps():
    model, loss, y = dense(4, 3), nn.MSELoss(), np.ones((2, 3))

    def profiled(between):
        with mf.Profiler(model) as profiler:
            for _ in range(2):
                loss(model(X4.astype(np.float32)), y.astype(np.float32)).backward()
                between()
            profiler.end_epoch()
        epoch = profiler.session.epochs[0]
        return epoch.counts(), [(row.layer, row.op, row.nodes) for row in epoch.rows]

    alone = profiled(lambda: None)
    found = []
    assert profiled(lambda: found.append(law(model, loss, X4, y, budget=1e-3))) == alone
    assert found[0].counts == law(model, loss, X4, y, budget=1e-3).counts
    with mf.no_grad():
        assert law(model, loss, X4, y, budget=1e-3).counts == found[0].counts
