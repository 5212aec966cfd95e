"""All optimizers, by the table: equations, descent, missing gradients, groups, refusals, copies, saving."""

from __future__ import annotations

import copy
import inspect
import pickle

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import ArgumentError, GraphError, NonFiniteError
from tests.cases.optimizers import CASES, make
from tests.helpers.optimizers import leaves, rosenbrock

VARIANTS = [(n, v) for n, row in CASES.items() for v in row.variants if row.reference]
variants = pytest.mark.parametrize(("name", "variant"), VARIANTS)
names = pytest.mark.parametrize("name", CASES)
stepped = pytest.mark.parametrize("name", [n for n, row in CASES.items() if row.reference])


def gradient(step, p):
    return np.random.default_rng((100, step, p.size)).standard_normal(p.shape).astype(p.dtype)


class Reference:
    """Parameters, each stepped by its own equations."""

    def __init__(self, name, parameters, options):
        self.rule, self.values = CASES[name].reference, [p.data.copy() for p in parameters]
        self.options = options if isinstance(options, list) else [options] * len(self.values)
        self.states, self.counts = [{} for _ in parameters], [0] * len(parameters)

    def step(self, gradients):
        for k, g in enumerate(gradients):
            if g is not None:
                self.counts[k] += 1
                self.values[k] = self.rule(self.values[k], g, self.states[k], self.counts[k], **self.options[k])


def run(optimizer, reference, parameters, steps, missing=lambda step, k: False):
    for step in range(steps):
        g = [None if missing(step, k) else gradient(step, p) for k, p in enumerate(parameters)]
        optimizer.zero_grad()
        for p, a in zip(parameters, g, strict=True):
            p.grad = a
        optimizer.step()
        reference.step(g)


def agree(optimizer, reference, parameters, rtol=1e-12):
    for k, p in enumerate(parameters):
        np.testing.assert_allclose(p.data, reference.values[k], rtol=rtol, atol=rtol)
        for array in optimizer.STATE:
            if array in reference.states[k] and getattr(optimizer, array).any():
                mine = getattr(optimizer, array)[optimizer.flat.spans[k]].reshape(p.shape)
                np.testing.assert_allclose(mine, reference.states[k][array], rtol=rtol, atol=rtol)


def test_every_optimizer_has_a_row():
    exported = [getattr(optim, n) for n in optim.__all__]
    classes = {o.__name__ for o in exported if inspect.isclass(o) and issubclass(o, optim.Optimizer)}
    assert classes - {"Optimizer"} == set(CASES)
    for name, row in CASES.items():
        settings = set(inspect.signature(getattr(optim, name)).parameters) - {"parameters"}
        assert set(row.bad) == settings, "each setting is tested with bad values"


@variants
def test_fifty_steps_are_those_of_each_parameter_alone(name, variant):
    options, parameters = CASES[name].variants[variant], leaves()
    optimizer, reference = make(name, parameters, **options), Reference(name, parameters, options)
    run(optimizer, reference, parameters, 50)
    agree(optimizer, reference, parameters)


@variants
def test_float32_stays_float32(name, variant):
    options, parameters = CASES[name].variants[variant], leaves(np.float32)
    optimizer, reference = make(name, parameters, **options), Reference(name, leaves(), options)
    run(optimizer, reference, parameters, 20)
    for p, a in zip(parameters, reference.values, strict=True):
        assert p.dtype == np.float32
        np.testing.assert_allclose(p.data, a, rtol=2e-4, atol=2e-5)


@variants
@pytest.mark.parametrize("frozen", [(0,), (1, 2), (0, 2), (0, 1, 2, 3)])
def test_parameters_without_a_gradient_are_looked_up_once(name, variant, frozen):
    options, parameters = CASES[name].variants[variant], leaves()
    optimizer, reference = make(name, parameters, **options), Reference(name, parameters, options)
    checks, update = [], optimizer._update_present
    optimizer._update_present = lambda: checks.append(1) or update()
    for missing in (frozen, (), frozen, (3,)):  # frozen, trained, and frozen again
        run(optimizer, reference, parameters, 5, missing=lambda step, k, missing=missing: k in missing)
        agree(optimizer, reference, parameters)
        given = [p.grad.ravel() for p in parameters if p.grad is not None]
        assert optimizer.gradient_norm == pytest.approx(np.linalg.norm(np.concatenate([[0.0], *given])))
    assert len(checks) == 4, "the first step of each set of parameters"


@variants
def test_a_missing_gradient_leaves_parameter_and_state_alone(name, variant):
    options, parameters = CASES[name].variants[variant], leaves()
    optimizer, reference = make(name, parameters, **options), Reference(name, parameters, options)
    run(optimizer, reference, parameters, 25, missing=lambda step, k: (step + k) % 3 == 0)
    run(optimizer, reference, parameters, 3)  # in one piece again, with different counts
    run(optimizer, reference, parameters, 3, missing=lambda step, k: k == 1)
    agree(optimizer, reference, parameters)


