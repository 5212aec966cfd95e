"""Tensor: operators, NumPy's protocols, indexing, printing, copies, and what is refused."""

from __future__ import annotations

import copy
import operator
import pickle

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import DTypeError, GraphError, ShapeError

A = np.array([[1.0, -2.0], [3.0, 0.5]])
B = np.array([[2.0, 1.5], [3.0, -1.0]])

ARITHMETIC = [operator.add, operator.sub, operator.mul, operator.truediv, operator.matmul]
COMPARISONS = [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne]


def t(x, **options):
    return mf.tensor(x, requires_grad=True, **options)


# Operators


@pytest.mark.parametrize("op", ARITHMETIC + COMPARISONS)
def test_operators_are_numpys(op):
    expected = op(A, B)
    for left, right in ((t(A), t(B)), (t(A), B), (A, t(B))):
        got = op(left, right)
        assert type(got) is mf.Tensor
        np.testing.assert_array_equal(got.data, expected)
        assert got.dtype == expected.dtype
        assert got.requires_grad == (op in ARITHMETIC)


@pytest.mark.parametrize("op", [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, *COMPARISONS])
@pytest.mark.parametrize("number", [2, 2.0, True, np.float64(2), np.float32(2), np.int64(2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_numbers_keep_the_dtype(op, number, dtype):
    a = np.abs(A).astype(dtype)
    for got, expected in ((op(t(a), number), op(a, float(number))), (op(number, t(a)), op(float(number), a))):
        assert isinstance(got, mf.Tensor)
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got.data, expected)


@pytest.mark.parametrize("op", ARITHMETIC)
def test_an_array_on_the_left_defers_to_the_tensor(op):
    """NumPy would otherwise make an array of objects, entry by entry."""
    x = t(B)
    y = op(A, x)
    y.sum().backward()
    expected = mf.grad(lambda b: np.sum(op(mf.tensor(A), b)))(B)
    np.testing.assert_allclose(x.grad, expected)
    assert y._node.op.name in ("add", "subtract", "multiply", "divide", "matmul")


def test_lists_are_operands():
    np.testing.assert_array_equal((t([1.0, 2.0]) + [1.0, 1.0]).data, [2, 3])
    np.testing.assert_array_equal(([1.0, 1.0] - t([1.0, 2.0])).data, [0, -1])


def test_unary_operators():
    x = t(A)
    np.testing.assert_array_equal((-x).data, -A)
    np.testing.assert_array_equal(abs(x).data, np.abs(A))
    assert +x is x
    np.testing.assert_array_equal((t(np.abs(A)) ** 0.5).data, np.abs(A) ** 0.5)
    np.testing.assert_array_equal((2.0**x).data, 2.0**A)


def test_equality_is_by_entry_and_hash_by_identity():
    x, y = t([1.0, 2.0]), t([1.0, 3.0])
    assert (x == y).tolist() == [True, False]
    assert len({x, y, x}) == 2


def test_other_types_are_refused_by_name():
    with pytest.raises(DTypeError, match=r"^add: expected a Tensor, an array or a number, got str"):
        t(1.0) + "1"
    with pytest.raises(DTypeError, match="got NoneType"):
        t(1.0) * None


# Indexing


KEYS = [
    0, -1, slice(1, None), slice(None, None, -1), (0, 1), (slice(None), 0), ..., None, (None, ..., 0), [0, 0, 1],
    np.array([1, 0, 1]), np.array([True, False]), (np.array([0, 0]), np.array([1, 1])), np.array([[0, 1]]),
    np.int64(1), (slice(None), [True, False]), (0, np.array([0, 0])),
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=str)
def test_indexing_is_numpys_and_its_gradient_adds_up(key):
    x = t(A)
    y = x[key]
    np.testing.assert_array_equal(y.data, A[key])
    y.sum().backward()
    expected = np.zeros_like(A)
    np.add.at(expected, key, 1)
    np.testing.assert_array_equal(x.grad, expected)


def test_a_tensor_is_an_index():
    x = t([10.0, 20.0, 30.0])
    np.testing.assert_array_equal(x[mf.tensor([2, 0, 0])].data, [30, 10, 10])
    np.testing.assert_array_equal(x[x > 15].data, [20, 30])
    y = x[x.argmax()]
    assert y.shape == () and y.item() == 30
    assert [1, 2, 3][mf.tensor(1)] == 2


def test_length_and_iteration():
    x = t(A)
    assert len(x) == 2
    rows = list(x)
    assert [row.tolist() for row in rows] == A.tolist()
    sum(rows[0]).backward()
    np.testing.assert_array_equal(x.grad, [[1, 1], [0, 0]])
    with pytest.raises(TypeError, match="expected at least one axis to iterate over, got a 0-d Tensor"):
        iter(t(1.0))
    with pytest.raises(TypeError):
        len(t(1.0))
    assert 3.0 in x and 7.0 not in x
    a, b = t([1.0, 2.0])
    assert (a.item(), b.item()) == (1, 2)


# Conversions


def test_numbers():
    assert float(mf.tensor(2.5)) == 2.5 and int(mf.tensor(2.5)) == 2 and t([[2.5]]).item() == 2.5
    assert bool(t(2.5)) and not bool(t(0.0)) and bool(t([1.0]) > 0)
    assert isinstance(t(2.5).item(), float)
    with pytest.raises(ValueError, match="ambiguous"):
        bool(t([1.0, 2.0]))
    with pytest.raises((TypeError, ValueError)):
        float(mf.tensor([1.0, 2.0]))
    with pytest.raises(ValueError):
        t([1.0, 2.0]).item()


def test_format():
    assert f"{t(2.0):.3f}" == "2.000"
    assert f"{t([2.0]):.1e}" == "2.0e+00"
    assert f"{mf.tensor([1.0, 2.0])}" == "tensor([1., 2.])"
    assert f"{mf.tensor(1.0)}" == str(mf.tensor(1.0)) == "tensor(1.)"


def test_repr():
    x = t([1.0, 2.0])
    assert repr(x) == "tensor([1., 2.], requires_grad=True)"
    assert repr(x * 2.0) == "tensor([2., 4.], op=multiply)"
    assert repr(mf.tensor([1, 2])) == "tensor([1, 2], dtype=int64)"
    assert repr(mf.tensor(np.float32(1))) == "tensor(1., dtype=float32)"
    assert repr(mf.tensor(np.zeros((0, 2)))).startswith("tensor([]")
    assert repr(nn.Parameter([1.0])) == "Parameter([1.], dtype=float32, requires_grad=True)"
    assert len(repr(mf.tensor(np.zeros(100_000)))) < 200


def test_properties():
    x = t(np.zeros((2, 3), np.float32))
    assert (x.shape, x.ndim, x.size, x.nbytes, x.dtype) == ((2, 3), 2, 6, 24, np.float32)
    assert x.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert np.shape(x) == (2, 3) and np.ndim(x) == 2 and np.size(x) == 6


def test_methods_are_numpys():
    x = t(np.arange(24.0).reshape(2, 3, 4))
    a = x.data
    for name, args in {
        "sum": [(), (0,), ((0, 2),), (1, True)], "mean": [(), (1,), (-1, True)], "max": [(), (0,)], "min": [(), (2,)],
        "argmax": [(), (1,)], "reshape": [(6, 4), ((6, 4),), (-1,)], "transpose": [(), (2, 0, 1), ((2, 0, 1),)], "ravel": [()],
        "astype": [(np.float32,), ("float32",)],
    }.items():  # fmt: skip
        for arg in args:
            options = {}
            if len(arg) == 2 and arg[1] is True:
                arg, options = arg[:1], {"keepdims": True}
            expected = getattr(a, name)(*arg, **options)
            got = getattr(x, name)(*arg, **options)
            np.testing.assert_array_equal(got.data, expected, err_msg=f"{name}{arg}")
            assert got.dtype == expected.dtype, f"{name}{arg}"
    np.testing.assert_array_equal(x.T.data, a.T)
    np.testing.assert_array_equal(t(A).dot(B).data, A.dot(B))


def test_detach_stops_the_gradient():
    x = t([1.0, 2.0])
    y = x * x.detach()
    assert not x.detach().requires_grad
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [1, 2])


def test_requires_grad_is_a_leafs():
    x = mf.tensor([1.0])
    assert not x.requires_grad
    x.requires_grad = True
    (x * 2.0).sum().backward()
    assert x.grad == 2
    y = x * 2.0
    for value in (True, False):
        with pytest.raises(
            GraphError, match=r"^Tensor.requires_grad: expected a leaf, got the result of an op; use detach"
        ):
            y.requires_grad = value
    with pytest.raises(DTypeError, match=r"^Tensor.requires_grad: expected float32 or float64, got int64; cast it"):
        mf.tensor([1]).requires_grad = True
    with pytest.raises(DTypeError):
        mf.tensor([True], requires_grad=True)


def test_grad_can_be_set():
    x = t([1.0, 2.0])
    given = np.array([3.0, 4.0])
    x.grad = given
    given[...] = 0
    np.testing.assert_array_equal(x.grad, [3, 4])
    with pytest.raises(ShapeError, match=r"^Tensor.grad: expected an array of shape \(2,\), got \(3,\)"):
        x.grad = np.zeros(3)
    np.testing.assert_array_equal(x.grad, [3, 4])
    x.grad *= 2
    np.testing.assert_array_equal(x.grad, [6, 8])
    assert mf.tensor(1.0).grad is None


# Copies


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_are_leaves_of_their_own(duplicate):
    x = t([1.0, 2.0])
    for original in (x, (x * 2.0).detach(), mf.tensor([1, 2]), nn.Parameter([1.0, 2.0])):
        got = duplicate(original)
        assert type(got) is type(original)
        np.testing.assert_array_equal(got.data, original.data)
        assert got.dtype == original.dtype
        assert got.requires_grad == (original.requires_grad and original._leaf is not None)
        assert not np.shares_memory(got.data, original.data)
        got.data = got.data * 0
        assert original.data.any()


def test_deepcopy_keeps_sharing():
    x = t([1.0])
    a, b = copy.deepcopy([x, x])
    assert a is b and a is not x


def test_mf_tensor_copies():
    a = np.array([1.0, 2.0])
    x = mf.tensor(a)
    a[0] = 9
    assert x.tolist() == [1, 2]
    y = mf.tensor(x, "float32", requires_grad=True)
    assert y.dtype == np.float32 and y.requires_grad
    assert mf.tensor([1, 2], float).dtype == np.float64


# Dtypes


@pytest.mark.parametrize(
    "bad", [np.float16(1), np.array([1j]), "text", np.array(["a"]), np.array([None]), np.datetime64("2020")]
)
def test_what_is_no_number_is_refused(bad):
    with pytest.raises(DTypeError, match=r"^Tensor: expected float32, float64, integers or booleans, got "):
        mf.tensor(bad)


@pytest.mark.skipif(np.longdouble is np.float64 or np.finfo(np.longdouble).bits == 64, reason="no longer floats here")
def test_longer_floats_are_refused():
    with pytest.raises(
        DTypeError, match="^Tensor: expected float32, float64, integers or booleans, got (float|longdouble)"
    ):
        mf.tensor(np.zeros(2, np.longdouble))


@pytest.mark.parametrize("dtype", ["f8", "f4", "i4"])
def test_the_other_order_of_bytes_is_turned_around(dtype):
    values = np.array([1, 2, 3]).astype(np.dtype(dtype).newbyteorder())
    x = mf.tensor(values, requires_grad=dtype != "i4")
    assert x.dtype.isnative
    np.testing.assert_array_equal(x.data, [1, 2, 3])
    np.testing.assert_array_equal((x * x).data, [1, 4, 9])
    cast = mf.tensor([1.0, 2.0]).astype(values.dtype)
    assert cast.dtype is np.dtype(dtype)
    np.testing.assert_array_equal((cast * 2).data, [2, 4])


def test_float16_is_refused_also_by_dtype():
    with pytest.raises(DTypeError, match="got float16; cast it with .astype"):
        mf.tensor([1.0], np.float16)
    with pytest.raises(DTypeError):
        t([1.0]).astype(np.float16)


def test_tensors_of_two_dtypes_do_not_mix():
    x, y = t([1.0], dtype=np.float32), t([1.0])
    for op in ARITHMETIC:
        with pytest.raises(
            DTypeError, match=r"expected Tensors of one dtype, got float32 and float64; cast one of them"
        ):
            op(x, y)
    np.testing.assert_array_equal((x.astype(np.float64) + y).data, [2])
    assert (x.astype(np.float64) + y).dtype == np.float64


def test_an_array_does_not_change_a_tensors_dtype():
    x = t([1.0], dtype=np.float32)
    for op in (operator.add, operator.mul, operator.truediv, operator.matmul):
        with pytest.raises(
            DTypeError, match=r"expected all operands to be float32, got an array that makes the result float64"
        ):
            op(x, np.array([1.0]))
        with pytest.raises(DTypeError, match="float64"):
            op(np.array([1.0]), x)
    assert (t([1.0]) + np.array([1.0], np.float32)).dtype == np.float64


def test_integer_and_boolean_tensors_mix_with_floats():
    x = t([1.0, 2.0], dtype=np.float32)
    assert (x * (x > 1)).dtype == np.float32
    y = t([1.0, 2.0])
    assert (y * mf.tensor([1, 2])).dtype == np.float64


def test_objects_are_refused():
    with pytest.raises((DTypeError, TypeError)):
        t([1.0]) * np.array([None])
    with pytest.raises(DTypeError):
        t([1.0, 2.0]) * np.array([1.0, 2.0], object)


# NumPy's protocols


def test_numpys_functions_record():
    x = t(A)
    for function, name in ((np.exp, "exp"), (np.sum, "sum"), (np.square, "square"), (np.transpose, "transpose")):
        y = function(x)
        assert isinstance(y, mf.Tensor) and y._node.op.name == name


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("np.logaddexp2", lambda x: np.logaddexp2(x, x)),
        ("np.fft", lambda x: np.fft.fft(x)),
        ("np.median", lambda x: np.median(x)),
        ("np.histogram", lambda x: np.histogram(x)),
        ("np.ldexp", lambda x: np.ldexp(x, 2)),
        ("np.linalg", lambda x: np.linalg.eig(x)),
    ],
)
def test_functions_without_a_rule_are_refused_by_name(name, call):
    with pytest.raises(TypeError) as info:
        call(t(A))
    text = str(info.value)
    assert name.split(".")[1] in text or name in ("np.fft", "np.linalg")
    assert "expected a function with a derivative rule, got one without" in text
    assert "mf.op" in text and ".data" in text


