"""The way to a container's stdin over the engine: written no faster than the engine passes it on."""

from __future__ import annotations

import asyncio
from typing import cast

from shared_models import errors


class AttachedStdin(asyncio.Protocol):
    """One attached connection; the engine closes stdin when this ends. Writers take turns."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._turn = asyncio.Lock()
        self._room = asyncio.Event()
        self._room.set()
        self._lost = False

    async def write(self, data: bytes) -> None:
        """Returns when *data* is on its way; raises FunctionResponseError when nobody reads it any more."""
        async with self._turn:
            if self._transport is None or self._lost or self._transport.is_closing():
                raise errors.FunctionResponseError(detail="stdin is closed")
            self._transport.write(data)
            await self._room.wait()
            if self._lost:
                raise errors.FunctionResponseError(detail="the function does not read: it has closed stdin")

    async def close(self) -> None:
        """Ends stdin behind all that was written before. Idempotent."""
        async with self._turn:
            if self._transport:
                self._transport.close()

    def abandon(self) -> None:
        """Closes it now; one who is writing is told."""
        if self._transport and not self._lost:
            self._transport.abort()

    # -- what asyncio calls ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # No assert: uvloop's transports belong to none of asyncio's classes.
        self._transport = cast("asyncio.WriteTransport", transport)
        # Not 0: with TLS, asyncio holds an empty buffer for a full one then.
        self._transport.set_write_buffer_limits(high=1)

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._room.set()
