"""What each backend of the stores does in a second: inserts, pages, and operations of the queue.

``make bench-stores`` or ``python -m benchmarks.stores [--seconds 1] [--backend NAME ...] [--into FOLDER]``.
PostgreSQL, MariaDB and Redis are servers of its own (Debian's packages) that sync every commit to the disk,
as operators run them; S3 is moto, which keeps everything in memory: its figures say what our side costs, not
what a provider does. Before each figure the backend's driver is measured alone, one small insert with its
commit after the other: figures in brackets are multiples of that, and only those mean something elsewhere.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.bare_stores import bare
from benchmarks.store_figures import Figure, lines, machine, table
from benchmarks.store_operations import PAGE, Backlog, counted, finish, insert_app, page, push, through
from services.datastore import open_datastore
from services.logstore import open_logstore
from services.queue import open_queue
from shared_models.interfaces import Datastore, LogStore, MessageQueue
from tests.engine.packages import Missing
from tests.servers.mariadb import MariaDB
from tests.servers.postgres import Postgres
from tests.servers.redis import Redis
from tests.servers.s3 import S3
from tests.servers.server import Server, running

CALLERS = (1, 16, 64)
FINISHED = (1, 10, 100, 256)
"""Calls that one ``finish_calls`` ends."""
TAKEN = ((1, 1), (1, 10), (1, 100), (16, 10), (64, 10))
"""Callers that ``reserve`` and ``delete``, and the calls that each asks for."""
WAITING = 2_000
"""Calls in the queue when reserves are measured."""
_SERVERS: dict[str, tuple[type[Server], tuple[object, ...]]] = {
    "postgres": (Postgres, (True,)),
    "mariadb": (MariaDB, (True,)),
    "redis": (Redis, (True,)),
    "s3": (S3, ()),
}
BACKENDS = ("memory", "sqlite", *_SERVERS)
_DATASTORES = ("memory", "sqlite", "postgres", "mariadb")
_LOGSTORES = ("memory", "sqlite", "postgres", "mariadb", "s3")
_QUEUES = ("memory", "sqlite", "postgres", "mariadb", "redis")


Work = Callable[[], Awaitable[int]]
"""One operation; answers how many it did, 0 when there is nothing left to do."""


def main() -> int:
    """Runs the backends one after the other, prints the table, writes the figures; answers the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each figure is measured")
    parser.add_argument("--backend", nargs="+", default=BACKENDS, choices=BACKENDS)
    parser.add_argument("--into", type=Path)
    options = parser.parse_args()
    # Before the first figure: whoever commits meanwhile changes nothing of what runs.
    found_on = {**machine(), "seconds": options.seconds}
    figures: list[Figure] = []
    for name in options.backend:
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
            text = json.dumps({"machine": found_on, "figures": rows}, indent=1)
            (options.into / "stores.json").write_text(text + "\n")
    print("\n".join(table(figures)))
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
        # In turns: what slows the machine down for a while slows both.
        reference = await per_second(partial(counted, insert), 1, seconds / 4) if insert else 0.0
        rate = await per_second(work, callers, seconds)
        figures.append(
            Figure(
                backend=name,
                what=what,
                callers=callers,
                batch=batch,
                per_second=round(rate, 1),
                bare=round(reference, 1),
            )
        )

    alone = partial(bare, name, f"{url}/bare.db" if name == "sqlite" else url)
    async with (
        _maybe(name != "memory", alone) as insert,
        opened(name, url) as (datastore, logstore, queue),
    ):
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
            backlog = Backlog(queue)
            await backlog.clear()
            for callers, batch in TAKEN:
                await backlog.fill(WAITING)
                await measure("reserve", partial(backlog.reserve, batch), callers, batch)
                await measure("delete", partial(backlog.delete, batch), callers, batch)
                await backlog.clear()
            for callers in CALLERS:
                await measure("push, reserve, delete", partial(through, queue, 10), callers, 10)
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
        while time.perf_counter() < end and (count := await work()):
            done += count

    await asyncio.gather(*[call() for _ in range(callers)])
    return done / (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
