"""What a page of calls costs as calls become many, on each SQL backend.

``python -m benchmarks.listing [--most 1000000] [--database NAME=URL ...] [--into docs/benchmarks]``. Without
databases it is SQLite in a temporary file, and PostgreSQL and MariaDB of its own (Debian's packages). What
is in a given database's tables of calls is removed. Half of all calls are those of one function, whose pages
are asked for one after the other through the log store. Prints milliseconds (the fastest tenth) and the ratio
to the same page at the least number of calls; only ratios of one run mean something.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import delete, text
from sqlalchemy.ext.asyncio import AsyncConnection

from benchmarks.chart import line_chart
from services.datastore.database import Database, open_database
from services.datastore.tables import calls, logs
from services.logstore.records import insert_rows, row_of
from services.logstore.sql import SQLLogStore
from shared_models import ids, times
from shared_models.call import Call
from shared_models.interfaces import CallFilter
from tests.engine.packages import Missing
from tests.servers.mariadb import MariaDB
from tests.servers.postgres import Postgres
from tests.servers.server import running

PAGE = 30
DEEP = 10_000
"""The page that is asked for, besides the first; where there are not so many, the one in the middle."""
ASKED = 500
"""Times that a page is asked for."""
ONE = "one call"
"""A record by its key, which costs the same at any size: where this one changes, the machine did."""
_START = times.seconds_of("2027-01-15T08:00:00.000Z")
_APART = 0.05
_IN_ONE_TRANSACTION = 5_000
_ANALYZE = {"sqlite": "ANALYZE", "postgresql": "ANALYZE calls", "mysql": "ANALYZE TABLE calls"}


def main() -> int:
    """Runs the cases, prints the table, writes the figures and the picture; answers the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--most", type=int, default=1_000_000)
    parser.add_argument("--database", action="append", default=[], metavar="NAME=URL")
    parser.add_argument("--into", type=Path)
    options = parser.parse_args()
    sizes = [size for size in (1_000, 10_000, 100_000, 1_000_000) if size <= options.most]
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        given = dict(one.split("=", 1) for one in options.database)
        for name, url in given.items() or own_databases(stack):
            for row in asyncio.run(measured(name, url, sizes)):
                rows.append(row)
                show(row)
    if options.into:
        options.into.mkdir(parents=True, exist_ok=True)
        (options.into / "listing.json").write_text(json.dumps(rows, indent=1) + "\n")
        (options.into / "listing.svg").write_text(picture(rows))
    return 0


def own_databases(stack: ExitStack) -> Iterator[tuple[str, str]]:
    """Name and URL of one database of each kind that this machine has; *stack* ends them."""
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fnb-"))
    yield "SQLite", f"sqlite:///{folder}/fn.db"
    for kind in (Postgres, MariaDB):
        try:
            with running(kind) as server:
                yield kind.__name__, server.url
        except Missing as exc:
            print(f"bench: no {kind.__name__}: {exc}", file=sys.stderr)


async def measured(name: str, url: str, sizes: Sequence[int]) -> list[dict[str, Any]]:
    """One row for each page: milliseconds by number of calls."""
    found: dict[str, dict[int, float]] = {}
    async with open_database(url) as database:
        await emptied(database)
        have = 0
        for size in sizes:
            await fill(database, have, size)
            have = size
            store = SQLLogStore(database)
            asked: dict[str, Callable[[], Awaitable[object]]] = {
                ONE: partial(store.call, a_call(size // 2).id, fn_id="fn0"),
                **{page: partial(store.calls, filter_) for page, filter_ in pages(size).items()},
            }
            for page, milliseconds in (await costs_of(asked)).items():
                found.setdefault(page, {})[size] = milliseconds
        await emptied(database)
    return [{"database": name, "page": page, "milliseconds": costs} for page, costs in found.items()]


def pages(size: int) -> dict[str, CallFilter]:
    """What is asked for of *size* calls."""
    # Every second call is the function's.
    deep = max(size - 2 * PAGE * DEEP, size // 2)
    before, half = a_call(deep).id, a_call(size // 2).created_at
    return {
        "first": CallFilter(fn_id="fn0", limit=PAGE),
        "deep": CallFilter(fn_id="fn0", before=before, limit=PAGE),
        "failed": CallFilter(fn_id="fn0", status="error", limit=PAGE),
        "failed, deep": CallFilter(fn_id="fn0", status="error", before=before, limit=PAGE),
        "path, deep": CallFilter(app_id="app0", path="/p0", before=before, limit=PAGE),
        "to a time": CallFilter(fn_id="fn0", to_time=half, limit=PAGE),
    }


async def costs_of(asked: Mapping[str, Callable[[], Awaitable[object]]]) -> dict[str, float]:
    """Milliseconds that each takes: a tenth of the times it took less, so that noise counts little."""
    taken: dict[str, list[float]] = {name: [] for name in asked}
    # In turns: what slows the machine down for a while slows all of them.
    for _ in range(ASKED):
        for name, ask in asked.items():
            start = time.perf_counter()
            found = await ask()
            taken[name].append((time.perf_counter() - start) * 1000)
            assert found
    return {name: round(statistics.quantiles(times_, n=10)[0], 3) for name, times_ in taken.items()}


def a_call(number: int) -> Call:
    """Call *number* of those that are made, one every 50 ms."""
    moment = _START + number * _APART
    return Call(
        id=ids.IdMaker(1, lambda: moment)(),
        app_id=f"app{number % 2}",
        fn_id=f"fn{number % 2 * (1 + number % 99)}",
        path=f"/p{number // 2 % 5}",
        image="registry.example/some/function:1.0.0",
        type="sync",
        status="error" if number // 2 % 5 == 1 else "success",
        created_at=times.to_text(moment),
        started_at=times.to_text(moment),
        completed_at=times.to_text(moment + 0.2),
    )


async def fill(database: Database, have: int, size: int) -> None:
    """Inserts calls until there are *size*, and lets the database look at them."""
    for start in range(have, size, _IN_ONE_TRANSACTION):
        made = [a_call(number) for number in range(start, min(size, start + _IN_ONE_TRANSACTION))]
        rows = [row_of(call, "", call.created_at) for call in made]

        async def insert(connection: AsyncConnection, rows: list[dict[str, Any]] = rows) -> None:
            await insert_rows(connection, calls, rows)

        await database.transact(insert)

    async def analyze(connection: AsyncConnection) -> None:
        await connection.execute(text(_ANALYZE[connection.dialect.name]))

    await database.transact(analyze)


async def emptied(database: Database) -> None:
    """Removes all calls."""

    async def work(connection: AsyncConnection) -> None:
        for table in (logs, calls):
            await connection.execute(delete(table))

    await database.transact(work)


def show(row: dict[str, Any]) -> None:
    """One line a page; the ratio is what counts."""
    costs = list(row["milliseconds"].values())
    cells = " ".join(f"{one:8.2f} ms ({one / costs[0]:4.2f})" for one in costs)
    print(f"{row['database']:10} {row['page']:14} {cells}", flush=True)


def picture(rows: Sequence[dict[str, Any]]) -> str:
    """The first page and the deep one of each database."""
    lines = {
        f"{row['database']}, {row['page']} page" + ("*" if row["page"] == "deep" else ""): list(
            row["milliseconds"].items()
        )
        for row in rows
        if row["page"] in ("first", "deep")
    }
    return line_chart("A page of 30 calls", "calls in the store", "ms", lines)


if __name__ == "__main__":
    sys.exit(main())
