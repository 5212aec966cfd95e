"""An op's declared cost is what runs, counted with numbers that count their operations."""

from __future__ import annotations

import numpy as np
import pytest

from tests.cases.ops import CASES, floats, plain, title
from tests.helpers.op_counting import Counting, as_counting, count

pytestmark = pytest.mark.usefixtures("quiet")


EXACT = ["add", "subtract", "multiply", "divide", "negative", "reciprocal", "square", "hypot", "arctan2",
         "exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "sqrt", "cbrt",
         "sin", "cos", "tan", "arcsin", "arccos", "arctan", "sinh", "cosh", "arcsinh", "arccosh", "arctanh",
         "relu", "sum", "mean", "var", "std", "norm", "prod", "cumsum", "cumprod",
         "reshape", "transpose", "broadcast_to", "concatenate", "identity"]  # fmt: skip


@pytest.mark.parametrize("case", [c for c in CASES if c.name in EXACT], ids=title)
def test_cost_is_what_really_runs(case):
    """The op's own value and rules, run on numbers that count."""
    for sample in case.samples:
        if sample.layout is not plain or any(np.size(x) < 2 or np.ndim(x) == 0 for x in sample.inputs):
            continue
        inputs = [np.asarray(as_counting(x), object) for x in sample.inputs]
        y, forward = count(lambda: case.op.value(*inputs, **sample.params))  # noqa: B023
        y, *aux = y if case.op.aux else (y,)
        aux = dict(zip(case.op.aux, aux, strict=True))
        shapes = [x.shape for x in inputs]
        cost = case.op.cost(np.shape(y), *shapes, **sample.params)
        assert forward == cost.forward, sample.label
        for k, x in enumerate(inputs):
            partial = case.op.partial(k)
            known = case.op.params | sample.params | dict(zip(case.op.inputs, inputs, strict=False))
            known |= {"y": np.asarray(as_counting(y), object), "shape": x.shape, "shapes": shapes, "index": k} | aux
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


def test_a_squared_error_costs_what_it_runs():
    """All but the look at whether the gradient is 1, for then nothing is multiplied."""
    x, t, g = (np.asarray(as_counting(floats(shape, seed=k)), object) for k, shape in enumerate([(5, 3), (5, 3), ()]))
    (case,) = [c for c in CASES if c.name == "squared_error"]
    (_, delta), forward = count(lambda: case.op.value(x, t))
    cost = case.op.cost((), x.shape, t.shape)
    assert forward == cost.forward
    for k in range(2):
        assert count(lambda k=k: case.op.partial(k).vjp(g, delta))[1] == cost.derivatives[k] + 1


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
            known = dict(zip(case.op.inputs, inputs, strict=True)) | {"shape": x.shape}
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
