"""Every op, over the rows of `tests/cases`: value, dtypes, costs and manners. Derivatives are in `test_derivatives`."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest

import microfw as mf
from microfw import ops, testing
from microfw.autograd.graph import Node
from microfw.autograd.registry import NUMPY, OPS
from microfw.errors import ArgumentError, GraphError, ShapeError
from tests.cases.ops import CASES, NAMES, SAMPLES, backwards, floats, plain, repeated, title, transposed
from tests.helpers.thinning import thinned

pytestmark = pytest.mark.usefixtures("quiet")
samples = pytest.mark.parametrize(("case", "sample"), SAMPLES, ids=title)


def test_each_op_has_exactly_one_row():
    builtin = [name for name, op in OPS.items() if op.value.__module__.startswith("microfw.")]
    assert sorted(NAMES) == sorted(builtin)
    assert len(set(NAMES)) == len(NAMES)


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


@samples
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


PROTOCOL = [(case, sample) for case, sample in SAMPLES if case.protocol]


@pytest.mark.parametrize(("case", "sample"), PROTOCOL, ids=title)
def test_numpys_function_records_the_same_node(case, sample):
    function = case.reference if case.protocol is True else case.protocol
    inputs = [mf.tensor(np.array(x), requires_grad=x.dtype.kind == "f") for x in sample.arranged()]
    direct, through = case.op.call(*inputs, **sample.params), function(*inputs, **sample.params)
    assert isinstance(through, mf.Tensor)
    np.testing.assert_array_equal(direct.data, through.data)
    if case.op.differentiable:
        assert isinstance(through._node, Node)
        assert through._node.op is direct._node.op is case.op
        assert [e[0] for e in through._node.edges] == [e[0] for e in direct._node.edges]


def test_every_numpy_function_of_an_op_is_in_the_table():
    told = {call.op.name for call in NUMPY.values() if hasattr(call, "op")}
    assert told <= {case.name for case in CASES if case.protocol}


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


def test_float_power_computes_in_float64():
    assert np.float_power(mf.tensor([4, 9]), -1).dtype == np.float64
    x = mf.tensor(np.array([4.0], np.float32), requires_grad=True)
    y = np.float_power(x, 0.5)
    y.backward(np.ones(1))
    assert y.dtype == np.float64 and x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad, [0.25])


def test_clip_at_arrays():
    """The ends get the gradient where they are the result, and only there."""
    x, low, high = (
        mf.tensor(a, requires_grad=True) for a in ([-3.0, 0.0, 3.0, 1.0], [-1.0, 0.0, 0.0, 2.0], [1.0, 1.0, 2.0, 1.5])
    )
    y = np.clip(x, low, high)
    np.testing.assert_array_equal(y.data, np.clip(x.data, low.data, high.data))
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [0, 1, 0, 0])
    np.testing.assert_array_equal(low.grad, [1, 0, 0, 0])
    np.testing.assert_array_equal(high.grad, [0, 0, 1, 1])
    np.testing.assert_array_equal(np.clip(x, low.data, None).data, [-1, 0, 3, 2])


REFUSED = [
    (
        lambda x: np.sum(x, dtype=np.float32),
        "np.sum: expected no dtype= with a Tensor, got dtype=; cast with .astype before or after",
    ),
    (lambda x: np.sum(x, 0, np.float32), "np.sum: expected no dtype="),
    (
        lambda x: np.cumsum(x, out=np.zeros(12)),
        "np.cumsum: expected no out= or where= with a Tensor, got out=; op results are new arrays",
    ),
    (
        lambda x: np.prod(x, where=x.data > 0),
        "np.prod: expected no out= or where= with a Tensor, got where=; choose entries with np.where",
    ),
    (lambda x: np.max(x, initial=0.0), "np.max: expected no initial= with a Tensor, got initial=; leave it out"),
    (lambda x: np.var(x, correction=1), "np.var: expected no correction= with a Tensor, got correction=; write ddof="),
    (lambda x: np.exp(x, dtype=np.float32), "np.exp: expected no dtype="),
    (lambda x: np.exp(x, where=np.ones(4, bool)), "np.exp: expected no out= or where="),
    (lambda x: np.clip(x, 0, 1, casting="unsafe"), "np.clip: expected no casting="),
    (lambda x: np.clip(x, 0, 1, out=np.zeros((3, 4))), "np.clip: expected no out= or where="),
    (lambda x: np.concatenate([x, x], 0, np.zeros((6, 4))), "np.concatenate: expected no out= or where="),
    (lambda x: np.concatenate([x, x], casting="unsafe"), "np.concatenate: expected no casting="),
    (lambda x: np.exp(x, casting="unsafe"), "np.exp: expected no casting="),
    (lambda x: np.concatenate([x, x], dtype=np.float32), "np.concatenate: expected no dtype="),
    (lambda x: np.nanmean(x), "np.nanmean: expected a function with a derivative rule, got one without"),
    (lambda x: np.linalg.cond(x), "np.linalg.cond: expected a function with a derivative rule, got one without"),
]


@pytest.mark.parametrize(("call", "text"), REFUSED)
def test_arguments_that_no_op_takes_are_refused_by_name(call, text):
    with pytest.raises(TypeError) as info:
        call(mf.tensor(floats((3, 4))))
    assert str(info.value).startswith(text)


def test_arguments_given_as_they_are_by_default_are_fine():
    x = mf.tensor(floats((3, 4)))
    np.testing.assert_array_equal(np.exp(x, out=None, dtype=None, where=True).data, np.exp(x.data))
    np.testing.assert_array_equal(
        np.concatenate([x, x], 0, None, casting="same_kind").data, np.concatenate([x.data, x.data])
    )
    np.testing.assert_array_equal(np.reshape(x, (4, 3), order="C").data, x.data.reshape(4, 3))


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
        if c.name in ("relu", "cross_entropy", "squared_error", "softplus", "bce_with_logits", "max_pool")
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


# Costs


class Counting:
    """A number that counts every operation on it. Multiplications are counted apart as well."""

    operations = 0
    multiplications = 0

    def __init__(self, value):
        self.value = float(getattr(value, "value", value))

    @classmethod
    def reset(cls):
        cls.operations = cls.multiplications = 0

    def __float__(self):
        return self.value

    def reshape(self, *shape):  # as NumPy's own scalars can
        return np.asarray(self, object).reshape(*shape)


def _counted(name, function):
    def method(self, *others):
        Counting.operations += 1
        Counting.multiplications += name in ("__mul__", "__rmul__")
        value = function(self.value, *(float(o) for o in others))
        return value if isinstance(value, bool) else Counting(value)

    setattr(Counting, name, method)


for _name, _function in {
    "__add__": lambda a, b: a + b,
    "__radd__": lambda a, b: b + a,
    "__sub__": lambda a, b: a - b,
    "__rsub__": lambda a, b: b - a,
    "__mul__": lambda a, b: a * b,
    "__rmul__": lambda a, b: b * a,
    "__truediv__": lambda a, b: a / b,
    "__rtruediv__": lambda a, b: b / a,
    "__pow__": lambda a, b: a**b,
    "__neg__": lambda a: -a,
    "__abs__": abs,
    "__lt__": lambda a, b: a < b,
    "__gt__": lambda a, b: a > b,
    "__ge__": lambda a, b: a >= b,
    "__le__": lambda a, b: a <= b,
    "__eq__": lambda a, b: a == b,
    "exp": math.exp,
    "log": math.log,
    "log1p": math.log1p,
    "expm1": math.expm1,
    "sqrt": math.sqrt,
    "sin": math.sin,
    "cos": math.cos,
    "tanh": math.tanh,
    "exp2": lambda a: 2**a,
    "log2": math.log2,
    "log10": math.log10,
    "cbrt": lambda a: math.copysign(abs(a) ** (1 / 3), a),
    "tan": math.tan,
    "arcsin": math.asin,
    "arccos": math.acos,
    "arctan": math.atan,
    "sinh": math.sinh,
    "cosh": math.cosh,
    "arcsinh": math.asinh,
    "arccosh": math.acosh,
    "arctanh": math.atanh,
    "hypot": math.hypot,
    "arctan2": math.atan2,
}.items():
    _counted(_name, _function)

as_counting = np.frompyfunc(Counting, 1, 1)


def count(function):
    """Return a function's value, and how many operations it took."""
    Counting.reset()
    value = function()
    return value, Counting.operations


