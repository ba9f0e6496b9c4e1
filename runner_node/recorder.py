"""Finished calls on their way to the API node: in batches, behind the answers, kept until taken."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable

import msgspec

from runner_node.func_logs import CallLog
from runner_node.spool import Spool
from shared_models import errors
from shared_models.call import Call, Finished
from shared_models.interfaces import DataAccess

log = logging.getLogger(__name__)

BATCH = 500
"""Results in one request at most."""
SETTLE = 0.02
"""Seconds that a result waits for company, and for the last lines of its log."""
BUFFER = 5_000
"""Results in memory at most while no API node takes them; the rest goes to the spool."""
RETRY = 2.0
"""Seconds between two attempts while no API node takes results."""
REPEAT = 60.0
"""Seconds after which it is said again that no API node takes results."""
LONGEST_LOG = 1 << 20
"""Bytes of a log that are kept of a result which is too large for the API node."""

_REFUSED = (errors.Unauthorized, errors.RunnerRefused)

Stored = Callable[[bool], None]


class Result(msgspec.Struct):
    """A finished call whose log may still be filling. *stored* is told whether it was taken or refused."""

    call: Call
    log: CallLog
    token: str = ""
    stored: Stored | None = None


class Recorder:
    """Takes results at once, hands them in behind; ``run`` is its one task, ``drain`` its end."""

    def __init__(self, data: DataAccess, spool: Spool | None) -> None:
        self._data = data
        self._spool = spool
        self._results: deque[Result] = deque()
        self._filled = asyncio.Event()
        self._closing = False
        self._spooled = True
        self._complained = -math.inf
        self.dropped = 0
        """Results that were lost because buffer and spool were full; each is in the log."""

    def add(self, result: Result) -> None:
        """Never waits."""
        self._results.append(result)
        self._filled.set()

    @property
    def waiting(self) -> int:
        """Results that have not been taken yet."""
        return len(self._results)

    async def run(self) -> None:
        """Until ``drain``; then what is left is handed in, or spooled."""
        while not (self._closing and not self._results):
            if not self._results:
                await self._hand_in_spooled(all_of_it=True)
                self._filled.clear()
                if self._results or self._closing:
                    continue
                await self._filled.wait()
            if not self._closing and len(self._results) < BATCH:
                await asyncio.sleep(SETTLE)
            if batch := self._next():
                await self._hand_in_or_keep(batch)

    def _next(self) -> list[Result]:
        return [self._results.popleft() for _ in range(min(len(self._results), BATCH))]

    async def _hand_in_or_keep(self, batch: list[Result]) -> None:
        """An API node that hangs holds up this batch, not those that come behind it."""
        attempt = asyncio.create_task(self._hand_in(batch), name="hand in results")
        try:
            while not attempt.done():
                await asyncio.wait({attempt}, timeout=RETRY)
                await self._spool_overflow()
                if self._closing and self._spool:
                    break  # the next start hands it in; twice does no harm
            if attempt.done() and attempt.result():
                # Also under steady load, which leaves no moment without a newer result.
                await self._hand_in_spooled(all_of_it=False)
            else:
                await self._keep(batch)
        finally:
            attempt.cancel()

    async def _spool_overflow(self) -> None:
        while self._spool and len(self._results) > BUFFER:
            batch = self._next()
            if not await self._put(batch):
                self._drop(batch)

    def drain(self) -> None:
        """No more results will come: ``run`` ends when those that are here are taken or spooled."""
        self._closing = True
        self._filled.set()

    async def _hand_in(self, batch: list[Result]) -> bool:
        """Whether an API node has answered."""
        finished = [Finished(call=r.call, log=r.log.close(), token=r.token) for r in batch]
        try:
            refused = set(await self._data.finish(finished))
        except errors.Unavailable as exc:
            self._away(exc)
            return False
        except _REFUSED:
            # The client says which token is wrong; once it is right these are as good as ever.
            return False
        except errors.FnError as exc:
            await self._one_by_one(batch, finished, exc)
            return True
        except Exception:
            log.exception("handing in %d results failed, they are kept", len(batch))
            return False
        self._back()
        for result in batch:
            if result.call.id in refused:
                log.warning("call %s: its result was refused, somebody else holds the call", result.call.id)
            if result.stored:
                result.stored(result.call.id not in refused)
        return True

    async def _one_by_one(
        self, batch: list[Result], finished: list[Finished], trouble: errors.FnError
    ) -> None:
        """The API node refuses the whole batch: what is wrong with one must not cost the others."""
        if len(batch) == 1:
            await self._cut(batch[0], finished[0], trouble)
            return
        for result, one in zip(batch, finished, strict=True):
            try:
                refused = await self._data.finish([one])
            except (errors.Unavailable, *_REFUSED):
                self._results.append(result)
            except errors.FnError as exc:
                await self._cut(result, one, exc)
            else:
                if result.stored:
                    result.stored(not refused)

    async def _cut(self, result: Result, one: Finished, trouble: errors.FnError) -> None:
        """A result that is refused by itself: with less of its log it may do, else it is lost."""
        taken = False
        if isinstance(trouble, errors.TooLarge) and len(one.log) > LONGEST_LOG:
            note = b"\n-----the API node takes no log of %d bytes, the rest is lost-----\n" % len(one.log)
            try:
                shorter = msgspec.structs.replace(one, log=one.log[:LONGEST_LOG] + note)
                taken = not await self._data.finish([shorter])
            except (errors.Unavailable, *_REFUSED):
                self._results.append(result)
                return
            except errors.FnError as exc:
                trouble = exc
        if not taken:
            log.error("call %s: its result was refused: %s (%s)", one.call.id, trouble, trouble.detail)
            self.dropped += 1
        if result.stored:
            result.stored(taken)

    async def _keep(self, batch: list[Result]) -> None:
        """Spools what cannot be handed in; without a spool it stays in memory, up to a limit."""
        if await self._put(batch):
            pass
        elif self._closing:
            self._drop(batch)
        else:
            self._results.extendleft(reversed(batch))
            while len(self._results) > BUFFER:
                self._drop([self._results.pop()])
        if not self._closing:
            await asyncio.sleep(RETRY)

    async def _put(self, batch: list[Result]) -> bool:
        """Whether *batch* is in the spool now."""
        finished = [Finished(call=r.call, log=r.log.close(), token=r.token) for r in batch]
        if not (self._spool and await self._spool.put(finished)):
            return False
        self._spooled = True
        for result in batch:
            if result.stored:
                result.stored(True)
        return True

    def _away(self, reason: errors.FnError) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._complained >= REPEAT:
            self._complained = now
            log.warning("no API node takes results, they are kept: %s (%s)", reason, reason.detail)

    def _back(self) -> None:
        if self._complained > -math.inf:
            self._complained = -math.inf
            log.info("an API node takes results again")

    def _drop(self, batch: list[Result]) -> None:
        for result in batch:
            self.dropped += 1
            log.error("call %s: its result is lost, buffer and spool are full", result.call.id)
            if result.stored:
                result.stored(False)

    async def _hand_in_spooled(self, *, all_of_it: bool) -> None:
        """Hands in what was spooled, oldest first: one batch, or all while nothing newer waits."""
        while self._spooled and self._spool:
            found = await self._spool.first()
            if found is None:
                self._spooled = False
                return
            file, finished = found
            try:
                await self._data.finish(finished)
            except (errors.Unavailable, *_REFUSED) as exc:
                if isinstance(exc, errors.Unavailable):
                    self._away(exc)
                if self._closing or self._results or not all_of_it:
                    return
                # Nothing newer may come for a long time: keep trying all the same.
                self._filled.clear()
                try:
                    await asyncio.wait_for(self._filled.wait(), RETRY)
                except TimeoutError:
                    continue
                return
            except errors.FnError as exc:
                log.error("the spooled batch %s is refused, its results go alone: %s", file, exc)
                for one in finished:
                    result = Result(one.call, CallLog(0), one.token)
                    result.log.write(one.log)
                    self.add(result)
            else:
                self._back()
            await self._spool.remove(file)
            if self._results or not all_of_it:
                return
