"""Finished calls on their way to the API node: in batches, behind the answers, kept until taken.

While no API node takes them they wait in memory, and in the spool. When both are full, results of sync
calls are dropped first: their clients have been answered. Those of queued calls are let go only when nothing
else is left, and then their leases are no longer renewed, so that the calls run again.
"""

from __future__ import annotations

import asyncio
import logging
import math
from typing import Any

from runner_node import metrics
from runner_node.desk import Answer, Desk
from runner_node.results import Result, Results, Stored
from runner_node.spool import Spool
from shared_models.call import Finished, LeaseKey
from shared_models.interfaces import DataAccess

log = logging.getLogger(__name__)

BATCH = 500
"""Results in one request at most."""
SETTLE = 0.02
"""Seconds that a result waits for company, and for the last lines of its log."""
BUFFER = 5_000
BUFFER_BYTES = 64 << 20
"""Results, and their bytes, in memory at most while no API node takes them; the rest goes to the spool."""
RETRY = 2.0
"""Seconds between two attempts while no API node takes results."""
PARTING = 10.0
"""Seconds that a node which stops, and has no spool, waits for an API node that does not answer."""
_NAMED = 20
"""Lost results that one line of the log names."""


class Recorder:
    """Takes results at once, hands them in behind; ``run`` is its one task, ``drain`` its end."""

    def __init__(self, data: DataAccess, spool: Spool | None) -> None:
        self._desk = Desk(data, self.add)
        self._spool = spool
        self._results = Results()
        self._filled = asyncio.Event()
        self._pressed = asyncio.Event()
        """There is more in memory than should be, or the node stops."""
        self._closing = False
        self._until = math.inf
        self._hopeless = False
        self._spooled = True
        self._in_hand = 0
        self._dropped = 0
        self._spooled_leases: dict[LeaseKey, Stored] = {}
        """Who waits for spooled results of queued calls: their leases are renewed until they are taken."""

    @property
    def dropped(self) -> int:
        """Results that were lost because buffer and spool were full; the log tells of each loss."""
        return self._dropped + self._desk.dropped + (self._spool.dropped if self._spool else 0)

    @property
    def waiting(self) -> int:
        """Results that have not been taken yet."""
        return len(self._results)

    @property
    def kept(self) -> int:
        """Batches of them, and of those that are spooled; one more where that is not known yet."""
        spooled = max(self._spool.batches, self._spooled) if self._spool else 0
        return math.ceil(len(self._results) / BATCH) + self._in_hand + spooled

    def add(self, result: Result) -> None:
        """Never waits."""
        self._results.add(result)
        self._filled.set()
        if self._full():
            self._pressed.set()

    def drain(self) -> None:
        """No more results will come: ``run`` ends when those that are here are taken or spooled."""
        self._closing = True
        self._until = asyncio.get_running_loop().time() + PARTING
        self._filled.set()
        self._pressed.set()

    async def run(self) -> None:
        """Until ``drain``; then what is left is handed in, or spooled."""
        while not (self._closing and not self._results):
            try:
                await self._work()
            except Exception:
                log.exception("the recorder broke down and is begun again")
                await asyncio.sleep(RETRY)

    async def _work(self) -> None:
        while not (self._closing and not self._results):
            if not self._results:
                await self._hand_in_spooled(all_of_it=True)
                self._filled.clear()
                if self._results or self._closing:
                    continue
                await self._filled.wait()
            if not self._closing and len(self._results) < BATCH:
                await asyncio.sleep(SETTLE)
            if batch := self._results.next(BATCH):
                await self._hand_in_or_keep(batch)

    # -- handing in ----------------------------------------------------------------------------

    async def _hand_in_or_keep(self, batch: list[Result]) -> None:
        """An API node that hangs holds up this batch, not those that come behind it."""
        self._in_hand = 1
        try:
            await self._try(batch)
        except Exception:
            if self._closing:
                self._drop(batch)
            else:
                self._results.put_back(batch)
            raise
        finally:
            self._in_hand = 0

    async def _try(self, batch: list[Result]) -> None:
        if self._hopeless and self._closing:
            await self._keep(batch)
            return
        attempt = asyncio.create_task(self._desk.hand_in(batch), name="hand in results")
        try:
            while not attempt.done():
                await self._until_done_or_pressed(attempt)
                if not attempt.done() and not self._closing:
                    await self._shed()
                elif not attempt.done() and self._is_time_to_go():
                    break  # the next start hands it in; twice does no harm
            if attempt.done() and attempt.result():
                # Also under steady load, which leaves no moment without a newer result.
                await self._hand_in_spooled(all_of_it=False)
            else:
                self._hopeless = self._closing
                await self._keep(batch)
        finally:
            attempt.cancel()

    async def _until_done_or_pressed(self, attempt: asyncio.Task[Any]) -> None:
        """At most ``RETRY`` seconds; a node that stops gives the attempt all of them."""
        if self._closing or self._full():
            await asyncio.wait({attempt}, timeout=RETRY)
            return
        self._pressed.clear()
        pressed = asyncio.create_task(self._pressed.wait())
        try:
            await asyncio.wait({attempt, pressed}, timeout=RETRY, return_when=asyncio.FIRST_COMPLETED)
        finally:
            pressed.cancel()

    def _is_time_to_go(self) -> bool:
        return self._spool is not None or asyncio.get_running_loop().time() >= self._until

    # -- keeping -------------------------------------------------------------------------------

    def _full(self) -> bool:
        return len(self._results) > BUFFER or self._results.size > BUFFER_BYTES

    async def _shed(self) -> None:
        """Brings what is in memory below its bounds: into the spool, or nowhere."""
        while self._full():
            if self._spool and not (left := await self._put(self._results.next(BATCH))):
                continue
            if self._spool:
                self._results.put_back(left)
            self._drop(self._results.lose(self._full))

    async def _keep(self, batch: list[Result]) -> None:
        """Spools what cannot be handed in; without a spool it stays in memory, up to a limit."""
        left = await self._put(batch)
        if self._closing:
            self._drop(left)
            return
        self._results.put_back(left)
        await self._shed()
        if self._closing:
            return
        self._pressed.clear()
        try:
            async with asyncio.timeout(RETRY):
                await self._pressed.wait()
        except TimeoutError:
            pass

    async def _put(self, batch: list[Result]) -> list[Result]:
        """Spools *batch*, results of queued calls first; answers what could not be."""
        if not self._spool:
            return batch
        left = []
        for droppable in (False, True):
            part = [result for result in batch if result.queued is not droppable]
            if not part:
                continue
            if await self._spool.put([result.finished() for result in part], droppable=droppable):
                self._spooled = True
                for result in part:
                    self._settle_spooled(result)
            else:
                left += part
        return left

    def _settle_spooled(self, result: Result) -> None:
        if result.stored and result.queued and not self._closing:
            self._spooled_leases[LeaseKey(result.call.id, result.token)] = result.stored
        else:
            # The node stops, and renews nothing any more.
            result.settle(taken=True)

    def _drop(self, lost: list[Result]) -> None:
        self._dropped += len(lost)
        metrics.results_dropped.inc(len(lost))
        for result in lost:
            if result.queued:
                log.error(
                    "call %s: its result cannot be kept, buffer and spool are full; it will run again",
                    result.call.id,
                )
        if ids := [result.call.id for result in lost if not result.queued]:
            named = ", ".join(ids[:_NAMED]) + (", ..." if len(ids) > _NAMED else "")
            log.error("%d results of sync calls are lost, buffer and spool are full: %s", len(ids), named)
        for result in lost:
            result.settle(taken=False)

    # -- what was spooled ----------------------------------------------------------------------

    async def _hand_in_spooled(self, *, all_of_it: bool) -> None:
        """Hands in what was spooled, oldest first: one batch, or all while nothing newer waits."""
        while self._spooled and self._spool:
            found = await self._spool.first()
            if found is None:
                self._spooled = False
                self._let_go_of_what_is_gone()
                return
            file, finished = found
            answer = await self._offer_unless_closing(finished)
            if answer is Answer.AWAY:
                if self._closing or self._results or not all_of_it:
                    return
                # Nothing newer may come for a long time: keep trying all the same.
                self._filled.clear()
                try:
                    await asyncio.wait_for(self._filled.wait(), RETRY)
                except TimeoutError:
                    continue
                return
            if answer is Answer.UNREADABLE:
                log.error("the spooled batch %s is refused, its results go alone", file)
                for one in finished:
                    self.add(Result.again(one, self._spooled_leases.pop(one.key, None)))
            await self._spool.remove(file)
            for one in finished:
                if stored := self._spooled_leases.pop(one.key, None):
                    stored(True)
            if self._results or not all_of_it:
                return

    def _let_go_of_what_is_gone(self) -> None:
        """Leases of results whose file could not be read any more: those calls run again."""
        gone, self._spooled_leases = self._spooled_leases, {}
        for stored in gone.values():
            stored(False)

    async def _offer_unless_closing(self, finished: list[Finished]) -> Answer:
        """What the API node answers; it is away when the node must go before it has answered."""
        attempt = asyncio.create_task(self._desk.offer(finished), name="hand in spooled results")
        try:
            while not attempt.done():
                await self._until_done_or_pressed(attempt)
                if not attempt.done() and self._closing:
                    return Answer.AWAY
                await self._shed()
            return attempt.result()
        finally:
            attempt.cancel()
