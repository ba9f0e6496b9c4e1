"""Databases: files, schema, and what a driver's failure becomes."""

from __future__ import annotations

import asyncio
import gc
import socket
import sqlite3
import threading
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.datastore import migrate, open_datastore, tables
from services.datastore.database import open_database
from services.logstore import open_logstore
from shared_models.app import App
from shared_models.errors import NotFound, StoreUnavailable
from shared_models.interfaces import AppFilter, CallFilter

LIMIT = 60.0
"""Seconds until a test is given up."""


async def test_a_file_keeps_what_was_stored_and_its_folder_is_made(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/a/b/fn.db"
    async with open_datastore(url) as store:
        app = await store.insert_app(App(name="kept"))
    async with open_datastore(url) as store:
        assert await store.app(app.id) == app


async def test_a_relative_path_is_below_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_datastore("sqlite:///data/fn.db"):
        assert (tmp_path / "data/fn.db").exists()


async def test_nodes_that_open_a_new_file_at_once_take_turns(tmp_path: Path) -> None:
    async def one(name: str) -> list[App]:
        async with open_datastore(f"sqlite:///{tmp_path}/fn.db") as store:
            await store.insert_app(App(name=name))
            return await store.apps(AppFilter())

    seen = await asyncio.gather(*[one(f"n{i}") for i in range(5)])
    assert max(map(len, seen)) == 5


async def test_a_schema_that_is_newer_than_we_know_is_refused_in_one_line(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/fn.db"
    async with open_datastore(url) as store:
        await store.insert_app(App(name="kept"))
    with sqlite3.connect(tmp_path / "fn.db") as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
    db.close()
    for opener in (open_datastore, open_logstore):
        with pytest.raises(StoreUnavailable, match=r"9999.*newer version") as raised:
            async with opener(url):
                pass
        assert "\n" not in raised.value.message


@pytest.mark.parametrize("path", ["file/fn.db", "folder", "garbage.db"])
async def test_a_file_that_cannot_be_used_is_told_in_one_line(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("a file where a folder should be")
    (tmp_path / "folder").mkdir()
    (tmp_path / "garbage.db").write_bytes(b"not a database " * 100)
    with pytest.raises(StoreUnavailable, match=str(tmp_path)) as raised:
        async with open_datastore(f"sqlite:///{tmp_path}/{path}"):
            pass
    assert "\n" not in raised.value.message


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (NotFound("there is none"), ""),
        (ConnectionResetError("gone"), "the database failed: gone"),
        (KeyError("a defect"), "work on the database broke down"),
    ],
)
async def test_a_failure_whose_caller_has_left_is_told_in_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, failure: Exception, told: str
) -> None:
    begun, left = threading.Event(), threading.Event()

    async def work(_connection: AsyncConnection) -> None:
        begun.set()
        assert left.wait(LIMIT)
        raise failure

    async with open_database(f"sqlite:///{tmp_path}/fn.db") as database:
        caller = asyncio.create_task(database.read(work))
        assert await asyncio.to_thread(begun.wait, LIMIT)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        left.set()
    gc.collect()
    assert [record.message for record in caplog.records if record.levelname != "DEBUG"] == [told][
        : bool(told)
    ]


