"""Deadlines of very many things that hardly ever reach them: one timer for all, not one each.

A timer of the event loop costs as much to start and to stop as all the rest of a call's wait. Here a thing is
put into a dict and taken out of it; only when the nearest deadline comes are they looked at.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod

log = logging.getLogger(__name__)

APART = 0.005
"""Seconds between two looks at all of them at least, by which a deadline may be late."""


class Due(ABC):
    """Something with a deadline: *until*, in the loop's time."""

    until: float

    @abstractmethod
    def expire(self) -> None:
        """The deadline has passed; it is watched no longer."""


class Deadlines:
    """On one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due: dict[Due, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._at = 0.0

    def __len__(self) -> int:
        return len(self._due)

    def add(self, one: Due) -> None:
        """Watches *one* until it expires or is discarded."""
        self._due[one] = None
        if self._timer is None or one.until < self._at:
            self._arm(one.until)

    def discard(self, one: Due) -> None:
        """Watches *one* no longer. Idempotent."""
        self._due.pop(one, None)

    def _arm(self, at: float) -> None:
        if self._timer:
            self._timer.cancel()
        self._at = at
        self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        self._timer, now = None, self._loop.time()
        over = [one for one in self._due if one.until <= now]
        for one in over:
            del self._due[one]
        if self._due:
            self._arm(max(min(one.until for one in self._due), now + APART))
        for one in over:
            try:
                one.expire()
            except Exception:
                log.exception("what follows a deadline broke down")
