"""Values and gradients of every op against PyTorch's, in float64, to 1e-9 relative."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st

import microfw as mf
from microfw.autograd.apply import REQUIRED
from tests.cases.kinds import defined, expanded
from tests.cases.ops import CASES, title
from tests.cases.strategies import random_sample
from tests.peers.torch_ops import TORCH

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore::UserWarning")]
RELATIVE = 1e-9


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def close(what, ours, theirs):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, f"{what}: shape {ours.shape}, PyTorch's is {theirs.shape}"
    if ours.dtype.kind != "f":
        np.testing.assert_array_equal(ours, theirs, err_msg=what)
        return
    size = max(1.0, float(np.max(np.abs(theirs), initial=0.0, where=np.isfinite(theirs))))
    np.testing.assert_allclose(ours, theirs, rtol=RELATIVE, atol=RELATIVE * size * 1e-3, err_msg=what)


def compare(torch, case, sample):
    arrays = [np.array(x, order="C") for x in sample.arranged()]
    varying = [k for k, x in enumerate(arrays) if case.op.differentiable and case.op.partial(k) is not None]
    ours = [mf.tensor(x, requires_grad=True) if k in varying else x for k, x in enumerate(arrays)]
    theirs = [torch.tensor(x, requires_grad=k in varying) for k, x in enumerate(arrays)]
    what = f"{case.name}, sample {sample.label!r}"
    y = case.op.call(*ours, **sample.params)
    params = {name: value for name, value in case.op.params.items() if value is not REQUIRED} | sample.params
    z = TORCH[case.name](torch, *theirs, **params)
    close(what, y.data, z.detach().numpy())
    if varying and y.dtype.kind == "f" and z.requires_grad:
        u = np.asarray(np.random.default_rng(len(what)).standard_normal(y.shape))
        y.backward(u)
        z.backward(torch.tensor(u))
        for k in varying:
            if theirs[k].grad is not None:
                close(f"{what}, gradient of input {k}", ours[k].grad, theirs[k].grad.numpy())


@pytest.mark.parametrize("case", [c for c in CASES if c.name in TORCH], ids=title)
def test_samples_agree(torch, case):
    for sample in expanded(case):
        compare(torch, case, sample)


@pytest.mark.parametrize("case", [c for c in CASES if c.name in TORCH], ids=title)
def test_random_samples_agree(torch, case):
    @settings(max_examples=30, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def check(data):
        sample = random_sample(case, data.draw)
        assume(defined(case, sample))
        compare(torch, case, sample)

    check()
