"""The promise of both tiers: what was accepted ends, whatever dies in between."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from tests.engine.images import FDK_HELLO, Images
from tests.system.nodes import ROOT, Cluster, Node, ask, cluster

pytestmark = pytest.mark.system

CALLS = 200


async def deploy(http: aiohttp.ClientSession, api: Node, image: str, **fn: object) -> str:
    app = await ask(http, "POST", f"{api.url}/v2/apps", json={"name": "sys"})
    body = {"name": "hello", "app_id": app["id"], "image": image, "timeout": 30, **fn}
    return str((await ask(http, "POST", f"{api.url}/v2/fns", json=body))["id"])


async def send_detached(http: aiohttp.ClientSession, runner: Node, fn_id: str, name: str) -> str | None:
    """The id of an accepted call; None when the runner is gone: then nothing was promised."""
    try:
        async with http.post(
            f"{runner.url}/invoke/{fn_id}", json={"name": name}, headers={"Fn-Invoke-Type": "detached"}
        ) as answer:
            assert answer.status == 202, await answer.text()
            call_id: str = (await answer.json())["call_id"]
            assert answer.headers["Fn-Call-Id"] == call_id
            return call_id
    except aiohttp.ClientError:
        return None


async def all_records(http: aiohttp.ClientSession, api: Node, fn_id: str) -> dict[str, dict[str, object]]:
    records: dict[str, dict[str, object]] = {}
    cursor = ""
    while True:
        url = f"{api.url}/v2/fns/{fn_id}/calls"
        page = await ask(http, "GET", url, params={"per_page": "100", "cursor": cursor})
        records |= {record["id"]: record for record in page["items"]}
        cursor = page.get("next_cursor", "")
        if not cursor:
            return records


async def until_final(
    http: aiohttp.ClientSession, nodes: Cluster, fn_id: str, ids: set[str], limit: float
) -> dict[str, dict[str, object]]:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit
    while True:
        records = await all_records(http, nodes.api, fn_id)
        assert ids <= records.keys(), "an accepted call has no record"
        states = Counter(str(records[call_id]["status"]) for call_id in ids)
        if not states.keys() & {"queued", "running"}:
            return records
        assert loop.time() < deadline, f"still {dict(states)}\n{nodes.logs()}"
        await asyncio.sleep(0.3)


async def two_hundred_calls(nodes: Cluster, image: str) -> None:
    one, two = nodes.runner("runner-one"), nodes.runner("runner-two")
    await asyncio.gather(one.start(), two.start())
    async with aiohttp.ClientSession() as http:
        fn_id = await deploy(http, nodes.api, image)
        await ask(http, "POST", f"{two.url}/invoke/{fn_id}", json={"name": "warm"})
        limit = asyncio.Semaphore(16)

        async def send(number: int) -> str | None:
            async with limit:
                # The first runner dies half way: those that come later find the other one.
                runner = (one, two)[number % 2] if number < CALLS // 2 else two
                call_id = await send_detached(http, runner, fn_id, f"call-{number}")
                if number == CALLS // 2:
                    await one.kill()
                return call_id

        sent = await asyncio.gather(*(send(number) for number in range(CALLS)))
        ids = {call_id for call_id in sent if call_id}
        assert len(ids) >= CALLS // 2
        while len(ids) < CALLS:
            call_id = await send_detached(http, two, fn_id, "again")
            assert call_id
            ids.add(call_id)
        records = await until_final(http, nodes, fn_id, ids, limit=120)
        wrong = [records[call_id] for call_id in ids if records[call_id]["status"] != "success"]
        assert not wrong, f"{wrong[:3]}\n{nodes.logs()}"
        for call_id in ids:
            text = await ask(http, "GET", f"{nodes.api.url}/v2/fns/{fn_id}/calls/{call_id}/log")
            assert call_id in text, f"the log of {call_id} is {text!r}"


async def test_no_accepted_call_is_lost_when_a_runner_is_killed(tmp_path: Path) -> None:
    environ = {
        "FN_DRIVER": "process",
        "FN_PROCESS_IMAGES": str(ROOT / "examples"),
        "FN_MAX_TOTAL_MEMORY_BYTES": str(1 << 30),
    }
    async with cluster(tmp_path, environ) as nodes:
        await two_hundred_calls(nodes, "hello")


@pytest.mark.engine
async def test_no_accepted_call_is_lost_with_real_containers(
    tmp_path: Path, engine: str, engine_images: Images
) -> None:
    image = engine_images.need(FDK_HELLO)
    environ = {
        "FN_DRIVER": "docker",
        "DOCKER_HOST": engine,
        "FN_MAX_TOTAL_MEMORY_BYTES": str(1 << 30),
    }
    async with cluster(tmp_path, environ) as nodes:
        await two_hundred_calls(nodes, image)
