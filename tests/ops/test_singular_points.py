"""Singular points: the stated value and slope in both dtypes, and a page that says what is tested here."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import microfw as mf
from microfw import ops
from tests.cases.singular import GROUPS, INF, SECOND
from tests.helpers.paths import ROOT

POINTS = [point for points in GROUPS.values() for point in points]
PAGE = ROOT / "docs" / "guide" / "singular_points.md"

points = pytest.mark.parametrize("point", POINTS, ids=lambda p: p.name)


def found(point, dtype):
    """Return value and slope."""
    x = mf.tensor(np.array(point.x, dtype), requires_grad=True)
    with np.errstate(all="ignore"):
        y = point.function(np, x)
        y.backward(np.ones(y.shape, dtype))
    assert y.dtype == x.grad.dtype == dtype
    return y.numpy(), x.grad


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@points
def test_singular_points(point, dtype):
    if isinstance(point.value, str):
        with pytest.raises(getattr(mf.errors, point.value)):
            found(point, dtype)
        return
    value, slope = found(point, dtype)
    rtol = 4 * np.finfo(dtype).eps
    np.testing.assert_allclose(value, point.value, rtol, atol=rtol if point.name.startswith("arc") else 0)
    np.testing.assert_allclose(slope, point.slope, rtol)
    assert slope.shape == np.shape(point.slope)


@pytest.mark.parametrize("derivative", ["hessian", "forward over reverse"])
@points
def test_second_derivatives_at_singular_points_are_right_or_nan(point, derivative):
    if isinstance(point.value, str):
        return
    gradient = mf.grad(lambda x: np.sum(point.function(np, x)))
    with np.errstate(all="ignore"):
        x = np.array(point.x, float)
        found = mf.jacobian(gradient, mode="reverse" if derivative == "hessian" else "forward")(x)
    found = np.diag(found.reshape(x.size, x.size))
    if derivative == "hessian":
        np.testing.assert_allclose(found, SECOND[point.name], rtol=1e-9)
    else:  # another order of operations may meet infinity times 0
        known = np.isfinite(found)
        np.testing.assert_allclose(found[known], np.array(SECOND[point.name], float)[known], rtol=1e-9)


def written(values):
    """Write numbers as on the page."""
    a = np.asarray(values, float)
    texts = [f"{v + 0.0:.6g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e") for v in a.ravel()]
    return f"[{', '.join(texts)}]" if a.ndim else texts[0]


def told(value, slope):
    return f"{written(value)} → {written(slope)}"


def row(point, torch, jax):
    own = point.value
    if not isinstance(own, str):
        own = f"{told(point.value, point.slope)} → {written(SECOND[point.name])}"
    return f"| {point.name.replace('*', chr(92) + '*')} | {own} | {torch} | {jax} | {point.note} |"


def in_torch(point):
    torch = pytest.importorskip("torch")
    if point.torch is False:
        return "no such function"
    x = torch.tensor(point.x, dtype=torch.float64, requires_grad=True)
    y = point.torch(torch, x) if point.torch else point.function(torch, x)
    y.backward(torch.ones_like(y))
    return told(y.detach().numpy(), x.grad.numpy())


def in_jax(point):
    jax = pytest.importorskip("jax")
    jax.config.update("jax_enable_x64", True)
    x = jax.numpy.array(point.x, float)
    y, pull = jax.vjp(lambda t: point.jax(jax, t) if point.jax else point.function(jax.numpy, t), x)
    return told(y, pull(jax.numpy.ones_like(y))[0])


def page_rows():
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [line for line in lines if not line.startswith(("| case", "| ---", "|--"))]


def test_the_page_says_what_is_tested():
    rows = page_rows()
    assert len(rows) == len(POINTS)
    for point, line in zip(POINTS, rows, strict=True):
        torch, jax = line.split(" | ")[2:4]
        assert line == row(point, torch, jax)


@pytest.mark.peers
@pytest.mark.parametrize(("column", "run"), [(2, in_torch), (3, in_jax)], ids=["torch", "jax"])
def test_the_page_says_what_the_peers_do(column, run):
    for point, line in zip(POINTS, page_rows(), strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert line.split(" | ")[column] == run(point), point.name


def test_float16_is_refused():
    with pytest.raises(mf.errors.DTypeError, match="expected float32, float64, integers or booleans, got float16"):
        mf.tensor(np.zeros(2, np.float16))
    with pytest.raises(mf.errors.DTypeError, match="float16"):
        mf.tensor([1.0]).astype(np.float16)


def test_infinite_logits_of_the_binary_loss():
    z = mf.tensor([np.inf, -np.inf, 1e4, -1e4], requires_grad=True)
    y = ops.loss.bce_with_logits(z, np.array([1.0, 0.0, 0.0, 1.0]))
    np.testing.assert_array_equal(y.data, [0, 0, 1e4, 1e4])
    y.backward(np.ones(4))
    np.testing.assert_array_equal(z.grad, [0, 0, 1, -1])


def test_infinite_logits_of_the_weighted_binary_loss():
    z = mf.tensor([np.inf, -np.inf, -np.inf, 1e4, -1e4, np.inf], requires_grad=True)
    ones, zeros = np.array([3.0, 0.0, 3.0, 0.0, 3.0, 0.0]), np.array([0.0, 1.0, 0.0, 1.0, 0.0, 0.0])
    y = ops.loss.weighted_bce(z, ones, zeros)
    np.testing.assert_array_equal(y.data, [0, 0, np.inf, 1e4, 3e4, 0])
    y.backward(np.ones(6))
    np.testing.assert_array_equal(z.grad, [0, 0, -3, 1, -3, 0])


def test_no_warning_where_everything_is_minus_infinity():
    x = mf.tensor([-INF, -INF], requires_grad=True)
    y = ops.reduction.logsumexp(x) + np.logaddexp(x[0], x[1])
    y.backward()
    assert y.item() == -INF
    np.testing.assert_array_equal(x.grad, [0, 0])


def test_a_large_mean_costs_no_digits_of_the_variance():
    x = np.array([1e8, 1e8 + 1, 1e8 + 2])
    value, slope = mf.value_and_grad(np.var)(x)
    assert value == 2 / 3
    np.testing.assert_allclose(slope, [-2 / 3, 0, 2 / 3], rtol=1e-15)


def test_equal_entries_have_no_deviation_whatever_their_mean_rounds_to():
    rng = np.random.default_rng(0)
    for dtype in (np.float32, np.float64):
        for n in range(2, 50):
            x = mf.tensor(
                np.full((5, n), rng.normal(size=(5, 1)) * 10.0 ** rng.integers(-8, 9, (5, 1)), dtype),
                requires_grad=True,
            )
            y = np.std(x, axis=1)
            y.sum().backward()
            assert not y.data.any() and not x.grad.any()


# Second derivatives, where the first is chosen


POWERS = {
    (2.0, 0.0): [[0, 0.5], [0.5, np.log(2) ** 2]],
    (2.0, 3.0): [[12, 4 + 12 * np.log(2)], [4 + 12 * np.log(2), 8 * np.log(2) ** 2]],
    (0.0, 2.0): [[2, 0], [0, 0]],
    (0.0, 3.0): [[0, 0], [0, 0]],
    (0.0, 1.0): [[0, -np.inf], [-np.inf, 0]],
    (0.0, 0.0): [[0, np.nan], [np.nan, np.nan]],
}


@pytest.mark.parametrize("point", POWERS, ids=str)
def test_second_derivatives_of_a_power(point):
    with np.errstate(all="ignore"):
        hessian = mf.hessian(lambda v: v[0] ** v[1])(np.array(point))
    right = np.array(POWERS[point])
    known = ~np.isnan(hessian)
    np.testing.assert_allclose(hessian[known], right[known], rtol=1e-12)
    if point[0] > 0 or point[1] > 1:
        assert known.all()


LENGTHS = {
    "norm": np.linalg.norm,
    "norm of rows": lambda x: np.linalg.norm(x.reshape(1, -1), axis=1).sum(),
    "length": ops.normalization.length,
    "hypot": lambda x: np.hypot(x[0], x[1]),
    "std": np.std,
    "unit": lambda x: ops.normalization.unit(x)[0],
}


@pytest.mark.parametrize("name", LENGTHS)
@pytest.mark.parametrize("power", [1, 2, 3])
def test_no_curvature_is_made_up_where_a_length_is_zero(name, power):
    x = np.zeros(2)
    for hessian in (mf.hessian, lambda f: mf.jacobian(mf.grad(f), mode="forward")):
        assert np.isnan(hessian(lambda t: LENGTHS[name](t) ** power)(x)).any()
        assert np.isfinite(hessian(lambda t: LENGTHS[name](t) ** power)(np.array([3.0, 4.5]))).all()


def test_a_length_that_stays_zero_has_no_curvature():
    assert mf.hessian(lambda t: np.linalg.norm(t * np.zeros(2)))(1.0) == 0
    np.testing.assert_array_equal(mf.hessian(lambda t: np.std(t * np.ones(3)))(1.0), 0)
    np.testing.assert_array_equal(mf.hessian(lambda t: np.std(t, axis=1).sum())(np.ones((2, 1))), 0)


@pytest.mark.parametrize("function", [np.log, np.log2, np.log10, np.log1p, np.arctanh], ids=lambda f: f.__name__)
def test_outside_of_its_domain_a_function_has_no_second_derivative(function):
    with np.errstate(all="ignore"):
        assert np.isnan(mf.grad(mf.grad(function))(-3.0))


# Sums of squares


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", ["huge", "tiny", "subnormal"])
@pytest.mark.parametrize("axis", [None, 1, (0, 1)])
def test_lengths_neither_overflow_nor_underflow(dtype, size, axis):
    info = np.finfo(dtype)
    scale = {"huge": info.max / 8, "tiny": info.tiny, "subnormal": info.tiny / 1024}[size]
    x = np.array([[3.0, 4.0]], dtype) * dtype(scale)
    t = mf.tensor(x, requires_grad=True)
    y = np.linalg.norm(t, axis=axis)
    y.sum().backward()
    rtol = 1e-3 if size == "subnormal" else 4 * info.eps
    np.testing.assert_allclose(y.numpy() / dtype(scale), np.full(y.shape, 5), rtol=rtol)
    np.testing.assert_allclose(t.grad, [[0.6, 0.8]], rtol=rtol)
    s = mf.tensor(np.array([[-1.0, 1.0]], dtype) * dtype(scale), requires_grad=True)
    y = np.std(s, axis=axis)
    y.sum().backward()
    np.testing.assert_allclose(y.numpy() / dtype(scale), np.ones(y.shape), rtol=rtol)
    np.testing.assert_allclose(s.grad, [[-0.5, 0.5]], rtol=rtol)


def test_rows_of_ordinary_size_keep_their_bits_next_to_huge_and_tiny_ones():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 7)).astype(np.float32)
    alone = np.linalg.norm(mf.tensor(x), axis=1).numpy()
    mixed = np.concatenate([x, np.full((1, 7), 1e30, np.float32), np.full((1, 7), 1e-30, np.float32)])
    got = np.linalg.norm(mf.tensor(mixed), axis=1).numpy()
    np.testing.assert_array_equal(got[:5], alone)
    np.testing.assert_allclose(got[5:], np.array([1e30, 1e-30]) * np.sqrt(7), rtol=1e-6)


def test_infinite_and_undefined_entries_have_such_lengths():
    for x, length in (([np.inf, 1.0], np.inf), ([np.nan, 1.0], np.nan), ([np.inf, np.nan], np.nan)):
        np.testing.assert_equal(np.linalg.norm(mf.tensor(x)).item(), length)
    assert np.linalg.norm(mf.tensor(np.zeros(0))).item() == 0


def test_a_length_out_of_range_is_replayed_as_it_is_computed():
    w = mf.nn.Parameter(np.ones(2))
    optimizer = mf.optim.SGD([w], lr=1e-30)
    step = mf.compile(lambda x: np.linalg.norm(w * x), optimizer)
    for scale in (1.0, 1.0, 1.0, 1e20, 1e-30, 0.0, 1.0):
        loss = step(np.array([3 * scale, 4 * scale], np.float32))
        np.testing.assert_allclose(loss.item(), 5 * scale, rtol=1e-6)
        np.testing.assert_allclose(w.grad, np.array([0.6, 0.8]) * 5 * scale * np.array([0.6, 0.8]), rtol=1e-5)
    assert "replayed" in step.explain()
