"""An inbox: where processes that run a part of a search send what they have found.

Messages are bytes, and are not unpickled. A key that only copies of the owner have lets them in.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from multiprocessing.connection import Client, Connection, Listener
from typing import Any, NamedTuple


class Address(NamedTuple):
    """Where an inbox is, and what opens it."""

    place: Any
    key: bytes

    def send(self, message: bytes) -> None:
        """Deliver a message, and wait until it has been taken.

        Raises
        ------
        OSError
            If nobody is there any more.
        """
        try:
            with Client(self.place, authkey=self.key) as connection:
                connection.send_bytes(message)
                connection.recv_bytes()
        except EOFError as error:
            raise ConnectionError("the inbox was closed") from error


def opened(take: Callable[[bytes], None], owner: Any, host: str | None = None) -> Address:
    """Open an inbox that lives as long as its owner does.

    Parameters
    ----------
    take : callable
        What is called with each message, in a thread; it must not hold on to the owner.
    owner : object
        When it is collected, the inbox is closed.
    host : str, optional
        The name of this machine, for processes on others; by default only those on this one can reach it.
    """
    key = os.urandom(32)
    listener = Listener(None if host is None else (host, 0), backlog=128, authkey=key)
    threading.Thread(target=_accept, args=(listener, take), daemon=True).start()
    weakref.finalize(owner, listener.close)
    return Address(listener.address, key)


def _accept(listener: Listener, take: Callable[[bytes], None]) -> None:
    while True:
        try:
            connection = listener.accept()
        except OSError:  # closed
            return
        except Exception:  # who did not know the key, or went away while asked for it
            continue
        threading.Thread(target=_receive, args=(connection, take), daemon=True).start()


def _receive(connection: Connection[Any, Any], take: Callable[[bytes], None]) -> None:
    with connection:
        try:
            take(connection.recv_bytes())
            connection.send_bytes(b"taken")
        except (EOFError, OSError):
            return
