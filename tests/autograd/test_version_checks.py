"""An array changed between forward and backward: an error or the right gradient, never a wrong one."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.autograd.registry import OPS
from microfw.errors import GraphError
from tests.helpers.arrays import Model, W, X, right


def assign(model, optimizer, x):
    model.second.data = model.second.data * 2


def assign_through_a_list(model, optimizer, x):
    model.parameters()[1].data = np.zeros((2, 3))


def step(model, optimizer, x):
    for p in model.parameters():
        p.grad = np.ones(p.shape)
    optimizer.step()
    optimizer.zero_grad()


def load(model, optimizer, x):
    model.load_state_dict({name: a + 1 for name, a in model.state_dict().items()})


def augmented(model, optimizer, x):
    model.second.data += 1


STALE = [assign, assign_through_a_list, step, load, augmented]


@pytest.mark.parametrize("change", STALE)
@pytest.mark.parametrize("owned", [False, True])
def test_a_parameter_changed_between_forward_and_backward_is_named(change, owned):
    model = Model()
    optimizer = optim.SGD(model.parameters(), lr=0.1) if owned or change is step else None
    loss = model(X)
    try:
        change(model, optimizer, X)
    except ValueError as error:
        assert "read-only" in str(error)
        loss.backward()
        for p, g in zip(model.parameters(), right(), strict=True):
            np.testing.assert_allclose(p.grad, g)
        return
    with pytest.raises(GraphError, match="parameter 'second' was written to after this step's forward pass used it"):
        loss.backward()
    assert all(p.grad is None for p in model.parameters())


def test_the_full_error_text_of_a_changed_parameter():
    model = Model()
    model.parameters()
    loss = model(X)
    model.first.data = W
    with pytest.raises(GraphError) as info:
        loss.backward()
    assert str(info.value) == (
        "Model: matmul: parameter 'first' was written to after this step's forward pass used it "
        "(version 0 then, 1 now), so its old value is gone; call backward before you change it, "
        "or compute the loss again"
    )


def test_a_dense_layer_changed_between_is_named():
    model = nn.Sequential(nn.Dense(3, 4, rng=0), nn.ReLU(), nn.Dense(4, 2, rng=1))
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    x = X.astype(np.float32)
    first, second = model(x).sum(), model(x).sum()
    first.backward()
    optimizer.step()
    with pytest.raises(GraphError, match=r"^2 Dense: linear: parameter '2\.weight' was written to"):
        second.backward()


def test_an_array_handed_in_may_change_after_forward():
    x = X.copy()
    model = Model()
    loss = model(x)
    x[...] = np.nan
    loss.backward()
    for p, g in zip(model.parameters(), right(), strict=True):
        np.testing.assert_array_equal(p.grad, g)


@pytest.mark.parametrize("view", [lambda x: x[::-1], lambda x: x.T.T, lambda x: x[:, :], lambda x: x.reshape(4, 3)])
def test_a_view_of_an_array_handed_in_may_change_after_forward(view):
    base = X.copy()
    x = view(base)
    expected = right(np.array(x))
    model = Model()
    loss = model(x)
    base[...] = 0
    loss.backward()
    for p, g in zip(model.parameters(), expected, strict=True):
        np.testing.assert_allclose(p.grad, g)


def test_a_float32_batch_may_change_after_forward():
    layer = nn.Dense(3, 2, rng=0)
    x = X.astype(np.float32)
    loss = layer(x).sum()
    expected = np.repeat(x.sum(0)[:, None], 2, axis=1)
    x[...] = 0
    loss.backward()
    np.testing.assert_allclose(layer.weight.grad, expected)


def test_labels_may_change_after_forward():
    z = mf.tensor(X, requires_grad=True)
    labels = np.array([0, 1, 2, 0])
    for loss_fn in (nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1, reduction="sum")):
        expected = mf.grad(lambda t: loss_fn(t, np.array([0, 1, 2, 0])))(X)  # noqa: B023
        loss = loss_fn(z, labels)
        labels[...] = 1
        z.zero_grad()
        loss.backward()
        np.testing.assert_allclose(z.grad, expected)
        labels[...] = [0, 1, 2, 0]


@pytest.mark.parametrize("loss_fn", [nn.MSELoss(), nn.L1Loss(), nn.HuberLoss(), nn.BCEWithLogitsLoss(), nn.HingeLoss()])
def test_targets_may_change_after_forward(loss_fn):
    target = np.ones((4, 3))
    z = mf.tensor(X, requires_grad=True)
    expected = mf.grad(lambda t: loss_fn(t, np.ones((4, 3))))(X)
    loss = loss_fn(z, target)
    target[...] = -1
    loss.backward()
    np.testing.assert_array_equal(z.grad, expected)


def test_the_array_a_tensor_was_made_of_is_its_own():
    array = np.array([1.0, 2.0])
    x = mf.tensor(array, requires_grad=True)
    p = nn.Parameter(array, np.float64)
    y = (x * x + p * p).sum()
    array[...] = 100
    y.backward()
    np.testing.assert_array_equal(x.grad, [2, 4])
    np.testing.assert_array_equal(p.grad, [2, 4])


def test_the_array_assigned_to_data_stays_the_callers():
    x, array = mf.tensor([1.0, 2.0], requires_grad=True), np.array([3.0, 4.0])
    x.data = array
    y = (x * x).sum()
    array[...] = 100
    y.backward()
    np.testing.assert_array_equal(x.grad, [6, 8])


def test_results_do_not_follow_a_leaf_that_is_written():
    """A result that is a view of a leaf would change with it."""
    p = mf.tensor(W, requires_grad=True)
    results = {
        "T": p.T, "slice": p[:2], "reshape": p.reshape(6), "ravel": p.ravel(), "broadcast": np.broadcast_to(p, (2, 3, 2)),
        "detach": p.detach(), "identity": OPS["identity"].call(p), "astype": p.astype(np.float64), "transpose": p.transpose(1, 0),
    }  # fmt: skip
    before = {name: t.data.copy() for name, t in results.items()}
    p.data = W * 100
    for name, t in results.items():
        np.testing.assert_array_equal(t.data, before[name], err_msg=name)


@pytest.mark.parametrize("through", ["T", "slice", "reshape", "broadcast", "detach", "identity", "one entry"])
def test_a_leaf_written_after_a_view_of_it_was_used(through):
    """An error, or the gradient for the values that forward saw."""
    views = {
        "T": lambda p: p.T, "slice": lambda p: p[:], "reshape": lambda p: p.reshape(6), "identity": OPS["identity"].call,
        "broadcast": lambda p: np.broadcast_to(p, (2, 3, 2)), "detach": lambda p: p * p.detach(), "one entry": lambda p: p[0, 0],
    }  # fmt: skip
    gradients = []
    for write in (False, True):
        p = mf.tensor(W, requires_grad=True)
        y = np.sum(np.square(views[through](p)))
        if write:
            p.data = W * 100
            try:
                y.backward()
            except GraphError as error:
                assert "was written to" in str(error)
                return
        else:
            y.backward()
        gradients.append(p.grad)
    np.testing.assert_array_equal(*gradients)


@pytest.mark.parametrize(
    "name", [n for n, op in OPS.items() if op.differentiable and op.value.__module__.startswith("microfw")]
)
def test_every_op_notices_a_leaf_that_is_written(name):
    """The same for each op of the table: its rule sees the old values, or an error is raised."""
    from tests.cases.ops import CASES

    (case,) = [c for c in CASES if c.name == name]
    for sample in case.samples:
        if any(np.size(x) == 0 for x in sample.inputs):
            continue
        gradients = []
        for write in (False, True):
            inputs = [mf.tensor(x, requires_grad=True) if x.dtype.kind == "f" else x for x in sample.inputs]
            y = case.op.call(*sample.arranged(inputs), **sample.params)
            if write:
                for x in inputs:
                    if isinstance(x, mf.Tensor):
                        x.data = np.asarray(x.data * 0.5 + 0.1)
            try:
                y.backward(np.ones(y.shape))
            except GraphError as error:
                assert write and "was written to" in str(error)
                break
            gradients.append([x.grad for x in inputs if isinstance(x, mf.Tensor) and x.grad is not None])
        else:
            for a, b in zip(*gradients, strict=True):
                np.testing.assert_array_equal(a, b, err_msg=sample.label)


def test_a_frozen_parameter_that_is_written_is_noticed():
    a = mf.tensor([1.0, 2.0], requires_grad=True)
    frozen = nn.Parameter([3.0, 4.0], np.float64)
    frozen.requires_grad = False
    y = (a * frozen).sum()
    frozen.data = [0.0, 0.0]
    with pytest.raises(GraphError, match="was written to"):
        y.backward()


def test_a_plain_tensor_that_is_written_is_noticed():
    a, constant = mf.tensor([1.0, 2.0], requires_grad=True), mf.tensor([3.0, 4.0])
    y = (a * constant).sum()
    constant.data = [0.0, 0.0]
    with pytest.raises(GraphError, match=r"a leaf of shape \(2,\) was written to"):
        y.backward()


def test_a_leaf_that_no_rule_needs_may_be_written():
    a, b = mf.tensor([1.0, 2.0], requires_grad=True), mf.tensor([3.0, 4.0], requires_grad=True)
    y = (a + b).sum()
    a.data = [0.0, 0.0]
    y.backward()
    np.testing.assert_array_equal(a.grad, [1, 1])


def test_casting_a_model_between_forward_and_backward_is_noticed():
    model = Model()
    model.parameters()
    loss = model(X)
    model.astype(np.float32)
    with pytest.raises(GraphError, match="was written to"):
        loss.backward()


def test_making_an_optimizer_between_forward_and_backward_gives_the_right_gradient():
    model = Model()
    loss = model(X)
    optim.SGD(model.parameters(), lr=0.1)
    loss.backward()
    for p, g in zip(model.parameters(), right(), strict=True):
        np.testing.assert_allclose(p.grad, g)


def test_taking_parameters_over_between_forward_and_backward_never_gives_a_wrong_gradient():
    model = Model()
    first = optim.SGD(model.parameters(), lr=0.1)
    loss = model(X)
    second = optim.SGD(model.parameters(), lr=0.1)
    loss.backward()
    for p, g in zip(model.parameters(), right(), strict=True):
        np.testing.assert_allclose(p.grad, g)
    with pytest.raises(GraphError, match="taken over"):
        first.step()
    second.step()


def test_derivative_functions_notice_changed_parameters():
    p = mf.tensor(W, requires_grad=True)

    def f(x):
        y = np.sum(p * x * p)
        p.data = p.data + 1
        return y

    with pytest.raises(GraphError, match="was written to"):
        mf.grad(f)(W)
    with pytest.raises(GraphError, match="was written to"):
        mf.jvp(f, (W,), (W,))


@pytest.mark.parametrize("change", STALE[:-1])
def test_a_write_from_another_thread_is_noticed(change):
    model = Model()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    loss = model(X)
    thread = threading.Thread(target=change, args=(model, optimizer, X))
    thread.start()
    thread.join()
    with pytest.raises(GraphError, match="was written to"):
        loss.backward()


def test_writing_while_others_compute_gives_an_error_or_the_right_gradient():
    """Forward may run while another thread writes; backward locks it out, since a write could not be noticed in time."""
    p, stop, lock = mf.tensor(np.full(2000, 1.0), requires_grad=True), threading.Event(), threading.Lock()
    wrong = []

    def write():
        k = 0
        while not stop.is_set():
            k += 1
            with lock:
                p.data = np.full(2000, 1.0 + k % 2)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(200):
            x = mf.tensor(np.full(2000, 3.0), requires_grad=True)
            y = np.sum(x * p)
            with lock:
                try:
                    y.backward()
                except GraphError:
                    continue
                if not np.array_equal(x.grad * 3.0, np.full(2000, y.item() / 2000)):
                    wrong.append(x.grad)
    finally:
        stop.set()
        thread.join()
    assert not wrong


def test_a_write_while_a_rule_reads_is_noticed():
    """As another thread's would come: in the middle of the walk."""
    w = mf.tensor([2.0, 3.0], requires_grad=True)

    def meddle(g, x):
        w.data = [5.0, 5.0]
        return g * x

    meddled = mf.op(lambda x: x * x / 2, vjp=meddle, name="meddled")
    y = meddled(w).sum()
    with pytest.raises(GraphError, match="written to after this step"):
        y.backward()
    assert w.grad is None


def test_a_rule_that_fails_over_a_write_is_told_as_the_write():
    a = mf.tensor([[2.0, 1.0], [1.0, 3.0]], requires_grad=True)
    y = np.linalg.solve(a, np.ones(2)).sum()
    a.data = np.ones((2, 2))  # singular now
    with pytest.raises(GraphError, match="written to after this step"):
        y.backward()
    assert a.grad is None
