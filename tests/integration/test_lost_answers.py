"""The answer to a runner's request is lost on its way: it was carried out, and is sent again."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import msgspec
import pytest

from api_node.app import APISettings, api_routes
from hybrid_client.client import ClientSettings, open_data_access
from services.call_control import StoresCallControl
from services.data_access import DirectDataAccess
from services.stores import StoreSettings, open_stores
from shared_models import errors
from shared_models.app import App
from shared_models.async_policy import AsyncSettings
from shared_models.call import Finished, Reason
from shared_models.fn import Fn
from shared_models.runner import RunnerReport
from shared_models.web import HTTPSettings, serving
from tests.integration.live_api import call_of
from tests.servers.proxy import proxy

SETTINGS = AsyncSettings(backoff=0.0, lease=2.0)


@asynccontextmanager
async def losing(folder, settings=SETTINGS):
    """Stores, data access to them over a network that can lose answers, and that network."""
    where = StoreSettings(datastore_url=f"sqlite:///{folder}/fn.db", queue_url=f"sqlite:///{folder}/queue.db")
    async with open_stores(where) as stores:
        below = DirectDataAccess(stores, settings)
        control = StoresCallControl(stores, below, settings)
        routes = api_routes(stores, below, control, APISettings(runner_auth="none"))
        http = HTTPSettings(port=0, host="127.0.0.1", drain=1.0)
        async with serving(routes, http, node_type="api") as port, proxy(port) as network:
            client = ClientSettings(api_urls=(f"http://127.0.0.1:{network.port}",), first_pause=0.01)
            async with open_data_access(client) as data:
                yield stores, data, network


async def lost(network, request):
    """What *request* answers in the end, when its first answer is lost."""
    network.losing = 1
    answer = await request
    assert network.losing == 0, "there was an answer to lose"
    return answer


async def a_fn(stores):
    app = await stores.datastore.insert_app(App(name="app"))
    return await stores.datastore.insert_fn(Fn(name="fn", app_id=app.id, image="some/image:1"))


async def record(stores, call):
    return await stores.logstore.call(call.id, fn_id=call.fn_id)


def result(leased, **more):
    call = msgspec.structs.replace(leased.call, **{"status": "success", **more})
    return Finished(call=call, token=leased.key.token, log=b"log")


async def leased_by(data, network):
    """A call, although the first answer to a dequeue is lost: it is not sent again, its lease runs out."""
    with pytest.raises(errors.Unavailable):
        await lost(network, data.dequeue("n", 1, 0))
    [leased] = await data.dequeue("n", 1, 10)
    assert leased.lease.attempt == 2
    return leased


async def test_every_request_may_be_sent_twice(tmp_path):
    async with losing(tmp_path) as (stores, data, network):
        call = call_of(await a_fn(stores))
        assert await lost(network, data.enqueue(call)) == call.id
        assert [depth.queued for depth in await stores.queue.depths()] == [1]
        leased = await leased_by(data, network)
        await lost(network, data.start(leased))
        assert (await record(stores, call)).status == "running"
        assert await lost(network, data.extend([leased.key])) == []
        assert await lost(network, data.finish([result(leased)])) == []
        found = await record(stores, call)
        assert (found.status, found.attempt) == ("success", 2)
        assert b"".join([piece async for piece in await stores.logstore.log(call.id)]) == b"log"
        assert await stores.queue.depths() == []
        await lost(network, data.heartbeat(RunnerReport(id="n")))
        assert [runner.report.id for runner in await stores.datastore.runners()] == ["n"]


async def test_a_release_that_is_sent_twice_gives_back_once(tmp_path):
    async with losing(tmp_path) as (stores, data, network):
        call = call_of(await a_fn(stores))
        await data.enqueue(call)
        [leased] = await data.dequeue("n", 1, 0)
        await lost(network, data.release([leased.key]))
        [again] = await data.dequeue("n", 1, 5)
        assert again.lease.attempt == 1, "it was nobody's attempt"
        assert (await record(stores, call)).attempt == 1


async def test_an_attempt_that_failed_is_counted_once(tmp_path):
    async with losing(tmp_path) as (stores, data, network):
        call = call_of(await a_fn(stores))
        await data.enqueue(call)
        [leased] = await data.dequeue("n", 1, 0)
        failed = result(leased, status="error", error="no image", reason=Reason.NOT_STARTED)
        await lost(network, data.finish([failed]))
        [again] = await data.dequeue("n", 1, 5)
        assert again.lease.attempt == 2
        assert await data.finish([result(again)]) == []
        assert (await record(stores, call)).status == "success"


async def test_a_key_whose_answer_was_lost_is_one_call(tmp_path):
    async with losing(tmp_path) as (stores, data, network):
        fn = await a_fn(stores)
        ids = {await lost(network, data.enqueue(call_of(fn, idempotency_key="k"))) for _ in range(2)}
        assert len(ids) == 1
        assert [depth.queued for depth in await stores.queue.depths()] == [1]


async def test_what_comes_for_a_dequeue_that_was_given_up_goes_back_unharmed(tmp_path, monkeypatch):
    """A runner that stops while calls come all the time: one is nearly always on its way to it."""
    monkeypatch.setattr("hybrid_client.client.LEFT_ALONE", 60.0)  # also where the machine stands still
    async with losing(tmp_path, AsyncSettings(lease=60.0)) as (stores, data, network):
        call = call_of(await a_fn(stores))
        await data.enqueue(call)
        network.delay = 0.3
        given_up = asyncio.create_task(data.dequeue("n", 1, 30))
        await asyncio.wait_for(network.on_its_way.wait(), 60)
        given_up.cancel()
        [again] = await stores.queue.reserve(1, 50, 30)
        assert (again.call.id, again.lease.attempt) == (call.id, 1)


async def test_a_dequeue_that_was_given_up_does_not_hold_up_a_runner_that_stops(tmp_path):
    async with losing(tmp_path) as (_, data, network):
        network.hang()
        given_up = asyncio.create_task(data.dequeue("n", 1, 30))
        await asyncio.wait({given_up}, timeout=0.1)
        given_up.cancel()
        async with asyncio.timeout(20):
            await data.settle()
