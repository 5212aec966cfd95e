"""Why an op cannot be traced, or a step not captured."""

from __future__ import annotations

from microfw.errors import MicrofwError


class Untraceable(Exception):
    """A rule does something other than calling NumPy on whole arrays."""


class Uncapturable(MicrofwError, RuntimeError):
    """A step does something that a replay cannot repeat."""


def reason_of(error: Exception) -> str:
    """Return why a step cannot be captured."""
    if isinstance(error, Uncapturable):
        return str(error)
    return f"it could not be traced ({type(error).__name__}: {error})"
