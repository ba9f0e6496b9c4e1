"""The agent on real containers: what only an engine can show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from runner_node.agent import running_agent
from runner_node.drivers.docker import open_docker
from runner_node.drivers.settings import DriverSettings
from runner_node.settings import AgentSettings
from shared_models.app import App
from shared_models.call import Status
from tests.engine.images import FDK_HELLO, Images
from tests.integration.test_agent import Rig
from tests.unit.runner_node.scripted_data import ScriptedData

pytestmark = pytest.mark.engine

CALLS = 60


@asynccontextmanager
async def docker_rig(engine: str, **settings: object) -> AsyncIterator[Rig]:
    data = ScriptedData()
    data.apps["app"] = App(id="app", name="app")
    agent_settings = AgentSettings(spool_path="", **settings)  # type: ignore[arg-type]
    async with (
        open_docker(DriverSettings(docker_host=engine), "agent-test") as driver,
        running_agent(data, driver, agent_settings, "node") as agent,
    ):
        yield Rig(agent, driver, data)  # type: ignore[arg-type]


@pytest.mark.parametrize("callers", [1, 4])
async def test_a_line_written_before_the_answer_is_in_the_log_of_its_call(
    engine: str, engine_images: Images, callers: int
) -> None:
    image = engine_images.need(FDK_HELLO)
    async with docker_rig(engine, freeze_idle=0.0) as r:
        fn = r.deploy(image, timeout=30)

        async def call_again_and_again() -> None:
            for _ in range(CALLS // callers):
                await r.call(fn, b'{"name": "Ada"}')

        await asyncio.gather(*(call_again_and_again() for _ in range(callers)))
        await r.record(CALLS // callers * callers - 1)
    for done in r.data.finished:
        assert done.call.status == Status.SUCCESS
        lines = [line for line in done.log.decode().splitlines() if "saying hello" in line]
        assert lines == [f"saying hello to Ada in call {done.call.id}"]
