"""Migrations on each SQL database, and ``fn-node migrate``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, LargeBinary, inspect, text

from deploy.__main__ import main
from services.datastore import migrate, tables
from services.datastore.database import Database, open_database, open_unmigrated
from services.datastore.dead_letters import SQLDeadLetters
from services.datastore.sql import SQLDatastore
from services.logstore.sql import SQLLogStore
from shared_models import async_policy, times
from shared_models.app import App
from shared_models.call import Call, Finished, Lease, LeasedCall, LeaseKey
from shared_models.call_interfaces import DeadLetter
from shared_models.errors import CallResultNotFound, StoreUnavailable
from shared_models.fn import Fn
from shared_models.interfaces import Purge

# PostgreSQL has long keys in its own way: see migration 0002.
LONG_KEYS = {
    "uq_triggers_app_id_type_source",
    "ix_routes_app_id_path_start",
    "ix_triggers_app_id_type_source_start",
    "ex_routes_app_id_path",
    "ex_triggers_app_id_type_source",
}


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """An empty database; one that tests share is brought back to the newest schema."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/fn.db"
        return
    shared: str = request.getfixturevalue(request.param).url
    async with open_unmigrated(shared, "FN_DB_URL") as backend:
        await migrate.migrate(backend, migrate.BASE)
    yield shared
    async with open_unmigrated(shared, "FN_DB_URL") as backend:
        await migrate.migrate(backend, migrate.newest())


async def looked_at(url: str, look: Any) -> Any:
    async with open_unmigrated(url, "FN_DB_URL") as backend, backend.engine.connect() as connection:
        return await connection.run_sync(look)


async def moved(url: str, target: str) -> tuple[str, str]:
    async with open_unmigrated(url, "FN_DB_URL") as backend:
        return await migrate.migrate(backend, target)


