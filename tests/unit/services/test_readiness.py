"""Whether the stores answer, as /readyz of an API node says it."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.janitor import running_janitor
from services.readiness import Readiness, watching
from services.retention import RetentionSettings
from services.stores import Stores, StoreSettings, open_stores
from shared_models.errors import QueueUnavailable, StoreUnavailable
from shared_models.pulse import Pulse

LIMIT = 30.0


class Store:
    """*inner*, which fails as it is told."""

    def __init__(self, inner: object) -> None:
        self.inner = inner
        self.failure: BaseException | None = None
        self.hangs = False
        self.goes_on = asyncio.Event()
        self.asked = self.cancelled = 0

    def __getattr__(self, name: str) -> object:
        async def verb(*arguments: object, **named: object) -> object:
            self.asked += 1
            if self.hangs:
                try:
                    await self.goes_on.wait()
                except asyncio.CancelledError:
                    self.cancelled += 1
                    raise
            if self.failure:
                raise self.failure
            return await getattr(self.inner, name)(*arguments, **named)

        return verb


@pytest.fixture(params=["", "none"], ids=["log store", "no log store"])
async def stores(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Stores]:
    settings = StoreSettings(
        datastore_url=f"sqlite:///{tmp_path}/fn.db", queue_url="memory://", logstore_url=request.param
    )
    async with open_stores(settings) as opened:
        yield opened


async def test_stores_that_answer_that_there_is_nothing_are_well(stores: Stores) -> None:
    readiness = Readiness(stores)
    await readiness.look()
    assert (readiness.reason(), readiness.doubtful) == ("", False)


async def test_a_store_is_away_after_two_failures_and_back_after_one_answer(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(stores.datastore)
    readiness = Readiness(dataclasses.replace(stores, datastore=store))  # type: ignore[arg-type]
    store.failure = StoreUnavailable(detail="10.0.0.7:5432 refuses")
    await readiness.look()
    assert (readiness.reason(), readiness.doubtful) == ("", True)
    await readiness.look()
    assert readiness.reason() == "datastore: The database does not answer; try again"
    await readiness.look()
    # Addresses are in the log, once, and not in what anybody may ask.
    assert caplog.text.count("10.0.0.7:5432") == 1
    store.failure = None
    await readiness.look()
    assert (readiness.reason(), readiness.doubtful) == ("", False)


async def test_failures_that_are_not_in_a_row_are_no_reason(stores: Stores) -> None:
    store = Store(stores.queue)
    readiness = Readiness(dataclasses.replace(stores, queue=store))  # type: ignore[arg-type]
    for failure in (QueueUnavailable(), None, QueueUnavailable(), None):
        store.failure = failure
        await readiness.look()
        assert readiness.reason() == ""


async def test_every_store_that_is_away_is_named(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.readiness.PATIENCE", 0.05)
    silent, broken = Store(stores.logstore), Store(stores.queue)
    silent.hangs, broken.failure = True, RuntimeError("a bug")
    readiness = Readiness(dataclasses.replace(stores, logstore=silent, queue=broken))  # type: ignore[arg-type]
    for _ in range(2):
        await readiness.look()
    assert readiness.reason() == (
        "log store: does not answer within 0.05 s; queue: breaks down: RuntimeError"
    )


async def test_a_file_that_hangs_has_one_look_and_a_server_none_that_is_left(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.readiness.PATIENCE", 0.05)
    file, server = Store(stores.datastore), Store(stores.queue)
    readiness = Readiness(dataclasses.replace(stores, datastore=file, queue=server))  # type: ignore[arg-type]
    file.hangs = server.hangs = True
    for _ in range(5):
        await readiness.look()
    assert readiness.reason().count("does not answer within 0.05 s") == 2
    assert (file.asked, file.cancelled) == (1, 0)
    assert (server.asked, server.cancelled) == (5, 5)
    for store in (file, server):
        store.hangs = False
        store.goes_on.set()
    await readiness.look()
    assert readiness.reason() == ""
    await readiness.look()
    assert file.asked == 2, "the answer that came late was its answer"


async def test_a_node_that_stops_waits_for_no_file_that_hangs(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.readiness.PATIENCE", 0.05)
    store = Store(stores.datastore)
    store.hangs = True
    watched = dataclasses.replace(stores, datastore=store)  # type: ignore[arg-type]
    async with asyncio.timeout(LIMIT), watching(watched, again=0.01) as readiness:
        while not readiness.reason():
            await asyncio.sleep(0.01)
    assert (store.asked, store.cancelled) == (1, 1)


@pytest.mark.parametrize(
    ("datastore", "logstore", "queue", "files"),
    [
        ("sqlite:///{}/fn.db", "", "memory://", {"datastore", "log store"}),
        ("sqlite3://{}/fn.db", "none", "sqlite:///{}/queue.db", {"datastore", "queue"}),
    ],
)
async def test_the_stores_that_are_files_are_known(
    tmp_path: Path, datastore: str, logstore: str, queue: str, files: set[str]
) -> None:
    settings = StoreSettings(
        datastore_url=datastore.format(tmp_path), logstore_url=logstore, queue_url=queue.format(tmp_path)
    )
    async with open_stores(settings) as opened:
        assert opened.files == files


async def test_a_store_that_comes_back_is_seen_soon(stores: Stores, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    store = Store(stores.datastore)
    store.failure = StoreUnavailable()
    watched = dataclasses.replace(stores, datastore=store)  # type: ignore[arg-type]
    async with watching(watched, every=3600.0, again=0.01) as readiness, asyncio.timeout(LIMIT):
        while not readiness.reason():
            await asyncio.sleep(0.01)
        store.failure = None
        while readiness.reason():
            await asyncio.sleep(0.01)
    assert "the datastore answers again" in caplog.text


async def test_a_round_of_the_janitor_that_hangs_is_seen(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.janitor.STUCK", 0.5)
    store, pulse = Store(stores.datastore), Pulse()
    watched = dataclasses.replace(stores, datastore=store)  # type: ignore[arg-type]
    async with running_janitor(watched, RetentionSettings(), 0.02, pulse), asyncio.timeout(LIMIT):
        await asyncio.sleep(0.7)
        assert pulse.reason() == ""
        store.hangs = True
        while pulse.reason() != "standing still: janitor for 0.5 s":
            await asyncio.sleep(0.02)
        store.hangs = False
    assert pulse.reason() == ""
