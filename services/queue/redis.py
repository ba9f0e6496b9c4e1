"""The queue on a Redis server, which many nodes share. Each operation is one atomic script."""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import msgspec

from services import urls
from services.queue.redis_bell import hearing_bell
from services.queue.redis_errors import DRIVER_ERRORS, cause
from services.queue.redis_link import Command, RedisLink, open_link
from services.queue.redis_server import check
from services.queue.redis_settings import RedisSettings
from services.queue.sizes import BYTES_AT_ONCE, portions
from services.queue.waiting import WaitingQueue
from shared_models import times
from shared_models.batches import Batches
from shared_models.call import Call, Lease, LeasedCall, LeaseKey
from shared_models.errors import FnError, Invalid, QueueUnavailable
from shared_models.interfaces import MessageQueue, QueueDepth, WaitingCall

log = logging.getLogger(__name__)

VARIABLE = "FN_MQ_URL"
LOOK_EVERY = 30.0
"""Seconds after which a waiting reserve looks by itself, should a message of the server be lost."""
_ASIDE = 3600
_HIGHEST = 0x7FFFFFFF
_UNCOUNTED, _COUNTED = 1, 0
_IN_ONE_SCRIPT = 256
_decoder = msgspec.json.Decoder(Call)


@asynccontextmanager
async def open_redis_queue(
    address: urls.Address, clock: Callable[[], float] | None = None
) -> AsyncIterator[MessageQueue]:
    """The queue at ``redis://user:password@host:port/DB?prefix=fn``.

    Other parameters: ``tls``, ``ca`` (a file), ``pool_size``, ``connect_timeout`` and ``timeout`` in
    seconds. Without *clock* it goes by the server's time. Raises ValueError for bad parameters,
    QueueUnavailable with one clear line when the server cannot be used.
    """
    settings = RedisSettings.of(address, VARIABLE)
    async with open_link(settings) as link, AsyncExitStack() as opened:
        queue = RedisQueue(link, clock)
        try:
            await check(link)
            await opened.enter_async_context(hearing_bell(settings, queue.ring))
        except (*DRIVER_ERRORS, ValueError) as exc:
            raise QueueUnavailable(f"Queue: {address}: {cause(exc)} ({VARIABLE})") from exc
        try:
            yield queue
        finally:
            await queue.settle()


