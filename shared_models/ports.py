"""One port of a node: the sockets that listen, and the connections that come of it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiohttp import web

from shared_models.answering import continued, protocol_log
from shared_models.bodies import BODIES
from shared_models.connections import Connections
from shared_models.drain import CUT, Handshake, finish, stop_listening
from shared_models.fast_path import FastPath
from shared_models.http_settings import HTTPSettings

_BACKLOG = 1024
_LONGEST_HANDSHAKE = 60.0
_SHUTDOWN = 2.0
"""Seconds that a client has to agree that a connection over TLS ends."""


class PortUnavailable(OSError):
    """*port* of the setting *variable* cannot be listened on; ``errno`` and ``strerror`` say why."""

    def __init__(self, cause: OSError, port: int, variable: str) -> None:
        super().__init__(cause.errno, cause.strerror or str(cause))
        self.port = port
        self.variable = variable


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Address and port (0: the system chooses) that the setting *variable* names.

    *shared*: other processes listen on it, too. *tls* None: plain HTTP.
    """

    host: str
    port: int
    variable: str
    shared: bool = False
    tls: ssl.SSLContext | None = None


class Port:
    """Made by ``open_port``. *number*: on which it listens."""

    def __init__(self, server: asyncio.Server, connections: Connections, tls: Handshake) -> None:
        self.number: int = server.sockets[0].getsockname()[1]
        self._server = server
        self._connections = connections
        self._tls = tls

    def leave_the_fast_path(self) -> None:
        """From now on all requests go the ordinary way."""
        self._connections.fast_path = None

    async def stop_listening(self) -> None:
        """Takes on whoever has connected by now, and nobody else."""
        await stop_listening(self._server, self._connections, self._tls)

    async def finish(self, limit: float) -> None:
        """Returns when everybody has been answered, at the latest after *limit* seconds."""
        await finish(self._connections, limit)


@asynccontextmanager
async def open_port(
    app: web.Application,
    settings: HTTPSettings,
    where: Where,
    *,
    most: int,
    fast_path: FastPath | None = None,
) -> AsyncIterator[Port]:
    """*app* on a port, for *most* connections at a time, until the block ends.

    *fast_path* may take requests before it. Raises PortUnavailable.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=CUT)
    await runner.setup()
    assert runner.server is not None
    connections = Connections(
        runner.server,
        most=most,
        head_timeout=settings.head_timeout,
        max_head=4 * settings.max_header_size,
        write_timeout=settings.write_timeout,
        access_log=None,
        logger=protocol_log,
        auto_decompress=False,
        keepalive_timeout=settings.keep_alive,
        max_line_size=settings.max_header_size,
        max_field_size=settings.max_header_size,
        max_headers=settings.max_headers,
    )
    connections.bodies = app[BODIES]
    connections.continued = continued(app)
    connections.fast_path = fast_path
    try:
        tls = _handshake(where, settings)
        server = await _listening(connections, where, tls)
        try:
            yield Port(server, connections, tls)
        finally:
            server.close()
            connections.close()
    finally:
        await runner.cleanup()


def _handshake(where: Where, settings: HTTPSettings) -> Handshake:
    if where.tls is None:
        return {}
    limit = settings.head_timeout or _LONGEST_HANDSHAKE
    return {"ssl": where.tls, "ssl_handshake_timeout": limit, "ssl_shutdown_timeout": _SHUTDOWN}


async def _listening(connections: Connections, where: Where, tls: Handshake) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(
            connections, where.host, where.port, backlog=_BACKLOG, reuse_port=where.shared, **tls
        )
    except OSError as exc:
        raise PortUnavailable(exc, where.port, where.variable) from exc
