"""A replayed step sees each change of what its function can reach, as the eager step does."""

import enum
import functools
import types
import weakref
from collections import OrderedDict, deque
from dataclasses import dataclass, field

import numpy as np
import pytest

import microfw as mf
from microfw import nn, optim
from tests.helpers.replay import setter

CONFIG = types.ModuleType("config")
CONFIG.__dict__["factor"] = 1.0
SCALES = {"loss": 1.0}
FACTOR = 1.0


class Plain:
    """An object of a user's own, with every kind of place for a number."""

    shared = 1.0

    def __init__(self):
        self.value = 1.0
        self.many = [1.0, 2.0]
        self.array = np.ones(2)
        self.inner = types.SimpleNamespace(value=1.0)

    @property
    def squared(self):
        return self.value**2

    def read(self):
        return self.inner.value

    def __call__(self, name):
        return getattr(self, name)


class Slotted:
    __slots__ = ("value",)

    def __init__(self):
        self.value = 1.0


class Lazy:
    def __init__(self):
        self._values = {"value": 1.0}

    def __getattr__(self, name):
        return self.__dict__["_values"][name]


class Descriptor:
    def __init__(self):
        self.held = {}

    def __get__(self, instance, owner=None):
        return self.held.get("value", 1.0)


class Described:
    value = Descriptor()


@dataclass
class Settings:
    value: float = 1.0
    nested: dict = field(default_factory=lambda: {"deep": [{"value": 1.0}]})


class Kind(enum.Enum):
    SMALL = 1
    LARGE = 2


class Scaled(nn.Module):
    """A layer with settings of many types."""

    klass = 1.0

    def __init__(self):
        self.tuple = (1.0, 2.0)
        self.list = [1.0]
        self.dict = {"a": 1.0}
        self.array = np.ones(1, np.float32)
        self.scalar = np.float64(1.0)
        self.function = lambda x: x
        self.plain = Plain()
        self.kind = Kind.SMALL
        self.set = {1}

    def forward(self, x):
        factor = self.tuple[0] * self.list[0] * self.dict["a"] * float(self.scalar) * self.klass * self.plain.value
        factor *= (2.0 if self.kind is Kind.LARGE else 1.0) * len(self.set)
        return self.function(x * (factor * float(self.array[0])))


def default(x, scale=[1.0]):  # noqa: B006
    return x * scale[0]


def attributed(x):
    return x * attributed.scale


attributed.scale = 1.0


def with_keyword(x, *, scale=1.0):
    return x * scale


@mf.op(vjp=lambda g: g * FACTOR)
def scaled_by_a_global(x):
    """x times a global variable."""
    return x * FACTOR


def case(make):
    CASES.append(make)
    return make


CASES = []


@case
def attribute_of_an_object():
    x = Plain()
    return (lambda loss: loss * x.value), setter(x)


@case
def attribute_of_a_namespace():
    x = types.SimpleNamespace(value=1.0)
    return (lambda loss: loss * x.value), setter(x)


@case
def attribute_of_a_class():
    class Own(Plain):
        pass

    x = Own()
    return (lambda loss: loss * x.shared), setter(Own, "shared")


@case
def attribute_that_hides_that_of_the_class():
    x = Plain()
    return (lambda loss: loss * x.shared), setter(x, "shared")


@case
def property_of_an_object():
    x = Plain()
    return (lambda loss: loss * x.squared), setter(x)


@case
def value_behind_a_method():
    x = Plain()
    return (lambda loss: loss * x.read()), setter(x.inner)


@case
def attribute_by_a_name_in_a_variable():
    x, name = Plain(), "val" + "ue"
    return (lambda loss: loss * x(name)), setter(x)


@case
def entry_of_a_list():
    x = Plain()
    return (lambda loss: loss * x.many[0]), (lambda value: x.many.__setitem__(0, value))


@case
def length_of_a_list():
    x = Plain()
    return (lambda loss: loss * float(len(x.many))), (lambda value: x.many.append(value))


@case
def entry_of_a_long_list():
    x = [1.0] * 100
    return (lambda loss: loss * x[50]), (lambda value: x.__setitem__(50, value))


