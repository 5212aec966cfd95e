"""Every way to change an array that the graph still needs: an error or the right gradient, never a wrong one."""

from __future__ import annotations

import copy
import io
import pickle
import struct
import threading
import warnings

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.autograd.registry import NUMPY, OPS
from microfw.errors import GraphError

W = np.arange(6.0).reshape(3, 2) + 1
X = np.arange(12.0).reshape(4, 3) - 5


class Subclass(np.ndarray):
    """An array of another type."""

    def __new__(cls, array):
        return np.asarray(array).view(cls)


class Model(nn.Module):
    """Two products, so that the gradient of the first weight needs the second."""

    def __init__(self):
        self.first = nn.Parameter(W, np.float64)
        self.second = nn.Parameter(W.T * 0.5, np.float64)

    def forward(self, x):
        return np.sum(np.square(np.matmul(np.matmul(x, self.first), self.second)))


def right(x=X):
    model = Model()
    model(x).backward()
    return [p.grad.copy() for p in model.parameters()]


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


def test_the_whole_text():
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
    with pytest.raises(GraphError, match=r"^2: linear: parameter '2\.weight' was written to"):
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


READ_ONLY = {
    "data of a leaf": lambda x: x.data,
    "numpy() of a leaf": lambda x: x.numpy(),
    "np.asarray of a leaf": lambda x: np.asarray(x),
    "data of a result": lambda x: (x * 2.0).data,
    "numpy() of a result": lambda x: (x * 2.0).numpy(),
    "data of a view": lambda x: x[:2].data,
    "data of a transposed leaf": lambda x: x.T.data,
    "data of a broadcast leaf": lambda x: np.broadcast_to(x, (2, 3)).data,
    "a view of data": lambda x: x.data[:2],
    "data of a detached leaf": lambda x: x.detach().data,
    "data of a detached result": lambda x: (x * 2.0).detach().data,
    "data of a reshaped result": lambda x: (x * 2.0).reshape(3, 1).data,
}


@pytest.mark.parametrize("name", READ_ONLY)
@pytest.mark.parametrize("kind", ["leaf", "parameter", "owned parameter", "not trained"])
def test_what_is_read_cannot_be_written(name, kind):
    x = mf.tensor([1.0, 2.0, 3.0], requires_grad=kind != "not trained")
    if "parameter" in kind:
        x = nn.Parameter([1.0, 2.0, 3.0], np.float64)
    if kind == "owned parameter":
        optim.SGD([x], lr=0.1)
    with mf.no_grad():
        array = READ_ONLY[name](x)
    with pytest.raises(ValueError, match="read-only"):
        array[...] = 0
    with pytest.raises(ValueError, match=r"read-only|cannot be"):
        np.add(array, 1, out=array)
    with pytest.raises(ValueError, match="read-only"):
        array += 1


# Everything that NumPy and Python offer to write to an array that one was given to read


def unlock(array):
    array.setflags(write=True)
    array[...] = 77


def write_to_base(array):
    base = array.base
    while base is not None:
        try:
            base[...] = 77
        except (TypeError, ValueError, NotImplementedError):
            base.setflags(write=True)  # a memoryview has none
            base[...] = 77
        base = getattr(base, "base", None)


def flag(array):
    array.flags.writeable = True
    array.fill(77)


def reshape_in_place(array):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array.shape = (array.size,)
        array.dtype = np.int64
        array.strides = (0,)


