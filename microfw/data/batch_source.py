"""`BatchSource`: what a training run takes its batches from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np


class BatchSource:
    """Base of `Rows`, `NestedRows`, `Stream` and `Source`.

    Attributes
    ----------
    counted : bool
        Whether an epoch has ``len(source)`` rows, in steps of the size that is asked for.
    resumes_anywhere : bool
        Whether an epoch can be resumed after any of its steps.
    stateful : bool
        Whether there are ``state_dict`` and ``load_state_dict``, for what is saved with a run.
    """

    counted: bool = True
    resumes_anywhere: bool = True
    stateful: bool = False
    kind: ClassVar[str] = "arrays in memory"

    def __len__(self) -> int:
        raise self._missing("__len__")

    def batches(
        self,
        size: int,
        rng: np.random.Generator | None = None,
        *,
        min_rows: int = 1,
        drop_last: bool = False,
        skip: int = 0,
    ) -> Iterable[Any]:
        """Return the batches of an epoch without the first ``skip``: features, targets, and weights or None."""
        raise self._missing("batches")

    def head(self, rows: int) -> tuple[Any, Any]:
        """Return the first rows, for checks."""
        raise self._missing("head")

    def fingerprints(self) -> list[Any]:
        """Return arrays whose bytes identify the data."""
        raise self._missing("fingerprints")

    def state_dict(self) -> Any:
        """Return the state."""
        raise self._missing("state_dict")

    def load_state_dict(self, state: Any) -> None:
        """Load what `state_dict` returned."""
        raise self._missing("load_state_dict")

    def _missing(self, name: str) -> NotImplementedError:
        return NotImplementedError(f"{type(self).__name__}.{name}: expected an implementation, got none")
