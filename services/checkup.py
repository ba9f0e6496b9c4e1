"""Whether the backing services are there, and whether an accepted call survives them: ``fn-node doctor``."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec
from sqlalchemy import text

from services import urls
from services.datastore import dialects, migrate
from services.datastore.database import explained, open_unmigrated
from services.logstore import NONE, open_logstore
from services.queue import SCHEMES, open_queue
from services.queue.redis_link import open_link
from services.queue.redis_server import durability
from services.queue.redis_settings import RedisSettings
from services.stores import StoreSettings
from shared_models.errors import FnError
from shared_models.finding import Finding, Level

_DATASTORE, _LOGSTORE, _QUEUE = "datastore (FN_DB_URL)", "log store (FN_LOGSTORE_URL)", "queue (FN_MQ_URL)"
_POSTGRES = {
    "synchronous_commit": (("on", "remote_apply", "remote_write", "local"), "on"),
    "fsync": (("on",), "on"),
}
_MYSQL = {"innodb_flush_log_at_trx_commit": (("1",), "1")}


_MOST_SKEW = 30.0
"""Seconds between two clocks that are worth a word."""


async def examine_stores(
    settings: StoreSettings, clock: Callable[[], float] = time.time
) -> AsyncIterator[Finding]:
    """Each store as a node would open it, but that no schema is changed; *clock* is this machine's."""
    reached = await _database(_DATASTORE, "FN_DB_URL", settings.datastore_url)
    yield reached
    if reached.level is not Level.ERROR and not settings.datastore_url.startswith("sqlite"):
        yield await _judged(f"clock of the {_DATASTORE}", _clock(settings.datastore_url, clock))
    if settings.logstore_url == NONE:
        yield Finding(
            Level.WARNING, _LOGSTORE, "is switched off: nobody can see what became of a call",
            "unset FN_LOGSTORE_URL to keep records with the functions",
        )  # fmt: skip
    elif settings.logstore_url.startswith("s3:"):
        yield await _judged(_LOGSTORE, _opened(open_logstore(settings.logstore_url)))
    elif settings.logstore_url:
        yield await _database(_LOGSTORE, "FN_LOGSTORE_URL", settings.logstore_url)
    address = urls.parse(settings.queue_url, "FN_MQ_URL", SCHEMES)
    if address.scheme in ("postgres", "mysql"):
        reached = await _database(_QUEUE, "FN_MQ_URL", settings.queue_url)
    else:
        reached = await _judged(_QUEUE, _embedded_or_redis(settings.queue_url, address))
    yield reached
    if reached.level is not Level.ERROR:
        yield await _durability(settings.queue_url, address)


async def _database(about: str, variable: str, url: str) -> Finding:
    return await _judged(about, _revision(variable, url))


async def _clock(url: str, clock: Callable[[], float]) -> Finding:
    """Whether the server of the datastore, which has a time of its own, has that of *clock*."""
    async with open_unmigrated(url, "FN_DB_URL") as backend:
        with explained(url, "FN_DB_URL", backend.port):
            async with asyncio.timeout(backend.timeout), backend.engine.connect() as connection:
                before = clock()
                its = float(await connection.scalar(text(backend.time)))
                skew = its - (before + clock()) / 2
    if abs(skew) <= _MOST_SKEW:
        return Finding(Level.OK, "", f"agrees with this machine's ({skew:+.1f} s)")
    return Finding(
        Level.WARNING, "", f"is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} this machine's",
        "run NTP on both: deadlines, leases and times of records are by both",
    )  # fmt: skip


async def _revision(variable: str, url: str) -> Finding | None:
    address = urls.parse(url, variable, dialects.SCHEMES)
    if await asyncio.to_thread(_to_be_made, address):
        return None
    async with open_unmigrated(url, variable) as backend:
        with explained(url, variable, backend.port):
            async with asyncio.timeout(backend.timeout):
                has = await migrate.revision_of(backend)
    if migrate.is_up_to_date(has):
        return None
    return Finding(
        Level.WARNING, "", f"answers; its schema is {has}, and this version's is {migrate.newest()}",
        "the node brings it up to date when it starts, or fn-node migrate does now",
    )  # fmt: skip


async def _embedded_or_redis(url: str, address: urls.Address) -> None:
    if not await asyncio.to_thread(_to_be_made, address):
        await _opened(open_queue(url))


def _to_be_made(address: urls.Address) -> bool:
    """Whether the node would make a new SQLite file; raises ValueError when it could not. Blocks."""
    path = Path(address.path).absolute()
    if address.scheme != "sqlite" or not address.path or path.exists():
        return False
    # The nearest that is there: what is missing below it is made by the node, not by a look.
    folder = next(parent for parent in path.parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as exc:
        raise ValueError(f"{path} cannot be made: {folder}: {exc.strerror}") from exc


async def _opened(store: AbstractAsyncContextManager[object]) -> None:
    async with store:
        return None


async def _judged(about: str, look: Coroutine[None, None, Finding | None]) -> Finding:
    """What *look* found, or that all is well, or what it raised."""
    try:
        found = await look
    except (FnError, TimeoutError) as exc:
        said = exc.explained if isinstance(exc, FnError) else "does not answer in time"
        return Finding(Level.ERROR, about, said, "start it, or correct its URL")
    except (ValueError, OSError) as exc:
        return Finding(Level.ERROR, about, str(exc), "correct its URL")
    return msgspec.structs.replace(found, about=about) if found else Finding(Level.OK, about, "can be used")


async def _durability(url: str, address: urls.Address) -> Finding:
    """Whether a call that was answered with 202 is on disk."""
    about = "durability of the queue"
    match address.scheme:
        case "sqlite" if address.path:
            return Finding(Level.OK, about, "each call is synced to disk before its 202 (synchronous=FULL)")
        case "sqlite" | "memory":
            return Finding(
                Level.WARNING, about, "queued calls are lost when the node ends",
                "set FN_MQ_URL to a SQLite file, Redis, PostgreSQL or MySQL",
            )  # fmt: skip
        case "redis":
            async with open_link(RedisSettings.of(address, "FN_MQ_URL")) as link:
                return await durability(link)
        case "postgres":
            return await _settings_of(url, about, _POSTGRES, "SELECT current_setting('{}')")
    return await _settings_of(url, about, _MYSQL, "SELECT @@{}")


async def _settings_of(
    url: str, about: str, wanted: Mapping[str, tuple[tuple[str, ...], str]], question: str
) -> Finding:
    async with open_unmigrated(url, "FN_MQ_URL") as backend, backend.engine.connect() as connection:
        for name, (good, best) in wanted.items():
            value = str(await connection.scalar(text(question.format(name))))
            if value not in good:
                return Finding(
                    Level.WARNING, about, f"the server may lose its last commits when it crashes: "
                    f"{name} is {value}", f"set {name} to {best}",
                )  # fmt: skip
    return Finding(Level.OK, about, "each call is on the server's disk before its 202")
