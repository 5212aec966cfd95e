"""Objects and layers with settings of every type, as users write them."""

import contextvars
import dataclasses
import types

import numpy as np

from microfw import nn

SCALE = 1.0
TABLE = {"scale": 1.0, "shift": 0.0}
LEVEL = contextvars.ContextVar("level", default=1.0)


class Plain:
    """An object that is no module."""

    scale = 1.0

    def __init__(self, scale=1.0):
        self.value = scale

    def read(self):
        return self.value


class Slotted:
    """An object without a dictionary."""

    __slots__ = ("scale",)

    def __init__(self, scale=1.0):
        self.scale = scale


class Dynamic:
    """An object that computes its attributes."""

    def __init__(self):
        self.__dict__["inner"] = {"scale": 1.0}

    def __getattr__(self, name):
        try:
            return self.__dict__["inner"][name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name, value):
        self.__dict__["inner"][name] = value


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings that are replaced as a whole."""

    scale: float = 1.0
    names: tuple = ("a", "b")


# Settings of every type


class Times(nn.Module):
    """``value`` is a number of Python or NumPy, or an array."""

    def __init__(self, value):
        self.value = value

    def forward(self, x):
        return x * self.value


class TimesItem(nn.Module):
    """``value`` is a tuple, a list or a dict."""

    def __init__(self, value, key):
        self.value = value
        self.key = key

    def forward(self, x):
        return x * self.value[self.key]


class TimesNested(nn.Module):
    """The factor is deep in containers and objects."""

    def __init__(self):
        self.value = {"parts": [Plain(1.0), (types.SimpleNamespace(scale=1.0), 2)]}

    def forward(self, x):
        first, (second, _) = self.value["parts"]
        return x * first.value * second.scale


class TimesConfig(nn.Module):
    """``config`` is a frozen dataclass."""

    def __init__(self, config):
        self.config = config

    def forward(self, x):
        return x * self.config.scale


class TimesContext(nn.Module):
    """The factor is a context variable."""

    def forward(self, x):
        return x * LEVEL.get()


class Flags(nn.Module):
    """Branches on a set."""

    def __init__(self, *flags):
        self.flags = set(flags)

    def forward(self, x):
        if "double" in self.flags:
            x = x * 2
        return np.tanh(x) if "tanh" in self.flags else x


class TimesSum(nn.Module):
    """``values`` is a list that grows."""

    def __init__(self, values):
        self.values = values

    def forward(self, x):
        return x * (sum(self.values) / len(self.values))


class TimesAttribute(nn.Module):
    """``box`` is a namespace or an object."""

    def __init__(self, box):
        self.box = box

    def forward(self, x):
        return x * self.box.scale


class TimesClass(nn.Module):
    """The factor is an attribute of the class."""

    scale = 1.0

    def forward(self, x):
        return x * type(self).scale


class TimesMethod(nn.Module):
    """The factor is behind a method of another object."""

    def __init__(self, box):
        self.box = box

    def factor(self):
        return 0.5 + 0.5 * self.box.read()

    def forward(self, x):
        return x * self.factor()


class TimesProperty(nn.Module):
    """The factor is behind a property."""

    def __init__(self, level):
        self.level = level

    @property
    def factor(self):
        return 1 / (1 + self.level)

    def forward(self, x):
        return x * self.factor


class TimesGlobal(nn.Module):
    """The factors are global variables."""

    def forward(self, x):
        return x * SCALE * TABLE["scale"] + TABLE["shift"]


class TimesClosure(nn.Module):
    """The factor is in a closure."""

    def __init__(self, scale):
        def read():
            return scale

        def write(value):
            nonlocal scale
            scale = value

        self.read, self.write = read, write

    def forward(self, x):
        return x * self.read()


class TimesDefault(nn.Module):
    """The factor is in a default argument that can be changed in place."""

    def forward(self, x, factors=[1.0]):  # noqa: B006
        return x * factors[0]


class Apply(nn.Module):
    """``function`` can be replaced."""

    def __init__(self, function):
        self.function = function

    def forward(self, x):
        return self.function(x)


class Slot(nn.Module):
    """``act`` is a module or None."""

    def __init__(self, act=None):
        self.act = act

    def forward(self, x):
        return x if self.act is None else self.act(x)
