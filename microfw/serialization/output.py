"""Reports, tables and pictures in files: each through one atomic write."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from microfw.errors import ArgumentError, FileError, MicrofwError, message
from microfw.serialization.atomic_write import atomic_write

Path = str | os.PathLike[str]


def path_text(path: Any, where: str, call: str, kind: type[MicrofwError] = ArgumentError) -> str:
    """Return a path as text.

    Parameters
    ----------
    path : str or path-like
        What the user passed.
    where, call : str
        The function, and how it is called, for the error.
    kind : type
        The exception to raise if ``path`` is no path.

    Examples
    --------
    >>> path_text("model.npz", "mf.load", "mf.load(path)")
    'model.npz'
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        got = repr(text) if isinstance(text, str) else type(path).__name__
        raise kind(message(where, "the path of a file", got, f"call {call}"))
    return text


def write_bytes(path: str, content: bytes) -> None:
    """Write a file; if that fails, the file that was there before is as it was."""
    atomic_write(path, [content], FileError)


def write_text(path: str, text: str) -> None:
    """Write a file as UTF-8; if that fails, the file that was there before is as it was."""
    write_bytes(path, encode(text))


def encode(text: str) -> bytes:
    """Return text as UTF-8. Half a surrogate pair, which a Python string may hold, is spelled out."""
    return text.encode("utf-8", "backslashreplace")


def figure_bytes(figure: Any, path: str) -> bytes:
    """Return a matplotlib figure in the format of a file's name.

    Raises
    ------
    ArgumentError
        If matplotlib has no such format.
    """
    suffix = os.path.splitext(path)[1].lstrip(".").lower()
    known = figure.canvas.get_supported_filetypes()
    if suffix not in known:
        raise ArgumentError(message("plot", f"a name that ends in .{', .'.join(sorted(known))}", repr(path)))
    buffer = io.BytesIO()
    figure.savefig(buffer, format=suffix)
    return buffer.getvalue()


def picture(figure: Any, path: str) -> bytes:
    """Return `figure_bytes` of a figure that only the file needs, and close the figure: pyplot keeps each open one."""
    try:
        return figure_bytes(figure, path)
    finally:
        sys.modules["matplotlib.pyplot"].close(figure)
