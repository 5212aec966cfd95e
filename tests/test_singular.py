"""Singular points: the stated value and slope in both dtypes, and a page that says what is tested here."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from singular_cases import GROUPS, INF

import microfw as mf
from microfw import ops

POINTS = [point for points in GROUPS.values() for point in points]
PAGE = Path(__file__).parent.parent / "docs" / "guide" / "singular_points.md"

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


def written(values):
    """Write numbers as on the page."""
    a = np.asarray(values, float)
    texts = [f"{v + 0.0:.6g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e") for v in a.ravel()]
    return f"[{', '.join(texts)}]" if a.ndim else texts[0]


def told(value, slope):
    return f"{written(value)} → {written(slope)}"


def row(point, torch, jax):
    own = point.value if isinstance(point.value, str) else told(point.value, point.slope)
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
