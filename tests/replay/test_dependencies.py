"""What a step reads without being given it is compared before each replay."""

import abc
import collections
import contextlib
import copy
import enum
import functools
import logging
import random
import sys
import types
import weakref
from dataclasses import dataclass, field

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from tests.helpers.replay import losses, setter

CONFIG = types.ModuleType("config_of_a_test")
CONFIG.__dict__["value"] = 1.0
COMPARED = []


def compared(make):
    COMPARED.append(make)
    return make


# Compared: (a function that gives the factor, what changes it)


@compared
def module_imported_in_the_step():
    sys.modules["config_of_a_test"] = CONFIG

    def factor():
        import config_of_a_test

        return config_of_a_test.value

    return factor, setter(CONFIG)


@compared
def name_imported_in_the_step():
    sys.modules["config_of_a_test"] = CONFIG

    def factor():
        from config_of_a_test import value

        return value

    return factor, setter(CONFIG)


@compared
def name_that_a_module_makes_when_asked():
    module, values = types.ModuleType("lazy"), {"value": 1.0}
    module.__dict__["__getattr__"] = lambda name: values[name]
    return (lambda: module.value), lambda value: values.update(value=value)


@compared
def name_that_a_module_gets_later():
    module = types.ModuleType("late")
    return (lambda: getattr(module, "value", 1.0)), setter(module)


@compared
def attribute_of_a_module_by_a_name_that_is_made():
    module = types.ModuleType("named")
    module.value = 1.0
    return (lambda: getattr(module, "val" + "ue")), setter(module)


@compared
def global_variable_that_comes_later():
    globals().pop("LATE", None)

    def factor():
        try:
            return LATE
        except NameError:
            return 1.0

    return factor, lambda value: globals().update(LATE=value)


@compared
def global_variable_in_the_place_of_a_builtin():
    globals().pop("abs", None)
    return (lambda: abs(-1.0)), lambda value: globals().update(abs=lambda x: value)


@compared
def function_of_a_library_replaced(monkeypatch):
    return (lambda: float(np.hypot(0.0, 1.0))), lambda value: monkeypatch.setattr(np, "hypot", lambda a, b: value)


@compared
def attribute_of_a_metaclass():
    class Meta(type):
        value = 1.0

    class Own(metaclass=Meta):
        pass

    return (lambda: Own.value), setter(Meta)


@compared
def property_of_a_metaclass():
    held = [1.0]

    class Meta(type):
        @property
        def value(cls):
            return held[0]

    class Own(metaclass=Meta):
        pass

    return (lambda: Own.value), lambda value: held.__setitem__(0, value)


@compared
def class_of_an_object():
    class One:
        def get(self):
            return 1.0

    class Other(One):
        def get(self):
            return 3.0

    x = One()
    return (lambda: x.get()), lambda value: setattr(x, "__class__", Other)


@compared
def attribute_of_an_enum_member():
    class Kind(enum.Enum):
        A = 1

        def __init__(self, number):
            self.weight = 1.0

    return (lambda: Kind.A.weight), lambda value: setattr(Kind.A, "weight", value)


def _attribute_of(base, *arguments):
    def make():
        x = type("Own", (base,), {})(*arguments)
        x.value = 1.0
        return (lambda: x.value), setter(x)

    make.__name__ = f"attribute_of_a_kind_of_{base.__name__}"
    return compared(make)


for _base, *_arguments in (
    (str, "a"), (float, 1.0), (int, 1), (tuple, (1,)), (list, [1]), (set, {1}), (dict,), (Exception, "a"),
    (collections.deque, [1]), (frozenset, {1}), (bytes, b"a"), (collections.UserDict,),
):  # fmt: skip
    _attribute_of(_base, *_arguments)


@compared
def attribute_of_a_kind_of_array():
    x = np.ones(2).view(type("Own", (np.ndarray,), {}))
    x.value = 1.0
    return (lambda: x.value), setter(x)


@compared
def mask_of_an_array():
    x = np.ma.masked_array([1.0, 2.0], mask=[False, True])
    return (lambda: float(x.sum())), lambda value: x.mask.__setitem__(1, False)


@compared
def order_of_a_dict():
    x = {"a": 1.0, "b": 3.0}
    return (lambda: next(iter(x.values()))), lambda value: x.update(a=x.pop("a"))


@compared
def level_of_a_logger():
    log = logging.getLogger("a test's")
    log.setLevel(logging.INFO)
    return (lambda: 3.0 if log.isEnabledFor(logging.DEBUG) else 1.0), lambda value: log.setLevel(logging.DEBUG)


def _text_of(make_text, method):
    def make():
        x = type("Own", (), {"value": 1.0, method: lambda self, *_: str(self.value)})()
        return (lambda: float(make_text(x))), setter(x)

    make.__name__ = f"text_by_{method}_{make_text.__name__}"
    return compared(make)


def as_string(x):
    return str(x)


def in_a_format(x):
    return f"{x}"


def by_percent(x):
    return "%s" % x  # noqa: UP031


def by_method(x):
    return "{.value}".format(x)  # noqa: UP032


for _way in (as_string, in_a_format, by_percent):
    _text_of(_way, "__str__")
