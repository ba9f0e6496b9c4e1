"""One connection of a server, as aiohttp serves it, and what is needed beyond that.

A head must be complete in time and within a size, the fast path takes what it can before aiohttp makes
anything of it, and whoever stops the server sees what the connection does.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web
from aiohttp.web_request import BaseRequest

from shared_models.fast_exchange import FastExchange, Rest
from shared_models.turned_away import LINGER, say
from shared_models.unreadable import unreadable

if TYPE_CHECKING:
    from shared_models.connections import Connections

log = logging.getLogger(__name__)

_Handler = Callable[[BaseRequest], Awaitable[web.StreamResponse]]


class Connection(web.RequestHandler):
    """Made by ``Connections``."""

    __slots__ = (
        "_all", "_behind", "_fast", "_head_size", "_head_timer", "_link", "_rest", "_sent", "_writer",
        "idle_since",
    )  # fmt: skip

    def __init__(self, connections: Connections, server: web.Server, **options: Any) -> None:
        super().__init__(server, **options)
        self._all = connections
        self._head_size = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._link: asyncio.Transport | None = None
        self._writer: Any = None
        self._fast: FastExchange | None = None
        """The request that has been taken by the fast path."""
        self._behind = bytearray()
        """What has come behind it."""
        self._rest: Rest | None = None
        """Of a request that the fast path has handed back, until that begins."""
        self._sent = 0
        self.idle_since = self._loop.time()

    @property
    def idle(self) -> bool:
        """Whether it waits for a request of which nothing has arrived."""
        return self._waits and self._head_timer is None

    @property
    def _waits(self) -> bool:
        return self._waiter is not None and not self._waiter.done() and self._fast is None

    @property
    def taken(self) -> int:
        """A number that changes when the client takes something of the answer that it is sent."""
        unsent = self._link.get_write_buffer_size() if self._link else 0
        return self._sent + (self._writer.output_size if self._writer else 0) - unsent

    @property
    def has_taken_all(self) -> bool:
        """Whether nothing is left to send, or nobody is left to send it to."""
        return self._link is None or not self._link.get_write_buffer_size()

    def abort(self) -> None:
        """Ends it at once, whatever is on its way."""
        if self._link:
            self._link.abort()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What aiohttp asks for when it could not read a request, or a handler broke down."""
        if status == 400 and not request.writer.output_size:
            return unreadable(exc, message or "")
        return super().handle_error(request, status, exc, message)

    def cancel(self) -> None:
        """Ends it at once, and what serves it."""
        task = self._task_handler
        self._go_on_unread(task)
        if task:
            task.cancel()
        self.abort()

    def _go_on_unread(self, task: asyncio.Task[None] | None) -> None:
        rest, self._rest = self._rest, None
        if rest is not None:
            if task:
                task.cancel()  # it would take the request for one that nobody has begun
            self._all.go_on_unread(rest)

    # -- what asyncio and aiohttp call ---------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._link = cast("asyncio.Transport", transport)
        self._all.open.add(self)
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._head_done()
        self._link = None
        self._behind.clear()
        self._all.open.discard(self)
        self._all.changed.set()
        task = self._task_handler
        super().connection_lost(exc)
        self._go_on_unread(task)

    def data_received(self, data: bytes) -> None:
        if self._close or self._force_close:
            return
        if self._fast is not None or self._behind:
            self._behind += data
            if len(self._behind) > self._all.max_head and self._link is not None:
                self._link.pause_reading()
            return
        # Who does not take what it is sent gets no more of it: only a task can wait for that.
        if self._all.fast_path is None or not self._waits or self._paused:
            super().data_received(data)
        elif self._received(data):
            return
        if not data:
            return
        if not self._waits:
            # All of a head has arrived, or what arrives is a body.
            if self._head_timer is not None:
                self._head_done()
            return
        self._head_size += len(data)
        if self._head_size > self._all.max_head:
            self._turn_away(431, "Request Header Fields Too Large", "Request header too large")
        elif self._head_timer is None:
            self._head_timer = self._loop.call_later(self._all.head_timeout, self._head_too_slow)

    def _received(self, data: bytes) -> bool:
        """Feeds the parser; True when the fast path has taken what came of it."""
        # Nobody is woken yet: what the fast path takes is no task's.
        waiter, self._waiter = self._waiter, None
        try:
            super().data_received(data)
        finally:
            self._waiter = waiter
        if not self._messages or waiter is None or waiter.done():
            return False
        if len(self._messages) == 1 and not self._upgraded and self._take(*self._messages[0]):
            return True
        waiter.set_result(None)
        return False

    def _take(self, message: Any, payload: Any) -> bool:
        exchange = FastExchange.of(self, self._all, message, payload)
        if exchange is None:
            return False
        self._fast = exchange
        del self._messages[0]
        self._head_done()
        fast_path = self._all.fast_path
        assert fast_path is not None
        try:
            pending = fast_path(exchange)
        except Exception:
            log.exception("the fast path broke down, the request goes the ordinary way")
            pending = None
        if pending is None and self._fast is exchange:
            exchange.hand_back()
        elif self._fast is exchange:
            exchange.pending = pending
        return True

    def answered(self, data: bytes) -> None:
        """The fast path's answer."""
        assert self._link is not None
        self._link.write(data)
        self._sent += len(data)
        if not self.has_taken_all:
            self._all.slow.watch(self)
        if self._parser is not None:
            self._parser.message_consumed()
        self._keepalive = True
        self.idle_since = self._loop.time()
        self._next_keepalive_close_time = self.idle_since + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(
                self._next_keepalive_close_time, self._process_keepalive
            )
        self._over()

    def handed_back(self, message: Any, payload: Any, rest: Rest | None) -> None:
        """The request goes to the task of this connection, as if it had just come."""
        self._rest = rest
        self._messages.appendleft((message, payload))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        self._over()

    def _over(self) -> None:
        self._fast = None
        if self._behind:
            # What comes until then goes behind it.
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        behind, self._behind = bytes(self._behind), bytearray()
        if self._link is not None and not self._link.is_closing():
            self._link.resume_reading()
        self.data_received(behind)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._all.slow.watch(self)

    async def _handle_request(
        self, request: BaseRequest, start_time: float | None, request_handler: _Handler
    ) -> tuple[web.StreamResponse, bool]:
        task = asyncio.current_task()
        assert task is not None
        self._writer = request.writer
        rest, self._rest = self._rest, None
        if rest is not None:
            request_handler = cast("_Handler", self._all.continued(rest))
            if self._all.bodies:
                self._all.bodies.by_request[id(request)] = rest.size
        self._all.requests.add(task)
        try:
            return await super()._handle_request(request, start_time, request_handler)
        finally:
            self._all.requests.discard(task)
            self._all.changed.set()
            self.idle_since = self._loop.time()
            if not self.has_taken_all:
                self._all.slow.watch(self)

    def _process_keepalive(self) -> None:
        if self._head_timer is None and self._fast is None:
            super()._process_keepalive()
        else:
            # A request is just arriving, within limits of its own.
            self._keepalive_handle = None

    # -- heads ---------------------------------------------------------------------------------

    def _head_done(self) -> None:
        self._head_size = 0
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_too_slow(self) -> None:
        self._turn_away(408, "Request Timeout", "Timed out while the request head was read")

    def _turn_away(self, status: int, reason: str, message: str) -> None:
        self._head_done()
        assert self._link is not None
        say(self._link, status, reason, message)
        self.close()
        self._loop.call_later(LINGER, self._link.abort)
