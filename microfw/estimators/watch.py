"""Who is told of the moments of a fit: scikit-learn's callbacks, and the estimator's own profiler."""

from __future__ import annotations

from typing import Any, Self

from microfw.profiler import Profiler
from microfw.training.hooks import Hook, TrainState


class Watch(Hook):
    """Tells callbacks where a fit is, as scikit-learn's protocol wants it; costs nothing where there are none.

    Parameters
    ----------
    estimator : NeuralEstimator
        What is fitted. It calls this inside of a method that is decorated by ``with_callbacks``.
    X, y, sample_weight : object
        What it was given.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, sample_weight: Any) -> None:
        self.estimator = estimator
        self.task: dict[str, Any] = {"estimator": estimator, "X": X, "y": y}
        if sample_weight is not None:
            self.task["metadata"] = {"sample_weight": sample_weight}
        callbacks = getattr(estimator, "_skl_callbacks", [])
        profiled = any(isinstance(callback, Profiler) for callback in callbacks)
        self.own = Profiler() if estimator.profile and not profiled else None
        self.told = bool(callbacks) or self.own is not None
        self.context = estimator._init_callback_context(max_subtasks=estimator.max_iter)
        self.epoch: Any = None

    def __enter__(self) -> Self:
        if self.own is not None:
            self.own.setup(self.estimator, self.context)
            self.own.on_fit_task_begin(self.estimator, self.context)
        self.context.call_on_fit_task_begin(**self.task)
        return self

    def __exit__(self, kind: Any, *exc: Any) -> None:
        if self.own is not None:
            self.own.teardown(self.estimator, self.context)
        if kind is None:
            self.context.call_on_fit_task_end(**self.task, reconstruction_attributes=self.estimator._as_of_now)

    def on_epoch_start(self, state: TrainState) -> None:
        """Call callbacks at the start of an epoch."""
        if self.told:
            self.epoch = self.context.subcontext(task_name="epoch")
            if self.own is not None:
                self.own.on_fit_task_begin(self.estimator, self.epoch)
            self.epoch.call_on_fit_task_begin(**self.task)

    def on_epoch_end(self, state: TrainState) -> None:
        """Call callbacks at the end of an epoch, which can stop training."""
        if not self.told:
            return
        if self.own is not None:
            self.own.on_fit_task_end(self.estimator, self.epoch)
        now = self.estimator._as_of_now
        stop = bool(self.epoch.call_on_fit_task_end(**self.task, reconstruction_attributes=now))
        state.stop = state.stop or stop
