"""Every op, over the rows of `op_cases`: value, dtypes, costs and manners. Derivatives are in `test_harness`."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
from op_cases import CASES, DIFFERENTIABLE, NAMES, SAMPLES, backwards, floats, plain, repeated, title, transposed

import microfw as mf
from microfw import ops
from microfw.graph import NUMPY, OPS, Node
from microfw.op import Cost

samples = pytest.mark.parametrize(("case", "sample"), SAMPLES, ids=title)
differentiable = pytest.mark.parametrize(("case", "sample"), DIFFERENTIABLE, ids=title)


@pytest.fixture(autouse=True)
def quiet():
    with np.errstate(divide="raise", over="raise", invalid="raise"):
        yield


def leaves(sample, dtype=np.float64):
    """Return the sample's inputs, those of floats as Tensors that want a gradient."""
    return [mf.tensor(x.astype(dtype), requires_grad=True) if x.dtype.kind == "f" else x.copy() for x in sample.inputs]


def test_each_op_has_exactly_one_row():
    builtin = [name for name, op in OPS.items() if op.value.__module__.startswith("microfw.")]
    assert sorted(NAMES) == sorted(builtin)
    assert len(set(NAMES)) == len(NAMES)


def test_each_row_has_the_shapes_that_matter():
    elementwise = [case for case in CASES if case.op.value.__module__ == ops.elementwise.__name__]
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


@samples
def test_result_is_not_changed_by_later_writes_to_the_input(case, sample):
    arrays = [np.array(x) for x in sample.arranged()]
    got = case.op.call(*arrays, **sample.params)
    before = got.data.copy()
    for x in arrays:
        x[...] = 1 if x.dtype.kind == "b" else 0
    np.testing.assert_array_equal(got.data, before)


@differentiable
def test_float32_stays_float32(case, sample, watcher):
    if case.name == "astype":
        pytest.skip("casts")
    inputs = leaves(sample, np.float32)
    with watcher.on():
        y = case.op.call(*sample.arranged(inputs), **sample.params)
        assert y.dtype == np.float32
        y.backward(np.ones(y.shape, np.float32))
    for node, shares in zip(watcher.walked, watcher.shares, strict=True):
        assert all(share.dtype == np.float32 for share in shares), f"{node.op.name} gave {shares[0].dtype}"
    for k, x in enumerate(inputs):
        if isinstance(x, mf.Tensor) and case.op.partial(k) is not None:
            assert x.grad.dtype == np.float32


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
]


@pytest.mark.parametrize(("name", "function"), NAMES_IN_NUMPY)
def test_calls_as_numpy_users_write_them(name, function):
    x = floats((3, 4))
    t = function(mf.tensor(x, requires_grad=True))
    np.testing.assert_allclose(t.data, function(x), rtol=1e-14)
    assert t._node.op.name == name


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
    "case", [c for c in CASES if c.name in ("relu", "cross_entropy", "softplus", "bce_with_logits")], ids=title
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


@samples
def test_cost_counts_each_derivative(case, sample):
    shapes = [np.shape(x) for x in sample.arranged()]
    y = case.op.call(*sample.arranged(), **sample.params)
    cost = case.op.cost(y.shape, *shapes, **sample.params)
    assert isinstance(cost, Cost)
    numbers = (cost.forward, *cost.derivatives, cost.products_forward, *cost.products_derivatives)
    assert all(type(n) is int and n >= 0 for n in numbers), cost
    for k in range(len(shapes)):
        if case.op.partial(k) is not None:
            assert k < len(cost.derivatives), f"{case.name}: no cost for the derivative of input {k}"
            assert not cost.products_derivatives or k < len(cost.products_derivatives)
    assert cost.products_forward <= cost.forward


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
}.items():
    _counted(_name, _function)

as_counting = np.frompyfunc(Counting, 1, 1)


def count(function):
    """Return a function's value, and how many operations it took."""
    Counting.reset()
    value = function()
    return value, Counting.operations


EXACT = ["add", "subtract", "multiply", "divide", "negative", "reciprocal", "exp", "expm1", "sqrt", "sin", "cos",
         "relu", "sum", "mean", "reshape", "transpose", "broadcast_to", "concatenate", "identity"]  # fmt: skip


