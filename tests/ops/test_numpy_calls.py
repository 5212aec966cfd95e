"""NumPy's functions record ops, and refuse by name the arguments that no op takes."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw.autograd.graph import Node
from microfw.autograd.registry import NUMPY
from tests.cases.ops import CASES, SAMPLES, floats, title
from tests.helpers.thinning import thinned

pytestmark = pytest.mark.usefixtures("quiet")


PROTOCOL = [(case, sample) for case, sample in SAMPLES if case.protocol]


@pytest.mark.parametrize(("case", "sample"), thinned(PROTOCOL, 3), ids=title)
def test_numpys_function_records_the_same_node(case, sample):
    function = case.reference if case.protocol is True else case.protocol
    inputs = [mf.tensor(np.array(x), requires_grad=x.dtype.kind == "f") for x in sample.arranged()]
    direct, through = case.op.call(*inputs, **sample.params), function(*inputs, **sample.params)
    assert isinstance(through, mf.Tensor)
    np.testing.assert_array_equal(direct.data, through.data)
    if case.op.differentiable:
        assert isinstance(through._node, Node)
        assert through._node.op is direct._node.op is case.op
        assert [e[0] for e in through._node.edges] == [e[0] for e in direct._node.edges]


def test_every_numpy_function_of_an_op_is_in_the_table():
    told = {call.op.name for call in NUMPY.values() if hasattr(call, "op")}
    assert told <= {case.name for case in CASES if case.protocol}


def test_float_power_computes_in_float64():
    assert np.float_power(mf.tensor([4, 9]), -1).dtype == np.float64
    x = mf.tensor(np.array([4.0], np.float32), requires_grad=True)
    y = np.float_power(x, 0.5)
    y.backward(np.ones(1))
    assert y.dtype == np.float64 and x.grad.dtype == np.float32
    np.testing.assert_array_equal(x.grad, [0.25])


def test_clip_at_arrays():
    """The ends get the gradient where they are the result, and only there."""
    x, low, high = (
        mf.tensor(a, requires_grad=True) for a in ([-3.0, 0.0, 3.0, 1.0], [-1.0, 0.0, 0.0, 2.0], [1.0, 1.0, 2.0, 1.5])
    )
    y = np.clip(x, low, high)
    np.testing.assert_array_equal(y.data, np.clip(x.data, low.data, high.data))
    y.sum().backward()
    np.testing.assert_array_equal(x.grad, [0, 1, 0, 0])
    np.testing.assert_array_equal(low.grad, [1, 0, 0, 0])
    np.testing.assert_array_equal(high.grad, [0, 0, 1, 1])
    np.testing.assert_array_equal(np.clip(x, low.data, None).data, [-1, 0, 3, 2])


REFUSED = [
    (
        lambda x: np.sum(x, dtype=np.float32),
        "np.sum: expected no dtype= with a Tensor, got dtype=; cast with .astype before or after",
    ),
    (lambda x: np.sum(x, 0, np.float32), "np.sum: expected no dtype="),
    (
        lambda x: np.cumsum(x, out=np.zeros(12)),
        "np.cumsum: expected no out= or where= with a Tensor, got out=; op results are new arrays",
    ),
    (
        lambda x: np.prod(x, where=x.data > 0),
        "np.prod: expected no out= or where= with a Tensor, got where=; choose entries with np.where",
    ),
    (lambda x: np.max(x, initial=0.0), "np.max: expected no initial= with a Tensor, got initial=; leave it out"),
    (lambda x: np.var(x, correction=1), "np.var: expected no correction= with a Tensor, got correction=; write ddof="),
    (lambda x: np.exp(x, dtype=np.float32), "np.exp: expected no dtype="),
    (lambda x: np.exp(x, where=np.ones(4, bool)), "np.exp: expected no out= or where="),
    (lambda x: np.clip(x, 0, 1, casting="unsafe"), "np.clip: expected no casting="),
    (lambda x: np.clip(x, 0, 1, out=np.zeros((3, 4))), "np.clip: expected no out= or where="),
    (lambda x: np.concatenate([x, x], 0, np.zeros((6, 4))), "np.concatenate: expected no out= or where="),
    (lambda x: np.concatenate([x, x], casting="unsafe"), "np.concatenate: expected no casting="),
    (lambda x: np.exp(x, casting="unsafe"), "np.exp: expected no casting="),
    (lambda x: np.concatenate([x, x], dtype=np.float32), "np.concatenate: expected no dtype="),
    (lambda x: np.nanmean(x), "np.nanmean: expected a function with a derivative rule, got one without"),
    (lambda x: np.linalg.cond(x), "np.linalg.cond: expected a function with a derivative rule, got one without"),
]


@pytest.mark.parametrize(("call", "text"), REFUSED)
def test_arguments_that_no_op_takes_are_refused_by_name(call, text):
    with pytest.raises(TypeError) as info:
        call(mf.tensor(floats((3, 4))))
    assert str(info.value).startswith(text)


def test_arguments_given_as_they_are_by_default_are_fine():
    x = mf.tensor(floats((3, 4)))
    np.testing.assert_array_equal(np.exp(x, out=None, dtype=None, where=True).data, np.exp(x.data))
    np.testing.assert_array_equal(
        np.concatenate([x, x], 0, None, casting="same_kind").data, np.concatenate([x.data, x.data])
    )
    np.testing.assert_array_equal(np.reshape(x, (4, 3), order="C").data, x.data.reshape(4, 3))
