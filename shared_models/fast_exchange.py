"""One request on its fast path: from the parser of its connection to the bytes of its answer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from aiohttp import HttpVersion11

from shared_models.fast_path import Exchange, Handler, Pending

if TYPE_CHECKING:
    from shared_models.connections import Connection, Connections

METHOD = "POST"
LARGEST = 64 << 10
"""Bytes of a body; of a larger one aiohttp would hold the client back."""
_ORDINARY = ("expect", "traceparent", "upgrade")
"""Headers that ask for more than the fast path knows of."""


class FastExchange(Exchange):
    """Made by ``of``."""

    __slots__ = ("_all", "_connection", "_message", "_payload", "body", "headers", "path", "pending")

    def __init__(
        self, connection: Connection, connections: Connections, message: Any, payload: Any, body: bytes
    ) -> None:
        self._connection = connection
        self._all = connections
        self._message = message
        self._payload = payload
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
        self._over()
        if not self.gone:
            self._connection.answered(self, data)

    def hand_back(self, handler: Handler | None = None, abandoned: Callable[[], None] | None = None) -> bool:
        """See Exchange."""
        self._over()
        if self.gone:
            return False
        self._connection.handed_back(self._message, self._payload, handler, abandoned)
        return True

    def cut_off(self) -> None:
        """The server stops."""
        pending = self.pending
        self._over()
        if pending:
            pending.cut_off()

    def _over(self) -> None:
        self.pending = None  # each knows the other: a cycle for each request
        if self in self._all.flying:
            self._all.flying.discard(self)
            self._all.changed.set()
            if self._all.bodies:
                self._all.bodies.held -= len(self.body)
