"""Containers that are kept ready for functions which want some, whether they have calls or not."""

from __future__ import annotations

import asyncio
import heapq
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
        there, missing = 0, []
        for number, (target, count) in enumerate(found.values()):
            some, has = self._look(target.key, count, now)
            there += some
            if has < count and not self._pool.closed:
                missing.append((has, number, target))
        # Whoever has least comes first, so that each has one before others have all.
        heapq.heapify(missing)
        while missing:
            has, number, target = heapq.heappop(missing)
            if self._begin_one(target, has, now):
                heapq.heappush(missing, (has + 1, number, target))
        return there

    def _look(self, key: bytes, count: int, now: float) -> tuple[int, int]:
        """Of *count* containers how many are there, and how many with those that are starting."""
        kept = self._kept.setdefault(key, _Kept())
        if kept.count != count:
            kept.count, kept.begun = count, min(kept.begun, count)
        queue = self._pool.queues.get(key)
        there = len(queue.containers) if queue else 0
        kept.full_since = min(kept.full_since, now) if there >= count else math.inf
        if now - kept.full_since >= CALM:
            kept.begun = 0
        return min(there, count), there + (queue.starting if queue else 0)

    def _begin_one(self, target: Target, has: int, now: float) -> bool:
        """Whether one more was begun, and yet another one is missing."""
        kept = self._kept[target.key]
        if now < kept.after:
            return False
        queue = self._pool.queue(target)
        begun = self._starts.begin_spare(queue)
        self._pool.tidy(queue)
        if begun:
            self._begun(kept, now, failing=self._starts.backoff.failing(target.origin))
        return begun and has + 1 < kept.count

    def _begun(self, kept: _Kept, now: float, *, failing: bool) -> None:
        """The first of each are free; those that replace others, or are tried again, cost a pause."""
        kept.begun = max(kept.begun + 1, kept.count + 1 if failing else 0)
        again = kept.begun - kept.count
        if again > 0:
            kept.after = now + min(LONGEST, FIRST * 2.0 ** min(again - 1, 10))
