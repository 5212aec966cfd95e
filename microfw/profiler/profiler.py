"""Profiler: a Trainer's hook, and a context manager for loops without a Trainer."""

from __future__ import annotations

from contextvars import Token
from dataclasses import replace
from html import escape
from time import perf_counter_ns
from typing import Any, Self

from microfw.autograd.mode import MODE, Mode
from microfw.errors import ArgumentError, GraphError
from microfw.nn.module import Module
from microfw.profiler.callback import Callback
from microfw.profiler.environment import environment
from microfw.profiler.epoch import INTERRUPTED, Epoch, joined_epochs
from microfw.profiler.files import parse_state, to_json
from microfw.profiler.recorder.log import Log
from microfw.profiler.recorder.naming import LayerNames
from microfw.profiler.recorder.overhead import MEASURED, overhead
from microfw.profiler.recorder.recorder import Recorder
from microfw.profiler.recorder.sampling import every_nth
from microfw.profiler.recorder.trace import Tracer
from microfw.profiler.reports.report import report
from microfw.profiler.search import fits_report
from microfw.profiler.session import Layer, Session
from microfw.serialization.output import Path
from microfw.training.hooks import Hook, TrainState
from microfw.training.stepper import Interrupts

MAX_LOGS = 64
"""Maximum number of raw logs. When it is reached, they are converted to epochs, so that memory does not grow."""


