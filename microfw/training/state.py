"""State that training must put back: the modes of modules, what a forward pass changes, and Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from microfw.autograd.mode import mode
from microfw.nn import Module
from microfw.replay.forward_state import ForwardState


@contextlib.contextmanager
def module_mode(model: Module, training: bool) -> Iterator[None]:
    """Run a block with a model in training or in evaluation; each module's own mode comes back."""
    before = [(module, module.training) for _, module in model.named_modules()]
    try:
        model.train(training)
        yield
    finally:
        for module, flag in before:
            module.training = flag


@contextlib.contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Run a block with a model in evaluation, recording nothing."""
    with module_mode(model, False), mode(recording=False):
        yield


USUAL = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}


def quiet() -> np.errstate:
    """Silence NumPy's warnings of overflow, which training turns into one error; what raises still raises."""
    reactions = np.geterr()
    if reactions == USUAL:
        return np.errstate(all="ignore")
    return np.errstate(**{kind: "ignore" for kind, reaction in reactions.items() if reaction == "warn"})  # type: ignore[arg-type]


@contextlib.contextmanager
def preserved(*modules: Any) -> Iterator[None]:
    """Run a block; the states of generators and buffers of modules come back."""
    state = ForwardState.of(*modules)
    before = state.save()
    try:
        yield
    finally:
        state.restore(before)


class Interrupts:
    """Holds Ctrl-C back while a step, or the start or end of an epoch, is made complete, so that none is left half-way.

    That is while the optimizer moves the parameters and while hooks are told of it. A second Ctrl-C is not held back.

    Elsewhere, and in other threads than the main one, Ctrl-C does what it did before.
    """

    def __init__(self) -> None:
        self.deferred = False
        self._pending: tuple[int, Any] | None = None
        self._before: Callable[..., Any] | None = None

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGINT)
            if callable(before):
                self._before = before
                signal.signal(signal.SIGINT, self._handle)

    def __exit__(self, kind: Any, *rest: Any) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
        if kind is None:
            self.release()

    def release(self) -> None:
        """Let Ctrl-C through again, also one that came meanwhile."""
        self.deferred = False
        if self._pending is not None and self._before is not None:
            pending, self._pending = self._pending, None
            self._before(*pending)

    def _handle(self, number: int, frame: Any) -> None:
        if self.deferred and self._pending is None:  # who presses Ctrl-C twice does not want to wait
            self._pending = (number, frame)
        elif self._before is not None:
            self._before(number, frame)
