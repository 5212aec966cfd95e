"""scikit-learn's callback protocol for the profiler: set on an estimator, it profiles each of its fits."""

from __future__ import annotations

import os
import time
import warnings
from inspect import signature
from types import SimpleNamespace
from typing import Any

from microfw.errors import FileError
from microfw.profiler.search import FitProfile, file_name, read_fits
from microfw.serialization.atomic_write import atomic_write, check_writable
from microfw.serialization.output import Path, path_text


class Callback:
    """Base class of `Profiler`: a callback of scikit-learn's protocol.

    A new profiler is made for each fit, so fits can run in several threads.

    Attributes
    ----------
    folder : str or None
        Absolute path of the folder into which each fit writes its profile.
    """

    session: Any

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = None if folder is None else os.path.abspath(path_text(folder, "Profiler", "Profiler(folder=...)"))
        if self.folder is not None:
            os.makedirs(self.folder, exist_ok=True)
            check_writable(os.path.join(self.folder, "profile.json"))
        self._id = os.urandom(6).hex()  # copies keep it: it is in the names of their files
        self._is_copy = False
        self._start_ns = time.time_ns()
        self._fits: dict[str, FitProfile] = {}  # by file name, also without a folder
        self._running: dict[int, Any] = {}

    @property
    def fits(self) -> list[FitProfile]:
        """Profiles of the fits that have ended, sorted by start time.

        With ``folder``, they include what copies of this profiler wrote in other processes. What other profilers wrote
        into the same folder is not included; `load_fits` returns everything.
        """
        if self.folder is not None:
            self._fits.update(read_fits(self.folder, f"-{self._id}-", self._fits))
        return [self._fits[name] for name in sorted(self._fits)]

    def _removed(self, *value: Any) -> Any:
        raise AttributeError("Profiler.host was removed; pass Profiler(folder=...), a folder that all machines share")

    host = property(_removed, _removed)

    # Methods that scikit-learn calls

    def setup(self, estimator: Any, context: Any) -> None:
        """Make a profiler for a fit."""
        self._running[id(estimator)] = self._another()

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Start to profile a fit, or start the clock of an epoch."""
        profiler = self._running[id(estimator)]
        if context.task_name == "epoch":
            profiler.on_epoch_start(SimpleNamespace())
        else:
            profiler.on_fit_start(SimpleNamespace(model=estimator.module_))

    def on_fit_task_end(self, estimator: Any, context: Any) -> None:
        """End an epoch."""
        if context.task_name == "epoch":
            state: Any = SimpleNamespace(history=estimator.history_)
            self._running[id(estimator)].on_epoch_end(state)

    def teardown(self, estimator: Any, context: Any) -> None:
        """Stop profiling, set ``estimator.profile_`` and add the profile to `fits`, also if the fit has failed."""
        profiler = self._running.pop(id(estimator))
        profiler.on_fit_end(SimpleNamespace())
        try:
            _ = profiler.session
        finally:  # Ctrl-C while the overhead is measured: the profile is complete without it
            profiler._detached = None
            self._keep(estimator, context, profiler)

    def _keep(self, estimator: Any, context: Any, profiler: Any) -> None:
        estimator.profile_ = session = profiler.session
        tasks, place = [], []
        while context is not None:
            tasks.append(f"{context.estimator_name} {context.task_name}")
            place.append(int(context.task_id))
            context = context.parent
        fit = FitProfile(type(estimator).__name__, tasks[::-1], place[::-1], changed(estimator), session)
        name = file_name(profiler._start_ns, self._id)
        self._fits[name] = fit
        try:
            if self.folder is not None:
                atomic_write(os.path.join(self.folder, name), [fit.to_bytes()], FileError)
            elif self._is_copy:
                raise FileError("Profiler", 'folder="profiles" for fits in other processes', "none")
        except FileError as error:
            self._is_copy = False  # warn once
            warnings.warn(f"{error}. The profile stays in this process: in profile_ of the estimator.", stacklevel=3)

    def _another(self) -> Any:
        raise NotImplementedError


def changed(estimator: Any) -> dict[str, str]:
    """Return the settings of an estimator that are not the defaults, as text of at most 40 characters."""
    arguments = signature(type(estimator)).parameters  # without module__width and the like, which have no default
    found = estimator.get_params(deep=False)
    defaults = {k: repr(arguments[k].default) for k in found if k in arguments}
    texts = {k: " ".join(repr(v).split()) for k, v in found.items() if repr(v) != defaults.get(k)}
    return {k: v if len(v) <= 40 else v[:39] + "…" for k, v in texts.items() if k not in ("profile", "verbose")}
