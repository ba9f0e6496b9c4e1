"""The backing services together, and the janitor."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from services import janitor
from services.retention import RetentionSettings
from services.stores import Stores, StoreSettings, open_stores
from shared_models import env, times
from shared_models.call import Call, Finished, Status
from shared_models.errors import FnError, QueueUnavailable
from shared_models.ids import new_id


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    settings = StoreSettings(datastore_url=f"sqlite:///{tmp_path}/fn.db", queue_url="memory://")
    async with open_stores(settings) as opened:
        yield opened


def test_the_settings_are_read_from_fns_variables() -> None:
    problems: list[str] = []
    given = {"FN_DB_URL": "sqlite:////x/fn.db", "FN_MQ_URL": "memory://", "FN_LOGSTORE_URL": ""}
    settings = env.read(StoreSettings, given, problems)
    assert problems == []
    assert dataclasses.asdict(settings) == {
        "datastore_url": "sqlite:////x/fn.db", "logstore_url": "", "queue_url": "memory://",
    }  # fmt: skip
    assert all(variable.secret for _, variable in env.variables(StoreSettings))


async def test_the_log_store_shares_the_datastores_database_unless_it_has_its_own(tmp_path: Path) -> None:
    call = Call(id=new_id())
    one, other = f"sqlite:///{tmp_path}/fn.db", f"sqlite:///{tmp_path}/calls.db"
    for logstore_url in ("", one):
        settings = StoreSettings(datastore_url=one, logstore_url=logstore_url, queue_url="memory://")
        async with open_stores(settings) as stores:
            await stores.logstore.insert_call(call)
            assert (await stores.logstore.call(call.id)).id == call.id
    settings = StoreSettings(datastore_url=one, logstore_url=other, queue_url="memory://")
    async with open_stores(settings) as stores:
        assert await stores.logstore.insert_call(call) is True


@pytest.mark.parametrize("field", ["datastore_url", "logstore_url", "queue_url"])
async def test_a_bad_url_names_its_variable(tmp_path: Path, field: str) -> None:
    good = StoreSettings(datastore_url=f"sqlite:///{tmp_path}/fn.db", queue_url="memory://")
    variable = {name: one.name for name, one in env.variables(StoreSettings)}[field]
    with pytest.raises(ValueError, match=variable):
        async with open_stores(dataclasses.replace(good, **{field: "carrier-pigeon://coop"})):
            pass


async def test_the_janitor_ends_what_was_recorded_but_never_queued(stores: Stores) -> None:
    orphan, queued, fresh_later = Call(id=new_id(), fn_id="f"), Call(id=new_id()), Call(id=new_id())
    for call in (orphan, queued):
        await stores.logstore.insert_call(call)
    await stores.queue.push(queued)
    later = time.time() + janitor.ENQUEUE_TAKES + 1
    assert await janitor.clean(stores) == [], "too young"
    assert await janitor.clean(stores, lambda: later) == [orphan.id]
    record = await stores.logstore.call(orphan.id)
    assert (record.status, "never accepted" in record.error, record.fn_id) == ("error", True, "f")
    assert (await stores.logstore.call(queued.id)).status == Status.QUEUED
    assert await janitor.clean(stores, lambda: later) == []
    # Its message comes after all: it is refused.
    await stores.queue.push(orphan)
    assert await stores.logstore.claim(await stores.queue.reserve(5, 0, 30), "n") == [orphan.id]
    assert await stores.logstore.insert_call(fresh_later) is True


async def test_the_janitor_ends_what_was_running_when_the_queue_lost_it(stores: Stores) -> None:
    lost, runs, done = (Call(id=new_id(), type="detached") for _ in range(3))
    for call in (lost, runs, done):
        await stores.logstore.insert_call(call)
        await stores.queue.push(call)
    leased = await stores.queue.reserve(3, 0, 30)
    await stores.logstore.claim(leased, "node")
    for one in leased:
        await stores.logstore.start_call(one.key, times.now())
    of_done = msgspec.structs.replace(done, status="success", completed_at=times.now())
    await stores.logstore.finish_calls([Finished(call=of_done, token=leased[2].key.token)])
    await stores.queue.delete([leased[0].key, leased[2].key])
    assert await janitor.clean(stores) == [lost.id]
    records = [await stores.logstore.call(call.id) for call in (lost, runs, done)]
    assert [record.status for record in records] == ["error", "running", "success"]
    assert "was lost" in records[0].error
    assert records[0].node == "node"


async def test_the_janitor_works_while_its_block_runs_and_outlives_a_store_that_is_away(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = asyncio.Event()
    looks = 0

    async def down(*_args: object) -> list[str]:
        nonlocal looks
        looks += 1
        if looks == 3:
            looked.set()
        raise QueueUnavailable

    monkeypatch.setattr(type(stores.logstore), "unqueued", down)
    async with janitor.running_janitor(stores, RetentionSettings(), every=0.001):
        await asyncio.wait_for(looked.wait(), 60)
    ended = looks
    await asyncio.sleep(0.01)
    assert looks == ended


@pytest.mark.parametrize(
    ("field", "url"),
    [
        ("datastore_url", "postgres://me:sesame@127.0.0.1:1/fn?connect_timeout=1"),
        ("datastore_url", "mysql://me:sesame@tcp(127.0.0.1:1)/fn?connect_timeout=1"),
        ("logstore_url", "mariadb://me:sesame@127.0.0.1:1/fn?timeout=1"),
        ("logstore_url", "s3://KEY:sesame@127.0.0.1:1/us-east-1/bucket?session_token=sesame&timeout=1"),
        ("queue_url", "redis://:sesame@127.0.0.1:1/0?connect_timeout=1"),
        ("queue_url", "postgresql://me:sesame@127.0.0.1:1/fn?connect_timeout=1"),
        ("logstore_url", "s3://KEY:sesame@127.0.0.1:1/bucket?sesame=1"),
        ("queue_url", "redis://:sesame@127.0.0.1:1/fn?pool_size=sesame"),
    ],
)
async def test_a_store_that_cannot_be_opened_is_told_without_its_login(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, field: str, url: str
) -> None:
    caplog.set_level(logging.INFO)
    good = StoreSettings(datastore_url=f"sqlite:///{tmp_path}/fn.db", queue_url="memory://")
    with pytest.raises((FnError, ValueError)) as caught:
        async with open_stores(dataclasses.replace(good, **{field: url})):
            pass
    said = f"{caught.value} {getattr(caught.value, 'explained', '')} {caplog.text}"
    assert "sesame" not in said
