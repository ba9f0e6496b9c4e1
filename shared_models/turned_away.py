"""Clients that are turned away before anything is made of what they ask: told why, and hung up on."""

from __future__ import annotations

import asyncio
from typing import cast

from shared_models import wire

LINGER = 1.0
"""Seconds that a client which is turned away gets to read why."""
TURNED_AWAY = 1000
"""Clients that are told so at the same time; beyond that they are just cut off."""


class TurnedAway(asyncio.Protocol):
    """A connection too many: told so once it asks for something, and closed."""

    def __init__(self, others: set[TurnedAway]) -> None:
        self._others = others
        self._told = False
        self._link: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._link = cast("asyncio.Transport", transport)
        if len(self._others) >= TURNED_AWAY:
            self._link.abort()
            return
        self._others.add(self)
        asyncio.get_running_loop().call_later(LINGER, self._link.abort)

    def data_received(self, data: bytes) -> None:
        # The rest of what was asked is read as well: unread, it would cut the answer off.
        if self._link and not self._told:
            self._told = True
            say(
                self._link,
                503,
                "Service Unavailable",
                "Too many connections, try again",
                "Retry-After: 1\r\n",
            )

    def connection_lost(self, exc: Exception | None) -> None:
        self._others.discard(self)

    def abort(self) -> None:
        """Ends it at once."""
        if self._link:
            self._link.abort()


def say(transport: asyncio.Transport, status: int, reason: str, message: str, more: str = "") -> None:
    """Answers without having seen a request, and that this is all."""
    body = wire.encode({"message": message})
    head = (
        f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n{more}Connection: close\r\n\r\n"
    )
    transport.write(head.encode() + body)
    if transport.can_write_eof():
        transport.write_eof()
