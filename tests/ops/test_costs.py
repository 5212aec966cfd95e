"""An op's declared cost is what runs: its value and rules are run on arrays that count."""

from __future__ import annotations

import math

import numpy as np
import pytest

import microfw as mf
from microfw.autograd.op import Cost, elementwise_cost
from microfw.ops.elementwise import relu
from microfw.profiler.operations import count_operations
from tests.cases.ops import CASES, plain, title

pytestmark = pytest.mark.usefixtures("quiet")

NOT_EXACT = {
    "power_log": "its parts are broadcast one by one",
    "matmul": "a product with a vector is declared as one of matrices, so that 3F - F1 holds",
    "cross_entropy": "products with tables take the place of sums",
    "conv": "adding overlapping windows is not counted, so that 3F - F1 holds",
    "conv_transpose": "the same",
}
"""Ops whose cost is within a factor of 2 of what is counted, and the reason."""

ORDER = {
    "inv": 3, "solve": 3, "det": 3, "slogdet": 3, "cholesky": 3, "erf": 1, "round": 1, "clip": 1, "astype": 1,
    "count_nonzero": 1, "argwhere": 1, "dropout_mask": 1, "argsort": 1,
}  # fmt: skip
"""Ops that are one compiled call, with the power of the length that their cost grows by."""

COSTED = [case for case in CASES if case.op.cost is not None]


def costs(case):
    """Yield for each sample its label, and the declared and the counted cost of what has one."""
    op = case.op
    for sample in case.samples:
        arrays = [np.asarray(x) for x in sample.inputs]
        if sample.layout is not plain or any(x.size < 2 or x.ndim == 0 for x in arrays):
            continue
        made = op.value(*arrays, **op.params | sample.params)
        shape = np.shape(made[0] if op.aux else made)
        if not math.prod(shape):
            continue
        declared = op.cost(shape, *(x.shape for x in arrays), **op.params | sample.params)
        counted = count_operations(op, arrays, sample.params)
        floats = [k for k, x in enumerate(arrays) if x.dtype.kind == "f" and op.partial(k) is not None]
        operations = [(declared.forward, counted.forward)]
        operations += [(declared.derivatives[k], counted.derivatives[k]) for k in floats]
        products = [(declared.products_forward, counted.products_forward)] if declared.products_forward else []
        if declared.products_derivatives:
            products += [(declared.products_derivatives[k], counted.products_derivatives[k]) for k in floats]
        yield sample.label, operations, products


@pytest.mark.parametrize("case", [c for c in COSTED if c.name not in NOT_EXACT | ORDER], ids=title)
def test_cost_is_what_really_runs(case):
    for label, operations, products in costs(case):
        for declared, counted in operations + products:
            assert declared == counted, label


@pytest.mark.parametrize("case", [c for c in COSTED if c.name in NOT_EXACT], ids=title)
def test_cost_is_nearly_what_runs(case):
    seen = []
    for label, operations, products in costs(case):
        for declared, counted in operations:
            seen.append(declared == counted)
            assert counted <= 2 * declared and declared <= 2 * counted + 6, label
        for declared, counted in products:
            assert declared == counted or case.name == "matmul", label
    assert not all(seen)


@pytest.mark.parametrize("case", [c for c in COSTED if c.name in ORDER], ids=title)
def test_cost_of_a_compiled_call_grows_as_its_work(case):
    axes = 2 if ORDER[case.name] == 3 else 1
    sizes = []
    for n in (200, 400):
        x = (n,) * axes
        y = {"det": (), "slogdet": (), "count_nonzero": ()}.get(case.name, x)
        inputs = [x] * len(case.op.inputs)
        params = {
            name: {"decimals": 2, "dtype": float, "p": 0.5, "axis": -1, "low": 0.0}.get(name) for name in case.op.params
        }
        if case.name == "count_nonzero":
            params["axis"] = None
        sizes.append(case.op.cost(y, *inputs, **params))
    before, after = (max(cost.forward, *cost.derivatives, 0) if cost.derivatives else cost.forward for cost in sizes)
    assert 0.98 * 2 ** ORDER[case.name] * before <= after <= 1.15 * 2 ** ORDER[case.name] * before


def test_all_ops_are_checked():
    names = {case.name for case in COSTED}
    assert set(NOT_EXACT) | set(ORDER) <= names
    assert len(NOT_EXACT | ORDER) < 20 < len(names) - 90


def test_counting_leaves_no_traces():
    """An op that keeps arrays for the next call does not keep arrays that count."""
    shape = (3, 7)  # of no other test
    count_operations(relu.op, [np.ones(shape)], {})
    assert type(relu.op.value(np.ones(shape))) is np.ndarray


def test_a_wrong_cost_is_found():
    @mf.op(vjp=lambda g, x: g * 2 * x, cost=elementwise_cost(99, 3), name="costly_for_a_test")
    def costly(x):
        """Return the square."""
        return x * x

    with pytest.raises(mf.errors.GradientError, match="cost: expected about 3 operations of the value, got 297"):
        mf.testing.check_op(costly, np.array([0.5, 1.5, 2.5]))
    assert count_operations(costly.op, [np.ones(3)], {}) == Cost(3, (6,), 0, (0,))
