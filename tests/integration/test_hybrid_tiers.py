"""An API node and a runner node, joined by the hybrid client over real HTTP; containers are scripted."""

import asyncio
from contextlib import asynccontextmanager

import aiohttp
import pytest

from hybrid_client.client import ClientSettings, open_data_access
from runner_node.agent import running_agent
from runner_node.drivers.fake import open_fake
from runner_node.drivers.fake_behaviour import Answer, Behaviour
from runner_node.invoke import invoke_routes
from runner_node.quick import quick_path
from runner_node.settings import AgentSettings
from shared_models.trigger import Trigger
from shared_models.web import HTTPSettings, runner_refusals, serving
from tests.integration.live_api import live_api


def shout(request):
    return Answer(body=request.body.upper(), log=b"heard " + request.body + b"\n")


@asynccontextmanager
async def two_tiers(folder, function=shout, max_request_size=32 << 20, **settings):
    """The API node, and a client of the runner node, on which *function* runs (or all of a Behaviour)."""
    behaviour = function if isinstance(function, Behaviour) else Behaviour(function=function)
    http = HTTPSettings(port=0, host="127.0.0.1", drain=5.0, max_request_size=max_request_size)
    async with (
        live_api(
            folder, runner_auth="token", runner_tokens=("secret",), max_request_size=max_request_size
        ) as api,
        open_data_access(ClientSettings(api_urls=(api.base_url,), token="secret")) as data,
        open_fake({"some/image:1": behaviour}) as driver,
        running_agent(data, driver, AgentSettings(spool_path="", **settings), "node-1") as agent,
        serving(
            [*invoke_routes(agent), *runner_refusals()],
            http,
            node_type="runner",
            ready=agent.ready,
            fast_path=quick_path(agent),
        ) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as runner,
    ):
        yield api, runner


async def ended(api, fn, call_id):
    """The record of a call once it has ended."""
    async with asyncio.timeout(60):
        while True:
            record = await api.json("GET", f"/v2/fns/{fn.id}/calls/{call_id}")
            if record["status"] not in ("queued", "running"):
                return record
            await asyncio.sleep(0.02)


async def log_of(api, fn, call_id):
    async with api.client.get(f"/v2/fns/{fn.id}/calls/{call_id}/log") as answer:
        assert answer.status == 200
        return await answer.read()


async def test_a_sync_call_is_answered_and_recorded(tmp_path):
    async with two_tiers(tmp_path) as (api, runner):
        fn = await api.fn()
        async with runner.post(f"/invoke/{fn.id}", data=b"hello") as answer:
            assert (answer.status, await answer.read()) == (200, b"HELLO")
            call_id = answer.headers["Fn-Call-Id"]
        # The record may still be on its way: the API node waits for it.
        record = await api.json("GET", f"/v2/fns/{fn.id}/calls/{call_id}")
        assert (record["status"], record["type"], record["node"]) == ("success", "sync", "node-1")
        assert await log_of(api, fn, call_id) == b"heard hello\n"


async def test_a_detached_call_goes_through_the_queue(tmp_path):
    async with two_tiers(tmp_path) as (api, runner):
        fn = await api.fn()
        headers = {"Fn-Invoke-Type": "detached"}
        calls = []
        for number in range(20):
            async with runner.post(f"/invoke/{fn.id}", data=b"%d" % number, headers=headers) as answer:
                assert answer.status == 202
                calls.append((await answer.json())["call_id"])
        for number, call_id in enumerate(calls):
            record = await ended(api, fn, call_id)
            assert (record["status"], record["type"], record["attempt"]) == ("success", "detached", 1)
            assert await log_of(api, fn, call_id) == b"heard %d\n" % number


async def test_a_trigger_is_found_through_the_api_node(tmp_path):
    async with two_tiers(tmp_path) as (api, runner):
        fn = await api.fn()
        await api.stores.datastore.insert_trigger(
            Trigger(name="t", app_id=fn.app_id, fn_id=fn.id, type="http", source="/deep/one")
        )
        async with runner.put("/t/app-of-f/deep/one", data=b"hello") as answer:
            assert (answer.status, await answer.read()) == (200, b"HELLO")
        for path, said in (("/t/app-of-f/other", "Trigger not found"), ("/t/none/x", "App not found")):
            async with runner.get(path) as answer:
                assert (answer.status, await answer.json()) == (404, {"message": said})


@pytest.mark.parametrize("path", ["/v1/apps", "/v1/runner/dequeue"])
async def test_a_runner_node_refuses_management(tmp_path, path):
    async with two_tiers(tmp_path) as (_, runner), runner.get(path) as answer:
        assert answer.status == 400
        said = "Invoking api /v1/ requests is not supported on nodes configured as type Runner"
        assert await answer.json() == {"error": {"message": said}}


async def test_the_runner_shows_up_at_the_api_node(tmp_path):
    async with two_tiers(tmp_path) as (api, _):
        async with asyncio.timeout(60):
            while not (runners := (await api.json("GET", "/v2/runners"))["items"]):
                await asyncio.sleep(0.02)
        assert (runners[0]["id"], runners[0]["state"]) == ("node-1", "active")
