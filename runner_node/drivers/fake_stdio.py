"""stdin of a scripted container."""

from __future__ import annotations

import asyncio
from typing import Any

from runner_node.drivers.contract import Exit
from shared_models import errors


class FakeStdin:
    """One piece at a time: who writes waits until the one before it was taken. *exit* ends it."""

    def __init__(self, exit_: asyncio.Future[Exit]) -> None:
        self._exit = exit_
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue(1)
        self._closed = False

    async def write(self, data: bytes) -> None:
        """Raises FunctionResponseError when it is closed or the container has ended."""
        if self._closed or self._exit.done() or (data and not await self._put(data)):
            raise errors.FunctionResponseError(detail="stdin is closed")

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self._put(b"")

    async def read(self) -> bytes:
        """The next piece; ``b""`` at the end."""
        return await self._pieces.get()

    async def _put(self, piece: bytes) -> bool:
        """Whether there was room for *piece* before the exit."""
        put = asyncio.ensure_future(self._pieces.put(piece))
        try:
            waited: set[asyncio.Future[Any]] = {put, self._exit}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            return put.done()
        finally:
            put.cancel()
