"""Requests on the fast path that end otherwise: their clients go, are slow, or flood; the server stops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress

import pytest
from aiohttp import web

from shared_models.drain import finish
from shared_models.fast_path import Exchange, Pending
from tests.unit.shared_models.fast_paths import (
    Client,
    Keeps,
    Taken,
    on_both_loops,
    post,
    server,
    turns,
    until,
    whole,
)


class Ways:
    """Where a request can go on that was handed back; counts where it did."""

    def __init__(self) -> None:
        self.handled = self.unread_ = self.cancelled = 0
        self.go = asyncio.Event()

    async def handler(self, request: web.Request) -> web.StreamResponse:
        self.handled += 1
        await self.go.wait()
        return web.Response(body=b"handler")

    async def unread(self) -> None:
        self.unread_ += 1
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


# -- bodies ------------------------------------------------------------------------------------


@on_both_loops
async def test_bodies_on_the_fast_path_count_among_those_of_all() -> None:
    path = Keeps()
    async with server(path, max_bodies=1000) as node, node.client() as one, node.client() as two:
        one.send(post(b"x" * 900))
        taken = await path.takes()
        assert await node.held() == 900
        two.send(post(b"x" * 101))
        assert b"HTTP/1.1 503 " in await two.head()
        await two.reader.readuntil(b"}\n")
        two.send(post(b"x" * 100))
        await path.takes(2)
        assert await node.held() == 1000
        for each in path.taken:
            each.answer()
        assert await node.held() == 0
        two.send(post(b"x" * 5000))  # larger than the bound, and alone
        await two.answer()
        await path.takes(3)
        taken.answer()
        path.taken[2].answer()
        assert (await two.answer()).endswith(b"x" * 5000)
        assert await node.held() == 0


@on_both_loops
async def test_a_body_is_held_until_its_request_is_over_however_that_ends() -> None:
    path, ways = Keeps(), Ways()
    async with server(path) as node, node.client() as one, node.client() as two, node.client() as three:
        one.send(post(b"x" * 100))
        (await path.takes(1)).exchange.hand_back()
        assert await one.answer() == b"ordinary:" + b"x" * 100
        await node.holds(0)
        one.send(post(b"x" * 10))
        (await path.takes(2)).exchange.hand_back(ways.handler, ways.unread)
        two.send(post(b"x" * 20))
        hung_up = await path.takes(3)
        three.send(post(b"x" * 40))
        nobody = await path.takes(4)
        assert await node.held() == 70
        two.hang_up()
        three.hang_up()
        await until(lambda: hung_up.exchange.gone and nobody.exchange.gone)
        assert await node.held() == 70
        hung_up.exchange.hand_back(ways.handler, ways.unread)
        nobody.answer()
        await until(lambda: ways.unread_)
        assert await node.held() == 30
        ways.go.set()
        assert await one.answer() == b"handler"
        await node.holds(0)
    assert (ways.handled, ways.unread_) == (1, 1)


# -- clients -----------------------------------------------------------------------------------


@on_both_loops
async def test_a_connection_whose_request_is_on_its_way_is_not_idle() -> None:
    path = Keeps()
    async with server(path, keep_alive=0.05) as node, node.client() as client:
        client.send(post(b"one"))
        taken = await path.takes()
        await until(lambda: taken.connection._keepalive_handle is None)  # the time has come and gone
        assert not taken.exchange.gone
        taken.answer()
        assert await client.answer() == b"fast:one"
        assert await client.ends() == b""


@on_both_loops
async def test_an_answer_for_a_client_that_has_gone_is_nobodys() -> None:
    path = Keeps()
    async with server(path) as node, node.client() as client:
        async with node.client() as other:
            other.send(post(b"one"))
            taken = await path.takes()
        await until(lambda: taken.exchange.gone)
        taken.answer()
        client.send(post(b"two"))
        (await path.takes(2)).answer()
        assert await client.answer() == b"fast:two"


def _after(ways: Ways, taken: Taken) -> None:
    taken.transport.abort()
    taken.exchange.hand_back(ways.handler, ways.unread)


def _before(ways: Ways, taken: Taken) -> None:
    # The server's task has been woken, and gets the request in the turn in which it hears of the end.
    taken.exchange.hand_back(ways.handler, ways.unread)
    taken.transport.abort()


def _just_before(ways: Ways, taken: Taken) -> None:
    taken.exchange.hand_back(ways.handler, ways.unread)
    taken.connection.force_close()
    taken.connection.abort()


@pytest.mark.parametrize("goes", [_after, _before, _just_before])
async def test_a_request_whose_client_goes_before_its_handler_begins_goes_on_once_and_unread(
    goes: Callable[[Ways, Taken], None],
) -> None:
    path, ways = Keeps(), Ways()
    ordinary = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal ordinary
        ordinary += 1
        return web.Response()

    def keeps(exchange: Exchange) -> Pending | None:
        return path(_renamed(exchange))

    async with server(keeps, web.post("/once", handler)) as node, node.client() as client:
        client.send(post(b"body", path="/once"))
        taken = await path.takes()
        goes(ways, taken)
        await until(lambda: ways.unread_ or ways.handled or ordinary)
        await turns(20)
        assert (ways.unread_, ways.handled, ordinary) == (1, 0, 0)
        assert await node.held() == 4
        ways.go.set()
        await node.holds(0)


def _renamed(exchange: Exchange) -> Exchange:
    if exchange.path == "/once":
        exchange.path = "/x"
    return exchange


@on_both_loops
async def test_a_handler_that_has_begun_goes_on_when_its_client_goes() -> None:
    path, ways = Keeps(), Ways()
    async with server(path) as node:
        async with node.client() as client:
            client.send(post(b"body"))
            (await path.takes()).exchange.hand_back(ways.handler, ways.unread)
            await until(lambda: ways.handled)
        await turns(20)
        assert await node.held() == 4
        ways.go.set()
        await node.holds(0)
    assert (ways.handled, ways.unread_) == (1, 0)


@on_both_loops
async def test_who_does_not_take_its_answers_gets_no_more_of_them() -> None:
    answered = 0

    def path(exchange: Exchange) -> Pending | None:
        nonlocal answered
        if exchange.path == "/x":
            answered += 1
            exchange.answer(whole(b"x" * 100_000))
        return None

    async with server(path) as node, node.client(receives=4096) as client:
        sent = 0
        while True:
            before = answered
            client.send(post())
            sent += 1
            await turns(20)
            if answered == before:
                break
            assert sent < 1000, "the server holds more and more for a client that takes nothing"
        # It is served on when it takes what there is.
        for _ in range(answered):
            assert len(await client.answer()) == 100_000
        assert await client.answer() == b"ordinary:"


@on_both_loops
async def test_who_takes_nothing_of_a_fast_answer_is_cut_off() -> None:
    def path(exchange: Exchange) -> Pending | None:
        if exchange.path == "/x":
            taken.append(Taken(exchange))
            taken[0].transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            exchange.answer(whole(b"x" * size))
        return None

    for size in (20 << 20, 60_000):
        taken: list[Taken] = []
        async with server(path, write_timeout=0.2) as node, node.client(receives=4096) as client:
            client.send(post())
            await until(lambda taken=taken: taken and taken[0].exchange.gone)  # type: ignore[misc]
            assert len(await client.ends()) < size
            assert await node.held() == 0


@on_both_loops
async def test_a_client_that_sends_without_end_behind_its_request_is_held() -> None:
    path = Keeps()
    async with server(path, max_header_size=1024) as node, node.client() as client:
        client.send(post(b"one"))
        taken = await path.takes()
        others = [b"%d" % number for number in range(20_000)]
        client.send(b"".join(post(other, path="/other") for other in others))
        await until(lambda: not taken.transport.is_reading())
        assert len(taken.connection._behind) < (1 << 20)
        taken.answer()
        assert await client.answer() == b"fast:one"
        for other in others[:2000]:
            assert await client.answer() == b"ordinary:" + other


@on_both_loops
async def test_a_large_request_behind_another_one_arrives_whole() -> None:
    path, body = Keeps(), b"x" * 3_000_000
    async with server(path, max_header_size=1024) as node, node.client() as client:
        client.send(post(b"one"))
        taken = await path.takes()
        client.send(post(body))
        await until(lambda: not taken.transport.is_reading())
        taken.answer()
        assert await client.answer() == b"fast:one"
        assert await client.answer() == b"ordinary:" + body


# -- the server stops --------------------------------------------------------------------------


@on_both_loops
async def test_a_server_that_stops_waits_for_what_its_fast_path_has() -> None:
    path = Keeps()

    async def later() -> None:
        await until(lambda: first.connection._all.fast_path is None)
        await turns(20)
        first.answer()

    async with AsyncExitStack() as clients:
        async with server(path) as node:
            client = await clients.enter_async_context(node.client())
            client.send(post(b"one"))
            first = await path.takes()
            answering = asyncio.ensure_future(later())
        assert answering.done()
        assert await client.answer() == b"fast:one"
        assert await client.ends() == b""
    assert first.cut == 0


@pytest.mark.parametrize("breaks", [False, True])
async def test_a_server_that_leaves_takes_no_more_and_closes_each_connection(breaks: bool) -> None:
    path = Keeps()

    async def asks(client: Client) -> bytes:
        await until(lambda: first.connection._all.fast_path is None)
        client.send(post(b"late"))
        return await client.ends()

    async with AsyncExitStack() as clients:
        with suppress(ZeroDivisionError):
            async with server(path) as node:
                one = await clients.enter_async_context(node.client())
                two = await clients.enter_async_context(node.client())
                one.send(post(b"one"))
                two.send(post(b"two"))
                first, second = await path.takes(1), await path.takes(2)
                second.answer()
                assert await two.answer() == b"fast:two"
                asking = asyncio.ensure_future(asks(two))
                asking.add_done_callback(lambda _: first.answer())
                if breaks:
                    raise ZeroDivisionError
        assert await one.answer() == b"fast:one"
        answer = await asking
        assert b"Connection: close" in answer
        assert answer.endswith(b"ordinary:late")
    assert len(path.taken) == 2


@on_both_loops
async def test_what_the_fast_path_has_is_cut_off_when_time_is_up() -> None:
    path, ways = Keeps(), Ways()
    async with AsyncExitStack() as clients:
        async with server(path, drain=0.3) as node:
            one = await clients.enter_async_context(node.client())
            two = await clients.enter_async_context(node.client())
            one.send(post(b"one"))
            two.send(post(b"two"))
            first, second = await path.takes(1), await path.takes(2)
            two.hang_up()
            await until(lambda: second.exchange.gone)
        assert (first.cut, second.cut) == (1, 1)
        assert await one.ends() == b""
        for taken in path.taken:
            taken.answer()
            taken.exchange.hand_back(ways.handler, ways.unread)
        await turns(20)
    assert (ways.handled, ways.unread_) == (0, 0)


@pytest.mark.parametrize("patient", [False, True])
async def test_what_goes_on_unread_is_waited_for_and_cancelled_at_last(patient: bool) -> None:
    path, ways = Keeps(), Ways()
    async with AsyncExitStack() as clients, server(path, drain=60.0 if patient else 0.3) as node:
        client = await clients.enter_async_context(node.client())
        client.send(post(b"one"))
        taken = await path.takes()
        client.hang_up()
        await until(lambda: taken.exchange.gone)
        taken.exchange.hand_back(ways.handler, ways.unread)
        if patient:
            asyncio.get_running_loop().call_later(0.3, ways.go.set)
    assert (ways.unread_, ways.cancelled) == (1, int(not patient))


async def test_what_is_cut_off_before_its_handler_has_begun_gets_to_know() -> None:
    path, ways = Keeps(), Ways()
    async with server(path) as node, node.client() as client:
        client.send(post(b"body"))
        taken = await path.takes()
        taken.exchange.hand_back(ways.handler, ways.unread)
        await finish(taken.connection._all, 0.0)
        assert (ways.handled, ways.unread_, ways.cancelled) == (0, 1, 1)
        assert await node.held() == 0


async def test_one_that_breaks_down_when_it_is_cut_off_is_in_nobodys_way(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Breaks(Taken):
        def cut_off(self) -> None:
            super().cut_off()
            raise RuntimeError("broke")

    taken: list[Taken] = []

    def path(exchange: Exchange) -> Pending | None:
        taken.append(Breaks(exchange))
        return taken[-1]

    async with AsyncExitStack() as clients, server(path, drain=0.1) as node:
        for _ in range(2):
            client = await clients.enter_async_context(node.client())
            client.send(post(b"one"))
        await until(lambda: len(taken) == 2)
    assert [one.cut for one in taken] == [1, 1]
    assert caplog.text.count("RuntimeError: broke") == 2
