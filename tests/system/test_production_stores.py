"""The promise of both tiers on servers that fail in the middle: what was accepted ends, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.servers.postgres import Postgres
from tests.servers.proxy import proxy
from tests.servers.redis import Redis
from tests.servers.s3 import S3
from tests.servers.server import Server
from tests.system.nodes import ROOT, Cluster, Node, ask, ask_again, cluster
from tests.system.test_two_runners import deploy, until_final

pytestmark = pytest.mark.system

CALLS = 250
STEP = CALLS // 5
"""Calls that are accepted between one failure and the next."""
AT_ONCE = 8


class Clients:
    """Send detached calls until enough are accepted; a refused one was promised nothing and is sent again."""

    def __init__(self, http: aiohttp.ClientSession, runners: list[Node], fn_id: str) -> None:
        self.accepted: set[str] = set()
        self.refused = 0
        self.runners = runners
        self._http = http
        self._fn_id = fn_id
        self._news = asyncio.Condition()

    async def send(self, number: int) -> None:
        while len(self.accepted) < CALLS:
            number += 1
            call_id = await self._one(self.runners[number % len(self.runners)], f"call-{number}")
            if call_id:
                self.accepted.add(call_id)
            else:
                self.refused += 1
                await asyncio.sleep(0.1)
            async with self._news:
                self._news.notify_all()

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Returns when *condition* is true."""
        try:
            async with asyncio.timeout(180), self._news:
                await self._news.wait_for(condition)
        except TimeoutError:
            raise AssertionError(f"{what}: {len(self.accepted)} accepted, {self.refused} refused") from None

    async def until_refused(self) -> None:
        before = self.refused
        await self.until(lambda: self.refused > before, "no client notices")

    async def _one(self, runner: Node, name: str) -> str | None:
        headers = {"Fn-Invoke-Type": "detached"}
        url = f"{runner.url}/invoke/{self._fn_id}"
        try:
            async with self._http.post(url, json={"name": name}, headers=headers) as answer:
                assert answer.status in (202, 503), f"{answer.status}: {await answer.text()}"
                return str((await answer.json())["call_id"]) if answer.status == 202 else None
        except aiohttp.ClientError:
            return None


async def until_unavailable(http: aiohttp.ClientSession, apis: list[Node]) -> None:
    """Returns when every one of *apis* has said that its database is away."""
    async with asyncio.timeout(180):
        for api in apis:
            while True:
                async with http.get(f"{api.url}/v2/apps") as answer:
                    assert answer.status in (200, 503), await answer.text()
                    if answer.status == 503:
                        break


@asynccontextmanager
async def away(server: Server) -> AsyncIterator[None]:
    """Kills *server*, and starts it again at the end."""
    await asyncio.to_thread(server.stop)
    yield
    await asyncio.to_thread(server.start)


async def records_of(http: aiohttp.ClientSession, api: Node, fn_id: str) -> list[str]:
    """The ids of all records, each as often as it is listed."""
    found: list[str] = []
    cursor = ""
    while True:
        params = {"per_page": "100", "cursor": cursor}
        page = await ask_again(http, f"{api.url}/v2/fns/{fn_id}/calls", params=params)
        found += [record["id"] for record in page["items"]]
        cursor = page.get("next_cursor", "")
        if not cursor:
            return found


async def every_promise_is_kept(
    http: aiohttp.ClientSession, nodes: Cluster, fn_id: str, accepted: set[str]
) -> None:
    """Each of *accepted* has one record, which is final, and its log, on both API nodes."""
    records = await until_final(http, nodes, fn_id, accepted, limit=180)
    wrong = [records[call_id] for call_id in accepted if records[call_id]["status"] != "success"]
    assert not wrong, f"{wrong[:3]}\n{nodes.logs()}"
    for api in nodes.apis:
        listed = await records_of(http, api, fn_id)
        assert len(listed) == len(set(listed))
        assert accepted <= set(listed)
    for number, call_id in enumerate(sorted(accepted)):
        api = nodes.apis[number % len(nodes.apis)]
        text = await ask_again(http, f"{api.url}/v2/fns/{fn_id}/calls/{call_id}/log")
        assert call_id in text, f"the log of {call_id} is {text!r}"


async def test_no_accepted_call_is_lost_when_servers_and_a_runner_are_killed(
    tmp_path: Path, own_server: Callable[..., Server]
) -> None:
    postgres, redis, s3 = own_server(Postgres, True), own_server(Redis, True), own_server(S3)
    environ = {
        "FN_DRIVER": "process",
        "FN_PROCESS_IMAGES": str(ROOT / "examples"),
        "FN_MAX_TOTAL_MEMORY_BYTES": str(1 << 30),
    }
    # The S3 server keeps everything in memory: it may not be killed, but what leads to it may hang and break.
    async with proxy(s3.port) as network, aiohttp.ClientSession() as http:
        short = "timeout=2&connect_timeout=2"
        stores = {
            "FN_DB_URL": f"{postgres.url}?{short}",
            "FN_MQ_URL": f"{redis.url}?{short}",
            "FN_LOGSTORE_URL": f"{s3.url.replace(f':{s3.port}/', f':{network.port}/')}?{short}",
        }
        async with cluster(tmp_path, environ, stores, apis=2) as nodes:
            runners = [nodes.runner("runner-one"), nodes.runner("runner-two", first=1)]
            await asyncio.gather(*(runner.start() for runner in runners))
            fn_id = await deploy(http, nodes.apis[1], "hello")
            for runner in runners:
                await ask(http, "POST", f"{runner.url}/invoke/{fn_id}", json={"name": "warm"})
            clients = Clients(http, list(runners), fn_id)

            async def without_redis() -> None:
                async with away(redis):
                    await clients.until_refused()

            async def without_postgres() -> None:
                async with away(postgres):
                    await until_unavailable(http, nodes.apis)

            async def without_s3() -> None:
                network.hang()
                await clients.until_refused()
                network.cut()
                network.flow()

            async def without_runner() -> None:
                clients.runners.remove(runners[0])
                await runners[0].kill()

            failures: list[Callable[[], Awaitable[None]]] = [
                without_redis,
                without_postgres,
                without_s3,
                without_runner,
            ]
            async with asyncio.TaskGroup() as group:
                for number in range(AT_ONCE):
                    group.create_task(clients.send(number * CALLS))
                for number, failure in enumerate(failures, 1):
                    enough = number * STEP
                    await clients.until(
                        lambda enough=enough: len(clients.accepted) >= enough,  # type: ignore[misc]
                        "clients are not heard again",
                    )
                    await failure()
            await every_promise_is_kept(http, nodes, fn_id, clients.accepted)