@variants
def test_groups_have_settings_of_their_own(name, variant):
    options, parameters = CASES[name].variants[variant], leaves()
    own = {"lr": 0.007} | ({"weight_decay": 0.3} if "weight_decay" in CASES[name].bad else {})
    groups = [{"params": parameters[:1]}, {"params": parameters[1:3], **own}, {"params": parameters[3]}]
    optimizer = make(name, groups, **options)
    reference = Reference(name, parameters, [options, options | own, options | own, options])
    run(optimizer, reference, parameters, 10)
    run(optimizer, reference, parameters, 10, missing=lambda step, k: (step + k) % 3 == 0)
    agree(optimizer, reference, parameters)
    optimizer.lr /= 2  # moves all
    optimizer.groups[2]["weight_decay"] = 0.7
    for k, settings in enumerate(reference.options):
        reference.options[k] = settings | {"lr": settings["lr"] / 2} | ({"weight_decay": 0.7} if k == 3 else {})
    assert optimizer.groups[1]["lr"] == pytest.approx(0.0035, rel=1e-15)
    run(optimizer, reference, parameters, 10)
    agree(optimizer, reference, parameters)
    optimizer.groups[0]["lr"] = 0.05
    assert [group["lr"] for group in optimizer.groups] == pytest.approx([0.05, 0.0035, options["lr"] / 2])
    assert "3 groups" not in repr(optimizer.groups[0])
    assert repr(optimizer).endswith("; 17 parameters in 3 groups)")


def quadratic(p):
    scale = np.array([1.0, 2.0, 5.0])
    return ((p - np.array([1.0, -2.0, 0.5])) ** 2 * scale).sum()


@names
@pytest.mark.parametrize(("function", "start"), [(quadratic, [0.0, 0, 0]), (rosenbrock, [-1.0, 1.5])])
def test_it_descends(name, function, start):
    steps, options = getattr(CASES[name], function.__name__)
    p = mf.tensor(start, requires_grad=True)
    optimizer = make(name, [p], **options)

    def closure():
        optimizer.zero_grad()
        loss = function(p)
        loss.backward()
        return loss

    for _ in range(steps):
        if optimizer.takes_closure:
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()
    assert function(p).item() < 1e-3 < 1 < function(mf.tensor(start)).item()


# Refusals


@pytest.mark.parametrize(("name", "setting", "value"), [(n, s, v) for n, r in CASES.items() for s, vs in r.bad.items() for v in vs])  # fmt: skip
def test_settings_out_of_range(name, setting, value):
    with pytest.raises(ArgumentError, match=rf"^{name}: expected {setting} (above|from|at least|to be) .*, got "):
        make(name, leaves(), **{setting: value})
    optimizer = make(name, parameters := leaves())
    before = optimizer.flat.values.copy()
    for p in parameters:
        p.grad = np.ones(p.shape)
    setattr(optimizer, setting, value)
    with pytest.raises(ArgumentError, match=rf"^{name}: expected {setting}"):
        optimizer.step(*[lambda: 1.0] * optimizer.takes_closure)
    np.testing.assert_array_equal(optimizer.flat.values, before)


@stepped
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_changes_nothing(name, bad):
    parameters = leaves()
    optimizer = make(name, parameters)
    run(optimizer, Reference(name, parameters, {"lr": 0.1}), parameters, 2)
    before = copy.deepcopy(optimizer.state_dict()), optimizer.flat.values.copy()
    optimizer.zero_grad()
    parameters[3].grad = np.full((2, 2, 2), bad)
    with pytest.raises(NonFiniteError, match=rf"^{name}.step: expected finite gradients, got {bad} for .* number 3;"):
        optimizer.step()
    np.testing.assert_array_equal(optimizer.flat.values, before[1])
    np.testing.assert_equal(optimizer.state_dict(), before[0])


@stepped
def test_a_gradient_whose_square_overflows(name):
    parameters = leaves(np.float32)
    optimizer = make(name, parameters, lr=1e-30)
    parameters[1].grad = np.full(2, 1e30, np.float32)
    before = optimizer.state_dict()
    if not optimizer.SQUARES:
        optimizer.step()
        assert optimizer.gradient_norm == pytest.approx(2**0.5 * 1e30)
        return
    text = rf"^{name}.step: expected gradients below 1.8e\+19, whose squares are finite, got 1\S*e\+30 for parameter number 1; no parameter was changed; clip"
    with pytest.raises(NonFiniteError, match=text):
        optimizer.step()
    np.testing.assert_equal(optimizer.state_dict(), before)


