"""Finished calls on their way to the API node: in batches, behind the answers, kept until taken."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

import msgspec

from runner_node.func_logs import CallLog
from runner_node.spool import Spool
from shared_models import errors
from shared_models.call import Call, Finished
from shared_models.interfaces import DataAccess

log = logging.getLogger(__name__)

BATCH = 200
"""Results in one request at most."""
SETTLE = 0.02
"""Seconds that a result waits for company, and for the last lines of its log."""
BUFFER = 5_000
"""Results in memory at most while no API node takes them; the rest goes to the spool."""
RETRY = 2.0
"""Seconds between two attempts while no API node takes results."""

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
                await self._try_spooled()
                self._filled.clear()
                if self._results or self._closing:
                    continue
                await self._filled.wait()
            if not self._closing:
                await asyncio.sleep(SETTLE)
            batch = [self._results.popleft() for _ in range(min(len(self._results), BATCH))]
            if not await self._hand_in(batch):
                await self._keep(batch)

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
            log.warning("no API node takes results, they are kept: %s", exc)
            return False
        except errors.FnError as exc:
            await self._one_by_one(batch, finished, exc)
            return True
        except Exception:
            log.exception("handing in %d results failed, they are kept", len(batch))
            return False
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
            log.error("call %s: its result was refused: %s", batch[0].call.id, trouble.explained)
            self.dropped += 1
            if batch[0].stored:
                batch[0].stored(False)
            return
        for result, one in zip(batch, finished, strict=True):
            try:
                refused = await self._data.finish([one])
            except errors.Unavailable:
                self._results.append(result)
            except errors.FnError as exc:
                await self._one_by_one([result], [one], exc)
            else:
                if result.stored:
                    result.stored(not refused)

    async def _keep(self, batch: list[Result]) -> None:
        """Spools what cannot be handed in; without a spool it stays in memory, up to a limit."""
        finished = [Finished(call=r.call, log=r.log.close(), token=r.token) for r in batch]
        if self._spool and await self._spool.put(finished):
            for result in batch:
                if result.stored:
                    result.stored(True)
        elif self._closing:
            self._drop(batch)
        else:
            self._results.extendleft(reversed(batch))
            while len(self._results) > BUFFER:
                self._drop([self._results.pop()])
        if not self._closing:
            await asyncio.sleep(RETRY)

    def _drop(self, batch: list[Result]) -> None:
        for result in batch:
            self.dropped += 1
            log.error("call %s: its result is lost, buffer and spool are full", result.call.id)
            if result.stored:
                result.stored(False)

    async def _try_spooled(self) -> None:
        """Hands in what was spooled, oldest first, while nothing newer waits."""
        while self._spool and not self._results and (found := await self._spool.first()):
            file, finished = found
            try:
                await self._data.finish(finished)
            except errors.Unavailable:
                if self._closing:
                    return
                # Nothing newer may come for a long time: keep trying all the same.
                try:
                    await asyncio.wait_for(self._filled.wait(), RETRY)
                except TimeoutError:
                    continue
                return
            except errors.FnError as exc:
                log.error("the spooled batch %s is refused and set aside: %s", file, exc)
                file.rename(file.with_suffix(".refused"))
                continue
            await self._spool.remove(file)
