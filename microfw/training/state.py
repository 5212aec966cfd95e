"""Context managers of training: module modes, NumPy warnings, forward state, and deferred Ctrl-C."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from microfw.autograd.mode import mode
from microfw.nn import Module
from microfw.replay.verification import ForwardState


@contextlib.contextmanager
def module_mode(model: Module, training: bool) -> Iterator[None]:
    """Set a model to training or evaluation mode in a block; the mode of each module is restored after it."""
    before = [(module, module.training) for _, module in model.named_modules()]
    try:
        model.train(training)
        yield
    finally:
        for module, flag in before:
            module.training = flag


@contextlib.contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Set a model to evaluation mode in a block, without recording a graph."""
    with module_mode(model, False), mode(recording=False):
        yield


USUAL = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}


def quiet() -> np.errstate:
    """Ignore NumPy's floating-point warnings, since training raises one error for them. Other reactions are kept."""
    reactions = np.geterr()
    if reactions == USUAL:
        return np.errstate(all="ignore")
    return np.errstate(**{kind: "ignore" for kind, reaction in reactions.items() if reaction == "warn"})  # type: ignore[arg-type]


@contextlib.contextmanager
def preserved(*modules: Any) -> Iterator[None]:
    """Restore the generators and buffers of modules after a block."""
    state = ForwardState.of(*modules)
    before = state.save()
    try:
        yield
    finally:
        state.restore(before)


class Interrupts:
    """Defers Ctrl-C while ``deferred`` is True: during an update, and while hooks are called.

    So no step, and no start or end of an epoch, is left incomplete. A second Ctrl-C is not deferred. In other threads
    than the main one there is no effect.
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
        """End the deferral, and handle a deferred Ctrl-C."""
        self.deferred = False
        if self._pending is not None and self._before is not None:
            pending, self._pending = self._pending, None
            self._before(*pending)

    def _handle(self, number: int, frame: Any) -> None:
        if self.deferred and self._pending is None:  # a second Ctrl-C acts at once
            self._pending = (number, frame)
        elif self._before is not None:
            self._before(number, frame)
