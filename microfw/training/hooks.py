"""Hooks: objects with methods that are called at the events of a training run."""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from inspect import signature
from numbers import Real
from typing import Any

from microfw.autograd.tensor import Tensor
from microfw.errors import ArgumentError, described
from microfw.nn import Module
from microfw.serialization import attributes
from microfw.training.history import History

EVENTS = (
    "on_fit_start",
    "on_epoch_start",
    "on_gradients",
    "on_step_end",
    "on_validation_start",
    "on_epoch_end",
    "on_fit_end",
)


@dataclass(slots=True)
class TrainState:
    """The state of a training run; one object for the whole run. Hooks may read it, and set ``stop`` and ``epochs``.

    Attributes
    ----------
    model : Module
        The model. Hooks may change it, but not set another model, loss or optimizer.
    loss_function : callable
        The loss.
    optimizer : Optimizer
        The optimizer.
    epochs : int
        Number of epochs of the run.
    epoch : int
        Number of the present epoch, from 1; 0 before the first.
    step : int
        Number of the step in the epoch, from 1.
    steps : int
        Updates since the start of the run.
    skipped : int
        Steps without an update, since no row counts in the loss: all labels are ignored, or all weights are 0. Hooks
        are not called for such a step.
    loss : float
        Loss of the last step.
    history : History
        A row for each complete epoch. In ``on_epoch_end`` the last row is that of the present epoch.
    stop : bool
        Set it to True to end training after the present step or epoch. Set in ``on_fit_start`` or ``on_epoch_start``,
        it ends training before the next step: an epoch without a step has no row in the history, and ``on_epoch_end``
        is not called for it.
    save : callable or None
        ``save(path)`` saves the run, to be resumed. It must be called after all other hooks, so only by hooks with
        ``last = True``; see `Checkpoint`. None if an error ended training while hooks were called.
    """

    model: Any
    loss_function: Any
    optimizer: Any
    epochs: int = 0
    epoch: int = 0
    step: int = 0
    steps: int = 0
    loss: float = float("nan")
    history: History = field(default_factory=History)
    stop: bool = False
    save: Callable[[Any], None] | None = None
    skipped: int = 0


HookMethods = list[Callable[[TrainState], None]]


class Hook:
    """Base of hooks. Override the methods of the events that you need; the others cost nothing.

    At every event, hooks are called in the order of the Trainer's list, and those whose class sets ``last = True``
    after all others. At ``on_fit_end`` hooks with ``last = True`` come first, before other hooks change the model; then
    those with ``ends_first = True``; then all others. All methods are called in the thread and the
    context of `Trainer.fit`, so a hook may set a context variable in ``on_fit_start`` and reset it in ``on_fit_end``.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> from microfw.training import Hook, Trainer
    >>> class Patience(Hook):
    ...     def on_epoch_end(self, state):
    ...         losses = state.history.column("loss")
    ...         state.stop = len(losses) > 1 and losses[-1] > 0.99 * losses[-2]
    >>> model = mf.nn.Sequential(mf.nn.Dense(1, 1, rng=0))
    >>> trainer = Trainer(model, mf.nn.MSELoss(), mf.optim.SGD(model.parameters(), lr=0.1), hooks=[Patience()])
    >>> X = np.linspace(-1, 1, 64)[:, None]
    >>> len(trainer.fit((X, X**2), epochs=100, rng=0, progress=False)) < 100
    True
    """

    last: bool = False
    ends_first: bool = False

    def __repr__(self) -> str:
        """Return the arguments of ``__init__`` that the hook keeps under their names."""
        kept = {name: vars(self)[name] for name in signature(type(self)).parameters if name in vars(self)}
        texts = (f"{k}={described(v)[:80] if callable(v) else reprlib.repr(v)}" for k, v in kept.items())
        return f"{type(self).__name__}({', '.join(texts)})"

    def on_fit_start(self, state: TrainState) -> None:
        """Called once, after all checks and before the first step."""

    def on_epoch_start(self, state: TrainState) -> None:
        """Called before an epoch."""

    def on_gradients(self, state: TrainState) -> None:
        """Called before the optimizer's step; gradients are computed, and can be changed in place.

        With an optimizer that takes a closure, such as `LBFGS`, there are no gradients yet.
        """

    def on_step_end(self, state: TrainState) -> None:
        """Called after the optimizer's step."""

    def on_validation_start(self, state: TrainState) -> None:
        """Called before the validation of an epoch, if there is any."""

    def on_epoch_end(self, state: TrainState) -> None:
        """Called after an epoch and its validation; its row is in the history.

        With a `WeightAveraging`, the model has the average, which must stay.
        """

    def on_fit_end(self, state: TrainState) -> None:
        """Called once after training, also after an exception, if this hook's ``on_fit_start`` was called."""


def check_hook(hook: Any, where: str = "Trainer") -> None:
    """Raise unless an object is a hook, and no method's name is close to that of an event: it would not be called."""
    kind = type(hook)
    if isinstance(hook, type) or not any(hasattr(hook, event) for event in EVENTS):
        got = f"the class {hook.__name__}" if isinstance(hook, type) else kind.__name__
        schedule = callable(hook) and not isinstance(hook, type)
        fix = "wrap a schedule in training.LearningRate" if schedule else "pass an instance"
        raise ArgumentError(where, "hooks with some of a Hook's methods", got, fix)
    expected = f"hooks with methods among {', '.join(EVENTS)}"
    others = [n for n in dir(kind) if n.startswith("on_") and n not in EVENTS and callable(getattr(kind, n))]
    for name in others:
        if near := get_close_matches(name, EVENTS, 1, cutoff=0.9):  # not names of other libraries' hooks
            raise ArgumentError(where, expected, f"{kind.__name__}.{name}", f"name it {near[0]}")
    if others and isinstance(hook, Hook) and not any(_overridden(event, [hook]) for event in EVENTS):
        got, fix = f"{kind.__name__} with {', '.join(others)} alone", "name them as the events"
        raise ArgumentError(where, expected, got, fix)


