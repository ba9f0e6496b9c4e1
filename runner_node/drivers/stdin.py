"""The way to a function's stdin: written no faster than the function reads."""

from __future__ import annotations

import asyncio
import os

from shared_models import errors


class Stdin:
    """Owns the descriptor *fd*, a pipe or a socket that leads to stdin. Writers take turns."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._room: asyncio.Future[None] | None = None

    async def write(self, data: bytes) -> None:
        """Returns when *data* is on its way; raises FunctionResponseError when nobody reads it any more."""
        async with self._turn:
            rest = memoryview(data)
            while True:
                if self._fd < 0:
                    raise errors.FunctionResponseError(detail="stdin is closed")
                if not rest:
                    return
                rest = rest[await self._some(rest) :]

    async def close(self) -> None:
        """Ends stdin behind all that was written before. Idempotent."""
        async with self._turn:
            self.abandon()

    def abandon(self) -> None:
        """Closes it now; one who is writing is told."""
        if self._fd < 0:
            return
        if self._room:
            self._loop.remove_writer(self._fd)
            self._has_room()
        os.close(self._fd)
        self._fd = -1

    async def _some(self, data: memoryview) -> int:
        """How many bytes of *data* were taken, at least one unless it had to wait."""
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            await self._until_room()
            return 0
        except OSError as exc:
            self.abandon()
            raise errors.FunctionResponseError(detail=f"the function does not read: {exc.strerror}") from exc

    def _has_room(self) -> None:
        if self._room and not self._room.done():
            self._room.set_result(None)

    async def _until_room(self) -> None:
        room = self._room = self._loop.create_future()
        self._loop.add_writer(self._fd, self._has_room)
        try:
            await room
        finally:
            self._room = None
            if self._fd >= 0:
                self._loop.remove_writer(self._fd)
