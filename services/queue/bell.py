"""Who waits for a call, and is woken when one may be there."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Bell:
    """Wakes those who wait one at a time, in the order in which they came.

    One ring is one look at the queue, not one per waiting runner. Whoever is woken and leaves wakes
    the next, who then sees what is left and when the next call falls due.

    Those who pass over the same functions stand in one line. A ring wakes the first of each line: what one
    line passes over, another may be waiting for.
    """

    def __init__(self) -> None:
        self._lines: dict[frozenset[str], deque[asyncio.Future[None]]] = {}

    def ring(self, fn_id: str | None = None) -> None:
        """Something may be free: a call of *fn_id* if given, which those who pass it over do not look at."""
        for without in [one for one in self._lines if fn_id is None or fn_id not in one]:
            self.pass_on(without)

    def pass_on(self, without: frozenset[str] = frozenset()) -> None:
        """Wakes the one who has waited longest among those who pass over exactly *without*."""
        line = self._lines.get(without)
        while line:
            waiter = line.popleft()
            if not line:
                del self._lines[without]
            if not waiter.done():
                waiter.set_result(None)
                return

    @contextmanager
    def listening(self, without: frozenset[str] = frozenset()) -> Iterator[asyncio.Future[None]]:
        """Stands in the line of *without* while the block runs; the future is done when it was rung.

        Whoever looks at a queue stands in line before the look: no ring between look and wait is lost.
        """
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(without, deque()).append(waiter)
        try:
            yield waiter
        except BaseException:
            if waiter.done():
                self.pass_on(without)
            raise
        finally:
            if not waiter.done():
                waiter.cancel()
                self._lines[without].remove(waiter)
                if not self._lines[without]:
                    del self._lines[without]
