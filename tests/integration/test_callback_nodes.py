"""Callbacks of calls whose records are known, and nodes that stop or die while they deliver."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from sqlalchemy import delete

from services.callbacks.body import callback_of
from services.callbacks.delivery import UNCONFIRMED, running_callbacks
from services.datastore.database import open_database
from services.datastore.tables import callbacks as outbox_table
from services.logstore.none import NoLogStore
from services.stores import Stores
from shared_models import times
from shared_models.call import Call, Finished, Lease, LeasedCall
from shared_models.errors import StoreUnavailable
from shared_models.ids import new_id
from tests.integration.receivers import a_callback, emptied, quick, receiving, stores_in
from tests.servers.mariadb import MariaDB
from tests.servers.postgres import Postgres
from tests.servers.proxy import proxy

KINDS = {"postgres": Postgres, "mariadb": MariaDB}


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    async with stores_in(tmp_path) as opened:
        yield opened


async def running(stores: Stores, url: str, attempt: int = 1) -> Finished:
    """The end of a call that runs in its *attempt*, which is not recorded yet."""
    call = Call(id=new_id(), app_id="app", fn_id="fn", type="detached", callback_url=url)
    await stores.logstore.insert_call(call)
    leased = LeasedCall(call=call, lease=Lease(token="t", attempt=attempt))
    assert await stores.logstore.claim([leased], "node") == []
    await stores.logstore.start_call(leased.key, times.now())
    ended = msgspec.structs.replace(call, status="success", attempt=attempt, completed_at=times.now())
    return Finished(call=ended, token="t", body=b"done")


async def test_a_result_is_posted_once_its_record_is_there(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "services.callbacks.delivery")
    async with receiving() as receiver, running_callbacks(stores, quick()):
        end = await running(stores, receiver.url(), attempt=2)
        await stores.outbox.put([callback_of(end)])
        async with asyncio.timeout(60):
            while "waits for the record" not in caplog.text:
                await asyncio.sleep(0.01)
        assert receiver.requests == []
        assert await stores.logstore.finish_calls([end]) == []
        [arrived] = await receiver.has(1)
        await emptied(stores)
    assert (arrived.body, arrived.headers["Fn-Callback-Attempt"]) == (callback_of(end).body, "1")


@pytest.mark.parametrize("wrong", [{"status": "error"}, {"attempt": 1}])
async def test_a_result_that_the_call_did_not_end_with_is_void(
    stores: Stores, wrong: dict[str, object]
) -> None:
    async with receiving() as receiver, running_callbacks(stores, quick()):
        end = await running(stores, receiver.url(), attempt=2)
        assert await stores.logstore.finish_calls([end]) == []
        await stores.outbox.put([msgspec.structs.replace(callback_of(end), **wrong)])
        await emptied(stores)
    assert receiver.requests == []


async def test_a_result_that_never_comes_true_is_void_after_an_hour(stores: Stores) -> None:
    async with receiving() as receiver, running_callbacks(stores, quick()):
        end = await running(stores, receiver.url())
        old = time.time() - UNCONFIRMED - 1
        await stores.outbox.put([msgspec.structs.replace(callback_of(end), created=old)])
        await emptied(stores)
    assert receiver.requests == []


async def test_a_result_waits_for_a_log_store_that_is_away(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    class Away(NoLogStore):
        async def call(self, call_id: str, *, fn_id: str = "", app_id: str = "") -> Call:
            raise StoreUnavailable

    caplog.set_level(logging.INFO)
    without = dataclasses.replace(stores, logstore=Away())
    async with receiving() as receiver:
        async with running_callbacks(without, quick()):
            await stores.outbox.put([a_callback(receiver.url())])
            async with asyncio.timeout(60):
                while "is put off: The database does not answer" not in caplog.text:
                    await asyncio.sleep(0.01)
        assert receiver.requests == []
        assert await stores.outbox.count() == 1


async def test_what_a_dead_node_had_taken_is_delivered_when_its_lease_runs_out(
    stores: Stores, tmp_path: Path
) -> None:
    async with receiving() as receiver, stores_in(tmp_path) as other:
        callback = a_callback(receiver.url())
        await stores.outbox.put([callback])
        # A node takes it, and is never heard of again.
        taken = time.monotonic()
        assert [one.call_id for one in await stores.outbox.due(5, 0.5)] == [callback.call_id]
        async with running_callbacks(other, quick()):
            [arrived] = await receiver.has(1)
            assert time.monotonic() - taken >= 0.4
            await emptied(other)
    assert arrived.headers["Fn-Callback-Attempt"] == "2"


@pytest.mark.parametrize("server", ["sqlite", "postgres", "mariadb"])
async def test_two_nodes_share_the_work_and_post_each_result_once(
    request: pytest.FixtureRequest, tmp_path: Path, server: str
) -> None:
    url = "" if server == "sqlite" else request.getfixturevalue(server).url
    async with receiving() as receiver, stores_in(tmp_path, url) as one, stores_in(tmp_path, url) as other:
        if url:
            async with open_database(url) as database:
                await database.transact(lambda connection: connection.execute(delete(outbox_table)))
        callbacks = [a_callback(receiver.url()) for _ in range(60)]
        async with running_callbacks(one, quick()), running_callbacks(other, quick()):
            for callback in callbacks:
                await one.outbox.put([callback])
            await receiver.has(60)
            await emptied(one)
    arrived = [one.headers["Fn-Call-Id"] for one in receiver.requests]
    assert sorted(arrived) == sorted(one.call_id for one in callbacks)


async def test_a_node_that_stops_waits_for_no_receiver_and_leaves_the_rest_to_others(
    stores: Stores, tmp_path: Path
) -> None:
    async def hangs_once(request: web.Request, number: int) -> web.StreamResponse:
        if number == 0:
            await asyncio.sleep(3600)
        return web.Response()

    async with receiving(hangs_once) as receiver, stores_in(tmp_path) as other:
        async with running_callbacks(stores, quick(timeout=600.0)):
            await stores.outbox.put([a_callback(receiver.url())])
            await receiver.has(1)
            stopped = time.monotonic()
        assert time.monotonic() - stopped < 30
        async with running_callbacks(other, quick()):
            arrived = await receiver.has(2)
            await emptied(other)
    assert arrived[1].headers["Fn-Callback-Attempt"] == "2"


async def test_a_node_that_stops_lets_a_delivery_end(stores: Stores) -> None:
    go_on = asyncio.Event()

    async def waits(request: web.Request, number: int) -> web.StreamResponse:
        await go_on.wait()
        return web.Response()

    async with receiving(waits) as receiver:
        async with running_callbacks(stores, quick(parting=20.0)):
            await stores.outbox.put([a_callback(receiver.url())])
            await receiver.has(1)
            asyncio.get_running_loop().call_later(0.05, go_on.set)
        assert await stores.outbox.count() == 0
    assert len(receiver.requests) == 1


async def test_a_database_that_is_away_for_a_moment_costs_no_callback_and_no_second_delivery(
    own_server: Callable[..., Any], tmp_path: Path
) -> None:
    own = own_server(Postgres, True)
    answer = asyncio.Event()

    async def waits(request: web.Request, number: int) -> web.StreamResponse:
        await answer.wait()
        return web.Response()

    url = own.url_of("fn", timeout=20, connect_timeout=20)
    async with (
        receiving(waits) as receiver,
        stores_in(tmp_path, url) as stores,
        running_callbacks(stores, quick()),
    ):
        first, second = a_callback(receiver.url()), a_callback(receiver.url())
        await stores.outbox.put([first])
        await receiver.has(1)
        await asyncio.to_thread(own.stop)
        answer.set()
        with pytest.raises(StoreUnavailable):
            await stores.outbox.put([second])
        await asyncio.to_thread(own.start)
        await stores.outbox.put([second])
        await receiver.has(2)
        await emptied(stores)
    assert [one.headers["Fn-Call-Id"] for one in receiver.requests] == [first.call_id, second.call_id]


@pytest.mark.parametrize("server", ["postgres", "mariadb"])
async def test_a_node_that_stops_waits_for_no_silent_database(
    request: pytest.FixtureRequest, tmp_path: Path, server: str
) -> None:
    own = request.getfixturevalue("own_server")(KINDS[server], True)

    async def hangs(request: web.Request, number: int) -> web.StreamResponse:
        await asyncio.sleep(3600)
        return web.Response()

    async with proxy(own.port) as network, receiving(hangs) as receiver:
        url = own.url_of("fn").replace(f":{own.port}/", f":{network.port}/")
        async with stores_in(tmp_path, url) as stores:
            async with running_callbacks(stores, quick(timeout=600.0)):
                await stores.outbox.put([a_callback(receiver.url())])
                await receiver.has(1)
                network.hang()
                stopped = time.monotonic()
            assert time.monotonic() - stopped < 30
            network.flow()
