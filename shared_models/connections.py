"""The connections of a server: how many, what is in flight on them, and how they end.

There are no more of them than allowed, and a server that stops knows what is still in flight.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from aiohttp import web

from shared_models import connection_counts
from shared_models.bodies import Bodies
from shared_models.connection import Connection
from shared_models.fast_exchange import FastExchange, Rest
from shared_models.fast_path import FastPath, Handler
from shared_models.open_files import possible_connections
from shared_models.slow_clients import SlowClients
from shared_models.turned_away import TurnedAway

log = logging.getLogger(__name__)

NEVER = 365 * 86400.0
"""Seconds that stand for no limit."""


class Connections:
    """All connections of one server; makes their protocols. Times in seconds, 0: no limit; sizes in bytes."""

    def __init__(
        self, server: web.Server, *, most: int, head_timeout: float, max_head: int, write_timeout: float,
        **options: Any,
    ) -> None:  # fmt: skip
        self.head_timeout = head_timeout or NEVER
        self.max_head = max_head
        self.open: set[Connection] = set()
        self.requests: set[asyncio.Task[Any]] = set()
        """Requests in flight, those of clients that have gone away among them."""
        self.beginning: set[asyncio.Task[Any]] = set()
        """Of requests in flight, those that are about to go on without their clients."""
        self.changed = asyncio.Event()
        """Set when a connection is closed, or a request has been answered."""
        self.flying: set[FastExchange] = set()
        """Requests that the fast path has, those of clients that have gone away among them."""
        self.fast_path: FastPath | None = None
        self.bodies: Bodies | None = None
        self.continued: Callable[[Rest], Handler] = lambda rest: rest.handler
        """What goes on with a request that the fast path has handed back to a handler."""
        self.slow = SlowClients(write_timeout or NEVER)
        self._server = server
        self._options = options
        self._most = possible_connections(most)
        self._turned_away: set[TurnedAway] = set()
        self._loop = asyncio.get_running_loop()
        connection_counts.servers.add(self)

    def __call__(self) -> asyncio.BaseProtocol:
        """What serves one more connection."""
        if len(self.open) < self._most:
            return Connection(self, self._server, loop=self._loop, **self._options)
        return TurnedAway(self._turned_away)

    def go_on_unread(self, rest: Rest) -> None:
        """The client of a request that the fast path has handed back is gone."""
        task = self._loop.create_task(self._unread(rest))
        self.beginning.add(task)
        task.add_done_callback(self.beginning.discard)

    async def _unread(self, rest: Rest) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.beginning.discard(task)
        self.requests.add(task)
        try:
            if rest.unread:
                await rest.unread()
        except Exception:
            log.exception("a request whose client has gone broke down")
        finally:
            if self.bodies:
                self.bodies.held -= rest.size
            self.requests.discard(task)
            self.changed.set()

    def close(self) -> None:
        """Cuts off whoever is still there."""
        self.slow.close()
        for one in list(self.open):
            one.abort()
        for other in list(self._turned_away):
            other.abort()
