"""Slopes against mpmath, out to where they underflow: how many units in the last place they are off."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import scipy.special
from mpmath import mpf

import microfw as mf
from microfw import ops
from microfw.ops.elementwise import erf, sigmoid, softplus

TINY = float(np.finfo(float).tiny)


def mixed(limit):
    """Return a sampler of numbers of either sign up to a limit: half spread evenly, half over all magnitudes."""

    def sample(rng, n):
        small = np.exp(rng.uniform(np.log(1e-300), np.log(limit), n)) * rng.choice([-1.0, 1.0], n)
        return np.where(rng.random(n) < 0.5, rng.uniform(-limit, limit, n), small)

    return sample


def positive(low, high, start=0.0, sign=1.0):
    """Return a sampler of numbers ``start + sign * u``, where ``u`` goes over all magnitudes between two."""
    return lambda rng, n: start + sign * np.exp(rng.uniform(np.log(low), np.log(high), n))


def even(limit):
    return lambda rng, n: rng.uniform(-limit, limit, n)


HELD = [  # within 4 ulp
    ("sigmoid", sigmoid, lambda x: mpmath.exp(-x) / (1 + mpmath.exp(-x)) ** 2, mixed(708)),
    ("tanh", np.tanh, lambda x: 1 / mpmath.cosh(x) ** 2, mixed(354)),
    ("softplus", softplus, lambda x: 1 / (1 + mpmath.exp(-x)), mixed(708)),
    ("exp", np.exp, mpmath.exp, even(708)),
    ("log", np.log, lambda x: 1 / x, positive(1e-307, 1e307)),
    ("sqrt", np.sqrt, lambda x: 1 / (2 * mpmath.sqrt(x)), positive(1e-307, 1e307)),
]

OTHERS = [  # within 1e-12 of their size
    ("exp2", np.exp2, lambda x: mpf(2) ** x * mpmath.log(2), even(1020)),
    ("expm1", np.expm1, mpmath.exp, mixed(700)),
    ("log1p", np.log1p, lambda x: 1 / (1 + x), positive(1e-300, 1e300)),
    ("log1p near -1", np.log1p, lambda x: 1 / (1 + x), positive(1e-15, 1, -1)),
    ("log2", np.log2, lambda x: 1 / (x * mpmath.log(2)), positive(1e-300, 1e300)),
    ("log10", np.log10, lambda x: 1 / (x * mpmath.log(10)), positive(1e-300, 1e300)),
    ("cbrt", np.cbrt, lambda x: 1 / (3 * mpmath.cbrt(abs(x)) ** 2), mixed(1e300)),
    ("reciprocal", np.reciprocal, lambda x: -1 / (x * x), positive(1e-150, 1e150)),
    ("square", np.square, lambda x: 2 * x, mixed(1e150)),
    ("sin", np.sin, mpmath.cos, mixed(1e5)),
    ("cos", np.cos, lambda x: -mpmath.sin(x), mixed(1e5)),
    ("tan", np.tan, lambda x: 1 / mpmath.cos(x) ** 2, mixed(1e5)),
    ("arcsin", np.arcsin, lambda x: 1 / mpmath.sqrt(1 - x * x), mixed(1)),
    ("arcsin near 1", np.arcsin, lambda x: 1 / mpmath.sqrt(1 - x * x), positive(1e-15, 1, 1, -1)),
    ("arccos near 1", np.arccos, lambda x: -1 / mpmath.sqrt(1 - x * x), positive(1e-15, 1, 1, -1)),
    ("arctan", np.arctan, lambda x: 1 / (1 + x * x), mixed(1e153)),
    ("arctan2 by its ordinate", lambda x: np.arctan2(x, 2.0), lambda x: 2 / (x * x + 4), mixed(1e150)),
    ("arctan2 by its abscissa", lambda x: np.arctan2(2.0, x), lambda x: -2 / (x * x + 4), mixed(1e150)),
    ("sinh", np.sinh, mpmath.cosh, mixed(700)),
    ("cosh", np.cosh, mpmath.sinh, mixed(700)),
    ("arcsinh", np.arcsinh, lambda x: 1 / mpmath.sqrt(1 + x * x), mixed(1e300)),
    ("arccosh", np.arccosh, lambda x: 1 / mpmath.sqrt((x - 1) * (x + 1)), positive(1e-15, 1e300, 1)),
    ("arctanh", np.arctanh, lambda x: 1 / ((1 - x) * (1 + x)), mixed(1)),
    ("arctanh near 1", np.arctanh, lambda x: 1 / ((1 - x) * (1 + x)), positive(1e-15, 1, 1, -1)),
    ("erf", erf, lambda x: 2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-x * x), mixed(26)),
    ("x ** 7.25", lambda x: x**7.25, lambda x: mpf(7.25) * x ** mpf(6.25), positive(1e-30, 1e30)),
    ("x ** -2.5", lambda x: x**-2.5, lambda x: mpf(-2.5) * x ** mpf(-3.5), positive(1e-30, 1e30)),
    ("0.3 ** x", lambda x: 0.3**x, lambda x: mpf(0.3) ** x * mpmath.log(mpf(0.3)), even(300)),
    ("0.3 / x", lambda x: 0.3 / x, lambda x: -mpf(0.3) / (x * x), positive(1e-150, 1e150)),
    ("hypot", lambda x: np.hypot(x, 2.0), lambda x: x / mpmath.sqrt(x * x + 4), mixed(1e200)),
    ("logaddexp", lambda x: np.logaddexp(x, 300.0), lambda x: 1 / (1 + mpmath.exp(300 - x)), mixed(300)),
    ("remainder by its divisor", lambda x: np.remainder(1e3, x), lambda x: -mpmath.floor(1000 / x), positive(0.01, 9)),
]


def slopes(function, x):
    t = mf.tensor(x, requires_grad=True)
    function(t).backward(np.ones_like(x))
    return t.grad


def worst(function, exact, sample, n):
    """Return the largest error of a slope, in ulp and relative, of those that are normal numbers."""
    x = np.asarray(sample(np.random.default_rng(0), n))
    ulps = relative = 0.0
    with mpmath.workdps(60):
        for value, got in zip(x.tolist(), slopes(function, x).tolist(), strict=True):
            right = exact(mpf(value))
            if abs(right) >= TINY:
                error = abs(mpf(got) - right)
                ulps = max(ulps, float(error / mpf(float(np.spacing(abs(float(right)))))))
                relative = max(relative, float(error / abs(right)))
    return ulps, relative


POINTS = [500, pytest.param(100_000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("n", POINTS)
@pytest.mark.parametrize(("name", "function", "exact", "sample"), HELD, ids=[row[0] for row in HELD])
def test_slopes_within_four_units_in_the_last_place(name, function, exact, sample, n):
    assert worst(function, exact, sample, n)[0] <= 4


@pytest.mark.parametrize("n", [100, pytest.param(10_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "function", "exact", "sample"), OTHERS, ids=[row[0] for row in OTHERS])
def test_slopes_of_the_other_functions(name, function, exact, sample, n):
    assert worst(function, exact, sample, n)[1] <= 1e-12


def test_the_accuracy_measure_detects_lost_digits():
    """The textbook's ``y * (1 - y)`` loses every digit of the sigmoid's slope."""

    @mf.op(vjp=lambda g, y: g * y * (1 - y), name="textbook_sigmoid")
    def textbook(x):
        return 1 / (1 + np.exp(-x))

    assert worst(textbook, HELD[0][2], even(700), 100)[0] > 1e12


@pytest.mark.parametrize("rows", [60, pytest.param(3000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("scale", [1.0, 30.0, 200.0])
def test_cross_entropy_and_its_entry_at_the_target(rows, scale):
    """Within 4 + max|z| ulp at logits z, target entry included."""
    rng = np.random.default_rng(1)
    for classes in (2, 10):
        for z in rng.normal(0, scale, (rows // 2, 1, classes)):
            label = int(rng.integers(classes))
            got = mf.grad(lambda t, label=label: ops.loss.cross_entropy(t, np.array([label])))(z)[0]
            with mpmath.workdps(60):
                e = [mpmath.exp(mpf(v)) for v in z[0].tolist()]
                total = sum(e)
                right = [v / total for v in e]
                right[label] = -sum(v for k, v in enumerate(e) if k != label) / total
                for k in range(classes):
                    if abs(right[k]) >= TINY:
                        ulp = mpf(float(np.spacing(abs(float(right[k])))))
                        assert abs(mpf(float(got[k])) - right[k]) / ulp <= 4 + np.abs(z).max(), (z, label, k)


def test_erf_of_float32_is_within_5e_7_of_scipys():
    x = np.concatenate([np.linspace(-6, 6, 100_001), np.geomspace(1e-30, 1, 10_001), [0.0, np.inf, -np.inf]])
    x = x.astype(np.float32)
    y, exact = erf(x).numpy(), scipy.special.erf(x.astype(np.float64))
    assert y.dtype == np.float32
    assert abs(y).max() == 1
    np.testing.assert_allclose(y, exact, rtol=5e-7, atol=0)
    np.testing.assert_array_equal(erf(-x).numpy(), -y)
    assert np.isnan(erf(np.float32([np.nan])).numpy()).all()
