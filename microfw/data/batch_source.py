"""`BatchSource`: what a training run takes its batches from."""

from __future__ import annotations


class BatchSource:
    """Base of `Rows`, `NestedRows`, `Stream` and `Source`.

    A source has ``batches(size, rng, min_rows=, drop_last=, skip=)``, which returns the batches of an epoch without the
    first ``skip``: features, targets, and weights or None. ``head(rows)`` returns the first rows, ``fingerprints()``
    arrays whose bytes identify the data.

    Attributes
    ----------
    counted : bool
        Whether an epoch has ``len(source)`` rows, in steps of the size that is asked for.
    resumes_anywhere : bool
        Whether an epoch can be resumed after any of its steps.
    stateful : bool
        Whether there are ``state_dict`` and ``load_state_dict``, for what is saved with a run.
    kind : str
        What it is, in words.
    """

    counted: bool = True
    resumes_anywhere: bool = True
    stateful: bool = False
    kind: str = "arrays in memory"
