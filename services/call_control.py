"""What people may do to queued calls: cancel them, and queue dead letters again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import msgspec

from services.settling import Settling, taken_over
from services.stores import Stores
from shared_models import errors, times
from shared_models.async_policy import AsyncSettings
from shared_models.call import Call, Finished, LeaseKey, Reason, Status
from shared_models.call_interfaces import CallControl, DeadLetterFilter
from shared_models.ids import new_id
from shared_models.interfaces import DataAccess

log = logging.getLogger(__name__)

_TRIES = 10
_PAGE = 500
_IN_ONE_PAGE = 256
_TOGETHER = 16
"""Calls that are cancelled at the same time."""
_MOST_IDS = 20_000
"""Ids that a redrive of a whole function looks through to find the oldest."""


class StoresCallControl(CallControl):
    """On the stores; *data* takes redriven calls as it takes all others."""

    def __init__(
        self,
        stores: Stores,
        data: DataAccess,
        settings: AsyncSettings,
        clock: Callable[[], float] | None = None,
    ) -> None:
        clock = clock or stores.clock
        self._logstore = stores.logstore
        self._datastore = stores.datastore
        self._queue = stores.queue
        self._dead_letters = stores.dead_letters
        self._data = data
        self._settling = Settling(stores, settings, clock)
        self._clock = clock

    async def cancel(self, fn_id: str, call_id: str) -> None:
        """Takes the record over as the next lease would, so that nobody else can end the call, and ends it.

        Died in between: the call is still queued or leased, and goes on. Died before its message is gone: it
        comes up, the record is final, and it is dropped. Its runner learns that the lease is lost.
        """
        queued = (await self._queue.find([call_id])).get(call_id)
        for _ in range(_TRIES):
            try:
                record = await self._logstore.call(call_id, fn_id=fn_id)
            except (errors.CallsNotKept, errors.CallNotFound):
                # None are kept, or it was withdrawn by a node that took its push for a failure.
                if queued is None or queued.fn_id != fn_id:
                    raise errors.CallNotFound from None
                record = queued
            if record.status == Status.CANCELLED:
                break
            if record.final:
                raise errors.CallEnded(record.status)
            if queued is None:
                # It was queued since; whom to call back is known there alone.
                queued = (await self._queue.find([call_id])).get(call_id)
            if await self._end(record, queued):
                break
        else:
            # Somebody leased it again each time; that is no state that lasts.
            raise errors.StoreUnavailable("The call is changing hands, try again")
        # Whoever holds it: its next renewal is refused, and its runner stops it.
        await self._queue.delete([LeaseKey(call_id, "")])

    async def cancel_queued(self, fn_id: str, limit: int) -> int:
        cancelled, place = 0, ""
        while cancelled < limit:
            page = await self._queue.waiting(fn_id, place, min(_IN_ONE_PAGE, limit - cancelled))
            if not page:
                break
            place = page[-1].place
            ids = [one.call.id for one in page]
            for start in range(0, len(ids), _TOGETHER):
                some = [self._cancelled(fn_id, one) for one in ids[start : start + _TOGETHER]]
                for done in await asyncio.gather(*some, return_exceptions=True):
                    if isinstance(done, BaseException):
                        raise done
                    cancelled += done
        return cancelled

    async def _cancelled(self, fn_id: str, call_id: str) -> bool:
        """Whether it has been; not where it has ended meanwhile."""
        try:
            await self.cancel(fn_id, call_id)
        except (errors.CallNotFound, errors.CallEnded) as exc:
            log.debug("call %s is not cancelled: %s", call_id, exc.explained)
            return False
        return True

    async def _end(self, record: Call, queued: Call | None) -> bool:
        token = await taken_over(self._logstore, record)
        if not token:
            return False
        ended = msgspec.structs.replace(
            record,
            status=Status.CANCELLED,
            reason=Reason.CANCELLED,
            error="cancelled",
            completed_at=times.to_text(self._clock()),
            callback_url=queued.callback_url if queued else "",
        )
        return not await self._settling.end([Finished(call=ended, token=token)])

    # -- dead letters --------------------------------------------------------------------------

    async def redrive(self, call_id: str) -> str:
        """The new id is noted before it is used: a repetition, or another node, goes on with the same one."""
        letter = await self._dead_letters.get(call_id)
        taken = letter.redriven_as or await self._dead_letters.redrive(call_id, new_id())
        try:
            return await self._queue_again(letter.call, taken)
        except errors.CallNeverAccepted:
            # A node died with it half done, long ago.
            taken = await self._dead_letters.redrive(call_id, new_id(), instead_of=taken)
            return await self._queue_again(letter.call, taken)

    async def _queue_again(self, call: Call, taken: str) -> str:
        image = (await self._datastore.fn(call.fn_id)).image if call.fn_id else call.image
        again = msgspec.structs.replace(
            call, id=taken, image=image, status=Status.QUEUED, error="", reason="", attempt=0, node="",
            delay=0, idempotency_key="", created_at=times.to_text(self._clock()), started_at=times.NEVER,
            completed_at=times.NEVER, stats=[],
        )  # fmt: skip
        accepted = await self._data.enqueue(again)
        await self._dead_letters.remove([call.id])
        log.info("dead letter %s is queued again as call %s", call.id, accepted)
        return accepted

    async def redrive_all(self, fn_id: str, limit: int) -> int:
        redriven, refused = 0, None
        for call_id in await self._oldest(fn_id, limit):
            try:
                await self.redrive(call_id)
                redriven += 1
            except errors.DeadLetterNotFound:
                pass  # somebody else has just redriven or purged it
            except (errors.Invalid, errors.TooLarge) as exc:
                # Those behind it must not wait for ever.
                log.warning("dead letter %s is not accepted again: %s", call_id, exc.explained)
                refused = exc
        if refused and not redriven:
            raise refused
        return redriven

    async def _oldest(self, fn_id: str, limit: int) -> Sequence[str]:
        found: list[str] = []
        page = DeadLetterFilter(fn_id=fn_id, limit=_PAGE)
        while len(found) < _MOST_IDS and (letters := await self._dead_letters.page(page)):
            found += [letter.call.id for letter in letters]
            page = msgspec.structs.replace(page, before=found[-1])
        return found[::-1][:limit]
