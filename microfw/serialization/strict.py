"""Strict parsing of untrusted files: JSON without duplicate keys, and a limit on memory."""

from __future__ import annotations

import json
import reprlib
from math import prod
from typing import Any

import numpy as np

from microfw.errors import CheckpointError

FREE_ITEMS = 1 << 16
"""JSON values that any file may contain. One takes up to about 70 bytes of memory."""

BYTES_FOR_ITEM = 100
"""File size that allows one more value."""

DENSITY = 12
"""Factor between the size of a document inside of a file and the file size that would allow its values."""

DTYPES = {
    "|b1": "BOOL", "|i1": "I8", "|u1": "U8", "<i2": "I16", "<u2": "U16", "<f2": "F16", "<i4": "I32", "<u4": "U32",
    "<f4": "F32", "<i8": "I64", "<u8": "U64", "<f8": "F64",
}  # fmt: skip
"""Dtypes of arrays in files: NumPy's names, and those of safetensors."""


class FormatError(Exception):
    """A file is not valid: what was expected, what was found, and a fix. `with_location` adds the file."""

    def __init__(self, expected: str, got: object, fix: str = "") -> None:
        super().__init__(expected, got, fix)
        self.expected, self.got, self.fix = expected, got, fix

    def with_location(self, where: str) -> CheckpointError:
        """Return the error for users, with the name of the file."""
        return CheckpointError(where, self.expected, self.got, self.fix)


class Limit:
    """Limit on the number of values that a file of a given size may create."""

    def __init__(self, size: int) -> None:
        self.items = FREE_ITEMS + size // BYTES_FOR_ITEM

    def spend(self, items: int) -> None:
        """Count items.

        Raises
        ------
        FormatError
            If the limit is exceeded.
        """
        self.items -= items
        if self.items < 0:
            raise FormatError("no more entries than its size justifies", "more", "use fewer and larger arrays")

    def json(self, text: str) -> Any:
        """Return parsed JSON; raise FormatError for duplicate keys or NaN."""
        # before parsing, from a bound on the number of values: objects take up to 70 times the memory of their text
        self.spend(sum(map(text.count, ",:[{")))
        try:
            return json.loads(text, object_pairs_hook=_pairs, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            got = "nesting without end" if isinstance(error, RecursionError) else str(error)
            raise FormatError("JSON", got, "was the file changed, or cut short?") from None


def document(text: Any) -> Any:
    """Return parsed JSON from a text inside of a file, in which named numbers are dense.

    The objects take up to about ten times the memory of the text.
    """
    if not isinstance(text, str):
        raise FormatError("JSON as text", type(text).__name__)
    return Limit(DENSITY * len(text)).json(text)


def short(value: Any) -> str:
    """Return a short representation of a value of any size."""
    return reprlib.repr(value)  # repr of a value from a file may take as long as the file is large


def ascii_text(data: bytes) -> str:
    """Return ASCII bytes as text. Other characters, which take more memory than the file, are refused."""
    if not data.isascii():
        raise FormatError("ASCII", "other bytes", "was the file written by other software?")
    return data.decode("ascii")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)  # json keeps the last of equal keys, other readers the first
    if len(made) != len(pairs):
        raise ValueError("a key that comes twice")
    return made


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name}, which is not JSON")


def whole(value: Any) -> int:
    """Return a JSON value; raise FormatError unless it is an integer of at least 0."""
    if type(value) is not int or not 0 <= value < 1 << 62:  # isinstance would take True
        raise FormatError("an integer of at least 0", short(value))
    return value


def size_of(dtype: np.dtype[Any], shape: tuple[int, ...], max_bytes: int) -> int:
    """Return the number of bytes of an array; raise FormatError if more than ``max_bytes``."""
    if len(shape) > 32:
        raise FormatError("at most 32 axes", len(shape))
    if prod(n for n in shape if n) * dtype.itemsize >= 1 << 62:  # NumPy raises for it even if an axis is 0
        raise FormatError("a shape that fits the file", str(shape)[:60])
    size = prod(shape) * dtype.itemsize
    if size > max_bytes:
        raise FormatError(f"an array in the {max_bytes:,} bytes that are there", f"one of shape {shape}")
    return size


def table(value: Any, *keys: str) -> dict[str, Any]:
    """Return a JSON value; raise FormatError unless it is an object, with exactly these keys if given."""
    if not isinstance(value, dict) or (keys and set(value) != set(keys)):
        raise FormatError(f"an object with the keys {', '.join(keys)}" if keys else "an object", short(value))
    return value


def listed(value: Any, kind: type = object) -> list[Any]:
    """Return a JSON value; raise FormatError unless it is a list with items of one type."""
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        raise FormatError("a list" if kind is object else f"a list of {kind.__name__}", short(value))
    return value
