"""Clients that have not taken all that they were sent: whoever takes nothing for too long is cut off.

Only they are looked at, and only while there are any.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shared_models.connection import Connection

log = logging.getLogger(__name__)


class SlowClients:
    """Of one server. A client may take nothing for *write_timeout* seconds."""

    def __init__(self, write_timeout: float) -> None:
        self._write_timeout = write_timeout
        self._slow: dict[Connection, tuple[int, float]] = {}
        """What of each was taken when it was last seen to change, and when that was."""
        self._sweeper: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def watch(self, connection: Connection) -> None:
        """Its client has not taken all that it was sent: the connection is cut unless that goes on."""
        self._slow.setdefault(connection, (connection.taken, self._loop.time()))
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self._write_timeout / 4, self._sweep)

    def close(self) -> None:
        """Looks no more."""
        if self._sweeper:
            self._sweeper.cancel()

    def _sweep(self) -> None:
        self._sweeper, now = None, self._loop.time()
        for connection, (before, since) in list(self._slow.items()):
            taken = connection.taken
            if connection.has_taken_all:
                del self._slow[connection]
            elif taken != before:
                self._slow[connection] = taken, now
            elif now - since >= self._write_timeout:
                log.info("a client took nothing of its answer for %g s and is cut off", self._write_timeout)
                del self._slow[connection]
                connection.abort()
        if self._slow:
            self._sweeper = self._loop.call_later(self._write_timeout / 4, self._sweep)
