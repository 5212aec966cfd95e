"""Schedules of learning rates."""

from __future__ import annotations

import math
import pickle

import pytest

from microfw.errors import ArgumentError
from microfw.optim import schedules

ALL = {
    "StepDecay": schedules.StepDecay(0.1, every=3),
    "Exponential": schedules.Exponential(0.1, factor=0.9),
    "Cosine": schedules.Cosine(0.1, steps=10, end=0.001),
    "OneCycle": schedules.OneCycle(0.1, steps=20),
    "WarmUp": schedules.WarmUp(schedules.Cosine(0.1, steps=10), steps=5),
    "ReduceOnPlateau": schedules.ReduceOnPlateau(0.1),
}


def test_every_schedule_is_tested():
    assert set(ALL) == set(schedules.__all__)


@pytest.mark.parametrize("name", ALL)
def test_schedules_are_plain_data(name):
    schedule = pickle.loads(pickle.dumps(ALL[name]))
    assert schedule == ALL[name]
    assert repr(schedule).startswith(f"{name}(")
    if name != "ReduceOnPlateau":
        rates = [schedule(step) for step in range(15)]
        assert all(type(rate) is float and 0 < rate <= 0.1 + 1e-15 for rate in rates)
        assert rates == [schedule(step) for step in range(15)]


def test_schedules_at_their_ends():
    assert schedules.Cosine(0.1, steps=10)(10) == schedules.Cosine(0.1, steps=10)(25) == 0
    assert schedules.Cosine(0.1, steps=10, end=0.01)(25) == 0.01
    cycle = schedules.OneCycle(0.1, steps=20, start=10, end=5)
    assert cycle(0) == pytest.approx(0.01)
    assert cycle(5) == pytest.approx(0.1)
    assert cycle(19) == cycle(50) == pytest.approx(0.002)
    warm = schedules.WarmUp(0.5, steps=4, start=0.2)
    assert [warm(step) for step in range(6)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.5])


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: schedules.StepDecay(0, 3), "StepDecay: expected lr above 0, finite, got 0"),
        (lambda: schedules.StepDecay(0.1, 0), "StepDecay: expected every to be an integer of at least 1, got 0"),
        (lambda: schedules.Exponential(0.1, -1), "Exponential: expected factor above 0, finite, got -1"),
        (lambda: schedules.Cosine(0.1, 10, -1), "Cosine: expected end from 0 to lr (0.1), got -1"),
        (lambda: schedules.Cosine("0.1", 10), "Cosine: expected lr above 0, finite, got '0.1'"),
        (lambda: schedules.OneCycle(0.1, 20, rise=1.0), "OneCycle: expected rise below 1, and more than a step long, got 1.0 of 20 steps"),
        (lambda: schedules.WarmUp(0.1, 0), "WarmUp: expected steps to be an integer of at least 1, got 0"),
        (lambda: schedules.StepDecay(True, 3), "StepDecay: expected lr above 0, finite, got True"),
        (lambda: schedules.StepDecay(0.1, 2.5), "StepDecay: expected every to be an integer of at least 1, got 2.5"),
        (lambda: schedules.StepDecay(0.1, 3, math.nan), "StepDecay: expected factor above 0, finite, got nan"),
        (lambda: schedules.Exponential(math.inf, 0.5), "Exponential: expected lr above 0, finite, got inf"),
        (lambda: schedules.Cosine(0.1, 10.5), "Cosine: expected steps to be an integer of at least 1, got 10.5"),
        (lambda: schedules.Cosine(0.1, 10, 0.2), "Cosine: expected end from 0 to lr (0.1), got 0.2"),
        (lambda: schedules.Cosine(0.1, 10, math.nan), "Cosine: expected end from 0 to lr (0.1), got nan"),
        (lambda: schedules.Cosine(0.1, 10, None), "Cosine: expected end from 0 to lr (0.1), got None"),
        (lambda: schedules.OneCycle(0.1, 20, start=0.5), "OneCycle: expected start at least 1, finite, got 0.5"),
        (lambda: schedules.OneCycle(0.1, 20, start=4.0, end=0.1), "OneCycle: expected end at least 1 / start (0.25), finite, got 0.1"),
        (lambda: schedules.OneCycle(0.1, 20, rise="a"), "OneCycle: expected rise above 0, finite, got 'a'"),
        (lambda: schedules.WarmUp(0.1, 5, start=2), "WarmUp: expected start above 0, at most 1, got 2"),
        (lambda: schedules.WarmUp(-0.1, 5), "WarmUp: expected schedule above 0, finite, got -0.1"),
        (lambda: schedules.WarmUp(schedules.Cosine, 5), "WarmUp: expected a rate, or a schedule that is a function of the step, got a class"),
        (lambda: schedules.WarmUp(schedules.ReduceOnPlateau(0.1), 5), "WarmUp: expected a rate, or a schedule that is a function of the step, got a ReduceOnPlateau, a function of a metric"),
        (lambda: schedules.WarmUp(schedules.Cosine(0.1, 5), 6), "WarmUp: expected steps of at most the 5 of the Cosine that follows, got 6; the two numbers add up to the whole run"),
        (lambda: schedules.ReduceOnPlateau(0.1, patience=-1), "ReduceOnPlateau: expected patience to be an integer of at least 0, got -1"),
        (lambda: schedules.ReduceOnPlateau(0.1, patience=1.5), "ReduceOnPlateau: expected patience to be an integer of at least 0, got 1.5"),
        (lambda: schedules.ReduceOnPlateau(0.1, cooldown=-1), "ReduceOnPlateau: expected cooldown to be an integer of at least 0, got -1"),
        (lambda: schedules.ReduceOnPlateau(0.1, threshold=2), "ReduceOnPlateau: expected threshold from 0 to below 1, got 2"),
        (lambda: schedules.ReduceOnPlateau(0.1, threshold=math.nan), "ReduceOnPlateau: expected threshold from 0 to below 1, got nan"),
        (lambda: schedules.ReduceOnPlateau(0.1, end=0.2), "ReduceOnPlateau: expected end from 0 to lr (0.1), got 0.2"),
        (lambda: schedules.ReduceOnPlateau(0.1, factor=1.0), "ReduceOnPlateau: expected factor below 1, got 1.0"),
        (lambda: schedules.ReduceOnPlateau(0.1, mode="up"), "ReduceOnPlateau: expected mode 'min' or 'max', got 'up'"),
    ],
)  # fmt: skip
def test_schedules_that_make_no_sense(make, text):
    with pytest.raises(ArgumentError) as info:
        make()
    assert str(info.value) == text


