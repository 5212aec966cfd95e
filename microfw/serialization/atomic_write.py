"""Durable writing: a file is there wholly, or as it was before, whatever happens meanwhile.

The new content goes into a file beside the old one, which is forced to the disk, takes the old one's name in one
step, and then the folder is forced to the disk too. A process holds a lock on what it is writing, so that what a
killed process left behind can be told from what another one is about to finish.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from microfw.errors import CheckpointError, FileError, message

try:
    import fcntl

    LOCKS = True
except ImportError:  # Windows, where nobody can remove a file that is open
    LOCKS = False

SUFFIX = ".partial"


def atomic_write(path: str, pieces: Iterable[Any], kind: type[CheckpointError | FileError] = CheckpointError) -> None:
    """Write pieces of bytes to a file. When this returns, they are on the disk.

    Parameters
    ----------
    path : str
        The file, which is created or replaced.
    pieces : iterable of bytes-like
        The content.
    kind : type
        The exception to raise.

    Raises
    ------
    CheckpointError or FileError
        If it cannot be done: a full disk, a folder that is read-only, an error of the device. The file that was
        there before is then as it was, unless the message says otherwise.
    """
    where = f"saving {path}"
    path = os.path.realpath(path)  # the file behind a link is replaced, not the link
    folder, name = os.path.split(path)
    try:
        mode = _mode(path, where, kind)
        _sweep(folder, _stem(name))
        _replace(path, pieces, *_create(folder, _stem(name), mode))
    except kind:
        raise
    except OSError as error:
        fix = "nothing was changed: free space, or choose another place"
        raise kind(message(where, "a folder that can be written to", _reason(error), fix)) from error
    try:
        _settle(folder)
    except OSError as error:
        fix = "the new file is complete and in place, but may not outlast a power cut"
        raise kind(message(where, "the folder to be forced to the disk", _reason(error), fix)) from error


def check_writable(path: str, kind: type[CheckpointError | FileError] = FileError) -> None:
    """Raise what `atomic_write` would raise for a folder that is missing or read-only, before long work begins."""
    where = f"saving {path}"
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    _mode(path, where, kind)
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
        got = "one that is read-only" if os.path.isdir(folder) else "no such folder"
        raise kind(message(where, "a folder that can be written to", got, "make it, or choose another place"))


def _replace(path: str, pieces: Iterable[Any], descriptor: int, temporary: str) -> None:
    try:
        with open(descriptor, "wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(descriptor)
            if not LOCKS:
                file.close()
            os.replace(temporary, path)  # while the lock is held
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _stem(name: str) -> str:
    """Return a name that leaves room for the suffix: file systems limit names to 255 bytes."""
    return name if len(os.fsencode(name)) <= 200 else sha256(os.fsencode(name)).hexdigest()


def _create(folder: str, name: str, mode: int | None) -> tuple[int, str]:
    """Return a descriptor of a new file beside the old one, locked, and its path."""
    while True:
        temporary = os.path.join(folder, f".{name}.{os.urandom(4).hex()}{SUFFIX}")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        try:
            if not LOCKS:
                return descriptor, temporary
            with contextlib.suppress(OSError):  # some network file systems have no locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if mode is not None:
                with contextlib.suppress(OSError):
                    os.fchmod(descriptor, mode)
            if os.fstat(descriptor).st_nlink:
                return descriptor, temporary
        except BaseException:
            os.close(descriptor)
            os.unlink(temporary)
            raise
        os.close(descriptor)  # another process swept it away before it was locked


def _sweep(folder: str, name: str) -> None:
    """Remove what killed processes left of this file: nobody holds a lock on it."""
    for entry in os.listdir(folder):
        if not entry.startswith(f".{name}.") or not entry.endswith(SUFFIX):
            continue
        path = os.path.join(folder, entry)
        with contextlib.suppress(OSError):
            if not LOCKS:
                os.unlink(path)
                continue
            descriptor = os.open(path, os.O_RDONLY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)
            finally:
                os.close(descriptor)


def _settle(folder: str) -> None:
    """Force a folder's entries to the disk."""
    if os.name == "nt":  # where folders cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _mode(path: str, where: str, kind: type[CheckpointError | FileError]) -> int | None:
    """Return the permissions of the file that is to be replaced, None if there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(status.st_mode):
        raise kind(message(where, "a file to replace", "a folder or a device", "choose another name"))
    return stat.S_IMODE(status.st_mode)


def _reason(error: OSError) -> str:
    return f"{type(error).__name__} ({error.strerror or error})"
