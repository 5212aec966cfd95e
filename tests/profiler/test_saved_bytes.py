"""Saved bytes where equal shapes hide different memory: views of constants, dtypes, containers, settings."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.autograd.op import Cost
from tests.audit.recount import held_bytes

RNG = np.random.default_rng(0)


def data(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def profiled(model, losses):
    """Profile a step for each function that computes a loss; return the epoch."""
    optimizer = optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-6)
    with mf.Profiler(model) as profiler:
        for loss in losses:
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
    return profiler.session.epochs[0]


def holding(**parameters):
    """Return a module with these parameters."""
    module = nn.Module()
    for name, p in parameters.items():
        setattr(module, name, p)
    return module


class LastState(nn.Module):
    """A layer on the last state of a frozen recurrent one, as wide as the weight."""

    def __init__(self):
        self.body, self.head = nn.GRU(3, 4, rng=0), nn.Dense(4, 4, rng=1)
        self.body.requires_grad_(False)

    def forward(self, x):
        made = self.body(x)
        return self.head((made[0] if isinstance(made, tuple) else made)[:, -1])


def test_a_view_of_a_frozen_result_keeps_all_of_it():
    model, x = LastState(), data(4, 5, 3)

    def loss(*_):
        return model(x).sum()

    assert profiled(model, [loss]).saved_peak_bytes == held_bytes(loss, tuple) == 4 * (4 * 5 * 4)


def test_a_view_of_data_keeps_the_view_only():
    w, x = nn.Parameter(data(50)), mf.tensor(data(10, 100))
    epoch = profiled(holding(w=w), [lambda: (w * x[:, ::2]).sum()])
    assert epoch.saved_peak_bytes == 4 * 10 * 50


@pytest.mark.parametrize("first", [np.int64, np.int32])
@pytest.mark.parametrize("by", ["layer", "index"])
def test_steps_with_indices_of_different_dtypes_are_told_apart(first, by):
    w, layer, rows = nn.Parameter(data(10)), nn.Embedding(10, 4, rng=0), RNG.integers(0, 10, 20)
    model = holding(w=w, layer=layer)

    def looked_up(indices):
        return lambda: (layer(indices) if by == "layer" else w[indices]).sum()

    def steps(*kinds):
        return profiled(model, [looked_up(rows.astype(kind)) for kind in kinds])

    kinds = [first, np.int32, np.int64, first]
    alone, together = [steps(kind).sum().saved_bytes for kind in kinds], steps(*kinds)
    assert together.sum().saved_bytes == sum(alone)
    assert together.saved_peak_bytes == max(alone) > min(alone)


@dataclass
class Box:
    """An object that holds something."""

    held: Any


# Such an op saves its input, too


@pytest.mark.parametrize(
    "container", [Box, lambda x: deque([x]), lambda x: {"x": [(x, None)]}, lambda x: Box([Box(x)])]
)
def test_arrays_in_any_container_are_memory(container):
    @mf.op(vjp=lambda g, k: g, aux={"k": container}, name="kept_in_a_container", no_alias=True)
    def kept(x):
        return x * 2, container(x * 3)

    w = nn.Parameter(data(50))
    assert profiled(holding(w=w), [lambda: kept(w * 1.0).sum()]).saved_peak_bytes == 4 * 50 + 4 * 50


def test_what_a_masked_array_hides_is_memory():
    @mf.op(vjp=lambda g, k: g, aux={"k": lambda x: x}, name="kept_masked", no_alias=True)
    def kept(x):
        return x * 2, np.ma.masked_array(x * 3, mask=x > 0)

    w = nn.Parameter(data(50))
    assert profiled(holding(w=w), [lambda: kept(w * 1.0).sum()]).saved_peak_bytes == 4 * 50 + 5 * 50


def test_functions_of_one_name_are_told_apart_by_their_cost():
    @mf.op(
        vjp=lambda g: g,
        name="costs_what_it_is_told",
        cost=lambda y, x, *, times: Cost(times() * 10, (times() * 100,)),
    )
    def told(x, *, times):
        return x + 0

    def constant(n):
        return lambda: n

    w = nn.Parameter(data(5))
    steps = [lambda n=n: told(w, times=constant(n)).sum() for n in (1, 2, 1, 5)]
    epoch = profiled(holding(w=w), steps)
    (row,) = [row for row in epoch.rows if row.op == "costs_what_it_is_told"]
    assert (row.flops_forward, row.flops_backward) == (10 * 9, 100 * 9)
