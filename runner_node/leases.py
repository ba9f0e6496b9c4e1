"""The leases that a runner holds: renewed until an API node has the result, given back, cut off."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import msgspec

from runner_node import metrics
from runner_node.job import Job
from runner_node.loops import Changes, looping
from runner_node.shares import Holding
from shared_models import async_policy, errors
from shared_models.background import ended
from shared_models.call import LeasedCall, LeaseKey
from shared_models.interfaces import DataAccess

log = logging.getLogger(__name__)

RENEWALS = 3
"""Per time to live of a lease."""
LONGEST_RENEWAL = 5.0
"""Seconds between two renewals at most: that is how soon a runner hears that a call was cancelled."""
RELEASE = 10.0
"""Seconds that giving back may take; then the leases run out by themselves."""
_NOTHING = Holding()


class Held:
    """A leased call that is here, and the *task* that runs it.

    *started*: its function may have it. *lost*: somebody else may speak for it.
    """

    __slots__ = ("cap", "job", "leased", "lost", "started", "task")
    task: asyncio.Task[None]

    def __init__(self, leased: LeasedCall) -> None:
        self.leased = leased
        self.job: Job | None = None
        self.started = False
        self.lost = False
        self.cap = async_policy.max_concurrency(leased.call.annotations)

    def slim(self) -> None:
        """What was needed to run it is not needed to renew its lease, which may take long."""
        bare = msgspec.structs.replace(self.leased.call, payload=b"", headers={}, config={})
        self.leased = msgspec.structs.replace(self.leased, call=bare)
        self.job = None

    @property
    def recorded(self) -> bool:
        """Whether its result is on its way."""
        return self.job is not None and self.job.recorded

    @property
    def at_work(self) -> bool:
        """Whether it waits or runs; else only its result is still here."""
        return not self.task.done()


class Leases:
    """``changes`` tells when one is gone, or its call has started or ended; *on_gone* of which function."""

    def __init__(self, data: DataAccess, on_gone: Callable[[str], None]) -> None:
        self._data = data
        self._on_gone = on_gone
        self._held: dict[LeaseKey, Held] = {}
        self._holding = asyncio.Event()
        self._releases: set[asyncio.Task[None]] = set()
        self._ttl = 30.0
        self.unstarted = 0
        """Calls that wait for a container."""
        self.by_function: dict[str, Holding] = {}
        """Calls that wait or run."""
        self.changes = Changes()

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, key: LeaseKey) -> bool:
        return key in self._held

    def holding(self, fn_id: str) -> Holding:
        """Calls of one function that wait or run."""
        return self.by_function.get(fn_id, _NOTHING)

    def add(self, held: Held) -> None:
        """From now on the lease is renewed."""
        leased = held.leased
        for other in self._held.values():
            if other.leased.call.id == leased.call.id:
                self._lose(other)  # our own lease had run out
        if leased.lease and leased.lease.ttl > 0:
            self._ttl = leased.lease.ttl
        self._held[leased.key] = held
        self._holding.set()
        self.unstarted += 1
        holding = self.by_function.setdefault(leased.call.fn_id, Holding())
        holding.calls += 1
        holding.cap = held.cap

    def started(self, held: Held) -> None:
        """The function may have the call from now on."""
        held.started = True
        self.unstarted -= 1
        self.changes.tell()

    def ended(self, held: Held) -> None:
        """It waits or runs no more; what is left of it is a result, or nothing."""
        held.slim()
        if not held.started:
            self.unstarted -= 1
        fn_id = held.leased.call.fn_id
        holding = self.by_function[fn_id]
        holding.calls -= 1
        if not holding.calls:
            del self.by_function[fn_id]
        self._on_gone(fn_id)
        self.changes.tell()

    def forget(self, held: Held) -> None:
        """The lease is no longer ours to renew. Idempotent."""
        if self._held.get(held.leased.key) is held:
            del self._held[held.leased.key]
        self.changes.tell()

    # -- renewal -------------------------------------------------------------------------------

    @asynccontextmanager
    async def renewed(self) -> AsyncIterator[None]:
        """For the time of the block."""
        async with looping(self._renew, "lease renewal"):
            yield

    async def _renew(self) -> None:
        while True:
            await self._holding.wait()
            await asyncio.sleep(min(self._ttl / RENEWALS, LONGEST_RENEWAL))
            keys = [held.leased.key for held in self._held.values() if held.leased.lease and not held.lost]
            if not self._held:
                self._holding.clear()
            if not keys:
                continue
            try:
                lost = set(await self._data.extend(keys))
            except errors.FnError as exc:
                log.warning("%d leases could not be renewed: %s", len(keys), exc)
                continue
            for key in keys:
                held = self._held.get(key)
                if held and key.id in lost:
                    self._lose(held)

    def _lose(self, held: Held) -> None:
        """The run must stop; its container is removed."""
        if held.lost:
            return
        held.lost = True
        metrics.leases_lost.inc()
        log.warning(
            "call %s: the lease was lost%s",
            held.leased.call.id,
            ", the run is stopped" if held.at_work else "",
        )
        held.task.cancel()

    # -- the end -------------------------------------------------------------------------------

    async def give_back(self, keys: Sequence[LeaseKey], why: object) -> None:
        """Unstarted calls back to the queue, their attempt uncounted; does not raise."""
        if not keys:
            return
        log.info("%d calls go back to the queue (%s ...): %s", len(keys), keys[0].id, why)
        # Once begun it is finished, whatever becomes of the one who gives back.
        release = asyncio.create_task(self._release(keys), name="give back")
        self._releases.add(release)
        release.add_done_callback(self._releases.discard)
        await asyncio.shield(release)

    async def _release(self, keys: Sequence[LeaseKey]) -> None:
        try:
            async with asyncio.timeout(RELEASE):
                await self._data.release(keys)
        except (errors.FnError, TimeoutError) as exc:
            log.warning("%d calls could not be given back, their leases will run out: %s", len(keys), exc)

    async def give_back_unstarted(self) -> None:
        """All that wait for a container, at once."""
        waiting = [held for held in self._held.values() if held.at_work and not held.started]
        await ended(*(held.task for held in waiting))
        keys = [held.leased.key for held in waiting if not held.started and not held.lost]
        await self.give_back(keys, "the runner takes no more calls")

    async def finish(self, seconds: float) -> None:
        """Gives running calls *seconds* to end and cuts off the rest, which is recorded as such."""
        running = {held.task for held in self._held.values() if held.at_work}
        if running:
            log.info("%d queued calls still run, they get %g s", len(running), seconds)
            await asyncio.wait(running, timeout=seconds)
        late = [held for held in self._held.values() if held.at_work]
        for held in late:
            if held.job:
                held.job.cut = True
        if late:
            log.warning("%d queued calls were cut off", len(late))
        await ended(*(held.task for held in late))
        if self._releases:
            await asyncio.wait(self._releases, timeout=RELEASE)
