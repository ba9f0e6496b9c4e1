"""Nodes are restarted, or upgraded, one after the other under load: no request fails, each call runs once."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from tests.servers.haproxy import HAProxy
from tests.servers.postgres import Postgres
from tests.servers.redis import Redis
from tests.servers.server import Server
from tests.system.faults import ledger
from tests.system.faults.world import FUNCTIONS
from tests.system.nodes import ROOT, Cluster, Node, ask, cluster
from tests.system.releases.unpacked import unpacked
from tests.system.test_two_runners import deploy, until_final

pytestmark = pytest.mark.system

SYNC, DETACHED = 4, 2
"""Clients, each of which sends one request after the other."""
PAUSE = 0.1
"""Seconds between two detached calls of one client: accepted faster than run, they would pile up."""
NOT_READY = 3.0
"""Seconds that a node that stops goes on serving, for the load balancer to notice."""


class Clients:
    """*answers* counts statuses and what else came; *accepted* has the ids of detached calls."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.answers: Counter[str] = Counter()
        self.accepted: list[str] = []
        self._http = http
        self._url = url
        self._stopping = False

    async def sync(self) -> None:
        """Sync calls until ``stop``."""
        while not self._stopping:
            body = {"type": "sync", "do": "work", "seconds": 0.1}
            await self._send(body, {})

    async def detached(self) -> None:
        """Detached calls until ``stop``."""
        while not self._stopping:
            body = {"type": "detached", "do": "work", "seconds": 0.1}
            if call_id := await self._send(body, {"Fn-Invoke-Type": "detached"}):
                self.accepted.append(call_id)
            await asyncio.sleep(PAUSE)

    def stop(self) -> None:
        self._stopping = True

    async def _send(self, body: dict[str, object], headers: dict[str, str]) -> str:
        kind = str(body["type"])
        try:
            async with self._http.post(self._url, json=body, headers=headers) as answer:
                text = await answer.text()
        except aiohttp.ClientError as exc:
            self.answers[f"{kind}: {type(exc).__name__}: {exc}"] += 1
            return ""
        good = answer.status in (200, 202)
        self.answers[f"{kind}: {answer.status}" + ("" if good else f": {text}")] += 1
        return answer.headers["Fn-Call-Id"] if answer.status == 202 else ""


async def until_serving(balancer: HAProxy, names: set[str]) -> None:
    """Returns when all of *names* get requests."""
    async with asyncio.timeout(60):
        while not names <= await asyncio.to_thread(balancer.serving):
            await asyncio.sleep(0.05)


async def restart_all(nodes: Cluster, balancer: HAProxy, code: Path) -> None:
    """One after the other, as a rolling update to *code* does: each is ready before the next one stops."""
    runners = {node.name for node in nodes.nodes if node.kind == "runner"}
    for node in nodes.nodes:
        assert await node.stop() == 0, node.log.read_text()
        node.code = code
        await node.start()
        await until_serving(balancer, runners)


async def test_a_rolling_restart_of_all_nodes_fails_no_request_and_loses_no_call(
    tmp_path: Path, own_server: Callable[..., Server]
) -> None:
    await roll(tmp_path, own_server, before=ROOT, after=ROOT)


async def test_a_rolling_upgrade_from_the_previous_release_fails_no_request_and_loses_no_call(
    tmp_path: Path, own_server: Callable[..., Server]
) -> None:
    await roll(tmp_path, own_server, before=unpacked(tmp_path), after=ROOT)


async def roll(tmp_path: Path, own_server: Callable[..., Server], before: Path, after: Path) -> None:
    """Two API nodes and three runner nodes under load, whose code was *before* and becomes *after*."""
    postgres, redis = own_server(Postgres), own_server(Redis)
    stores = {"FN_DB_URL": postgres.url, "FN_LOGSTORE_URL": postgres.url, "FN_MQ_URL": redis.url}
    patient = {"FN_HTTP_NOT_READY_SECS": str(NOT_READY), "FN_DRAIN_SECS": "20", "FN_HTTP_DRAIN": "20"}
    environ = {
        "FN_DRIVER": "process",
        "FN_PROCESS_IMAGES": str(FUNCTIONS),
        "FN_MAX_TOTAL_MEMORY_BYTES": str(1 << 30),
        **patient,
    }
    async with (
        cluster(tmp_path, environ, {**stores, **patient}, apis=2, code=before) as nodes,
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as http,
    ):
        runners: list[Node] = [nodes.runner(f"runner-{n}", first=n % 2) for n in range(3)]
        for runner in runners:
            runner.code = before
        await asyncio.gather(*(runner.start() for runner in runners))
        balancer = own_server(HAProxy, {runner.name: runner.port for runner in runners})
        assert isinstance(balancer, HAProxy)
        await until_serving(balancer, {runner.name for runner in runners})
        book = tmp_path / "ledger"
        fn_id = await deploy(http, nodes.api, "work", memory=128, config={"LEDGER": str(book)})
        first = {"type": "sync", "do": "work"}
        await asyncio.gather(*(ask(http, "POST", f"{one.url}/invoke/{fn_id}", json=first) for one in runners))

        clients = Clients(http, f"{balancer.url}/invoke/{fn_id}")
        kinds = itertools.chain([clients.sync] * SYNC, [clients.detached] * DETACHED)
        async with asyncio.TaskGroup() as group:
            for kind in kinds:
                group.create_task(kind())
            await restart_all(nodes, balancer, after)
            clients.stop()

        good = {"sync: 200", "detached: 202"}
        assert clients.answers.keys() == good, f"{clients.answers}\n{nodes.logs()}"
        assert min(clients.answers.values()) > 50
        records = await until_final(http, nodes, fn_id, set(clients.accepted), limit=240)
        ends = Counter(
            (records[call_id]["status"], records[call_id]["attempt"]) for call_id in clients.accepted
        )
        assert ends.keys() == {("success", 1)}, f"{ends}\n{nodes.logs()}"
        runs = ledger.read(book)
        assert {len(runs[call_id]) for call_id in clients.accepted} == {1}
