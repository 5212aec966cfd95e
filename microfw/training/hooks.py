"""Hooks: objects that are told of the moments of a training run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from microfw.errors import ArgumentError, message
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
    """Where a training run is. One object for the whole run, which hooks may read and ``stop``.

    Attributes
    ----------
    model, loss_function, optimizer : object
        What is trained, and by what.
    epochs, epoch : int
        How many epochs there are to be, and which one runs, from 1; 0 before the first.
    step, steps : int
        Which step of the epoch this is, from 1, and how many updates were made since the start.
    skipped : int
        How many steps made no update, since no row of theirs counts in the loss: all labels are ignored, or all
        weights are 0. Hooks are not called for such a step.
    loss : float
        The loss of the last step.
    history : History
        A row for each epoch that is complete; in ``on_epoch_end`` it holds this epoch's.
    stop : bool
        A hook that sets it ends training after the step, or the epoch, at which it was called. Set in
        ``on_fit_start`` or ``on_epoch_start``, it ends training before the next step: an epoch without a step has
        no row in the history, and its ``on_epoch_end`` is not called.
    save : callable or None
        ``save(path)`` writes where training is, to go on from; None if it ended in the middle of a moment. All
        hooks must have been told of the moment, so it is for hooks that are ``last``; see `Checkpoint`.
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


class Hook:
    """Base of hooks: override the moments that are wanted; the others cost nothing.

    Hooks are called in the order of the Trainer's list, at every moment; those whose class sets ``last = True``
    after all others, and at the end before them, when nobody has changed anything yet. All moments of one `Trainer.fit`
    run in the thread and the context that called it, so that a hook may set a context variable at the start
    and reset it at the end.

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

    def on_fit_start(self, state: TrainState) -> None:
        """Begin: data and model fit together, and nothing has been trained."""

    def on_epoch_start(self, state: TrainState) -> None:
        """Precede an epoch."""

    def on_gradients(self, state: TrainState) -> None:
        """Precede the optimizer's step; the gradients are there, and can be changed in place.

        An optimizer that evaluates the loss itself, such as `LBFGS`, has none yet.
        """

    def on_step_end(self, state: TrainState) -> None:
        """Follow the optimizer's step."""

    def on_validation_start(self, state: TrainState) -> None:
        """Precede the validation of an epoch, if there is one."""

    def on_epoch_end(self, state: TrainState) -> None:
        """Follow an epoch and its validation; its row is in the history."""

    def on_fit_end(self, state: TrainState) -> None:
        """Follow training, also if an exception ended it. Called if this hook's ``on_fit_start`` was."""


class Hooks:
    """The methods that hooks override, by moment, collected once."""

    def __init__(self, hooks: Sequence[Any]) -> None:
        self.hooks = tuple(sorted(hooks, key=_is_last))
        for hook in self.hooks:
            if isinstance(hook, type) or not any(hasattr(hook, event) for event in EVENTS):
                got = f"the class {hook.__name__}" if isinstance(hook, type) else type(hook).__name__
                raise ArgumentError(message("Trainer", "hooks with some of a Hook's methods", got, "pass an instance"))
            _check_spelling(hook)
        self.gradients = self._collect("on_gradients")
        self.step_end = self._collect("on_step_end")
        self._started: list[Any] = []
        self._methods: dict[str, list[Callable[[TrainState], None]]] = {}

    def _collect(self, event: str, hooks: Sequence[Any] | None = None) -> list[Callable[[TrainState], None]]:
        base = getattr(Hook, event)
        methods = [getattr(hook, event, None) for hook in (self.hooks if hooks is None else hooks)]
        return [m for m in methods if m is not None and getattr(m, "__func__", m) is not base]

    def handles(self, event: str) -> bool:
        """Whether any hook wants to be told of a moment."""
        return bool(self._collect(event))

    def notify(self, event: str, state: TrainState) -> None:
        """Tell every hook of a moment, in order."""
        methods = self._methods.get(event)
        if methods is None:
            methods = self._methods[event] = self._collect(event)
        for method in methods:
            method(state)

    def start(self, state: TrainState) -> None:
        """Tell every hook that training starts, and remember which were told."""
        for hook in self.hooks:
            self._started.append(hook)
            for method in self._collect("on_fit_start", [hook]):
                method(state)

    def end(self, state: TrainState) -> None:
        """Tell every hook that was told of the start, even if one of them raises."""
        methods = self._collect("on_fit_end", sorted(self._started, key=_is_last, reverse=True))
        self._started = []
        _in_turn(methods, state)


def _check_spelling(hook: Any) -> None:
    """Raise if a method is named much like a moment, which would never come."""
    for name in dir(type(hook)):
        if name.startswith("on_") and name not in EVENTS and callable(getattr(type(hook), name)):
            near = get_close_matches(name, EVENTS, 1, cutoff=0.9)  # not names of other libraries' hooks
            if near:
                raise ArgumentError(
                    message(
                        "Trainer",
                        f"hooks with methods among {', '.join(EVENTS)}",
                        f"{type(hook).__name__}.{name}",
                        f"name it {near[0]}",
                    )
                )


def _is_last(hook: Any) -> bool:
    return bool(getattr(hook, "last", False))


def _in_turn(methods: list[Callable[[TrainState], None]], state: TrainState) -> None:
    for k, method in enumerate(methods):
        try:
            method(state)
        except BaseException:
            _in_turn(methods[k + 1 :], state)
            raise
