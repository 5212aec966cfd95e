"""Tangents and gradients of outputs belong to the entries of their names."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.errors import ShapeError

P = {"a": np.ones(2), "b": np.ones(2)}
ALONG_A = {"b": np.zeros(2), "a": np.ones(2)}


def powers(p):
    return (p["a"] ** 2).sum() + (p["b"] ** 3).sum()


def test_the_order_of_names_does_not_count():
    assert mf.jvp(powers, (P,), (ALONG_A,))[1] == 4
    (product,) = mf.hvp(powers, (P,), (ALONG_A,))
    np.testing.assert_array_equal(product["a"], [2, 2])
    np.testing.assert_array_equal(product["b"], [0, 0])
    assert mf.vjp(lambda x: {"u": 2 * x, "v": 3 * x}, 1.0)[1]({"v": 0.0, "u": 1.0}) == (2,)


def test_directions_of_a_module_may_have_any_order():
    model = nn.Sequential(nn.Dense(2, 2, bias=False, rng=0), nn.Dense(2, 2, bias=False, rng=1))

    def f(m):
        return (m(np.ones((3, 2), np.float32)) ** 2).sum()

    g = mf.grad(f)(model)
    along = mf.jvp(f, (model,), (g,))[1]
    np.testing.assert_allclose(along, sum((v**2).sum() for v in g.values()), rtol=1e-5)
    assert mf.jvp(f, (model,), (dict(reversed(g.items())),))[1] == along
    assert mf.jvp(f, (model,), (model,))[1] == mf.jvp(f, (model,), (dict(model.named_parameters()),))[1]


@pytest.mark.parametrize(
    ("tangent", "text"),
    [
        ({"x": np.zeros(2), "y": np.ones(2)}, "expected argument 0 to get a dict of 'a', 'b', got 'x', 'y'"),
        ({"a": np.zeros(2)}, "expected argument 0 to get a dict of 'a', 'b', got 'a'"),
        ([np.zeros(2), np.ones(2)], "expected argument 0 to get a dict of 'a', 'b', got list of 2"),
        (
            {"a": np.zeros(2), "b": np.ones(3)},
            r"expected argument 0\['b'\] to get an array of shape \(2,\), got \(3,\)",
        ),
        ({"a": np.zeros(2), "b": {"c": np.ones(2)}}, r"expected argument 0\['b'\] to get one array, got 'c'"),
    ],
)
def test_a_tangent_of_other_names_is_refused(tangent, text):
    for call in (lambda: mf.jvp(powers, (P,), (tangent,)), lambda: mf.hvp(powers, (P,), (tangent,))):
        with pytest.raises(ShapeError, match=text):
            call()


def test_lists_have_as_many_entries_as_the_argument():
    f, args = lambda p: p[0] * p[1]["c"], ([np.ones(2), {"c": [1.0, 2.0]}],)
    np.testing.assert_array_equal(mf.jvp(f, args, ((np.ones(2), {"c": [0.0, 0.0]}),))[1], [1, 2])
    with pytest.raises(ShapeError, match="expected argument 0 to get a tuple or list of 2, got list of 1"):
        mf.jvp(f, args, ([np.ones(2)],))
    pull = mf.vjp(lambda x: (x.sum(), {"u": x}), np.ones(2))[1]
    np.testing.assert_array_equal(pull([1.0, {"u": [1.0, 2.0]}])[0], [2, 3])
    with pytest.raises(ShapeError, match="expected output 1 to get a dict of 'u', got ndarray"):
        pull((1.0, np.ones(2)))


def test_gradients_of_several_numbers_may_be_a_plain_list():
    assert mf.vjp(lambda x: (2 * x, 3 * x), 1.0)[1]((1.0, 10.0)) == (32,)