class RedisQueue(WaitingQueue):
    """Pushes that arrive while others are under way share the next round trip.

    What is free when is known to the server alone: it tells all nodes (``redis_bell``), and each look
    tells the time until the next.
    """

    def __init__(self, link: RedisLink, clock: Callable[[], float] | None) -> None:
        self._link = link
        self._given_clock = clock
        self._server_clock = _ServerClock()
        super().__init__(clock or self._server_clock, LOOK_EVERY)
        self._next = math.inf
        self._pushes = Batches(self._push_all)

    async def settle(self) -> None:
        """Returns when everything asked for so far is done."""
        await self._pushes.settle()
        await self._unclaimed.settle()

    async def push(self, call: Call) -> bool:
        try:
            text = msgspec.json.encode(msgspec.structs.replace(call, payload=b""))
        except UnicodeEncodeError as exc:
            raise Invalid(f"A value cannot be stored: {exc}") from exc
        rank = f"{_HIGHEST - call.priority:08x}"
        command = self._script("push", call.id, call.fn_id, rank, max(0, call.delay), text, call.payload)
        return await self._pushes.ask((command, len(text) + len(call.payload)))

    async def reserve_named(self, call_ids: Sequence[str], ttl: float) -> list[LeasedCall]:
        return await self._unclaimed.leased(self._lease_named(list(dict.fromkeys(call_ids)), ttl))

    async def _lease_named(self, call_ids: Sequence[str], ttl: float) -> list[LeasedCall]:
        taken: list[LeasedCall] = []
        for start in range(0, len(call_ids), _IN_ONE_SCRIPT):
            some = call_ids[start : start + _IN_ONE_SCRIPT]
            pairs = [text for one in some for text in (one, secrets.token_urlsafe(16))]
            take = self._script("named", ttl, BYTES_AT_ONCE, *pairs)
            # Not repeatable: as a take.
            [found] = await self._run([take], repeatable=False)
            taken += await self._readable(found, ttl)
        return taken

    async def waiting(self, fn_id: str, after: str, limit: int) -> list[WaitingCall]:
        unsorted, rows = 1, []
        while unsorted:
            pushed, _, last = after.partition(" ")
            [(unsorted, rows)] = await self._run([self._script("waiting", fn_id, limit, pushed, last)])
        found: list[WaitingCall] = []
        for place, age, attempt, text in rows:
            # One that cannot be read is told of when it is handed out.
            with suppress(msgspec.MsgspecError):
                call = _call(text, b"", int(attempt))
                found.append(WaitingCall(call=call, age=float(age), place=place.decode()))
        return found

    async def extend(self, keys: Sequence[LeaseKey], ttl: float) -> list[str]:
        answers = await self._for_keys(keys, "extend", ttl)
        return [call_id.decode() for lost in answers for call_id in lost]

    async def release(self, keys: Sequence[LeaseKey]) -> None:
        await self._for_keys(keys, "release", 0, _UNCOUNTED)

    async def requeue(self, keys: Sequence[LeaseKey], delay: float) -> list[str]:
        answers = await self._for_keys(keys, "release", delay, _COUNTED)
        return [call_id.decode() for lost in answers for call_id in lost]

    async def delete(self, keys: Sequence[LeaseKey]) -> None:
        await self._for_keys(keys, "delete")

    async def holds(self, call_ids: Sequence[str]) -> set[str]:
        names = list(call_ids)
        found = await self._run([("EXISTS", self._link.key(f"m:{name}")) for name in names])
        return {name for name, there in zip(names, found, strict=True) if there}

    async def find(self, call_ids: Sequence[str]) -> dict[str, Call]:
        names = list(dict.fromkeys(call_ids))
        found: dict[str, Call] = {}
        for start in range(0, len(names), _IN_ONE_SCRIPT):
            keys = {name: self._link.key(f"m:{name}") for name in names[start : start + _IN_ONE_SCRIPT]}
            lengths = await self._run([("HSTRLEN", key, "payload") for key in keys.values()])
            for some in portions(zip(keys, lengths, strict=True)):
                rows = await self._run([("HMGET", keys[name], "attempt", "call", "payload") for name in some])
                for name, (attempt, text, payload) in zip(some, rows, strict=True):
                    if attempt is None:
                        continue
                    try:
                        found[name] = _call(text, payload, int(attempt))
                    except msgspec.MsgspecError as exc:
                        log.error("a queued call cannot be read: %s", exc)
        return found

    async def depth(self, fn_id: str) -> QueueDepth:
        found = await self._depths(fn_id)
        return found[0] if found else QueueDepth(fn_id=fn_id, queued=0, leased=0, oldest=times.NEVER)

    async def depths(self) -> list[QueueDepth]:
        return sorted(await self._depths(), key=lambda depth: depth.fn_id)

    async def _depths(self, *fn_ids: str) -> list[QueueDepth]:
        unsorted, rows = 1, []
        while unsorted:
            [(unsorted, rows)] = await self._run([self._script("depths", *fn_ids)])
        return [
            QueueDepth(
                fn_id=fn_id.decode(),
                queued=queued,
                leased=leased,
                oldest=times.to_text(float(oldest)) if oldest else times.NEVER,
            )
            for fn_id, queued, leased, oldest in rows
        ]

    async def _next_free(self) -> float:
        return self._next

    async def _take(self, limit: int, ttl: float, without: Collection[str]) -> list[LeasedCall]:
        return await self._unclaimed.leased(self._lease(limit, ttl, without))

    async def _lease(self, limit: int, ttl: float, without: Collection[str]) -> list[LeasedCall]:
        while True:
            tokens = [secrets.token_urlsafe(16) for _ in range(min(limit, _IN_ONE_SCRIPT))]
            take = self._script("take", ttl, BYTES_AT_ONCE, len(without), *without, *tokens)
            # Not repeatable: what the first one may have leased would be lost for the time of its lease.
            [(now, free_at, found)] = await self._run([take], repeatable=False)
            self._server_clock.set(float(now))
            self._next = float(free_at) if free_at else math.inf
            taken = await self._readable(found, ttl)
            if taken or self._next > float(now):
                return taken

    async def _readable(self, found: list[list[Any]], ttl: float) -> list[LeasedCall]:
        taken, unreadable = [], []
        for call_id, token, attempt, age, text, payload in found:
            try:
                call = _call(text, payload, attempt)
            except msgspec.MsgspecError as exc:
                # Kept for whoever looks into it, but out of the way of the others.
                log.error("a queued call cannot be read, and is put aside for an hour: %s", exc)
                unreadable.append(LeaseKey(call_id.decode(), token.decode()))
                continue
            lease = Lease(token=token.decode(), attempt=attempt, ttl=ttl, age=max(0.0, float(age)))
            taken.append(LeasedCall(call=call, lease=lease))
        with suppress(QueueUnavailable):
            await self._for_keys(unreadable, "release", _ASIDE, _UNCOUNTED)
        return taken

    async def _push_all(self, pushes: Sequence[tuple[Command, int]]) -> list[bool | Exception]:
        results: list[bool | Exception] = []
        while len(results) < len(pushes):
            commands: list[Command] = []
            size = 0
            for command, length in pushes[len(results) :]:
                if commands and size + length > BYTES_AT_ONCE:
                    break
                commands.append(command)
                size += length
            try:
                answers = await self._link.run(commands)
            except FnError as exc:
                # The rest is not tried: each attempt may take as long as this one.
                return [*results, *[exc] * (len(pushes) - len(results))]
            results += [one if isinstance(one, Exception) else bool(one) for one in answers]
        return results

    async def _for_keys(self, keys: Sequence[LeaseKey], script: str, *arguments: float) -> list[Any]:
        commands: list[Command] = []
        for start in range(0, len(keys), _IN_ONE_SCRIPT):
            pairs = [text for key in keys[start : start + _IN_ONE_SCRIPT] for text in (key.id, key.token)]
            commands.append(self._script(script, *arguments, *pairs))
        return await self._run(commands)

    async def _run(self, commands: Sequence[Command], *, repeatable: bool = True) -> list[Any]:
        answers = await self._link.run(commands, repeatable=repeatable) if commands else []
        if failed := next((one for one in answers if isinstance(one, Exception)), None):
            raise failed
        return answers

    def _script(self, name: str, *arguments: str | bytes | int | float) -> Command:
        now = f"{self._given_clock():.6f}" if self._given_clock else ""
        return self._link.script(name, now, *arguments)


def _call(text: bytes, payload: bytes, attempt: int) -> Call:
    return msgspec.structs.replace(_decoder.decode(text), payload=payload, attempt=attempt)


class _ServerClock:
    """The time of the server, as far as its last answer tells."""

    def __init__(self) -> None:
        self._ahead = 0.0

    def set(self, seconds: float) -> None:
        self._ahead = seconds - time.monotonic()

    def __call__(self) -> float:
        return time.monotonic() + self._ahead
