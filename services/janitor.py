"""Ends calls that nobody else would: recorded by a node that died before it could queue them."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import msgspec

from services.stores import Stores
from shared_models import times
from shared_models.call import Finished, Lease, LeasedCall, Status
from shared_models.errors import CallNotFound, FnError

log = logging.getLogger(__name__)

ENQUEUE_TAKES = 60.0
"""Seconds within which a node that lives has queued what it recorded."""
NEVER_ACCEPTED = (
    "was never accepted: the API node stopped before the call was queued, and nobody sent it again"
)
_RECORDS = 100_000
_IN_ONE_QUERY = 500


@asynccontextmanager
async def running_janitor(stores: Stores, every: float = 30.0) -> AsyncIterator[None]:
    """Cleans up every *every* seconds while the block runs."""
    janitor = asyncio.create_task(_clean_forever(stores, every), name="janitor")
    try:
        yield
    finally:
        janitor.cancel()
        with suppress(asyncio.CancelledError):
            await janitor


async def _clean_forever(stores: Stores, every: float) -> None:
    while True:
        await asyncio.sleep(every)
        try:
            await clean(stores)
        except FnError as exc:
            log.warning("cleaning up is put off: %s", exc)
        except Exception:
            log.exception("cleaning up failed, and is tried again")


async def clean(stores: Stores, clock: Callable[[], float] = time.time) -> list[str]:
    """Ends the records that are queued for a minute and in no queue; answers their ids.

    Reads the records before the queue: a call that ends in between has left ``queued`` before it
    left the queue, and its final record refuses us.
    """
    now = clock()
    waiting = await stores.logstore.unqueued(times.to_text(now - ENQUEUE_TAKES), _RECORDS)
    ended: list[str] = []
    at = times.to_text(now)
    for start in range(0, len(waiting), _IN_ONE_QUERY):
        ids = waiting[start : start + _IN_ONE_QUERY]
        held = await stores.queue.holds(ids)
        ended += [call_id for call_id in ids if call_id not in held and await _end(stores, call_id, at)]
    return ended


async def _end(stores: Stores, call_id: str, now: str) -> bool:
    """Takes the record over, as a runner would, and ends it. A message that comes late is then refused."""
    try:
        record = await stores.logstore.call(call_id)
    except CallNotFound:
        return False
    lease = Lease(token=secrets.token_urlsafe(16), attempt=record.attempt)
    leased = LeasedCall(call=record, lease=lease)
    if await stores.logstore.claim([leased], ""):
        return False
    call = msgspec.structs.replace(record, status=Status.ERROR, error=NEVER_ACCEPTED, completed_at=now)
    if await stores.logstore.finish_calls([Finished(call=call, token=lease.token)]):
        return False
    log.warning("call %s of function %s %s", call.id, call.fn_id, NEVER_ACCEPTED)
    return True