def in_a_thread(array):
    thread = threading.Thread(target=lambda: unlock(array), daemon=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        thread.run()  # raises here what it would there


class Pretend:
    """An object that shows an array's memory without its flags, as NumPy's own `as_strided` does."""

    def __init__(self, array):
        self.__array_interface__ = array.__array_interface__
        self.base = array


WAYS = {
    "assignment": lambda a: a.__setitem__(..., 77),
    "setflags": unlock,
    "flags.writeable": flag,
    "base": write_to_base,
    "setflags of a slice": lambda a: unlock(a[:1]),
    "setflags of a view": lambda a: unlock(a.view()),
    "setflags of a transposed view": lambda a: unlock(a.T),
    "setflags of a reshaped view": lambda a: unlock(a.reshape(-1)),
    "setflags of a diagonal": lambda a: unlock(np.diagonal(np.atleast_2d(a))),
    "base of a slice": lambda a: write_to_base(a[:1]),
    "as_strided": lambda a: np.lib.stride_tricks.as_strided(a, writeable=True).__setitem__(..., 77),
    "as_strided, unlocked": lambda a: unlock(np.lib.stride_tricks.as_strided(a)),
    "sliding windows": lambda a: np.lib.stride_tricks.sliding_window_view(a, 1, 0, writeable=True).__setitem__(..., 77),
    "broadcast_arrays": lambda a: np.broadcast_arrays(a, a)[0].__setitem__(..., 77),
    "array interface": lambda a: unlock(np.asarray(Pretend(a))),
    "dlpack": lambda a: unlock(np.from_dlpack(a)),
    "memoryview": lambda a: memoryview(a).cast("B").__setitem__(0, 77),
    "data of the array": lambda a: np.asarray(a.data).__setitem__(..., 77),
    "buffer of a new array": lambda a: unlock(np.ndarray(a.shape, a.dtype, a)),
    "frombuffer": lambda a: unlock(np.frombuffer(np.ascontiguousarray(a), a.dtype)),
    "flat": lambda a: a.flat.__setitem__(0, 77),
    "base of flat": lambda a: unlock(a.flat.base),
    "real": lambda a: unlock(a.real),
    "nditer": lambda a: [x.__setitem__(..., 77) for x in np.nditer(a, op_flags=["readwrite"])],
    "out of a ufunc": lambda a: np.add(a, 77, out=a),
    "out of a reduction": lambda a: np.cumsum(a, 0, out=a),
    "out of matmul": lambda a: np.matmul(np.ones((3, 3)), np.ones((3, 2)), out=np.atleast_2d(a)),
    "ufunc.at": lambda a: np.add.at(a, 0, 77),
    "in-place operator": lambda a: a.__iadd__(77),
    "copyto": lambda a: np.copyto(a, 77),
    "put": lambda a: np.put(a, 0, 77),
    "place": lambda a: np.place(a, a == a, 77),
    "putmask": lambda a: np.putmask(a, a == a, 77),
    "put_along_axis": lambda a: np.put_along_axis(a, np.zeros((1,) * a.ndim, int), 77, 0),
    "fill_diagonal": lambda a: np.fill_diagonal(np.atleast_2d(a), 77),
    "nan_to_num": lambda a: np.nan_to_num(np.log(a - a, out=a), copy=False),
    "sort": lambda a: a[::-1].sort(0),
    "partition": lambda a: a[::-1].partition(1, 0),
    "byteswap": lambda a: a.byteswap(inplace=True),
    "resize": lambda a: a.resize(1),
    "generator.random": lambda a: np.random.default_rng(0).random(out=a),
    "generator.shuffle": lambda a: np.random.default_rng(0).shuffle(a),
    "shape, dtype and strides": reshape_in_place,
    "__setstate__": lambda a: a.__setstate__((1, (1,), np.dtype(float), False, b"\0" * 8)),
    "a read of a file": lambda a: io.BytesIO(b"\1" * 999).readinto(a),
    "struct.pack_into": lambda a: struct.pack_into("d", a, 0, 77.0),
    "pickled without a copy": lambda a: unlock(pickle.loads(pickle.dumps(a, 5, buffer_callback=(kept := []).append), buffers=kept)),
    "from another thread": in_a_thread,
}  # fmt: skip


def parameter(owned):
    p = nn.Parameter(W, np.float64)
    if owned:
        optim.SGD([p], lr=0.1)
    return p


SUBJECTS = {
    "leaf": lambda: mf.tensor(W, requires_grad=True),
    "constant": lambda: mf.tensor(W),
    "parameter": lambda: parameter(False),
    "owned parameter": lambda: parameter(True),
    "result": lambda: mf.tensor(W, requires_grad=True) * 2.0,
    "view of a result": lambda: (mf.tensor(W.T, requires_grad=True) * 2.0).T,
    "result of a view": lambda: mf.tensor(np.tile(W, (2, 1)), requires_grad=True)[:3],
    "broadcast": lambda: np.broadcast_to(mf.tensor(W[:1], requires_grad=True), (3, 2)),
    "detached leaf": lambda: mf.tensor(W, requires_grad=True).detach(),
    "detached result": lambda: (mf.tensor(W) * 2.0).detach(),
    "result without a graph": lambda: mf.tensor(W) * 2.0,
    "scalar": lambda: np.sum(mf.tensor(W, requires_grad=True)),
}

READS = {"data": lambda t: t.data, "numpy()": lambda t: t.numpy(), "asarray": np.asarray}


def used(t):
    """Compute something whose rules need the values; return what backward gives another leaf and this one."""
    other = mf.tensor(np.full(t.shape, 3.0), requires_grad=True)
    return other, np.sum(t * other * t)


def _read(read, t):
    """Read the values where no gradient can be lost."""
    with mf.no_grad():
        return read(t)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("subject", SUBJECTS)
def test_no_way_in(way, subject):
    """None of them changes a value, or the gradient is refused."""
    for read in READS.values():
        t = SUBJECTS[subject]()
        before = np.array(t.data)
        other, y = used(t)
        try:
            WAYS[way](_read(read, t))
        except (ValueError, TypeError, BufferError, IndexError, AttributeError, NotImplementedError):
            pass  # each in its own words
        y.backward()
        np.testing.assert_array_equal(t.data, before)
        assert t.shape == before.shape and t.dtype == before.dtype
        np.testing.assert_array_equal(other.grad, before**2)


def test_views_taken_before_a_write_do_not_reach_the_graph():
    p = mf.tensor([1.0, 2.0], requires_grad=True)
    view = p.data
    y = (p * p).sum()
    p.data = [5.0, 6.0]
    np.testing.assert_array_equal(view, [5, 6])  # a view shows the new values
    with pytest.raises(GraphError, match="a leaf of shape"):
        y.backward()


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


def test_derivative_functions_notice_too():
    p = mf.tensor(W, requires_grad=True)

    def f(x):
        y = np.sum(p * x * p)
        p.data = p.data + 1
        return y

    with pytest.raises(GraphError, match="was written to"):
        mf.grad(f)(W)
    with pytest.raises(GraphError, match="was written to"):
        mf.jvp(f, (W,), (W,))


# Assignments that are no way in


def test_entries_cannot_be_assigned():
    for t in (mf.tensor([1.0, 2.0], requires_grad=True), mf.tensor([1.0]), mf.tensor([1.0]) * 2.0):
        with pytest.raises(GraphError) as info:
            t[0] = 1.0
        assert str(info.value) == (
            "Tensor: expected no assignment to entries, got t[...] = value; the graph may need the old values: "
            "use np.where, or assign a whole leaf with t.data = values"
        )


def test_plus_equals_makes_a_new_tensor():
    x = mf.tensor([1.0, 2.0], requires_grad=True)
    y = x * x
    z = y
    y += 1.0
    y *= 2.0
    assert y is not z
    np.testing.assert_array_equal(z.data, [1, 4])
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [4, 8])