EXACT = ["add", "subtract", "multiply", "divide", "negative", "reciprocal", "square", "hypot", "arctan2",
         "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "cbrt",
         "sin", "cos", "tan", "arcsin", "arccos", "arctan", "sinh", "cosh", "arcsinh", "arccosh", "arctanh",
         "relu", "sum", "mean", "var", "std", "norm", "prod", "cumsum", "cumprod",
         "reshape", "transpose", "broadcast_to", "concatenate", "identity"]  # fmt: skip


@pytest.mark.parametrize("case", [c for c in CASES if c.name in EXACT], ids=title)
def test_cost_is_what_really_runs(case):
    """The op's own value and rules, run on numbers that count."""
    for sample in case.samples:
        if sample.layout is not plain or any(np.size(x) < 2 or np.ndim(x) == 0 for x in sample.inputs):
            continue
        inputs = [np.asarray(as_counting(x), object) for x in sample.inputs]
        y, forward = count(lambda: case.op.value(*inputs, **sample.params))  # noqa: B023
        y, *aux = y if case.op.aux else (y,)
        aux = dict(zip(case.op.aux, aux, strict=True))
        shapes = [x.shape for x in inputs]
        cost = case.op.cost(np.shape(y), *shapes, **sample.params)
        assert forward == cost.forward, sample.label
        for k, x in enumerate(inputs):
            partial = case.op.partial(k)
            known = case.op.params | sample.params | dict(zip(case.op.inputs, inputs, strict=False))
            known |= {"y": np.asarray(as_counting(y), object), "shape": x.shape, "shapes": shapes, "index": k} | aux
            args = [known[s] for s in partial.sources]
            g = np.asarray(as_counting(floats(np.shape(y), 0.5, 1.0)), object)

            def rule(g=g, partial=partial, args=args, x=x):
                share = np.asarray(partial.vjp(g, *args))
                extra = share.ndim - x.ndim  # what the walk adds where broadcasting is undone
                axes = tuple(range(extra))
                axes += tuple(extra + i for i, n in enumerate(x.shape) if n == 1 and share.shape[extra + i] > 1)
                return np.add.reduce(share, axis=axes) if axes else share

            backward = count(rule)[1]
            assert backward == cost.derivatives[k], f"{sample.label}, input {k}"


