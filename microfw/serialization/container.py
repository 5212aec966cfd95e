"""File of arrays and JSON metadata, in one of two formats, with checksums of all content."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO

from microfw.errors import CheckpointError
from microfw.serialization import npz, safetensors
from microfw.serialization.atomic_write import atomic_write
from microfw.serialization.layout import Array, Place, fingerprint, plain, read_array
from microfw.serialization.output import path_text
from microfw.serialization.strict import DTYPES, FormatError, Limit, short, table

VERSION = 1

FORMATS: dict[str, Any] = {".safetensors": safetensors, ".npz": npz}

META, DIGEST = "microfw.json", "microfw.sha256"


class Contents:
    """Checked metadata of a file, and access to its arrays.

    Attributes
    ----------
    meta : dict
        Parsed JSON.
    places : dict
        Dtype, shape and position of each array.
    unread : set
        Names of arrays that were not read.
    """

    def __init__(self, file: BinaryIO, size: int, suffix: str) -> None:
        limit = Limit(size)
        notes, self.places = FORMATS[suffix].index(file, size, limit)
        if set(notes) != {META, DIGEST}:
            fix = "mf.load reads what mf.save wrote; for PyTorch's weights use mf.import_torch"
            raise FormatError(f"the entries {META} and {DIGEST}", f"{sorted(notes)}"[:80], fix)
        text = notes.pop(META)
        # before the text is parsed: what is damaged is not worth reading
        if hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest() != notes[DIGEST]:
            raise FormatError(f"{META} with the checksum in {DIGEST}", "another", "the file is damaged")
        self.meta = table(limit.json(text))
        if self.meta.get("format") != "microfw" or type(self.meta.get("version")) is not int:
            raise FormatError("a file of microfw", short(self.meta.get("format")))
        if self.meta["version"] != VERSION:
            fix = "read it with the microfw that wrote it"
            raise FormatError(f"version {VERSION} of the format", str(self.meta["version"])[:20], fix)
        self.sums = table(self.meta.get("sha256"))
        if set(self.sums) != set(self.places):
            odd = sorted(set(self.sums) ^ set(self.places))[0]
            raise FormatError("a checksum for each array", f"a difference at {short(odd)}")
        self.unread = set(self.places)
        self._file, self._size = file, size

    def array(self, name: str, out: Array | None = None) -> Array:
        """Read an array and check it; with ``out``, read into an array of the same shape and dtype."""
        if name not in self.places:
            raise FormatError("an array that is in the file", short(name))
        place: Place = self.places[name]
        array = read_array(self._file, place, self._size, out)
        if fingerprint(array) != self.sums[name]:
            raise FormatError(f"the checksum of {short(name)}", "another", "the file is damaged")
        self.unread.discard(name)
        return array


def suffix_of(path: str | os.PathLike[str], where: str) -> str:
    """Return the suffix of a path; raise CheckpointError if it is not that of a format."""
    suffix = os.path.splitext(os.fspath(path))[1]
    if suffix not in FORMATS:
        raise CheckpointError(where, f"a name that ends with {' or '.join(FORMATS)}", repr(os.fspath(path)))
    return suffix


def write(path: str | os.PathLike[str], arrays: dict[str, Any], meta: dict[str, Any]) -> None:
    """Write arrays and JSON metadata atomically.

    Raises
    ------
    CheckpointError
        If the file cannot be written, or `opened` would not accept it.
    """
    where = f"saving {os.fspath(path)}"
    suffix = suffix_of(path, where)
    flat = {name: plain(array) for name, array in arrays.items()}
    try:
        for name, array in flat.items():
            if array.dtype.str not in DTYPES or name == safetensors.NOTES:
                raise FormatError(f"{name!r} to be of a dtype among {', '.join(DTYPES)}", array.dtype.str)
        sums = {name: fingerprint(array) for name, array in flat.items()}
        about = {"format": "microfw", "version": VERSION, **meta, "sha256": sums}
        try:
            # NaN is not JSON; other software would refuse the file
            text = json.dumps(about, separators=(",", ":"), allow_nan=False)
        except (ValueError, RecursionError) as error:
            raise FormatError("what JSON can hold", f"{type(error).__name__} ({error})"[:80]) from None
        # the limit of a reader: what cannot be loaded is not saved
        limit = Limit(len(text) + sum(array.nbytes for array in flat.values()))
        limit.spend(ITEMS_FOR_ARRAY * len(flat) + sum(map(text.count, ",:[{")))
        notes = {META: text, DIGEST: hashlib.sha256(text.encode()).hexdigest()}
        atomic_write(os.fspath(path), FORMATS[suffix].pieces(flat, notes))
    except FormatError as error:
        raise error.with_location(where) from None


ITEMS_FOR_ARRAY = 16
"""Upper bound of the items that a safetensors header or a zip record counts for one array."""


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], where: str) -> Iterator[Contents]:
    """Open a file of `write` for reading, as a block. Every fault of the file raises CheckpointError."""
    call = "mf.load(path)" if where == "loading" else "fit(..., resume=path)"
    place = f"{where} {path_text(path, where, call, CheckpointError)}"
    suffix = suffix_of(path, where)
    with reading(path, place) as (file, size):
        yield Contents(file, size, suffix)


@contextlib.contextmanager
def reading(path: str | os.PathLike[str], place: str) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file, as a block; yield it and its size. Every fault found in the block raises CheckpointError."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
            raise FormatError("a file", "a folder or a device")
        with open(path, "rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    except FormatError as error:
        raise error.with_location(place) from None
    except RecursionError:
        raise CheckpointError(place, "a few layers in each other", "nesting without end") from None
    except MemoryError:
        raise CheckpointError(place, "memory for the arrays of the file", "too little") from None
    except OSError as error:
        got = f"{type(error).__name__} ({error.strerror or error})"
        raise CheckpointError(place, "a file that can be read", got) from error