def test_an_array_plus_equals_a_tensor_is_refused_or_makes_a_tensor():
    array, t = np.array([1.0, 2.0]), mf.tensor([1.0, 2.0], requires_grad=True)
    kept = array
    with pytest.raises(TypeError, match=r"np\.add: expected no out= or where= with a Tensor"):
        array += t
    np.testing.assert_array_equal(kept, [1, 2])


@pytest.mark.parametrize("function", [np.add, np.multiply])
def test_out_is_refused(function):
    t, out = mf.tensor([1.0, 2.0]), np.zeros(2)
    with pytest.raises(TypeError, match=f"np.{function.__name__}: expected no out= or where="):
        function(t, t, out=out)
    with pytest.raises(TypeError, match="out="):
        function(out, out, out=t)
    with pytest.raises(TypeError, match=r"np.sum: expected no out="):
        np.sum(t, out=out)


@pytest.mark.parametrize("write", [
    lambda t: np.copyto(t, 0.0), lambda t: np.put(t, [0], 1.0), lambda t: np.fill_diagonal(t, 0.0),
    lambda t: np.add.at(t, 0, 1.0), lambda t: np.place(t, [True, False], 1.0),
    lambda t: np.put_along_axis(t, np.array([0]), 1.0, 0),
])  # fmt: skip
def test_numpys_writing_functions_are_refused(write):
    t = mf.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises((TypeError, GraphError, ValueError)):
        write(t)
    np.testing.assert_array_equal(t.data, [1, 2])


