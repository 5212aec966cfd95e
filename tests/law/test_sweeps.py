"""How the cost of each strategy grows with the size of the network."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import microfw as mf
from microfw.law.sweeps import VALUES, fit_power_law
from microfw.profiler import sweep
from tests.helpers.law_models import X4, dense


@pytest.fixture(scope="module")
def small():
    return sweep("width", X4, [0, 1], values=(2, 4, 8), budget=0.05, name="rows")


def test_a_sweep_fits_exponents(small):
    steps = small.fit("backprop", "steps")
    assert abs(steps.exponent - 1) < 1e-9 and steps.low <= steps.exponent <= steps.high
    assert small.fit("central differences", "operations").exponent > 1.5
    assert 1 < small.fit("chain rule per parameter", "rules").exponent < 2
    assert small.sizes() == sorted(small.sizes())
    with pytest.raises(mf.errors.ArgumentError, match="backprop steps"):
        small.fit("backprop", "colour")


def test_a_sweep_prints_and_is_plain_data(small):
    text = str(small)
    assert max(map(len, text.splitlines())) <= 100
    assert "over width of rows; model for 2: Dense(4 -> 2)" in text and "95 % interval" in text
    assert "Growth: cost ~ (N + P) ** exponent" in text
    assert json.loads(json.dumps(small.to_dict()))["values"] == [2, 4, 8]


def test_values_of_numpy_are_plain_data_and_texts_are_escaped():
    found = sweep("width", X4, [0, 1], values=2 ** np.arange(1, 4), budget=0.01, name="\x1b[2Jx")
    assert json.loads(json.dumps(found.to_dict()))["values"] == [2, 4, 8]
    assert repr(found.laws[0]).startswith(r"Law(\x1b[2Jx, N ")


def test_a_sweep_is_drawn(small, tmp_path):
    pytest.importorskip("matplotlib")
    axes = small.plot(tmp_path / "growth.png")
    assert (tmp_path / "growth.png").stat().st_size > 10_000
    assert axes.get_xscale() == axes.get_yscale() == "log"
    assert len(axes.lines) == 8


def test_a_sweep_over_batches_compares_with_n():
    model, X = dense(4, 6, 3), np.random.default_rng(0).normal(size=(16, 4))
    found = sweep("batch", X, np.arange(16) % 3, values=(2, 4, 8, 16), build=lambda rows: model, budget=0.02)
    assert found.size == found.to_dict()["size"] == "N"
    assert found.sizes() == [each.N for each in found.laws]
    assert abs(found.fit("backprop", "steps").exponent - 1) < 1e-9  # each row has as many nodes and uses
    text = str(found)
    assert text.startswith("microfw law: over batch; model: Dense(4 -> 6), ReLU, Dense(6 -> 3)\n")
    assert "Growth: cost ~ N ** exponent; P is the same for all" in text


def test_a_star_has_its_footnote(small):
    note = "*: some numbers are extrapolated from a sample of the parameters"
    for sampled in (False, True):
        found = replace(small, fits=[replace(fit, sampled=sampled) for fit in small.fits])
        assert ("tensors *" in found._repr_html_()) == (note in found._repr_html_()) == sampled
        assert (note in " ".join(str(found).split())) == sampled


def test_a_sweep_of_ones_own():
    result = sweep("heads", X4, [0, 1], values=(1, 2, 4), build=lambda n: dense(4, 2 * n, 3), budget=0.02)
    assert [found.count("scalars").P for found in result.laws] == [(4 * h + h) + (h * 3 + 3) for h in (2, 4, 8)]


def test_the_interval_covers_the_truth():
    rng = np.random.default_rng(0)
    x = np.array([1, 2, 4, 8, 16, 32])
    inside = 0
    for _ in range(400):
        exponent, error = fit_power_law(x, x**1.5 * np.exp(rng.normal(0, 0.2, 6)))
        inside += abs(exponent - 1.5) <= error
    assert 0.92 <= inside / 400 <= 0.98


@pytest.mark.slow
@pytest.mark.parametrize("over", VALUES)
def test_bars_of_the_default_sweeps(over):
    train = mf.data.load("digits" if over == "width" else "iris", rng=0)[0]
    result = sweep(over, train.X, train.y, budget=0.1)
    for found in result.laws:
        count = found.count("scalars")
        assert 1 <= count.steps / (count.N + count.P) <= 2
        assert count.rules == count.N
    assert abs(result.fit("backprop", "operations").exponent - 1) <= 0.05
    if over != "batch":
        for strategy in ("forward mode", "central differences", "one-sided differences"):
            assert 1.9 < result.fit(strategy, "operations").exponent < 2.1
