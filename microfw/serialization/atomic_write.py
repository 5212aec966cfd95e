"""Atomic, durable writing: after any failure, a file is either complete or unchanged.

The new content goes into a temporary file in the same folder. The file is flushed to the disk and renamed to its final
name; then the folder is flushed. A process holds a lock on its temporary file. Temporary files without a lock are
leftovers of killed processes.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from hashlib import sha256
from typing import Any

from microfw.errors import CheckpointError, FileError

try:
    import fcntl

    LOCKS = True
except ImportError:  # Windows, where an open file cannot be removed
    LOCKS = False

SUFFIX = ".partial"


def atomic_write(path: str, pieces: Iterable[Any], kind: type[CheckpointError | FileError] = CheckpointError) -> None:
    """Write pieces of bytes to a file. When the function returns, they are on the disk.

    Parameters
    ----------
    path : str
        File to create or replace.
    pieces : iterable of bytes-like
        The content.
    kind : type
        Exception type to raise.

    Raises
    ------
    CheckpointError or FileError
        If writing fails: full disk, read-only folder, device error. An existing file is then unchanged, unless the
        message states otherwise.
    """
    where = f"saving {path}"
    path = os.path.realpath(path)  # the file behind a link is replaced, not the link
    folder, name = os.path.split(path)
    try:
        mode = _mode(path, where, kind)
        _remove_leftovers(folder, _stem(name))  # first: they may be what fills the disk
        _replace(path, pieces, *_create(folder, _stem(name), mode))
    except kind:
        raise
    except OSError as error:
        fix = "nothing was changed: free space, or choose another place"
        raise kind(where, "a folder that can be written to", _reason(error), fix) from error
    try:
        _sync_folder(folder)
    except OSError as error:
        fix = "the new file is complete and in place, but may not outlast a power cut"
        raise kind(where, "the folder to be forced to the disk", _reason(error), fix) from error


def check_writable(path: str, kind: type[CheckpointError | FileError] = FileError) -> None:
    """Raise the error of `atomic_write` if the folder is missing or read-only. Call it before long work."""
    where = f"saving {path}"
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    _mode(path, where, kind)
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
        got = "one that is read-only" if os.path.isdir(folder) else "no such folder"
        raise kind(where, "a folder that can be written to", got, "make it, or choose another place")


def _replace(path: str, pieces: Iterable[Any], descriptor: int, temporary: str) -> None:
    try:
        with open(descriptor, "wb") as file:
            for piece in pieces:
                file.write(piece)
            # without fsync, a power cut after the rename can leave an empty file under the final name
            file.flush()
            os.fsync(descriptor)
            if not LOCKS:  # Windows does not rename open files
                file.close()
            os.replace(temporary, path)  # while the lock is held
    except BaseException:  # Ctrl-C too
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _stem(name: str) -> str:
    """Return a name that is short enough to add the suffix: file systems limit names to 255 bytes."""
    return name if len(os.fsencode(name)) <= 200 else sha256(os.fsencode(name)).hexdigest()


def _create(folder: str, name: str, mode: int | None) -> tuple[int, str]:
    """Create and lock a temporary file in a folder; return its descriptor and path."""
    while True:
        # in the same folder: a rename is atomic within a file system only; O_EXCL follows no link that is there
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
        os.close(descriptor)  # another process removed it before it was locked


def _remove_leftovers(folder: str, name: str) -> None:
    """Remove leftovers of killed processes: temporary files of this name without a lock."""
    for entry in os.listdir(folder):
        if not entry.startswith(f".{name}.") or not entry.endswith(SUFFIX):
            continue
        path = os.path.join(folder, entry)
        with contextlib.suppress(OSError):
            if not LOCKS:
                os.unlink(path)
                continue
            descriptor = os.open(path, os.O_RDONLY)
            try:  # a living process holds the lock, and flock raises
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)
            finally:
                os.close(descriptor)


def _sync_folder(folder: str) -> None:
    """Flush the entries of a folder to the disk."""
    if os.name == "nt":  # folders cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _mode(path: str, where: str, kind: type[CheckpointError | FileError]) -> int | None:
    """Return the permissions of an existing file, or None."""
    try:
        status = os.stat(path)
    except OSError:  # no such file, or what creating it raises, too
        return None
    if not stat.S_ISREG(status.st_mode):  # a rename would replace /dev/null
        raise kind(where, "a file to replace", "a folder or a device", "choose another name")
    return stat.S_IMODE(status.st_mode)


def _reason(error: OSError) -> str:
    return f"{type(error).__name__} ({error.strerror or error})"
