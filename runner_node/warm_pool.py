"""Containers that are kept ready for functions which want some, whether they have calls or not."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable

from runner_node.calls import Target
from runner_node.pool import Pool
from runner_node.starts import Starts

FIRST = 1.0
LONGEST = 60.0
"""Seconds before a container is replaced that ended or did not start; doubles with each."""
CALM = 60.0
"""Seconds for which all must have been there before the next that ends is replaced without a pause."""


class _Kept:
    """Of one target: *count* containers, *begun* ones since all was calm, the next one not before *after*."""

    __slots__ = ("after", "begun", "count", "full_since")

    def __init__(self) -> None:
        self.count = 0
        self.begun = 0
        self.after = -math.inf
        self.full_since = math.inf


class WarmPool:
    """Of one scheduler. Starts what is missing when it is looked at, and never at the cost of others."""

    def __init__(self, pool: Pool, starts: Starts) -> None:
        self._pool = pool
        self._starts = starts
        self._kept: dict[bytes, _Kept] = {}
        self._loop = asyncio.get_running_loop()

    def keep(self, wanted: Iterable[tuple[Target, int]]) -> int:
        """From now on each target in *wanted*, and no other, has so many containers; how many there are.

        To be called again every second or so: what is missing is started then.
        """
        found = {target.key: (target, count) for target, count in wanted}
        for key in self._kept.keys() - found.keys():
            del self._kept[key]
        self._pool.room.warm = {key: count for key, (_, count) in found.items()}
        now = self._loop.time()
        return sum(self._look(target, count, now) for target, count in found.values())

    def _look(self, target: Target, count: int, now: float) -> int:
        kept = self._kept.setdefault(target.key, _Kept())
        if kept.count != count:
            kept.count, kept.begun = count, min(kept.begun, count)
        queue = self._pool.queues.get(target.key)
        there = len(queue.containers) if queue else 0
        missing = count - there - (queue.starting if queue else 0)
        if there >= count:
            kept.full_since = min(kept.full_since, now)
            if now - kept.full_since >= CALM:
                kept.begun = 0
        else:
            kept.full_since = math.inf
        if missing > 0 and not self._pool.closed:
            queue = self._pool.queue(target)
            while missing > 0 and now >= kept.after and self._starts.begin_spare(queue):
                missing -= 1
                self._begun(kept, now, failing=self._starts.backoff.failing(target.origin))
            self._pool.tidy(queue)
        return min(there, count)

    def _begun(self, kept: _Kept, now: float, *, failing: bool) -> None:
        """The first of each are free; those that replace others, or are tried again, cost a pause."""
        kept.begun = max(kept.begun + 1, kept.count + 1 if failing else 0)
        again = kept.begun - kept.count
        if again > 0:
            kept.after = now + min(LONGEST, FIRST * 2.0 ** min(again - 1, 10))
