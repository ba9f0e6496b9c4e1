"""A function that streams as the test tells it to, and a node around it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from runner_node.agent import running_agent
from runner_node.drivers.opener import open_driver
from runner_node.drivers.settings import DriverSettings
from runner_node.invoke import invoke_routes
from runner_node.quick import quick_path
from runner_node.settings import AgentSettings
from shared_models.app import App
from shared_models.fn import Fn
from shared_models.http_settings import HTTPSettings
from shared_models.ids import new_id
from shared_models.web import serving
from tests.integration.test_agent import MIB, Rig
from tests.unit.runner_node.scripted_data import ScriptedData

FUNCTION = Path(__file__).parent / "streaming_function.py"


def make_image(folder: Path, name: str = "f") -> None:
    """The streaming function as an image of the process driver below *folder*."""
    image = folder / name
    image.mkdir(parents=True)
    entrypoint = json.dumps([sys.executable, "-I", "-S", str(FUNCTION)])
    (image / "func.yaml").write_text(f"runtime: python\nentrypoint: {entrypoint}\n")


class Words:
    """What is told to a function that runs, line by line, through a pipe; and what it told in files."""

    def __init__(self, folder: Path) -> None:
        self.pipe = str(folder / "words")
        self.told = folder / "told"
        os.mkfifo(self.pipe)
        self._descriptor = os.open(self.pipe, os.O_RDWR)

    def say(self, line: str) -> None:
        """One more line."""
        os.write(self._descriptor, f"{line}\n".encode())

    async def hears(self) -> str:
        """What the function said; waits for it."""
        async with asyncio.timeout(60):
            while not self.told.exists():
                await asyncio.sleep(0.005)
        return self.told.read_text()

    def close(self) -> None:
        """At the end."""
        os.close(self._descriptor)


class StreamRig(Rig):
    """A node that serves the function, a client of it, and the way to talk to the function."""

    http: aiohttp.ClientSession
    port: int
    fn: Fn
    words: Words

    def order(self, **what: object) -> dict[str, str]:
        """The header that tells the function what to do."""
        return {"Order": json.dumps({"words": self.words.pipe, "told": str(self.words.told), **what})}

    def url(self, fn: Fn | None = None) -> str:
        """Where to invoke the function."""
        return f"http://127.0.0.1:{self.port}/invoke/{(fn or self.fn).id}"


@asynccontextmanager
async def stream_rig(
    tmp_path: Path, http: dict[str, object] | None = None, **given: object
) -> AsyncIterator[StreamRig]:
    """With the settings *given* of the agent and those for *http*."""
    make_image(tmp_path / "images")
    data = ScriptedData()
    data.apps["app"] = App(id="app", name="app")
    settings = {
        "spool_path": "", "max_memory": 1024 * MIB, "freeze_idle": 60.0, "drain": 1.0, "start_timeout": 60.0,
        **given,
    }  # fmt: skip
    served = {"port": 0, "host": "127.0.0.1", "drain": 1.0, **(http or {})}
    bound = HTTPSettings(**served)  # type: ignore[arg-type]
    words = Words(tmp_path)
    try:
        async with (
            open_driver(
                DriverSettings(driver="process", process_images=str(tmp_path / "images")), f"test-{new_id()}"
            ) as driver,
            running_agent(data, driver, AgentSettings(**settings), "node") as agent,  # type: ignore[arg-type]
            serving(invoke_routes(agent), bound, node_type="runner", fast_path=quick_path(agent)) as port,
            aiohttp.ClientSession() as client,
        ):
            rig = StreamRig(agent, driver, data)  # type: ignore[arg-type]
            rig.http, rig.port, rig.words = client, port, words
            rig.fn = rig.deploy("f")
            yield rig
    finally:
        words.close()