def test_methods_of_ufuncs_are_refused():
    for call in (np.add.reduce, np.add.accumulate, lambda x: np.add.outer(x, x), lambda x: np.add.reduceat(x, [0])):
        with pytest.raises(TypeError, match=r"np\.add\.\w+: expected arrays, got a Tensor"):
            call(t(A))
    with pytest.raises(TypeError, match="where="):
        np.add(t(A), 1.0, where=np.array([[True, False]]))


def test_plain_questions_get_plain_answers():
    x = t(A)
    assert np.array_equal(x, A) and np.allclose(x, A)
    assert type(np.zeros_like(x)) is np.ndarray
    assert not np.shares_memory(x, A)


def test_asarray():
    x = mf.tensor(A)
    assert type(np.asarray(x)) is np.ndarray
    assert np.asarray(x, np.float32).dtype == np.float32
    copied = np.array(x)
    assert copied.flags.writeable and not np.shares_memory(copied, x.data)
    assert np.array(x, copy=True).flags.writeable


def test_importing_under_no_grad_changes_no_values():
    x = t(A)
    with mf.no_grad():
        y = np.exp(x) @ x
    np.testing.assert_array_equal(y.data, (np.exp(x) @ x).data)
    assert not y.requires_grad and repr(y).endswith("]])")


