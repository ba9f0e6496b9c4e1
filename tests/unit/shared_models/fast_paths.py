"""A server with a fast path that does as a test says, and clients that send it bytes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
import uvloop
from aiohttp import web

from shared_models.bodies import BODIES
from shared_models.fast_path import Exchange, FastPath, Pending
from shared_models.web import HTTPSettings, json_response, read_body, serving

LIMIT = 60.0
"""Seconds after which what should have happened has not."""
_LONG = dict.fromkeys(("keep_alive", "head_timeout", "read_timeout", "write_timeout", "drain"), 10 * LIMIT)
Test = Callable[[], Coroutine[Any, Any, None]]


def on_both_loops(test: Test) -> Callable[..., None]:
    """*test* on asyncio's event loop and on uvloop; whatever breaks in a callback fails it."""

    @pytest.mark.parametrize(
        "loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
    )
    def run(loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
        broken: list[dict[str, Any]] = []

        async def watched() -> None:
            asyncio.get_running_loop().set_exception_handler(lambda _, what: broken.append(what))
            await test()

        with asyncio.Runner(loop_factory=loop) as runner:
            runner.run(watched())
        assert not broken

    run.__doc__ = test.__doc__
    return run


class Taken(Pending):
    """A request that the fast path has; ``cut`` counts how often it was cut off."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.cut = 0

    def cut_off(self) -> None:
        self.cut += 1

    @property
    def transport(self) -> asyncio.Transport:
        """Of the server's side."""
        return cast("asyncio.Transport", self.connection.transport)

    @property
    def connection(self) -> Any:
        """The server's side."""
        return cast("Any", self.exchange)._connection

    def answer(self) -> None:
        """As ``fast``."""
        self.exchange.answer(whole(b"fast:" + self.exchange.body))


class Keeps:
    """A fast path that takes what is sent to /x, and keeps it until the test answers."""

    def __init__(self) -> None:
        self.taken: list[Taken] = []

    def __call__(self, exchange: Exchange) -> Pending | None:
        if exchange.path != "/x":
            return None
        self.taken.append(Taken(exchange))
        return self.taken[-1]

    async def takes(self, number: int = 1) -> Taken:
        """The one with that *number*, from 1."""
        await until(lambda: len(self.taken) >= number)
        return self.taken[number - 1]


def fast(exchange: Exchange) -> Pending | None:
    """Answers at once what is sent to /x."""
    if exchange.path == "/x":
        exchange.answer(whole(b"fast:" + exchange.body))
    return None


def whole(body: bytes) -> bytes:
    """A whole answer."""
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def post(body: bytes = b"", path: str = "/x", more: str = "") -> bytes:
    """A request; *more* headers end with CRLF."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    return head.encode("utf-8", "surrogateescape") + body


class Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> bytes:
        async with asyncio.timeout(LIMIT):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def answer(self) -> bytes:
        """The body of the next answer."""
        head = await self.head()
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        async with asyncio.timeout(LIMIT):
            return await self.reader.readexactly(int(length.split(b":")[1]))

    async def ends(self) -> bytes:
        """What comes until the server hangs up."""
        async with asyncio.timeout(LIMIT):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    def hang_up(self) -> None:
        self.writer.transport.abort()


class Node:
    """The server."""

    def __init__(self, port: int) -> None:
        self.port = port

    @asynccontextmanager
    async def client(self, receives: int = 0) -> AsyncIterator[Client]:
        """A connection; *receives* bytes are all that its side takes unasked."""
        sock = socket.socket()
        if receives:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=receives or 1 << 16)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            yield Client(reader, writer)
        finally:
            writer.transport.abort()

    async def held(self) -> int:
        """Bytes of bodies that the server says it has."""
        async with self.client() as client:
            client.send(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
            return int((await client.answer()).split(b":")[1].split(b"}")[0])

    async def holds(self, size: int) -> None:
        """Returns when it has *size* bytes of bodies."""
        async with asyncio.timeout(LIMIT):
            while await self.held() != size:
                pass


@asynccontextmanager
async def server(fast_path: FastPath, *routes: web.RouteDef, **settings: Any) -> AsyncIterator[Node]:
    """What the fast path leaves is answered by handlers: ``ordinary:`` and the body."""
    fields = {"port": 0, "host": "127.0.0.1", **_LONG, **settings}
    table = [
        web.post("/x", ordinary),
        web.post("/other", ordinary),
        web.get("/x", ordinary),
        web.get("/held", _held),
    ]
    async with serving(
        [*table, *routes], HTTPSettings(**fields), node_type="test", fast_path=fast_path
    ) as port:
        yield Node(port)


async def ordinary(request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"ordinary:" + await read_body(request))


async def _held(request: web.Request) -> web.StreamResponse:
    return json_response({"held": request.app[BODIES].held})


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():
            await asyncio.sleep(0.002)


async def turns(number: int = 5) -> None:
    """So many turns of the event loop: what has been sent until then is read."""
    for _ in range(number):
        await asyncio.sleep(0)
