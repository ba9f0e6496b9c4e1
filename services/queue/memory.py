"""A queue in memory, for tests and for nodes whose async calls may be lost with the process."""

from __future__ import annotations

import heapq
import math
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import islice

import msgspec

from services.queue.waiting import WaitingQueue
from shared_models import times
from shared_models.call import Call, Lease, LeasedCall, LeaseKey
from shared_models.interfaces import QueueDepth, WaitingCall

_Entry = tuple[tuple[int, int], str]


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
    """Heaps: what may be handed out, by place, one a function; what may be later, by time.

    Entries are not taken out when their message changes: one that no longer fits is dropped when it
    comes up.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock)
        self._messages: dict[str, _Message] = {}
        self._by_fn: dict[str, dict[str, _Message]] = {}
        self._ready: dict[str, list[_Entry]] = {}
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
        self._by_fn.setdefault(call.fn_id, {})[call.id] = message
        self._sort_in(message)
        return True

    async def reserve_named(self, call_ids: Sequence[str], ttl: float) -> list[LeasedCall]:
        now = self._clock()
        found = [self._messages[one] for one in dict.fromkeys(call_ids) if one in self._messages]
        return [self._lease(message, now, ttl) for message in found if message.free_at <= now]

    async def waiting(self, fn_id: str, after: str, limit: int) -> list[WaitingCall]:
        now, last = self._clock(), int(after or 0)
        # In the order of their pushes, as they came into it.
        behind = (one for one in self._by_fn.get(fn_id, {}).values() if one.place[1] > last)
        found = islice((one for one in behind if not one.token or one.free_at <= now), limit)
        return [
            WaitingCall(
                call=msgspec.structs.replace(one.call, attempt=one.attempt, payload=b""),
                age=now - one.pushed,
                place=str(one.place[1]),
            )
            for one in found
        ]

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

    async def requeue(self, keys: Sequence[LeaseKey], delay: float) -> list[str]:
        lost = []
        for key in keys:
            message = self._held(key)
            if message is None:
                lost.append(key.id)
                continue
            message.token, message.free_at = "", self._clock() + max(0, delay)
            self._sort_in(message)
        return lost

    async def delete(self, keys: Sequence[LeaseKey]) -> None:
        now = self._clock()
        for key in keys:
            message = self._messages.get(key.id)
            if message is None:
                continue
            ran_out = bool(message.token) and message.free_at <= now
            if not key.token or message.token == key.token or ran_out:
                self._forget(message.call)

    async def holds(self, call_ids: Sequence[str]) -> set[str]:
        return {call_id for call_id in call_ids if call_id in self._messages}

    async def find(self, call_ids: Sequence[str]) -> dict[str, Call]:
        found = [self._messages[call_id] for call_id in call_ids if call_id in self._messages]
        return {one.call.id: msgspec.structs.replace(one.call, attempt=one.attempt) for one in found}

    async def depth(self, fn_id: str) -> QueueDepth:
        now = self._clock()
        messages = self._by_fn.get(fn_id, {}).values()
        waiting = [one.pushed for one in messages if not one.token or one.free_at <= now]
        return QueueDepth(
            fn_id=fn_id,
            queued=len(waiting),
            leased=len(messages) - len(waiting),
            oldest=times.to_text(min(waiting)) if waiting else times.NEVER,
        )

    async def depths(self) -> list[QueueDepth]:
        return [await self.depth(fn_id) for fn_id in sorted(self._by_fn)]

    def _held(self, key: LeaseKey) -> _Message | None:
        message = self._messages.get(key.id)
        return message if message and key.token and message.token == key.token else None

    def _forget(self, call: Call) -> None:
        del self._messages[call.id]
        del self._by_fn[call.fn_id][call.id]
        if not self._by_fn[call.fn_id]:
            del self._by_fn[call.fn_id]

    def _sort_in(self, message: _Message) -> None:
        heapq.heappush(self._later, (message.free_at, message.call.id))
        self._bell.ring(message.call.fn_id)

    async def _take(self, limit: int, ttl: float, without: Collection[str]) -> list[LeasedCall]:
        now = self._clock()
        self._promote(now)
        heads = [(line[0], line) for fn_id, line in self._ready.items() if fn_id not in without]
        heapq.heapify(heads)
        taken: list[LeasedCall] = []
        while heads and len(taken) < limit:
            (place, call_id), line = heads[0]
            heapq.heappop(line)
            if line:
                heapq.heapreplace(heads, (line[0], line))
            else:
                heapq.heappop(heads)
            message = self._messages.get(call_id)
            if message and message.place == place and message.free_at <= now:
                taken.append(self._lease(message, now, ttl))
        self._ready = {fn_id: line for fn_id, line in self._ready.items() if line}
        return taken

    def _promote(self, now: float) -> None:
        """Makes ready what is due."""
        while self._later and self._later[0][0] <= now:
            at, call_id = heapq.heappop(self._later)
            message = self._messages.get(call_id)
            if message and message.free_at == at:
                heapq.heappush(self._ready.setdefault(message.call.fn_id, []), (message.place, call_id))

    def _lease(self, message: _Message, now: float, ttl: float) -> LeasedCall:
        message.token, message.attempt = secrets.token_urlsafe(16), message.attempt + 1
        message.free_at = now + ttl
        heapq.heappush(self._later, (message.free_at, message.call.id))
        lease = Lease(token=message.token, attempt=message.attempt, ttl=ttl, age=now - message.pushed)
        call = msgspec.structs.replace(message.call, attempt=message.attempt)
        return LeasedCall(call=call, lease=lease)

    async def _next_free(self) -> float:
        return self._later[0][0] if self._later else math.inf
