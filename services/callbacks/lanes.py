"""Fair shares: one slow receiver, or one busy app, must not hold up the callbacks of all others."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PATIENCE = 5.0
"""Seconds that one waits for its turn in a lane of this node; then it makes room for others."""
LONGEST = 1800.0
"""Seconds after which one that made room comes back at the latest."""
_AVERAGE = 1.0
_WEIGHT = 0.2


class NoRoom(Exception):
    """*delay*: seconds after which there may be room."""

    def __init__(self, delay: float) -> None:
        super().__init__(delay)
        self.delay = delay


class Lane:
    """*width* pass at once, the others wait in line, first come, first served."""

    def __init__(self, width: int, patience: float = PATIENCE) -> None:
        self._width = width
        self._patience = patience
        self._free = asyncio.Semaphore(width)
        self._average = _AVERAGE
        self._next = 0.0
        self._inside = 0
        self._waiting = 0

    @property
    def idle(self) -> bool:
        """Whether nobody is here and nobody was told to come back."""
        return not self._inside and not self._waiting and self._next <= time.monotonic()

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """The turn for the block; raises NoRoom when that takes longer than *patience* s."""
        if self._waiting * self._average / self._width > self._patience:
            raise self._no_room()
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience):
                await self._free.acquire()
        except TimeoutError:
            raise self._no_room() from None
        finally:
            self._waiting -= 1
        self._inside += 1
        began = time.monotonic()
        try:
            yield
            self._average += (time.monotonic() - began - self._average) * _WEIGHT
        finally:
            self._inside -= 1
            self._free.release()

    def _no_room(self) -> NoRoom:
        """Those who come back do so one after the other, as fast as the lane takes them."""
        now = time.monotonic()
        self._next = min(max(self._next, now + self._patience) + self._average / self._width, now + LONGEST)
        return NoRoom(self._next - now)


class Lanes:
    """A lane for each of many keys, for as long as it is used."""

    def __init__(self, width: int, patience: float = PATIENCE) -> None:
        self._width = width
        self._patience = patience
        self._lanes: dict[str, Lane] = {}
        self._sweep = 1000

    def __len__(self) -> int:
        return len(self._lanes)

    def of(self, key: str) -> contextlib.AbstractAsyncContextManager[None]:
        """See ``Lane.passing``."""
        if len(self._lanes) >= self._sweep:
            self._lanes = {name: lane for name, lane in self._lanes.items() if not lane.idle}
            self._sweep = max(1000, 2 * len(self._lanes))
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(self._width, self._patience)
        return lane.passing()