def names(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


async def test_the_revisions_make_the_tables_and_unmake_them(url: str) -> None:
    for _ in range(2):
        assert await moved(url, migrate.newest()) == (migrate.BASE, migrate.newest())
        assert await looked_at(url, names) == {*tables.metadata.tables, "alembic_version"}
        assert await moved(url, "0001") == (migrate.newest(), "0001")
        assert "messages" not in await looked_at(url, names)
        assert await moved(url, migrate.BASE) == ("0001", migrate.BASE)
        assert await looked_at(url, names) == {"alembic_version"}


def differences(connection: Connection) -> list[Any]:
    """Between the database and the tables."""

    def counts(_: object, name: str | None, *__: object) -> bool:
        return name not in LONG_KEYS or connection.dialect.name != "postgresql"

    def differ(context: MigrationContext, _: object, column: Any, __: object, type_: Any) -> bool | None:
        # MariaDB makes of a number of bytes the blob that is large enough.
        blob = context.dialect.name == "mysql" and isinstance(type_, LargeBinary)
        return False if blob else None

    options = {"compare_type": differ, "include_object": counts}
    return list(compare_metadata(MigrationContext.configure(connection, opts=options), tables.metadata))


async def test_the_revisions_make_what_the_tables_say(url: str) -> None:
    await moved(url, migrate.newest())
    assert await looked_at(url, differences) == []


def partial_indexes(connection: Connection) -> set[str | None]:
    """Those of calls that are of some rows alone."""
    options = f"{connection.dialect.name}_where"
    found = inspect(connection).get_indexes("calls")
    return {one["name"] for one in found if one.get("dialect_options", {}).get(options) is not None}


async def test_most_calls_cost_three_indexes_less_where_the_database_can_do_that(url: str) -> None:
    small = {"ix_calls_app_id_path_hash_id", "ix_calls_status_id", "ix_calls_status_recorded_at"}
    await moved(url, migrate.newest())
    assert await looked_at(url, partial_indexes) == (set() if url.startswith("mysql") else small)
    await moved(url, "0004")
    assert await looked_at(url, partial_indexes) == set()


async def test_ten_nodes_that_start_at_once_migrate_once(url: str) -> None:
    async def start() -> str:
        async with open_database(url) as database:
            return await migrate.revision_of(database.backend)

    assert await asyncio.gather(*[start() for _ in range(10)]) == [migrate.newest()] * 10


async def test_a_newer_schema_is_refused_and_left_alone(url: str) -> None:
    async with open_database(url) as database:
        await _say(database, "UPDATE alembic_version SET version_num = '9999'")
    try:
        with pytest.raises(StoreUnavailable, match=r"9999.*newer version"):
            async with open_database(url):
                pass
    finally:
        async with open_unmigrated(url, "FN_DB_URL") as backend, backend.engine.begin() as connection:
            await connection.execute(text(f"UPDATE alembic_version SET version_num = '{migrate.newest()}'"))


async def test_calls_of_the_first_schema_can_be_listed_by_path(url: str) -> None:
    await moved(url, "0001")
    columns = (
        "app_id fn_id trigger_id path image type created_at started_at completed_at error stats node token"
    )
    fields = ["id", "status", "attempt", "recorded_at", *columns.split()]
    values = {name: "" for name in fields} | {"attempt": 0, "stats": "[]"}
    insert = f"INSERT INTO calls ({', '.join(fields)}) VALUES ({', '.join(f':{name}' for name in fields)})"
    async with open_unmigrated(url, "FN_DB_URL") as backend, backend.engine.begin() as connection:
        await connection.execute(
            text(insert), [values | {"id": "c1", "path": "/a"}, values | {"id": "c2", "path": ""}]
        )
    await moved(url, migrate.newest())
    found = await looked_at(
        url, lambda connection: connection.execute(text("SELECT id, path_hash FROM calls ORDER BY id")).all()
    )
    assert [tuple(row) for row in found] == [("c1", "ac7a9193037c4a10"), ("c2", "")]


async def test_calls_of_the_second_schema_have_no_reason_and_are_kept_on_the_way_back(url: str) -> None:
    await moved(url, migrate.newest())
    call = Call(id="c1", status="error", reason="oom", error="killed", payload=b"x")
    async with open_database(url) as database:
        await SQLLogStore(database).finish_calls([Finished(call=call)])
        await SQLDeadLetters(database).put([DeadLetter(call=call)])
    assert await moved(url, "0002") == (migrate.newest(), "0002")
    await moved(url, migrate.newest())
    async with open_database(url) as database:
        record = await SQLLogStore(database).call("c1")
        assert (record.status, record.error, record.reason) == ("error", "killed", "")
        assert await SQLDeadLetters(database).count() == 0


async def test_the_third_schema_is_reached_from_wherever_the_way_to_it_broke(mariadb: Any) -> None:
    for statement in (
        "DROP TABLE callbacks",
        "DROP INDEX ix_callbacks_due ON callbacks",
        "DROP TABLE idempotency_keys",
        "DROP INDEX ix_dead_letters_fn_id_call_id ON dead_letters",
        "DROP TABLE dead_letters",
        "ALTER TABLE calls DROP COLUMN reason",
    ):
        await moved(mariadb.url, migrate.newest())
        async with open_unmigrated(mariadb.url, "FN_DB_URL") as backend, backend.engine.begin() as connection:
            await connection.execute(text(statement))
            await connection.execute(text("UPDATE alembic_version SET version_num = '0002'"))
        assert await moved(mariadb.url, migrate.newest()) == ("0002", migrate.newest())
        assert await looked_at(mariadb.url, differences) == []


async def test_the_fourth_schema_is_reached_from_wherever_the_way_to_it_broke(mariadb: Any) -> None:
    for statement in ("DROP INDEX ix_routes_updated_at ON routes", "ALTER TABLE apps DROP COLUMN warm"):
        await moved(mariadb.url, migrate.newest())
        async with open_unmigrated(mariadb.url, "FN_DB_URL") as backend, backend.engine.begin() as connection:
            await connection.execute(text("DROP INDEX ix_apps_warm_id ON apps"))
            await connection.execute(text(statement))
            await connection.execute(text("UPDATE alembic_version SET version_num = '0003'"))
        assert await moved(mariadb.url, "0004") == ("0003", "0004")
        assert await moved(mariadb.url, migrate.newest()) in (("0004", "0004"), ("0004", migrate.newest()))
        assert await looked_at(mariadb.url, differences) == []


async def test_what_the_third_schema_has_is_kept_and_wants_nothing_warm(url: str) -> None:
    await moved(url, migrate.newest())
    async with open_database(url) as database:
        app = await SQLDatastore(database).insert_app(App(name="app"))
        keep = {"fn.hybrid/warm/min": msgspec.Raw(b"1")}
        fn = await SQLDatastore(database).insert_fn(Fn(name="fn", app_id=app.id, image="i", annotations=keep))
        assert len(await SQLDatastore(database).warm(10)) == 1
    assert await moved(url, "0003") == (migrate.newest(), "0003")
    await moved(url, migrate.newest())
    async with open_database(url) as database:
        store = SQLDatastore(database)
        assert (await store.fn(fn.id)).image == "i"
        assert await store.warm(10) == []
        changed = await store.update_fn(fn.id, Fn(image="j"))
        assert [target.fn_id for target in await store.warm(10)] == [changed.id], (
            "told again when it is stored"
        )


def kept(call: Call) -> Finished:
    """The end of *call*, with an answer that is to be kept."""
    asked = {async_policy.KEEP_RESULT: msgspec.Raw(b"true")}
    done = msgspec.structs.replace(call, status="success", attempt=1, annotations=asked)
    return Finished(call=done, token="t", body=b"answer", content_type="text/x-a", answered=True, log=b"log")


async def end_one(store: SQLLogStore, call_id: str) -> None:
    call = Call(id=call_id, app_id="app", fn_id="fn", type="detached")
    await store.insert_call(call)
    await store.claim([LeasedCall(call=call, lease=Lease(token="t", attempt=1))], "node")
    await store.start_call(LeaseKey(call_id, "t"), times.now())
    assert await store.finish_calls([kept(call)]) == []


async def the_result(store: SQLLogStore, call_id: str) -> bytes:
    return b"".join([piece async for piece in (await store.result(call_id)).body])


async def test_what_the_fifth_schema_has_is_kept_and_has_no_results(url: str) -> None:
    await moved(url, "0005")
    call = Call(id="c1", status="success", type="sync")
    async with open_unmigrated(url, "FN_DB_URL") as backend:
        assert await SQLLogStore(Database(backend)).finish_calls([Finished(call=call, log=b"log")]) == []
    assert await moved(url, migrate.newest()) == ("0005", migrate.newest())
    async with open_database(url) as database:
        store = SQLLogStore(database)
        assert b"".join([piece async for piece in await store.log("c1")]) == b"log"
        with pytest.raises(CallResultNotFound):
            await store.result("c1")
        await end_one(store, "c2")
        assert await the_result(store, "c2") == b"answer"


async def test_nodes_of_this_version_go_on_while_the_schema_is_taken_back(url: str) -> None:
    """Also those that keep results, and what they have kept comes back with the schema."""
    async with open_database(url) as database:
        store = SQLLogStore(database)
        await end_one(store, "c1")
        assert await moved(url, "0004") == (migrate.newest(), "0004")
        await end_one(store, "c2")
        assert [await the_result(store, one) for one in ("c1", "c2")] == [b"answer"] * 2
        assert await store.remove_calls(Purge(fn_id="fn"), 1) == 1
    await moved(url, migrate.newest())
    async with open_database(url) as database:
        assert await the_result(SQLLogStore(database), "c2") == b"answer"
    assert await moved(url, "0003") == (migrate.newest(), "0003")
    assert "results" not in await looked_at(url, names)


async def test_nodes_that_know_the_fifth_schema_work_on_the_sixth(url: str, monkeypatch: Any) -> None:
    """A node of before: it knows no revision after 0005."""
    await moved(url, migrate.newest())
    known = migrate.revisions()
    assert known[-1] == migrate.newest()
    with monkeypatch.context() as older:
        older.setattr(migrate, "revisions", lambda: known[:-1])
        older.setattr(migrate, "newest", lambda: known[-2])
        async with open_database(url) as database:
            assert await migrate.revision_of(database.backend) == known[-1]
            call = Call(id="c1", status="success", type="sync")
            assert await SQLLogStore(database).finish_calls([Finished(call=call)]) == []
    assert await looked_at(url, migrate.current) == migrate.newest()


async def test_a_migration_that_broke_half_way_can_be_run_again(mariadb: Any) -> None:
    """MariaDB commits each change of a table: a node that dies leaves some of them."""
    await moved(mariadb.url, migrate.newest())
    async with open_unmigrated(mariadb.url, "FN_DB_URL") as backend, backend.engine.begin() as connection:
        await connection.execute(text("DROP INDEX ix_calls_status_id ON calls"))
        await connection.execute(text("DROP TABLE messages"))
        await connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    async with open_database(mariadb.url) as database:
        assert await migrate.revision_of(database.backend) == migrate.newest()
    indexes = await looked_at(mariadb.url, lambda connection: inspect(connection).get_indexes("calls"))
    assert "ix_calls_status_id" in {index["name"] for index in indexes}
    assert "messages" in await looked_at(mariadb.url, names)


@pytest.fixture
def node(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs ``fn-node migrate`` for the database *url*; answers the exit code and what was said."""
    monkeypatch.setenv("FN_DB_URL", url)
    monkeypatch.delenv("FN_LOGSTORE_URL", raising=False)
    monkeypatch.setenv("FN_MQ_URL", "memory://")

    async def run(*arguments: str) -> tuple[int, str]:
        code = await asyncio.to_thread(main, ["migrate", *arguments])
        said = capsys.readouterr()
        assert "secret" not in said.out + said.err
        return code, said.out + said.err

    return run


async def test_the_command_migrates_and_says_from_where_to_where(node: Any) -> None:
    code, said = await node("--check")
    assert code == 1
    assert f"base, to be migrated to {migrate.newest()}" in said
    code, said = await node()
    assert code == 0
    assert f"base -> {migrate.newest()}" in said
    code, said = await node()
    assert code == 0
    assert "nothing to do" in said
    code, said = await node("--check")
    assert code == 0
    assert f"{migrate.newest()}, current" in said


async def test_the_command_shows_the_statements_and_runs_none(node: Any) -> None:
    code, said = await node("--sql")
    assert code == 0
    assert "CREATE TABLE apps" in said
    assert "CREATE TABLE messages" in said
    code, said = await node("--check")
    assert code == 1
    assert "base" in said
    await node("--to", "0001")
    code, said = await node("--sql")
    assert "CREATE TABLE apps" not in said
    assert "CREATE TABLE messages" in said


async def test_the_command_drops_data_only_when_told_twice(node: Any) -> None:
    await node()
    code, said = await node("--to", "0001")
    assert code == 1
    assert "--yes" in said
    code, said = await node("--to", "0001", "--yes")
    assert code == 0
    assert f"{migrate.newest()} -> 0001" in said


async def test_a_newer_schema_that_only_adds_is_worked_with_and_left_alone(url: str, node: Any) -> None:
    newer, of_none = f"0099_from_{migrate.newest()[:4]}", "0099_from_0098"
    async with open_database(url) as database:
        await SQLDatastore(database).insert_app(App(name="app"))
        await _say(database, f"UPDATE alembic_version SET version_num = '{newer}'")
    try:
        async with open_database(url) as database:
            assert await SQLDatastore(database).app_id("app")
            assert await migrate.revision_of(database.backend) == newer
        for arguments, code, words in (
            (["--check"], 0, f"{newer}, current"),
            ([], 0, f"{newer}, nothing to do"),
            (["--to", "0001", "--yes"], 1, f"schema {newer}, from which only a newer version"),
            (["--to", "0001", "--sql"], 1, "migrate with that one"),
        ):
            found, said = await node(*arguments)
            assert (found, words in said) == (code, True), said
        async with open_database(url) as database:
            await _say(database, f"UPDATE alembic_version SET version_num = '{of_none}'")
        found, said = await node("--check")
        assert (found, f"schema {of_none}, which this version does not know" in said) == (1, True), said
    finally:
        async with open_unmigrated(url, "FN_DB_URL") as backend, backend.engine.begin() as connection:
            await connection.execute(text(f"UPDATE alembic_version SET version_num = '{migrate.newest()}'"))


async def test_an_unknown_revision_is_a_bad_command_line(node: Any) -> None:
    code, said = await node("--to", "7")
    assert code == 2
    assert ", ".join(["base", "0001", "0002", "0003", "0004", "0005", "0006_from_0005"]) in said


async def _say(database: Database, statement: str) -> None:
    await database.transact(lambda connection: connection.execute(text(statement)))