_text_of(in_a_format, "__format__")
_text_of(by_method, "__len__")
_text_of(repr, "__repr__")


@compared
def object_made_in_the_step():
    held = {"value": 1.0}

    class Own:
        def __init__(self):
            self.value = held["value"]

    return (lambda: Own().value), lambda value: held.update(value=value)


@compared
def dataclass_made_in_the_step():
    held = {"value": 1.0}

    @dataclass
    class Own:
        value: float = field(default_factory=lambda: held["value"])
        other: float = 0.0

        def __post_init__(self):
            self.other = held["value"]

    return (lambda: Own().value * Own().other), lambda value: held.update(value=value)


@compared
def object_made_by_new_in_the_step():
    held = {"value": 1.0}

    class Own:
        def __new__(cls):
            made = object.__new__(cls)
            made.value = held["value"]
            return made

    return (lambda: Own().value), lambda value: held.update(value=value)


@compared
def attribute_with_underscores():
    class Own:
        __factor__ = 1.0

    x = Own()
    return (lambda: x.__factor__), setter(Own, "__factor__")


@compared
def name_of_a_function():
    def f():
        pass

    f.__name__ = "1.0"
    return (lambda: float(f.__name__)), lambda value: setattr(f, "__name__", str(value))


@compared
def memoised_function_that_is_cleared():
    held = [1.0]

    @functools.lru_cache
    def get():
        return held[0]

    def change(value):
        held[0] = value
        get.cache_clear()

    return get, change


@compared
def attribute_that_the_first_step_makes():
    class Own:
        kept = None
        value = 1.0

        def get(self):
            self.kept = self.kept or [0.0]
            return self.value + self.kept[0]

    x = Own()
    return x.get, setter(x)


@compared
def object_behind_a_weak_reference():
    class Own:
        value = 1.0

    x = Own()
    known = weakref.ref(x)
    return (lambda: known().value * x.value), setter(x)


@compared
def value_of_an_object_that_answers_all_names():
    held = {"value": 1.0, "__class__": object}

    class Own:
        def __getattr__(self, name):
            return held[name]

    x = Own()
    return (lambda: x.value), lambda value: held.update(value=value)


@compared
def layer_of_the_library_with_another_method(monkeypatch):
    layer, other = nn.Identity(), lambda self, x: x * 3.0
    monkeypatch.setattr(nn.Identity, "forward", vars(nn.Identity)["forward"])
    return (lambda: layer(mf.Tensor(np.float32(1.0)))), lambda value: setattr(nn.Identity, "forward", other)


@compared
def class_registered_for_an_abstract_one():
    class Abstract(abc.ABC):  # noqa: B024
        pass

    class Own:
        pass

    x = Own()
    return (lambda: 3.0 if isinstance(x, Abstract) else 1.0), lambda value: Abstract.register(Own)


@compared
def what_a_dict_gives_for_missing_keys():
    found = collections.defaultdict(lambda: 1.0)
    return (lambda: found.default_factory()), lambda value: setattr(found, "default_factory", lambda: value)


@compared
def field_of_a_record():
    records = np.ones(2, [("value", float)])
    record = records[0]
    return (lambda: float(record["value"])), lambda value: records["value"].__setitem__(0, value)


@compared
def state_of_a_generator_that_is_copied():
    generator = random.Random(0)
    return (lambda: copy.copy(generator).random()), lambda value: generator.seed(value)


@compared
def state_of_a_generator_of_numpy_that_is_copied():
    generator = np.random.default_rng(0)
    return (lambda: copy.deepcopy(generator).random()), lambda value: generator.random()


@compared
def state_of_a_generator_that_is_put_back():
    generator = np.random.RandomState(0)

    def factor():
        state = generator.get_state()
        drawn = generator.random_sample()
        generator.set_state(state)
        return drawn

    return factor, lambda value: generator.random_sample()


@compared
def attribute_behind_the_state_of_an_object():
    class Own:
        pass

    x = Own()
    x.value = 1.0
    return (lambda: next(iter(x.__reduce_ex__(2)[2].values()))), setter(x)


@compared
def logger_that_is_disabled():
    logger = logging.Logger("own", logging.INFO)
    return (lambda: 1.0 if logger.isEnabledFor(logging.INFO) else 3.0), lambda value: setattr(logger, "disabled", True)


@pytest.fixture(autouse=True)
def _as_before():
    forward = vars(nn.Identity)["forward"]
    yield
    nn.Identity.forward = forward
    for name in ("LATE", "abs"):
        globals().pop(name, None)
    sys.modules.pop("config_of_a_test", None)


def _make(make, monkeypatch, *more):
    CONFIG.value = 1.0
    for name in ("LATE", "abs"):
        globals().pop(name, None)
    return make(monkeypatch, *more) if make.__code__.co_argcount else make()


@pytest.mark.parametrize("make", COMPARED, ids=lambda make: make.__name__)
def test_a_replayed_step_sees_a_change_of(make):
    found = []
    for compiled in (False, True):
        with contextlib.ExitStack() as stack:
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            got, step = losses(*_make(make, patch), compiled)
        found.append(got)
    assert found[0] == found[1]
    assert found[0][5] != found[0][6]
    assert step.replays, step.explain()
