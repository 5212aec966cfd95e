"""The npz format: a zip archive of NumPy's npy files, which `numpy.load` reads, too.

Only archives as written by this module are read: stored entries without gaps, compression, comments or extensions. Such
a file has no hidden parts, and no entry is larger than its bytes in the file.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np

from microfw.serialization.layout import Array, Place, raw
from microfw.serialization.strict import DTYPES, FormatError, Limit, ascii_text, short, size_of

LOCAL = struct.Struct("<4s5H3I2H")
CENTRAL = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")
UTF8 = 1 << 11
DAY = 33  # 1 January 1980, always: the same content has the same bytes
MAX_BYTES = 0xFFFFFFFF
ITEMS_FOR_ENTRY = 16
HEADER = re.compile(
    r"\{'descr': '([<|][bifu]\d)', 'fortran_order': False, 'shape': \((|\d{1,19},|\d{1,19}(?:, \d{1,19})+)\), \} *\n"
)


def pieces(arrays: dict[str, Array], notes: dict[str, str]) -> Iterator[Any]:
    """Yield the bytes of a file with arrays and texts."""
    entries: dict[str, list[Any]] = {name: [text.encode()] for name, text in notes.items()}
    entries |= {f"{name}.npy": [_npy_header(array), raw(array)] for name, array in arrays.items()}
    total = sum(len(part) + 200 + 4 * len(name) for name, parts in entries.items() for part in parts)
    if total > MAX_BYTES or len(entries) >= 0xFFFF:
        raise FormatError(
            "less than 4 GiB and 65,535 arrays", f"{total:,} bytes, {len(entries):,}", "save to .safetensors"
        )
    central = []
    offset = 0
    for name, parts in entries.items():
        local, record = _headers(name, sum(map(len, parts)), _crc(parts), offset)
        yield local
        yield from parts
        central.append(record)
        offset += len(local) + sum(map(len, parts))
    yield from central
    count, length = len(central), sum(map(len, central))
    yield END.pack(b"PK\5\6", 0, 0, count, count, length, offset, 0)


def index(file: BinaryIO, size: int, limit: Limit) -> tuple[dict[str, str], dict[str, Place]]:
    """Return the texts of a file, and the positions of its arrays."""
    file.seek(max(size - END.size, 0))  # no comment is allowed, so the end has a fixed place
    tail = file.read(END.size)
    if len(tail) != END.size:
        raise FormatError(f"at least {END.size} bytes", f"{size}", "was the file cut short?")
    _, _, _, _, count, length, start, _ = END.unpack(tail)
    if tail != END.pack(b"PK\5\6", 0, 0, count, count, length, start, 0) or start + length + END.size != size:
        raise FormatError("the end of a zip archive", "something else", "was the file cut short?")
    limit.spend(count * ITEMS_FOR_ENTRY)
    file.seek(start)
    records = file.read(length)
    notes: dict[str, str] = {}
    places: dict[str, Place] = {}
    at = offset = 0
    for _ in range(count):
        name, body, crc, next_at = _record(records, at)
        # the whole record is written again and compared: no field can have a value that this reader ignores
        local, record = _headers(name, body, crc, offset)
        file.seek(offset)
        if records[at:next_at] != record or file.read(len(local)) != local:
            raise FormatError(
                "an archive written by microfw", f"another record of {short(name)}", "do not repack the archive"
            )
        begin, offset, at = offset + len(local), offset + len(local) + body, next_at
        if offset > start:
            raise FormatError("entries before the archive's directory", f"{short(name)} after it")
        stem = name.removesuffix(".npy")
        if stem in places or name in notes:
            raise FormatError("each name once", short(name))
        if stem != name:
            places[stem] = _npy_place(file, begin, body)
        else:
            notes[name] = ascii_text(file.read(body))
            if zlib.crc32(notes[name].encode()) != crc:
                raise FormatError(f"the checksum of {short(name)}", "another", "the file is damaged")
    if offset != start or at != length:
        raise FormatError("entries without holes between them", "a hole")
    return notes, places


def _record(records: bytes, at: int) -> tuple[str, int, int, int]:
    """Return name, size, checksum and end of a record in the directory."""
    if len(records) - at < CENTRAL.size:
        raise FormatError("a record of the archive's directory", "fewer bytes", "was the file cut short?")
    fields = CENTRAL.unpack_from(records, at)
    end = at + CENTRAL.size + fields[10]
    try:
        return records[at + CENTRAL.size : end].decode(), fields[9], fields[7], end
    except UnicodeDecodeError:
        raise FormatError("names in UTF-8", "other bytes") from None


def _headers(name: str, size: int, crc: int, offset: int) -> tuple[bytes, bytes]:
    """Return the header of an entry, and its record in the directory at the end of the archive."""
    encoded = name.encode()
    flags = 0 if encoded.isascii() else UTF8
    common = (20, flags, 0, 0, DAY, crc, size, size, len(encoded), 0)
    local = LOCAL.pack(b"PK\3\4", *common) + encoded
    return local, CENTRAL.pack(b"PK\1\2", 20, *common, 0, 0, 0, 0, offset) + encoded


def _crc(parts: list[Any]) -> int:
    crc = 0  # piece by piece: joining the parts would copy the array
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc


def _npy_header(array: Array) -> bytes:
    text = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {array.shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"  # the array begins at a multiple of 64, as NumPy writes it
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode()


def _npy_place(file: BinaryIO, start: int, size: int) -> Place:
    """Return the position of the array in an npy file. The header is matched by a pattern, not evaluated."""
    file.seek(start)
    head = file.read(min(10, size))
    length = int.from_bytes(head[8:], "little")
    text = file.read(max(min(length, size - len(head)), 0))
    found = HEADER.fullmatch(ascii_text(text))
    if head[:8] != b"\x93NUMPY\1\0" or not found or found[1] not in DTYPES:
        raise FormatError("an npy file of numbers, version 1.0, in C order", short(text))
    dtype, shape = np.dtype(found[1]), tuple(int(n) for n in found[2].split(",") if n)
    left = size - 10 - length
    if size_of(dtype, shape, left) != left:
        raise FormatError(f"the {left:,} bytes of an array", f"shape {shape} of {dtype}")
    return Place(dtype, shape, start + 10 + length)
