"""What each backend of the stores does in a second: inserts, pages, and operations of the queue.

``python -m benchmarks.stores [--seconds 0.5] [--only NAME ...] [--into docs/benchmarks]``. PostgreSQL,
MariaDB and Redis are servers of its own (Debian's packages) that sync every commit to the disk, as operators
run them; S3 is moto, which keeps everything in memory: its figures say what our side costs, not what a
provider does. The row ``bare`` of each backend is its driver alone, one small insert with its commit after
the other, in the same run: the figures in brackets are multiples of it, and only those mean something
elsewhere.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.bare_stores import bare
from services.datastore import open_datastore
from services.logstore import open_logstore
from services.queue import open_queue
from shared_models import times
from shared_models.app import App
from shared_models.call import Call, Finished
from shared_models.ids import new_id
from shared_models.interfaces import CallFilter, Datastore, LogStore, MessageQueue
from tests.engine.packages import Missing
from tests.servers.mariadb import MariaDB
from tests.servers.postgres import Postgres
from tests.servers.redis import Redis
from tests.servers.s3 import S3
from tests.servers.server import Server, running

CALLERS = (1, 16, 64)
FINISHED = (1, 10, 100, 256)
"""Calls that one ``finish_calls`` ends."""
RESERVED = (1, 10, 100)
"""Calls that one ``reserve`` asks for."""
PAGE = 30
TTL = 60.0
_SERVERS: dict[str, tuple[type[Server], tuple[object, ...]]] = {
    "postgres": (Postgres, (True,)),
    "mariadb": (MariaDB, (True,)),
    "redis": (Redis, (True,)),
    "s3": (S3, ()),
}
_DATASTORES = ("memory", "sqlite", "postgres", "mariadb")
_LOGSTORES = ("memory", "sqlite", "postgres", "mariadb", "s3")
_QUEUES = ("memory", "sqlite", "postgres", "mariadb", "redis")
_PAYLOAD = b'{"name": "Johnny"}'
_LOG = b"a line of a log\n" * 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """*per_second*: of *what*, with so many concurrent *callers*, *batch* of them in one operation."""

    backend: str
    what: str
    callers: int
    batch: int
    per_second: float


Work = Callable[[], Awaitable[int]]
"""One operation; answers how many it did."""


def main() -> int:
    """Runs the backends one after the other, prints the table, writes the figures; answers the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.5, help="how long each figure is measured")
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--into", type=Path)
    options = parser.parse_args()
    figures: list[Figure] = []
    for name in ("memory", "sqlite", *_SERVERS):
        if options.only and name not in options.only:
            continue
        with ExitStack() as stack:
            try:
                url = url_of(name, stack)
            except Missing as exc:
                print(f"bench: no {name}: {exc}", file=sys.stderr)
                continue
            found = asyncio.run(measured(name, url, options.seconds))
        for line in lines(found):
            print(line, flush=True)
        figures += found
        if options.into:
            options.into.mkdir(parents=True, exist_ok=True)
            rows = [{name: getattr(one, name) for name in Figure.__slots__} for one in figures]
            (options.into / "stores.json").write_text(json.dumps(rows, indent=1) + "\n")
    return 0


def url_of(name: str, stack: ExitStack) -> str:
    """The URL of a new backend, which *stack* ends; of SQLite the folder, of memory nothing."""
    if name == "memory":
        return ""
    if name == "sqlite":
        return stack.enter_context(tempfile.TemporaryDirectory(prefix="fnb-"))
    kind, arguments = _SERVERS[name]
    return stack.enter_context(running(kind, *arguments)).url


async def measured(name: str, url: str, seconds: float) -> list[Figure]:
    """All figures of one backend."""
    figures: list[Figure] = []

    async def measure(what: str, work: Work, callers: int = 1, batch: int = 1) -> None:
        rate = await per_second(work, callers, seconds)
        figures.append(
            Figure(backend=name, what=what, callers=callers, batch=batch, per_second=round(rate, 1))
        )

    if name != "memory":
        async with bare(name, f"{url}/bare.db" if name == "sqlite" else url) as insert:
            await measure("bare", partial(counted, insert))
    async with opened(name, url) as (datastore, logstore, queue):
        if datastore:
            for callers in CALLERS:
                await measure("insert app", partial(insert_app, datastore), callers)
        if logstore:
            for batch in FINISHED:
                await measure("finish calls", partial(finish, logstore, batch), 1, batch)
            for callers in CALLERS[1:]:
                await measure("finish calls", partial(finish, logstore, 10), callers, 10)
            for callers in CALLERS:
                await measure(f"page of {PAGE}", partial(page, logstore), callers)
        if queue:
            for callers in CALLERS:
                await measure("push", partial(push, queue), callers)
            for callers, batch in itertools.product(CALLERS, RESERVED):
                await measure("push, reserve, delete", partial(through, queue, batch), callers, batch)
    return figures


