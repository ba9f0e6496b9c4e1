"""One request on its fast path: from the parser of its connection to the bytes of its answer."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from aiohttp import HttpVersion11

from shared_models.fast_path import Exchange, Handler, Pending, Unread

if TYPE_CHECKING:
    from shared_models.connection import Connection
    from shared_models.connections import Connections

log = logging.getLogger(__name__)

METHOD = "POST"
LARGEST = 64 << 10
"""Bytes of a body; of a larger one aiohttp would hold the client back."""
_ORDINARY = ("expect", "upgrade")
"""Headers that ask for more than the fast path knows of."""


class Rest:
    """What is left of a request that its fast path has handed back, and had had since *began*.

    *size* bytes of its body are held on until it is over.
    """

    __slots__ = ("began", "handler", "size", "unread")

    def __init__(self, handler: Handler, unread: Unread | None, size: int, began: float) -> None:
        self.handler = handler
        self.unread = unread
        self.size = size
        self.began = began


class FastExchange(Exchange):
    """Made by ``of``."""

    __slots__ = (
        "_all", "_began", "_connection", "_message", "_payload", "body", "headers", "path", "pending",
    )  # fmt: skip

    def __init__(
        self, connection: Connection, connections: Connections, message: Any, payload: Any, body: bytes
    ) -> None:
        self._connection = connection
        self._all = connections
        self._message = message
        self._payload = payload
        self._began = time.perf_counter()
        self.path = message.path
        self.headers = message.headers
        self.body = body
        self.pending: Pending | None = None
        connections.flying.add(self)
        if connections.bodies:
            connections.bodies.held += len(body)

    @classmethod
    def of(
        cls, connection: Connection, connections: Connections, message: Any, payload: Any
    ) -> FastExchange | None:
        """The request of a parsed *message*; None when it is not whole, or asks for something special."""
        if (
            getattr(message, "method", "") != METHOD
            or message.version != HttpVersion11
            or message.should_close
            or message.upgrade
            or message.compression
            or not payload.is_eof()
            or payload.exception() is not None
            or any(name in message.headers for name in _ORDINARY)
        ):
            return None
        size, bodies = payload.total_bytes, connections.bodies
        if size > LARGEST:
            return None
        if bodies and (
            (bodies.largest and size > bodies.largest)
            or (bodies.most and bodies.held and bodies.held + size > bodies.most)
        ):
            return None
        return cls(connection, connections, message, payload, b"".join(payload._buffer) if size else b"")

    @property
    def gone(self) -> bool:
        """See Exchange."""
        transport = self._connection.transport
        return transport is None or transport.is_closing()

    def answer(self, data: bytes) -> None:
        """See Exchange."""
        if self._over() and not self.gone:
            self._connection.answered(data)

    def hand_back(self, handler: Handler | None = None, unread: Unread | None = None) -> None:
        """See Exchange."""
        if not self._over():
            return
        rest, bodies = None, self._all.bodies
        if handler:
            rest = Rest(handler, unread, len(self.body), self._began)
            if bodies:
                bodies.held += rest.size
        if not self.gone:
            self._connection.handed_back(self._message, self._payload, rest)
        elif rest:
            self._all.go_on_unread(rest)

    def cut_off(self) -> None:
        """The server stops."""
        pending = self.pending
        if self._over() and pending:
            try:
                pending.cut_off()
            except Exception:
                log.exception("a request could not be cut off")

    def _over(self) -> bool:
        """Whether it was not before."""
        self.pending = None  # each knows the other: a cycle for each request
        if self not in self._all.flying:
            return False
        self._all.flying.discard(self)
        self._all.changed.set()
        if self._all.bodies:
            self._all.bodies.held -= len(self.body)
        return True
