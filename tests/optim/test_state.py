"""The state of an optimizer: which parameters it is of."""

import copy
import pickle
from functools import partial

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import ArgumentError, ShapeError
from tests.cases.optimizers import CASES, make

OPTIMIZERS = {name: partial(make, name, **row.state) for name, row in CASES.items()}
each = pytest.mark.parametrize("name", OPTIMIZERS)


def trained(name, model):
    return train(model, OPTIMIZERS[name](model.parameters()))


def train(model, optimizer):
    X = np.ones((4, model.parameters()[0].shape[0]), np.float32)

    def closure():
        optimizer.zero_grad()
        loss = (model(X) ** 2).sum()
        loss.backward()
        return loss

    for _ in range(2):
        if not optimizer.takes_closure:
            closure()
        optimizer.step(*([closure] if optimizer.takes_closure else []))
    return optimizer


class Named(nn.Module):
    def __init__(self, rng, *names):
        for k, name in enumerate(names):
            setattr(self, name, nn.Dense(2, 2, rng=rng + k))

    def forward(self, x):
        for _, layer in self.children():
            x = layer(x)
        return x


@each
@pytest.mark.parametrize(
    ("saved", "other", "text"),
    [
        (lambda: nn.Dense(3, 1, rng=0), lambda: nn.Dense(1, 2, rng=0), r"a state for parameter weight of shape \(1, 2\), got one for weight of shape \(3, 1\)"),
        (lambda: nn.Dense(1, 3, rng=0), lambda: nn.Sequential(nn.Dense(1, 3, rng=0), nn.Dense(3, 1, rng=0)), r"a state for 4 parameters, got 2, without 1.weight"),
        (lambda: Named(0, "a", "b"), lambda: Named(0, "a"), r"a state for 2 parameters, got 4, with another b.weight"),
        (lambda: Named(0, "a", "b"), lambda: Named(0, "b", "a"), r"a state for parameter b.weight of shape \(2, 2\), got one for a.weight of shape \(2, 2\)"),
        (lambda: nn.Sequential(nn.Dense(2, 2, rng=0), nn.ReLU(), nn.Dense(2, 2, rng=0)), lambda: nn.Sequential(nn.Dense(2, 2, rng=0), nn.Dense(2, 2, rng=0)), r"parameter 1.weight of .* got one for 2.weight"),
    ],
)  # fmt: skip
def test_the_state_of_another_model_is_refused(name, saved, other, text):
    state = trained(name, saved()).state_dict()
    optimizer = trained(name, other())
    before = optimizer.state_dict()
    with pytest.raises(
        ArgumentError, match=f"^{name}.load_state_dict: expected .*{text}.*; make the optimizer for the same model"
    ):
        optimizer.load_state_dict(state)
    np.testing.assert_equal(optimizer.state_dict(), before)


