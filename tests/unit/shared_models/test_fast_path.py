"""Requests on the fast path of a server: which ones, in which order, and what becomes of them."""

from __future__ import annotations

import asyncio
import gc
import socket
import weakref

import pytest
from aiohttp import web

from shared_models.fast_path import Exchange, Pending
from tests.unit.shared_models.fast_paths import (
    Keeps,
    fast,
    on_both_loops,
    post,
    server,
    turns,
    until,
    whole,
)

# -- which ones --------------------------------------------------------------------------------


@on_both_loops
async def test_a_request_is_taken_whole_in_whatever_pieces_it_comes() -> None:
    request = post(b"body", more="X-Some: header\r\n")
    async with server(fast) as node, node.client() as client:
        ways = set()
        for cut in range(1, len(request)):
            client.send(request[:cut])
            await turns()
            client.send(request[cut:])
            way, _, body = (await client.answer()).partition(b":")
            assert body == b"body"
            ways.add(way)
        # The fast path takes none whose head has come before its body.
        assert ways == {b"fast", b"ordinary"}
        for piece in request:
            client.send(bytes([piece]))
            await turns()
        assert (await client.answer()).endswith(b":body")


@on_both_loops
async def test_what_is_sent_in_chunks_is_one_body() -> None:
    async with server(fast) as node, node.client() as client:
        head = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.send(head + b"3\r\none\r\n4;a=b\r\n two\r\n0\r\nTrailer: x\r\n\r\n")
        assert await client.answer() == b"fast:one two"
        client.send(head + b"0\r\n\r\n")
        assert await client.answer() == b"fast:"


