"""Alternated runs: two functions run in turns, so that their seconds are measured under the same conditions."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from numbers import Integral
from secrets import token_hex
from typing import Any

from microfw.errors import ArgumentError
from microfw.profiler.session import Session


def alternate(
    a: Callable[[], Session], b: Callable[[], Session], rounds: int = 30, *, progress: bool = True
) -> tuple[Session, Session]:
    """Run two functions alternately, so that `compare` can compare their seconds.

    Each function builds its model, optimizer and profiler, trains, and returns ``profiler.session``. Train both for
    the same few epochs; the shortest time of each part counts. A short fit may run eagerly where a long one is
    replayed: to compare replayed steps, pass ``compile=True`` to the `Trainer`. `Comparison.replayed` has the number
    of replayed steps. A round is one run of each. The order changes from round to round: b a, a b, b a, … The first
    round warms up and is not kept.

    All of it takes the time of ``2 * (rounds + 1)`` runs. More rounds make the intervals narrower, so that smaller
    changes are found: four times as many halve them. With too few rounds there are no intervals; 10 are enough for a
    model of five layers; `Comparison.needed` is the number.

    Parameters
    ----------
    a, b : callable
        Each makes one short run, from scratch, and returns its session.
    rounds : int
        Number of runs of each that are kept.
    progress : bool
        If True, show a bar on a terminal and in a notebook. Pass ``progress=False`` to each ``fit``.

    Returns
    -------
    Session, Session
        Sessions with the epochs of all rounds. Epoch k of one belongs to epoch k of the other.

    Raises
    ------
    ArgumentError
        If ``a`` or ``b`` is no function or does not return a session, if it returns the session of an earlier run, or
        if runs have different numbers of epochs.

    Examples
    --------
    >>> import microfw as mf
    >>> train, _ = mf.data.load("iris", rng=0)
    >>> def run(width):
    ...     model = mf.nn.Sequential(mf.nn.Dense(4, width, rng=0), mf.nn.Tanh(), mf.nn.Dense(width, 3, rng=1))
    ...     profiler = mf.Profiler(name=f"width {width}")
    ...     optimizer = mf.optim.SGD(model.parameters(), lr=0.1)
    ...     trainer = mf.Trainer(model, mf.nn.CrossEntropyLoss(), optimizer, hooks=[profiler])
    ...     trainer.fit(train, epochs=1, rng=0, progress=False)
    ...     return profiler.session
    >>> a, b = alternate(lambda: run(8), lambda: run(64), rounds=2)
    >>> found = mf.profiler.compare(a, b)
    >>> found.alternated, found.rounds
    (True, 2)
    """
    from microfw.profiler.recorder.overhead import MEASURED

    given: tuple[Any, ...] = a, b, rounds
    if not isinstance(given[2], Integral) or rounds < 1:
        raise ArgumentError("alternate", "rounds to be a positive integer", rounds)
    for name, function in zip("ab", given[:2], strict=True):
        if not callable(function):
            fix = "pass a function that builds a model, trains it and returns profiler.session"
            raise ArgumentError("alternate", f"{name} to be a function", type(function).__name__, fix)
    made: dict[int, list[Session]] = {0: [], 1: []}
    with _bar(2 * (rounds + 1), progress) as update:
        for k in range(rounds + 1):
            token = MEASURED.set(k == rounds)
            try:
                for which in (0, 1) if k % 2 else (1, 0):
                    session = _session("ab"[which], (a, b)[which]())
                    _check_new("ab"[which], session, made[0] + made[1])
                    made[which].append(session)
                    _check_length(len(made[1][0].epochs), made[which][-1])
                    update()
            finally:
                MEASURED.reset(token)
    mark = f"{token_hex(8)}/{rounds}"
    sessions = []
    for which in (0, 1):
        last = made[which][-1]
        epochs = [epoch for session in made[which][1:] for epoch in session.epochs]
        epochs = [replace(epoch, epoch=k + 1) for k, epoch in enumerate(epochs)]
        sessions.append(replace(last, epochs=epochs, alternated=mark, trace=None))
    return sessions[0], sessions[1]


def _session(name: str, result: Any) -> Session:
    session = getattr(result, "session", result)  # of a profiler
    if not isinstance(session, Session):
        got = "None" if session is None else type(session).__name__
        raise ArgumentError("alternate", f"{name}() to return a Session", got, "return profiler.session")
    if not session.epochs:
        fix = "pass the profiler to the Trainer: hooks=[profiler]"
        raise ArgumentError("alternate", f"{name}() to record an epoch", "a session without one", fix)
    return session


def _check_new(name: str, session: Session, earlier: list[Session]) -> None:
    """Refuse epochs of an earlier run: one measurement would count as many."""
    if any(session.epochs[-1] is before.epochs[-1] for before in earlier):
        fix = "make the model and the profiler in the function, and train there; compare(a, b) compares stored sessions"
        raise ArgumentError("alternate", f"{name}() to make a new run", "the session of an earlier run", fix)


def _check_length(epochs: int, session: Session) -> None:
    """Refuse a run with another number of epochs: rounds would not match."""
    if len(session.epochs) != epochs:
        raise ArgumentError(
            "alternate", "the same number of epochs in all runs", f"{epochs} and {len(session.epochs)}",
            "train both for the same epochs, and make the model and the profiler in the function",
        )  # fmt: skip


@contextmanager
def _bar(runs: int, progress: bool) -> Iterator[Callable[[], object]]:
    """Yield a function that counts a run, in a bar if one is wanted and can be shown."""
    from microfw.training.progress import bar_class, in_notebook, is_terminal

    if progress and (in_notebook() or is_terminal(sys.stderr)):
        with bar_class()(total=runs, unit="run", desc="alternate", dynamic_ncols=True) as bar:
            yield bar.update
    else:
        yield lambda: None
