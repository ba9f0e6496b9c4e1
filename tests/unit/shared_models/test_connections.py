"""Clients that are slow, go away, want too much or are too many, with real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from shared_models.bodies import BODIES
from shared_models.web import HTTPSettings, body_pieces, client_gone, json_response, read_body, serving

LIMIT = 60.0
"""Seconds after which what should have happened has not."""
_LONG = dict.fromkeys(("keep_alive", "head_timeout", "read_timeout", "write_timeout"), 10 * LIMIT)
"""Limits of a server that a test does not set, so that no other one is seen in the place of its own."""


@asynccontextmanager
async def server(*routes: web.RouteDef, **settings: Any) -> AsyncIterator[int]:
    fields = {"port": 0, "host": "127.0.0.1", "drain": 5.0, **_LONG, **settings}
    async with serving(list(routes), HTTPSettings(**fields), node_type="test") as port:
        yield port


@asynccontextmanager
async def client(
    port: int, receives: int = 0
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection; *receives* bytes are all that its side takes unasked."""
    sock = socket.socket()
    if receives:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=receives or 1 << 16)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT):
        while not condition():
            await asyncio.sleep(0.005)


async def trickle(writer: asyncio.StreamWriter, piece: bytes, answered: asyncio.Task[bytes]) -> bytes:
    """Sends *piece* again and again until there is an answer; the answer."""
    async with asyncio.timeout(LIMIT):
        while not answered.done():
            writer.write(piece)
            await asyncio.wait({answered}, timeout=0.02)
    return await answered


def begin(work: Awaitable[bytes]) -> asyncio.Task[bytes]:
    return asyncio.ensure_future(work)  # type: ignore[return-value]


async def echo(request: web.Request) -> web.StreamResponse:
    return web.Response(body=await read_body(request))


GET = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"


# -- heads -------------------------------------------------------------------------------------


async def test_a_head_that_goes_on_for_too_long_ends_however_steadily_it_comes() -> None:
    async with server(head_timeout=0.2) as port, client(port) as (reader, writer):
        writer.write(b"GET /version HTTP/1.1\r\nX: ")
        answer = await trickle(writer, b"a", begin(reader.read()))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert answer.endswith(b'{"message":"Timed out while the request head was read"}\n')


async def test_headers_without_end_are_refused() -> None:
    async with server(max_header_size=1024, max_headers=10_000) as port, client(port) as (reader, writer):
        writer.write(b"GET /version HTTP/1.1\r\n")
        answer = await trickle(writer, b"X: 0123456789\r\n" * 20, begin(reader.read()))
    assert answer.startswith(b"HTTP/1.1 431 ")
    assert b"Connection: close" in answer


async def test_a_head_may_be_late_on_a_connection_that_was_nearly_idle_for_too_long() -> None:
    async with server(keep_alive=1.0) as port, client(port) as (reader, writer):
        writer.write(GET)
        await reader.readuntil(b"}\n")
        writer.write(GET[:20])
        await asyncio.sleep(1.5)
        writer.write(GET[20:])
        assert (await asyncio.wait_for(reader.readline(), LIMIT)).startswith(b"HTTP/1.1 200 ")


async def test_a_limit_of_zero_is_none() -> None:
    async with server(head_timeout=0.0, write_timeout=0.0) as port, client(port) as (reader, writer):
        for piece in (GET[:9], GET[9:]):
            writer.write(piece)
            await asyncio.sleep(0.05)
        assert (await asyncio.wait_for(reader.readline(), LIMIT)).startswith(b"HTTP/1.1 200 ")


async def test_an_idle_connection_is_closed() -> None:
    async with server(keep_alive=0.05) as port, client(port) as (reader, writer):
        writer.write(GET)
        await reader.readuntil(b"}\n")
        assert await asyncio.wait_for(reader.read(), LIMIT) == b""


async def test_a_connection_on_which_nothing_was_ever_sent_is_closed() -> None:
    async with server(keep_alive=0.05) as port, client(port) as (reader, _):
        assert await asyncio.wait_for(reader.read(), LIMIT) == b""


async def test_a_body_that_takes_long_is_no_head() -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
    async with server(web.post("/echo", echo), head_timeout=2.0) as port, client(port) as (reader, writer):
        for piece, pause in ((head[:9], 0.01), (head[9:], 0.01), (b"abc", 2.5), (b"d", 0.0)):
            writer.write(piece)
            await asyncio.sleep(pause)
        assert (await asyncio.wait_for(reader.readuntil(b"abcd"), LIMIT)).startswith(b"HTTP/1.1 200 ")


# -- bodies ------------------------------------------------------------------------------------


async def test_a_body_that_trickles_is_timed_out_though_the_client_is_never_silent() -> None:
    route = web.post("/echo", echo)
    async with server(route, read_timeout=0.2, min_rate=10_000) as port, client(port) as (reader, writer):
        writer.write(
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nConnection: close\r\n\r\n"
        )
        answer = await trickle(writer, b"x", begin(reader.readline()))
    assert b" 504 " in answer


async def test_without_a_least_speed_a_body_may_take_as_long_as_it_likes() -> None:
    route = web.post("/echo", echo)
    async with server(route, read_timeout=1.0, min_rate=0) as port, client(port) as (reader, writer):
        writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\nConnection: close\r\n\r\n")
        for _ in range(20):
            writer.write(b"x")
            await asyncio.sleep(0.06)
        assert b" 200 " in await asyncio.wait_for(reader.readline(), LIMIT)


