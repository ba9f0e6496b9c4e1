"""How a server stops: not ready, no longer listening, nothing left in flight, closed.

First it goes on as before, but ``/readyz`` says 503 and every answer closes its connection, so that load
balancers and clients move away by themselves. Then it stops listening; whoever has connected until then is
served. Connections on which nothing happens are closed, others when their request is answered, and after the
drain time, which is counted once, all of them.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from typing import Any, TypedDict

from shared_models.connections import Connections

log = logging.getLogger(__name__)

IDLE = 0.25
"""Seconds without a request after which a connection is closed: less, and one may just be on its way."""
ROUNDS = 5
"""Rounds of the event loop after which what it has accepted by itself has become a connection."""
GREETING = 5.0
"""Seconds that a client gets for its handshake which has connected just before a server stops."""
CUT = 0.5
"""Seconds that requests which are cut off get to clean up."""


class Handshake(TypedDict, total=False):
    """How a port speaks TLS, as event loops take it; empty where it does not. Seconds."""

    ssl: ssl.SSLContext
    ssl_handshake_timeout: float
    ssl_shutdown_timeout: float


async def stop_listening(server: asyncio.Server, connections: Connections, tls: Handshake) -> None:
    """Closes the listening sockets, and takes on everybody whom the system has connected by then.

    Those who are about to agree on TLS have ``GREETING`` seconds for it.
    """
    loop = asyncio.get_running_loop()
    kept = [one.dup() for one in server.sockets]
    # asyncio drops those whom it has accepted a moment before its server is closed.
    for one in server.sockets:
        loop.remove_reader(one.fileno())
    for _ in range(ROUNDS):
        await asyncio.sleep(0)
    server.close()
    waiting: list[socket.socket] = []
    for listener in kept:
        with listener:
            listener.setblocking(False)
            while True:
                try:
                    waiting.append(listener.accept()[0])
                except OSError:  # nobody is left, or no more files may be open
                    break
    await asyncio.gather(*(_take_on(client, connections, tls) for client in waiting))


async def _take_on(client: socket.socket, connections: Connections, tls: Handshake) -> None:
    if tls:
        tls = {**tls, "ssl_handshake_timeout": min(tls["ssl_handshake_timeout"], GREETING)}
    try:
        client.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(connections, client, **tls)
    except OSError:
        client.close()  # it has hung up, or does not speak TLS


async def finish(connections: Connections, limit: float) -> None:
    """Returns when all requests are answered and all connections closed, or *limit* seconds are over."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit
    while connections.open or connections.requests or connections.flying or connections.beginning:
        now = loop.time()
        for one in list(connections.open):
            if one.idle and now - one.idle_since >= IDLE:
                one.force_close()
        if now >= deadline:
            break
        connections.changed.clear()
        try:
            async with asyncio.timeout(min(deadline - now, IDLE / 2)):
                await connections.changed.wait()
        except TimeoutError:
            pass
    if left := len(connections.requests) + len(connections.flying):
        log.warning("%d requests are cut off after %g s", left, limit)
    for one in list(connections.open):
        one.cancel()
    for exchange in list(connections.flying):
        exchange.cut_off()
    cut: set[asyncio.Task[Any]] = set()
    while connections.beginning or connections.requests - cut:
        for request in connections.requests - cut:
            request.cancel()
        cut |= connections.requests
        # What has not begun yet could not say how it ended.
        await asyncio.sleep(0)
    if connections.requests:
        await asyncio.wait(set(connections.requests), timeout=CUT)
    connections.close()
