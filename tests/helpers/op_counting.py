"""Numbers that count the operations that run on them."""

from __future__ import annotations

import math

import numpy as np


class Counting:
    """A number that counts every operation on it. Multiplications are counted apart as well."""

    operations = 0
    multiplications = 0

    def __init__(self, value):
        self.value = float(getattr(value, "value", value))

    @classmethod
    def reset(cls):
        cls.operations = cls.multiplications = 0

    def __float__(self):
        return self.value

    def reshape(self, *shape):  # as NumPy's own scalars can
        return np.asarray(self, object).reshape(*shape)


def _counted(name, function):
    def method(self, *others):
        Counting.operations += 1
        Counting.multiplications += name in ("__mul__", "__rmul__")
        value = function(self.value, *(float(o) for o in others))
        return value if isinstance(value, bool) else Counting(value)

    setattr(Counting, name, method)


for _name, _function in {
    "__add__": lambda a, b: a + b,
    "__radd__": lambda a, b: b + a,
    "__sub__": lambda a, b: a - b,
    "__rsub__": lambda a, b: b - a,
    "__mul__": lambda a, b: a * b,
    "__rmul__": lambda a, b: b * a,
    "__truediv__": lambda a, b: a / b,
    "__rtruediv__": lambda a, b: b / a,
    "__pow__": lambda a, b: a**b,
    "__neg__": lambda a: -a,
    "__abs__": abs,
    "__lt__": lambda a, b: a < b,
    "__gt__": lambda a, b: a > b,
    "__ge__": lambda a, b: a >= b,
    "__le__": lambda a, b: a <= b,
    "__eq__": lambda a, b: a == b,
    "exp": math.exp,
    "log": math.log,
    "log1p": math.log1p,
    "expm1": math.expm1,
    "sqrt": math.sqrt,
    "sin": math.sin,
    "cos": math.cos,
    "tanh": math.tanh,
    "exp2": lambda a: 2**a,
    "log2": math.log2,
    "log10": math.log10,
    "cbrt": lambda a: math.copysign(abs(a) ** (1 / 3), a),
    "tan": math.tan,
    "arcsin": math.asin,
    "arccos": math.acos,
    "arctan": math.atan,
    "sinh": math.sinh,
    "cosh": math.cosh,
    "arcsinh": math.asinh,
    "arccosh": math.acosh,
    "arctanh": math.atanh,
    "hypot": math.hypot,
    "arctan2": math.atan2,
}.items():
    _counted(_name, _function)

as_counting = np.frompyfunc(Counting, 1, 1)


def count(function):
    """Return a function's value, and how many operations it took."""
    Counting.reset()
    value = function()
    return value, Counting.operations
