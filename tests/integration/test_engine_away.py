"""An engine that is not there: what clients are told of it, and what only the log has."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner_node.agent import running_agent
from runner_node.drivers.docker import open_docker
from runner_node.drivers.settings import DriverSettings
from runner_node.hot_container import StartFailed
from runner_node.settings import AgentSettings
from shared_models import errors
from shared_models.answers import error_response
from shared_models.app import App
from tests.integration.test_agent import Rig, until
from tests.unit.runner_node.scripted_data import ScriptedData


async def test_clients_are_not_told_where_the_engine_would_be_and_the_log_is(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data, socket = ScriptedData(), f"{tmp_path}/none.sock"
    data.apps["app"] = App(id="app", name="app")
    settings = AgentSettings(spool_path="")
    async with (
        open_docker(DriverSettings(docker_host=f"unix://{socket}"), "away-test") as driver,
        running_agent(data, driver, settings, "node") as agent,
    ):
        await until(lambda: "not been asked" not in agent.ready())
        rig = Rig(agent, driver, data)  # type: ignore[arg-type]
        with pytest.raises(StartFailed) as caught:
            await rig.call(rig.deploy("hello"))
        done, unready = await rig.record(), agent.ready()
    error = caught.value.error
    assert isinstance(error, errors.EngineUnavailable)
    answer = error_response(error, v1=False)
    for told in (unready, answer.headers["Error-Detail"], done.call.error):
        assert "No such file or directory" in told
        assert "none.sock" not in told
    assert socket in caplog.text
