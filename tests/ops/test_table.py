"""Every op, over the rows of `tests/cases`: value, dtypes and memory. Derivatives are in `test_derivatives`."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import microfw as mf
from microfw import ops, testing
from microfw.autograd.registry import OPS
from tests.cases.ops import CASES, NAMES, SAMPLES, backwards, floats, plain, repeated, title, transposed
from tests.helpers.thinning import thinned
from tests.peers.torch_ops import NONE, TORCH

pytestmark = pytest.mark.usefixtures("quiet")


def test_each_op_has_exactly_one_row():
    builtin = {name: op.value.__module__ for name, op in OPS.items() if op.value.__module__.startswith("microfw.")}
    missing = [f"{name} of {module}" for name, module in builtin.items() if name not in NAMES]
    assert not missing, f"add a row to the file of the family in tests/cases/: {missing}"
    assert sorted(NAMES) == sorted(builtin)
    assert len(set(NAMES)) == len(NAMES)


def test_each_op_has_pytorchs_function_or_a_reason():
    missing = sorted(set(NAMES) - set(TORCH) - set(NONE))
    assert not missing, f"give the row in tests/cases/ torch=..., PyTorch's function or why there is none: {missing}"
    assert not set(TORCH) & set(NONE)
    assert all(len(reason) > 20 for reason in NONE.values())


def test_each_row_has_the_shapes_that_matter():
    elementwise = [case for case in CASES if case.op.value.__module__.startswith(ops.elementwise.__name__)]
    for case in elementwise:
        shapes = [tuple(np.shape(x) for x in sample.inputs) for sample in case.samples]
        assert any(all(s == () for s in shape) for shape in shapes), f"{case.name}: no 0-d sample"
        assert any(any(0 in s for s in shape) for shape in shapes), f"{case.name}: no empty sample"
        if case.op.differentiable:
            layouts = {sample.layout for sample in case.samples}
            assert transposed in layouts, f"{case.name}: no transposed sample"
        if len(case.op.inputs) > 1:
            assert any(len(set(shape)) > 1 for shape in shapes), f"{case.name}: no broadcast sample"
    assert {plain, transposed, backwards, repeated} <= {sample.layout for _, sample in SAMPLES}


@pytest.mark.parametrize(("case", "sample"), thinned(SAMPLES, 2), ids=title)
def test_value_is_numpys_and_read_only_and_inputs_are_left_alone(case, sample):
    arrays = sample.arranged()
    expected = np.asarray(case.reference(*arrays, **sample.params))
    before = [np.array(x) for x in sample.inputs]
    got = case.op.call(*arrays, **sample.params)
    assert got.shape == expected.shape and got.dtype == expected.dtype
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-14, atol=1e-15)
    assert not got.data.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        got.data[...] = 0
    for x, y in zip(sample.inputs, before, strict=True):
        np.testing.assert_array_equal(x, y)
        assert x.flags.writeable, "the op locked its caller's array"


@pytest.mark.parametrize(("case", "sample"), thinned(SAMPLES, 3), ids=title)
def test_op_passes_what_a_users_op_must(case, sample):
    testing.check(testing.Trial(case.op, sample.inputs, sample.params, sample.layout))


def newer(release):
    """Skip a case that an older NumPy cannot even be called with."""
    old = np.lib.NumpyVersion(np.__version__) < f"{release}.0"
    return pytest.mark.skipif(old, reason=f"needs NumPy {release}")


NAMES_IN_NUMPY = [
    ("clip", lambda x: np.clip(x, -1, 1)),
    ("clip", lambda x: np.clip(x, None, 1)),
    ("sum", lambda x: np.sum(x, 0)),
    ("sum", lambda x: np.sum(x, axis=1, keepdims=True)),
    ("max", lambda x: np.amax(x, axis=0)),
    ("min", lambda x: np.amin(x)),
    ("matmul", lambda x: np.dot(x, x.T)),
    ("transpose", lambda x: np.transpose(x, (1, 0))),
    ("reshape", lambda x: np.reshape(x, (4, 3))),
    ("reshape", lambda x: np.reshape(x, -1)),
    ("broadcast_to", lambda x: np.broadcast_to(x, (2, 3, 4))),
    ("concatenate", lambda x: np.concatenate([x, x], axis=1)),
    ("abs", lambda x: np.abs(x)),
    ("divide", lambda x: np.true_divide(x, 2.0)),
    ("reciprocal", lambda x: np.reciprocal(x + 9.0)),
    ("abs", lambda x: np.fabs(x)),
    ("remainder", lambda x: np.mod(x, 0.7)),
    ("remainder", lambda x: x % 0.7),
    ("remainder", lambda x: 0.7 % x),
    ("round", lambda x: np.around(x, 1)),
    ("trunc", lambda x: np.trunc(x)),
    ("identity", lambda x: np.positive(x)),
    ("power", lambda x: np.float_power(x, 3)),
    ("power", lambda x: np.float_power(np.array(2), x)),
    pytest.param("clip", lambda x: np.clip(x, min=-1, max=1), marks=newer("2.1")),
    ("clip", lambda x: np.clip(x, a_min=-1, a_max=None)),
    ("clip", lambda x: np.clip(x, -1, 1, out=None)),
    ("clip", lambda x: x.clip(-1, 1)),
    ("clip", lambda x: x.clip(max=1)),
    ("clip", lambda x: np.clip(x, np.float32(-1), np.float64(1))),
    ("sum", lambda x: np.sum(x, 0, None, None, True)),
    ("sum", lambda x: np.sum(x, axis=(0, -1), dtype=None, out=None)),
    ("sum", lambda x: np.sum(a=x, axis=0, keepdims=np._NoValue)),
    ("mean", lambda x: np.mean(x, axis=-1, dtype=None)),
    ("prod", lambda x: np.prod(x, (0, 1))),
    ("prod", lambda x: x.prod(axis=1, keepdims=True)),
    ("var", lambda x: np.var(x, 0, ddof=1)),
    ("var", lambda x: np.var(x, 0, None, None, 1, True)),
    ("var", lambda x: x.var(ddof=1)),
    ("std", lambda x: np.std(x, -1, keepdims=True)),
    ("std", lambda x: x.std(axis=0)),
    ("cumsum", lambda x: np.cumsum(x, 1)),
    ("cumsum", lambda x: x.cumsum()),
    ("cumprod", lambda x: np.cumprod(x, axis=0, out=None)),
    ("cumprod", lambda x: x.cumprod(axis=-1)),
    ("subtract", lambda x: np.ptp(x, 0)),
    ("norm", lambda x: np.linalg.norm(x)),
    ("norm", lambda x: np.linalg.norm(x, "fro")),
    ("norm", lambda x: np.linalg.norm(x, None, (0, 1), True)),
    ("norm", lambda x: np.linalg.norm(x, axis=1)),
    ("norm", lambda x: np.linalg.norm(x, 2, axis=(1,))),
    ("sum", lambda x: np.linalg.norm(x, ord=1, axis=0)),
    ("max", lambda x: np.linalg.norm(x, np.inf, -1, keepdims=True)),
    ("min", lambda x: np.linalg.norm(x[0], -np.inf)),
    ("norm", lambda x: np.linalg.vector_norm(x)),
    ("sum", lambda x: np.linalg.vector_norm(x, ord=1)),
    ("round", lambda x: x.round(1)),
]


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (
            lambda x: np.var(x, axis=0, ddof=3),
            mf.errors.ShapeError,
            "var: expected more than ddof=3 entries, got 3 of shape (3, 4); lower ddof",
        ),
        (
            lambda x: np.std(x[:0]),
            mf.errors.ShapeError,
            "std: expected more than ddof=0 entries, got 0 of shape (0, 4)",
        ),
        (
            lambda x: np.linalg.norm(x, 2),
            mf.errors.ArgumentError,
            "norm: expected ord=None or ord='fro' for 2 axes, got 2",
        ),
        (
            lambda x: np.linalg.norm(x[0], 3),
            mf.errors.ArgumentError,
            "norm: expected ord to be 1, 2, inf or -inf, got 3",
        ),
        (
            lambda x: np.linalg.norm(x[0], "fro"),
            mf.errors.ArgumentError,
            "norm: expected ord to be 1, 2, inf or -inf, got 'fro'",
        ),
    ],
)
def test_reductions_refuse_what_has_no_meaning(call, error, text):
    with pytest.raises(error) as info:
        call(mf.tensor(floats((3, 4))))
    assert str(info.value).startswith(text)


def test_operators_on_masks_and_whole_numbers():
    x = mf.tensor([-2.0, 0.5, 3.0])
    for got, expected in [
        ((x > 0) & (x < 1), [False, True, False]),
        ((x < 0) | (x > 1), [True, False, True]),
        ((x > 0) ^ np.array([True, True, True]), [True, False, False]),
        (np.array([True, True, True]) ^ (x > 0), [True, False, False]),
        (True & (x > 0), [False, True, True]),
        (False | (x > 0), [False, True, True]),
        (~(x > 0), [True, False, False]),
        (x // 2, [-1, 0, 1]),
        (7 // x, [-4, 14, 2]),
    ]:
        assert isinstance(got, mf.Tensor) and not got.requires_grad
        np.testing.assert_array_equal(got.data, expected)
    assert x.any().item() is True and (x > 0).all().item() is False
    assert x.argmin().item() == 0 and x.argmax(keepdims=True).shape == (1,)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 9, 17])
def test_running_products_of_every_length(n):
    """The recurrence in their derivatives doubles its step; each length ends it elsewhere."""
    x = floats((2, n))
    x[0, n // 2] = 0
    assert mf.gradcheck(lambda t: np.cumprod(t, axis=1), x) < 1e-6
    assert mf.gradcheck(mf.grad(lambda t: np.sum(np.cumprod(t, axis=1) * floats((2, n), seed=1))), x) < 1e-6


def test_hessian_of_a_product_is_right_at_zeros():
    x = np.array([2.0, 0.0, 0.0, 3.0])
    rows = [mf.grad(lambda t, k=k: mf.grad(np.prod)(t)[k])(x) for k in range(4)]
    np.testing.assert_array_equal(rows, [[0, 0, 0, 0], [0, 0, 6, 0], [0, 6, 0, 0], [0, 0, 0, 0]])


@pytest.mark.parametrize(("name", "function"), NAMES_IN_NUMPY)
def test_calls_as_numpy_users_write_them(name, function):
    x = floats((3, 4))
    t = function(mf.tensor(x, requires_grad=True))
    np.testing.assert_allclose(t.data, function(x), rtol=1e-14)
    assert t._node.op.name == name


@pytest.mark.skipif(not hasattr(np, "fix"), reason="deprecated since NumPy 2.5")
def test_fix_of_a_tensor_is_trunc():
    x = floats((3, 4))
    t = np.fix(mf.tensor(x, requires_grad=True))
    np.testing.assert_array_equal(t.data, np.trunc(x))
    assert t._node.op.name == "trunc"


def test_linear_into_an_optimizers_buffer_gives_the_same_gradient():
    x, w, b = floats((5, 3), seed=1), floats((3, 2), seed=2), floats((2,), seed=3)
    grads = []
    for buffered in (False, True):
        tw, tb = mf.tensor(w, requires_grad=True), mf.tensor(b, requires_grad=True)
        if buffered:
            mf.optim.SGD([tw, tb], lr=1.0)
        np.sum(np.square(ops.linalg.linear(x, tw, tb))).backward()
        grads.append((tw.grad, tb.grad))
    for a, c in zip(*grads, strict=True):
        np.testing.assert_allclose(a, c, rtol=1e-14)


@pytest.mark.parametrize(
    "case",
    [
        c
        for c in CASES
        if c.name
        in ("relu", "cross_entropy", "squared_error", "softplus", "bce_with_logits", "weighted_bce", "max_pool")
    ],
    ids=title,
)
def test_arrays_and_tensors_take_the_same_slope(case):
    for sample in case.samples:
        function, inputs = case.call(sample)

        def slope(*xs, function=function):
            return mf.grad(lambda *ys: np.sum(function(*ys) * 1.7))(*xs)

        fast = slope(*inputs)
        recorded = mf.vjp(slope, *inputs)[0]  # the walk itself is recorded: rules run on Tensors
        np.testing.assert_allclose(fast, recorded, rtol=1e-12, atol=1e-15)


def test_ops_without_a_rule_record_nothing():
    for case in CASES:
        if not case.op.differentiable:
            inputs = [mf.tensor(x, requires_grad=x.dtype.kind == "f") for x in case.samples[0].inputs]
            assert not case.op.call(*inputs, **case.samples[0].params).requires_grad, case.name


def test_every_op_says_what_it_is():
    for case in CASES:
        doc = inspect.getdoc(case.op.call)
        assert doc and doc.splitlines()[0].endswith("."), case.name
        assert case.op.call.__name__ == case.name


def test_an_op_shows_its_name_and_the_function_that_was_written_for_it():
    assert repr(OPS["exp"]) == "<op exp>"
    assert "def _apply(x):" in OPS["exp"].source
    assert "def _apply(x0, x1, axis=_default_axis):" in OPS["concatenate"].source
