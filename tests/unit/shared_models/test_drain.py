"""A server that stops loses no request, and takes no longer than it may."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import uvloop
from aiohttp import web

from shared_models.web import HTTPSettings, json_response, read_body, serving, stopping

LIMIT = 60.0
DRAIN = 60.0
"""Seconds for which a server waits for requests when a test does not say; far longer than a stop takes."""
GET = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"
Loop = Callable[[], asyncio.AbstractEventLoop]
both_loops = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])


@asynccontextmanager
async def server(*routes: web.RouteDef, **settings: Any) -> AsyncIterator[int]:
    fields = {"port": 0, "host": "127.0.0.1", "drain": DRAIN, **settings}
    async with serving(list(routes), HTTPSettings(**fields), node_type="test") as port:
        yield port


def run(loop: Loop, main: Any) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main)


async def echo(request: web.Request) -> web.StreamResponse:
    return web.Response(body=await read_body(request))


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    await asyncio.wait({asyncio.ensure_future(writer.wait_closed())})


@both_loops
@pytest.mark.parametrize("not_ready", [0.0, 0.3])
def test_clients_that_ask_without_a_pause_lose_no_request(loop: Loop, not_ready: float) -> None:
    served = {"before": 0, "after": 0}
    began = "before"

    async def ask(port: int) -> None:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
            while True:
                try:
                    # Not a GET: that the client would repeat by itself.
                    async with session.post("/echo", data=b"x" * 100) as answer:
                        assert (answer.status, await answer.read()) == (200, b"x" * 100)
                        served[began] += 1
                except aiohttp.ClientConnectorError:
                    return  # nobody listens any more

    async def main() -> None:
        nonlocal began
        route = web.post("/echo", echo)
        async with asyncio.TaskGroup() as clients, server(route, not_ready=not_ready) as port:
            for _ in range(20):
                clients.create_task(ask(port))
            async with asyncio.timeout(LIMIT):
                while served["before"] < 500:
                    await asyncio.sleep(0.01)
            began = "after"

    run(loop, main())
    assert served["after"] >= 20


@both_loops
def test_whoever_has_connected_before_the_end_is_served(loop: Loop) -> None:
    async def main() -> None:
        async with server() as port:
            early = []
            for _ in range(50):
                # Blocking, so that the server has no chance to take them on by itself.
                connection = socket.create_connection(("127.0.0.1", port))
                connection.sendall(GET)
                early.append(connection)
        for connection in early:
            with connection:
                connection.settimeout(LIMIT)
                assert connection.recv(100).startswith(b"HTTP/1.1 200 ")

    run(loop, main())


async def test_a_node_that_is_not_ready_still_serves_and_closes_each_connection() -> None:
    stop = asyncio.Event()
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def node() -> None:
        settings = HTTPSettings(port=0, host="127.0.0.1", drain=DRAIN, not_ready=3.0)
        serve = serving(
            [web.post("/echo", echo)], settings, node_type="test",
        )  # fmt: skip
        async with serve as port:
            listening.set_result(port)
            await stop.wait()

    running = asyncio.create_task(node())
    async with aiohttp.ClientSession(f"http://127.0.0.1:{await listening}") as client:
        async with client.get("/readyz") as answer:
            assert (answer.status, "Connection" in answer.headers) == (200, False)
        stop.set()
        await asyncio.sleep(0)
        async with client.get("/readyz") as answer:
            assert (answer.status, answer.headers["Connection"]) == (503, "close")
            assert await answer.json() == {"message": "The node is stopping"}
        for path, method in (("/echo", "POST"), ("/nothing", "GET"), ("/healthz", "GET")):
            async with client.request(method, path) as answer:
                assert answer.status in (200, 404)
                assert answer.headers["Connection"] == "close"
        await asyncio.wait_for(running, LIMIT)
        with pytest.raises(aiohttp.ClientConnectorError):
            await client.get("/readyz")


async def test_long_polls_go_on_while_the_node_listens_and_end_then() -> None:
    arrived = asyncio.Event()

    async def poll(request: web.Request) -> web.StreamResponse:
        arrived.set()
        await stopping(request).wait()
        return json_response({})

    async with aiohttp.ClientSession() as client:
        async with server(web.get("/poll", poll), not_ready=0.3) as port:
            asked = asyncio.create_task(client.get(f"http://127.0.0.1:{port}/poll"))
            await arrived.wait()
            began = asyncio.get_running_loop().time()
        took = asyncio.get_running_loop().time() - began
        assert (await asked).status == 200
    assert 0.3 <= took < DRAIN / 2


async def test_idle_connections_hold_up_no_stop() -> None:
    async with server() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await reader.readuntil(b"}\n")
        silent = await asyncio.open_connection("127.0.0.1", port)
        began = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - began < DRAIN / 2
    for one, to in ((reader, writer), silent):
        assert await asyncio.wait_for(one.read(), LIMIT) == b""
        await hang_up(to)


async def test_a_request_that_is_just_arriving_is_served() -> None:
    stop = asyncio.Event()
    listening: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    async def node() -> None:
        async with server(web.post("/echo", echo)) as port:
            listening.set_result(port)
            await stop.wait()

    running = asyncio.create_task(node())
    port = await listening
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(GET)
    await reader.readuntil(b"}\n")
    writer.write(b"POST /echo HTTP/1.1\r\nHo")
    stop.set()
    async with asyncio.timeout(LIMIT):
        while True:
            try:
                await hang_up((await asyncio.open_connection("127.0.0.1", port))[1])
            except OSError:
                break
    await asyncio.sleep(0.5)  # longer than a connection without a request is kept
    writer.write(b"st: x\r\nContent-Length: 2\r\n\r\nhi")
    answer = await asyncio.wait_for(reader.read(), LIMIT)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"Connection: close" in answer
    assert answer.endswith(b"hi")
    await hang_up(writer)
    await asyncio.wait_for(running, LIMIT)


@pytest.mark.parametrize("stubborn", [False, True])
async def test_the_drain_time_is_counted_once(stubborn: bool) -> None:
    arrived = asyncio.Event()

    async def endless(request: web.Request) -> web.StreamResponse:
        arrived.set()
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if not stubborn:
                    raise
                await asyncio.sleep(60)
                raise

    async with aiohttp.ClientSession() as client:
        async with server(web.get("/x", endless), drain=3.0) as port:
            asked = asyncio.create_task(client.get(f"http://127.0.0.1:{port}/x"))
            await arrived.wait()
            began = asyncio.get_running_loop().time()
        took = asyncio.get_running_loop().time() - began
        with pytest.raises(aiohttp.ClientError):
            await asked
    assert 3.0 <= took < 5.9


async def test_what_runs_for_a_client_that_has_gone_is_waited_for() -> None:
    arrived, go, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        arrived.set()
        await go.wait()
        ended.set()
        return json_response({})

    async with server(web.get("/x", handler)) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n")
        await arrived.wait()
        await hang_up(writer)
        asyncio.get_running_loop().call_later(0.2, go.set)
    assert ended.is_set()


async def test_a_node_that_breaks_down_is_not_held_up_by_being_not_ready() -> None:
    began = asyncio.get_running_loop().time()
    with pytest.raises(RuntimeError, match="broke"):
        async with server(not_ready=60.0):
            raise RuntimeError("broke")
    assert asyncio.get_running_loop().time() - began < DRAIN / 2
