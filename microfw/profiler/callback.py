"""scikit-learn's callback protocol, for the profiler: set it on an estimator, and it profiles each of its fits."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from microfw.profiler.inbox import Address, opened
from microfw.profiler.search import FitProfile


class Fits(list[FitProfile]):
    """The profiles that have come in."""

    def take(self, message: bytes) -> None:
        """Add what another process has sent."""
        self.append(FitProfile.from_bytes(message))


class Callback:
    """The part of a `Profiler` that an estimator of `microfw.estimators` tells of its fits.

    A search copies the estimator, and its copies share their callbacks. So there is a profiler of its own for
    each fit that runs, whatever the thread. A copy that pickling made, as in another process, sends what it finds to
    the one that was set, as long as that is there; what had come in before stays where it is.

    Attributes
    ----------
    fits : list of FitProfile
        A profile for each fit that has ended.
    host : str or None
        The name of this machine, if fits run on others; set it before the search.
    """

    host: str | None = None
    session: Any

    def __init__(self) -> None:
        self.fits = Fits()
        self._running: dict[int, Any] = {}
        self._address: Address | None = None
        self._sends = False
        self._lock = threading.Lock()

    # What scikit-learn calls

    def setup(self, estimator: Any, context: Any) -> None:
        """Make a profiler for a fit."""
        self._running[id(estimator)] = self._another()

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Start to watch, or start an epoch's clock."""
        profiler = self._running[id(estimator)]
        if context.task_name == "epoch":
            profiler.on_epoch_start(SimpleNamespace())
        else:
            profiler.on_fit_start(SimpleNamespace(model=estimator.module_))

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        """Add an epoch."""
        if context.task_name == "epoch":
            state: Any = SimpleNamespace(history=estimator.history_)
            self._running[id(estimator)].on_epoch_end(state)

    def teardown(self, estimator: Any, context: Any) -> None:
        """Stop to watch, and hand the profile over, also if the fit has failed."""
        profiler = self._running.pop(id(estimator))
        profiler.on_fit_end(SimpleNamespace())
        session = profiler.session
        if getattr(estimator, "profile", False):
            estimator.profile_ = session
        tasks, place = [], []
        while context is not None:
            tasks.append(f"{context.estimator_name} {context.task_name}")
            place.append(int(context.task_id))
            context = context.parent
        self._deliver(FitProfile(type(estimator).__name__, tasks[::-1], place[::-1], changed(estimator), session))

    def _another(self) -> Any:
        raise NotImplementedError

    def _deliver(self, fit: FitProfile) -> None:
        if self._sends and self._address is not None:
            try:
                return self._address.send(fit.to_bytes())
            except OSError:  # nobody is there any more, as when it was loaded from a file
                self._sends, self._address = False, None
        self.fits.append(fit)

    # Copies

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs: settings, the epochs so far, and where to send the fits that it sees."""
        with self._lock:
            if self._address is None:
                self._address = opened(self.fits.take, self, self.host)
        self.session  # noqa: B018  it makes sense of the logs, which stay here
        left = ("_running", "_lock", "fits", "_recorder", "_token", "_logs", "model", "_bound", "_earlier")
        return {k: v for k, v in vars(self).items() if k not in left}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, fits=Fits(), _running={}, _lock=threading.Lock())
        self.__dict__.update(_recorder=None, _token=None, _logs=[], model=None, _bound=None, _earlier=[])
        self._sends = True


def changed(estimator: Any) -> dict[str, str]:
    """Return an estimator's settings that are not the defaults, as short text."""
    defaults = type(estimator)().get_params(deep=False)
    found = estimator.get_params(deep=False)
    texts = {k: " ".join(repr(v).split()) for k, v in found.items() if repr(v) != repr(defaults[k])}
    return {k: v if len(v) <= 40 else v[:39] + "…" for k, v in texts.items() if k not in ("profile", "verbose")}
