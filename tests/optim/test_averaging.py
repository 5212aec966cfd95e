"""Averages of weights."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from microfw import nn, optim
from microfw.errors import ArgumentError, GraphError
from tests.helpers.optimizers import given


def test_an_average_follows_its_equation_and_swaps():
    model = nn.Dense(2, 2, rng=0)
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    average, expected = optim.Average(optimizer, decay=0.8), optimizer.flat.values.copy()
    for k in range(5):
        for p in model.parameters():
            p.grad = np.full(p.shape, k, np.float32)
        optimizer.step()
        average.update()
        expected = 0.8 * expected + 0.2 * optimizer.flat.values
    np.testing.assert_allclose(average.values, expected, rtol=1e-6)
    before = optimizer.flat.values.copy()
    loss = np.square(model(np.ones((1, 2)))).sum()
    with pytest.raises(ZeroDivisionError), average.swapped():  # noqa: PT012
        np.testing.assert_array_equal(model.weight.data.ravel(), average.values[:4])
        with pytest.raises(ArgumentError, match="^Average.update: expected the parameters in place, got the average"):
            average.update()
        with pytest.raises(GraphError, match="was written to"):
            loss.backward()
        raise ZeroDivisionError
    np.testing.assert_array_equal(optimizer.flat.values, before)
    other = optim.Average(optimizer, decay=0.1)
    other.load_state_dict(average.state_dict())
    assert other.decay == 0.8
    np.testing.assert_array_equal(other.values, average.values)


def test_averages_refuse():
    p = given([1.0])[0]
    with pytest.raises(ArgumentError, match="^Average: expected an optimizer, got list"):
        optim.Average(p)
    optimizer = optim.SGD(p, lr=1.0)
    for decay in (1, -0.1, math.nan, "0.9"):
        with pytest.raises(ArgumentError, match="^Average: expected decay from 0 to below 1, got"):
            optim.Average(optimizer, decay)
    with pytest.raises(ArgumentError, match=r"^Average.load_state_dict: expected shape \(1,\), got \(3,\)"):
        optim.Average(optimizer).load_state_dict({"decay": 0.5, "values": np.ones(3)})


def test_an_average_that_is_unpickled_from_memory_of_others_is_updated_in_its_own():
    model = nn.Dense(2, 2, rng=0)
    average, buffers = optim.Average(optim.SGD(model.parameters(), lr=0.5), decay=0.8), []
    dumped = pickle.dumps((model, average), protocol=5, buffer_callback=buffers.append)
    other, loaded = pickle.loads(dumped, buffers=[bytes(buffer.raw()) for buffer in buffers])
    for parts in ((model, average), (other, loaded)):
        parts[0].weight.data = np.ones((2, 2))
        parts[1].update()
    np.testing.assert_array_equal(loaded.values, average.values)
    with loaded.swapped():
        np.testing.assert_array_equal(other.weight.data.ravel(), average.values[:4])