def check_hooks(hooks: Sequence[Any], where: str = "Trainer") -> None:
    """Raise unless all are hooks, and each is there once: twice it would be called twice for an event."""
    for k, hook in enumerate(hooks):
        check_hook(hook, where)
        if any(hook is other for other in hooks[:k]):
            raise ArgumentError(where, "each hook once", f"the same {type(hook).__name__} twice", "leave one out")


class Hooks:
    """The overridden methods of all hooks, by event.

    Attributes
    ----------
    raised : str
        Class and event of the hook whose method raised in `notify`; empty if none did.
    before_end : dict
        State of model and loss before ``on_fit_end``, if a hook changed it there, such as by restoring the best
        weights; else empty. A resumed run continues from this state.
    """

    def __init__(self, hooks: Sequence[Any]) -> None:
        self.hooks = sorted(hooks, key=_is_last)  # stable: otherwise in the order of the list
        self.methods = {event: _overridden(event, self.hooks) for event in EVENTS}
        self.raised = ""
        self.before_end: dict[str, Any] = {}
        self._started: list[Any] = []
        self._parts: dict[str, Any] = {}

    def notify(self, event: str, state: TrainState) -> None:
        """Call the methods of an event, in order."""
        epoch = state.epoch
        for method in self.methods[event]:
            try:
                method(state)
            except BaseException:
                self.raised = f"{type(getattr(method, '__self__', method)).__name__}.{event}"
                raise
        if event != "on_step_end":  # whose parts are checked at the end of the epoch
            self._check_parts(state)
        if state.epoch != epoch:  # by which the run counts: it could have no end
            got, state.epoch = state.epoch, epoch
            fix = "set state.epochs or state.stop to end the run earlier or later"
            raise ArgumentError("state.epoch", f"the number of the epoch, {epoch}, in {event}", got, fix)

    def _check_parts(self, state: TrainState) -> None:
        """Raise, and restore the part, if a hook has set another model, loss or optimizer: steps do not use it."""
        for name, part in self._parts.items():
            if (other := getattr(state, name)) is not part:
                setattr(state, name, part)
                got, fix = f"another one, {type(other).__name__}", "set it on the Trainer before fit"
                raise ArgumentError(f"state.{name}", f"the {type(part).__name__} of the run", got, fix)
        for name, kind, expected in (("epochs", Real, "a number of epochs"), ("history", History, "a History")):
            if not isinstance(value := getattr(state, name), kind):
                raise ArgumentError(f"state.{name}", expected, type(value).__name__)

    def start(self, state: TrainState) -> None:
        """Call ``on_fit_start`` of every hook, and remember which were called."""
        self._parts = {name: getattr(state, name) for name in ("model", "loss_function", "optimizer")}
        for hook in self.hooks:
            self._started.append(hook)
            for method in _overridden("on_fit_start", [hook]):
                method(state)
        self._check_parts(state)

    def end(self, state: TrainState, resumable: bool = True) -> None:
        """Call ``on_fit_end`` of every hook that was started, even if one raises.

        ``before_end`` is only set for a run that is resumable: to compare the model takes 0.2 ms.
        """
        methods = _overridden("on_fit_end", sorted(self._started, key=_end_rank))
        if methods:
            self._call_at_end(methods, state, resumable)
        else:
            self._started = []

    def _call_at_end(self, methods: HookMethods, state: TrainState, resumable: bool) -> None:
        """Call methods, and compare the model from before and after the calls."""
        compared = [state.model, state.loss_function] if resumable else []
        before: dict[str, Any] = {name: x.state_dict() for name, x in _modules(state).items()} if compared else {}
        kept = [attributes.snapshot(part) for part in compared]
        try:
            # An ExitStack calls the rest if one raises, in reverse order of registration.
            with contextlib.ExitStack() as calls:
                for method in reversed(methods):
                    calls.callback(method, state)
                self._started = []
        finally:
            now, changed = _modules(state), [change for part in kept for change in attributes.differing(part)]
            differs = changed or any(_differs(now[name], arrays) for name, arrays in before.items())
            self.before_end = {**before, "attributes": changed} if differs else {}


def ran(state: TrainState, start: tuple[int, int]) -> bool:
    """Return False if a run ended at its start, as when the file to resume from is invalid."""
    return state.save is not None or (state.epoch, state.steps) != start


def _modules(state: TrainState) -> dict[str, Module]:
    """Return the model, and the loss if it is a Module, by their names in the state."""
    return {k: part for k in ("model", "loss_function") if isinstance(part := getattr(state, k), Module)}


def _differs(module: Module, arrays: dict[str, Any]) -> bool:
    """Return True if a module has other parameters and buffers than these."""
    now = {name: part._array for name, part in module._walk() if isinstance(part, Tensor)}
    return now.keys() != arrays.keys() or any(now[name].tobytes() != array.tobytes() for name, array in arrays.items())


def _overridden(event: str, hooks: Sequence[Any]) -> HookMethods:
    # The empty methods of Hook are left out, so an event that no hook handles costs nothing.
    methods = [getattr(hook, event, None) for hook in hooks]
    return [m for m in methods if m is not None and getattr(m, "__func__", m) is not getattr(Hook, event)]


def _end_rank(hook: Any) -> int:
    return 0 if _is_last(hook) else 1 if getattr(hook, "ends_first", False) else 2


def _is_last(hook: Any) -> bool:
    return bool(getattr(hook, "last", False))
