"""Strict reading: JSON without surprises, and a limit on what a file may make us build."""

from __future__ import annotations

import json
import reprlib
from math import prod
from typing import Any

import numpy as np

from microfw.errors import CheckpointError, message

FREE_ITEMS = 1 << 16
"""How many JSON values, or what weighs as much, any file may hold. One takes up to about 70 bytes of memory."""

BYTES_FOR_ITEM = 100
"""How large a file must be for each further one."""

DENSITY = 12
"""How much more of a document may be values than of a file."""

DTYPES = {
    "|b1": "BOOL", "|i1": "I8", "|u1": "U8", "<i2": "I16", "<u2": "U16", "<f2": "F16", "<i4": "I32", "<u4": "U32",
    "<f4": "F32", "<i8": "I64", "<u8": "U64", "<f8": "F64",
}  # fmt: skip
"""The dtypes that files can hold: NumPy's names, and those of safetensors."""


class Refused(Exception):
    """What is wrong with a file, in three parts; `container` adds which file it is."""

    def __init__(self, expected: str, got: object, fix: str = "") -> None:
        super().__init__(expected, got, fix)
        self.expected, self.got, self.fix = expected, got, fix

    def error(self, where: str) -> CheckpointError:
        """Return the error that users see."""
        return CheckpointError(message(where, self.expected, self.got, self.fix))


class Limit:
    """How much a file of a size may make us build."""

    def __init__(self, size: int) -> None:
        self.items = FREE_ITEMS + size // BYTES_FOR_ITEM

    def spend(self, items: int) -> None:
        """Count items.

        Raises
        ------
        Refused
            If they are too many.
        """
        self.items -= items
        if self.items < 0:
            raise Refused("no more entries than its size justifies", "more", "use fewer and larger arrays")

    def json(self, text: str) -> Any:
        """Return what JSON stands for: plain ASCII, no key twice, no NaN."""
        self.spend(sum(map(text.count, ",:[{")))
        try:
            return json.loads(text, object_pairs_hook=_pairs, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            got = "nesting without end" if isinstance(error, RecursionError) else str(error)
            raise Refused("JSON", got, "was the file changed, or cut short?") from None


def document(text: Any) -> Any:
    """Return what a text inside of a file stands for, as JSON of ordinary density: numbers with names.

    Its objects take up to about ten times the memory of the text.
    """
    if not isinstance(text, str):
        raise Refused("JSON as text", type(text).__name__)
    return Limit(DENSITY * len(text)).json(text)


def short(value: Any) -> str:
    """Return what a value looks like, in a few words however large it is."""
    return reprlib.repr(value)


def ascii_text(data: bytes) -> str:
    """Return bytes as text. ASCII alone takes no more memory than the file."""
    if not data.isascii():
        raise Refused("ASCII", "other bytes", "was the file written by other software?")
    return data.decode("ascii")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key that comes twice")
    return made


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name}, which is not JSON")


def whole(value: Any) -> int:
    """Return a JSON value that must be an integer of at least 0."""
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise Refused("an integer of at least 0", short(value))
    return value


def size_of(dtype: np.dtype[Any], shape: tuple[int, ...], most: int) -> int:
    """Return the bytes of an array, which must not be more than there are."""
    if len(shape) > 32:
        raise Refused("at most 32 axes", len(shape))
    if prod(n for n in shape if n) * dtype.itemsize >= 1 << 62:  # NumPy refuses it even where an axis is 0
        raise Refused("a shape that fits the file", str(shape)[:60])
    size = prod(shape) * dtype.itemsize
    if size > most:
        raise Refused(f"an array in the {most:,} bytes that are there", f"one of shape {shape}")
    return size


def table(value: Any, *keys: str) -> dict[str, Any]:
    """Return a JSON value that must be an object, with these keys if any are given."""
    if not isinstance(value, dict) or (keys and set(value) != set(keys)):
        raise Refused(f"an object with the keys {', '.join(keys)}" if keys else "an object", short(value))
    return value


def listed(value: Any, kind: type = object) -> list[Any]:
    """Return a JSON value that must be a list, of one type."""
    if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
        raise Refused("a list" if kind is object else f"a list of {kind.__name__}", short(value))
    return value
