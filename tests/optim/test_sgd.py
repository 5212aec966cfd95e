"""SGD: the documented equations, missing gradients, ownership, refusals."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import ArgumentError, DTypeError, GraphError, NonFiniteError
from tests.helpers.optimizers import leaves

SETTINGS = {
    "plain": {},
    "momentum": {"momentum": 0.9},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "decay": {"weight_decay": 0.1},
    "momentum and decay": {"momentum": 0.5, "weight_decay": 0.1},
    "nesterov and decay": {"momentum": 0.5, "weight_decay": 0.1, "nesterov": True},
}

settings = pytest.mark.parametrize("options", SETTINGS.values(), ids=SETTINGS)


def gradients(step, arrays):
    rng = np.random.default_rng(100 + step)
    return [rng.standard_normal(a.shape).astype(a.dtype) for a in arrays]


def reference(p, g, v, lr, momentum=0.0, weight_decay=0.0, nesterov=False):
    """The equations of the docstring."""
    g = g + weight_decay * p
    v = momentum * v + g
    return p - lr * (g + momentum * v if nesterov else v), v


def give(parameters, values):
    for p, g in zip(parameters, values, strict=True):
        p.grad = g


@settings
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_twenty_steps_follow_the_equations(options, dtype):
    parameters = leaves(dtype)
    expected = [p.data.copy() for p in parameters]
    velocity = [np.zeros_like(a) for a in expected]
    optimizer = optim.SGD(parameters, lr=0.1, **options)
    for step in range(20):
        g = gradients(step, expected)
        give(parameters, g)
        optimizer.step()
        optimizer.zero_grad()
        for k in range(4):
            expected[k], velocity[k] = reference(expected[k], g[k], velocity[k], 0.1, **options)
    for p, a in zip(parameters, expected, strict=True):
        assert p.dtype == dtype
        np.testing.assert_allclose(
            p.data, a, rtol=2e-5 if dtype == np.float32 else 1e-13, atol=1e-6 if dtype == np.float32 else 0
        )


@settings
def test_a_missing_gradient_leaves_parameter_and_velocity_alone(options):
    parameters = leaves()
    expected = [p.data.copy() for p in parameters]
    velocity = [np.zeros_like(a) for a in expected]
    optimizer = optim.SGD(parameters, lr=0.1, **options)
    for step in range(20):
        g = gradients(step, expected)
        optimizer.zero_grad()
        for k in range(4):
            if (step + k) % 3:
                parameters[k].grad = g[k]
                expected[k], velocity[k] = reference(expected[k], g[k], velocity[k], 0.1, **options)
        optimizer.step()
    for p, a, v, span in zip(parameters, expected, velocity, optimizer.flat.spans, strict=True):
        np.testing.assert_allclose(p.data, a, rtol=1e-13)
        if options.get("momentum"):
            np.testing.assert_allclose(optimizer.velocity[span].reshape(v.shape), v, rtol=1e-13)


def test_a_frozen_layer_is_left_alone():
    model = nn.Sequential(nn.Dense(3, 4, rng=0), nn.Tanh(), nn.Dense(4, 2, rng=1))
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    x = np.ones((2, 3), np.float32)
    model(x).sum().backward()
    optimizer.step()
    model[0].requires_grad_(False)
    before = model[0].weight.data.copy(), model[2].weight.data.copy()
    optimizer.zero_grad()
    model(x).sum().backward()
    optimizer.step()
    np.testing.assert_array_equal(model[0].weight.data, before[0])
    assert not np.array_equal(model[2].weight.data, before[1])


def test_a_step_without_any_gradient_changes_nothing():
    parameters = leaves()
    optimizer = optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.5)
    before = optimizer.flat.values.copy()
    optimizer.step()
    np.testing.assert_array_equal(optimizer.flat.values, before)


def test_a_shared_parameter_is_counted_once():
    layer = nn.Dense(2, 2, rng=0)
    p = layer.weight
    optimizer = optim.SGD([p, layer.bias, p, p], lr=1.0)
    assert optimizer.flat.values.size == 6
    before = p.data.copy()
    p.grad = np.ones((2, 2), np.float32)
    optimizer.step()
    np.testing.assert_array_equal(p.data, before - 1)


def test_a_weight_shared_by_two_layers_adds_its_gradients():
    a, b = nn.Dense(2, 2, rng=0), nn.Dense(2, 2, rng=1)
    b.weight = a.weight
    model = nn.Sequential(a, b).astype(np.float64)
    x = np.array([[1.0, 2.0]])
    model(x).sum().backward()
    alone = model[0].weight.grad.copy()
    model.zero_grad()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    model(x).sum().backward()
    np.testing.assert_allclose(model[0].weight.grad, alone)
    assert optimizer.flat.values.size == 4 + 2 + 2


# Buffers


def test_parameters_and_gradients_are_views_of_two_buffers():
    model = nn.Sequential(nn.Dense(3, 4, rng=0), nn.Dense(4, 2, rng=1))
    values = [p.data.copy() for p in model.parameters()]
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    model(np.ones((5, 3))).sum().backward()
    for p, a in zip(model.parameters(), values, strict=True):
        np.testing.assert_array_equal(p.data, a)
        assert np.shares_memory(p.data, optimizer.flat.values)
        assert np.shares_memory(p._leaf.grad, optimizer.flat.gradients)
        assert not np.shares_memory(p.grad, optimizer.flat.gradients)  # the next backward overwrites these
    np.testing.assert_array_equal(
        optimizer.flat.gradients, np.concatenate([p.grad.ravel() for p in model.parameters()])
    )
    grads = [p.grad for p in model.parameters()]
    assert not any(np.shares_memory(a, b) for k, a in enumerate(grads) for b in grads[:k])


def test_gradients_are_those_without_an_optimizer():
    x, y = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32), np.array([0, 1, 0, 1, 1, 0, 1])
    results = []
    for owned in (False, True):
        model = nn.Sequential(nn.Dense(3, 4, rng=0), nn.ReLU(), nn.Dense(4, 2, rng=1))
        if owned:
            optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):  # they accumulate
            nn.CrossEntropyLoss()(model(x), y).backward()
        results.append([p.grad.copy() for p in model.parameters()])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_a_large_batch_has_the_gradients_of_its_parts():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((10_000, 3)).astype(np.float32)
    layer = nn.Dense(3, 2, rng=0)
    optim.SGD(layer.parameters(), lr=0.1)
    np.sum(np.square(layer(x))).backward()
    exact = mf.grad(lambda m: np.sum(np.square(m(x))))(copy.deepcopy(layer).astype(np.float64))
    np.testing.assert_allclose(layer.bias.grad, exact["bias"], rtol=1e-4)
    np.testing.assert_allclose(layer.weight.grad, exact["weight"], rtol=1e-4)


def test_a_gradient_from_before_is_kept():
    p = mf.tensor([1.0, 2.0], requires_grad=True)
    (p * 3.0).sum().backward()
    optimizer = optim.SGD([p], lr=1.0)
    np.testing.assert_array_equal(p.grad, [3, 3])
    optimizer.step()
    np.testing.assert_array_equal(p.data, [-2, -1])


def test_zero_grad_of_model_tensor_and_optimizer_are_one():
    p = mf.tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([p], lr=1.0)
    for forget in (optimizer.zero_grad, p.zero_grad, lambda: setattr(p, "grad", None)):
        (p * 3.0).sum().backward()
        assert p.grad == 3
        forget()
        assert p.grad is None
    (p * 3.0).sum().backward()
    assert p.grad == 3


def test_clipping_in_place_is_seen_by_the_step():
    p = mf.tensor([1.0, 2.0], requires_grad=True)
    optimizer = optim.SGD([p], lr=1.0)
    (p * 3.0).sum().backward()
    p.grad[...] *= 0.5
    p.grad *= 2
    p.grad = p.grad / 3
    optimizer.step()
    np.testing.assert_array_equal(p.data, [0, 1])


# Ownership


def test_a_second_optimizer_takes_over():
    model = nn.Dense(2, 2, rng=0)
    first = optim.SGD(model.parameters(), lr=0.1)
    second = optim.SGD([model.bias], lr=0.1)
    model(np.ones((1, 2))).sum().backward()
    before = [p.data.copy() for p in model.parameters()]
    with pytest.raises(GraphError) as info:
        first.step()
    assert str(info.value) == (
        "SGD.step: expected to own its parameters, got parameter 'bias' taken over by another optimizer or by astype; "
        "make one optimizer for all parameters, after astype"
    )
    for p, a in zip(model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.data, a)
    second.step()
    np.testing.assert_array_equal(model.bias.data, before[1] - np.float32(0.1))


def test_astype_takes_over_too():
    model = nn.Dense(2, 2, rng=0)
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    model.astype(np.float64)
    with pytest.raises(GraphError, match="after astype"):
        optimizer.step()


def test_a_parameter_without_a_name_that_was_taken_over_is_named_by_its_shape():
    model = nn.Dense(3, 2, rng=0)
    optimizer = optim.SGD([model.weight], lr=0.1)
    model.astype(np.float64)
    with pytest.raises(GraphError, match=r"got a leaf of shape \(3, 2\) taken over"):
        optimizer.step()


def test_two_optimizers_of_separate_parameters_get_along():
    a, b = leaves()[:2]
    first, second = optim.SGD([a], lr=1.0), optim.SGD([b], lr=1.0)
    before = a.data.copy(), b.data.copy()
    give((a, b), (np.ones((3, 2)), np.ones(2)))
    first.step()
    second.step()
    np.testing.assert_array_equal(a.data, before[0] - 1)
    np.testing.assert_array_equal(b.data, before[1] - 1)


# Refusals


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@settings
def test_a_gradient_that_is_not_finite_is_refused(bad, options):
    parameters = leaves()
    optimizer = optim.SGD(parameters, lr=0.1, **options)
    give(parameters, gradients(0, [p.data for p in parameters]))
    optimizer.step()
    g = gradients(1, [p.data for p in parameters])
    g[3][0, 1, 0] = bad
    optimizer.zero_grad()
    give(parameters, g)
    before = optimizer.flat.values.copy(), optimizer.velocity.copy()
    with pytest.raises(
        NonFiniteError, match=rf"^SGD.step: expected finite gradients, got {bad} for parameter number 3; no parameter"
    ):
        optimizer.step()
    np.testing.assert_array_equal(optimizer.flat.values, before[0])
    np.testing.assert_array_equal(optimizer.velocity, before[1])


def test_the_parameter_with_the_bad_gradient_is_named():
    model = nn.Sequential(nn.Dense(2, 2, rng=0), nn.Dense(2, 2, rng=0))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    model[1].weight.grad = np.full((2, 2), np.nan, np.float32)
    with pytest.raises(NonFiniteError, match=r"for parameter 1\.weight;"):
        optimizer.step()


def test_large_gradients_whose_square_overflows_are_fine():
    p = mf.tensor(np.ones(2, np.float32), requires_grad=True)
    optimizer = optim.SGD([p], lr=1e-30)
    p.grad = np.full(2, 1e30, np.float32)
    optimizer.step()
    np.testing.assert_array_equal(p.data, [0, 0])


BAD = {
    "lr": [0, -0.1, float("nan"), float("inf"), -float("inf")],
    "momentum": [-0.1, 1.0, 2.0, float("nan")],
    "weight_decay": [-0.1, float("nan"), float("inf")],
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, values in BAD.items() for v in values])
def test_settings_out_of_range(name, value):
    with pytest.raises(ArgumentError, match=rf"^SGD: expected {name} .*, finite, got {value}"):
        optim.SGD(leaves(), **{"lr": 0.1, name: value})


@pytest.mark.parametrize("value", BAD["lr"])
def test_a_rate_set_later_is_checked_too(value):
    p = mf.tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([p], lr=0.1, momentum=0.9)
    p.grad = np.ones(1)
    optimizer.lr = value
    with pytest.raises(ArgumentError, match="^SGD: expected lr above 0, finite"):
        optimizer.step()
    assert p.data == 1 and not optimizer.velocity.any()


def test_a_rate_may_change():
    p = mf.tensor([1.0], requires_grad=True)
    optimizer = optim.SGD([p], lr=0.1)
    p.grad = np.ones(1)
    optimizer.lr = 0.5
    optimizer.step()
    assert p.data == 0.5


def test_other_refusals():
    with pytest.raises(ArgumentError, match="^SGD: expected at least one parameter, got none; pass model.parameters"):
        optim.SGD([], lr=0.1)
    with pytest.raises(ArgumentError, match="^SGD: expected parameters, which are leaves, got the result of an op"):
        optim.SGD([leaves()[0] * 2.0], lr=0.1)
    with pytest.raises(ArgumentError, match="^SGD: expected parameters, which are leaves, got ndarray"):
        optim.SGD([np.ones(2)], lr=0.1)
    with pytest.raises(ArgumentError, match="expected a momentum above 0 with nesterov=True"):
        optim.SGD(leaves(), lr=0.1, nesterov=True)
    with pytest.raises(
        DTypeError, match="expected parameters of one float dtype, got .*float32.*float64.*use model.astype"
    ):
        optim.SGD([leaves()[0], leaves(np.float32)[1]], lr=0.1)
    with pytest.raises(DTypeError, match="float"):
        optim.SGD([mf.tensor([1, 2])], lr=0.1)
    with pytest.raises(ArgumentError):
        optim.SGD(nn.Dense(2, 2).named_parameters(), lr=0.1)


def test_a_failed_construction_changes_nothing():
    a, b = leaves()[0], leaves(np.float32)[1]
    first = optim.SGD([a], lr=0.1)
    with pytest.raises(DTypeError):
        optim.SGD([a, b], lr=0.1)
    a.grad = np.ones((3, 2))
    first.step()


# Saving


@settings
def test_state_dict_round_trip_continues_bitwise(options):
    a, b = leaves(), leaves()
    first, second = optim.SGD(a, lr=0.1, **options), optim.SGD(b, lr=0.7)
    for step in range(3):
        give(a, gradients(step, [p.data for p in a]))
        first.step()
        first.zero_grad()
    state = pickle.loads(pickle.dumps(first.state_dict()))
    for p, q in zip(a, b, strict=True):
        q.data = p.data
    second.load_state_dict(state)
    assert second.lr == 0.1
    for step in range(3, 6):
        for optimizer, parameters in ((first, a), (second, b)):
            give(parameters, gradients(step, [p.data for p in parameters]))
            optimizer.step()
            optimizer.zero_grad()
    for p, q in zip(a, b, strict=True):
        np.testing.assert_array_equal(p.data, q.data)


def test_state_dict_is_a_copy():
    optimizer = optim.SGD(leaves(), lr=0.1, momentum=0.9)
    state = optimizer.state_dict()
    state["velocity"][...] = 9
    assert not optimizer.velocity.any()


@pytest.mark.parametrize(
    "spoil",
    [
        {"velocity": np.zeros(3)}, {"velocity": None}, {"lr": -1.0}, {"lr": float("nan")}, {"momentum": 2.0},
        {"weight_decay": -1.0}, {"nesterov": True, "momentum": 0.0},
    ],
    ids=str,
)  # fmt: skip
def test_loading_is_all_or_nothing(spoil):
    optimizer = optim.SGD(leaves(), lr=0.1, momentum=0.9)
    before = optimizer.state_dict()
    with pytest.raises((ArgumentError, KeyError, ValueError, TypeError)):
        optimizer.load_state_dict(before | {"lr": 0.3, "velocity": before["velocity"] + 1} | spoil)
    after = optimizer.state_dict()
    assert after["lr"] == 0.1 and after["momentum"] == 0.9
    np.testing.assert_array_equal(after["velocity"], before["velocity"])


def test_loading_without_a_setting_says_which():
    optimizer = optim.SGD(leaves(), lr=0.1)
    state = optimizer.state_dict()
    del state["lr"]
    with pytest.raises((ArgumentError, KeyError), match="lr"):
        optimizer.load_state_dict(state)


def test_repr():
    assert repr(optim.SGD(leaves(), lr=0.1, momentum=0.9)) == (
        "SGD(lr=0.1, momentum=0.9, nesterov=False, weight_decay=0.0; 17 parameters)"
    )


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
@settings
def test_pytorch_agrees(options):
    torch = pytest.importorskip("torch")
    parameters = leaves()
    theirs = [torch.tensor(p.data.copy(), requires_grad=True) for p in parameters]
    optimizer, other = optim.SGD(parameters, lr=0.1, **options), torch.optim.SGD(theirs, lr=0.1, **options)
    for step in range(20):
        g = gradients(step, [p.data for p in parameters])
        give(parameters, g)
        for t, a in zip(theirs, g, strict=True):
            t.grad = torch.tensor(a)
        optimizer.step()
        other.step()
        optimizer.zero_grad()
    for p, t in zip(parameters, theirs, strict=True):
        np.testing.assert_allclose(p.data, t.detach().numpy(), rtol=1e-13)
