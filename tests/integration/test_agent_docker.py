"""The agent on real containers: what only an engine can show."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from runner_node import function_container
from runner_node.agent import running_agent
from runner_node.drivers import out_of_memory
from runner_node.drivers.docker import open_docker
from runner_node.drivers.settings import DriverSettings
from runner_node.settings import AgentSettings
from shared_models import errors, times
from shared_models.app import App
from shared_models.call import Call, CallType, Lease, LeasedCall, Reason, Status
from shared_models.ids import new_id
from tests.engine.images import FDK_HELLO, Images
from tests.integration.test_agent import Rig
from tests.unit.runner_node.scripted_data import ScriptedData

pytestmark = pytest.mark.engine

CALLS = 60


@asynccontextmanager
async def docker_rig(engine: str, **settings: object) -> AsyncIterator[Rig]:
    data = ScriptedData()
    data.apps["app"] = App(id="app", name="app")
    # A machine that runs other tests is slow, which is no failure of a function.
    given = {"spool_path": "", "start_timeout": 60.0, **settings}
    agent_settings = AgentSettings(**given)  # type: ignore[arg-type]
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


GOLDEN = "golden/func:1"
GREEDY = json.dumps({"golden": {"alloc": 300_000_000}}).encode()


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that has much to do is let finish its account of how a container ended."""
    for name in ("LAST_WORDS", "ENDING", "EXPLAINS"):
        monkeypatch.setattr(function_container, name, 60.0)
    monkeypatch.setattr(out_of_memory, "LATE", 60.0)


@pytest.mark.usefixtures("patience")
async def test_a_function_that_takes_too_much_memory_fails_its_call_with_that_reason_and_not_the_next(
    engine: str, engine_images: Images
) -> None:
    image = engine_images.need(GOLDEN)
    async with docker_rig(engine) as r:
        fn = r.deploy(image, memory=64, timeout=60)
        await r.call(fn, b"{}")
        with pytest.raises(errors.FunctionResponseError):
            await r.call(fn, GREEDY)
        await r.call(fn, b"{}")
        await r.record(2)
        [failed] = [one.call for one in r.data.finished if one.call.status != Status.SUCCESS]
    assert (failed.status, failed.reason) == (Status.ERROR, Reason.OOM)
    assert failed.error == errors.ContainerOutOfMemory.text


@pytest.mark.usefixtures("patience")
@pytest.mark.parametrize("format_", ["json", "default"])
async def test_a_route_that_takes_too_much_memory_is_told_so(
    engine: str, engine_images: Images, format_: str
) -> None:
    image = engine_images.need(GOLDEN)
    async with docker_rig(engine) as r:
        call = Call(
            id=new_id(), app_id="app", path="/f", image=image, type=CallType.ASYNC, format=format_, memory=64,
            timeout=60, idle_timeout=30, payload=GREEDY, method="POST", url="http://h/r/app/f",
            config={"FN_FORMAT": format_}, created_at=times.now(), attempt=1,
            headers={"Content-Type": ["application/json"]},
        )  # fmt: skip
        r.data.queued.put_nowait(LeasedCall(call=call, lease=Lease(token="t", attempt=1, ttl=30)))
        done = await r.record()
    assert (done.call.status, done.call.reason, done.token) == (Status.ERROR, Reason.OOM, "t")
    assert done.call.error.startswith(errors.ContainerOutOfMemory.text)
