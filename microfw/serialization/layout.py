"""Arrays in files, for both formats: position, bytes, checksum."""

from __future__ import annotations

import hashlib
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from microfw.serialization.strict import FormatError, size_of

Array = np.ndarray[Any, Any]


class Place(NamedTuple):
    """Dtype, shape and position of an array in a file."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int


def plain(array: Any) -> Array:
    """Return an array in the byte layout of files: C-contiguous, little-endian."""
    array = np.asarray(array)  # ascontiguousarray would give a number an axis
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C")


def raw(array: Array) -> memoryview:
    """Return a view of the bytes of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")


def fingerprint(array: Array) -> str:
    """Return the SHA-256 of an array from `plain`: of ``<f4 64,32`` (dtype and shape), a newline, and its bytes.

    Examples
    --------
    >>> fingerprint(np.zeros((64, 32), np.float32))[:16]
    '250b70a5a3219804'
    """
    digest = hashlib.sha256(f"{array.dtype.str} {','.join(map(str, array.shape))}\n".encode())
    digest.update(raw(array))
    return digest.hexdigest()


def read_array(file: BinaryIO, place: Place, size: int, out: Array | None = None) -> Array:
    """Read an array from a file of ``size`` bytes; with ``out``, into an array of the same shape and dtype."""
    count = size_of(place.dtype, place.shape, size - place.start)
    # straight into the parameter if its bytes lie as in the file: no second array of that size
    if out is None or not out.flags.c_contiguous or not np.little_endian:
        array: Array = np.empty(place.shape, place.dtype)
    else:
        array = out
    file.seek(place.start)
    if count and file.readinto(raw(array)) != count:  # type: ignore[attr-defined]
        raise FormatError(f"{count:,} bytes of an array", "fewer", "was the file cut short?")
    # a byte of 2 as a boolean is neither True nor False in NumPy's loops
    if array.dtype == np.bool_ and array.size and array.view(np.uint8).max() > 1:
        raise FormatError("booleans of 0 or 1", int(array.view(np.uint8).max()))
    return array