class Profiler(Callback, Hook):
    """Records what training costs, by epoch, layer and op.

    As a Trainer's hook, the profiler binds the Trainer's model. In your own loop, ``with Profiler(model)`` binds the
    model, ``optimizer.step()`` ends a step, and `end_epoch` ends an epoch. Forward passes under `no_grad` count as
    evaluation.

    On an estimator of `microfw.estimators`, ``estimator.set_callbacks(profiler)`` profiles each of its fits, alone, in
    a Pipeline or in a search: see ``fits``. The fitted estimator has its profile as ``profile_``. Pass ``folder`` if
    fits run in other processes.

    The ops of a step are counted when ``backward`` runs through their graph, those of frozen layers each time they run.
    A forward pass without ``backward`` is timed. Backward passes of `mf.grad` are neither timed nor counted. If the
    last batch is smaller, counts per step are averages.

    A session is of one model. When another model is bound, as by the Trainer of a notebook cell that runs again, a new
    `session` begins; earlier ones are in `sessions`. A step ends with the last optimizer update before the next
    ``backward``. Without any update, as in a loop that writes to parameters itself, each backward pass is a step.

    Parameters
    ----------
    model : Module, optional
        Model whose paths name the layers. Modules outside of it are named by the path from the outermost module that
        was called, with the prefix ``outside:`` if that has parameters.
    every : int
        Observe one step of each ``every``, at changing places; the other steps run at nearly full speed. Numbers of
        layers, ops and phases are those of the observed steps, labelled as sampled and not scaled up. Steps, replays,
        loss, metrics, evaluation time and total time of an epoch are those of all steps.
    name : str
        Title of the report.
    trace : int
        Number of observed steps whose events are kept for `Session.chrome_trace`, at most 200,000 events. Without a
        trace, memory does not grow with the number of steps.
    folder : str or path-like, optional
        Folder into which each fit of an estimator writes its profile, one file a fit; made if it is missing. The
        processes of a search share it: for workers on other machines, choose one that all machines see at the same
        path. `load_fits` reads it later.

    Raises
    ------
    OSError
        If the folder cannot be made or written to. If writing fails later, a fit warns.
    ArgumentError
        If ``model`` is not a Module, ``every`` is not a positive integer, or ``trace`` is negative.
    GraphError
        If the profiler is attached twice, or while another one is, or `end_epoch` is called while it is not attached.

    Notes
    -----
    The backward time of a layer is the time of the derivative rules of its nodes, measured in the engine. Layers and
    the untagged remainder add up exactly to the measured time of ``backward``.

    A profiler records one thread. Threads that run in copies of its context are recorded too, with overlapping times:
    use one profiler for each thread.

    Examples
    --------
    >>> import numpy as np, microfw as mf
    >>> model = mf.nn.Dense(2, 1, rng=0)
    >>> optimizer = mf.optim.SGD(model.parameters(), lr=0.1)
    >>> with mf.Profiler(model) as profiler:
    ...     loss = mf.nn.MSELoss()(model(np.ones((4, 2))), np.ones((4, 1)))
    ...     loss.backward()
    ...     optimizer.step()
    ...     profiler.end_epoch()
    >>> epoch = profiler.session.epochs[0]
    >>> [(row.layer, row.rules) for row in epoch.layers()]
    [('Dense', 1), ('MSELoss', 1)]
    """

    def __init__(
        self, model: Module | None = None, *, every: int = 1, name: str = "", trace: int = 0, folder: Path | None = None
    ) -> None:
        if model is not None and not isinstance(model, Module):
            raise ArgumentError("Profiler", "a Module, or none", type(model).__name__, "pass the model")
        if not isinstance(every, int) or every < 1:
            raise ArgumentError("Profiler", "every to be a positive integer", every)
        if not isinstance(trace, int) or trace < 0:
            raise ArgumentError("Profiler", "trace to be a number of steps", trace)
        if not isinstance(name, str):
            raise ArgumentError("Profiler", "name to be a text", repr(name))
        super().__init__(folder)
        self.model = model
        self.trace = trace
        self._session = Session(name=name, every=every, environment=environment())
        self._earlier: list[tuple[Session, Module | None]] = []  # sessions of other models
        self._bound: Module | None = None  # model of the session
        self._names: LayerNames | None = None  # of the layers so far
        self._logs: list[tuple[Epoch | None, Log]] = []
        self._partial: Epoch | None = None  # finished part of the epoch, if it was saved or interrupted
        self._partial_at_entry: Epoch | None = None  # `_partial` when the block was entered
        self._recorder: Recorder | None = None
        self._between: tuple[Any, int] = (None, 0)  # session of the last fit, and its time outside of epochs
        self._token: Token[Mode] | None = None
        self._detached: Recorder | None = None  # last recorder, until `session` is read: to measure overhead

    def __repr__(self) -> str:
        return f"Profiler({self.session!r}{f', {len(self.fits)} fits' if self.fits else ''})"

    def _repr_html_(self) -> str:
        if self.fits and not self.session.epochs:
            return f"<pre>{escape(fits_report(self.fits))}</pre>"
        return self.session._repr_html_()

    @property
    def session(self) -> Session:
        """Numbers of the finished epochs, computed when read, not during training."""
        while self._logs:
            with Interrupts().around():  # a log adds up in place: Ctrl-C within would spoil its numbers
                partial, log = self._logs.pop(0)
                epoch = log.epoch()
                if partial is not None:
                    epoch = joined_epochs(partial, epoch)
                self._session.epochs.append(epoch)
        if self._recorder is not None:
            self._session.layers = self._recorder.names.layers()
        if self._detached is not None and self._session.epochs and MEASURED.get():
            self._session.overhead = overhead(self._session, self._detached)
            self._detached = None
        return self._session

    @property
    def sessions(self) -> list[Session]:
        """One session for each profiled model, in order; the last is `session`."""
        return [*(session for session, _ in self._earlier), self.session]

    # Your own loop

    def __enter__(self) -> Self:
        self._attach()
        if self._partial is not None and INTERRUPTED in self._partial.notes:
            self._partial = None  # it is in the session
        self._partial_at_entry = self._partial
        return self

    def __exit__(self, *exc: Any) -> None:
        try:
            if self._recorder is not None and (self._recorder.has_steps or self._partial is not self._partial_at_entry):
                self.end_epoch()
        finally:
            self._detach()

    def end_epoch(self) -> None:
        """End an epoch: add its numbers to the session."""
        self._take({}).start_epoch()

    def _take(self, metrics: dict[str, Any]) -> Recorder:
        """Store the log of the epoch; return the recorder, whose next epoch is not started yet."""
        if self._recorder is None:
            raise GraphError("Profiler.end_epoch: expected an attached profiler; use it inside `with profiler:`")
        if len(self._logs) >= MAX_LOGS:
            _ = self.session
        log = self._recorder.end_epoch(len(self._session.epochs) + len(self._logs) + 1)
        log.metrics = metrics
        self._logs.append((self._partial, log))
        self._partial = None
        return self._recorder

    # Saving

    def state_dict(self) -> dict[str, Any]:
        """Return the session and the finished part of the current epoch, as JSON text."""
        self._cut()
        partial = None if self._partial is None else to_json(Session(epochs=[self._partial]))
        epochs = [epoch for epoch in self.session.epochs if epoch is not self._partial]
        return {"session": to_json(replace(self.session, epochs=epochs)), "partial": partial}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from `state_dict` of a profiler with the same ``every``.

        Raises
        ------
        DataError
            If the state is invalid, or ``every`` differs.
        """
        self._session, self._partial = parse_state(state, self._session.every)
        self._logs = []

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings and the session, which a copy shares. Fits and logs stay with this profiler."""
        own = "_running _fits _recorder _token _detached _logs model _bound _earlier _names _between"
        self.session  # noqa: B018  empties _logs
        return {name: value for name, value in vars(self).items() if name not in own.split()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        Profiler.__init__(self)
        vars(self).update(state, _is_copy=True)

    def _cut(self) -> None:
        """Move the finished part of the current epoch to ``_partial``."""
        if (recorder := self._recorder) is not None and recorder.running and recorder.steps:
            recorder.passes.take_back()  # those of an unfinished step, which a resumed run repeats
            part = recorder.end_epoch(0).epoch()
            self._partial = part if self._partial is None else joined_epochs(self._partial, part)
            recorder.start_epoch()

    def _attach(self, takes_losses: bool = True) -> Recorder:
        if self._recorder is not None:
            raise GraphError("Profiler: expected to be attached once, got it attached already; make another Profiler")
        self._detached = None
        mode = MODE.get()
        if mode.timer is not None:
            raise GraphError("Profiler: expected to be the only one attached, got another; use one at a time")
        self._bind(LayerNames(self.model).layers())
        if self.model is not None:
            self._session.model = type(self.model).__name__
        schedule = every_nth(self._session.every)
        if self.trace:
            self._recorder = Tracer(self.trace, schedule, takes_losses, self.model)
        else:
            self._recorder = Recorder(schedule, takes_losses, self.model)
        names = self._recorder.names
        names.resume(self._names)
        self._names = names
        if self.model is not None:
            self._session.layers = names.layers()
        observer = self._recorder if mode.observer is None else mode.observer.alongside(self._recorder)
        self._token = MODE.set(mode.changed(observer=observer, timer=self._recorder))
        return self._recorder

    def _bind(self, layers: list[Layer]) -> None:
        """Start a new session if the current one is of another model."""
        same = self.model is self._bound if self._bound is not None else layers == self._session.layers
        if not same and self.session.epochs:
            self._earlier.append((self._session, self._bound))
            old = self._session
            self._session = Session(name=old.name, every=old.every, environment=old.environment)
            self._names = None
        self._bound = self.model

    def _unbind(self) -> None:
        """Return to the previous session if this one is empty, as after a fit that failed at once."""
        if self._earlier and not (self._logs or self._session.epochs or self._partial):
            self._session, self._bound = self._earlier.pop()
            self.model, self._names = self._bound, None

    def _detach(self) -> None:
        recorder, self._recorder = self._recorder, None
        if self._token is not None:
            MODE.reset(self._token)
            self._token = None
        if recorder is not None:
            if isinstance(recorder, Tracer):
                self._session.trace = recorder.trace()
            recorder.detach()
            self._session.layers = recorder.names.layers()
        self._detached = recorder or self._detached
        self._unbind()

    # Hook of a Trainer

    def on_fit_start(self, state: TrainState) -> None:
        """Bind the Trainer's model and start recording."""
        start_ns, self.model, self._partial = perf_counter_ns(), state.model, None
        recorder, (session, earlier) = self._attach(takes_losses=False), self._between
        recorder.between_ns = perf_counter_ns() - start_ns + (earlier if session is self._session else 0)

    def on_epoch_start(self, state: TrainState) -> None:
        """Start an epoch."""
        start_ns, recorder = perf_counter_ns(), self._recorder
        if recorder is not None:
            recorder.start_epoch()
            recorder.between_ns += perf_counter_ns() - start_ns

    def on_epoch_end(self, state: TrainState) -> None:
        """End the epoch, with the Trainer's metrics."""
        start_ns = perf_counter_ns()
        recorder = self._take(dict(state.history[-1]) if len(state.history) else {})
        recorder.between_ns += perf_counter_ns() - start_ns

    def on_fit_end(self, state: TrainState) -> None:
        """Stop recording."""
        start_ns, recorder = perf_counter_ns(), self._recorder
        if recorder is not None and recorder.losses is None:  # else that of a `with` block: on_fit_start has raised
            self._cut()
            if self._partial is not None:  # no epoch's end has taken it: the fit was interrupted, or failed
                self._partial.epoch = len(self.session.epochs) + 1
                self._partial.notes.append(INTERRUPTED)
                self._session.epochs.append(self._partial)
            self._detach()
            recorder.between_ns += perf_counter_ns() - start_ns
            self._between = self._session, recorder.between_ns

    def _another(self) -> Profiler:
        return Profiler(every=self._session.every, name=self._session.name)

    # Reports

    def report(self, **options: Any) -> str:
        """Return text for a terminal; see `microfw.profiler.report`, and `fits_report` if estimators were profiled.

        The report of one fit of several is ``profiler.fits[k].session.report()``.

        Examples
        --------
        >>> import numpy as np, microfw as mf
        >>> model, profiler = mf.nn.Dense(2, 1, rng=0), mf.Profiler()
        >>> optimizer = mf.optim.SGD(model.parameters(), lr=0.1)
        >>> trainer = mf.Trainer(model, mf.nn.MSELoss(), optimizer, hooks=[profiler])
        >>> history = trainer.fit((np.ones((4, 2)), np.ones((4, 1))), epochs=2, progress=False)
        >>> print(profiler.report().splitlines()[0])
        microfw profile: Dense, 2 epochs, 2 steps, 3 parameters
        """
        if self.fits and not self.session.epochs:
            return fits_report(self.fits, **options)
        return report(self.session, **options)

    def save(self, path: Path) -> None:
        """Write the session to a file; the suffix selects the format. See `Session.save`.

        If fits of estimators were profiled, save ``profiler.fits[k].session``.
        """
        if self.fits and not self.session.epochs:
            fix = "call profiler.fits[0].session.save(path); print profiler.report() for the table of all fits"
            raise ArgumentError("Profiler.save", "a session with epochs", f"{len(self.fits)} fits of estimators", fix)
        self.session.save(path)
