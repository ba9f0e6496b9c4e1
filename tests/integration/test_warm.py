"""Warm containers and images ahead, on two tiers and with functions that are real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest

from hybrid_client.client import ClientSettings, open_data_access
from runner_node.agent import Agent, running_agent
from runner_node.drivers.fake import FakeDriver, open_fake
from runner_node.drivers.fake_behaviour import Behaviour
from runner_node.drivers.opener import open_driver
from runner_node.drivers.settings import DriverSettings
from runner_node.invoke import invoke_routes
from runner_node.quick import quick_path
from runner_node.settings import AgentSettings
from shared_models.app import App
from shared_models.fn import Fn
from shared_models.ids import new_id
from shared_models.route import Route
from shared_models.telemetry import REGISTRY
from shared_models.web import HTTPSettings, serving
from tests.integration.live_api import LiveAPI, live_api
from tests.integration.test_agent_processes import FUNCTION

MIB = 1 << 20
LONGEST = 60.0
"""Seconds that a loaded machine gets."""


def keep(count: int) -> dict[str, msgspec.Raw]:
    return {"fn.hybrid/warm/min": msgspec.Raw(str(count).encode())}


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(LONGEST):
        while not holds():
            await asyncio.sleep(0.05)


@asynccontextmanager
async def two_tiers(folder: Path) -> AsyncIterator[tuple[LiveAPI, FakeDriver, Agent]]:
    async with (
        live_api(folder, runner_auth="token", runner_tokens=("secret",)) as api,
        open_data_access(ClientSettings(api_urls=(api.base_url,), token="secret")) as data,
        open_fake({"some/image:1": Behaviour(), "some/image:2": Behaviour()}) as driver,
        running_agent(data, driver, AgentSettings(spool_path="", max_memory=2048 * MIB), "node") as agent,
    ):
        yield api, driver, agent


def images(driver: FakeDriver) -> list[str]:
    return sorted(container.spec.image for container in driver.alive)


async def test_a_function_is_warm_and_its_image_is_there_before_its_first_call(tmp_path: Path) -> None:
    async with two_tiers(tmp_path) as (api, driver, agent):
        store = api.stores.datastore
        app = await store.insert_app(App(name="app"))
        fn = await store.insert_fn(Fn(name="fn", app_id=app.id, image="some/image:1", annotations=keep(2)))
        await until(lambda: images(driver) == ["some/image:1"] * 2)
        await store.insert_fn(Fn(name="other", app_id=app.id, image="other/image:7"))
        await until(lambda: "other/image:7" in driver.pulls)
        await store.update_fn(fn.id, Fn(image="some/image:2"))
        await until(lambda: images(driver) == ["some/image:2"] * 2)
        assert agent.scheduler.warm() == [fn.id]
        assert REGISTRY.get_sample_value("fn_runner_warm_wanted") == 2
        await until(lambda: REGISTRY.get_sample_value("fn_runner_warm_ready") == 2)


async def test_what_an_app_says_holds_for_its_functions_and_its_routes_in_a_hot_format(
    tmp_path: Path,
) -> None:
    async with two_tiers(tmp_path) as (api, driver, _):
        store = api.stores.datastore
        app = await store.insert_app(App(name="app", annotations=keep(1)))
        await store.insert_fn(Fn(name="fn", app_id=app.id, image="some/image:1"))
        await store.insert_route(Route(app_id=app.id, path="/hot", image="some/image:2", format="json"))
        await store.insert_route(Route(app_id=app.id, path="/cold", image="some/image:2"))
        await until(lambda: images(driver) == ["some/image:1", "some/image:2"])
        await store.remove_route(app.id, "/hot")
        await store.update_app(app.id, App(annotations=keep(2)))
        await until(lambda: images(driver).count("some/image:1") == 2)


@pytest.fixture
def process_images(tmp_path: Path) -> str:
    image = tmp_path / "images" / "f"
    image.mkdir(parents=True)
    (image / "server.py").write_text(FUNCTION)
    entrypoint = json.dumps([sys.executable, "-I", "-S", str(image / "server.py")])
    (image / "func.yaml").write_text(f"runtime: python\nentrypoint: {entrypoint}\n")
    return str(tmp_path / "images")


async def test_a_call_finds_a_process_that_is_ready_and_one_that_is_killed_is_replaced(
    tmp_path: Path, process_images: str
) -> None:
    async with (
        live_api(tmp_path, runner_auth="none") as api,
        open_data_access(ClientSettings(api_urls=(api.base_url,), token="none")) as data,
        open_driver(DriverSettings(driver="process", process_images=process_images), new_id()) as driver,
        running_agent(data, driver, AgentSettings(spool_path="", max_memory=2048 * MIB), "node") as agent,
        serving(
            invoke_routes(agent),
            HTTPSettings(port=0, host="127.0.0.1"),
            node_type="runner",
            fast_path=quick_path(agent),
        ) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as client,
    ):
        store = api.stores.datastore
        app = await store.insert_app(App(name="app"))
        fn = await store.insert_fn(Fn(name="fn", app_id=app.id, image="f:1", annotations=keep(1)))
        await until(agent.scheduler.warm)
        series = agent.target(await agent.data.fn(fn.id), await agent.data.app(app.id)).series
        cold = series.cold

        async def called() -> int:
            async with client.post(f"/invoke/{fn.id}", data=b"{}") as answer:
                assert answer.status == 200, await answer.read()
                return int((await answer.json(content_type=None))["pid"])

        pid = await called()
        assert series.cold == cold
        os.kill(pid, signal.SIGKILL)
        await until(lambda: not agent.scheduler.warm())
        await until(agent.scheduler.warm)
        assert await called() != pid
        assert series.cold == cold