@names
def test_a_second_optimizer_takes_over(name):
    parameters = leaves()
    first = make(name, parameters)
    second = make(name, parameters[:1])
    with pytest.raises(GraphError, match=rf"^{name}.step: expected to own its parameters"):
        first.step(*[lambda: 1.0] * first.takes_closure)
    with pytest.raises(GraphError, match=rf"^{name}.write: expected to own its parameters"):
        first.flat.write(0)
    assert second.flat.owner.taken_by == ""


def test_groups_that_make_no_sense():
    a, b, c, d = leaves()
    for groups, text in (
        ([{"params": [a]}, b], 'SGD, group 1: expected a dict with "params", got Tensor'),
        ([{"lr": 1.0}], 'SGD, group 0: expected a dict with "params", got only lr'),
        ([{"params": [a], "mass": 1}], "SGD, group 0: expected params and any of lr, momentum, nesterov, weight_decay, got 'mass'"),
        ([{"params": []}], "SGD, group 0: expected at least one parameter, got none"),
        ([{"params": a}, {"params": [b, a]}], "SGD, group 1: expected parameters of no other group, got one that is in an earlier group"),
        ([{"params": [a], "lr": -0.1}], "SGD: expected lr above 0, finite, got -0.1"),
        ([{"params": [a], "lr": "fast"}], "SGD, group 0: expected lr to be a number, got 'fast'"),
    ):  # fmt: skip
        with pytest.raises(ArgumentError) as info:
            optim.SGD(groups, lr=0.1)
        assert str(info.value) == text
    optimizer = optim.SGD([{"params": [a, a]}], lr=0.1)
    assert optimizer.flat.values.size == 6
    with pytest.raises(ArgumentError, match="^group: expected one of lr, momentum, nesterov, weight_decay, got 'mass'"):
        optimizer.groups[0]["mass"] = 1
    with pytest.raises(ArgumentError, match="^group: expected lr to be a number, got 'fast'$"):
        optimizer.groups[0]["lr"] = "fast"


def test_settings_of_arrays_and_tensors_are_numbers():
    p = mf.tensor([1.0, 2.0], requires_grad=True)
    optimizer = optim.SGD([{"params": p, "lr": mf.tensor(0.2)}], lr=mf.tensor(0.1))
    assert type(optimizer.lr) is float and optimizer.groups[0]["lr"] == 0.2
    optimizer.groups[0]["lr"] = np.array(0.3)
    optimizer.lr = mf.tensor(0.4)
    assert type(optimizer.lr) is float and optimizer.groups[0]["lr"] == pytest.approx(1.2)
    with pytest.raises(
        ArgumentError,
        match=r"^optimizer: expected numbers as settings, got a Tensor that needs a gradient; pass t\.item",
    ):
        optimizer.lr = mf.tensor(0.4, requires_grad=True)


# Copies and saving


@variants
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["deepcopy", "pickle"])
def test_a_copy_goes_on_alone(name, variant, copied):
    model = nn.Sequential(nn.Dense(3, 4, rng=0), nn.Tanh(), nn.Dense(4, 2, rng=1))
    groups = [{"params": model[0].parameters(), "lr": 0.01}, {"params": model[2].parameters()}]
    optimizer = make(name, groups, **CASES[name].variants[variant])
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)

    def step(model, optimizer):
        optimizer.zero_grad()
        np.square(model(x)).mean().backward()
        optimizer.step()
        return optimizer.flat.values.tobytes()

    step(model, optimizer)
    model2, optimizer2 = copied((model, optimizer))
    before = optimizer.flat.values.tobytes()
    first = step(model2, optimizer2)
    assert optimizer.flat.values.tobytes() == before
    assert all(np.shares_memory(p.data, optimizer2.flat.values) for p in model2.parameters())
    assert step(model, optimizer) == first != before
    optimizer2.lr *= 2
    assert step(model, optimizer) != step(model2, optimizer2)


@variants
def test_state_dict_goes_on_bitwise(name, variant):
    a, b = leaves(), leaves()
    options = CASES[name].variants[variant]
    first = make(name, [{"params": a[:2]}, {"params": a[2:], "lr": 0.003}], **options)
    second = make(name, [{"params": b[:2]}, {"params": b[2:]}], lr=0.7)
    reference = Reference(name, a, options)
    run(first, reference, a, 3, missing=lambda step, k: (step + k) % 3 == 0)
    second.load_state_dict(pickle.loads(pickle.dumps(first.state_dict())))
    second.flat.write(first.flat.values)
    assert second.settings == first.settings
    for optimizer, parameters in ((first, a), (second, b)):
        run(optimizer, reference, parameters, 3)
    assert first.flat.values.tobytes() == second.flat.values.tobytes()