def test_an_op_that_returns_its_input_does_not_lock_or_follow_it():
    same = mf.op(lambda x: x, vjp=lambda g: g, name="same")
    for shape in ((3,), (), (0, 2), (2, 0)):
        array = np.zeros(shape)
        leaf = mf.tensor(array, requires_grad=True)
        same(array)
        same(leaf)
        assert array.flags.writeable, shape
        array[...] = 1
        leaf.data = array
    assert NUMPY


def test_data_of_a_result_cannot_be_assigned():
    y = mf.tensor([1.0], requires_grad=True) * 2.0
    with pytest.raises(GraphError, match=r"^Tensor.data: expected a leaf to assign to, got the result of an op"):
        y.data = np.zeros(1)


def test_a_failed_assignment_changes_nothing():
    p = mf.tensor([1.0, 2.0], requires_grad=True)
    y = (p * p).sum()
    with pytest.raises(mf.errors.ShapeError, match=r"^Tensor.data: expected an array of shape \(2,\), got \(3,\)"):
        p.data = np.zeros(3)
    with pytest.raises(TypeError):
        p.data = np.array([1j, 2j])
    y.backward()
    np.testing.assert_array_equal(p.grad, [2, 4])


def test_what_aux_saved_survives_the_callers_writes():
    logits = X.copy()
    z = mf.tensor(logits, requires_grad=True)
    y = mf.ops.loss.cross_entropy(z * 1.0, np.array([0, 1, 2, 0]))
    expected = mf.grad(lambda t: mf.ops.loss.cross_entropy(t, np.array([0, 1, 2, 0])))(X)
    y.backward(retain_graph=True)
    z.grad[...] = 77
    z.zero_grad()
    y.backward()
    np.testing.assert_allclose(z.grad, expected)


def test_a_grad_that_is_written_does_not_change_the_next_one():
    x = mf.tensor(W, requires_grad=True)
    y = np.sum(x * 2.0)
    y.backward(retain_graph=True)
    x.grad[...] = 77
    x.zero_grad()
    y.backward()
    np.testing.assert_array_equal(x.grad, np.full_like(W, 2))


# Arrays handed to derivatives, to backward, and to ops as parameters


def test_gradients_and_tangents_handed_in_may_change():
    def through_vjp(x):
        _, pull = mf.vjp(np.sin, x)
        g = np.ones(3)
        (out,) = pull(g)
        g[...] = 99
        return np.sum(out * x)

    def through_jvp(x):
        v = np.ones(3)
        out = mf.jvp(np.sin, (x,), (v,))[1]
        v[...] = 99
        return np.sum(out * x)

    x = np.array([0.1, 0.2, 0.3])
    for f in (through_vjp, through_jvp):
        np.testing.assert_allclose(mf.grad(f)(x), np.cos(x) - x * np.sin(x), rtol=1e-13)


