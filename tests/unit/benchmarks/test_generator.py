"""Load at a constant rate: who was due while the server stood still is counted as late."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import cast

from benchmarks.generator import at_once, at_rate, by_callers, request

HELD = 0.3
"""Seconds that the server takes for its first call."""
RATE = 100


class Server(asyncio.Protocol):
    """Its first answer on a connection takes *held* seconds; it hangs up at request number *breaks*."""

    def __init__(self, held: float, breaks: int) -> None:
        self._held, self._breaks, self._asked = held, breaks, 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport
        self._asked += 1
        if self._asked == self._breaks:
            self._transport.close()
            return
        wait = self._held if self._asked == 1 else 0.0
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        asyncio.get_running_loop().call_later(wait, self._transport.write, answer)


async def serve(held: float = 0.0, breaks: int = 0) -> tuple[asyncio.Server, str]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(partial(Server, held, breaks), "127.0.0.1", 0)
    return server, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"


async def test_calls_that_were_due_while_the_server_stood_still_are_late() -> None:
    server, url = await serve(held=HELD)
    async with server:
        answers = await at_rate(url, request("POST", url), RATE, 0.2, connections=1)
    assert len(answers) == 20
    first = min(each.due for each in answers)
    for number, each in enumerate(sorted(answers, key=lambda each: each.due)):
        assert each.due - first == int(number / RATE * 1e9)
        # None is done before the first is, although the server took no time for it.
        assert each.latency_ms >= HELD * 1000 - number * 1000 / RATE - 1
        assert (each.status, each.body) == (200, b"ok")


async def test_a_connection_that_breaks_is_an_answer_without_a_status_and_is_replaced() -> None:
    server, url = await serve(breaks=2)
    async with server:
        by_one = await by_callers(url, request("POST", url), callers=1, seconds=0.2)
        at_hundred = await at_rate(url, request("POST", url), RATE, 0.04, connections=1)
    assert [each.status for each in by_one][:4] == [200, 0, 200, 0][: len(by_one)]
    assert [each.status for each in at_hundred] == [200, 0, 200, 0]


async def test_calls_at_once_are_due_together() -> None:
    server, url = await serve()
    async with server:
        answers = await at_once([(url, request("POST", url, b"", Fn_Invoke_Type="detached"))] * 3)
    assert len({each.due for each in answers}) == 1
    assert [each.status for each in answers] == [200, 200, 200]
