"""Load from raw sockets, where wrk does not do: at a constant rate, or when each answer is wanted.

At a constant rate calls are due by the clock, and latency counts from when a call was due: a server that
stands still is charged for those who would have called meanwhile (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import httptools
import uvloop


@dataclass(frozen=True, slots=True)
class Answer:
    """*due* and *done* in nanoseconds of the clock; *status* is 0 where the connection broke."""

    due: int
    done: int
    status: int
    body: bytes

    @property
    def latency_ms(self) -> float:
        """From when it was due."""
        return (self.done - self.due) / 1e6


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection, one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []

    async def send(self, request: bytes, due: int = 0) -> Answer:
        """The answer, or status 0. *due*: now, unless it was earlier."""
        due = due or time.time_ns()
        if self._transport is None or not self.open:
            return Answer(due, time.time_ns(), 0, b"")
        self._parser, self._body = httptools.HttpResponseParser(self), []
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        status, body = await self._answer
        return Answer(due, time.time_ns(), status, body)

    @property
    def open(self) -> bool:
        """Whether there can be one more request."""
        return self._transport is not None and not self._transport.is_closing()

    def close(self) -> None:
        """Ends it."""
        if self._transport:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio's."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio's."""
        self._end(0)

    def data_received(self, data: bytes) -> None:
        """asyncio's."""
        self._parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        """httptools'."""
        self._body.append(data)

    def on_message_complete(self) -> None:
        """httptools'."""
        self._end(self._parser.get_status_code())

    def _end(self, status: int) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_result((status, b"".join(self._body)))


def request(method: str, url: str, body: bytes = b"", **headers: str) -> bytes:
    """The bytes of a request; ``_`` in names of *headers* stands for ``-``."""
    parts = urlsplit(url)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    lines = [f"{method} {target} HTTP/1.1", f"Host: {parts.netloc}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


async def connect(url: str) -> Connection:
    """A connection to the server of *url*."""
    parts = urlsplit(url)
    assert parts.hostname
    assert parts.port
    loop = asyncio.get_running_loop()
    return (await loop.create_connection(Connection, parts.hostname, parts.port))[1]


async def at_rate(url: str, wanted: bytes, rate: float, seconds: float, connections: int) -> list[Answer]:
    """*wanted* is sent *rate* times a second; who is due while all connections are busy waits, and counts.

    Raises OSError where the server takes no connections; one that breaks is replaced.
    """
    free: asyncio.LifoQueue[Connection] = asyncio.LifoQueue()
    for _ in range(connections):
        free.put_nowait(await connect(url))
    answers: list[Answer] = []

    async def one(due: int) -> None:
        connection = await free.get()
        answers.append(await connection.send(wanted, due))
        free.put_nowait(connection if connection.open else await connect(url))

    begin = time.time_ns() + 20_000_000
    async with asyncio.TaskGroup() as group:
        for number in range(int(rate * seconds)):
            due = begin + int(number / rate * 1e9)
            if (early := due - time.time_ns()) > 0:
                await asyncio.sleep(early / 1e9)
            group.create_task(one(due))
    while not free.empty():
        free.get_nowait().close()
    return answers


async def by_callers(
    url: str, wanted: bytes, callers: int, seconds: float, pause: float = 0.0
) -> list[Answer]:
    """Each of the *callers* asks again when it has its answer, *pause* seconds later.

    Raises OSError where the server takes no connections; one that breaks is replaced.
    """
    answers: list[Answer] = []
    end = time.monotonic() + seconds

    async def caller() -> None:
        connection = await connect(url)
        while time.monotonic() < end:
            answers.append(await connection.send(wanted))
            if not connection.open:
                connection = await connect(url)
            if pause:
                await asyncio.sleep(pause)
        connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    return answers


async def at_once(requests: Sequence[tuple[str, bytes]]) -> list[Answer]:
    """Each of *requests* (address, bytes) on a connection of its own, all together."""
    connections = [await connect(url) for url, _ in requests]
    due = time.time_ns()
    answers = await asyncio.gather(
        *(each.send(wanted, due) for each, (_, wanted) in zip(connections, requests, strict=True))
    )
    for each in connections:
        each.close()
    return answers


def run(work: Callable[[], Any]) -> Any:
    """The result of the coroutine that *work* makes, on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work())


def call_id(answer: Answer) -> str:
    """The id that a detached call was accepted with."""
    return str(json.loads(answer.body)["call_id"])