def test_a_squared_error_costs_what_it_runs():
    """All but the look at whether the gradient is 1, for then nothing is multiplied."""
    x, t, g = (np.asarray(as_counting(floats(shape, seed=k)), object) for k, shape in enumerate([(5, 3), (5, 3), ()]))
    (case,) = [c for c in CASES if c.name == "squared_error"]
    (_, delta), forward = count(lambda: case.op.value(x, t))
    cost = case.op.cost((), x.shape, t.shape)
    assert forward == cost.forward
    for k in range(2):
        assert count(lambda k=k: case.op.partial(k).vjp(g, delta))[1] == cost.derivatives[k] + 1


@pytest.mark.parametrize("name", ["matmul", "linear"])
def test_products_cost_twice_their_multiplications(name):
    (case,) = [c for c in CASES if c.name == name]
    for sample in case.samples:
        if sample.layout is not plain or any(np.size(x) == 0 for x in sample.inputs):
            continue
        inputs = [np.asarray(as_counting(x), object) for x in sample.inputs]
        Counting.reset()
        y = np.asarray(case.op.value(*inputs))
        cost = case.op.cost(y.shape, *(x.shape for x in inputs))
        assert 2 * Counting.multiplications == cost.products_forward, sample.label
        for k, x in enumerate(inputs):
            partial = case.op.partial(k)
            known = dict(zip(case.op.inputs, inputs, strict=True)) | {"shape": x.shape}
            g = np.asarray(as_counting(floats(y.shape)), object)
            Counting.reset()
            partial.vjp(g, *(known[s] for s in partial.sources))
            assert 2 * Counting.multiplications == cost.products_derivatives[k], f"{sample.label}, input {k}"
            if name == "linear" and k == 2:
                assert cost.derivatives[k] == y.size - x.size


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_normalising_costs_what_it_runs_to_within_the_rows(name):
    (case,) = [c for c in CASES if c.name == name]
    x = np.asarray(as_counting(floats((6, 8))), object)
    _, forward = count(lambda: case.op.value(x))
    cost = case.op.cost((6, 8), (6, 8))
    assert abs(forward - cost.forward) <= 0.25 * cost.forward


