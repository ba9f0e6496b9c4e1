"""A node whose log store is switched off: calls run as ever, and reading them says why there is nothing."""

import asyncio
from contextlib import asynccontextmanager

import aiohttp
import msgspec
import pytest

from runner_node.agent import running_agent
from runner_node.drivers.fake import open_fake
from runner_node.drivers.fake_behaviour import Answer, Behaviour
from runner_node.invoke import invoke_routes
from runner_node.quick import quick_path
from runner_node.settings import AgentSettings
from services.janitor import clean
from services.retention import RetentionSettings, tidy
from shared_models.ids import new_id
from shared_models.web import HTTPSettings, runner_refusals, serving
from tests.integration.live_api import call_of, live_api
from tests.integration.test_agent import until

SAID = "Calls and their logs are not kept here: the log store is switched off (FN_LOGSTORE_URL=none)"
DETACHED = {"Fn-Invoke-Type": "detached"}


@asynccontextmanager
async def both_tiers(folder, function):
    """An API without a log store, and a client of an agent on the same stores that runs *function*."""
    http = HTTPSettings(port=0, host="127.0.0.1", drain=5.0)
    async with (
        live_api(folder, logstore="none") as api,
        open_fake({"some/image:1": Behaviour(function=function)}) as driver,
        running_agent(api.data, driver, AgentSettings(spool_path=""), "node-1") as agent,
        serving(
            [*invoke_routes(agent), *runner_refusals()],
            http,
            node_type="runner",
            fast_path=quick_path(agent),
        ) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as runner,
    ):
        yield api, runner


async def empty(queue):
    async with asyncio.timeout(60):
        while await queue.depths():
            await asyncio.sleep(0.01)


async def test_a_sync_call_is_answered(tmp_path):
    async with both_tiers(tmp_path, lambda request: Answer(body=request.body.upper())) as (api, runner):
        fn = await api.fn()
        async with runner.post(f"/invoke/{fn.id}", data=b"hello") as answer:
            assert (answer.status, await answer.read()) == (200, b"HELLO")


async def test_detached_calls_run_once_each(tmp_path):
    heard = []

    def listen(request):
        heard.append(request.body)
        return Answer()

    async with both_tiers(tmp_path, listen) as (api, runner):
        fn = await api.fn()
        for number in range(10):
            async with runner.post(f"/invoke/{fn.id}", data=b"%d" % number, headers=DETACHED) as answer:
                assert answer.status == 202
        await until(lambda: len(heard) >= 10)
        await empty(api.stores.queue)
    assert sorted(heard) == [b"%d" % number for number in range(10)]


async def test_a_call_that_fails_is_run_again_as_often_as_its_function_asks(tmp_path):
    heard = []

    def fail(request):
        heard.append(request.body)
        return Answer(status=500)

    async with both_tiers(tmp_path, fail) as (api, runner):
        fn = await api.fn()
        wishes = {"fn.hybrid/async/retry-on": "error", "fn.hybrid/async/max-attempts": 3}
        await api.json("PUT", f"/v2/fns/{fn.id}", json={"annotations": wishes})
        async with runner.post(f"/invoke/{fn.id}", data=b"x", headers=DETACHED) as answer:
            assert answer.status == 202
        await until(lambda: len(heard) >= 3)
        await empty(api.stores.queue)
    assert heard == [b"x"] * 3


async def test_a_call_that_is_sent_twice_is_queued_once(tmp_path):
    async with live_api(tmp_path, logstore="none") as api:
        call = call_of(await api.fn())
        await api.data.enqueue(call)
        await api.data.enqueue(call)
        assert len(await api.stores.queue.reserve(10, 0, 30)) == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v2/fns/{fn}/calls"),
        ("GET", "/v2/fns/{fn}/calls?status=running"),
        ("DELETE", "/v2/fns/{fn}/calls"),
        ("GET", "/v2/fns/{fn}/calls/{call}"),
        ("GET", "/v2/fns/{fn}/calls/{call}/log"),
        ("GET", "/v2/fns/{fn}/calls/{call}/result"),
    ],
)
async def test_reading_and_removing_say_that_nothing_is_kept(tmp_path, method, path):
    async with live_api(tmp_path, logstore="none") as api:
        fn = await api.fn()
        path = path.format(fn=fn.id, call=new_id())
        assert await api.json(method, path, status=404) == {"message": SAID}


async def test_who_cleans_up_finds_nothing_to_do_and_ends_the_orders(tmp_path):
    async with live_api(tmp_path, logstore="none") as api:
        fn = await api.fn()
        await api.data.enqueue(call_of(fn))
        await api.stores.datastore.remove_fn(fn.id)
        assert await clean(api.stores) == []
        settings = RetentionSettings(calls=1.0, logs=1.0)
        await tidy(api.stores, settings, pause=0)
        (order,) = await api.stores.datastore.purges(10)
        assert order.fn_id == fn.id
        ranged = msgspec.structs.replace(order, from_time="2020-01-01T00:00:00.000Z", id="")
        await api.stores.datastore.insert_purge(ranged)
        await tidy(api.stores, settings, pause=0)
        assert [one.id for one in await api.stores.datastore.purges(10)] == [order.id]
