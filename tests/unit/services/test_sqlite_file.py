"""A SQLite file: who waits for whom, what is seen when, and what is left behind."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, insert, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore import open_datastore
from services.datastore.database import Database, open_database
from services.datastore.tables import logs
from shared_models.app import App
from shared_models.errors import Invalid, NotFound
from shared_models.interfaces import AppFilter

LIMIT = 60.0
"""Seconds until a test is given up."""
ROWS = [{"call_id": f"c{number}", "piece": 0, "body": b"x"} for number in range(5)]


async def fill(database: Database) -> None:
    await database.transact(lambda connection: connection.execute(insert(logs), ROWS))


async def test_a_query_that_lasts_keeps_no_other_reader_waiting(tmp_path: Path) -> None:
    begun, left = threading.Event(), threading.Event()

    def wait() -> int:
        begun.set()
        return int(left.wait(LIMIT))

    def give_function(connection: Connection) -> None:
        connection.connection.create_function("wait", 0, wait)

    async def lasting(connection: AsyncConnection) -> Any:
        await connection.run_sync(give_function)
        return await connection.scalar(text("SELECT wait()"))

    async with open_database(f"sqlite:///{tmp_path}/fn.db") as database, asyncio.timeout(LIMIT):
        await fill(database)
        slow = asyncio.create_task(database.read(lasting))
        assert await asyncio.to_thread(begun.wait, LIMIT)
        query = select(logs.c.call_id)
        found = await asyncio.gather(
            *[database.read(lambda connection: connection.scalars(query)) for _ in range(20)]
        )
        assert [len(one.all()) for one in found] == [5] * 20
        assert not slow.done()
        left.set()
        assert await slow == 1


async def test_a_writer_that_waits_for_another_process_keeps_no_reader_waiting(tmp_path: Path) -> None:
    async with open_datastore(f"sqlite:///{tmp_path}/fn.db") as store, asyncio.timeout(LIMIT):
        await store.insert_app(App(name="first"))
        other = sqlite3.connect(tmp_path / "fn.db", isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            writing = asyncio.create_task(store.insert_app(App(name="second")))
            for _ in range(20):
                assert [app.name for app in await store.apps(AppFilter())] == ["first"]
            assert not writing.done()
            other.execute("ROLLBACK")
        finally:
            other.close()
        assert (await writing).name == "second"


async def test_whoever_has_written_reads_it(tmp_path: Path) -> None:
    async with open_datastore(f"sqlite:///{tmp_path}/fn.db") as store, asyncio.timeout(LIMIT):

        async def writer(name: str) -> None:
            app = await store.insert_app(App(name=name))
            for turn in range(20):
                written = await store.update_app(app.id, App(config={"turn": str(turn)}))
                assert await store.app(app.id) == written

        await asyncio.gather(*[writer(f"w{number}") for number in range(8)])


async def test_a_result_that_nobody_reads_holds_nothing_of_the_file(tmp_path: Path) -> None:
    async with open_database(f"sqlite:///{tmp_path}/fn.db") as database:
        await fill(database)
        result = await database.read(lambda connection: connection.execute(select(logs.c.call_id)))
        await database.transact(lambda connection: connection.execute(logs.delete()))
        other = sqlite3.connect(tmp_path / "fn.db", isolation_level=None)
        try:
            busy, left, _ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        finally:
            other.close()
        assert (busy, left) == (0, 0)
        assert sorted(result.scalars()) == [row["call_id"] for row in ROWS]


async def test_rows_come_in_their_order_however_many_are_taken_at_a_time(tmp_path: Path) -> None:
    query = select(logs.c.call_id).order_by(logs.c.call_id)

    async def by_portions(connection: AsyncConnection) -> list[list[str]]:
        result = (await connection.execute(query)).scalars()
        return [list(portion) for portion in result.partitions(2)]

    async with open_database(f"sqlite:///{tmp_path}/fn.db") as database:
        await fill(database)
        assert await database.read(by_portions) == [["c0", "c1"], ["c2", "c3"], ["c4"]]
        one_by_one = await database.read(lambda connection: connection.scalars(query))
        assert list(one_by_one) == ["c0", "c1", "c2", "c3", "c4"]
        every = await database.read(lambda connection: connection.scalars(query))
        assert every.all() == ["c0", "c1", "c2", "c3", "c4"]


@pytest.mark.parametrize(
    ("failing", "raised"),
    [(NotFound("there is none"), NotFound), (OverflowError("too large"), Invalid), (KeyError("x"), KeyError)],
)
async def test_a_transaction_that_fails_leaves_nothing_and_the_next_one_begins(
    tmp_path: Path, failing: Exception, raised: type[Exception]
) -> None:
    async def work(connection: AsyncConnection) -> None:
        await connection.execute(insert(logs), ROWS)
        raise failing

    async with open_database(f"sqlite:///{tmp_path}/fn.db") as database:
        with pytest.raises(raised):
            await database.transact(work)
        await fill(database)
        found = await database.read(lambda connection: connection.execute(select(logs.c.call_id)))
        assert len(found.all()) == len(ROWS)


async def test_rows_of_which_one_is_there_are_not_inserted_at_once(tmp_path: Path) -> None:
    rows = [(f"c{number}", 0, b"x") for number in range(100)]
    async with open_database(f"sqlite:///{tmp_path}/fn.db") as database:
        assert await database.insert_at_once([(logs, rows[90:91])])
        assert not await database.insert_at_once([(logs, rows)])
        assert await database.insert_at_once([(logs, rows[:90])])
        found = await database.read(lambda connection: connection.execute(select(logs.c.call_id)))
        assert len(found.all()) == 91


async def test_work_that_waits_for_something_else_than_the_database_is_a_defect(tmp_path: Path) -> None:
    async def work(_connection: AsyncConnection) -> None:
        await asyncio.sleep(0)

    async with open_database(f"sqlite:///{tmp_path}/fn.db") as database, asyncio.timeout(LIMIT):
        for do in (database.read, database.transact):
            with pytest.raises(AssertionError, match="something else than the database"):
                await do(work)
        await fill(database)


async def test_a_file_stays_the_same_when_the_process_works_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_datastore("sqlite:///fn.db") as store:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        app = await store.insert_app(App(name="kept"))
        assert await store.app(app.id) == app
        assert not (tmp_path / "elsewhere/fn.db").exists()