def test_plateau_goes_on_from_its_state():
    a, b = (schedules.ReduceOnPlateau(0.1, patience=1, cooldown=2, mode="max") for _ in range(2))
    metrics = [0.1, 0.2, 0.2, 0.2, 0.15, 0.2, math.nan, 0.2, 0.3, 0.3, 0.3, 0.3]
    for metric in metrics[:5]:
        a(metric)
    b.load_state_dict(a.state_dict())
    assert [a(metric) for metric in metrics[5:]] == [b(metric) for metric in metrics[5:]]
    assert a.lr < 0.1
    assert a == b and a == pickle.loads(pickle.dumps(a))


def test_a_plateau_that_has_seen_nothing_equals_its_copy_and_takes_older_states():
    new, old = (schedules.ReduceOnPlateau(0.1, patience=0) for _ in range(2))
    assert new == pickle.loads(pickle.dumps(new)) and math.isinf(new.best)
    old.load_state_dict(old.state_dict() | {"best": math.nan})  # as saved before there was None
    assert [old(2.0), old(1.0), old.best] == [0.1, 0.1, 1.0]


@pytest.mark.parametrize(
    ("mode", "metrics", "rates"),
    [
        ("min", (-1.0, -0.99995, -0.9999, -0.99985, -0.9998), (0.1, 0.1, 0.1, 0.01, 0.01)),
        ("min", (-1.0, -1.00005, -1.00009, -1.00012, -1.2), (0.1, 0.1, 0.1, 0.1, 0.1)),
        ("min", (0.0, 0.0, -1e-12, 1e-12, 0.0, 0.0), (0.1, 0.1, 0.1, 0.1, 0.1, 0.01)),
        ("max", (-1.0, -1.0, -0.99995, -1.0), (0.1, 0.1, 0.1, 0.01)),
        ("max", (-1.0, -0.99, -0.9, -0.5), (0.1, 0.1, 0.1, 0.1)),
        ("min", (math.nan, math.nan, math.nan, math.nan), (0.1, 0.1, 0.01, 0.01)),
        ("min", (math.inf, 5.0, 4.0, 4.0, 4.0, 4.0), (0.1, 0.1, 0.1, 0.1, 0.1, 0.01)),
    ],
)
def test_plateau_counts_as_better_what_is_better_at_any_sign(mode, metrics, rates):
    plateau = schedules.ReduceOnPlateau(0.1, patience=2, mode=mode)
    assert [plateau(metric) for metric in metrics] == pytest.approx(rates)


@pytest.mark.parametrize("metric", ["0.5", None, [1.0, 2.0]])
def test_plateau_refuses_what_is_no_number(metric):
    plateau = schedules.ReduceOnPlateau(0.1)
    with pytest.raises(ArgumentError, match="^ReduceOnPlateau: expected a metric, one number, got"):
        plateau(metric)
    assert plateau == schedules.ReduceOnPlateau(0.1)


def test_plateau_returns_to_its_start():
    plateau = schedules.ReduceOnPlateau(0.1, patience=0, cooldown=3)
    for _ in range(9):
        plateau(1.0)
    assert plateau.lr < 0.1
    plateau.reset()
    assert plateau == schedules.ReduceOnPlateau(0.1, patience=0, cooldown=3)


def test_a_plateau_takes_a_whole_state_or_nothing_and_those_of_older_versions():
    plateau = schedules.ReduceOnPlateau(0.1, patience=0)
    plateau(1.0)
    before = plateau.state_dict()
    for spoilt in ({"patience": -1}, {"lr": math.nan}, {"bad": -1}, {"best": "a"}, {"base_lr": 0}):
        with pytest.raises(ArgumentError, match="ReduceOnPlateau"):
            plateau.load_state_dict(before | {"lr": 0.05} | spoilt)
    with pytest.raises(ArgumentError, match="^ReduceOnPlateau.load_state_dict: expected an entry 'factor', got only"):
        plateau.load_state_dict({"lr": 0.05})
    assert plateau.state_dict() == before
    old = {name: value for name, value in before.items() if name != "base_lr"} | {"lr": 0.01, "best": math.nan}
    plateau.load_state_dict(old)
    assert (plateau.lr, plateau.base_lr, plateau.best) == (0.01, 0.1, math.inf)
