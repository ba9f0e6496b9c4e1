"""Cleans up behind everybody: ends calls that nobody else would, and removes what is not to be kept.

A call that nobody else ends has a record that waits for a message that is in no queue: either the node
that recorded the call died before it could queue it, or the queue lost the call. Or it waits in the queue for
runners that do not ask (``over_age``).
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import msgspec

from services import metrics
from services.over_age import OverAge
from services.retention import RetentionSettings, tidy
from services.settling import taken_over
from services.stores import Stores
from shared_models import times
from shared_models.async_policy import DEFAULTS, AsyncSettings
from shared_models.background import beside
from shared_models.call import Finished, Reason, Status
from shared_models.errors import CallNotFound, FnError
from shared_models.interfaces import CallFilter
from shared_models.pulse import Pulse

log = logging.getLogger(__name__)

LOCK = "janitor"
EVERY = 30.0
STUCK = 1800.0
"""Seconds after which a round that has not ended is taken to stand still."""
ROUND_TAKES = 120.0
"""Seconds that a round may take before another node begins one too."""
ENQUEUE_TAKES = 60.0
"""Seconds within which a node that lives has queued what it recorded."""
NEVER_ACCEPTED = (
    "was never accepted: the API node stopped before the call was queued, and nobody sent it again"
)
LOST_BY_QUEUE = "was lost: it was running when the message queue lost it"
_PARTING = 2.0
"""Seconds that a node that stops waits for a datastore that does not answer."""
_RECORDS = 100_000
_IN_ONE_QUERY = 500


@asynccontextmanager
async def running_janitor(
    stores: Stores,
    settings: RetentionSettings,
    every: float = EVERY,
    pulse: Pulse | None = None,
    async_settings: AsyncSettings = DEFAULTS,
) -> AsyncIterator[None]:
    """Cleans up every *every* seconds while the block runs, unless another node has just done so.

    *pulse* is told in each round. *async_settings* say how long calls may be queued.
    """
    pulse, over_age = pulse or Pulse(), OverAge(stores, async_settings)
    if settings.calls and settings.logs > settings.calls:
        log.warning("FN_LOGS_RETENTION is longer than FN_CALLS_RETENTION: logs are removed with their calls")
    holder = secrets.token_hex(8)
    try:
        async with beside(_clean_forever(stores, settings, over_age, holder, every, pulse), "janitor"):
            yield
    finally:
        pulse.end(LOCK)
        # The next node goes on at once; if it is not told, it does so when the lock runs out.
        with suppress(FnError, TimeoutError):
            async with asyncio.timeout(_PARTING):
                await stores.datastore.hold(LOCK, holder, 0)


async def _clean_forever(
    stores: Stores, settings: RetentionSettings, over_age: OverAge, holder: str, every: float, pulse: Pulse
) -> None:
    while True:
        pulse.beat(LOCK, STUCK)
        await asyncio.sleep(every)
        try:
            # Long enough for a slow round; a node that died is replaced after it.
            if await stores.datastore.hold(LOCK, holder, every + ROUND_TAKES):
                metrics.drift.set(len(await clean(stores)))
                await over_age.end()
                await count(stores)
                await tidy(stores, settings)
            else:
                # Another node counts now: the numbers of two must not add up.
                metrics.forget_counts()
        except FnError as exc:
            log.warning("cleaning up is put off: %s", exc)
        except Exception:
            log.exception("cleaning up failed, and is tried again")


async def count(stores: Stores) -> None:
    """Tells the metrics how many calls are where."""
    depths = await stores.queue.depths()
    metrics.calls.labels("queued").set(sum(one.queued for one in depths))
    metrics.calls.labels("leased").set(sum(one.leased for one in depths))
    metrics.calls.labels("dead").set(await stores.dead_letters.count())
    waiting = [times.seconds_of(one.oldest) for one in depths if one.oldest != times.NEVER]
    metrics.oldest.set(max(0.0, stores.clock() - min(waiting)) if waiting else 0.0)


async def clean(stores: Stores, clock: Callable[[], float] | None = None) -> list[str]:
    """Ends the queued (for a minute) and the running calls that are in no queue; answers their ids.

    Reads the records before the queue: a call that ends in between has a final record before it
    leaves the queue, and that record refuses us.
    """
    now = (clock or stores.clock)()
    old = times.to_text(now - ENQUEUE_TAKES)
    waiting = await stores.logstore.unqueued(old, _RECORDS)
    ended = await _end_those_in_no_queue(stores, waiting, NEVER_ACCEPTED, now)
    page = CallFilter(status=Status.RUNNING, limit=_IN_ONE_QUERY)
    while calls := await stores.logstore.calls(page):
        # A call is recorded as running only while it is queued; sync calls are recorded when they end.
        ended += await _end_those_in_no_queue(stores, [call.id for call in calls], LOST_BY_QUEUE, now)
        page = msgspec.structs.replace(page, before=calls[-1].id)
    return ended


async def _end_those_in_no_queue(stores: Stores, ids: list[str], reason: str, now: float) -> list[str]:
    ended: list[str] = []
    for start in range(0, len(ids), _IN_ONE_QUERY):
        some = ids[start : start + _IN_ONE_QUERY]
        held = await stores.queue.holds(some)
        ended += [one for one in some if one not in held and await _end(stores, one, reason, now)]
    return ended


async def _end(stores: Stores, call_id: str, reason: str, now: float) -> bool:
    """Takes the record over and ends it. A message that comes late is then refused."""
    try:
        record = await stores.logstore.call(call_id)
    except CallNotFound:
        return False
    token = await taken_over(stores.logstore, record)
    if not token:
        return False
    call = msgspec.structs.replace(
        record, status=Status.ERROR, error=reason, reason=Reason.LOST, completed_at=times.to_text(now)
    )
    if await stores.logstore.finish_calls([Finished(call=call, token=token)]):
        return False
    metrics.ended.labels(call.status, call.reason).inc()
    log.warning("call %s of function %s %s", call.id, call.fn_id, reason)
    return True
