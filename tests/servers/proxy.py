"""A network that tests break: between a node and a server it delays, hangs, cuts, refuses, loses answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

_CHUNK = 1 << 16


class Proxy:
    """Passes everything on to *target*, a port of this machine, until it is told otherwise."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.delay = 0.0
        """Seconds that each piece of an answer is late."""
        self.on_its_way = asyncio.Event()
        """Set from when a piece of an answer is late."""
        self.losing = 0
        """Answers that are still to be lost: the request arrives, then the connection breaks."""
        self._target = target
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._listener: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._under_way: set[asyncio.Task[None]] = set()

    def hang(self) -> None:
        """Connections stay and are accepted, and nothing passes."""
        self._flowing.clear()

    def flow(self) -> None:
        """Ends ``hang``: what waited arrives."""
        self._flowing.set()

    def cut(self) -> None:
        """Breaks all connections."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def refuse(self) -> None:
        """Breaks all connections and takes no new ones."""
        if self._listener:
            self._listener.close()
            self._listener = None
        self.cut()

    async def accept(self) -> None:
        """Takes connections, on the same port as ever."""
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Breaks all connections and returns when nothing is left of them."""
        await self.refuse()
        self.flow()
        # A connection taken a moment ago has its task in the next round, one that is aborted is closed in it.
        for _ in range(3):
            await asyncio.sleep(0)
            for task in self._under_way:
                task.cancel()
            if self._under_way:
                await asyncio.wait(self._under_way)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        ends = [writer]
        self._writers.add(writer)
        try:
            if self._listener:  # else it was taken just before that was closed
                await self._pass_on(reader, writer, ends)
        except (OSError, asyncio.CancelledError):
            pass  # as a server that is gone, or told to close
        finally:
            for end in ends:
                end.transport.abort()
                self._writers.discard(end)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ends: list[asyncio.StreamWriter]
    ) -> None:
        """Until one end is gone; *ends* gets the one that this opens."""
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        ends.append(back)
        self._writers.add(back)
        pumps = (
            asyncio.create_task(self._pump(reader, back, late=False)),
            asyncio.create_task(self._pump(there, writer, late=True)),
        )
        try:
            await asyncio.wait(pumps)
        finally:
            for pump in pumps:
                pump.cancel()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, late: bool) -> None:
        with suppress(OSError):
            while piece := await source.read(_CHUNK):
                if late and self.losing:
                    self.losing -= 1
                    break
                if late and self.delay:
                    self.on_its_way.set()
                    await asyncio.sleep(self.delay)
                await self._flowing.wait()
                sink.write(piece)
                await sink.drain()
        # One end is gone: so is the other.
        sink.transport.abort()


@asynccontextmanager
async def proxy(target: int) -> AsyncIterator[Proxy]:
    """A proxy to the port *target*, already listening on ``port``."""
    opened = Proxy(target)
    await opened.accept()
    try:
        yield opened
    finally:
        await opened.close()
