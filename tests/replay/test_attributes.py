"""A replayed step sees a change of each attribute that its code reads, by any way of reading it."""

import collections
import dataclasses
import functools
import warnings
from dataclasses import dataclass

import numpy as np
import pytest

import microfw as mf
from microfw import nn
from tests.helpers.replay import assert_change_is_seen, setter

value = 1.0  # of the name that attributes in this file have
COMPARED = []


class Plain:
    def __init__(self):
        self.value = 1.0


def compared(make):
    COMPARED.append(make)
    return make


# Compared: (a function that gives the factor, what changes it)


@compared
def attribute_with_the_name_of_a_global_variable():
    x = Plain()
    return (lambda: x.value * value), setter(x)


@compared
def attribute_of_self_with_the_name_of_a_global_variable():
    class Own:
        def __init__(self):
            self.value = 1.0

        def get(self):
            return self.value * value

    x = Own()
    return x.get, setter(x)


@compared
def leaf_that_is_detached():
    x = mf.tensor([1.0], np.float32)
    return (lambda: x.detach().sum()), lambda value: setattr(x, "data", [value])


class Decorated:
    """A decorator that is a class."""

    def __init__(self, f):
        self.f = f

    def __get__(self, instance, kind=None):
        return functools.partial(self.f, instance)


def _read_by_call(decorate):
    def make():
        class Own:
            value = 1.0
            __call__ = decorate(lambda self, factor: factor * self.value)

        x = Own()
        return (lambda: x(1.0)), setter(Own)

    make.__name__ = f"attribute_read_by_a_call_that_is_a_{decorate.__name__}"
    return compared(make)


for _decorate in (Decorated, classmethod, functools.singledispatchmethod, functools.partialmethod):
    _read_by_call(_decorate)


@compared
def attribute_read_by_a_cached_special_method():
    class Own:
        value = 1.0

        @functools.lru_cache  # noqa: B019
        def __getitem__(self, key):
            return self.value

    x = Own()

    def change(value):
        Own.value = value
        Own.__getitem__.cache_clear()

    return (lambda: x[0]), change


@compared
def attribute_read_by_an_object_that_is_a_special_method():
    class Get:
        value = 1.0

        def __call__(self, key):
            return self.value

    class Own:
        __getitem__ = Get()

    x = Own()
    return (lambda: x[0]), setter(Own.__getitem__)


@compared
def property_with_an_array_interface():
    class Own:
        array = np.ones(1)

        @property
        def __array_interface__(self):
            return self.array.__array_interface__

    x = Own()
    return (lambda: float(np.asarray(x)[0])), lambda value: setattr(x, "array", np.full(1, value))


@compared
def attribute_with_an_array_interface():
    x, arrays = Plain(), [np.ones(1), np.full(1, 3.0)]
    x.__array_interface__ = arrays[0].__array_interface__
    return (lambda: float(np.asarray(x)[0])), lambda value: setattr(
        x, "__array_interface__", arrays[1].__array_interface__
    )


def _layout_of_an_array(name, changed, lock=False):
    def make():
        x = np.arange(8.0).reshape(2, 4)
        x.setflags(write=not lock)

        def change(value):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # from NumPy 2.5 on
                setattr(x, name, changed)

        return (lambda: float(x[-1, 0]) + x.size), change

    make.__name__ = f"{name}_of_an_array_{'that_is_locked' * lock}"
    return compared(make)


_layout_of_an_array("shape", (4, 2))
_layout_of_an_array("shape", (4, 2), lock=True)
_layout_of_an_array("dtype", np.int32)


@compared
def array_that_is_resized():
    x = np.arange(8.0).reshape(2, 4)
    return (lambda: float(x[1, 0])), lambda value: x.resize((4, 2), refcheck=False)


@compared
def mask_of_the_fill_value():
    x = np.ma.array([1.0, 1e20], mask=[False, False])
    return (lambda: float(x.count())), lambda value: x.mask.__setitem__(1, True)


@compared
def value_behind_a_mask():
    x = np.ma.array([1.0, 1.0], mask=[False, True])
    return (lambda: float(x.data[1])), lambda value: x.data.__setitem__(1, value)


@compared
def fill_value_of_a_masked_array():
    x = np.ma.array([1.0, 1.0], mask=[False, True], fill_value=1.0)
    return (lambda: float(x.filled()[1])), lambda value: x.set_fill_value(value)


@compared
def array_of_a_dataset():
    x = mf.data.Dataset(np.ones((2, 2)), np.zeros(2, int))
    return (lambda: float(x.X[0, 0])), lambda value: setattr(x, "X", np.full((2, 2), value))


def _later_attribute_of_a_function(read):
    def make():
        def own():
            return read(own)

        return own, setter(own)

    make.__name__ = f"attribute_that_a_function_gets_later_{read.__name__}"
    return compared(make)


def by_getattr(x):
    return getattr(x, "value", 1.0)


def by_hasattr(x):
    return x.value if hasattr(x, "value") else 1.0


def by_an_error(x):
    try:
        return x.value
    except AttributeError:
        return 1.0


for _read in (by_getattr, by_hasattr, by_an_error):
    _later_attribute_of_a_function(_read)


@compared
def private_slot():
    class _Own:
        __slots__ = ("__value",)

        def __init__(self):
            self.set(1.0)

        def set(self, value):
            self.__value = value

        def get(self):
            return self.__value

    x = _Own()
    return x.get, x.set


@compared
def slot_of_a_module():
    class Own(nn.Module):
        __slots__ = ("value",)

        def forward(self):
            return self.value

    x = Own()
    x.value = 1.0
    return x, lambda value: object.__setattr__(x, "value", value)


def _field_of_a_dataclass(read):
    def make():
        @dataclass(eq=False)
        class Own:
            factor: float = 1.0

        x = Own()
        return (lambda: read(x)), setter(x, "fac" + "tor")

    make.__name__ = f"field_of_a_dataclass_{read.__name__}"
    return compared(make)


def by_astuple(x):
    return dataclasses.astuple(x)[0]


def by_asdict(x):
    return next(iter(dataclasses.asdict(x).values()))


for _read in (by_astuple, by_asdict):
    _field_of_a_dataclass(_read)


@compared
def attribute_in_a_positional_pattern():
    class Own:
        __match_args__ = ("val" + "ue",)

    x = Own()
    x.value = 1.0

    def factor():
        match x:
            case Own(found):
                return found

    return factor, lambda value: vars(x).update({"val" + "ue": value})


@compared
def field_of_a_named_tuple_in_a_list():
    kind = collections.namedtuple("Own", "value")
    found = [kind(1.0)]
    return (lambda: found[0].value), lambda value: found.__setitem__(0, kind(value))


@pytest.mark.parametrize("make", COMPARED, ids=lambda make: make.__name__)
def test_a_replayed_step_sees_a_change_of(make):
    assert_change_is_seen(make)
