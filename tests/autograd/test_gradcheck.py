"""gradcheck finds wrong rules: a sign, a factor, one entry of many; and it is deterministic."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw.errors import ArgumentError, DTypeError, GradientError
from tests.helpers.functions import X


def test_gradcheck_catches_a_wrong_rule_and_says_where_and_by_how_much():
    wrong = mf.op(lambda a, b: a * b, vjp=(lambda g, b: g * b, lambda g, a: g * a * 1.001), name="wrong")
    with pytest.raises(GradientError) as info:
        mf.gradcheck(lambda p: np.sum(wrong(p["first"], p["second"])), {"first": X, "second": X + 2})
    text = str(info.value)
    assert text.startswith("gradcheck: argument 1: expected the backward derivative to be ")
    assert "as central differences give, got " in text and "a relative error of " in text


def test_gradcheck_catches_a_wrong_tangent():
    wrong = mf.op(lambda x: x * x, vjp=lambda g, x: 2 * g * x, jvp=lambda dx, x: dx * x, name="wrong_jvp")
    with pytest.raises(GradientError, match="expected the forward mode derivative to be"):
        mf.gradcheck(wrong, X)


@pytest.mark.parametrize("broken", [lambda g: g * np.nan, lambda g: g * 0, lambda g: -g])
def test_gradcheck_catches_nan_zero_and_sign(broken):
    wrong = mf.op(lambda x: x * 1.0, vjp=broken, jvp="linear", name="broken")
    with pytest.raises(GradientError, match="argument 0"):
        mf.gradcheck(wrong, X)


def test_gradcheck_sees_one_wrong_entry_of_many():
    def rule(g):
        g = np.array(g)
        g.flat[123] *= 1.01
        return g

    wrong = mf.op(lambda x: x * 1.0, vjp=rule, jvp="linear", name="one_wrong")
    with pytest.raises(GradientError):
        mf.gradcheck(wrong, np.random.default_rng(0).standard_normal((20, 20)))


def test_gradcheck_wants_float64_and_projections():
    with pytest.raises(DTypeError, match="expected argument 1 to be float64, got float32; cast it with .astype"):
        mf.gradcheck(lambda a, b: np.sum(a), X, X.astype(np.float32))
    with pytest.raises(ArgumentError, match="expected projections to be at least 1, got 0"):
        mf.gradcheck(np.exp, X, projections=0)


def test_gradcheck_is_deterministic():
    assert mf.gradcheck(np.exp, X, rng=3) == mf.gradcheck(np.exp, X, rng=3)
