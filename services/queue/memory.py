"""A queue in memory, for tests and for nodes whose async calls may be lost with the process."""

from __future__ import annotations

import heapq
import math
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from services.queue.waiting import WaitingQueue
from shared_models import times
from shared_models.call import Call, Lease, LeasedCall, LeaseKey
from shared_models.interfaces import QueueDepth


@dataclass(slots=True)
class _Message:
    """A queued call. *free_at*: when it may be handed out, be it due or its lease run out."""

    call: Call
    place: tuple[int, int]
    pushed: float
    free_at: float
    attempt: int = 0
    token: str = ""


class MemoryQueue(WaitingQueue):
    """Two heaps: what may be handed out, by place; what may be later, by time.

    Entries are not taken out when their message changes: one that no longer fits is dropped when it
    comes up.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock)
        self._messages: dict[str, _Message] = {}
        self._ready: list[tuple[tuple[int, int], str]] = []
        self._later: list[tuple[float, str]] = []
        self._pushed = 0

    async def push(self, call: Call) -> bool:
        if call.id in self._messages:
            return False
        now = self._clock()
        self._pushed += 1
        place = (-call.priority, self._pushed)
        message = _Message(call=call, place=place, pushed=now, free_at=now + max(0, call.delay))
        self._messages[call.id] = message
        self._sort_in(message)
        return True

    async def extend(self, keys: Sequence[LeaseKey], ttl: float) -> list[str]:
        lost = []
        for key in keys:
            message = self._messages.get(key.id)
            if message is None or not message.token or (key.token and message.token != key.token):
                lost.append(key.id)
                continue
            message.free_at = self._clock() + ttl
            self._sort_in(message)
        return lost

    async def release(self, keys: Sequence[LeaseKey]) -> None:
        for key in keys:
            message = self._held(key)
            if message is None:
                continue
            message.token, message.attempt, message.free_at = "", message.attempt - 1, self._clock()
            self._sort_in(message)

    async def delete(self, keys: Sequence[LeaseKey]) -> None:
        now = self._clock()
        for key in keys:
            message = self._messages.get(key.id)
            if message is None:
                continue
            ran_out = bool(message.token) and message.free_at <= now
            if not key.token or message.token == key.token or ran_out:
                del self._messages[key.id]

    async def holds(self, call_ids: Sequence[str]) -> set[str]:
        return {call_id for call_id in call_ids if call_id in self._messages}

    async def depths(self) -> list[QueueDepth]:
        now = self._clock()
        queued: dict[str, int] = {}
        leased: dict[str, int] = {}
        oldest: dict[str, float] = {}
        for message in self._messages.values():
            fn_id = message.call.fn_id
            if message.token and message.free_at > now:
                leased[fn_id] = leased.get(fn_id, 0) + 1
            else:
                queued[fn_id] = queued.get(fn_id, 0) + 1
                oldest[fn_id] = min(message.pushed, oldest.get(fn_id, math.inf))
        return [
            QueueDepth(
                fn_id=fn_id,
                queued=queued.get(fn_id, 0),
                leased=leased.get(fn_id, 0),
                oldest=times.to_text(oldest[fn_id]) if fn_id in oldest else times.NEVER,
            )
            for fn_id in sorted({*queued, *leased})
        ]

    def _held(self, key: LeaseKey) -> _Message | None:
        message = self._messages.get(key.id)
        return message if message and key.token and message.token == key.token else None

    def _sort_in(self, message: _Message) -> None:
        heapq.heappush(self._later, (message.free_at, message.call.id))
        self._bell.ring()

    async def _take(self, limit: int, ttl: float) -> list[LeasedCall]:
        now = self._clock()
        while self._later and self._later[0][0] <= now:
            at, call_id = heapq.heappop(self._later)
            message = self._messages.get(call_id)
            if message and message.free_at == at:
                heapq.heappush(self._ready, (message.place, call_id))
        taken: list[LeasedCall] = []
        while self._ready and len(taken) < limit:
            place, call_id = heapq.heappop(self._ready)
            message = self._messages.get(call_id)
            if message and message.place == place and message.free_at <= now:
                taken.append(self._lease(message, now, ttl))
        return taken

    def _lease(self, message: _Message, now: float, ttl: float) -> LeasedCall:
        message.token, message.attempt = secrets.token_urlsafe(16), message.attempt + 1
        message.free_at = now + ttl
        heapq.heappush(self._later, (message.free_at, message.call.id))
        lease = Lease(token=message.token, attempt=message.attempt, ttl=ttl, age=now - message.pushed)
        call = msgspec.structs.replace(message.call, attempt=message.attempt)
        return LeasedCall(call=call, lease=lease)

    async def _next_free(self) -> float:
        return self._later[0][0] if self._later else math.inf
