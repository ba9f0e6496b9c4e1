"""An API node and a runner node of two releases: what both know goes on working."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from tests.system.nodes import ROOT, ask, cluster
from tests.system.releases.unpacked import PREVIOUS, unpacked
from tests.system.test_two_runners import deploy, send_detached, until_final

pytestmark = pytest.mark.system

CALLS = 20


async def version(api_url: str, http: aiohttp.ClientSession) -> str:
    """Of the only runner of the API node at *api_url*, whose first report follows its start."""
    async with asyncio.timeout(60):
        while not (runners := (await ask(http, "GET", f"{api_url}/v2/runners"))["items"]):
            await asyncio.sleep(0.05)
    (runner,) = runners
    return str(runner["version"])


@pytest.mark.parametrize("older", ["api", "runner"])
async def test_tiers_of_two_releases_work_together(tmp_path: Path, older: str) -> None:
    old = unpacked(tmp_path)
    environ = {
        "FN_DRIVER": "process",
        "FN_PROCESS_IMAGES": str(ROOT / "examples"),
        "FN_MAX_TOTAL_MEMORY_BYTES": str(1 << 30),
    }
    async with (
        cluster(tmp_path, environ, code=old if older == "api" else ROOT) as nodes,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(300)) as http,
    ):
        runner = nodes.runner("runner")
        runner.code = old if older == "runner" else ROOT
        await runner.start()
        assert (await version(nodes.api.url, http) == PREVIOUS) is (older == "runner")

        fn_id = await deploy(http, nodes.api, "hello")
        trigger = {"name": "t", "fn_id": fn_id, "type": "http", "source": "/t"}
        app_id = (await ask(http, "GET", f"{nodes.api.url}/v2/fns/{fn_id}"))["app_id"]
        await ask(http, "POST", f"{nodes.api.url}/v2/triggers", json={**trigger, "app_id": app_id})
        body = {"name": "Ada"}
        assert "Ada" in str(await ask(http, "POST", f"{runner.url}/invoke/{fn_id}", json=body))
        assert "Ada" in str(await ask(http, "POST", f"{runner.url}/t/sys/t", json=body))

        ids = {await send_detached(http, runner, fn_id, f"call-{number}") for number in range(CALLS)} - {None}
        records = await until_final(http, nodes, fn_id, {str(call_id) for call_id in ids}, limit=120)
        assert Counter(records[str(call_id)]["status"] for call_id in ids) == {"success": CALLS}
        for call_id in ids:
            log = await ask(http, "GET", f"{nodes.api.url}/v2/fns/{fn_id}/calls/{call_id}/log")
            assert str(call_id) in log
