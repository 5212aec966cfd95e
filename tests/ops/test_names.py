"""Names are where users look for them: ops in `microfw.ops`, convolutions by their number of axes."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import microfw as mf
from microfw import ops
from microfw.autograd.registry import OPS
from microfw.errors import ShapeError

LIBRARY = {name: op for name, op in OPS.items() if op.value.__module__.startswith("microfw.ops")}
MODULES = {"windows", "lookup"}


@pytest.mark.parametrize("name", sorted(LIBRARY))
def test_every_op_is_found_by_its_name(name):
    found = getattr(ops, name)
    if name in MODULES:
        assert inspect.ismodule(found)
        found = getattr(found, name)
    assert found is LIBRARY[name].call
    assert name in dir(ops)


def test_an_unknown_op_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'microfw.ops' has no attribute 'sofmax'"):
        ops.sofmax  # noqa: B018
    try:
        mf.op(lambda x: x, name="of_a_user")
        assert not hasattr(ops, "of_a_user")
    finally:
        del OPS["of_a_user"]


def arrays(*shapes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape) for shape in shapes]


def test_convolutions_by_their_number_of_axes():
    x, w, b = arrays((2, 4, 7, 6), (6, 2, 3, 2), (6,))
    same = ops.conv(x, w, b, stride=2, padding=1, dilation=1, groups=2)
    np.testing.assert_array_equal(ops.conv2d(x, w, b, 2, 1, 1, 2).data, same.data)
    np.testing.assert_array_equal(ops.conv2d(x, w, groups=2).data, ops.conv(x, w, 0, groups=2).data)
    y, b = ops.conv_transpose(same, w, size=(7, 6), stride=2, padding=1, groups=2), np.arange(4.0)
    biased = ops.conv_transpose2d(same, w, b, size=(7, 6), stride=2, padding=1, groups=2)
    np.testing.assert_array_equal(biased.data, y.data + b[:, None, None])
    assert mf.gradcheck(lambda *a: ops.conv_transpose2d(*a, stride=2, groups=2), same.data, w, b) < 1e-6
    np.testing.assert_array_equal(ops.max_pool2d(x, 2, 1).data, ops.max_pool(x, kernel=2, stride=1).data)
    np.testing.assert_array_equal(ops.avg_pool2d(x, (3, 2)).data, ops.avg_pool(x, kernel=(3, 2)).data)
    x, w, b = arrays((2, 3, 9), (4, 3, 3), (4,))
    np.testing.assert_array_equal(ops.conv1d(x, w, b, 2).data, ops.conv(x, w, b, stride=2).data)


@pytest.mark.parametrize(
    ("name", "axes"),
    [("conv1d", "W"), ("conv2d", "H, W"), ("conv_transpose2d", "H, W"), ("max_pool2d", "H, W"), ("avg_pool2d", "H, W")],
)
def test_other_numbers_of_axes_are_refused(name, axes):
    x, w = arrays((2, 3, 5, 5, 5), (2, 3, 1, 1, 1))
    expected = rf"^{name}: expected x of shape \(N, C, {axes}\), got \(2, 3, 5, 5, 5\); reshape it"
    with pytest.raises(ShapeError, match=expected):
        getattr(ops, name)(x, 2 if "pool" in name else w)


def test_a_bias_of_a_transposed_convolution_fits():
    x, w = arrays((1, 2, 4, 4), (2, 3, 3, 3))
    with pytest.raises(ShapeError, match=r"^conv_transpose2d: expected b of shape \(3,\), or None, got \(1,\)$"):
        ops.conv_transpose2d(x, w, np.ones(1))


def test_a_frame_and_a_tensor_make_a_tensor():
    pandas = pytest.importorskip("pandas")
    t = mf.tensor([[1.0, 2.0]], requires_grad=True)
    frame = pandas.DataFrame({"a": [3.0], "b": [4.0]})
    for made in (frame + t, frame * t, t - frame, frame["a"] / t, frame > t):
        assert isinstance(made, mf.Tensor)
    (frame * t).sum().backward()
    np.testing.assert_array_equal(t.grad, [[3.0, 4.0]])


@pytest.mark.parametrize(("old", "new"), [("Way", "StrategyResult"), ("Count", "NodeCount"), ("Fit", "PowerLaw")])
def test_a_former_name_in_the_profiler_raises_an_error_with_the_new_one(old, new):
    assert hasattr(mf.profiler, new)
    with pytest.raises(AttributeError, match=f"no attribute '{old}'; here it is profiler.{new}$"):
        getattr(mf.profiler, old)


@pytest.mark.parametrize(
    ("call", "old", "new"),
    [
        (mf.profiler.report, "most", "max_rows"),
        (mf.profiler.compare, "least", "min_change"),
        (mf.profiler.law, "most_nodes", "max_nodes"),
        (mf.draw, "most", "max_nodes"),
        (mf.profiler.fits_report, "most", "max_rows"),
    ],
)
def test_a_former_keyword_raises_an_error_with_the_new_one(call, old, new):
    assert new in inspect.signature(call).parameters
    positional = [None] * sum(p.kind is p.POSITIONAL_OR_KEYWORD for p in inspect.signature(call).parameters.values())
    with pytest.raises(TypeError, match=f"expected {new}, got {old}; it was renamed"):
        call(*positional, **{old: 1})
    with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
        call(*positional, other=1)


def test_the_former_attribute_of_a_comparison_raises_an_error_with_the_new_one():
    found = mf.profiler.Comparison("a", "b", True, 0.05, 0.95, 3, 3)
    assert found.min_change == 0.05
    with pytest.raises(AttributeError, match="'least'; it was renamed to 'min_change'"):
        found.least  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute 'other'$"):
        found.other  # noqa: B018