# Where several values are possible


def test_cross_entropy_at_the_edge():
    z = mf.tensor([[1e4, -1e4]], requires_grad=True)
    loss = ops.loss.cross_entropy(z, np.array([1]))
    assert loss.item() == 2e4
    loss.backward()
    np.testing.assert_array_equal(z.grad, [[1, -1]])
    z = mf.tensor([[-np.inf, 0.0]], requires_grad=True)
    loss = ops.loss.cross_entropy(z, np.array([1]))
    with np.errstate(all="ignore"):
        loss.backward()
    assert loss.item() == 0
    np.testing.assert_array_equal(z.grad, [[0, 0]])


def test_cross_entropy_keeps_the_digits_of_a_small_gradient():
    z = np.array([[40.0, 0.0, 0.0]])
    slope = mf.grad(lambda t: ops.loss.cross_entropy(t, np.array([0])))(z)
    expected = math.exp(-40) / (1 + 2 * math.exp(-40))
    np.testing.assert_allclose(slope, [[-2 * expected, expected, expected]], rtol=1e-14)


@pytest.mark.parametrize(
    ("function", "exact"),
    [
        (ops.elementwise.sigmoid, lambda x: math.exp(-abs(x)) / (1 + math.exp(-abs(x))) ** 2),
        (np.tanh, lambda x: 4 * math.exp(-2 * abs(x)) / (1 + math.exp(-2 * abs(x))) ** 2),
        (ops.elementwise.softplus, lambda x: math.exp(x) / (1 + math.exp(x)) if x < 0 else 1 / (1 + math.exp(-x))),
    ],
)
def test_slopes_are_exact_in_the_tails(function, exact):
    x = np.linspace(-300, 300, 2001)
    t = mf.tensor(x, requires_grad=True)
    function(t).backward(np.ones_like(x))
    np.testing.assert_allclose(t.grad, [exact(v) for v in x], rtol=2e-15 * 4)


def test_mean_of_nothing_is_an_error():
    with pytest.raises(mf.errors.ShapeError, match=r"^mean: expected at least one entry, got shape \(0, 3\)"):
        np.mean(mf.tensor(np.zeros((0, 3))))


@pytest.mark.parametrize("axis", [None, 0])
def test_logarithm_of_a_sum_of_nothing(axis):
    x = mf.tensor(np.zeros((0, 3)), requires_grad=True)
    y = ops.reduction.logsumexp(x, axis=axis)
    np.testing.assert_array_equal(y.data, np.full(np.sum(x.data, axis=axis).shape, -np.inf))
    y.backward(np.ones(y.shape))
    assert x.grad.shape == (0, 3)


def test_astype_casts_and_casts_back():
    x = mf.tensor(np.array([1.5, 2.5], np.float32), requires_grad=True)
    y = (x.astype(np.float64) * np.array([1.0, 2.0])).sum()
    assert y.dtype == np.float64
    y.backward()
    assert x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad, [1, 2])


def test_an_index_changed_later_changes_nothing():
    x = mf.tensor([1.0, 2.0, 3.0], requires_grad=True)
    key = np.array([0, 0])
    y = x[key].sum()
    key[...] = 2
    y.backward()
    np.testing.assert_array_equal(x.grad, [2, 0, 0])


def test_taking_twice_the_same_entry_adds_up():
    x = mf.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (x[[0, 0, 2]] * np.array([1.0, 10.0, 100.0])).sum().backward()
    np.testing.assert_array_equal(x.grad, [11, 0, 100])


