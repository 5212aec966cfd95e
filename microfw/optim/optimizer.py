"""The base of optimizers: hyperparameters, groups, state, and checks before an update."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import isfinite, sqrt
from time import perf_counter_ns
from typing import Any, ClassVar

import numpy as np

from microfw._other_names import with_other_names
from microfw.autograd.graph import Leaf
from microfw.autograd.mode import MODE, model_version
from microfw.autograd.observer import StepTimer
from microfw.errors import ArgumentError, ShapeError
from microfw.optim.flat import Array, Flat, aligned
from microfw.optim.hyperparameter import Group, Settings, split
from microfw.optim.saved_state import SavedState

MAX_SELECTIONS = 8
"""Maximum number of sets of parameters with a gradient whose parts are kept."""

RENAMED = {"ARRAYS": "STATE", "COUNTS": "NEEDS_STEP", "_move": "_update"}  # former names of what a subclass defines


@with_other_names
class Optimizer(SavedState):
    """Base of optimizers. A subclass defines hyperparameters, the names of its state, and `_update`, the equations.

    Parameters without a gradient keep their value and state. A gradient that is not finite raises before anything
    changes. Groups have different hyperparameters. Copies, pickles and `state_dict` contain everything.

    Parameters
    ----------
    parameters : iterable of Tensor, or of dict
        ``model.parameters()``, or groups such as ``{"params": model.body.parameters(), "lr": 0.01}``, whose other
        hyperparameters are the optimizer's. Parameters become views of one buffer. Gradients are kept in another;
        what ``p.grad`` returns is an array of its own, whose changes reach the update.
    **settings : object
        Hyperparameters by name: attributes that can be changed between steps; the next step checks them.

    Attributes
    ----------
    groups : list of Group
        ``optimizer.groups[1]["lr"]`` is a group's value. Setting ``optimizer.lr`` keeps the groups' ratios to it.

    Examples
    --------
    Steps along the signs of gradients (Bernstein et al., "signSGD", 2018):

    >>> import numpy as np, microfw as mf
    >>> from microfw.optim.hyperparameter import POSITIVE, Hyperparameter
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
    """Names of the state arrays, in the order of the arguments of `_update`. Each is an attribute, shape (P,)."""

    SCRATCH: ClassVar[int] = 1
    """Number of scratch arrays that `_update` takes."""

    NEEDS_STEP: ClassVar[bool] = False
    """Whether `_update` depends on the step number, from 1.

    It is the last of the constants, unless `STEP_NUMBERS` is above 0.
    """

    STEP_NUMBERS: ClassVar[int] = 0
    """Number of values that `_step_numbers` returns.

    `_update` gets them, as arrays, in place of the step number. A replayed update reads their new values.
    """

    SQUARES: ClassVar[bool] = False
    """Whether `_update` squares gradients; gradients with squares that overflow raise then."""

    takes_closure: ClassVar[bool] = False
    """Whether `step` takes a function that computes the loss."""

    lr: Any
    update_parts: list[tuple[Any, ...]]
    same_count: bool = True  # whether the parameters that have a gradient have taken the same number of steps
    _missing: Any = ()
    _square: Callable[[], Any]
    _added: tuple[Array, int]

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for old, new in RENAMED.items():
            if old in vars(cls):
                raise ArgumentError(cls.__name__, f"the name {new}", old, f"rename {old} to {new}")

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

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.STATE and name in vars(self):  # updates have parts of the array: a new one would not be read
            array = np.asarray(value)
            if array.shape != (mine := vars(self)[name]).shape:
                raise ShapeError(f"{type(self).__name__}.{name}", f"an array of shape {mine.shape}", array.shape)
            mine[...] = array
            return
        if callable(getattr(type(self), name, None)):  # a method, as where step is wrapped: replays look again
            model_version.count += 1
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        model_version.count += 1
        object.__delattr__(self, name)

    def replaces(self, *names: str) -> bool:
        """Return True if the class or this object has methods of its own in the place of these."""
        kind = type(self)
        return any(name in vars(self) or getattr(kind, name) is not getattr(Optimizer, name) for name in names)

    def zero_grad(self) -> None:
        """Set the gradients to None."""
        for leaf in self.flat.leaves:
            leaf.grad = None

    @property
    def gradient_norm(self) -> float:
        """Euclidean norm of all gradients at the last step."""
        return sqrt(self.flat.squared)

    def step(self, gradients: Any = None) -> None:
        """Update the parameters that have a gradient.

        Parameters
        ----------
        gradients : dict, list or tuple of arrays, optional
            What `mf.grad` returns for the model, or for the parameters in order; it becomes their ``grad``. Hooks
            on parameters are not called.

        Raises
        ------
        GraphError, NonFiniteError, ArgumentError
            If another optimizer has taken a parameter, a gradient is not finite, or settings or gradients do not fit.
        """
        if gradients is not None:
            self.flat.set_gradients(gradients, f"{type(self).__name__}.step")
        timer = MODE.get().timer
        if timer is not None:
            self._timed_step(timer)
        elif not self.update_all():
            self._update_present()

    def _timed_step(self, timer: StepTimer) -> None:
        start_ns = perf_counter_ns()
        try:
            if not self.update_all():
                self._update_present()
        except BaseException:
            timer.on_update_error(start_ns)
            raise
        timer.on_update(self, start_ns)

    def update_all(self) -> bool:
        """Update the parameters of the last update; return False, with nothing changed, if more checks are needed."""
        for leaf, missing in self._missing:
            if (leaf.grad is None) is not missing:
                return False
        if not self.preflight():
            return False
        for part in self._current_parts() if self.NEEDS_STEP else self.update_parts:
            self._update(*part)
        return True

    def preflight(self) -> bool:
        """Prepare an update like the last one; return False, with nothing changed, if more checks are needed.

        That is if `_update` needs other constants, another optimizer has taken a parameter, or the squares of the
        gradients have no finite sum. A replayed update calls this method and, if ``NEEDS_STEP``, `count_step`; then it
        runs the NumPy calls of `_update`.
        """
        flat = self.flat
        if flat.owner.handed_out:
            flat.collect()
        # One product finds NaN and infinity in 0.4 of the time of isfinite().all(), and is the squared norm.
        outdated = self._prepare() if self.settings.changed else not self._selections
        if outdated or flat.owner.taken_by or not isfinite(squared := float(self._square())):
            return False
        flat.squared = squared
        for leaf in flat.leaves:
            leaf.version += 1
        return True

    def _update_present(self) -> None:
        """Update the parameters that have a gradient, after all checks."""
        if self.settings.changed:
            self._prepare()
        self.flat.ready()
        self._select(self.flat.present())
        for part in self._current_parts():
            self._update(*part)

    def _update(self, constants: Any, *arrays: Any) -> None:
        """Apply the update equations in place. ``arrays``: parameters, gradients, state, scratch; shape (n,) each."""
        raise NotImplementedError(f"{type(self).__name__}._update: expected update equations, got none")

    def _constants(self, number: Callable[[Any], Any], settings: dict[str, Any]) -> tuple[Any, ...]:
        """Return the constants of `_update` from a group's hyperparameters.

        ``number`` turns a number into an array of shape (). A constant on which `_update` branches must be a plain
        value: a replayed update reads new values of arrays, but does not branch again.
        """
        # An array of shape () is faster than a number in a NumPy call, and a replayed update reads its new values.
        return tuple(number(value) for value in settings.values())

    def _scalar(self, value: Any) -> Array:
        return np.array(value, self.flat.values.dtype)

    def _buffer(self) -> Array:
        return aligned(self.flat.values.size, self.flat.values.dtype)

    def _prepare(self) -> bool:
        """Check the hyperparameters, and compute the constants; return True if the parts have to be made again."""
        self._all_settings = [group.all() for group in self.groups]
        for settings in self._all_settings:
            self._check(settings)
        ready = [self._constants(self._scalar, settings) for settings in self._all_settings]
        if not self._refill(ready):
            self._group_constants = ready
            self._numbers = [tuple(map(self._scalar, [0] * self.STEP_NUMBERS)) for _ in ready]
            self._scratch = [self._buffer() for _ in range(self.SCRATCH)]
            self._group_of = [k for k, group in enumerate(self.groups) for _ in range(group.count)]
            self._selections: dict[tuple[bool, ...], Any] = {}
        self.settings.changed = False
        if self._selections:
            self._compare_counts()  # which a loaded state may have changed
        return not self._selections

    def expect(self, leaves: Iterable[Leaf]) -> None:
        """Prepare the first update, of these leaves, so that it can be captured before they have gradients."""
        if not hasattr(self, "update_parts"):
            self._prepare()
            self._select(tuple([leaf in leaves for leaf in self.flat.leaves]))

    def _select(self, present: tuple[bool, ...]) -> None:
        """Make the parameters that have a gradient those of `update_all`."""
        if present not in self._selections:  # else the same objects, for which a captured update is valid
            if len(self._selections) == MAX_SELECTIONS:
                self._selections.clear()
            self._selections[present] = self._parts(present), *self.flat.selection(present)
        parts, missing, square, added = self._selections[present]
        first = present.index(True) if any(present) else 0
        self.update_parts, self._missing, self._square, self._added = parts, missing, square, (added, first)
        self._compare_counts()

    def _compare_counts(self) -> None:
        added = self._added[0].tolist()
        counts = {n for n, flag in zip(self.counts.tolist(), added, strict=False) if flag}
        vars(self)["same_count"] = len(counts) < 2  # `__setattr__` takes 1 us, at each step if the rate changes

    def _refill(self, ready: list[tuple[Any, ...]]) -> bool:
        """Write new values into constants that are arrays; return False if another constant differs."""
        # Replayed updates read these arrays, so a new learning rate reaches them without another capture.
        if "_group_constants" not in self.__dict__:
            return False
        pairs = [pair for parts in zip(self._group_constants, ready, strict=True) for pair in zip(*parts, strict=True)]
        if any(type(a) is not type(b) or (type(a) is not np.ndarray and a != b) for a, b in pairs):
            return False
        for a, b in pairs:
            if type(a) is np.ndarray:
                a[...] = b
        return True

    def _current_parts(self) -> list[tuple[Any, ...]]:
        """Return the parts of a step; count it, if it is counted, for the parameters with a gradient."""
        if not self.NEEDS_STEP:
            return self.update_parts
        t = self.count_step()
        if not self.same_count:
            return self._parts(self._added[0].tolist(), self.counts.tolist())
        # one number for all of them, as in almost every step, so the arrays are those of other steps
        if self.STEP_NUMBERS:
            return self.update_parts
        return [((*constants, t), *arrays) for constants, *arrays in self.update_parts]

    def count_step(self) -> int:
        """Count a step of the parameters of the last update, write its numbers into `update_parts`, and return it."""
        added, first = self._added
        t = np.add(self.counts, added, self.counts).item(first)
        # none at 0, if no parameter has had a gradient
        for settings, numbers in zip(self._all_settings, self._numbers) if t else ():  # noqa: B905 -- it takes 50 ns
            for array, number in zip(numbers, self._step_numbers(settings, t)):  # noqa: B905
                array[()] = number
        return int(t)

    def _step_numbers(self, settings: dict[str, Any], t: int) -> tuple[float, ...]:
        """Return ``STEP_NUMBERS`` numbers of a step, from a group's hyperparameters and the step number."""
        return ()

    def _parts(self, present: Sequence[Any], counts: list[int] | None = None) -> list[tuple[Any, ...]]:
        """Return arguments of `_update`: one tuple for neighbours with a gradient, in one group, at one step number."""
        flat = self.flat
        spans: list[tuple[tuple[int, ...], slice]] = []
        for k, span in enumerate(flat.spans):
            if not present[k]:
                continue
            key = (self._group_of[k],) if counts is None else (self._group_of[k], counts[k])
            if spans and spans[-1][0] == key and spans[-1][1].stop == span.start:
                span = slice(spans.pop()[1].start, span.stop)
            spans.append((key, span))
        buffers = [flat.values, flat.gradients, *(getattr(self, name) for name in self.STATE), *self._scratch]
        return [(self._constants_at(*key), *(buffer[span] for buffer in buffers)) for key, span in spans]

    def _constants_at(self, group: int, *step: int) -> tuple[Any, ...]:
        """Return a group's constants at a step, or at that of `count_step`."""
        constants = self._group_constants[group]
        if not self.STEP_NUMBERS:
            return constants + step
        settings, numbers = self._all_settings[group], self._numbers[group]
        return constants + (tuple(map(self._scalar, self._step_numbers(settings, *step))) if step else numbers)

    # Hyperparameters

    def _check(self, settings: dict[str, Any]) -> None:
        """Raise unless a group's hyperparameters are valid, each and together."""
        for name, value in settings.items():
            getattr(type(self), name).check(type(self).__name__, value)

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        groups = f" in {len(self.groups)} groups" if len(self.groups) > 1 else ""
        return f"{type(self).__name__}({settings}; {self.flat.values.size:,} parameters{groups})"