@case
def entry_of_an_array():
    x = np.ones(3)
    return (lambda loss: loss * float(x[1])), (lambda value: x.__setitem__(1, value))


@case
def entry_of_a_view():
    x = np.ones((4, 4))
    view = x[::2, 1]
    return (lambda loss: loss * float(view[1])), (lambda value: x.__setitem__((2, 1), value))


@case
def entry_of_a_global_dict():
    return (lambda loss: loss * SCALES["loss"]), (lambda value: SCALES.__setitem__("loss", value))


@case
def entry_of_a_long_dict():
    x = OrderedDict((f"k{k}", 1.0) for k in range(50))
    return (lambda loss: loss * x["k7"]), (lambda value: x.__setitem__("k7", value))


@case
def entry_of_a_deque():
    x = deque([1.0, 2.0])
    return (lambda loss: loss * x[0]), (lambda value: x.__setitem__(0, value))


@case
def size_of_a_set():
    x = {1}
    return (lambda loss: loss * float(len(x))), x.add


@case
def attribute_of_a_module_of_code():
    return (lambda loss: loss * CONFIG.factor), setter(CONFIG, "factor")


@case
def global_variable_behind_two_functions():
    def inner():
        return FACTOR

    def outer():
        return inner()

    return (lambda loss: loss * outer()), (lambda value: globals().__setitem__("FACTOR", value))


@case
def global_variable_of_an_op():
    return (lambda loss: scaled_by_a_global(loss)), (lambda value: globals().__setitem__("FACTOR", value))


@case
def variable_of_a_closure():
    value = 1.0

    def change(new):
        nonlocal value
        value = new

    return (lambda loss: loss * value), change


@case
def mutable_default():
    return default, (lambda value: default.__defaults__[0].__setitem__(0, value))


@case
def defaults_replaced():
    def f(loss, scale=1.0):
        return loss * scale

    return f, (lambda value: setattr(f, "__defaults__", (value,)))


@case
def code_replaced():
    def f(loss):
        return loss * 1.0

    def other(loss):
        return loss * 3.0

    return f, (lambda value: setattr(f, "__code__", other.__code__))


@case
def attribute_of_a_function():
    return attributed, setter(attributed, "scale")


@case
def keywords_of_a_partial():
    x = functools.partial(with_keyword, scale=1.0)
    return (lambda loss: x(loss)), (lambda value: x.keywords.__setitem__("scale", value))


@case
def slot_of_an_object():
    x = Slotted()
    return (lambda loss: loss * x.value), setter(x)


@case
def value_found_by_getattr():
    x = Lazy()
    return (lambda loss: loss * x.value), (lambda value: x._values.__setitem__("value", value))


@case
def value_of_a_descriptor():
    x = Described()
    held = vars(Described)["value"].held
    held["value"] = 1.0
    return (lambda loss: loss * x.value), (lambda value: held.__setitem__("value", value))


@case
def field_deep_in_a_dataclass():
    x = Settings()
    return (lambda loss: loss * x.nested["deep"][0]["value"]), (lambda value: x.nested["deep"][0].update(value=value))


@case
def object_behind_a_weak_reference():
    x = Plain()
    known = weakref.ref(x)
    return (lambda loss, x=x: loss * known().value), setter(x)


@case
def objects_replaced_in_a_list():
    x = [types.SimpleNamespace(value=1.0)]

    def change(value):
        x[0] = None
        x[0] = types.SimpleNamespace(value=value)

    return (lambda loss: loss * x[0].value), change


@case
def dict_of_an_object_replaced():
    x = Plain()
    return (lambda loss: loss * x.value), (lambda value: setattr(x, "__dict__", {**vars(x), "value": value}))


@case
def bool_in_the_place_of_a_number():
    x = types.SimpleNamespace(value=1)
    return (lambda loss: loss * (3.0 if x.value is True else 1.0)), (lambda value: setattr(x, "value", True))


@case
def negative_zero():
    x = types.SimpleNamespace(value=0.0)
    return (lambda loss: loss * (2.0 + np.copysign(1.0, x.value))), (lambda value: setattr(x, "value", -0.0))


