"""Who waits for a call, and is woken when one may be there."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Bell:
    """Wakes those who wait one at a time, in the order in which they came.

    One ring is one look at the queue, not one per waiting runner. Whoever is woken and leaves rings
    for the next, who then sees what is left and when the next call falls due.
    """

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()

    def ring(self) -> None:
        """Wakes the one who has waited longest."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    @contextmanager
    def listening(self) -> Iterator[asyncio.Future[None]]:
        """Stands in line while the block runs; the future is done when it was rung.

        Whoever looks at a queue stands in line before the look: no ring between look and wait is lost.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            yield waiter
        except BaseException:
            if waiter.done():
                self.ring()
            raise
        finally:
            if not waiter.done():
                waiter.cancel()
                self._waiting.remove(waiter)
