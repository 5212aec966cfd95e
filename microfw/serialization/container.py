"""A file of arrays and of JSON about them, in one of two formats, with a checksum for everything that is in it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO

from microfw.errors import CheckpointError, message
from microfw.serialization import npz, safetensors
from microfw.serialization.atomic_write import atomic_write
from microfw.serialization.layout import Array, Place, fingerprint, plain, read_array
from microfw.serialization.output import path_text
from microfw.serialization.strict import DTYPES, Limit, Refused, short, table

VERSION = 1

FORMATS: dict[str, Any] = {".safetensors": safetensors, ".npz": npz}

META, DIGEST = "microfw.json", "microfw.sha256"


class Contents:
    """What a file says about itself, checked, and its arrays, to be read one by one.

    Attributes
    ----------
    meta : dict
        The JSON.
    places : dict
        Dtype, shape and place of each array.
    unread : set
        The names of arrays that nobody has asked for.
    """

    def __init__(self, file: BinaryIO, size: int, suffix: str) -> None:
        limit = Limit(size)
        notes, self.places = FORMATS[suffix].index(file, size, limit)
        if set(notes) != {META, DIGEST}:
            fix = "mf.load reads what mf.save wrote; for other software's weights use model.load_state_dict"
            raise Refused(f"the entries {META} and {DIGEST}", f"{sorted(notes)}"[:80], fix)
        text = notes.pop(META)
        if hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest() != notes[DIGEST]:
            raise Refused(f"{META} with the checksum in {DIGEST}", "another", "the file is damaged")
        self.meta = table(limit.json(text))
        if self.meta.get("format") != "microfw" or type(self.meta.get("version")) is not int:
            raise Refused("a file of microfw", short(self.meta.get("format")))
        if self.meta["version"] != VERSION:
            fix = "read it with the microfw that wrote it"
            raise Refused(f"version {VERSION} of the format", str(self.meta["version"])[:20], fix)
        self.sums = table(self.meta.get("sha256"))
        if set(self.sums) != set(self.places):
            odd = sorted(set(self.sums) ^ set(self.places))[0]
            raise Refused("a checksum for each array", f"a difference at {short(odd)}")
        self.unread = set(self.places)
        self._file, self._size = file, size

    def array(self, name: str, out: Array | None = None) -> Array:
        """Return an array, checked, or read it into one of its shape and dtype."""
        if name not in self.places:
            raise Refused("an array that is in the file", short(name))
        place: Place = self.places[name]
        array = read_array(self._file, place, self._size, out)
        if fingerprint(array) != self.sums[name]:
            raise Refused(f"the checksum of {short(name)}", "another", "the file is damaged")
        self.unread.discard(name)
        return array


def suffix_of(path: str | os.PathLike[str], where: str) -> str:
    """Return how a path ends, which must be one of the formats."""
    suffix = os.path.splitext(os.fspath(path))[1]
    if suffix not in FORMATS:
        raise CheckpointError(message(where, f"a name that ends with {' or '.join(FORMATS)}", repr(os.fspath(path))))
    return suffix


def write(path: str | os.PathLike[str], arrays: dict[str, Any], meta: dict[str, Any]) -> None:
    """Write arrays, and JSON about them, so that the file is there wholly or as it was before.

    Raises
    ------
    CheckpointError
        If it cannot be written, or could not be read again.
    """
    where = f"saving {os.fspath(path)}"
    suffix = suffix_of(path, where)
    flat = {name: plain(array) for name, array in arrays.items()}
    try:
        for name, array in flat.items():
            if array.dtype.str not in DTYPES or name == safetensors.NOTES:
                raise Refused(f"{name!r} to be of a dtype among {', '.join(DTYPES)}", array.dtype.str)
        sums = {name: fingerprint(array) for name, array in flat.items()}
        about = {"format": "microfw", "version": VERSION, **meta, "sha256": sums}
        try:
            text = json.dumps(about, separators=(",", ":"), allow_nan=False)
        except (ValueError, RecursionError) as error:
            raise Refused("what JSON can hold", f"{type(error).__name__} ({error})"[:80]) from None
        # The limit that a reader will set: nothing is saved that could not be loaded.
        limit = Limit(len(text) + sum(array.nbytes for array in flat.values()))
        limit.spend(ITEMS_FOR_ARRAY * len(flat) + sum(map(text.count, ",:[{")))
        notes = {META: text, DIGEST: hashlib.sha256(text.encode()).hexdigest()}
        atomic_write(os.fspath(path), FORMATS[suffix].pieces(flat, notes))
    except Refused as refused:
        raise refused.error(where) from None


ITEMS_FOR_ARRAY = 16
"""More than a safetensors header, or a zip record, counts for an array of usual shape."""


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], where: str) -> Iterator[Contents]:
    """Open a file to read from, in a block in which all that is wrong with it becomes a CheckpointError."""
    call = "mf.load(path)" if where == "loading" else "fit(..., resume=path)"
    place = f"{where} {path_text(path, where, call, CheckpointError)}"
    suffix = suffix_of(path, where)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise Refused("a file", "a folder or a device")
        with open(path, "rb") as file:
            yield Contents(file, os.fstat(file.fileno()).st_size, suffix)
    except Refused as refused:
        raise refused.error(place) from None
    except RecursionError:
        raise CheckpointError(message(place, "a few layers in each other", "nesting without end")) from None
    except MemoryError:
        raise CheckpointError(message(place, "memory for the arrays of the file", "too little")) from None
    except OSError as error:
        got = f"{type(error).__name__} ({error.strerror or error})"
        raise CheckpointError(message(place, "a file that can be read", got)) from error