@names
def test_loading_is_all_or_nothing(name):
    optimizer = make(name, leaves())
    before = optimizer.state_dict()
    array = "s" if name == "LBFGS" else optimizer.STATE[0]
    spoilt = [
        {array: np.zeros((1, 3))},
        {"lr": -1.0},
        {"groups": []},
        {"groups": [{"lr_ratio": -1.0}]},
        *[{k: None} for k in optimizer.settings if k not in ("nesterov",)],
    ]
    for change in spoilt:
        with pytest.raises((ArgumentError, ValueError, TypeError)):
            optimizer.load_state_dict(before | {"lr": 0.3} | change)
    older = ("optimizer", "groups", "group_sizes", "parameters")  # older states lack these
    for entry in [k for k in before if k not in older]:
        with pytest.raises(ArgumentError, match=f"^{name}.load_state_dict: expected an entry '{entry}', got only"):
            optimizer.load_state_dict({k: v for k, v in before.items() if k != entry})
    np.testing.assert_equal(optimizer.state_dict(), before)


def test_a_state_of_another_kind_of_optimizer_is_refused():
    state = make("Adam", leaves()).state_dict()
    adamw = make("AdamW", leaves())
    before = adamw.state_dict()
    with pytest.raises(ArgumentError, match="^AdamW.load_state_dict: expected the state of AdamW, got that of Adam$"):
        adamw.load_state_dict(state)
    np.testing.assert_equal(adamw.state_dict(), before)
    adamw.load_state_dict({k: v for k, v in state.items() if k != "optimizer"})  # as older versions wrote it


@stepped
def test_timers_are_notified_of_each_update(name, watcher):
    parameters = leaves()
    optimizer = make(name, parameters)
    with watcher.on():
        parameters[0].grad = np.ones((3, 2))
        optimizer.step()
        optimizer.step()
        watcher.on_update = None  # not called
        parameters[0].grad = np.full((3, 2), np.nan)
        with pytest.raises(NonFiniteError):
            optimizer.step()
    assert watcher.phases == ["update"] * 3


def test_an_optimizer_without_equations():
    p = leaves()[0]

    class Empty(optim.Optimizer):
        lr = optim.SGD.lr

    optimizer = Empty([p], lr=0.1)
    p.grad = np.ones((3, 2))
    with pytest.raises(NotImplementedError, match="Empty._update: expected update equations, got none"):
        optimizer.step()


@pytest.mark.parametrize(("old", "new"), [("ARRAYS", "STATE"), ("COUNTS", "NEEDS_STEP"), ("_move", "_update")])
def test_former_names_in_a_subclass_are_refused_with_the_present_one(old, new):
    with pytest.raises(ArgumentError, match=f"^Old: expected the name {new}, got {old}; rename {old} to {new}$"):
        type("Old", (optim.SGD,), {old: None})


def test_the_former_name_of_hyperparameter_is_refused_with_the_present_one():
    with pytest.raises(ImportError, match=r"^microfw\.optim\.hyperparameter: expected Hyperparameter, got Setting"):
        from microfw.optim.hyperparameter import Setting  # noqa: F401


def test_a_variance_that_rounding_turned_negative():
    p = mf.tensor(np.ones(50, np.float32), requires_grad=True)
    optimizer = optim.RMSprop([p], lr=1e-6, centered=True, alpha=0.5)
    for _ in range(60):  # one gradient always: the variance is 0, but for rounding
        p.grad = np.linspace(0.1, 7, 50, dtype=np.float32)
        optimizer.step()
    assert np.isfinite(p.data).all()


def test_adam_with_a_tiny_eps_leaves_what_has_no_slope():
    p = mf.tensor(np.array([1.0, 1.0], np.float32), requires_grad=True)
    optimizer = optim.Adam([p], lr=0.1, eps=1e-44)
    (p * np.array([0.0, 1.0], np.float32)).sum().backward()
    optimizer.step()
    np.testing.assert_allclose(p.data, [1.0, 0.9], rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (1,), (2,), (1, 2), (4, 1), (4, 2)])
def test_a_bias_of_any_shape_gets_its_gradient_in_the_optimizers_buffer(shape):
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    found = []
    for owned in (False, True):
        weight, bias = nn.Parameter(np.ones((3, 2))), nn.Parameter(np.full(shape, 0.5))
        optimizer = optim.SGD([weight, bias], lr=0.1) if owned else None
        (mf.ops.linear(x, weight, bias) ** 2).sum().backward()
        assert (bias._leaf.grad_buffer is None) == (optimizer is None)
        found.append(bias.grad.copy())
    np.testing.assert_allclose(*found, rtol=1e-6)
    assert found[1].shape == shape
