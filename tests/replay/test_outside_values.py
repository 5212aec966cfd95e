"""A step that reads what cannot be compared, such as a file or the clock, runs every time."""

import collections
import ctypes
import decimal
import os
import sys
import threading
import time
import weakref
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from microfw.errors import ReplayWarning
from tests.helpers.replay import losses, setter

OUTSIDE = []


def outside(make):
    OUTSIDE.append(make)
    return make


# Outside: it cannot be compared, so that the step runs every time


@outside
def variable_of_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MICROFW_TEST", "1.0")
    return (lambda: float(os.getenv("MICROFW_TEST"))), lambda value: monkeypatch.setenv("MICROFW_TEST", "3.0")


@outside
def file_opened(monkeypatch, tmp_path):
    path = str(tmp_path / "value")
    (tmp_path / "value").write_text("1.0")

    def factor():
        with open(path) as file:
            return float(file.read())

    return factor, lambda value: (tmp_path / "value").write_text("3.0")


@outside
def file_by_its_path(monkeypatch, tmp_path):
    path = tmp_path / "value"
    return (lambda: 3.0 if path.exists() else 1.0), lambda value: path.touch()


@outside
def file_by_a_function_of_a_path(monkeypatch, tmp_path):
    path = str(tmp_path / "value")
    return (lambda: 3.0 if os.path.exists(path) else 1.0), lambda value: Path(path).touch()


@outside
def file_of_an_array(monkeypatch, tmp_path):
    path = str(tmp_path / "value.npy")
    np.save(path, 1.0)
    return (lambda: float(np.load(path))), lambda value: np.save(path, 3.0)


@outside
def clock(monkeypatch, tmp_path):
    now = [0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = staticmethod(time.perf_counter)
    return (lambda: 1.0 if clock() < 0 else 1.0 + 2 * now[0]), lambda value: now.__setitem__(0, 1)


@outside
def date(monkeypatch, tmp_path):
    start = datetime.now()
    return (lambda: 1.0 if datetime.now() >= start else 3.0), lambda value: None


@outside
def iterator_over_what_comes(monkeypatch, tmp_path):
    values = iter([1.0] * 6 + [3.0] * 20)
    return (lambda: next(values)), lambda value: None


@outside
def code_in_a_string(monkeypatch, tmp_path):
    globals()["STRING"] = 1.0
    return (lambda: eval("STRING")), lambda value: globals().update(STRING=value)


@outside
def variables_by_a_name_that_is_made(monkeypatch, tmp_path):
    globals()["STRING"] = 1.0
    return (lambda: globals()["STR" + "ING"]), lambda value: globals().update(STRING=value)


@outside
def memory_of_c(monkeypatch, tmp_path):
    x = ctypes.c_double(1.0)
    return (lambda: x.value), setter(x)


@outside
def values_of_a_thread(monkeypatch, tmp_path):
    x = threading.local()
    x.value = 1.0
    return (lambda: x.value), setter(x)


@outside
def precision_of_decimals(monkeypatch, tmp_path):
    monkeypatch.setattr(decimal.getcontext(), "prec", 28)
    return (lambda: float(decimal.Decimal(2) / 3)), lambda value: monkeypatch.setattr(decimal.getcontext(), "prec", 1)


@outside
def setting_of_the_interpreter(monkeypatch, tmp_path):
    return (lambda: 1.0 if sys.getrecursionlimit() else 3.0), lambda value: None


@outside
def setting_of_numpy(monkeypatch, tmp_path):
    return (lambda: 1.0 if np.geterr()["over"] else 3.0), lambda value: None


@outside
def object_that_only_the_reference_finds(monkeypatch, tmp_path):
    class Own:
        pass

    kept = {"x": Own()}
    known = weakref.ref(kept["x"])
    return (lambda: 1.0 if known() is not None else 3.0), lambda value, kept=kept: kept.clear()


@outside
def lock_that_is_held(monkeypatch, tmp_path):
    lock = threading.Lock()
    return (lambda: 3.0 if lock.locked() else 1.0), lambda value: lock.acquire()


@outside
def python_in_a_ufunc(monkeypatch, tmp_path):
    held = [1.0]
    f = np.frompyfunc(lambda x: x * held[0], 1, 1)
    return (lambda: float(f(1.0))), lambda value: held.__setitem__(0, value)


@outside
def object_whose_names_fail(monkeypatch, tmp_path):
    held = {"value": 1.0}

    class Own:
        def __getattribute__(self, name):
            return held[name]

    x = Own()
    return (lambda: x.value), lambda value: held.update(value=value)


@outside
def counter_of_steps(monkeypatch, tmp_path):
    calls = []

    def factor():
        calls.append(1)
        return 3.0 if len(calls) > 6 else 1.0

    return factor, lambda value: None


@pytest.fixture(autouse=True)
def _as_before():
    yield
    globals().pop("STRING", None)


def _make(make, monkeypatch, *more):
    return make(monkeypatch, *more) if make.__code__.co_argcount else make()


@pytest.mark.filterwarnings(f"error::{ReplayWarning.__module__}.ReplayWarning")
@pytest.mark.parametrize("make", OUTSIDE, ids=lambda make: make.__name__)
def test_a_step_that_reads_it_runs_every_time(make, tmp_path):
    found = []
    for compiled in (False, True):
        folder = tmp_path / str(compiled)
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            got, step = losses(*_make(make, patch, folder), compiled)
        found.append(got)
    assert found[0] == found[1]
    assert not step.replays and "run every time: it " in step.explain()


@pytest.mark.parametrize(
    ("seen", "grow"),
    [
        ([], lambda seen: seen.append(1)),
        (set(), lambda seen: seen.add(len(seen))),
        ({}, lambda seen: seen.update({len(seen): 1})),
        (collections.deque(), lambda seen: seen.append(1)),
    ],
    ids=["list", "set", "dict", "deque"],
)
def test_a_container_that_grows_at_each_step_is_named(seen, grow):
    net = nn.Dense(3, 1, rng=0)

    def f(x):
        grow(seen)
        return np.mean(net(x) ** 2) * len(seen) ** -0.5

    step = mf.compile(f, optim.SGD(net.parameters(), lr=0.1))
    for _ in range(5):
        step(np.ones((4, 3), np.float32))
    assert "run every time: it changes seen, on which it may depend" in step.explain()
