"""What an attached container writes, and when all of it is here."""

from __future__ import annotations

import asyncio

from runner_node.drivers import marks
from runner_node.drivers.contract import Sink
from runner_node.drivers.frames import Frames

QUIET = 0.005
DRAIN = 0.05
"""Seconds without output after which no more is on its way, and how long that is waited for at most."""
MARK_LIMIT = 1.0
"""Seconds that a mark is waited for: it comes unless the engine is stuck."""


class Output(asyncio.Protocol):
    """Reads the attached socket of one container and passes its output on to *sink*."""

    def __init__(self, sink: Sink) -> None:
        self.closed = asyncio.Event()
        self._sink = sink
        self._frames = Frames()
        self._marks = marks.Marks()
        self._awaited: dict[bytes, asyncio.Future[None]] = {}
        self._transport: asyncio.BaseTransport | None = None
        self._loop = asyncio.get_running_loop()
        self._last = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._last = self._loop.time()
        for stream, piece in self._frames.feed(data):
            if plain := self._marks.feed(stream, piece):
                self._sink(plain)
        for mark in [mark for mark in self._awaited if not self._marks.missing(mark)]:
            self._found(mark)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        for mark in list(self._awaited):
            self._found(mark)

    def _found(self, mark: bytes) -> None:
        future = self._awaited.pop(mark)
        if not future.done():
            future.set_result(None)

    def close(self) -> None:
        if self._transport:
            self._transport.close()
        self.closed.set()

    async def drain(self, pid: int) -> None:
        """Returns when all that was written before now has been passed on.

        *pid* is the container's first process when marks may be written to it, else 0: then all that can
        be done is to wait until nothing comes any more.
        """
        if self.closed.is_set():
            return
        if not pid or not await self._marked(pid):
            await self._quiet()

    async def _marked(self, pid: int) -> bool:
        mark = marks.new_mark()
        self._marks.expect(mark)
        for stream in (marks.STDOUT, marks.STDERR):
            if not marks.write(pid, stream, mark):
                self._marks.forget(mark, stream)
                return False
        arrived = self._awaited[mark] = self._loop.create_future()
        try:
            async with asyncio.timeout(MARK_LIMIT):
                await arrived
        except TimeoutError:
            self._awaited.pop(mark, None)
        return True

    async def _quiet(self) -> None:
        begun = self._last = self._loop.time()
        while not self.closed.is_set() and (now := self._loop.time()) < begun + DRAIN:
            rest = self._last + QUIET - now
            if rest <= 0:
                return
            await asyncio.sleep(rest)
