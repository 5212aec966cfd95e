"""Support of scikit-learn's callbacks, which need its release 1.9. With older ones estimators work without them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, Self

import sklearn

from microfw.errors import message

__all__ = ["CallbackSupportMixin", "with_callbacks"]


@dataclass
class TaskContext:
    """Place of a task in a fit without callbacks: the attributes that `Profiler` reads, and methods that do nothing.

    Attributes
    ----------
    estimator_name, task_name : str
        Names of the estimator and of the task: "fit" or "epoch".
    task_id : int
        Number of the task among those of its parent.
    parent : TaskContext or None
        Context of the task that this one is a part of.
    """

    estimator_name: str
    task_name: str = "fit"
    task_id: int = 0
    parent: TaskContext | None = None
    subtasks: int = 0

    def subcontext(self, task_name: str) -> TaskContext:
        """Return the context of the next subtask."""
        self.subtasks += 1
        return TaskContext(self.estimator_name, task_name, self.subtasks - 1, self)

    def call_on_fit_task_begin(self, **task: Any) -> None:
        """Call no callback."""

    def call_on_fit_task_end(self, **task: Any) -> bool:
        """Call no callback; return False: no callback stops the fit."""
        return False


class WithoutCallbacks:
    """Stand-in for scikit-learn's `CallbackSupportMixin` on releases that have none."""

    def set_callbacks(self, *callbacks: Any) -> Self:
        """Raise the error that names the release that callbacks need, if there are any.

        Raises
        ------
        ImportError
            If a callback is given.
        """
        if callbacks:
            raise self._too_old("set_callbacks")
        self.__dict__.pop("_skl_callbacks", None)
        return self

    def _init_callback_context(self, max_subtasks: int) -> TaskContext:
        return TaskContext(type(self).__name__)

    def _too_old(self, call: str) -> ImportError:
        expected, fix = "scikit-learn 1.9 or newer, which has callbacks", 'pip install "scikit-learn>=1.9"'
        return ImportError(message(f"{type(self).__name__}.{call}", expected, sklearn.__version__, fix))


def without_callbacks(fit: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``fit`` with a check before it that the estimator has no callbacks, as when a newer release pickled it."""

    @wraps(fit)
    def checked(estimator: Any, *args: Any, **options: Any) -> Any:
        if hasattr(estimator, "_skl_callbacks"):
            raise estimator._too_old("fit with callbacks")
        return fit(estimator, *args, **options)

    return checked


try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:
    CallbackSupportMixin, with_callbacks = WithoutCallbacks, without_callbacks