DAMAGED = {
    "complex": ("mean", lambda v: v * 1j, "expected mean to be an array of numbers, got ndarray of complex128"),
    "not a number": ("counts", lambda v: v * np.nan, "expected counts to be integers of at least 0, got nan"),
    "negative": ("counts", lambda v: v - 5, "expected counts to be integers of at least 0, got -"),
    "no integer": ("counts", lambda v: v + 0.5, "expected counts to be integers of at least 0, got"),
    "none": ("counts", lambda v: [None] * len(v), "expected counts to be an array of numbers, got list of object"),
    "too large": ("square", lambda v: v + 1e300, r"expected square of finite values of float32, got 1e\+300"),
    "text": ("mean", lambda v: "x", "expected mean to be an array of numbers, got str of <U1"),
    "ragged": ("mean", lambda v: [[1], [1, 2]], "expected mean to be an array of numbers, got list"),
    "groups": ("groups", lambda v: None, "expected groups to be a list of dicts, got None"),
    "a group": ("groups", lambda v: [3], r"expected groups to be a list of dicts, got \[3\]"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_state_is_refused_and_nothing_is_changed(case):
    entry, spoil, text = DAMAGED[case]
    optimizer = trained("Adam", nn.Dense(3, 2, rng=0))
    state = optimizer.state_dict()
    with pytest.raises(ArgumentError, match=f"^Adam.load_state_dict: {text}"):
        optimizer.load_state_dict(
            {**state, entry: spoil(np.asarray(state[entry], float) if entry != "groups" else None)}
        )
    np.testing.assert_equal(optimizer.state_dict(), state)


@pytest.mark.parametrize(
    "change", [{"s": 1.0}, {"y": "x"}, {"s": [[1], [1, 2]]}, {"present": ["a", "b"]}, {"present": [2, 2]}]
)
def test_damaged_pairs_are_refused_and_nothing_is_changed(change):
    optimizer = trained("LBFGS", nn.Dense(3, 2, rng=0))
    state = optimizer.state_dict()
    with pytest.raises(ArgumentError, match="^LBFGS.load_state_dict: expected (s|y|present)"):
        optimizer.load_state_dict({**state, **change})
    np.testing.assert_equal(optimizer.state_dict(), state)


@each
def test_a_state_that_is_no_dict_is_refused(name):
    for state in (None, [1]):
        with pytest.raises(ArgumentError, match=f"^{name}.load_state_dict: expected what state_dict.. returned, got"):
            OPTIMIZERS[name](nn.Dense(2, 2, rng=0).parameters()).load_state_dict(state)


@each
def test_states_fit_a_model_of_the_same_names_however_it_was_used(name):
    body, other = (nn.Sequential(nn.Dense(2, 3, rng=k), nn.Tanh()) for k in range(2))
    whole = nn.Sequential(body, nn.Dense(3, 1, rng=2))
    optimizer = trained(name, body)
    whole(np.ones((1, 2), np.float32))
    whole.parameters()
    state = optimizer.state_dict()
    assert [parameter[0] for parameter in state["parameters"]] == ["0.0.weight", "0.0.bias"]
    for parameters in (other.parameters(), copy.deepcopy(body).parameters()):
        fresh = OPTIMIZERS[name](parameters)
        fresh.load_state_dict(pickle.loads(pickle.dumps(state)))
        assert fresh.settings == optimizer.settings
    back = trained(name, other).state_dict()
    optimizer.load_state_dict(back)


@each
def test_parameters_of_no_module_go_by_their_shapes(name):
    def leaves(*shapes):
        return [mf.tensor(np.ones(shape), requires_grad=True) for shape in shapes]

    state = OPTIMIZERS[name](leaves((2, 3), (3,))).state_dict()
    OPTIMIZERS[name](leaves((2, 3), (3,))).load_state_dict(state)
    with pytest.raises(
        ArgumentError, match=r"a state for parameter 0 of shape \(3, 2\), got one for 0 of shape \(2, 3\)"
    ):
        OPTIMIZERS[name](leaves((3, 2), (3,))).load_state_dict(state)


@each
def test_states_of_older_versions_load_where_they_are_as_long(name):
    model = nn.Dense(3, 2, rng=0)
    optimizer = trained(name, model)
    old = {key: value for key, value in optimizer.state_dict().items() if key not in ("parameters", "group_sizes")}
    fresh = OPTIMIZERS[name](nn.Dense(3, 2, rng=1).parameters())
    fresh.load_state_dict(old)
    np.testing.assert_equal({k: v for k, v in fresh.state_dict().items() if k in old}, old)
    if name != "LBFGS" or optimizer.pairs:
        with pytest.raises(ArgumentError, match="shape"):
            OPTIMIZERS[name](nn.Dense(3, 3, rng=1).parameters()).load_state_dict(old)


@pytest.mark.parametrize("broken", [3, [3], [["a"]], [["a", 3]], [["a", "bc"]]])
def test_a_damaged_list_of_parameters_is_refused(broken):
    optimizer = optim.SGD(nn.Dense(3, 2, rng=0).parameters(), lr=0.1)
    with pytest.raises(ArgumentError, match="^SGD.load_state_dict: expected parameters, each a name and a shape, got"):
        optimizer.load_state_dict(optimizer.state_dict() | {"parameters": broken})


def test_groups_that_are_cut_elsewhere_are_refused():
    def make(cut):
        parameters = nn.Sequential(nn.Dense(2, 2, rng=0), nn.Dense(2, 2, rng=1)).parameters()
        return optim.SGD([{"params": parameters[:cut], "lr": 0.5}, {"params": parameters[cut:]}], lr=0.1)

    with pytest.raises(
        ArgumentError, match=r"^SGD.load_state_dict: expected groups of \[2, 2\] parameters, got \[1, 3\]"
    ):
        make(2).load_state_dict(make(1).state_dict())


def test_the_average_of_another_model_is_refused():
    averages = [
        optim.Average(optim.SGD(nn.Dense(*sizes, rng=0).parameters(), lr=0.1), 0.9) for sizes in ((3, 1), (1, 2))
    ]
    state = averages[0].state_dict()
    before = averages[1].state_dict()
    with pytest.raises(
        ArgumentError, match=r"^Average.load_state_dict: expected a state for parameter weight of shape \(1, 2\)"
    ):
        averages[1].load_state_dict(state)
    with pytest.raises(ArgumentError, match="^Average.load_state_dict: expected decay from 0 to below 1, got 2"):
        averages[0].load_state_dict(state | {"decay": 2})
    with pytest.raises(ArgumentError, match="^Average.load_state_dict: expected an entry 'values', got only decay"):
        averages[0].load_state_dict({"decay": 0.5})
    np.testing.assert_equal(averages[1].state_dict(), before)
    averages[0].load_state_dict({"decay": 0.5, "values": np.ones(4)})  # as older versions wrote it
    assert averages[0].decay == 0.5
    with (
        averages[0].swapped(),
        pytest.raises(ArgumentError, match="^Average.load_state_dict: expected the parameters in place"),
    ):
        averages[0].load_state_dict(state)


@pytest.mark.parametrize("name", ["SGD", "Adam", "RMSprop", "Adagrad"])
def test_state_that_is_assigned_is_used(name):
    made = []
    for assign in (False, True):
        model = nn.Dense(2, 2, rng=0)
        optimizer = OPTIMIZERS[name](model.parameters())
        for k in range(3):
            for state in optimizer.STATE if k == 2 else ():
                if assign:
                    setattr(optimizer, state, np.zeros_like(getattr(optimizer, state)))
                else:
                    getattr(optimizer, state).fill(0)
            optimizer.zero_grad()
            (model(np.ones((3, 2))) ** 2).mean().backward()
            optimizer.step()
        made.append((model.state_dict(), optimizer.state_dict()))
    np.testing.assert_equal(*made)
    with pytest.raises(
        ShapeError, match=rf"^{name}.{optimizer.STATE[0]}: expected an array of shape \(6,\), got \(2,\)"
    ):
        setattr(optimizer, optimizer.STATE[0], np.zeros(2))


@pytest.mark.parametrize("grouped", [False, True])
def test_entries_of_a_setting_cannot_be_changed_without_the_optimizer(grouped):
    p, betas, rate = mf.tensor([1.0, 2.0], requires_grad=True), [0.9, 0.99], np.array(0.1)
    groups = [{"params": [p], "betas": betas, "lr": rate}] if grouped else [p]
    optimizer = optim.Adam(groups, lr=rate, betas=betas)
    betas[0], rate[...] = 0.1, 5.0
    assert optimizer.groups[0]["betas"] == (0.9, 0.99) and optimizer.groups[0]["lr"] == 0.1
    optimizer.groups[0]["betas"] = betas
    betas[0] = 0.5
    assert optimizer.groups[0]["betas"] == (0.1, 0.99)
    optimizer.betas = betas
    with pytest.raises(TypeError):
        optimizer.betas[0] = 0.1
    assert type(optimizer.state_dict()["lr"]) is float
    optimizer.load_state_dict(optimizer.state_dict() | {"betas": betas})
    assert optimizer.betas == (0.5, 0.99)


def read_only(item, path):
    """Return an item from a pickle whose arrays are bytes elsewhere, which nothing can write to."""
    buffers = []
    dumped = pickle.dumps(item, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(dumped, buffers=[bytes(buffer.raw()) for buffer in buffers])


def mapped(mode):
    def load(item, path):
        joblib = pytest.importorskip("joblib")
        joblib.dump(item, path)
        before = path.read_bytes()
        loaded = joblib.load(path, mmap_mode=mode)
        train(*loaded)
        assert path.read_bytes() == before
        return joblib.load(path, mmap_mode=mode)

    return load


@pytest.mark.parametrize("load", [read_only, mapped("r"), mapped("r+")], ids=["bytes", "r", "r+"])
@each
def test_what_is_unpickled_from_memory_of_others_trains_on_in_its_own(name, load, tmp_path):
    model = nn.Sequential(nn.Dense(3, 4, rng=0), nn.BatchNorm1D(4), nn.Dense(4, 2, rng=1))
    optimizer = trained(name, model)
    other, optimizer_of_other = load((model, optimizer), tmp_path / "model")
    train(model, optimizer)
    train(other, optimizer_of_other)
    for p, q in zip(model.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(p.data, q.data)
    other.load_state_dict(model.state_dict())
