"""What an attached container writes, and when all of it is here."""

from __future__ import annotations

import asyncio
from typing import cast

from runner_node.drivers import marks
from runner_node.drivers.contract import Sink
from runner_node.drivers.frames import Frames
from runner_node.drivers.talk import HELD, Talk

QUIET = 0.005
DRAIN = 0.05
"""Seconds without output after which no more is on its way, and how long that is waited for at most."""
MARK_LIMIT = 1.0
"""Seconds that a mark is waited for: it comes unless the engine is stuck."""
HELD_IN_DRAIN = 1 << 20
"""Bytes of a paused *talk* that are read for what is in stderr behind them."""


class Output(asyncio.Protocol):
    """Reads the attached socket of one container and passes its output on to *sink*.

    With *talk* stdout goes there. The two share a socket: when one is not read, neither is the other.
    """

    def __init__(self, sink: Sink, talk: Talk | None = None) -> None:
        self.closed = asyncio.Event()
        self.unclear = asyncio.Event()
        """It is closed, or would not be seen to be closed because it is not read."""
        self._sink = sink
        self._talk = talk
        self._marked_streams = (marks.STDERR,) if talk else (marks.STDOUT, marks.STDERR)
        self._drains = 0
        self._stopped = False
        self._frames = Frames()
        self._marks = marks.Marks()
        self._awaited: dict[bytes, asyncio.Future[None]] = {}
        self._transport: asyncio.ReadTransport | None = None
        self._loop = asyncio.get_running_loop()
        self._last = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No assert: uvloop's transports belong to none of asyncio's classes.
        self._transport = cast("asyncio.ReadTransport", transport)

    def data_received(self, data: bytes) -> None:
        self._last = self._loop.time()
        for stream, piece in self._frames.feed(data):
            if self._talk and stream == marks.STDOUT:
                self._talk.feed(piece)
            elif plain := self._marks.feed(stream, piece):
                self._sink(plain)
        for mark in [mark for mark in self._awaited if not self._marks.missing(mark)]:
            self._found(mark)
        self._stop_or_go()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()
        self.unclear.set()
        if self._talk:
            self._talk.end()
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
        self.unclear.set()
        if self._talk:
            self._talk.close()

    def disown(self) -> None:
        """From now on nothing is passed on, the end neither."""
        self._talk = None
        self._sink = _nobody

    def pause_talk(self) -> None:
        if self._talk:
            self._talk.pause()

    def resume_talk(self) -> None:
        if self._talk:
            self._talk.resume()
            self._stop_or_go()

    def _stop_or_go(self) -> None:
        """Stops reading when too much is held back, and goes on when it is not."""
        if self._talk is None or self._transport is None or self._transport.is_closing():
            return
        stop = self._talk.held > (HELD_IN_DRAIN if self._drains else HELD)
        if stop and not self._stopped:
            self._transport.pause_reading()
            self.unclear.set()
            for mark in list(self._awaited):
                self._found(mark)  # it comes, but later than anybody would wait
        elif self._stopped and not stop:
            self._transport.resume_reading()
            self.unclear.clear()
        self._stopped = stop

    async def drain(self, pid: int) -> None:
        """Returns when all that was written before now has been passed on.

        *pid* is the container's first process when marks may be written to it, else 0: then all that can
        be done is to wait until nothing comes any more.
        """
        if self.closed.is_set():
            return
        self._drains += 1
        self._stop_or_go()
        try:
            if not self._stopped and not (pid and await self._marked(pid)):
                await self._quiet()
        finally:
            self._drains -= 1
            self._stop_or_go()

    async def _marked(self, pid: int) -> bool:
        mark = marks.new_mark()
        self._marks.expect(mark, self._marked_streams)
        for stream in self._marked_streams:
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


def _nobody(data: bytes) -> None:
    pass
