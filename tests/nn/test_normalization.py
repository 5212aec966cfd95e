"""Batch, layer and group normalization: statistics, constants, huge and far entries."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import ShapeError
from tests.cases.ops import floats

# Batch normalization


def test_batch_norm_follows_the_statistics():
    layer, x = nn.BatchNorm1D(3, momentum=0.25).astype(np.float64), floats((8, 3), 5, 9)
    y = layer(mf.tensor(x)).data
    np.testing.assert_allclose(y.mean(0), 0, atol=1e-14)
    np.testing.assert_allclose(y.var(0), x.var(0) / (x.var(0) + 1e-5))
    np.testing.assert_allclose(layer.running_mean.data, 0.25 * x.mean(0))
    np.testing.assert_allclose(layer.running_var.data, 0.75 + 0.25 * x.var(0, ddof=1))
    before = layer.state_dict()
    assert list(before) == ["weight", "bias", "running_mean", "running_var"]
    z = layer.eval()(mf.tensor(x)).data
    np.testing.assert_allclose(z, (x - before["running_mean"]) / np.sqrt(before["running_var"] + 1e-5))
    for name, value in layer.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]


@pytest.mark.parametrize(("kind", "shape"), [(nn.BatchNorm1D, (4, 3, 5)), (nn.BatchNorm2D, (4, 3, 2, 2))])
def test_batch_norm_of_channels(kind, shape):
    layer, x = kind(3).astype(np.float64), floats(shape, 5, 9)
    rows = np.moveaxis(x, 1, -1).reshape(-1, 3)
    flat = nn.BatchNorm1D(3).astype(np.float64)
    expected = np.moveaxis(flat(mf.tensor(rows)).data.reshape(4, *shape[2:], 3), -1, 1)
    np.testing.assert_allclose(layer(mf.tensor(x)).data, expected, atol=1e-13)
    np.testing.assert_allclose(layer.running_var.data, flat.running_var.data)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_batch_norm_is_copied_with_its_statistics(duplicate):
    layer = nn.BatchNorm1D(3)
    layer(floats((8, 3)))
    other = duplicate(layer)
    np.testing.assert_array_equal(other.running_var.data, layer.running_var.data)
    layer(floats((8, 3), 3, 4))
    assert not np.array_equal(other.running_var.data, layer.running_var.data)
    fresh = nn.BatchNorm1D(3)
    fresh.load_state_dict(layer.state_dict())
    np.testing.assert_array_equal(fresh.eval()(floats((2, 3))).data, layer.eval()(floats((2, 3))).data)


def test_one_value_per_channel_has_no_variance():
    for layer, x in ((nn.BatchNorm1D(3), (1, 3)), (nn.BatchNorm2D(3), (1, 3, 1, 1)), (nn.BatchNorm1D(3), (0, 3))):
        with pytest.raises(ShapeError, match="expected more than one value per channel in training, got shape"):
            nn.Sequential(nn.Identity(), layer)(np.ones(x))
        assert np.isfinite(layer.eval()(np.ones(x)).data).all()


def test_training_after_a_batch_norm_is_not_stale():
    layer = nn.BatchNorm1D(3)
    x = mf.tensor(floats((4, 3)).astype(np.float32), requires_grad=True)
    loss = layer.eval()(x).sum() + layer.train()(x).sum() + layer(x).sum()
    loss.backward()
    assert np.isfinite(x.grad).all()


def test_normalising_keeps_digits_far_from_zero():
    """The mean of the squares minus the square of the mean would have none left."""
    x = 1e8 + np.array([[0.0, 1.0, 2.0]])
    y = nn.LayerNorm(3, eps=1e-12).astype(np.float64)(mf.tensor(x)).data
    np.testing.assert_allclose(y, [[-np.sqrt(1.5), 0, np.sqrt(1.5)]], rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize(
    "layer", [nn.LayerNorm(4), nn.GroupNorm(2, 4), nn.BatchNorm1D(4)], ids=lambda m: type(m).__name__
)
def test_constant_input_is_normalised_to_the_bias(layer):
    x = mf.tensor(np.full((3, 4), 7.0, np.float32), requires_grad=True)
    y = layer(x)
    y.backward(floats((3, 4)).astype(np.float32))
    np.testing.assert_array_equal(y.data, 0)
    assert np.isfinite(x.grad).all()


NORMS = {
    "LayerNorm": (lambda: nn.LayerNorm(6), (4, 6)),
    "BatchNorm1D": (lambda: nn.BatchNorm1D(4), (6, 4)),
    "BatchNorm1D of sequences": (lambda: nn.BatchNorm1D(4), (3, 4, 5)),
    "BatchNorm2D": (lambda: nn.BatchNorm2D(2), (3, 2, 4, 5)),
    "GroupNorm": (lambda: nn.GroupNorm(2, 4), (3, 4, 5)),
}


@pytest.mark.parametrize("name", NORMS)
@pytest.mark.parametrize("value", [1e6 + 0.1, -123456.78, 1.1, 0.1, 3e-20, 3e30, 3e38])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalising_a_constant_gives_zero(name, value, dtype):
    make, shape = NORMS[name]
    layer = make().astype(dtype)
    x = mf.tensor(np.full(shape, value, dtype), requires_grad=True)
    with np.errstate(all="ignore"):
        y = layer(x)
        np.testing.assert_allclose(y.numpy(), np.zeros(shape), atol=1e-5)
        y.backward(np.random.default_rng(0).normal(size=shape).astype(dtype))
    assert np.all(np.abs(x.grad) < 1e4)
    if abs(value) > 1.0:
        assert not y.numpy().any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalising_keeps_huge_entries_in_range(dtype):
    scale = dtype(np.finfo(dtype).max / 8)
    x = mf.tensor(np.array([[-1.0, 1.0, 0.0], [1.0, 2.0, 6.0]], dtype) * scale, requires_grad=True)
    with np.errstate(all="ignore"):
        y = nn.LayerNorm(3).astype(dtype)(x)
        y.backward(np.ones((2, 3), dtype))
    expected = mf.nn.LayerNorm(3, eps=1e-30).astype(np.float64)(mf.tensor([[-1.0, 1.0, 0.0], [1.0, 2.0, 6.0]]))
    np.testing.assert_allclose(y.numpy(), expected.numpy(), rtol=1e-5, atol=1e-6)
    assert np.isfinite(x.grad).all()


def test_a_row_far_from_zero_changes_no_bit_of_the_others():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 8)).astype(np.float32)
    far = np.concatenate([x, 1e6 + x[:1]])
    np.testing.assert_array_equal(nn.LayerNorm(8)(far).numpy()[:5], nn.LayerNorm(8)(x).numpy())


def test_a_replayed_step_normalises_what_comes_far_from_zero():
    losses = {}
    rng = np.random.default_rng(0)
    batches = [rng.normal(size=(4, 6)).astype(np.float32) + shift for shift in (0, 0, 0, 1e6, 0, 1e4, 0)]
    batches[5][1] = 1e6
    for compiled in (False, True):
        model = nn.Sequential(nn.LayerNorm(6), nn.Dense(6, 2, rng=0))
        optimizer = mf.optim.SGD(model.parameters(), lr=0.1)
        step = mf.compile(lambda x, m=model: np.mean(np.square(m(x) - 1.0)), optimizer)
        losses[compiled] = []
        for x in batches:
            if compiled:
                loss = step(x)
            else:
                optimizer.zero_grad()
                loss = np.mean(np.square(model(mf.tensor(x)) - 1.0))
                loss.backward()
                optimizer.step()
            losses[compiled].append(loss.item())
    assert losses[True] == losses[False]
    assert "replayed" in step.explain()


def test_the_derivative_of_normalising_far_from_zero_is_differentiated_as_well():
    layer = nn.LayerNorm(3).astype(np.float64)
    x = np.array([[0.0, 1.0, 3.0]])
    with mf.no_grad():
        near, far = (mf.hessian(lambda t, by=by: np.sum(layer(t + by) ** 3))(x) for by in (0.0, 2.0**20))
    np.testing.assert_allclose(far, near, rtol=1e-9, atol=1e-9)


# In training


def test_a_trainer_trains_normalised_layers_by_log_probabilities():
    rng = np.random.default_rng(0)
    model = nn.Sequential(
        nn.Dense(4, 16, rng=rng), nn.BatchNorm1D(16), nn.SiLU(),
        nn.Residual(nn.Sequential(nn.LayerNorm(16), nn.Dense(16, 16, rng=rng), nn.Mish())), nn.Dense(16, 3, rng=rng), nn.LogSoftmax(),
    )  # fmt: skip
    train, test = mf.data.load("iris", rng=0)
    trainer = mf.Trainer(
        model, nn.NLLLoss(), mf.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), metrics=["accuracy"]
    )
    trainer.fit(train, epochs=10, batch_size=16, rng=0, progress=False)
    assert trainer.evaluate(test)["accuracy"] > 0.85
    assert np.abs(model[1].running_mean.data).max() > 0.1
