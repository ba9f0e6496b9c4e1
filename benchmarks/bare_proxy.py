"""The least that can be called a gateway: an aiohttp handler that forwards to a function's socket.

What our node is measured against. It shares no code with it, so that it stays as it is when the node gets
faster. ``python -m benchmarks.bare_proxy PORT SOCKET [SOCKET ...]``
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import httptools
import uvloop
from aiohttp import web

_HEAD = (
    b"POST /call HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nFn-Call-Id: CALL\r\n"
    b"Fn-Deadline: 2018-06-01T00:00:00Z\r\nContent-Type: text/plain\r\n\r\n"
)
_LAST = b"0\r\n\r\n"


class Function(asyncio.Protocol):
    """One connection to a function, one call at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answered: asyncio.Future[bytes] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []

    async def call(self, body: bytes) -> bytes:
        """What the function answers to *body*."""
        assert self._transport
        self._parser, self._body = httptools.HttpResponseParser(self), []
        self._answered = asyncio.get_running_loop().create_future()
        if body:
            self._transport.writelines((_HEAD, b"%x\r\n" % len(body), body, b"\r\n", _LAST))
        else:
            self._transport.write(_HEAD + _LAST)
        return await self._answered

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """asyncio's."""
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        """httptools'."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """httptools'."""
        if self._answered and not self._answered.done():
            self._answered.set_result(b"".join(self._body))


async def main(port: int, sockets: list[str]) -> None:
    """Serves until it is killed, one call at a time per function process."""
    loop = asyncio.get_running_loop()
    free: asyncio.LifoQueue[Function] = asyncio.LifoQueue()
    for path in sockets:
        free.put_nowait((await loop.create_unix_connection(Function, path))[1])

    async def forward(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        function = await free.get()
        try:
            answer = await function.call(body)
        finally:
            free.put_nowait(function)
        return web.Response(body=answer, headers={"Content-Type": "text/plain"})

    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/", forward)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as running:
        running.run(main(int(sys.argv[1]), sys.argv[2:]))