@pytest.mark.parametrize("case", [c for c in CASES if c.name in EXACT], ids=title)
def test_cost_is_what_really_runs(case):
    """The op's own value and rules, run on numbers that count."""
    for sample in case.samples:
        if sample.layout is not plain or any(np.size(x) == 0 or np.ndim(x) == 0 for x in sample.inputs):
            continue
        inputs = [np.asarray(as_counting(x), object) for x in sample.inputs]
        y, forward = count(lambda: case.op.value(*inputs, **sample.params))  # noqa: B023
        shapes = [x.shape for x in inputs]
        cost = case.op.cost(np.shape(y), *shapes, **sample.params)
        assert forward == cost.forward, sample.label
        for k, x in enumerate(inputs):
            partial = case.op.partial(k)
            known = case.op.params | sample.params | dict(zip(case.op.inputs, inputs, strict=False))
            known |= {"y": np.asarray(as_counting(y), object), "shape": x.shape, "shapes": shapes, "index": k}
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
            known = dict(zip(case.op.inputs, inputs, strict=True))
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


SINGULAR = [
    ("abs at 0", np.abs, [0.0, -0.0], [0, 0]),
    ("relu at 0", ops.elementwise.relu, [0.0, -0.0], [0, 0]),
    ("relu at NaN", ops.elementwise.relu, [np.nan], [0]),
    ("maximum with 0 at 0", lambda x: np.maximum(x, 0.0), [0.0], [0.5]),
    ("minimum with 0 at 0", lambda x: np.minimum(x, 0.0), [0.0], [0.5]),
    ("maximum from the right", lambda x: np.maximum(0.0, x), [0.0, 1.0, -1.0], [0.5, 1, 0]),
    ("clip at its ends", lambda x: np.clip(x, -1, 1), [-1.0, 1.0, 2.0, 0.0], [1, 1, 0, 1]),
    ("max with ties", np.max, [3.0, 3.0, 1.0], [0.5, 0.5, 0]),
    ("min with ties", np.min, [3.0, 1.0, 1.0], [0, 0.5, 0.5]),
    ("max along an axis with ties", lambda x: np.max(x, axis=0), [3.0, 3.0, 1.0], [0.5, 0.5, 0]),
    ("sqrt at 0", np.sqrt, [0.0], [np.inf]),
    ("log at 0 and below", np.log, [0.0, -1.0], [np.inf, np.nan]),
    ("log1p at -1 and below", np.log1p, [-1.0, -2.0], [np.inf, np.nan]),
    ("0 ** 0 by its base", lambda x: x**0, [0.0], [0]),
    ("0 ** 0.0 by its base", lambda x: x ** np.zeros(1, x.dtype), [0.0], [0]),
    ("0 ** 0.5", lambda x: x**0.5, [0.0], [np.inf]),
    ("0 ** -1", lambda x: x**-1, [0.0], [-np.inf]),
    ("0 ** x by its exponent", lambda x: 0 ** (x), [2.0], [0]),
    ("0.0 ** x by its exponent", lambda x: np.zeros(1, x.dtype) ** x, [2.0], [0]),
    ("1 / 0", lambda x: 1 / x, [0.0], [-np.inf]),
    ("sigmoid far out", ops.elementwise.sigmoid, [1000.0, -1000.0], [0, 0]),
    ("tanh far out", np.tanh, [1000.0, -1000.0], [0, 0]),
    ("softplus far out", ops.elementwise.softplus, [1000.0, -1000.0], [1, 0]),
    ("square of 0", np.square, [0.0], [0]),
]


@pytest.mark.parametrize(("name", "function", "x", "slope"), SINGULAR, ids=[row[0] for row in SINGULAR])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_singular_points(name, function, x, slope, dtype):
    t = mf.tensor(np.array(x, dtype), requires_grad=True)
    with np.errstate(all="ignore"):
        y = function(t)
        (y.sum() if y.ndim else y).backward()
    np.testing.assert_array_equal(t.grad, np.array(slope, dtype))


def test_infinite_logits_of_the_binary_loss():
    z = mf.tensor([np.inf, -np.inf, 1e4, -1e4], requires_grad=True)
    y = ops.loss.bce_with_logits(z, np.array([1.0, 0.0, 0.0, 1.0]))
    np.testing.assert_array_equal(y.data, [0, 0, 1e4, 1e4])
    y.backward(np.ones(4))
    np.testing.assert_array_equal(z.grad, [0, 0, 1, -1])


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
    words = ("dtype", "mode", "observer", "recording", "shared", "guards", "edges", "node", "made", "op", "began")
    for word in words:
        namespace = {}
        exec(f"def value(x, *, {word}): return x * {word}\ndef rule(g, {word}): return g * {word}", namespace)
        scale = mf.op(
            namespace["value"], vjp=namespace["rule"], jvp="linear", name=f"scale by {word}".replace(" ", "_")
        )
        try:
            x = mf.tensor([1.0, 2.0], requires_grad=True)
            y = scale(x, **{word: 3.0})
            np.testing.assert_array_equal(y.data, [3, 6], err_msg=word)
            y.sum().backward()
            np.testing.assert_array_equal(x.grad, [3, 3], err_msg=word)
        finally:
            OPS.pop(f"scale_by_{word}", None)


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
