"""Gradients of entries picked by integers add up, in each way of adding them."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw.ops import indexing
from tests.cases.indexing import CASES as INDEXING
from tests.cases.numpy_functions import A
from tests.cases.ops import title
from tests.cases.samples import floats

WAYS = {"as few": (indexing.FEW, indexing.MANY), "as more": (0, indexing.MANY), "as many": (0, 0)}


@pytest.fixture(params=WAYS)
def way(request, monkeypatch):
    """Each way to add entries up, for any number of entries."""
    few, many = WAYS[request.param]
    monkeypatch.setattr(indexing, "FEW", few)
    monkeypatch.setattr(indexing, "MANY", many)


@pytest.mark.parametrize(
    ("case", "sample"), [(c, s) for c in INDEXING for s in c.samples if c.op.differentiable], ids=title
)
def test_rules_for_many_entries_hold_for_few(case, sample, way):
    function, inputs = case.call(sample)
    assert mf.gradcheck(function, *inputs, projections=1) <= 1e-6
    np.testing.assert_array_equal(function(*inputs).data, case.reference(*sample.arranged(), **sample.params))


@pytest.mark.parametrize("shape", [(7,), (7, 1), (7, 5), (7, 2, 3), (1, 4), (3, 0)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_repeated_rows_add_up_bit_for_bit_as_in_a_loop(shape, dtype, way):
    rng = np.random.default_rng(0)
    x = mf.tensor(rng.standard_normal(shape).astype(dtype), requires_grad=True)
    rows = rng.integers(-shape[0], shape[0], 200).reshape(4, 50)
    g = rng.standard_normal((4, 50, *shape[1:])).astype(dtype)
    expected = np.zeros(shape, dtype)
    for k, row in zip(rows.ravel(), g.reshape(200, *shape[1:]), strict=True):
        expected[k] += row
    for pick in (
        lambda: x[rows],
        lambda: np.take(x, rows, axis=0),
        lambda: x.take(rows, 0),
        lambda: x[mf.tensor(rows)],
    ):
        pick().backward(g)
        np.testing.assert_array_equal(x.grad, expected)
        x.zero_grad()


@pytest.mark.parametrize("key", [
    (np.array([0, -1, 0]), np.array([1, 1, -3])), (slice(None), np.array([0, 0, 2])), (..., np.array([0, 0])), (np.array([[0], [1]]), np.array([1, 1, 0])),
    (np.array([0, 0]), slice(1, 3)), (None, np.array([0, 0])), (np.array([True, False, True]), slice(None, None, 2)), (np.array([True, False, True]), np.array([1, 1])),
    (np.array([0, 0]), None, np.array([2, 2])), np.array([[True] * 4, [False] * 4, [True] * 4]), (slice(1), None, np.array([3, 3])), np.array(1), [],
], ids=str)  # fmt: skip
def test_gradients_of_odd_indices_add_up(key, way):
    x = mf.tensor(A, requires_grad=True)
    y = x[key]
    expected = A[key]
    np.testing.assert_array_equal(y.data, expected)
    g = floats(expected.shape, seed=5)
    y.backward(g)
    zeros = np.zeros_like(A)
    np.add.at(zeros, np.array(key, int) if isinstance(key, list) else key, g)
    np.testing.assert_array_equal(x.grad, zeros)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_many_entries_along_an_axis_add_up(axis):
    x = mf.tensor(floats((40, 30, 50)), requires_grad=True)
    rows = np.random.default_rng(0).integers(-30, 30, (4, 20))
    picked = np.take(x, rows, axis=axis)
    g = floats(picked.shape, seed=5)
    assert g.size > indexing.MANY
    picked.backward(g)
    zeros = np.zeros(x.shape)
    np.add.at(zeros, (slice(None),) * (axis % 3) + (rows,), g)
    np.testing.assert_array_equal(x.grad, zeros)


def test_indices_of_few_bits_find_large_arrays(way):
    """Where a row's place in the flat order takes more bits than its number."""
    x = mf.tensor(floats((100, 90)), requires_grad=True)
    for dtype in (np.int8, np.uint8):
        rows = np.resize(np.array([99, 0, 99, 7], dtype), 600)
        for pick in (lambda rows=rows: np.take(x, rows, axis=0), lambda rows=rows: x[rows, rows[::-1] // 2]):
            y = pick()
            y.backward(np.ones(y.shape))
            zeros = np.zeros(x.shape)
            np.add.at(zeros, rows if y.ndim == 2 else (rows, rows[::-1] // 2), 1.0)
            np.testing.assert_array_equal(x.grad, zeros)
            x.zero_grad()


def test_an_index_that_grew_too_large_is_an_error(way):
    for index in (3, -4):
        with pytest.raises(IndexError):
            indexing.scatter(floats((3, 4)), np.array([0, 1, index]), to=(3, 4), axis=0)
        with pytest.raises(IndexError):
            indexing.put(floats((2,)), shape=(3, 4), key=(np.array([0, index]), np.array([0, 0])))


def test_what_is_deleted_may_be_named_by_a_tensor():
    x = mf.tensor(A, requires_grad=True)
    for places in (np.array([0, 2]), np.array([True, False, True]), np.array(1)):
        found = np.delete(x, mf.tensor(places), axis=0)
        np.testing.assert_array_equal(found.data, np.delete(A, places, axis=0))
        x.zero_grad()
        found.sum().backward()
        np.testing.assert_array_equal(x.grad.sum(1) > 0, ~np.isin(np.arange(3), np.arange(3)[places]))
