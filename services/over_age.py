"""Ends calls that waited in the queue for too long although no runner asked for them.

Whoever hands calls out ends those that are too old when they come up; without a runner none comes up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from services.handing_out import HandingOut
from services.settling import Settling
from services.stores import Stores
from shared_models import async_policy
from shared_models.async_policy import AsyncSettings

log = logging.getLogger(__name__)

LOOKED_AT = 10_000
"""Calls that one round looks at; the next one goes on behind them."""
TAKES = 60.0
"""Seconds after which a round goes on with no further page."""
_PAGE = 256
_ENDED_AT_ONCE = 32
_BEGINNING = ("", "")


class OverAge:
    """Looks through the queue, round after round; one per node. Two at once do no harm."""

    def __init__(
        self, stores: Stores, settings: AsyncSettings, clock: Callable[[], float] | None = None
    ) -> None:
        clock = clock or stores.clock
        self._queue = stores.queue
        self._settings = settings
        self._handing_out = HandingOut(stores, Settling(stores, settings, clock), settings, clock)
        self._behind = _BEGINNING
        """The function, and the place in its line, behind which the next round goes on."""

    async def end(self, most: int = LOOKED_AT) -> int:
        """One round, which looks at *most* calls; answers how many it has ended."""
        loop = asyncio.get_running_loop()
        until = loop.time() + TAKES
        first, place = self._behind
        fn_ids = [one.fn_id for one in await self._queue.depths() if one.queued]
        # Ages differ from call to call, so that the oldest are not all: each has its turn.
        lines = [(fn_id, place if fn_id == first else "") for fn_id in fn_ids if fn_id >= first]
        lines += [(fn_id, "") for fn_id in fn_ids if fn_id < first or (fn_id == first and place)]
        ended = 0
        for fn_id, after in lines:
            while most > 0 and loop.time() < until:
                page = await self._queue.waiting(fn_id, after, min(_PAGE, most))
                if not page:
                    break
                most, after = most - len(page), page[-1].place
                ended += await self._end(
                    [
                        one.call.id
                        for one in page
                        if async_policy.is_too_old(one.call, one.age, self._settings)
                    ]
                )
            else:
                self._behind = fn_id, after
                break
        else:
            self._behind = _BEGINNING
        if ended:
            log.warning("%d calls waited for too long while no runner asked for them, and are ended", ended)
        return ended

    async def _end(self, call_ids: Sequence[str]) -> int:
        left, ended = list(call_ids), 0
        while left:
            leased = await self._queue.reserve_named(left[:_ENDED_AT_ONCE], self._settings.lease)
            if not leased:
                # Runners have taken them meanwhile, or they pause between two attempts.
                left = left[_ENDED_AT_ONCE:]
                continue
            ended += await self._handing_out.end_those_over(leased)
            taken = {one.call.id for one in leased}
            left = [one for one in left if one not in taken]
        return ended
