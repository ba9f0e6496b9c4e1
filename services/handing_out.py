"""Queued calls on their way to a runner: leases, and what is too late or too often for one more."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Sequence

import msgspec

from services.settling import Settling
from services.stores import Stores
from shared_models import async_policy, errors, times
from shared_models.async_policy import AsyncSettings
from shared_models.call import Call, Finished, Lease, LeasedCall, Reason, Status
from shared_models.errors import FnError

MAX_WAIT = 30.0


class HandingOut:
    """Leases calls to runners."""

    def __init__(
        self,
        stores: Stores,
        settling: Settling,
        settings: AsyncSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._logstore = stores.logstore
        self._queue = stores.queue
        self._settling = settling
        self._settings = settings
        self._clock = clock

    async def dequeue(
        self, node: str, limit: int, wait: float, without: Collection[str] = ()
    ) -> list[LeasedCall]:
        """See ``DataAccess.dequeue``.

        Lease first, then the record's token. Died between: the lease runs out and is counted.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(wait, MAX_WAIT)
        while True:
            left = max(0.0, deadline - loop.time())
            leased = await self._queue.reserve(limit, left, self._settings.lease, without)
            handed_out = await self._hand_out_or_give_back(leased, node)
            # All were over, perhaps; then there may be more. Nothing leased: the wait is over.
            if handed_out or not leased:
                return handed_out

    async def end_those_over(self, leased: Sequence[LeasedCall]) -> int:
        """Ends those of *leased* that are not to be run any more, and gives the others back; how many."""
        others = await self._hand_out_or_give_back(leased, "")
        if others:
            keys = [one.key for one in others]
            await self._queue.release(keys)
            await self._logstore.unclaim(keys)
        return len(leased) - len(others)

    async def _hand_out_or_give_back(self, leased: Sequence[LeasedCall], node: str) -> list[LeasedCall]:
        try:
            return await self._hand_out(leased, node)
        except BaseException:
            # Given back rather than left to run out: this attempt was nobody's.
            with contextlib.suppress(FnError):
                await self._queue.release([one.key for one in leased])
            raise

    async def _hand_out(self, leased: Sequence[LeasedCall], node: str) -> list[LeasedCall]:
        if not leased:
            return []
        over = {one.call.id: end for one in leased if (end := await self._end_of(one))}
        # Those that are over were not tried once more.
        claims = [_as_ended(one, over[one.call.id]) if one.call.id in over else one for one in leased]
        refused, others = set(await self._logstore.claim(claims, node)), set[str]()
        if ended := [end for call_id, end in over.items() if call_id not in refused]:
            # Somebody else has such a call by now, and may still need its message.
            others = set(await self._settling.end(ended, ended))
        done = [one.key for one in leased if one.call.id in refused or one.call.id in over.keys() - others]
        if done:
            await self._queue.delete(done)
        return [
            msgspec.structs.replace(one, call=msgspec.structs.replace(one.call, node=node))
            for one in leased
            if one.call.id not in refused and one.call.id not in over
        ]

    async def _end_of(self, leased: LeasedCall) -> Finished | None:
        """The end of a call that is not to be run any more; None when it is."""
        call, lease = leased.call, leased.lease
        if lease is None:
            return None
        if lease.attempt > (most := async_policy.max_attempts(call, self._settings)):
            reason = Reason.RUNNER_LOST
            error = (
                f"gave up after {most} attempts: the runner was lost or the container could not be started "
                "before a result"
            )
        elif async_policy.is_too_old(call, lease.age, self._settings):
            reason = Reason.EXPIRED
            error = f"gave up after {lease.age:.0f} seconds in the queue: no runner was free to run the call"
        else:
            return None
        had = lease.attempt - 1
        if had > most:
            # Giving up was tried before, by nodes that died over it; or the call was allowed more by then.
            had = max(most, await self._attempts_of(call))
        ended = msgspec.structs.replace(
            call, status=Status.ERROR, error=error, reason=reason, attempt=had,
            completed_at=times.to_text(self._clock()),
        )  # fmt: skip
        return Finished(call=ended, token=leased.key.token)

    async def _attempts_of(self, call: Call) -> int:
        """Those in its record: who names fewer does not get it."""
        try:
            return (await self._logstore.call(call.id, app_id=call.app_id)).attempt
        except (errors.CallNotFound, errors.CallsNotKept):
            return 0


def _as_ended(leased: LeasedCall, end: Finished) -> LeasedCall:
    """*leased* with the attempt that the call's end names."""
    lease = leased.lease or Lease()
    return msgspec.structs.replace(leased, lease=msgspec.structs.replace(lease, attempt=end.call.attempt))