@pytest.mark.parametrize("scheme", ["postgres", "mysql"])
async def test_a_server_that_accepts_and_says_nothing_is_given_up_after_the_connect_timeout(
    scheme: str,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"{scheme}://u:hush@127.0.0.1:{silent.getsockname()[1]}/fn?connect_timeout=0.2&timeout=600"
        async with asyncio.timeout(60):
            with pytest.raises(StoreUnavailable, match="does not answer in time"):
                async with open_database(url):
                    pass


async def test_no_exception_of_the_driver_leaves_the_stores(tmp_path: Path) -> None:
    async with open_datastore(f"sqlite:///{tmp_path}/fn.db") as store:
        with sqlite3.connect(tmp_path / "fn.db") as db:
            for table in ("triggers", "routes", "fns", "apps", "calls"):
                db.execute(f"DROP TABLE {table}")
        db.close()
        with pytest.raises(StoreUnavailable):
            await store.apps(AppFilter())
        with pytest.raises(StoreUnavailable):
            await store.insert_app(App(name="a"))
    async with open_logstore(f"sqlite:///{tmp_path}/fn.db") as logstore:
        with pytest.raises(StoreUnavailable):
            await logstore.calls(CallFilter())


async def test_a_constraint_that_stays_broken_is_an_error_in_the_end(tmp_path: Path) -> None:
    async with open_database(f"sqlite:///{tmp_path}/fn.db") as database:
        with pytest.raises(StoreUnavailable):
            await database.transact(
                lambda connection: connection.execute(
                    tables.logs.insert(), [{"call_id": "x", "piece": 0, "body": b""}] * 2
                )
            )


async def test_a_closed_database_takes_nothing_new_and_ends_what_is_under_way(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/fn.db"
    async with open_datastore(url) as store:
        inserts = [asyncio.create_task(store.insert_app(App(name=f"a{i}"))) for i in range(5)]
        await asyncio.sleep(0)
        for insert in inserts:
            insert.cancel()
        await asyncio.gather(*inserts, return_exceptions=True)
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.apps(AppFilter())
    async with open_datastore(url) as store:
        assert len(await store.apps(AppFilter())) == 5


def test_the_revisions_make_the_tables_and_unmake_them(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/fn.db")
    try:
        for _ in range(2):
            with engine.begin() as connection:
                migrate.upgrade(connection)
            with engine.begin() as connection:
                context = MigrationContext.configure(connection, opts={"compare_type": True})
                assert compare_metadata(context, tables.metadata) == []
            with engine.begin() as connection:
                config = Config()
                config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
                config.attributes["connection"] = connection
                command.downgrade(config, "base")
            with engine.begin() as connection:
                left = connection.scalars(text("SELECT name FROM sqlite_master WHERE type = 'table'")).all()
                assert left == ["alembic_version"]
    finally:
        engine.dispose()


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("SELECT * FROM calls WHERE fn_id = 'f' AND id < 'x' ORDER BY id DESC LIMIT 30", "fn_id_id"),
        ("SELECT * FROM calls WHERE app_id = 'f' ORDER BY id DESC LIMIT 30", "app_id_id"),
        (
            "SELECT id FROM calls WHERE status IN ('queued', 'running') AND status = 'queued' "
            "AND recorded_at < 'x' ORDER BY recorded_at, id",
            "status_recorded_at",
        ),
    ],
)
async def test_listings_of_calls_follow_an_index(tmp_path: Path, query: str, index: str) -> None:
    async with open_database(f"sqlite:///{tmp_path}/fn.db") as database:
        rows = await database.read(
            lambda connection: connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")
        )
    plan = " ".join(row[3] for row in rows)
    assert f"INDEX ix_calls_{index}" in plan


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "mysql", "mariadb"])
@pytest.mark.parametrize(
    ("rest", "said"),
    [
        ("fn:hidden@host", "names the database"),
        ("fn:hidden@host/fn?pools=3", "has no parameter 'pools'; it has connect_timeout, pool_size"),
        ("fn:hidden@host/fn?pool_size=0", "pool_size must be a whole number from 1 to 1000"),
        ("fn:hidden@host/fn?timeout=0", "timeout must be a number of seconds"),
        ("fn:hidden@host/fn?sslmode=allow", "sslmode must be one of disable, prefer, require"),
        ("fn:hidden@host/fn?sslrootcert=/ca.pem", "sslmode must be require or more"),
        ("fn:hidden@host/fn?sslmode=verify-full&sslrootcert=/no/ca.pem", "cannot be used"),
    ],
)
async def test_a_bad_url_of_a_server_is_told_with_its_rule_and_without_its_password(
    scheme: str, rest: str, said: str
) -> None:
    with pytest.raises(ValueError, match="FN_DB_URL") as raised:
        async with open_database(f"{scheme}://{rest}"):
            pass
    assert said in str(raised.value)
    assert "hidden" not in str(raised.value)
