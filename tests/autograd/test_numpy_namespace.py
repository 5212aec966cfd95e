"""NumPy's whole namespace: each function has a rule, or is refused by name."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import microfw as mf
from microfw.autograd.registry import NUMPY
from tests.cases.numpy_functions import CALLS, A, several

DISPATCHED = type(np.sum)
SPACES = {"np": np, "np.linalg": np.linalg, "np.fft": np.fft}


def public(kind):
    seen = {}
    for space, module in SPACES.items():
        for name in dir(module):
            made = getattr(module, name)
            if not name.startswith("_") and isinstance(made, kind) and not isinstance(made, type):
                seen.setdefault(made, f"{space}.{name}")
    return [pytest.param(made, id=name) for made, name in seen.items()]


PLAIN_ANSWERS = [
    np.shape, np.ndim, np.size, np.zeros_like, np.ones_like, np.empty_like, np.full_like, np.result_type, np.array_equal,
    np.array_equiv, np.allclose, np.isclose, np.may_share_memory, np.shares_memory, np.array_repr, np.array_str,
    np.array2string, np.can_cast, np.common_type, np.diag_indices_from, np.einsum_path, np.iscomplexobj, np.isrealobj,
    np.ix_, np.min_scalar_type, np.save, np.savetxt, np.savez, np.savez_compressed, np.tril_indices_from, np.triu_indices_from,
]  # fmt: skip
"""Functions that tell something about an array, and return what NumPy returns."""


@pytest.mark.parametrize("function", public(np.ufunc))
def test_every_ufunc_records_or_is_refused_by_name(function):
    given = [mf.tensor(np.abs(A) * 0.5 + 0.1, requires_grad=True) for _ in range(function.nin)]
    if function in (np.matmul, getattr(np, "matvec", None), getattr(np, "vecmat", None)):
        given = [mf.tensor(a) for a in {np.matmul: (A, A.T)}.get(function, (A[:3, :3], A[:3, :3]))]
    if function not in NUMPY:
        with pytest.raises(TypeError, match=rf"np\.{function.__name__}: expected a function with a derivative rule"):
            function(*given)
        return
    with np.errstate(all="ignore"):
        try:
            made = function(*given)
        except TypeError:  # functions of masks
            made = function(*(x > 0.5 for x in given))
    for y in several(made):
        assert isinstance(y, mf.Tensor)


@pytest.mark.parametrize("function", public(DISPATCHED))
def test_every_function_has_a_rule_or_is_refused_by_name(function):
    if function in PLAIN_ANSWERS or function in NUMPY:
        return
    x = mf.tensor(A, requires_grad=True)
    try:
        parameters = inspect.signature(function).parameters.values()
        needed = [
            p for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]
        count = len(needed) or 1
    except ValueError:  # written in C, and NumPy does not say
        count = 2
    special = {
        np.apply_along_axis: (np.sum, 0, x),
        np.apply_over_axes: (np.sum, x, 0),
        np.putmask: (x, x, x),  # without a signature in NumPy 2.0
    }
    with pytest.raises(
        TypeError, match=rf"\b{function.__name__}: expected a function with a derivative rule, got one without"
    ):
        function(*special.get(function, (x,) * count))


def test_functions_made_of_ops_are_all_in_the_table_above():
    made = {f for f, call in NUMPY.items() if not hasattr(call, "op") and call.__module__ in OURS}
    tested = {row[0] for row in CALLS} | {np.nonzero, np.flatnonzero, np.argsort, *PLAIN_ANSWERS}
    assert {f.__name__ for f in made - tested} == set()


OURS = {
    f"microfw.ops.{name}"
    for name in ("diagonals", "factors", "indexing", "joining", "layout", "mapping", "products", "repeating")
}

NOT_DISPATCHED = {
    "array", "asarray", "asanyarray", "ascontiguousarray", "asfortranarray", "asarray_chkfinite", "require", "asmatrix", "bmat",
    "arange", "bartlett", "base_repr", "binary_repr", "blackman", "broadcast_shapes", "datetime_data", "diag_indices", "empty",
    "eye", "format_float_positional", "format_float_scientific", "from_dlpack", "frombuffer", "fromfile", "fromfunction",
    "fromiter", "frompyfunc", "fromregex", "fromstring", "full", "genfromtxt", "get_include", "get_printoptions", "getbufsize",
    "geterr", "geterrcall", "hamming", "hanning", "identity", "indices", "info", "isdtype", "isfortran", "isscalar",
    "issubdtype", "iterable", "kaiser", "load", "loadtxt", "mask_indices", "mintypecode", "nested_iters", "ones",
    "printoptions", "promote_types", "row_stack", "set_printoptions", "setbufsize", "seterr", "seterrcall", "show_config",
    "show_runtime", "test", "tri", "tril_indices", "triu_indices", "typename", "zeros", "fftfreq", "rfftfreq",
    "deprecate", "in1d", "trapz",
}  # fmt: skip
"""Functions that NumPy does not dispatch. The first eight take a Tensor's values, as their names show."""


def test_what_numpy_does_not_dispatch_is_known():
    for space in SPACES.values():
        for name in dir(space):
            made = getattr(space, name)
            if callable(made) and not name.startswith("_") and not isinstance(made, type | DISPATCHED | np.ufunc):
                assert name in NOT_DISPATCHED, f"{space.__name__}.{name}"


@pytest.mark.parametrize(
    "name", ["array", "asarray", "asanyarray", "ascontiguousarray", "asfortranarray", "asarray_chkfinite", "require"]
)
def test_conversions_leave_the_graph(name):
    made = getattr(np, name)(mf.tensor(A))
    assert type(made) is np.ndarray
    np.testing.assert_array_equal(made, A)


@pytest.mark.parametrize(("call", "expected"), [
    (lambda x: np.array_equiv(x, A), True), (lambda x: np.array_equal([x, x], [A, A]), True), (np.iscomplexobj, False), (np.isrealobj, True),
    (np.common_type, np.float64), (lambda x: np.can_cast(x.dtype, np.float32), False), (lambda x: np.min_scalar_type(x), np.dtype(float)),
    (lambda x: np.einsum_path("ij,jk", x, x.T)[0], ["einsum_path", (0, 1)]), (lambda x: len(np.tril_indices_from(x)), 2),
    (lambda x: len(np.triu_indices_from(x)), 2), (lambda x: len(np.diag_indices_from(x[:, :3])), 2),
    (lambda x: np.ix_(np.argsort(x[0]), [0])[0].shape, (4, 1)),
])  # fmt: skip
def test_plain_answers(call, expected):
    assert call(mf.tensor(A)) == expected


def test_values_can_be_saved(tmp_path):
    x = mf.tensor(A, requires_grad=True)
    np.save(tmp_path / "a.npy", x)
    np.savez(tmp_path / "b.npz", x, named=x)
    np.savez_compressed(tmp_path / "c.npz", x=x)
    np.savetxt(tmp_path / "d.txt", x)
    for loaded in (np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npz")["named"], np.load(tmp_path / "c.npz")["x"]):
        np.testing.assert_array_equal(loaded, A)
    np.testing.assert_allclose(np.loadtxt(tmp_path / "d.txt"), A)
