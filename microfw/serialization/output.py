"""Reports, tables and figures in files, written atomically."""

from __future__ import annotations

import io
import os
from typing import Any

from microfw.errors import ArgumentError, FileError, MicrofwError
from microfw.serialization.atomic_write import atomic_write

Path = str | os.PathLike[str]


def path_text(path: Any, where: str, call: str, kind: type[MicrofwError] = ArgumentError) -> str:
    """Return a path as text.

    Parameters
    ----------
    path : str or path-like
        Argument of the user.
    where, call : str
        Name and call of the function, for the error.
    kind : type
        Exception type to raise if ``path`` is not a path.

    Examples
    --------
    >>> path_text("model.npz", "mf.load", "mf.load(path)")
    'model.npz'
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        got = repr(text) if isinstance(text, str) else type(path).__name__
        raise kind(where, "the path of a file", got, f"call {call}")
    return text


def write_bytes(path: str, content: bytes) -> None:
    """Write a file atomically; after a failure an existing file is unchanged."""
    atomic_write(path, [content], FileError)


def write_text(path: str, text: str) -> None:
    """Write a file as UTF-8, atomically; after a failure an existing file is unchanged."""
    write_bytes(path, encode(text))


def encode(text: str) -> bytes:
    """Return text as UTF-8. Lone surrogates, which a Python string may contain, are escaped."""
    return text.encode("utf-8", "backslashreplace")


def figure_bytes(figure: Any, path: str) -> bytes:
    """Return the bytes of a matplotlib figure; the suffix of ``path`` selects the format.

    Raises
    ------
    ArgumentError
        If matplotlib does not support the format.
    """
    suffix = os.path.splitext(path)[1].lstrip(".").lower()
    known = figure.canvas.get_supported_filetypes()
    if suffix not in known:
        raise ArgumentError("plot", f"a name that ends in .{', .'.join(sorted(known))}", repr(path))
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix)
    return buffer.getvalue()