@asynccontextmanager
async def opened(
    name: str, url: str
) -> AsyncIterator[tuple[Datastore | None, LogStore | None, MessageQueue | None]]:
    """The stores that *name* can be."""
    embedded = {"memory": "sqlite://", "sqlite": f"sqlite:///{url}/fn.db"}.get(name, url)
    queued = {"memory": "memory://", "sqlite": f"sqlite:///{url}/queue.db"}.get(name, url)
    async with (
        _maybe(name in _DATASTORES, partial(open_datastore, embedded)) as datastore,
        _maybe(name in _LOGSTORES, partial(open_logstore, embedded)) as logstore,
        _maybe(name in _QUEUES, partial(open_queue, queued)) as queue,
    ):
        yield datastore, logstore, queue


@asynccontextmanager
async def _maybe(wanted: bool, open_one: Callable[[], Any]) -> AsyncIterator[Any]:
    if not wanted:
        yield None
        return
    async with open_one() as one:
        yield one


async def per_second(work: Work, callers: int, seconds: float) -> float:
    """How many *callers* do in a second, each one operation after the other."""
    # The first ones open connections, and do not count.
    await asyncio.gather(*[work() for _ in range(callers)])
    done = 0
    start = time.perf_counter()
    end = start + seconds

    async def call() -> None:
        nonlocal done
        while time.perf_counter() < end:
            count = await work()
            done += count

    await asyncio.gather(*[call() for _ in range(callers)])
    return done / (time.perf_counter() - start)


async def counted(operation: Callable[[], Awaitable[object]]) -> int:
    """One, after *operation*."""
    await operation()
    return 1


async def insert_app(datastore: Datastore) -> int:
    """A new app with a small config."""
    name = f"a{new_id().lower()}"
    await datastore.insert_app(App(name=name, config={"KEY": "value"}))
    return 1


async def finish(logstore: LogStore, batch: int) -> int:
    """Records of sync calls that have ended, with small logs."""
    now = times.now()
    ended = Call(
        app_id="app",
        fn_id="fn",
        image="registry.example/fn:1",
        type="sync",
        status="success",
        created_at=now,
        started_at=now,
        completed_at=now,
    )
    made = [Finished(call=msgspec.structs.replace(ended, id=new_id()), log=_LOG) for _ in range(batch)]
    assert not await logstore.finish_calls(made)
    return batch


async def page(logstore: LogStore) -> int:
    """The newest calls of a function."""
    assert len(await logstore.calls(CallFilter(fn_id="fn", limit=PAGE))) == PAGE
    return 1


async def push(queue: MessageQueue) -> int:
    """A call with a small payload."""
    assert await queue.push(Call(id=new_id(), app_id="app", fn_id="fn", type="async", payload=_PAYLOAD))
    return 1


async def through(queue: MessageQueue, batch: int) -> int:
    """As many calls into the queue as come out of it, all at once on either side."""
    await asyncio.gather(*[push(queue) for _ in range(batch)])
    leased = await queue.reserve(batch, 10, TTL)
    await queue.delete([one.key for one in leased])
    return len(leased)


def lines(figures: list[Figure]) -> Iterator[str]:
    """One line a figure, with the multiple of the bare driver."""
    reference = next((one.per_second for one in figures if one.what == "bare"), 0.0)
    for one in figures:
        ratio = f"({one.per_second / reference:.2f})" if reference else ""
        yield (
            f"{one.backend:9} {one.what:22} callers {one.callers:3} batch {one.batch:4} "
            f"{one.per_second:10,.0f} /s {ratio}"
        )


if __name__ == "__main__":
    sys.exit(main())
