"""Data access on the stores themselves: what a full node uses, and what an API node serves to runners.

A call lives in two places: the queue says whose turn it is, the log store says what became of it.
No transaction spans both, so every method orders its steps such that a node may die between any two
of them. The queue's message goes last: as long as it is there the call comes back, and the record
decides whether it may run. A final record is never left, so a message that outlived its call is
dropped when it comes up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence

import msgspec

from services.stores import Stores
from shared_models import async_policy, errors, times
from shared_models.app import App
from shared_models.async_policy import DEFAULTS
from shared_models.call import FINAL, Call, CallType, Finished, LeasedCall, LeaseKey, Status
from shared_models.errors import FnError, Invalid, LeaseLost, QueueUnavailable
from shared_models.fn import Fn
from shared_models.interfaces import DataAccess
from shared_models.route import Route
from shared_models.runner import RunnerReport, RunnerState
from shared_models.trigger import TriggerTarget

log = logging.getLogger(__name__)

LEASE_TTL = 30.0
"""Seconds that a lease lasts unless it is renewed."""
MAX_WAIT = 30.0
_GRACE = 60.0
"""Seconds beyond a call's timeout that an unmodified Fn runner, which renews nothing, may take."""


class DirectDataAccess(DataAccess):
    """*lease_ttl*: seconds that a lease lasts unless it is renewed."""

    def __init__(
        self, stores: Stores, *, lease_ttl: float = LEASE_TTL, clock: Callable[[], float] = time.time
    ) -> None:
        self._datastore = stores.datastore
        self._logstore = stores.logstore
        self._queue = stores.queue
        self._lease_ttl = lease_ttl
        self._clock = clock

    # -- look-ups ------------------------------------------------------------------------------

    async def app_id(self, name: str) -> str:
        return await self._datastore.app_id(name)

    async def app(self, app_id: str) -> App:
        return await self._datastore.app(app_id)

    async def route(self, app_id: str, path: str) -> Route:
        return await self._datastore.route(app_id, path)

    async def fn(self, fn_id: str) -> Fn:
        return await self._datastore.fn(fn_id)

    async def trigger(self, app_name: str, type_: str, source: str) -> TriggerTarget:
        app_id = await self._datastore.app_id(app_name)
        trigger = await self._datastore.trigger_by_source(app_id, type_, source)
        fn, app = await asyncio.gather(self._datastore.fn(trigger.fn_id), self._datastore.app(app_id))
        return TriggerTarget(trigger=trigger, fn=fn, app=app)

    # -- calls in ------------------------------------------------------------------------------

    async def enqueue(self, call: Call) -> None:
        """Record first, then message.

        Died before the record: not accepted, nothing is left. Died between: a record without a
        message, which a repetition completes and the janitor ends otherwise. Died after: accepted,
        and a repetition finds both.
        """
        await self._check(call)
        created_at = times.to_text(self._clock()) if call.created_at == times.NEVER else call.created_at
        call = msgspec.structs.replace(call, status=Status.QUEUED, attempt=0, node="", created_at=created_at)
        fresh = await self._logstore.insert_call(call)
        if not fresh and not await self._is_repeated(call):
            return
        try:
            await self._queue.push(call)
        except FnError:
            # Only what this very request recorded: an earlier one may have been answered with 202.
            if fresh:
                with contextlib.suppress(FnError):
                    await self._logstore.remove_call(call.id)
            raise

    async def _check(self, call: Call) -> None:
        if not call.fn_id:
            await self._datastore.app(call.app_id)
            return
        fn = await self._datastore.fn(call.fn_id)
        if call.app_id != fn.app_id:
            raise Invalid(f"app_id: function {fn.id} is of app {fn.app_id}, not of {call.app_id!r:.40}")
        if call.image != fn.image:
            raise Invalid(f"image: function {fn.id} has image {fn.image!r}, not {call.image!r:.300}")

    async def _is_repeated(self, call: Call) -> bool:
        """Whether *call*, whose id is known, may still lack its message; raises CallExists for another call.

        A push in vain does no harm: the queue knows the id, or the record is final by then and the
        message is dropped when it comes up.
        """
        try:
            known = await self._logstore.call(call.id, app_id=call.app_id)
        except errors.CallNotFound:
            raise errors.CallExists from None
        if (known.fn_id, known.app_id, known.type) != (call.fn_id, call.app_id, call.type):
            raise errors.CallExists
        return known.status == Status.QUEUED

    # -- calls out -----------------------------------------------------------------------------

    async def dequeue(self, node: str, limit: int, wait: float) -> list[LeasedCall]:
        """Lease first, then the record's token. Died between: the lease runs out and is counted."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(wait, MAX_WAIT)
        while True:
            left = max(0.0, deadline - loop.time())
            leased = await self._queue.reserve(limit, left, self._lease_ttl)
            try:
                handed_out = await self._hand_out(leased, node)
            except BaseException:
                # Given back rather than left to run out: this attempt was nobody's.
                with contextlib.suppress(FnError):
                    await self._queue.release([one.key for one in leased])
                raise
            # All were over, perhaps; then there may be more. Nothing leased: the wait is over.
            if handed_out or not leased:
                return handed_out

    async def _hand_out(self, leased: Sequence[LeasedCall], node: str) -> list[LeasedCall]:
        if not leased:
            return []
        over = {one.call.id: reason for one in leased if (reason := _is_over(one))}
        refused = set(await self._logstore.claim(leased, node))
        ended = [self._given_up(one, over[one.call.id]) for one in leased if one.call.id in over]
        if ended := [one for one in ended if one.call.id not in refused]:
            await self._logstore.finish_calls(ended)
        done = [one.key for one in leased if one.call.id in refused or one.call.id in over]
        if done:
            await self._queue.delete(done)
        return [
            msgspec.structs.replace(one, call=msgspec.structs.replace(one.call, node=node))
            for one in leased
            if one.call.id not in refused and one.call.id not in over
        ]

    def _given_up(self, leased: LeasedCall, reason: str) -> Finished:
        log.warning("call %s of function %s: %s", leased.call.id, leased.call.fn_id, reason)
        ended = msgspec.structs.replace(
            leased.call, status=Status.ERROR, error=reason, completed_at=times.to_text(self._clock())
        )
        return Finished(call=ended, token=leased.key.token)

    async def start(self, leased: LeasedCall) -> None:
        """Lease first, then the record: each refuses a late runner by itself."""
        call, key = leased.call, leased.key
        ttl = self._lease_ttl if key.token else call.timeout + _GRACE
        if await self._queue.extend([key], ttl):
            raise LeaseLost
        now = times.to_text(self._clock())
        await self._logstore.start_call(key, now if call.started_at == times.NEVER else call.started_at)

    async def extend(self, keys: Sequence[LeaseKey]) -> list[str]:
        # Without a token nobody can say whose the lease is.
        unnamed = [key.id for key in keys if not key.token]
        return unnamed + await self._queue.extend([key for key in keys if key.token], self._lease_ttl)

    async def release(self, keys: Sequence[LeaseKey]) -> None:
        """Queue first: the record's token is taken over by whoever leases the call next."""
        await self._queue.release(keys)
        await self._logstore.unclaim(keys)

    # -- results -------------------------------------------------------------------------------

    async def finish(self, batch: Sequence[Finished]) -> list[str]:
        """Result first, then the message.

        Died before: the runner hands it in again, or the lease runs out. Died between: the message
        comes up again, the record is final, and the message is dropped.
        """
        for one in batch:
            if one.call.status not in FINAL:
                raise Invalid(
                    f"status: call {one.call.id} has status {one.call.status!r}, which is not final"
                )
        again = {one.call.id for one in batch if _asks_for_retry(one) and await self._retry(one)}
        results = [one for one in batch if one.call.id not in again]
        refused = await self._logstore.finish_calls(results) if results else []
        stored = [one for one in results if one.call.id not in refused and _was_queued(one)]
        if stored:
            try:
                await self._queue.delete([LeaseKey(one.call.id, one.token) for one in stored])
            except QueueUnavailable as exc:
                log.warning("finished calls stay queued until their leases run out: %s", exc)
        return refused

    async def _retry(self, one: Finished) -> bool:
        """Puts the call back in its place, its attempt counted; False when it is to end here.

        Died between the two steps: the call is in the queue, and its next lease claims the record.
        """
        attempt = one.call.attempt
        # Without records the lease alone says whose the call is.
        with contextlib.suppress(errors.CallsNotKept):
            try:
                record = await self._logstore.call(one.call.id, app_id=one.call.app_id)
            except errors.CallNotFound:
                return False
            if record.final:
                return False
            attempt = record.attempt
        if attempt >= async_policy.max_attempts(one.call, DEFAULTS):
            return False
        key = LeaseKey(one.call.id, one.token)
        if await self._queue.extend([key], 0):
            return False
        await self._logstore.unclaim([key])
        log.info("call %s ended as %s and is run again, as its function asks", one.call.id, one.call.status)
        return True

    async def heartbeat(self, report: RunnerReport) -> RunnerState:
        return await self._datastore.put_runner(report)


def _is_over(leased: LeasedCall) -> str:
    """Why the call is not to be run any more; empty when it is."""
    call, lease = leased.call, leased.lease
    if lease is None:
        return ""
    if lease.attempt > (most := async_policy.max_attempts(call, DEFAULTS)):
        return (
            f"gave up after {most} attempts: the runner was lost or the container could not be started "
            "before a result"
        )
    if lease.age > call.delay + async_policy.max_age(call, DEFAULTS):
        return f"gave up after {lease.age:.0f} seconds in the queue: no runner was free to run the call"
    return ""


def _asks_for_retry(one: Finished) -> bool:
    return (
        bool(one.token) and one.call.status != Status.SUCCESS and async_policy.wants_retry(one.call, DEFAULTS)
    )


def _was_queued(one: Finished) -> bool:
    return bool(one.token) or one.call.type != CallType.SYNC
