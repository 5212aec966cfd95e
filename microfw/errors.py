"""The few exception types, and the one form that every message has."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

__all__ = [
    "ArgumentError", "CheckpointError", "DTypeError", "DataError", "FileError", "GradientError", "GraphError",
    "MicrofwError", "NonFiniteError", "ReplayError", "ReplayWarning", "ShapeError", "SingularError",
]  # fmt: skip

P = ParamSpec("P")
R = TypeVar("R")


def __dir__() -> list[str]:
    return sorted(__all__)


class MicrofwError(Exception):
    """Base of every exception that microfw raises on purpose.

    Parameters
    ----------
    text : str
        The message; or where, followed by what was expected, what came and how to fix it, as for `message`.
    *parts
        The other parts of the message.
    """

    def __init__(self, text: str = "", *parts: Any) -> None:
        super().__init__(message(text, *parts) if parts else text)


class ShapeError(MicrofwError, ValueError):
    """An array has the wrong shape."""


class DTypeError(MicrofwError, TypeError):
    """An array has the wrong dtype, or two dtypes were mixed."""


class ArgumentError(MicrofwError, ValueError):
    """A setting or an argument has a value that cannot work."""


class SingularError(ArgumentError, np.linalg.LinAlgError):
    """A matrix has no inverse, or no Cholesky factor."""


class DataError(MicrofwError, ValueError):
    """A dataset cannot be trained on: empty, not finite, or wrongly labelled."""


class CheckpointError(MicrofwError, ValueError):
    """A model file or a checkpoint cannot be read, written or continued from."""


class FileError(MicrofwError, OSError):
    """A report, a table or a picture cannot be written to its file."""


class GraphError(MicrofwError, RuntimeError):
    """The graph cannot do what was asked: freed, stale, or not there."""


class GradientError(MicrofwError, AssertionError):
    """A check found a derivative, or an op, that is not what it should be."""


class NonFiniteError(MicrofwError, FloatingPointError):
    """A loss, a gradient or a value turned NaN or infinite."""


class ReplayError(MicrofwError, RuntimeError):
    """A replayed training step was found to give something else than the eager step."""


class ReplayWarning(UserWarning):
    """A replayed training step differed from the eager step; training continues with eager steps."""


def message(where: str, expected: str, got: object, fix: str = "") -> str:
    """Return one line: where, what was expected, what came, and how to fix it.

    Examples
    --------
    >>> message("0 Dense", "x of shape (N, 64)", (32, 60), "pass 64 features")
    '0 Dense: expected x of shape (N, 64), got (32, 60); pass 64 features'
    """
    text = f"{where}: expected {expected}, got {got}"
    return printable(f"{text}; {fix}" if fix else text)


def refuse_former(where: str, given: Iterable[str], **names: str) -> None:
    """Raise TypeError if a keyword was given: for one that was renamed, with the new name.

    Examples
    --------
    >>> refuse_former("report", ["most"], most="max_rows")
    Traceback (most recent call last):
    ...
    TypeError: report: expected max_rows, got most; it was renamed
    """
    for name in given:
        if name in names:
            raise TypeError(message(where, names[name], name, "it was renamed"))
        raise TypeError(f"{where}() got an unexpected keyword argument {name!r}")


MEANT = {
    "ax": "axes", "callbacks": "hooks", "criterion": "loss", "loss_fn": "loss", "max_grad_norm": "clip_norm",
    "monitor": "metric", "n_epochs": "epochs", "random_state": "rng", "restore_best_weights": "restore",
    "save_best_only": "best", "seed": "rng", "val_data": "validation", "validation_data": "validation",
    "verbose": "progress",
}  # fmt: skip
"""Keywords of other libraries, each with the one here."""


def suggest_keywords(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function, or method, whose error for a wrong keyword suggests what was meant.

    Examples
    --------
    >>> @suggest_keywords
    ... def plot(axes=None): ...
    >>> plot(ax=1)
    Traceback (most recent call last):
    ...
    TypeError: plot: expected known keywords, got ax; did you mean axes?
    """
    code = function.__code__
    positional, where = code.co_varnames[: code.co_argcount], function.__qualname__.removesuffix(".__init__")
    known = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    keywords = frozenset(known)

    @wraps(function)
    def call(*arguments: P.args, **options: P.kwargs) -> R:
        if not options.keys() <= keywords or not options.keys().isdisjoint(positional[: len(arguments)]):
            raise _wrong_keyword(where, known, positional[: len(arguments)], options)
        return function(*arguments, **options)

    return call


def _wrong_keyword(where: str, known: tuple[str, ...], given: tuple[str, ...], options: Iterable[str]) -> TypeError:
    """Return the error for the first keyword that is not known, or is given as a positional argument, too."""
    name = next(name for name in options if name not in known or name in given)
    if name in known:  # as in fit(X, y, epochs=5)
        fix = "pass the data as one argument, (X, y)" if "train" in known else "name each argument"
        return TypeError(message(where, f"{name} once", "two values", fix))
    near = [MEANT[name]] if MEANT.get(name) in known else get_close_matches(name, known, 1)
    fix = f"did you mean {near[0]}?" if near else f"it has {', '.join(k for k in known if k != 'self')}"
    if name == "sample_weight" and "train" in known:
        fix = "pass (X, y, sample_weight)"
    return TypeError(message(where, "known keywords", name, fix))


def check_count(where: str, name: str, value: Any, least: int = 1, fix: str = "") -> None:
    """Raise unless a number, such as a batch size, is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        kind, got = "a positive integer" if least == 1 else f"an integer of at least {least}", repr(value)
        if np.ndim(value):  # targets, given as a second argument
            got, fix = f"values of shape {np.shape(value)}", "pass the data as one argument, (X, y)"
        elif hasattr(value, "task"):  # a Dataset
            fix = "pass it as validation"
        raise ArgumentError(where, f"{name} to be {kind}", got, fix)


def check_flags(where: str, **flags: Any) -> None:
    """Raise unless options are True or False: a text such as "no" would count as True."""
    for name, value in flags.items():
        if not isinstance(value, bool | np.bool):
            raise ArgumentError(where, f"{name} to be True or False", repr(value))


def printable(text: str) -> str:
    r"""Return text with each control character but the line feed spelled out, so that a terminal does not execute it.

    Examples
    --------
    >>> printable("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n " else ascii(c)[1:-1] for c in text)


def described(value: Any) -> str:
    """Return a text without memory addresses.

    It is a function's name, ``Type()`` for an object with the default repr, else the object's repr.

    Examples
    --------
    >>> described(len), described(object()), described("a")
    ('len', 'object()', "'a'")
    """
    if callable(value) and hasattr(value, "__name__"):
        return str(value.__name__)
    kind: Any = type(value)
    return f"{kind.__name__}()" if kind.__repr__ is object.__repr__ else repr(value)
