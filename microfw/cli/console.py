"""Standard output and standard error of the command line. A broken stream does not stop the work."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from microfw.errors import printable

PLAIN = str.maketrans("▁▂▃▄▅▆▇█▌▏µ…×−–²’", "1234567#-|u~x--2'")
"""Replacements of one column each, for encodings of the output without these characters."""


class Output:
    """Text stream that never raises: escapes characters that its encoding lacks; drops output after an error.

    Parameters
    ----------
    stream : file or None
        Underlying stream. None drops all output; Python sets None if the descriptor is closed.

    Attributes
    ----------
    error : OSError or None
        First error of the stream.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = io.StringIO() if stream is None else stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write text."""
        self._attempt(self._write, text)
        return len(text)

    def flush(self) -> None:
        """Flush the underlying stream."""
        self._attempt(self.stream.flush)

    def isatty(self) -> bool:
        """Return True if the stream is a terminal."""
        try:
            return bool(self.stream.isatty())
        except (AttributeError, ValueError):
            return False

    def close(self) -> None:
        """Flush. If the stream failed, discard its buffer, so that Python reports no error at exit."""
        self.flush()
        if self.error is not None:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                devnull = os.open(os.devnull, os.O_WRONLY)
                os.dup2(devnull, self.stream.fileno())
                os.close(devnull)

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)
        except UnicodeEncodeError:
            encoding = self.stream.encoding or "ascii"
            plain = text.translate(PLAIN).encode(encoding, "backslashreplace").decode(encoding)
            self.stream.write(plain)

    def _attempt(self, action: Callable[..., Any], *arguments: Any) -> None:
        if self.error is not None:
            return
        try:
            action(*arguments)
        except OSError as error:
            self.error = error
        except ValueError as error:  # the stream is closed
            self.error = OSError(str(error))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def streams() -> Iterator[tuple[Output, Output]]:
    """Return a block with standard output and standard error that never raise."""
    before = sys.stdout, sys.stderr
    _open_descriptors()
    out, err = Output(before[0]), Output(before[1])
    sys.stdout, sys.stderr = out, err
    try:
        yield out, err
    finally:
        sys.stdout, sys.stderr = before
        out.close()
        err.close()


def _open_descriptors() -> None:
    """Open closed standard descriptors on the null device; else the next opened file would get their numbers."""
    with contextlib.suppress(OSError):
        descriptor = os.open(os.devnull, os.O_RDWR)
        while descriptor <= 2:
            descriptor = os.open(os.devnull, os.O_RDWR)
        os.close(descriptor)


def complain(text: str) -> None:
    """Write a line to standard error, with control characters escaped."""
    print(" ".join(printable(text).split("\n")), file=sys.stderr)


def use_colour() -> bool:
    """Return True if standard output is a terminal with colours; NO_COLOR and TERM=dumb switch them off."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class Parser(argparse.ArgumentParser):
    """Argument parser that reports errors in one line."""

    def error(self, message: str) -> NoReturn:
        """Write the error and exit with code 2."""
        complain(f"{self.prog}: {message}; see {self.prog} --help")
        self.exit(2)
