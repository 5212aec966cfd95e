"""The safetensors format: length of the header, header as JSON, arrays one after the other.

Written and read here without the package of that name. PyTorch, JAX and others can read the files. Specification:
https://github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from microfw.serialization.layout import Array, Place, raw
from microfw.serialization.strict import DTYPES, FormatError, Limit, ascii_text, listed, short, size_of, table, whole

NAMES = {name: np.dtype(code) for code, name in DTYPES.items()}
NOTES = "__metadata__"
MAX_HEADER = 100_000_000
"""Maximum bytes of a header, by the specification."""


def pieces(arrays: dict[str, Array], notes: dict[str, str]) -> Iterator[Any]:
    """Yield the bytes of a file with arrays and texts."""
    header: dict[str, Any] = {NOTES: notes}
    ordered = sorted(arrays, key=lambda name: -arrays[name].itemsize)  # largest items first: all arrays are aligned
    end = 0
    for name in ordered:
        array = arrays[name]
        start, end = end, end + array.nbytes
        header[name] = {"dtype": DTYPES[array.dtype.str], "shape": array.shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # arrays begin at a multiple of 8: a reader can map them into memory
    if len(text) > MAX_HEADER:
        raise FormatError(
            f"a header of at most {MAX_HEADER:,} bytes", f"{len(text):,}", "save fewer arrays, or to .npz"
        )
    yield len(text).to_bytes(8, "little")
    yield text
    for name in ordered:
        yield raw(arrays[name])


def index(
    file: BinaryIO, size: int, limit: Limit, dtypes: Mapping[str, np.dtype[Any]] = NAMES
) -> tuple[dict[str, str], dict[str, Place]]:
    """Return the texts of a file, and the positions of its arrays, which have some of ``dtypes``."""
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(size - 8, MAX_HEADER):
        raise FormatError("a header in the file", f"one of {length:,} bytes in {size:,}", "is it a safetensors file?")
    text = ascii_text(file.read(length))
    if not text.startswith("{"):  # JSON allows spaces in front, the specification does not
        raise FormatError("a header that begins with '{'", repr(text[:1]))
    header = table(limit.json(text))
    del text  # up to 100 MB
    notes = table(header.pop(NOTES, {}))
    if not all(isinstance(note, str) for note in notes.values()):
        raise FormatError("metadata of text", "something else")
    places = {}
    spans = []
    for name, entry in header.items():
        entry = table(entry, "dtype", "shape", "data_offsets")
        dtype = dtypes.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
        if dtype is None:
            fix = "read weights of PyTorch with mf.import_torch(model, path)" if entry["dtype"] == "BF16" else ""
            raise FormatError(f"a dtype among {', '.join(dtypes)}", short(entry["dtype"]), fix)
        shape = tuple(map(whole, listed(entry["shape"])))
        offsets = list(map(whole, listed(entry["data_offsets"])))
        if len(offsets) != 2 or size_of(dtype, shape, size) != offsets[1] - offsets[0]:
            raise FormatError(f"offsets that fit {dtype} {shape}", f"{offsets}")
        places[name] = Place(dtype, shape, 8 + length + offsets[0])
        spans.append(offsets)
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise FormatError("arrays without holes between them or overlaps", f"one at {start:,} after {end:,}")
        end = stop
    if 8 + length + end != size:
        raise FormatError(f"{8 + length + end:,} bytes in all", f"{size:,}", "was the file cut short?")
    return notes, places
