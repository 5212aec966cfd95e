"""A replayed step sees a change of each attribute that its code reads, by any way of reading it."""

import types

import numpy as np
import pytest

import microfw as mf
from tests.helpers.replay import assert_change_is_seen, setter

value = 1.0  # of the name that attributes in this file have
COMPARED = []


def compared(make):
    COMPARED.append(make)
    return make


# Compared: (a function that gives the factor, what changes it)


@compared
def attribute_with_the_name_of_a_global_variable():
    x = types.SimpleNamespace(value=1.0)
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


@pytest.mark.parametrize("make", COMPARED, ids=lambda make: make.__name__)
def test_a_replayed_step_sees_a_change_of(make):
    assert_change_is_seen(make)
