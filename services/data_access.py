"""Data access on the stores themselves: what a full node uses, and what an API node serves to runners.

A call lives in two places: the queue says whose turn it is, the log store says what became of it.
No transaction spans both, so every method orders its steps such that a node may die between any two
of them. The queue's message goes last: as long as it is there the call comes back, and the record
decides whether it may run. A final record is never left, so a message that outlived its call is
dropped when it comes up.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Sequence

from services import metrics
from services.admission import Admission
from services.callbacks.settings import CallbackSettings
from services.fresh_leases import FreshLeases
from services.handing_out import HandingOut
from services.settling import Settling
from services.stores import Stores
from services.wanting import Wanting
from shared_models import times
from shared_models.app import App
from shared_models.async_policy import AsyncSettings
from shared_models.batches import Batches
from shared_models.call import Call, Finished, LeasedCall, LeaseKey
from shared_models.errors import FnError, LeaseLost
from shared_models.fn import Fn
from shared_models.interfaces import DataAccess
from shared_models.route import Route
from shared_models.runner import RunnerReport, RunnerState
from shared_models.trigger import TriggerTarget
from shared_models.wanted import Wanted

_GRACE = 60.0
"""Seconds beyond a call's timeout that an unmodified Fn runner, which renews nothing, may take."""
_DEFAULTS = AsyncSettings()
_NO_CALLBACKS = CallbackSettings()


class DirectDataAccess(DataAccess):
    """One per node; *settings* hold for functions that say nothing themselves."""

    def __init__(
        self,
        stores: Stores,
        settings: AsyncSettings = _DEFAULTS,
        callbacks: CallbackSettings = _NO_CALLBACKS,
        *,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._datastore = stores.datastore
        self._logstore = stores.logstore
        self._queue = stores.queue
        self._lease_ttl = settings.lease
        self._clock = clock = clock or stores.clock
        self._admission = Admission(stores, settings, callbacks, clock)
        self._settling = Settling(stores, settings, clock)
        self._starts = Batches(self._start_all)
        self._fresh = FreshLeases(settings.lease, clock)
        self._handing_out = HandingOut(stores, self._settling, settings, clock)
        self._wanting = Wanting(stores.datastore, clock)

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

    # -- the life of a queued call -------------------------------------------------------------

    async def enqueue(self, call: Call) -> str:
        return await self._admission.enqueue(call)

    async def dequeue(
        self, node: str, limit: int, wait: float, without: Collection[str] = ()
    ) -> list[LeasedCall]:
        leased = await self._handing_out.dequeue(node, limit, wait, without)
        if self._logstore.keeps:
            self._fresh.given(leased)
        return leased

    async def start(self, leased: LeasedCall) -> None:
        """Lease first, then the record: each refuses a late runner by itself.

        A lease that this node gave a moment ago cannot have run out: there the record decides alone.
        """
        try:
            await self._starts.ask(leased)
        except LeaseLost:
            metrics.fenced.labels("start").inc()
            raise

    async def _start_all(self, batch: Sequence[LeasedCall]) -> list[Exception | None]:
        """Those that came together: one renewal of their leases, one change of their records."""
        rounds: dict[tuple[float, int], list[LeaseKey]] = {}
        times_named = Counter[str]()
        for one in batch:
            if one.key in self._fresh:
                continue
            ttl = self._lease_ttl if one.key.token else one.call.timeout + _GRACE
            # Two that name one call, a late runner's and the holder's, must be told apart.
            rounds.setdefault((ttl, times_named[one.key.id]), []).append(one.key)
            times_named[one.key.id] += 1
        lost: set[LeaseKey] = set()
        for (ttl, _), keys in rounds.items():
            ids = set(await self._queue.extend(keys, ttl))
            lost.update(key for key in keys if key.id in ids)
        return await asyncio.gather(
            *[self._start_record(one) if one.key not in lost else _refused() for one in batch]
        )

    async def _start_record(self, leased: LeasedCall) -> Exception | None:
        started_at = leased.call.started_at
        if started_at == times.NEVER:
            started_at = times.to_text(self._clock())
        try:
            await self._logstore.start_call(leased.key, started_at)
        except FnError as exc:
            return exc
        return None

    async def extend(self, keys: Sequence[LeaseKey]) -> list[str]:
        # Without a token nobody can say whose the lease is.
        unnamed = [key.id for key in keys if not key.token]
        lost = await self._queue.extend([key for key in keys if key.token], self._lease_ttl)
        if lost:
            metrics.fenced.labels("extend").inc(len(lost))
        return unnamed + lost

    async def release(self, keys: Sequence[LeaseKey]) -> None:
        """Queue first: the record's token is taken over by whoever leases the call next."""
        await self._queue.release(keys)
        await self._logstore.unclaim(keys)

    async def finish(self, batch: Sequence[Finished]) -> list[str]:
        return await self._settling.finish(batch)

    async def wanted(self, since: str) -> Wanted:
        return await self._wanting.wanted(since)

    async def heartbeat(self, report: RunnerReport) -> RunnerState:
        return await self._datastore.put_runner(report)


async def _refused() -> LeaseLost:
    return LeaseLost()
