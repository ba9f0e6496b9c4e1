"""How much each function has in the queue, about, so that one cannot fill it for all."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from shared_models import async_policy
from shared_models.async_policy import AsyncSettings
from shared_models.call import Call
from shared_models.errors import QueueFull
from shared_models.interfaces import MessageQueue

FRESH = 1.0
"""Seconds for which a depth is believed; what this node pushed since is added to it."""
_MOST_KNOWN = 10_000
_SHARE = 0.1
"""Part of a full queue that should have drained before it is worth to try again."""
_GUESS, _SOONEST, _LATEST = 5.0, 1.0, 60.0


@dataclass(slots=True)
class _Known:
    queued: int
    at: float
    pushed: int = 0
    drained: float = 0.0
    """Calls a second that left the queue when it was last looked at."""


class Depths:
    """The limit on the queue of one function.

    Each API node looks once a second, so that several together may pass it by what they push in between.
    """

    def __init__(self, queue: MessageQueue) -> None:
        self._queue = queue
        self._known: dict[str, _Known] = {}
        self._looking: set[str] = set()

    async def refuse_if_full(self, call: Call, settings: AsyncSettings) -> None:
        """Raises QueueFull when the function of *call* has all that may wait."""
        limit = async_policy.max_queued(call, settings)
        if not limit:
            return
        now = asyncio.get_running_loop().time()
        known = self._known.get(call.fn_id)
        # Those who come while one looks go by what was known: a long queue takes a while to be counted.
        if known is None or (now - known.at >= FRESH and call.fn_id not in self._looking):
            known = await self._look(call.fn_id, known, now)
        queued = known.queued + known.pushed
        if queued >= limit:
            after = limit * _SHARE / known.drained if known.drained > 0 else _GUESS
            raise QueueFull(queued, limit, min(max(after, _SOONEST), _LATEST))

    async def _look(self, fn_id: str, before: _Known | None, now: float) -> _Known:
        self._looking.add(fn_id)
        try:
            depth = await self._queue.depth(fn_id)
        finally:
            self._looking.discard(fn_id)
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        known = self._known[fn_id] = _looked(before, depth.queued, now)
        return known

    def pushed(self, fn_id: str) -> None:
        """One more waits."""
        if known := self._known.get(fn_id):
            known.pushed += 1


def _looked(before: _Known | None, queued: int, now: float) -> _Known:
    if before is None:
        return _Known(queued, now)
    drained = (before.queued + before.pushed - queued) / (now - before.at)
    return _Known(queued, now, drained=max(0.0, drained))
