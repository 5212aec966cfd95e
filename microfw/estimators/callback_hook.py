"""Hook that calls scikit-learn's callbacks, and the estimator's own profiler."""

from __future__ import annotations

from typing import Any, Self

from microfw.profiler import Profiler
from microfw.training.hooks import Hook, TrainState


class CallbackHook(Hook):
    """Calls callbacks during a fit, by scikit-learn's protocol. Without callbacks it costs nothing.

    Parameters
    ----------
    estimator : NeuralEstimator
        The fitted estimator. Its calling method is decorated by ``with_callbacks``.
    X, y, sample_weight : object
        Arguments of ``fit``.
    """

    def __init__(self, estimator: Any, X: Any, y: Any, sample_weight: Any) -> None:
        self.estimator = estimator
        self.task: dict[str, Any] = {"estimator": estimator, "X": X, "y": y}
        if sample_weight is not None:
            self.task["metadata"] = {"sample_weight": sample_weight}
        callbacks = getattr(estimator, "_skl_callbacks", [])
        # A Profiler among the callbacks sets profile_, too; two would count each other's time.
        profiled = any(isinstance(callback, Profiler) for callback in callbacks)
        self.profiler = Profiler() if estimator.profile and not profiled else None
        self.active = bool(callbacks) or self.profiler is not None
        self.context = estimator._init_callback_context(max_subtasks=estimator.max_iter)
        self.epoch: Any = None

    def __enter__(self) -> Self:
        vars(self.estimator).pop("profile_", None)  # of an earlier fit; `fit` restores it if this one fails
        if self.profiler is not None:
            self.profiler.setup(self.estimator, self.context)
            self.profiler.on_fit_task_begin(self.estimator, self.context)
        self.context.call_on_fit_task_begin(**self.task)
        return self

    def __exit__(self, kind: Any, *exc: Any) -> None:
        if self.profiler is not None:
            self.profiler.teardown(self.estimator, self.context)
        if kind is None:
            self.context.call_on_fit_task_end(**self.task, reconstruction_attributes=self.estimator._as_of_now)

    def on_epoch_start(self, state: TrainState) -> None:
        """Call callbacks at the start of an epoch."""
        if self.active:
            self.epoch = self.context.subcontext(task_name="epoch")
            if self.profiler is not None:
                self.profiler.on_fit_task_begin(self.estimator, self.epoch)
            self.epoch.call_on_fit_task_begin(**self.task)

    def on_epoch_end(self, state: TrainState) -> None:
        """Call callbacks at the end of an epoch; they can stop training."""
        if not self.active:
            return
        if self.profiler is not None:
            self.profiler.on_fit_task_end(self.estimator, self.epoch)
        now = self.estimator._as_of_now
        stop = bool(self.epoch.call_on_fit_task_end(**self.task, reconstruction_attributes=now))
        state.stop = state.stop or stop