def test_a_gradient_is_of_real_numbers():
    x = mf.tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(DTypeError, match="^Tensor.grad: expected numbers to cast to float64, got complex128$"):
        x.grad = np.array([1j, 2.0])
    assert x.grad is None


def test_a_list_times_a_tensor_is_a_product_of_matrices():
    x = mf.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    y = [1.0, 10.0] @ x
    np.testing.assert_array_equal(y.data, [31, 42])
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [[1, 1], [10, 10]])


@pytest.mark.parametrize("copied", [
    lambda x: mf.tensor(x), lambda x: mf.Tensor(x), lambda x: mf.tensor(x, np.float64), lambda x: nn.Parameter(x * 2.0, np.float64),
    lambda x: copy.copy(x * 2.0), lambda x: copy.deepcopy(x * 2.0),
])  # fmt: skip
def test_a_copy_of_what_needs_a_gradient_warns(copied):
    def f(x):
        return copied(x).sum() + x.sum()

    for run in (lambda: f(mf.tensor([1.0, 2.0], requires_grad=True)), lambda: mf.grad(f)(np.ones(2))):
        with pytest.warns(UserWarning, match="its gradient is lost; write t.detach.. where that is meant"):
            run()
    with mf.no_grad():
        f(mf.tensor([1.0, 2.0], requires_grad=True))


