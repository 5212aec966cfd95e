"""Output files of the subcommands."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from microfw.errors import ArgumentError, FileError, printable
from microfw.serialization.atomic_write import check_writable
from microfw.serialization.output import write_bytes

Files = dict[str, Callable[[], bytes]]
"""For each path, a function that returns the content."""


def check_path(path: str | None, suffix: str, option: str = "") -> None:
    """Check that the path of an option, by default ``--suffix``, has that suffix and can be written."""
    if path is not None and (not path.endswith("." + suffix) or path.endswith(".trace.json")):
        raise ArgumentError(f"--{option or suffix}: expected a name that ends in .{suffix}, got {path!r}")
    if path is not None:
        check_writable(path)


def write_files(files: Mapping[str, Callable[[], bytes]], text: str = "") -> None:
    """Write files, then print a text and the paths of the files.

    All contents are computed before the first file is written. If a file cannot be written, the others are written
    and the text is printed all the same.

    Raises
    ------
    FileError
        At the end, for the first file that could not be written.
    """
    contents = {path: make() for path, make in files.items()}
    errors = []
    saved = []
    for path, made in contents.items():
        try:
            write_bytes(path, made)
            saved.append(path)
        except FileError as error:
            errors.append(error)
    if text:
        print(text)
    for path in saved:
        print(printable(f"saved to {path}"))
    if errors:
        raise errors[0]
