"""How an attempt at a queued call ends: stored, sent back for another attempt, or given up as a dead letter.

The order of the steps lets a node die between any two of them. The queue's message goes last: as long as it
is there the call comes back, and the record decides whether it may run.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence

import msgspec

from services import metrics
from services.callbacks.body import callback_of
from services.stores import Stores
from shared_models import async_policy, errors, times
from shared_models.async_policy import AsyncSettings
from shared_models.call import (
    FINAL,
    WITHOUT_RESULT,
    Call,
    CallType,
    Finished,
    Lease,
    LeasedCall,
    LeaseKey,
    Reason,
    Status,
)
from shared_models.call_interfaces import DeadLetter
from shared_models.errors import FnError, Invalid, QueueUnavailable
from shared_models.interfaces import LogStore

log = logging.getLogger(__name__)


class Settling:
    """Ends attempts. Safe concurrently, on all nodes."""

    def __init__(
        self, stores: Stores, settings: AsyncSettings, clock: Callable[[], float] = time.time
    ) -> None:
        self._logstore = stores.logstore
        self._queue = stores.queue
        self._dead_letters = stores.dead_letters
        self._outbox = stores.outbox
        self._settings = settings
        self._clock = clock

    async def finish(self, batch: Sequence[Finished]) -> list[str]:
        """See ``DataAccess.finish``.

        Died before the result is stored: the runner hands it in again, or the lease runs out. Died between
        that and the end of the message: it comes up again, the record is final, and it is dropped.
        """
        for one in batch:
            if one.call.status not in FINAL:
                raise Invalid(
                    f"status: call {one.call.id} has status {one.call.status!r}, which is not final"
                )
        failed: list[Finished] = []
        results: list[Finished] = []
        for one in await self._with_addresses(batch):
            wants_retry = one.token and async_policy.wants_retry(one.call, self._settings)
            (failed if wants_retry else results).append(one)
        # First what can be stored while the queue is away: it must not wait for the others, and run again.
        refused = await self._store(results)
        return refused + await self._repeat(failed)

    async def _repeat(self, failed: Sequence[Finished]) -> list[str]:
        """Sends calls back whose attempts have *failed*, or gives them up; answers the refused ids."""
        results, given_up, late = [], [], []
        for one in failed:
            record, most = await self._record_of(one), async_policy.max_attempts(one.call, self._settings)
            if record is None or not record.attempt:
                results.append(one)
            elif record.final:
                # It may be this very result, handed in again.
                results.append(_last(one, most) if record.attempt >= most else one)
            elif record.attempt >= most:
                given_up.append(_last(one, most))
            elif not await self._send_back(one, record.attempt):
                late.append(one.call.id)
        if late:
            _tell_refused(late)
        return late + await self._store([*results, *given_up], given_up)

    async def _store(self, results: Sequence[Finished], dead: Sequence[Finished] = ()) -> list[str]:
        """Ends *results*, and their messages; answers the refused ids."""
        late: list[str] = []
        if not self._logstore.keeps and (keys := [one.key for one in results if one.token]):
            late = await self._queue.extend(keys, self._settings.lease)
            results, dead = ([one for one in some if one.call.id not in late] for some in (results, dead))
            if late:
                _tell_refused(late)
        refused = await self.end(results, dead)
        done = [one.key for one in results if one.call.id not in refused and _was_queued(one)]
        if done:
            try:
                await self._queue.delete(done)
            except QueueUnavailable as exc:
                if not self._logstore.keeps:
                    raise  # there is no record that would keep them from running again
                log.warning("finished calls stay queued until their leases run out: %s", exc)
        return late + refused

    async def end(self, results: Sequence[Finished], dead: Sequence[Finished] = ()) -> list[str]:
        """Stores final *results*, of which *dead* become dead letters; answers the refused ids."""
        if not results:
            return []
        letters = await self._bury(dead)
        callbacks = [callback_of(one) for one in results if one.call.callback_url]
        if callbacks:
            # Before the record: it is delivered once the record has ended so, and is void otherwise.
            with _kept_going("callbacks"):
                await self._outbox.put(callbacks)
        refused = await self._logstore.finish_calls(results)
        for one in results:
            if one.call.id not in refused:
                _count(one)
        if refused:
            _tell_refused(refused)
            await self._unbury([one for one in letters if one.call.id in refused])
        for letter in letters:
            if letter.call.id not in refused:
                metrics.dead.labels(_reason(letter.call)).inc()
                log.warning(
                    "call %s of function %s is a dead letter: %s",
                    letter.call.id, letter.call.fn_id or letter.call.path, letter.call.error[:200],
                )  # fmt: skip
        return refused

    async def _with_addresses(self, batch: Sequence[Finished]) -> Sequence[Finished]:
        """*batch* with the ``callback_url`` of calls of an unmodified Fn runner, which knows none."""
        foreign = {one.call.id for one in batch if not one.token and _was_queued(one)}
        if not foreign:
            return batch
        queued: dict[str, Call] = {}
        with contextlib.suppress(QueueUnavailable):
            queued = await self._queue.find(sorted(foreign))
        return [
            msgspec.structs.replace(one, call=msgspec.structs.replace(one.call, callback_url=address))
            if one.call.id in queued and (address := queued[one.call.id].callback_url)
            else one
            for one in batch
        ]

    async def _record_of(self, one: Finished) -> Call | None:
        """The record of the attempt that *one* is the end of; None when there is none, or a later one."""
        try:
            record = await self._logstore.call(one.call.id, app_id=one.call.app_id)
        except errors.CallNotFound:
            return None
        except errors.CallsNotKept:
            # Without records the lease alone says whose the call is.
            return msgspec.structs.replace(one.call, status=Status.RUNNING, attempt=max(1, one.call.attempt))
        return None if one.call.attempt and one.call.attempt != record.attempt else record

    async def _send_back(self, one: Finished, attempt: int) -> bool:
        """Puts the call back in its place, its attempt counted; False when it is not the holder's any more.

        Record first. Died between: the lease runs out, which counts the same attempt, or the runner hands
        the result in again, which finds its lease.
        """
        key = LeaseKey(one.call.id, one.token)
        pause = async_policy.pause(one.call, attempt, self._settings)
        await self._logstore.unclaim([key], counted=True, log=one.log)
        if await self._queue.requeue([key], pause):
            return False
        metrics.retried.labels(_reason(one.call)).inc()
        log.info(
            "call %s: attempt %d ended as %s (%s), the next comes in %.1f s",
            one.call.id, attempt, one.call.status, one.call.error[:200], pause,
        )  # fmt: skip
        return True

    async def _bury(self, dead: Sequence[Finished]) -> list[DeadLetter]:
        if not dead:
            return []
        whole = await self._queue.find([one.call.id for one in dead])
        now = times.to_text(self._clock())
        letters = []
        for one in dead:
            # One that came whole, out of the queue, is not looked for again.
            call = one.call if one.call.payload else whole.get(one.call.id, one.call)
            letters.append(DeadLetter(call=_ended_as(call, one.call), died_at=now))
        with _kept_going("dead letters"):
            await self._dead_letters.put(letters)
        return letters

    async def _unbury(self, letters: Sequence[DeadLetter]) -> None:
        """Whoever holds such a call may still end it well; one that has died before stays dead."""
        for letter in letters:
            with contextlib.suppress(FnError):
                if await self._is_dead(letter):
                    continue
                await self._dead_letters.remove([letter.call.id])
                # Its holder may have given it up in between, and have found this letter there.
                if await self._is_dead(letter):
                    await self._dead_letters.put([letter])

    async def _is_dead(self, letter: DeadLetter) -> bool:
        record = await self._logstore.call(letter.call.id, app_id=letter.call.app_id)
        ended = msgspec.structs.replace(letter.call, status=record.status, reason=record.reason)
        given_up = record.reason == Reason.EXPIRED or async_policy.wants_retry(ended, self._settings)
        return record.final and given_up


async def taken_over(logstore: LogStore, record: Call) -> str:
    """The token that alone may end the call of *record* from now on; "" when the call has ended.

    It is taken as the next lease would take it, so that no runner can end the call any more.
    """
    lease = Lease(token=secrets.token_urlsafe(16), attempt=record.attempt)
    refused = await logstore.claim([LeasedCall(call=record, lease=lease)], record.node)
    return "" if refused else lease.token


@contextlib.contextmanager
def _kept_going(what: str) -> Iterator[None]:
    """What the database takes no row of must not keep its call from ending."""
    try:
        yield
    except errors.TooLarge as exc:
        log.error("%s cannot be kept: %s", what, exc.explained)


def _last(one: Finished, most: int) -> Finished:
    if one.call.reason in WITHOUT_RESULT and most > 1:
        error = f"gave up after {most} attempts: {one.call.error}"
        return msgspec.structs.replace(one, call=msgspec.structs.replace(one.call, error=error))
    return one


def _ended_as(whole: Call, end: Call) -> Call:
    return msgspec.structs.replace(
        whole, status=end.status, error=end.error, reason=end.reason, attempt=end.attempt, node=end.node,
        created_at=end.created_at, started_at=end.started_at, completed_at=end.completed_at,
    )  # fmt: skip


def _tell_refused(call_ids: Sequence[str]) -> None:
    metrics.fenced.labels("finish").inc(len(call_ids))
    log.warning("%d results were refused, others hold those calls: %s", len(call_ids), call_ids[:5])


def _count(one: Finished) -> None:
    if _was_queued(one):
        metrics.ended.labels(one.call.status, _reason(one.call)).inc()


def _reason(call: Call) -> str:
    # It comes from runners: what is none of ours must not make series at will.
    return call.reason if call.reason in _REASONS else ""


_REASONS = frozenset(Reason)


def _was_queued(one: Finished) -> bool:
    return bool(one.token) or one.call.type != CallType.SYNC
