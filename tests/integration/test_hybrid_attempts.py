"""Attempts, cancelling and drains over both tiers: an API node and a runner, joined by the hybrid client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from hybrid_client.client import ClientSettings, open_data_access
from runner_node import health, leases
from runner_node.agent import Agent, running_agent
from runner_node.drivers.fake import FakeDriver, open_fake
from runner_node.drivers.fake_behaviour import Answer, Behaviour
from runner_node.invoke import invoke_routes
from runner_node.settings import AgentSettings
from shared_models import async_policy
from shared_models.call import Reason, Status
from shared_models.errors import StoreUnavailable
from shared_models.fn import Fn
from shared_models.web import HTTPSettings, serving
from tests.integration.live_api import LiveAPI, live_api

IMAGE = "some/image:1"


class Tiers:
    """Both nodes, and what a client may ask of them."""

    def __init__(self, api: LiveAPI, agent: Agent, driver: FakeDriver, runner: aiohttp.ClientSession) -> None:
        self.api = api
        self.agent = agent
        self.driver = driver
        self.runner = runner

    async def fn(self, **annotations: str) -> Fn:
        fn = await self.api.fn()
        change = Fn(annotations={key: msgspec.Raw(text.encode()) for key, text in annotations.items()})
        return await self.api.stores.datastore.update_fn(fn.id, change)

    async def invoke(self, fn: Fn, **headers: str) -> str:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.runner.post(
            f"/invoke/{fn.id}", data=b"x", headers={"Fn-Invoke-Type": "detached", **given}
        ) as answer:
            assert answer.status == 202, await answer.text()
            return str((await answer.json())["call_id"])

    async def record(self, fn: Fn, call_id: str) -> dict[str, Any]:
        record: dict[str, Any] = await self.api.json("GET", f"/v2/fns/{fn.id}/calls/{call_id}")
        return record

    async def ended(self, fn: Fn, call_id: str) -> dict[str, Any]:
        """The record once it is final."""
        async with asyncio.timeout(60):
            while (record := await self.record(fn, call_id))["status"] in ("queued", "running"):
                await asyncio.sleep(0.02)
        return record


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def tiers(folder: Path, behaviour: Behaviour, **settings: Any) -> AsyncIterator[Tiers]:
    http = HTTPSettings(port=0, host="127.0.0.1", drain=1.0)
    settings = {"spool_path": str(folder / "spool"), "max_memory": 1 << 30, "drain": 1.0, **settings}
    async with (
        live_api(folder, runner_auth="token", runner_tokens=("secret",)) as api,
        open_data_access(ClientSettings(api_urls=(api.base_url,), token="secret")) as data,
        open_fake({IMAGE: behaviour}) as driver,
        running_agent(data, driver, AgentSettings(**settings), "node-1") as agent,
        serving(invoke_routes(agent), http, node_type="runner", ready=agent.ready) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as runner,
    ):
        await until(lambda: not agent.ready())
        yield Tiers(api, agent, driver, runner)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "HEARTBEAT", 0.05)
    monkeypatch.setattr(leases, "LONGEST_RENEWAL", 0.1)


async def test_attempts_without_a_container_are_counted_seen_and_end_as_a_dead_letter(tmp_path):
    async with tiers(tmp_path, Behaviour(socket="file")) as t:
        fn = await t.fn(**{async_policy.MAX_ATTEMPTS: "2", async_policy.BACKOFF: "0.01"})
        call_id = await t.invoke(fn)
        record = await t.ended(fn, call_id)
        assert (record["status"], record["reason"], record["attempt"]) == (
            Status.ERROR,
            Reason.NOT_STARTED,
            2,
        )
        assert "Container failed to initialize" in record["error"]
        letter = await t.api.stores.dead_letters.get(call_id)
        assert letter.call.payload == b"x"


async def test_a_function_that_fails_is_told_its_attempts_when_it_wants_to_be_run_again(tmp_path):
    attempts: list[str] = []

    def fails_once(request: Any) -> Answer:
        attempts.append(request.headers["fn-attempt"])
        return Answer(status=502 if len(attempts) == 1 else 200)

    async with tiers(tmp_path, Behaviour(function=fails_once)) as t:
        fn = await t.fn(**{async_policy.RETRY_ON: '"error"', async_policy.BACKOFF: "0.01"})
        record = await t.ended(fn, await t.invoke(fn))
        assert (record["status"], record["attempt"], attempts) == (Status.SUCCESS, 2, ["1", "2"])


async def test_a_running_call_that_is_cancelled_loses_its_container(tmp_path):
    async with tiers(tmp_path, Behaviour(hangs=True)) as t:
        fn = await t.fn()
        call_id = await t.invoke(fn)
        await until(lambda: t.driver.containers and t.driver.containers[0].calls)
        async with t.api.client.delete(f"/v2/fns/{fn.id}/calls/{call_id}") as answer:
            assert answer.status < 300
        await until(lambda: t.driver.removed == 1)
        assert (await t.record(fn, call_id))["status"] == Status.CANCELLED
        assert not t.driver.alive


async def test_the_same_key_is_the_same_call(tmp_path):
    async with tiers(tmp_path, Behaviour()) as t:
        fn = await t.fn()
        first = await t.invoke(fn, Fn_Idempotency_Key="order 1")
        await t.ended(fn, first)
        assert await t.invoke(fn, Fn_Idempotency_Key="order 1") == first
        assert await t.invoke(fn, Fn_Idempotency_Key="order 2") != first
        assert t.driver.containers[0].calls <= 2


async def test_a_runner_is_drained_and_made_active_by_the_api(tmp_path):
    async with tiers(tmp_path, Behaviour()) as t:
        fn = await t.fn()
        await t.ended(fn, await t.invoke(fn))
        await t.api.json("PUT", "/v2/runners/node-1", json={"state": "draining"})
        await until(lambda: t.agent.ready() == "the node is draining")
        async with t.runner.get("/readyz") as answer:
            assert answer.status == 503
        waiting = await t.invoke(fn)
        calls = t.driver.containers[0].calls
        await asyncio.wait_for(t.agent.health._report(), 60)
        assert (await t.record(fn, waiting))["status"] == "queued"
        assert t.driver.containers[0].calls == calls
        await t.api.json("PUT", "/v2/runners/node-1", json={"state": "active"})
        assert (await t.ended(fn, waiting))["status"] == Status.SUCCESS
        assert (await t.record(fn, waiting))["attempt"] == 1


async def test_a_runner_is_drained_when_the_call_that_it_runs_has_ended(tmp_path):
    async with tiers(tmp_path, Behaviour(hangs=True)) as t:
        fn = await t.fn()
        call_id = await t.invoke(fn)
        await until(lambda: t.agent.running == 1)
        await t.api.json("PUT", "/v2/runners/node-1", json={"state": "draining"})
        await until(lambda: t.agent.ready() == "the node is draining")
        await asyncio.wait_for(t.agent.health._report(), 60)
        shown = await t.api.json("GET", "/v2/runners/node-1")
        assert (shown["state"], shown["running"], shown["drained"]) == ("draining", 1, False)
        async with t.api.client.delete(f"/v2/fns/{fn.id}/calls/{call_id}") as answer:
            assert answer.status < 300
        async with asyncio.timeout(60):
            while not (shown := await t.api.json("GET", "/v2/runners/node-1"))["drained"]:
                await asyncio.sleep(0.02)
        assert (shown["running"], t.agent.running) == (0, 0)
        assert (await t.record(fn, call_id))["status"] == Status.CANCELLED


async def test_a_runner_that_has_results_is_not_drained_before_an_api_node_has_taken_them(
    tmp_path, monkeypatch
):
    async with tiers(tmp_path, Behaviour(function=lambda request: Answer())) as t:
        fn = await t.fn()

        async def away(*_: object) -> list[str]:
            raise StoreUnavailable

        with monkeypatch.context() as patch:
            patch.setattr(type(t.api.data), "finish", away)
            call_id = await t.invoke(fn)
            await until(lambda: list((tmp_path / "spool").glob("**/*.results")))
            await t.api.json("PUT", "/v2/runners/node-1", json={"state": "draining"})
            await until(lambda: t.agent.ready() == "the node is draining")
            for _ in range(3):
                await asyncio.wait_for(t.agent.health._report(), 60)
                shown = await t.api.json("GET", "/v2/runners/node-1")
                assert (shown["running"], shown["spooled"] > 0, shown["drained"]) == (0, True, False)
        async with asyncio.timeout(60):
            while not (shown := await t.api.json("GET", "/v2/runners/node-1"))["drained"]:
                await asyncio.sleep(0.02)
        assert shown["spooled"] == 0
        assert (await t.record(fn, call_id))["status"] == Status.SUCCESS


async def test_a_call_that_a_runner_did_not_get_to_is_run_by_the_next_as_its_first_attempt(tmp_path):
    async with live_api(tmp_path) as api:
        async with (
            open_data_access(ClientSettings(api_urls=(api.base_url,))) as data,
            open_fake({IMAGE: Behaviour(start_delay=3600)}) as driver,
        ):
            fn = await api.fn()
            settings = AgentSettings(spool_path="", max_memory=1 << 30, drain=1.0, start_timeout=1.0)
            async with (
                running_agent(data, driver, settings, "node-1") as agent,
                serving(
                    invoke_routes(agent), HTTPSettings(port=0, host="127.0.0.1"), node_type="runner"
                ) as port,
                aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
            ):
                first = Tiers(api, agent, driver, client)
                call_id = await first.invoke(fn)
                await until(lambda: driver.started)
                agent.stopping()
                await until(lambda: not len(agent.dequeuer.leases))
            driver.behaviours[IMAGE] = Behaviour()
            async with running_agent(data, driver, settings, "node-2") as agent:
                record = await Tiers(api, agent, driver, api.client).ended(fn, call_id)
        assert (record["status"], record["attempt"], record["node"]) == (Status.SUCCESS, 1, "node-2")


async def test_a_run_that_the_stop_cuts_off_is_the_next_attempt_of_another_runner(tmp_path):
    async with live_api(tmp_path) as api, open_data_access(ClientSettings(api_urls=(api.base_url,))) as data:
        fn = await api.fn()
        change = Fn(annotations={async_policy.BACKOFF: msgspec.Raw(b"0.01")})
        fn = await api.stores.datastore.update_fn(fn.id, change)
        settings = AgentSettings(spool_path="", max_memory=1 << 30, drain=0.05)
        async with (
            open_fake({IMAGE: Behaviour(hangs=True)}) as driver,
            running_agent(data, driver, settings, "node-1") as agent,
            serving(invoke_routes(agent), HTTPSettings(port=0, host="127.0.0.1"), node_type="runner") as port,
            aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
        ):
            call_id = await Tiers(api, agent, driver, client).invoke(fn)
            await until(lambda: driver.containers and driver.containers[0].calls)
        async with (
            open_fake({IMAGE: Behaviour()}) as driver,
            running_agent(data, driver, settings, "node-2") as agent,
        ):
            record = await Tiers(api, agent, driver, api.client).ended(fn, call_id)
        assert (record["status"], record["attempt"], record["node"]) == (Status.SUCCESS, 2, "node-2")