def test_parameters_of_an_op_may_have_any_name():
    words = (
        "dtype",
        "mode",
        "observer",
        "recording",
        "shared",
        "saved_versions",
        "edges",
        "node",
        "made",
        "op",
        "began",
    )
    for word in words:
        namespace = {}
        exec(f"def value(x, *, {word}): return x * {word}\ndef rule(g, {word}): return g * {word}", namespace)
        scale = mf.op(
            namespace["value"], vjp=namespace["rule"], jvp="linear", name=f"scale by {word}".replace(" ", "_")
        )
        x = mf.tensor([1.0, 2.0], requires_grad=True)
        y = scale(x, **{word: 3.0})
        np.testing.assert_array_equal(y.data, [3, 6], err_msg=word)
        y.sum().backward()
        np.testing.assert_array_equal(x.grad, [3, 3], err_msg=word)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "softplus", "erf", "identity", "exp", "softmax", "sum", "max"])
def test_numbers_and_lists_will_do(name):
    (case,) = [c for c in CASES if c.name == name]
    if name != "softmax":
        np.testing.assert_allclose(case.op.call(2.0).data, case.reference(2.0), rtol=1e-14)
        np.testing.assert_allclose(case.op.call(np.float64(2.0)).data, case.reference(2.0), rtol=1e-14)
    np.testing.assert_allclose(case.op.call([1.0, 2.0]).data, case.reference(np.array([1.0, 2.0])), rtol=1e-14)


@pytest.mark.parametrize(
    ("function", "third"),
    [
        (ops.elementwise.sigmoid, -0.125),
        (np.tanh, -2.0),
        (ops.elementwise.softplus, 0.0),
        (ops.elementwise.erf, -4 / math.sqrt(math.pi)),
    ],
)
@pytest.mark.parametrize("x", [0.0, -0.0])
def test_third_derivatives_at_zero(function, third, x):
    """Where a rule written with abs would be wrong."""
    np.testing.assert_allclose(mf.grad(mf.grad(mf.grad(function)))(x), third, atol=1e-15)
    np.testing.assert_allclose(mf.jvp(mf.grad(mf.grad(function)), (x,), (1.0,))[1], third, atol=1e-15)
    fourth = {ops.elementwise.softplus: -0.125}.get(function, 0.0)
    np.testing.assert_allclose(mf.grad(mf.grad(mf.grad(mf.grad(function))))(x), fourth, atol=1e-15)


def test_no_gradient_goes_through_a_cast_to_integers():
    x = mf.tensor([1.5, 2.5], requires_grad=True)
    (x * x.astype(int).astype(np.float64)).sum().backward()
    np.testing.assert_array_equal(x.grad, [1, 2])
    assert mf.jvp(lambda t: t.astype(int).astype(np.float64), (np.array([1.5]),), (np.array([1.0]),))[1] == 0


def test_an_op_says_what_is_wrong_with_its_declaration_or_rule():
    with pytest.raises(ArgumentError, match=r"op scaled: .* got one for k; put a \* before k if it is a setting"):
        mf.op(lambda x, k=2: x * k, name="scaled")
    doubled = mf.op(lambda x: 2 * x, vjp=lambda g, x: 2.0, name="doubled_by_a_number")
    x = mf.tensor([1.0, 2.0], requires_grad=True)
    text = "doubled_by_a_number: expected the derivative rule to return an array, got float"
    with pytest.raises(GraphError, match=text):
        doubled(x).sum().backward()
    with pytest.raises(GraphError, match=text):
        mf.grad(lambda x: doubled(x).sum())(np.ones(2))
    for k, rule in enumerate((lambda g, x: g.shapes, lambda g, x: list(x).shape)):  # a fault of the rule's own
        broken = mf.op(lambda x: 2 * x, vjp=rule, name=f"broken_in_the_rule_{k}")
        with pytest.raises(AttributeError, match="shape"):
            broken(x).sum().backward()


def test_squared_error_compares_shapes_first():
    with pytest.raises(ShapeError, match=r"squared_error: .* got \(3,\) and \(2,\)"):
        ops.squared_error(np.ones(3), np.ones(2))
    with pytest.raises(ShapeError, match=r"got \(3, 1\) and \(3,\)"):
        ops.squared_error(np.ones((3, 1)), np.ones(3))
    assert mf.hessian(lambda t: ops.squared_error(2.0, t))(np.array(1.0)) == 2.0
