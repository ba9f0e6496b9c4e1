"""Removes calls, logs and dead letters that are too old, and those that are ordered to be removed."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from prometheus_client import Counter, Gauge

from services.stores import Stores
from shared_models import times
from shared_models.env import env
from shared_models.errors import CallsNotKept, FnError
from shared_models.interfaces import Purge
from shared_models.telemetry import REGISTRY

log = logging.getLogger(__name__)

BATCH = 1000
"""Calls that are removed at once."""
LETTERS = 100
"""Dead letters that are removed at once: each has its payload."""
MOST = 50
"""Batches of one kind in one round: the rest is for the next."""
PAUSE = 0.05
"""Seconds between two batches, so that others get through."""
PURGES_TAKE = 60.0
"""Seconds after which a round begins no further order."""
_UNTIL_LAST_CALL = 3600.0
"""Seconds after which no call of a removed app or function is running any more."""
_PURGES = 1000
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}

_removed = Counter(
    "fn_removed",
    "Records of calls, logs, dead letters or keys that were removed",
    ("what", "reason"),
    registry=REGISTRY,
)
_pending_purges = Gauge("fn_pending_purges", "Orders to remove calls, not yet carried out", registry=REGISTRY)


def duration(text: str) -> float:
    """Seconds of ``30d``, ``12h``, ``1h30m``, ``0``; raises ValueError for anything else."""
    if text.strip() in ("", "0"):
        return 0.0
    parts = re.findall(r"(\d{1,6})([smhdw])", text.strip())
    if "".join(f"{number}{unit}" for number, unit in parts) != text.strip():
        raise ValueError("must be a duration such as 30d, 12h or 90m, or 0 to keep everything")
    return float(sum(int(number) * _UNITS[unit] for number, unit in parts))


def written(seconds: float) -> str:
    """*seconds* as ``duration`` reads them, in as few parts as there are."""
    left, parts = round(seconds), ""
    for unit in ("d", "h", "m", "s"):
        number, left = divmod(left, _UNITS[unit])
        parts += f"{number}{unit}" if number else ""
    return parts or "0"


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionSettings:
    """For how long calls, logs and dead letters are kept, in seconds; 0: for ever."""

    calls: float = env(
        "FN_CALLS_RETENTION",
        0.0,
        "age at which records of calls are removed with their logs and results, such as 30d or 12h; 0 keeps "
        "them",
        parse=duration,
        show=written,
    )
    logs: float = env(
        "FN_LOGS_RETENTION",
        0.0,
        "age at which logs and kept results of calls are removed, such as 7d; 0 keeps them as long as their "
        "calls",
        parse=duration,
        show=written,
    )
    dead_letters: float = env(
        "FN_DEAD_LETTERS_RETENTION",
        14 * 86400.0,
        "time after which dead letters (calls that were given up) are removed, such as 30d; 0 keeps them",
        parse=duration,
        show=written,
    )


async def tidy(
    stores: Stores,
    settings: RetentionSettings,
    clock: Callable[[], float] | None = None,
    pause: float = PAUSE,
) -> None:
    """One round of everything; raises the stores' errors. Twice at once does no harm."""
    now = (clock or stores.clock)()
    started = time.monotonic()
    for purge in await _pending(stores):
        if time.monotonic() - started > PURGES_TAKE:
            break
        try:
            await _carry_out(stores, purge, now, pause)
        except FnError as exc:
            # One that cannot be carried out must not stop the others.
            log.warning("order %s to remove calls is put off: %s", purge.id, exc.explained)
    await _pending(stores)
    # First what is in the datastore, without which nothing works anyway: the log store may be away.
    letters, keys, logstore = stores.dead_letters, stores.idempotency_keys, stores.logstore
    if age := settings.dead_letters:
        died_before = times.to_text(now - age)
        await _expire("dead letters", lambda: letters.purge(older_than=died_before, limit=LETTERS), pause)
    await _expire("idempotency keys", lambda: keys.expire(BATCH), pause)
    if age := settings.calls:
        made_before = times.to_text(now - age)
        await _expire("calls", lambda: logstore.expire_calls(made_before, BATCH), pause)
    if age := settings.logs:
        logged_before = times.to_text(now - age)
        await _expire("logs", lambda: logstore.expire_logs(logged_before, BATCH), pause)


async def _expire(what: str, batch: Callable[[], Awaitable[int]], pause: float) -> None:
    removed, _ = await _in_batches(batch, pause)
    _tell(what, "retention", removed)


async def _pending(stores: Stores) -> list[Purge]:
    purges = await stores.datastore.purges(_PURGES)
    _pending_purges.set(len(purges))
    return purges


async def _carry_out(stores: Stores, purge: Purge, now: float, pause: float) -> None:
    ranged = bool(purge.from_time or purge.to_time)
    buried = ranged or await _bury(stores, purge, pause)
    try:
        removed, done = await _in_batches(lambda: stores.logstore.remove_calls(purge, BATCH), pause)
    except CallsNotKept:
        removed, done = 0, True
    _tell("calls", "purge", removed)
    if buried and done and (ranged or now - times.seconds_of(purge.created_at) > _UNTIL_LAST_CALL):
        await stores.datastore.remove_purge(purge.id)


async def _bury(stores: Stores, purge: Purge, pause: float) -> bool:
    """Removes the dead letters of an app or a function that was removed; whether none is left."""
    removed, done = await _in_batches(
        lambda: stores.dead_letters.purge(fn_id=purge.fn_id, app_id=purge.app_id, limit=LETTERS), pause
    )
    _tell("dead letters", "purge", removed)
    return done


async def _in_batches(batch: Callable[[], Awaitable[int]], pause: float) -> tuple[int, bool]:
    """How many were removed, and whether none is left."""
    removed = 0
    for _ in range(MOST):
        some = await batch()
        removed += some
        if not some:
            return removed, True
        await asyncio.sleep(pause)
    return removed, False


def _tell(what: str, reason: str, removed: int) -> None:
    if removed:
        _removed.labels(what, reason).inc(removed)
        log.info("%s removed: %d (%s)", what, removed, reason)
