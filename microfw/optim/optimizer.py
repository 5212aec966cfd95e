"""What all optimizers share: settings, groups, state beside the flat buffers, and when a step is refused."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import isfinite, sqrt
from time import perf_counter_ns
from typing import Any, ClassVar

import numpy as np

from microfw.autograd.mode import MODE
from microfw.errors import ArgumentError, message
from microfw.optim.flat import Flat, aligned
from microfw.optim.groups import Group, Settings, split

Array = np.ndarray[Any, Any]


def positive(value: Any) -> bool:
    """Tell whether a value is above 0."""
    return bool(value > 0)


def at_least_0(value: Any) -> bool:
    """Tell whether a value is 0 or above."""
    return bool(value >= 0)


def fraction(value: Any) -> bool:
    """Tell whether a value is a share that leaves something, as the memory of an average must."""
    return bool(0 <= value < 1)


POSITIVE, AT_LEAST_0, FRACTION = ("above 0", positive), ("at least 0", at_least_0), ("from 0 to below 1", fraction)

RENAMED = {"ARRAYS": "STATE", "COUNTS": "NEEDS_STEP", "_move": "_update"}
"""Former names of what a subclass defines, each with its present name."""

_vdot = getattr(np.vdot, "__wrapped__", np.vdot)  # without the search for arrays of other libraries


class Optimizer:
    """Base of optimizers: one is its settings, the arrays that it keeps, and `_update`, its update equations.

    Everything else is here, once: parameters without a gradient are left alone with their state, a gradient
    that is not finite is refused before anything changes, groups have settings of their own, and copies,
    pickles and `state_dict` carry all of it.

    Parameters
    ----------
    parameters : iterable of Tensor, or of dict
        ``model.parameters()``, or groups such as ``{"params": model.body.parameters(), "lr": 0.01}``: what a
        group does not set is as the optimizer's. They become views of one buffer, group by group, and their
        gradients of another, which the next backward overwrites.
    **settings : object
        By name. Each is an attribute that can be changed between steps; the next step checks it.

    Attributes
    ----------
    groups : list of Group
        ``optimizer.groups[1]["lr"]`` reads and sets a group's own setting. Setting ``optimizer.lr`` moves the
        rates of all groups, which keep their ratio to it.

    Examples
    --------
    Only the signs of gradients (Bernstein et al., "signSGD", 2018):

    >>> import numpy as np, microfw as mf
    >>> from microfw.optim.groups import Hyperparameter
    >>> from microfw.optim.optimizer import POSITIVE
    >>> class SignSGD(mf.optim.Optimizer):
    ...     lr = Hyperparameter(*POSITIVE)
    ...     def __init__(self, parameters, lr):
    ...         super().__init__(parameters, lr=lr)
    ...     def _update(self, constants, p, g, scratch):
    ...         lr, = constants
    ...         p -= lr * np.sign(g)
    >>> p = mf.tensor([1.0, 2.0], requires_grad=True)
    >>> optimizer = SignSGD([p], lr=0.1)
    >>> (p * p).sum().backward()
    >>> optimizer.step()
    >>> p
    tensor([0.9, 1.9], requires_grad=True)
    """

    STATE: ClassVar[tuple[str, ...]] = ()
    """Names of the arrays that are kept beside the parameters, in the order in which `_update` takes them."""

    SCRATCH: ClassVar[int] = 1
    """How many arrays `_update` gets to compute in."""

    NEEDS_STEP: ClassVar[bool] = False
    """Whether `_update` needs the number of steps; it is then the last of the constants."""

    SQUARES: ClassVar[bool] = False
    """Whether `_update` squares gradients."""

    takes_closure: ClassVar[bool] = False
    """Whether `step` evaluates the loss itself, and so needs a function that does."""

    lr: Any

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for old, new in RENAMED.items():
            if old in vars(cls):
                raise ArgumentError(message(cls.__name__, f"the name {new}", old, f"rename {old} to {new}"))

    def __init__(self, parameters: Iterable[Any], **settings: Any) -> None:
        kind = type(self).__name__
        self._check(settings)
        self.settings = Settings(settings)
        parts = split(parameters, settings, kind)
        self.groups = [Group(self.settings, own, len(tensors)) for tensors, own in parts]
        for group in self.groups:
            self._check(group.all())
        self.flat = Flat([p for tensors, _ in parts for p in tensors], kind, self.SQUARES)
        self.counts = np.zeros(len(self.flat.parameters) if self.NEEDS_STEP else 0, np.int64)
        for name in self.STATE:
            setattr(self, name, self._buffer())

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for leaf in self.flat.leaves:
            leaf.grad = None

    @property
    def gradient_norm(self) -> float:
        """The Euclidean norm of all gradients at the last step."""
        return sqrt(self.flat.squared)

    # A step

    def step(self) -> None:
        """Move the parameters that have a gradient.

        Raises
        ------
        GraphError
            If another optimizer has taken a parameter over.
        NonFiniteError
            If a gradient is NaN or infinite; then no parameter has changed.
        ArgumentError
            If a setting was changed to something that cannot work.
        """
        for leaf in self.flat.leaves:
            if leaf.grad is None:
                self._step(missing=True)
                return
        self._step(missing=False)

    def _step(self, missing: bool) -> None:
        """Take a step; ``missing`` is whether any parameter is without a gradient."""
        timer = MODE.get().timer
        began = perf_counter_ns() if timer is not None else 0
        try:
            if missing or not self.update_all():
                self._update_present()
        except BaseException:
            if timer is not None:
                timer.on_update_error(began)
            raise
        if timer is not None:
            timer.on_update(self, began)

    def update_all(self) -> bool:
        """Take a step if nothing asks for a closer look, all parameters having a gradient; tell whether it did."""
        if not self.preflight():
            return False
        for part in self._parts_with_step() if self.NEEDS_STEP else self.update_parts:
            self._update(*part)
        return True

    def preflight(self) -> bool:
        """Get ready to move if nothing asks for a closer look; tell whether nothing does."""
        flat = self.flat
        squared = float(_vdot(flat.gradients, flat.gradients))
        if self.settings.changed or flat.owner.taken_by or not isfinite(squared):
            return False
        flat.squared = squared
        for leaf in flat.leaves:
            leaf.version += 1
        return True

    def _update_present(self) -> None:
        """Take a step where settings, gradients that are missing or not finite, or another owner have a say."""
        if self.settings.changed:
            self._prepare()
        flat = self.flat
        if flat.ready() is flat.whole:
            parts = self._parts_with_step() if self.NEEDS_STEP else self.update_parts
        else:
            parts = self._present_parts()
        for part in parts:
            self._update(*part)

    def _update(self, constants: Any, *arrays: Any) -> None:
        """Take a step: ``arrays`` are parameters, gradients, what STATE names, and scratch, all flat."""
        raise NotImplementedError(f"{type(self).__name__}._update: expected update equations, got none")

    def _constants(self, number: Callable[[Any], Any], settings: dict[str, Any]) -> tuple[Any, ...]:
        """Return what `_update` needs of a group's settings.

        ``number`` makes an array of a number, which NumPy takes faster than the number. Where `_update` decides on
        one, it must be a number, or None: a replayed update computes with new values, but does not decide anew.
        """
        return tuple(number(value) for value in settings.values())

    def _scalar(self, value: Any) -> Array:
        return np.array(value, self.flat.values.dtype)

    def _buffer(self) -> Array:
        return aligned(self.flat.values.size, self.flat.values.dtype)

    def _prepare(self) -> None:
        """Check the settings, and cut the buffers by groups, unless it was done and is still right."""
        found = [group.all() for group in self.groups]
        for settings in found:
            self._check(settings)
        ready = [self._constants(self._scalar, settings) for settings in found]
        if not self._refill(ready):
            self._group_constants = ready
            self._scratch = [self._buffer() for _ in range(self.SCRATCH)]
            self._group_of = [k for k, group in enumerate(self.groups) for _ in range(group.count)]
            self.update_parts = self._parts()
        self._same_count = len(set(self.counts.tolist())) < 2
        self.settings.changed = False

    def _refill(self, ready: list[tuple[Any, ...]]) -> bool:
        """Give constants that are arrays new values, which replayed steps read; tell whether nothing else changes."""
        if "_group_constants" not in self.__dict__:
            return False
        old, new = (
            [constant for constants in parts for constant in constants] for parts in (self._group_constants, ready)
        )
        pairs = list(zip(old, new, strict=True))
        if any(type(a) is not type(b) or (type(a) is not np.ndarray and a != b) for a, b in pairs):
            return False
        for a, b in pairs:
            if type(a) is np.ndarray:
                a[...] = b
        return True

    def _parts_with_step(self) -> list[tuple[Any, ...]]:
        self.counts += 1
        if not self._same_count:
            return self._parts(self.counts.tolist())
        t = (int(self.counts[0]),)
        return [(constants + t, *arrays) for constants, *arrays in self.update_parts]

    def _present_parts(self) -> list[tuple[Any, ...]]:
        present = [leaf.grad is not None for leaf in self.flat.leaves]
        if not self.NEEDS_STEP:
            return self._parts(present=present)
        self.counts += present
        self._same_count = len(set(self.counts.tolist())) < 2
        return self._parts(self.counts.tolist(), present)

    def _parts(self, counts: list[int] | None = None, present: list[bool] | None = None) -> list[tuple[Any, ...]]:
        """Return what steps together: neighbours that have a gradient, of one group, with as many steps before."""
        flat = self.flat
        keys: list[tuple[int, ...]] = []
        spans: list[slice] = []
        for k, span in enumerate(flat.spans):
            if present is not None and not present[k]:
                continue
            key = (self._group_of[k],) if counts is None else (self._group_of[k], counts[k])
            if keys and keys[-1] == key and spans[-1].stop == span.start:
                spans[-1] = slice(spans[-1].start, span.stop)
            else:
                keys.append(key)
                spans.append(span)
        buffers = [flat.values, flat.gradients, *(getattr(self, name) for name in self.STATE), *self._scratch]
        return [
            (self._group_constants[key[0]] + key[1:], *(buffer[span] for buffer in buffers))
            for key, span in zip(keys, spans, strict=True)
        ]

    # Settings and state

    def _check(self, settings: dict[str, Any]) -> None:
        """Raise unless a group's settings make sense, each and together."""
        for name, value in settings.items():
            getattr(type(self), name).check(type(self).__name__, value)

    def state_dict(self) -> dict[str, Any]:
        """Return settings, groups' own settings, names and shapes of the parameters, and the arrays kept, copied."""
        state = {**self.settings, "groups": [dict(group.own) for group in self.groups]}
        state |= {"group_sizes": [group.count for group in self.groups], "parameters": self.flat.named_shapes()}
        if self.NEEDS_STEP:
            state["counts"] = self.counts.copy()
        return state | {name: getattr(self, name).copy() for name in self.STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take settings and arrays from `state_dict`; all of them, or none if anything is wrong.

        Raises
        ------
        ArgumentError
            If the state is of other parameters, by name, shape, order or group, or lacks an entry. States that older
            versions saved have no names; they load where the arrays are as long.
        """
        where = f"{type(self).__name__}.load_state_dict"
        self.flat.check_same_parameters(state.get("parameters"), where)
        own = state.get("groups", [{}] * len(self.groups))
        if len(own) != len(self.groups):
            raise ArgumentError(message(where, f"{len(self.groups)} groups", len(own)))
        sizes = [group.count for group in self.groups]
        if state.get("group_sizes", sizes) != sizes:
            raise ArgumentError(message(where, f"groups of {sizes} parameters", state["group_sizes"]))
        for name in (*self.settings, *self.STATE, *(["counts"] if self.NEEDS_STEP else [])):
            if name not in state:
                raise ArgumentError(message(where, f"an entry {name!r}", f"only {', '.join(state)}"))
        settings = Settings({name: state[name] for name in self.settings})
        groups = [Group(settings, dict(o), group.count) for o, group in zip(own, self.groups, strict=True)]
        for group in groups:
            self._check(group.all())
        arrays = {name: self._like(name, state[name], where) for name in self.STATE}
        if self.NEEDS_STEP:
            arrays["counts"] = self._like("counts", state["counts"], where)
        self.settings, self.groups = settings, groups
        for name, array in arrays.items():
            getattr(self, name)[...] = array

    def _like(self, name: str, value: Any, where: str) -> Array:
        mine = getattr(self, name)
        array = np.asarray(value, mine.dtype)
        if array.shape != mine.shape:
            raise ArgumentError(message(where, f"{name} of shape {mine.shape}", array.shape))
        return array

    def __getstate__(self) -> dict[str, Any]:
        made = (
            "_group_constants",
            "_scratch",
            "_group_of",
            "_same_count",
            "update_parts",
        )  # by _prepare, and views of the buffers
        return {name: value for name, value in self.__dict__.items() if name not in made}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.settings.changed = True

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        groups = f" in {len(self.groups)} groups" if len(self.groups) > 1 else ""
        return f"{type(self).__name__}({settings}; {self.flat.values.size:,} parameters{groups})"
