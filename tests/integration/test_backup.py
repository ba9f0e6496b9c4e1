"""What docs/operating.md says of backups: what is kept of calls, and what becomes of stores of two times."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import msgspec

from services.data_access import DirectDataAccess
from services.janitor import clean
from services.stores import Stores, StoreSettings, open_stores
from shared_models import times
from shared_models.app import App
from shared_models.async_policy import AsyncSettings
from shared_models.call import Call, Finished, LeasedCall, Reason, Status
from shared_models.fn import Fn
from shared_models.ids import new_id
from tests.servers.postgres import Postgres
from tests.servers.server import Server

LATER = 120.0
"""Seconds after which the janitor takes a call without a message for lost."""
CALLS = 60


@asynccontextmanager
async def opened(database: str, queue: str) -> AsyncIterator[tuple[Stores, DirectDataAccess]]:
    settings = StoreSettings(datastore_url=database, logstore_url="", queue_url=queue)
    async with open_stores(settings) as stores:
        yield stores, DirectDataAccess(stores, AsyncSettings(lease=1.0))


async def deployed(stores: Stores) -> Fn:
    app = await stores.datastore.insert_app(App(name="app"))
    return await stores.datastore.insert_fn(Fn(name="fn", app_id=app.id, image="i:1"))


async def accept(data: DirectDataAccess, fn: Fn) -> str:
    call = Call(
        id=new_id(), app_id=fn.app_id, fn_id=fn.id, image=fn.image, type="detached", timeout=30,
        created_at=times.now(),
    )  # fmt: skip
    return await data.enqueue(call)


async def run(data: DirectDataAccess, leased: LeasedCall) -> None:
    await data.start(leased)
    await asyncio.sleep(0.005)
    now = times.now()
    call = msgspec.structs.replace(leased.call, status=Status.SUCCESS, started_at=now, completed_at=now)
    assert not await data.finish([Finished(call=call, token=leased.key.token)])


async def run_all(data: DirectDataAccess, until: Callable[[], bool] = lambda: False) -> list[str]:
    """Runs what is queued, as runners do, until *until* or until nothing is left; answers the ids."""
    ran: list[str] = []
    while not until():
        found = await data.dequeue("runner", 4, 2.0)
        if not found:
            break
        for leased in found:
            await run(data, leased)
            ran.append(leased.call.id)
    return ran


async def command(*words: str) -> None:
    environ = {**os.environ, "PGPASSWORD": "secret"}
    process = await asyncio.create_subprocess_exec(*words, env=environ, stderr=asyncio.subprocess.PIPE)
    assert process.stderr
    said = await process.stderr.read()
    assert await process.wait() == 0, said.decode()


async def test_a_dump_while_calls_run_has_every_call_that_was_accepted_before(
    own_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = own_server(Postgres)
    assert isinstance(server, Postgres)
    accepted: list[str] = []
    async with opened(server.url, server.url) as (stores, data):
        fn = await deployed(stores)
        enough, over = asyncio.Event(), False

        async def clients() -> None:
            while not over:
                accepted.append(await accept(data, fn))
                if len(accepted) == CALLS:
                    enough.set()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(clients())
            tasks.create_task(run_all(data, lambda: over))
            async with asyncio.timeout(60):
                await enough.wait()
            before = set(accepted)
            at = ["-h", "127.0.0.1", "-p", str(server.port), "-U", "fn"]
            await command("pg_dump", *at, "--format=custom", f"--file={tmp_path}/fn.dump", "fn")
            over = True
    server.create("again")
    await command("pg_restore", *at, "--dbname=again", "--exit-on-error", f"{tmp_path}/fn.dump")
    again = server.url_of("again")
    async with opened(again, again) as (stores, data):
        ended = await clean(stores, lambda: stores.clock() + LATER)
        assert not before & set(ended)
        async with asyncio.timeout(60):
            await run_all(data)
        records = [await stores.logstore.call(call_id) for call_id in before]
        assert {record.status for record in records} == {Status.SUCCESS}


def copied(source: Path, target: Path) -> None:
    """As sqlite3's .backup, while the source is in use."""
    with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
        old.backup(new)


def urls(folder: Path, name: str = "") -> tuple[str, str]:
    return f"sqlite:///{folder}/{name}fn.db", f"sqlite:///{folder}/{name}queue.db"


async def test_a_queue_that_is_older_than_the_records_loses_no_call_in_silence_and_runs_none_twice(
    tmp_path: Path,
) -> None:
    async with opened(*urls(tmp_path)) as (stores, data):
        fn = await deployed(stores)
        done = await accept(data, fn)
        copied(tmp_path / "queue.db", tmp_path / "old-queue.db")
        assert await run_all(data) == [done]
        missing = await accept(data, fn)
        copied(tmp_path / "fn.db", tmp_path / "old-fn.db")
    async with opened(*urls(tmp_path, "old-")) as (stores, data):
        assert await run_all(data) == []
        assert await clean(stores, lambda: stores.clock() + LATER) == [missing]
        record = await stores.logstore.call(missing)
        assert (record.status, record.reason) == (Status.ERROR, Reason.LOST)
        assert (await stores.logstore.call(done)).status == Status.SUCCESS


async def test_a_queue_that_is_newer_than_the_records_runs_what_it_has(tmp_path: Path) -> None:
    async with opened(*urls(tmp_path)) as (stores, data):
        fn = await deployed(stores)
        copied(tmp_path / "fn.db", tmp_path / "new-fn.db")
        call_id = await accept(data, fn)
        copied(tmp_path / "queue.db", tmp_path / "new-queue.db")
    async with opened(*urls(tmp_path, "new-")) as (stores, data):
        assert await run_all(data) == [call_id]
        assert (await stores.logstore.call(call_id)).status == Status.SUCCESS
