"""Generated functions of an op do what `apply` and `visit_edges` do: the same values, gradients and nodes."""

from __future__ import annotations

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from microfw.autograd.apply import apply
from microfw.autograd.backward import backward_pass
from microfw.autograd.graph import Leaf
from microfw.autograd.op import MAX_GENERATED
from microfw.autograd.registry import OPS
from microfw.errors import ArgumentError
from tests.cases.ops import CASES, title

pytestmark = pytest.mark.usefixtures("quiet")


def run(op, call, sample, trained):
    """Return the output, the gradients, and what the node has, with some of the inputs as leaves."""
    inputs = sample.arranged()
    tensors = [
        mf.tensor(x, requires_grad=True) if k in trained else mf.tensor(x) if isinstance(x, np.ndarray) else x
        for k, x in enumerate(inputs)
    ]
    y = call(*tensors, **sample.params)
    node, grads = y._node, []
    if node is not None:
        found = backward_pass([(node, np.ones(y.shape, y.dtype))], retain=True)
        grads = [found.get(t._leaf) for k, t in enumerate(tensors) if k in trained]
        saved = [[tuple if isinstance(value, tuple) else type(value) for value in args] for _, _, args in node.edges]
        parents = [type(parent) for parent in node.parents]
        versions = sum(leaf.version for leaf, _ in node.saved_versions), len(node.saved_versions)
        return y.numpy(), grads, (node.op, node.shape, node.params, saved, parents, versions, len(node.inputs))
    return y.numpy(), grads, None


def same(a, b):
    if a is None or b is None:
        return a is b
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@pytest.mark.parametrize("case", CASES, ids=title)
def test_generated_code_is_what_apply_does(case):
    op = case.op
    for sample in case.samples[:4]:
        n = len(sample.inputs)
        able = [k for k in range(n) if op.partial(k) is not None and sample.inputs[k].dtype.kind == "f"]
        for trained in ([], able, able[:1], able[1:]):
            fast = run(op, op.call, sample, trained)
            plain = run(op, lambda *xs, op=op, **params: apply(op, xs, params), sample, trained)
            assert same(fast[0], plain[0])
            assert len(fast[1]) == len(plain[1]) and all(map(same, fast[1], plain[1]))
            assert (fast[2] is None) == (plain[2] is None)
            if fast[2] is not None:
                assert repr(fast[2]) == repr(plain[2])


def test_each_op_of_a_fixed_number_of_inputs_is_generated():
    for case in CASES:
        x = [mf.tensor(a, requires_grad=a.dtype.kind == "f") for a in case.samples[0].inputs]
        if len(x) <= MAX_GENERATED:
            y = case.op.call(*x, **case.samples[0].params)
            assert y._node is None or isinstance(y._node, Leaf) or y._node.spec.backward_fn is not None, case.name


def test_apply_refuses_what_generated_code_refuses():
    op = OPS["sum"]
    with pytest.raises(TypeError, match="sum: expected parameters among axis, keepdims, got axes"):
        apply(op, (np.ones(2),), {"axes": 0})
    with pytest.raises(mf.errors.DTypeError, match="add: expected Tensors of one dtype, got float32 and float64"):
        apply(OPS["add"], (mf.tensor(np.ones(2, "f4")), mf.tensor(np.ones(2))), {})


@pytest.mark.parametrize("name", ["y", "value", "node", "dtype", "shape", "type"])
def test_an_input_of_a_reserved_name_is_refused_at_the_declaration(name):
    function = eval(f"lambda {name}: {name} * 2")
    with pytest.raises(ArgumentError, match=f"op doubled: expected inputs whose names are not reserved, got {name}; "):
        mf.op(function, vjp=lambda g: g * 2, name="doubled")
    several = mf.op(eval(f"lambda *{name}: {name}[0] + {name}[1]"), vjp=lambda g: g, name=f"several_{name}")
    assert several(1.0, 2.0).item() == 3


@pytest.mark.parametrize(("old", "new"), [("into", "vjp_out"), ("fresh", "no_alias"), ("casts", "allow_dtype_change")])
def test_an_old_keyword_of_op_names_the_new_one(old, new):
    with pytest.raises(TypeError, match=f"op: expected {new}, got {old}; it was renamed"):
        mf.op(vjp=lambda g: g, **{old: None})


@pytest.mark.parametrize("factor", [0.5, np.float32(0.5), np.float64(0.5)], ids=lambda factor: type(factor).__name__)
def test_a_rule_of_a_user_gives_gradients_of_the_dtype_of_its_input(factor):
    """As reversed gradients, whose factor a schedule computes in float64; the next op writes into an optimizer's array."""

    @mf.op(vjp=lambda g, factor: -factor * g)
    def reverse(x, *, factor):
        return x.copy()

    layer, optimize = nn.Dense(2, 2, rng=0), mf.optim.SGD
    step = mf.compile(lambda x: reverse(layer(x), factor=factor).sum(), optimize(layer.parameters(), lr=0.1))
    X, grads = np.ones((3, 2), np.float32), []
    for _ in range(5):
        step(X)
        grads.append(layer.weight.grad.copy())
        assert reverse(layer(X), factor=factor).sum().item() and layer.weight.grad.dtype == np.float32
    assert step.replays
    np.testing.assert_array_equal(grads, np.full((5, 2, 2), -1.5, np.float32))
    x = mf.tensor(np.ones(3, np.float32), requires_grad=True)
    assert mf.grad(lambda x: reverse(x, factor=factor).sum())(x.data).dtype == np.float32
    assert mf.hessian(lambda x: (reverse(x, factor=factor) ** 2).sum())(x.data).dtype == np.float32