async def test_chunks_that_are_none_are_refused_and_not_taken() -> None:
    path = Keeps()
    async with server(path) as node, node.client() as client:
        client.send(b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\nnone\r\n")
        assert b" 400 Bad Request" in await client.head()
    assert not path.taken


@pytest.mark.parametrize("size", [0, 1, 10_000, 70_000, 700_000])
async def test_a_body_of_any_size_arrives(size: int) -> None:
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    async with server(fast) as node, node.client() as client:
        client.send(post(body))
        way, _, got = (await client.answer()).partition(b":")
        assert got == body
        if size > 64 << 10:
            assert way == b"ordinary"


@pytest.mark.parametrize(
    ("request_", "answers"),
    [
        (b"POST /x HTTP/1.0\r\nHost: x\r\nContent-Length: 1\r\n\r\na", b"HTTP/1.0 200 OK"),
        (
            b"POST /x HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na",
            b"Connection: keep-alive",
        ),
        (post(b"a", more="Connection: close\r\n"), b"Connection: close"),
        (post(b"a", more="Expect: 100-continue\r\n"), b"HTTP/1.1 100 Continue"),
        (post(b"a", more="Connection: Upgrade\r\nUpgrade: websocket\r\n"), b"HTTP/1.1 200"),
        (post(b"a", more="Connection: Upgrade\r\nUpgrade: h2c\r\n"), b"HTTP/1.1 200"),
        (post(b"a", more="Upgrade: h2c\r\n"), b"HTTP/1.1 200"),
        (post(b"a", more="Content-Encoding: gzip\r\n"), b"HTTP/1.1 200"),
        (b"GET /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na", b"HTTP/1.1 200"),
    ],
    ids=["1.0", "1.0 kept", "close", "expect", "websocket", "h2c", "upgrade", "gzip", "get"],
)
async def test_what_asks_for_more_than_an_answer_is_served_the_ordinary_way(
    request_: bytes, answers: bytes
) -> None:
    async with server(fast) as node, node.client() as client:
        client.send(request_)
        assert answers in await client.head()
        got = await client.reader.readuntil(b"ordinary:a")
        assert b"fast" not in got
        if b"HTTP/1.0\r\nHost: x\r\nContent" in request_ or b"close" in request_:
            assert await client.ends() == b""


async def test_a_body_above_the_limit_of_the_server_is_refused() -> None:
    async with server(fast, max_request_size=1000) as node, node.client() as client:
        client.send(post(b"x" * 1000))
        assert await client.answer() == b"fast:" + b"x" * 1000
        client.send(post(b"x" * 1001))
        assert (await client.head()).startswith(b"HTTP/1.1 413 ")


async def test_a_query_is_part_of_the_path() -> None:
    seen: list[str] = []

    def path(exchange: Exchange) -> Pending | None:
        seen.append(exchange.path)
        return None

    async with server(path) as node, node.client() as client:
        client.send(post(b"a", path="/x?y=%20z"))
        assert await client.answer() == b"ordinary:a"
    assert seen == ["/x?y=%20z"]


# -- in which order ----------------------------------------------------------------------------


@on_both_loops
async def test_requests_in_one_piece_are_answered_in_their_order() -> None:
    for count in (2, 10, 100):
        async with server(fast) as node, node.client() as client:
            client.send(b"".join(post(b"%d" % number) for number in range(count)))
            for number in range(count):
                assert (await client.answer()).endswith(b":%d" % number)


@on_both_loops
async def test_requests_one_after_another_are_all_taken() -> None:
    async with server(fast) as node, node.client() as client:
        for number in range(100):
            client.send(post(b"%d" % number))
            assert await client.answer() == b"fast:%d" % number
        # The parser, which counts what it has given out, still gives out all that comes.
        client.send(post(b"one") + post(b"two"))
        assert await client.answer() == b"ordinary:one"
        assert await client.answer() == b"ordinary:two"


@on_both_loops
async def test_those_that_are_taken_and_those_that_are_not_keep_their_order() -> None:
    path = Keeps()
    async with server(path) as node, node.client() as client:
        for number in range(12):
            client.send(post(b"%d" % number, path="/other" if number % 3 == 1 else "/x"))
            await turns()
        for number in range(12):
            if number % 3 == 1:
                assert await client.answer() == b"ordinary:%d" % number
                continue
            await turns()
            if path.taken and path.taken[-1].exchange.body == b"%d" % number:
                path.taken[-1].answer()
            assert (await client.answer()).endswith(b":%d" % number)


@on_both_loops
async def test_one_request_of_a_connection_is_taken_at_a_time() -> None:
    path = Keeps()
    async with server(path) as node, node.client() as client:
        client.send(post(b"one"))
        first = await path.takes()
        client.send(post(b"two"))
        await turns()
        assert len(path.taken) == 1
        first.answer()
        assert await client.answer() == b"fast:one"
        (await path.takes(2)).answer()
        assert await client.answer() == b"fast:two"


@on_both_loops
async def test_what_comes_in_the_moment_of_an_answer_stays_behind_what_came_before() -> None:
    path = Keeps()
    second = post(b"second")
    bell, rings = socket.socketpair()
    with bell, rings:
        async with server(path) as node, node.client() as client:
            client.send(post(b"first"))
            first = await path.takes()
            client.send(second[:30])
            await until(lambda: first.connection._behind)
            loop = asyncio.get_running_loop()
            loop.add_reader(bell, lambda: (loop.remove_reader(bell), first.answer()))
            # Both can be read when the loop looks next: the answer is given first, then the rest comes.
            rings.send(b"!")
            client.send(second[30:])
            assert await client.answer() == b"fast:first"
            (await path.takes(2)).answer()
            assert await client.answer() == b"fast:second"


# -- one answer --------------------------------------------------------------------------------


@on_both_loops
async def test_a_request_that_is_handed_back_goes_the_ordinary_way_with_its_body() -> None:
    path = Keeps()
    async with server(path) as node, node.client() as client:
        client.send(post(b"body"))
        (await path.takes()).exchange.hand_back()
        assert await client.answer() == b"ordinary:body"
        client.send(post(b"more"))
        (await path.takes(2)).answer()
        assert await client.answer() == b"fast:more"


@on_both_loops
async def test_a_request_that_is_handed_back_to_a_handler_goes_there_and_no_other_does() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(body=b"handler")

    path = Keeps()
    async with server(path) as node, node.client() as client:
        client.send(post(b"one"))
        taken = await path.takes()
        client.send(post(b"two", path="/other") + post(b"three"))
        await until(lambda: taken.connection._behind)
        taken.exchange.hand_back(handler)
        assert await client.answer() == b"handler"
        assert await client.answer() == b"ordinary:two"
        assert await client.answer() == b"ordinary:three"


@on_both_loops
async def test_only_the_first_answer_counts() -> None:
    path = Keeps()
    async with server(path) as node, node.client() as client:
        client.send(post(b"one"))
        taken = await path.takes()
        taken.answer()
        taken.answer()
        taken.exchange.hand_back()
        client.send(post(b"two"))
        other = await path.takes(2)
        taken.answer()
        other.exchange.hand_back()
        other.answer()
        assert await client.answer() == b"fast:one"
        assert await client.answer() == b"ordinary:two"
        client.send(post(b"three", path="/other"))
        assert await client.answer() == b"ordinary:three"


@pytest.mark.parametrize("answers", [False, True])
async def test_a_fast_path_that_breaks_down_costs_no_request(
    answers: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def path(exchange: Exchange) -> Pending | None:
        if answers:
            exchange.answer(whole(b"fast:" + exchange.body))
        raise RuntimeError("broke")

    async with server(path) as node, node.client() as client:
        for number in range(3):
            client.send(post(b"%d" % number))
            assert await client.answer() == (b"fast:%d" if answers else b"ordinary:%d") % number
    assert caplog.text.count("RuntimeError: broke") == 3


@on_both_loops
async def test_nothing_is_left_of_a_request_that_was_answered() -> None:
    path = Keeps()
    async with server(path) as node, node.client() as client:
        gc.collect()
        gc.disable()
        try:
            client.send(post(b"one"))
            taken = await path.takes()
            left = weakref.ref(taken), weakref.ref(taken.exchange)
            taken.answer()
            path.taken.clear()
            del taken
            assert await client.answer() == b"fast:one"
            assert [one() for one in left] == [None, None]
        finally:
            gc.enable()