def test_what_derivatives_return_is_the_callers():
    _, pull = mf.vjp(lambda x: x * 2.0, W)
    g = np.ones_like(W)
    (first,) = pull(g)
    first[...] = 99
    np.testing.assert_array_equal(g, 1)
    np.testing.assert_array_equal(pull(g)[0], 2)
    value, tangent = mf.jvp(lambda x: x, (W,), (g,))
    value[...] = tangent[...] = 99
    np.testing.assert_array_equal(W, np.arange(6.0).reshape(3, 2) + 1)
    np.testing.assert_array_equal(g, 1)


def test_a_gradient_given_to_backward_stays_the_callers():
    x, g = mf.tensor(W, requires_grad=True), np.ones_like(W)
    y = x + 0.0
    y.backward(g, retain_graph=True)
    x.grad[...] = 99
    np.testing.assert_array_equal(g, 1)
    x.zero_grad()
    y.backward(g)
    g[...] = 99
    np.testing.assert_array_equal(x.grad, 1)


def test_an_index_may_change():
    for key in (np.array([0, 2]), np.array([True, False, True]), [0, 2], (np.array([0, 2]), slice(None))):
        x = mf.tensor(W, requires_grad=True)
        y = np.sum(x[key])
        if isinstance(key, tuple):
            key[0][...] = 1
        else:
            key[:] = [False] * 3 if len(key) == 3 else [1, 1]
        y.backward()
        np.testing.assert_array_equal(x.grad, [[1, 1], [0, 0], [1, 1]])


@pytest.mark.parametrize("make", [list, tuple, np.ma.masked_array, memoryview, Subclass])
def test_whatever_is_handed_in_is_copied(make):
    source = X.copy()
    given = make(source.tolist()) if make in (list, tuple) else make(source)
    w = mf.tensor(W, requires_grad=True)
    y = np.sum(OPS["matmul"].call(given, w))
    source[...] = 99
    if make is list:
        given[0][:] = [99] * 3
    y.backward()
    np.testing.assert_array_equal(w.grad, np.repeat(X.sum(0)[:, None], 2, 1))


# Copies, pickles, threads


@pytest.mark.filterwarnings("ignore:copying the result of an op")
@pytest.mark.parametrize(
    "duplicate",
    [
        copy.copy,
        copy.deepcopy,
        lambda t: pickle.loads(pickle.dumps(t)),
        lambda t: pickle.loads(pickle.dumps(t, 5, buffer_callback=(k := []).append), buffers=k),
    ],
    ids=["copy", "deepcopy", "pickle", "pickle, out of band"],
)
@pytest.mark.parametrize("subject", ["leaf", "parameter", "owned parameter", "constant", "result"])
def test_copies_are_apart(duplicate, subject):
    t = SUBJECTS[subject]()
    before = np.array(t.data)
    other, y = used(t)
    made = duplicate(t)
    made.data = made.data * 0
    assert not np.shares_memory(made.data, t.data)
    y.backward()
    np.testing.assert_array_equal(other.grad, before**2)


def test_a_copy_of_a_module_shares_its_parameters_or_has_its_own():
    model = Model()
    loss = model(X)
    copy.deepcopy(model).second.data = np.zeros((2, 3))
    pickle.loads(pickle.dumps(model)).second.data = np.zeros((2, 3))
    loss.backward(retain_graph=True)
    for p, g in zip(model.parameters(), right(), strict=True):
        np.testing.assert_array_equal(p.grad, g)
    copy.copy(model).second.data = np.zeros((2, 3))  # the same parameters
    with pytest.raises(GraphError, match="was written to"):
        loss.backward()


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
    """Forward may run while another thread writes; backward locks it out, for that nobody can notice in time."""
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