def test_full_like_takes_no_value_that_needs_a_gradient():
    x = mf.tensor([1.0, 2.0], requires_grad=True)
    for fill in (lambda: np.full_like(x, x[0]), lambda: np.full_like(x, fill_value=x[0])):
        with pytest.raises(GraphError, match="whose gradient would be lost"):
            fill()
    np.testing.assert_array_equal(np.full_like(a=x, fill_value=x.detach()[1]), [2, 2])
    assert np.zeros_like(a=x).shape == (2,)


def test_backward_from_an_integer_reaches_the_leaf():
    x = mf.tensor([1.5, 2.5], requires_grad=True)
    mf.ops.astype(x, dtype=int).sum().backward()
    assert x.grad.shape == (2,)


def test_dtypes_are_the_objects_of_numpy():
    # The engine compares dtypes with `is`; an equal one of another object makes it ask for a common dtype at each op.
    unpickled = pickle.loads(pickle.dumps(np.ones(2)))
    swapped = np.ones(2, np.dtype(np.float64).newbyteorder("S"))
    float64 = np.dtype(np.float64)
    assert unpickled.dtype is not float64
    made = [mf.tensor(unpickled), mf.tensor(swapped), pickle.loads(pickle.dumps(mf.tensor([1.0, 2.0])))]
    made += nn.Dense(2, 2).astype(np.float64).parameters() + [copy.deepcopy(mf.tensor(unpickled))]
    assert all(t._array.dtype is float64 for t in made)
    mf.grad(lambda x: made.append(x) or x.sum())(unpickled)
    assert made[-1]._array.dtype is float64
