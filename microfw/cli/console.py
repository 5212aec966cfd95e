"""Standard output and standard error of the command line: whatever becomes of them, the work goes on."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from microfw.errors import printable

PLAIN = str.maketrans({"µ": "u", "…": "~", "×": "x", "−": "-", "–": "-", "²": "2", "’": "'"})
"""What reports write instead where the encoding of the output lacks a character; one column stays one column."""


class Output:
    """A text stream that never raises: what its encoding lacks is spelled out, and after an error output is dropped.

    Parameters
    ----------
    stream : file or None
        Where to write; None, as Python has it where a descriptor is closed, drops everything.

    Attributes
    ----------
    error : OSError or None
        The first error of the stream.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = io.StringIO() if stream is None else stream
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write text."""
        self._attempt(self._write, text)
        return len(text)

    def flush(self) -> None:
        """Write what was kept back."""
        self._attempt(self.stream.flush)

    def isatty(self) -> bool:
        """Return whether a terminal shows the text."""
        try:
            return bool(self.stream.isatty())
        except (AttributeError, ValueError):
            return False

    def close(self) -> None:
        """Flush. If the stream failed, have Python drop what the stream still keeps, instead of complaining at exit."""
        self.flush()
        if self.error is not None:
            with contextlib.suppress(OSError, ValueError, AttributeError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self.stream.fileno())
                os.close(nowhere)

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
        except ValueError as error:  # a stream that was closed
            self.error = OSError(str(error))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def streams() -> Iterator[tuple[Output, Output]]:
    """Run a block with standard output and standard error that never raise."""
    before = sys.stdout, sys.stderr
    _occupy()
    out, err = Output(before[0]), Output(before[1])
    sys.stdout, sys.stderr = out, err
    try:
        yield out, err
    finally:
        sys.stdout, sys.stderr = before
        out.close()
        err.close()


def _occupy() -> None:
    """Open the standard descriptors that are closed, or the next file that is opened would become one of them."""
    with contextlib.suppress(OSError):
        descriptor = os.open(os.devnull, os.O_RDWR)
        while descriptor <= 2:
            descriptor = os.open(os.devnull, os.O_RDWR)
        os.close(descriptor)


def complain(text: str) -> None:
    """Write a line to standard error, with nothing in it that a terminal obeys."""
    print(" ".join(printable(text).split("\n")), file=sys.stderr)