@case
def memoised_function_whose_setting_changes():
    x = Plain()

    @functools.wraps(default)
    def wrapped(loss):
        return loss * x.value

    return wrapped, setter(x)


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_settings_of_objects(make):
    globals().update(FACTOR=1.0)
    SCALES["loss"], CONFIG.factor, attributed.scale = 1.0, 1.0, 1.0
    default.__defaults__[0][0] = 1.0
    losses = []
    for compiled in (False, True):
        scale, change = make()
        change_first = {"scale": scale}
        losses.append(_losses(change_first["scale"], change, compiled))
        globals().update(FACTOR=1.0)
        SCALES["loss"], CONFIG.factor, attributed.scale = 1.0, 1.0, 1.0
        default.__defaults__[0][0] = 1.0
    assert losses[0] == losses[1]
    assert losses[0][5] != losses[0][6]


def _losses(scale, change, compiled):
    model = nn.Dense(3, 1, rng=0)
    optimizer = optim.SGD(model.parameters(), lr=1e-9)
    X = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)

    def f(x):
        return scale(np.mean(model(x) ** 2))

    step = mf.compile(f, optimizer)
    found = []
    for k in range(12):
        if k == 6:
            change(3.0)
        if compiled:
            found.append(step(X).item())
        else:
            optimizer.zero_grad()
            loss = f(X)
            loss.backward()
            optimizer.step()
            found.append(loss.item())
    if compiled:
        assert step.replays, step.explain()
    return found


CHANGES = {
    "a tuple": lambda m: setattr(m, "tuple", (2.0, 2.0)),
    "an entry of a list": lambda m: m.list.__setitem__(0, 2.0),
    "an entry of a dict": lambda m: m.dict.update(a=2.0),
    "an array in place": lambda m: m.array.__setitem__(0, 2.0),
    "a NumPy number": lambda m: setattr(m, "scalar", np.float64(2.0)),
    "a function": lambda m: setattr(m, "function", lambda x: x * 2),
    "an object's attribute": lambda m: setattr(m.plain, "value", 2.0),
    "an enum": lambda m: setattr(m, "kind", Kind.LARGE),
    "a set in place": lambda m: m.set.add(5),
    "the class": lambda m: setattr(type(m), "klass", 2.0),
    "behind the module's back": lambda m: vars(m).update(tuple=(2.0, 2.0)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_settings_of_a_module(name):
    found = []
    for compiled in (False, True):
        kind = type("Own", (Scaled,), {"klass": 1.0})
        model = nn.Sequential(nn.Dense(3, 2, rng=0), kind(), nn.Dense(2, 1, rng=1))
        optimizer = optim.SGD(model.parameters(), lr=0.01)
        X = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)

        class Change(mf.Hook):
            def on_epoch_start(self, state):
                if state.epoch == 4:
                    CHANGES[name](state.model.layers[1])

        trainer = mf.Trainer(model, nn.MSELoss(), optimizer, hooks=[Change()], compile=compiled)
        history = trainer.fit((X, X[:, :1]), epochs=6, batch_size=5, rng=0, progress=False)
        found.append(history.column("loss"))
    assert found[0] == found[1]


def test_an_activation_replaced_where_the_old_one_was_freed():
    found = []
    for compiled in (False, True):
        model = nn.Sequential(nn.Dense(3, 4, rng=0), nn.ReLU(), nn.Dense(4, 1, rng=1))
        optimizer = optim.SGD(model.parameters(), lr=0.01)

        class Own(nn.Module):
            def __init__(self, inner):
                self.inner = inner
                self.act = nn.ReLU()

            def forward(self, x):
                return self.inner[2](self.act(self.inner[0](x)))

        own = Own(model)
        step = mf.compile(lambda x, own=own: np.mean(own(x) ** 2), optimizer)
        X = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
        losses = []
        for k in range(12):
            if k % 5 == 4:
                own.act = None
                own.act = nn.Tanh() if k == 4 else nn.ReLU()
            if compiled:
                losses.append(step(X).item())
            else:
                optimizer.zero_grad()
                loss = step.f(X)
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        found.append(losses)
    assert found[0] == found[1]