async def test_who_reads_a_body_slowly_does_not_make_the_client_slow() -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        size = 0
        async for piece in body_pieces(request):
            size += len(piece)
            await asyncio.sleep(0.6)
        return json_response({"size": size})

    async with (
        server(web.post("/x", slow), read_timeout=0.5, min_rate=1 << 30) as port,
        client(port) as (reader, writer),
    ):
        writer.write(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000)
        assert (await asyncio.wait_for(reader.readuntil(b"}\n"), LIMIT)).endswith(b'{"size":300000}\n')


async def test_the_bodies_of_all_requests_are_bounded_and_their_room_comes_back() -> None:
    arrived, go = asyncio.Event(), asyncio.Event()
    held: list[int] = []

    async def hold(request: web.Request) -> web.StreamResponse:
        body = await read_body(request)
        arrived.set()
        await go.wait()
        held.append(request.app[BODIES].held)
        return json_response({"size": len(body)})

    def post(size: int) -> bytes:
        return b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size

    async with (
        server(web.post("/x", hold), max_bodies=1000) as port,
        client(port) as (first, to_first),
        client(port) as (second, to_second),
    ):
        to_first.write(post(900))
        await arrived.wait()
        to_second.write(post(200))
        refusal = await asyncio.wait_for(second.readuntil(b"}\n"), LIMIT)
        assert refusal.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1\r\n" in refusal
        to_second.write(post(100))
        go.set()
        for reader in (first, second):
            assert (await asyncio.wait_for(reader.readline(), LIMIT)).startswith(b"HTTP/1.1 200 ")
        to_second.write(post(1000))
        await asyncio.wait_for(second.readuntil(b'{"size":1000}\n'), LIMIT)
        # One that is larger than the bound alone is within its own limit.
        to_second.write(post(5000))
        await asyncio.wait_for(second.readuntil(b'{"size":5000}\n'), LIMIT)
    assert held[-1] == 5000


# -- answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [40 << 20, 3 << 20])
async def test_a_client_that_does_not_take_its_answer_is_cut_off(
    size: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def large(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"x" * size)

    async with (
        server(web.get("/x", large), write_timeout=0.3) as port,
        client(port, receives=4096) as (reader, writer),
    ):
        writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: "is cut off" in caplog.text)
        got = 0
        try:
            while piece := await asyncio.wait_for(reader.read(1 << 20), LIMIT):
                got += len(piece)
        except ConnectionError:
            pass
        assert got < size


async def test_a_handler_that_streams_to_nobody_ends() -> None:
    ended = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 100_000)
        finally:
            ended.set()

    async with (
        server(web.get("/x", endless), write_timeout=0.2) as port,
        client(port, receives=4096) as (_, writer),
    ):
        writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(ended.wait(), LIMIT)


async def test_a_slow_stream_that_goes_on_is_never_cut() -> None:
    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for number in range(40):
            await response.write(b"%d:" % number + b"x" * 40_000)
        return response

    async with (
        server(web.get("/x", events), write_timeout=1.5) as port,
        client(port, receives=4096) as (reader, writer),
    ):
        writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        got, began = 0, asyncio.get_running_loop().time()
        while piece := await asyncio.wait_for(reader.read(30_000), LIMIT):
            got += len(piece)
            await asyncio.sleep(0.04)
    assert got > 40 * 40_000
    assert asyncio.get_running_loop().time() - began > 1.5


async def test_events_that_come_rarely_are_waited_for() -> None:
    async def events(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for _ in range(3):
            await asyncio.sleep(0.2)
            await response.write(b"event")
        return response

    async with (
        server(web.get("/x", events), write_timeout=0.1, keep_alive=0.1) as port,
        client(port) as (reader, writer),
    ):
        writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), LIMIT)).count(b"event") == 3


async def test_a_handler_is_told_that_its_client_has_gone_and_goes_on_to_its_end() -> None:
    arrived, ended = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        arrived.set()
        await until(lambda: client_gone(request))
        await asyncio.sleep(0)
        ended.set()
        return json_response({})

    async with server(web.get("/x", handler)) as port:
        async with client(port) as (_, writer):
            writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
            await arrived.wait()
        await asyncio.wait_for(ended.wait(), LIMIT)


# -- how many ----------------------------------------------------------------------------------


async def test_connections_beyond_the_limit_are_told_so_and_closed_until_others_end() -> None:
    async with (
        server(max_connections=2) as port,
        client(port) as one,
    ):
        async with client(port) as two:
            for reader, writer in (one, two):
                writer.write(GET)
                await reader.readuntil(b"}\n")
            async with client(port) as (third, to_third):
                to_third.write(GET)
                answer = await asyncio.wait_for(third.read(), LIMIT)
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"Retry-After: 1\r\n" in answer
            assert b"Connection: close\r\n" in answer
            assert answer.endswith(b'{"message":"Too many connections, try again"}\n')
            one[1].write(GET)
            assert b" 200 " in await asyncio.wait_for(one[0].readline(), LIMIT)

        async def served() -> bool:
            async with client(port) as (reader, writer):
                writer.write(GET)
                return b" 200 " in await asyncio.wait_for(reader.readline(), LIMIT)

        async with asyncio.timeout(LIMIT):
            while not await served():
                pass


async def test_a_connection_too_many_that_says_nothing_is_closed() -> None:
    async with server(max_connections=1) as port, client(port) as (reader, writer):
        writer.write(GET)
        await reader.readuntil(b"}\n")
        async with client(port) as (other, _):
            assert await asyncio.wait_for(other.read(), LIMIT) == b""
