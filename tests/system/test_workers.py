"""A runner node of two worker processes: one port, one runner, and nobody left behind."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.servers.redis import Redis
from tests.servers.server import Server
from tests.system.faults import ledger
from tests.system.faults.world import FUNCTIONS
from tests.system.nodes import TOKEN, Cluster, Node, ask, cluster, free_port
from tests.system.test_two_runners import deploy, until_final

pytestmark = pytest.mark.system

NAME = f"runner-{os.getpid()}"
LIMIT = 60.0
MEMORY = 1 << 30


class Scene:
    """An API node, a runner node of two workers, and a function that writes down by whom it is run."""

    def __init__(self, nodes: Cluster, runner: Node, http: aiohttp.ClientSession, fn_id: str) -> None:
        self.nodes = nodes
        self.runner = runner
        self.http = http
        self.fn_id = fn_id
        self.ledger = nodes.folder / "ledger"

    async def call(self, seconds: float = 0.0) -> int:
        """The status of a sync call, on a connection of its own."""
        body = {"type": "sync", "do": "work", "seconds": seconds}
        url = f"{self.runner.url}/invoke/{self.fn_id}"
        async with self.http.post(url, json=body) as answer:
            await answer.read()
            return answer.status

    def runs(self) -> list[ledger.Run]:
        return [run for runs in ledger.read(self.ledger).values() for run in runs]

    async def listed(self) -> dict[str, Any]:
        """What the API node shows of the one runner."""
        runners = (await ask(self.http, "GET", f"{self.nodes.api.url}/v2/runners"))["items"]
        assert [one["id"] for one in runners] == [NAME]
        return dict(runners[0])

    async def until_both_serve(self, times: int = 1) -> None:
        """Returns when each worker has begun to serve, the second one for the given time."""

        async def serve() -> bool:
            text = self.runner.log.read_text()
            return "worker 0 serves" in text and text.count("worker 1 serves") >= times

        await self.until(serve, "a worker does not serve")

    def workers(self) -> list[int]:
        """Process ids of those that serve, by number."""
        found = re.findall(r"worker (\d) serves \(process (\d+)\)", self.runner.log.read_text())
        return [pid for _, pid in sorted({int(number): int(pid) for number, pid in found}.items())]

    async def until(self, condition: Callable[[], Awaitable[bool]], what: str) -> None:
        try:
            async with asyncio.timeout(LIMIT):
                while not await condition():
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise AssertionError(f"{what}\n{self.nodes.logs()}") from None


@asynccontextmanager
async def scene(folder: Path) -> AsyncIterator[Scene]:
    environ = {
        "FN_WORKERS": "2",
        "FN_DRIVER": "process",
        "FN_PROCESS_IMAGES": str(FUNCTIONS),
        "FN_MAX_TOTAL_MEMORY_BYTES": str(MEMORY),
        "FN_MAX_TOTAL_CPU_MCPUS": "4000",
        "FN_DRAIN_SECS": "20",
        "FN_HTTP_DRAIN": "20",
        # A node sweeps what an earlier one of its name left.
        "FN_NODE_ID": NAME,
    }
    data = folder / "data"
    stores = {
        "FN_DB_URL": f"sqlite:///{data / 'fn.db'}",
        "FN_MQ_URL": f"sqlite:///{data / 'queue.db'}",
        "FN_ASYNC_LEASE_SECS": "4",
        "FN_ASYNC_BACKOFF_SECS": "0.5",
    }
    # A connection for each request: the system deals them out to the workers.
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    async with (
        cluster(folder, environ, stores) as nodes,
        aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(LIMIT)) as http,
    ):
        runner = nodes.runner(NAME)
        await runner.start()
        fn_id = await deploy(http, nodes.api, "work", memory=128, config={"LEDGER": str(folder / "ledger")})
        there = Scene(nodes, runner, http, fn_id)
        await there.until_both_serve()
        yield there


def alive(pid: int) -> bool:
    """Whether the process is there, and not just waiting to be reaped."""
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_two_workers_serve_one_port_and_are_one_runner(tmp_path: Path) -> None:
    async with scene(tmp_path) as there:

        async def both_have_run() -> bool:
            assert await there.call() == 200
            return {run.node for run in there.runs()} == {NAME, f"{NAME}+1"}

        await there.until(both_have_run, "one worker gets no calls")
        # The part of an id that names the process which made it.
        makers = {(run.node, run.call_id[10:19]) for run in there.runs()}
        assert len(makers) == len({maker for _, maker in makers}) == 2

        async def both_are_counted() -> bool:
            one = await there.listed()
            return bool(one["workers"] == 2 and one["warm"] == [there.fn_id])

        await there.until(both_are_counted, "a worker is not in the report")
        shown = await there.listed()
        assert (shown["capacity_memory"], shown["capacity_cpus"]) == (MEMORY, 4000)
        # Each has a warm container of 128 MB.
        assert MEMORY - shown["free_memory"] == 2 * 128 << 20
        metrics = await ask(there.http, "GET", f"{there.runner.url}/metrics")
        for number in ("0", "1"):
            counted = rf'^fn_api_request_count{{worker="{number}",method="POST",path="/invoke/.*}} [1-9]'
            assert re.search(counted, metrics, re.M), metrics
        assert metrics.count("# TYPE fn_api_request_count") == 1
        # It would fit into both together, and into neither.
        api = there.nodes.api.url
        app_id = (await ask(there.http, "GET", f"{api}/v2/fns/{there.fn_id}"))["app_id"]
        body = {"name": "large", "app_id": app_id, "image": "work", "memory": 600}
        large = await ask(there.http, "POST", f"{api}/v2/fns", json=body)
        url = f"{there.runner.url}/invoke/{large['id']}"
        async with there.http.post(url, json={}, headers={"Fn-Invoke-Type": "detached"}) as answer:
            assert answer.status == 400
            assert "the largest runner has 512 MB" in await answer.text()


async def test_a_drain_reaches_both_workers(tmp_path: Path) -> None:
    async with scene(tmp_path) as there:
        url = f"{there.nodes.api.url}/v2/runners/{NAME}"

        async def all_say(status: int) -> bool:
            for _ in range(20):
                async with there.http.get(f"{there.runner.url}/readyz") as answer:
                    if answer.status != status:
                        return False
                    assert status == 200 or "draining" in await answer.text()
            return True

        for state, status in (("draining", 503), ("active", 200)):
            await ask(there.http, "PUT", url, json={"state": state})
            await there.until(lambda status=status: all_say(status), f"{state} reaches only one")  # type: ignore[misc]


async def test_two_workers_are_drained_when_the_last_call_of_both_has_ended(tmp_path: Path) -> None:
    async with scene(tmp_path) as there:
        call = asyncio.create_task(there.call(12.0))

        async def it_runs() -> bool:
            return (await there.listed())["running"] == 1

        await there.until(it_runs, "the call does not show")
        url = f"{there.nodes.api.url}/v2/runners/{NAME}"
        await ask(there.http, "PUT", url, json={"state": "draining"})
        seen = []

        async def drained() -> bool:
            ended = call.done()
            shown = await ask(there.http, "GET", url)
            seen.append((ended, shown["drained"]))
            return bool(shown["drained"])

        await there.until(drained, "the runner is never drained")
        assert (False, False) in seen
        assert await call == 200
        [run] = there.runs()
        assert run.ended


async def test_a_worker_that_is_killed_loses_no_accepted_call_and_comes_back(tmp_path: Path) -> None:
    async with scene(tmp_path) as there:
        running = True
        refused = 0

        async def knock() -> None:
            nonlocal refused
            while running:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", there.runner.port)
                    writer.close()
                except ConnectionRefusedError:
                    refused += 1
                except OSError:
                    pass  # of the one that was just killed
                await asyncio.sleep(0.01)

        knocking = asyncio.create_task(knock())
        ids: set[str] = set()
        body = {"type": "detached", "do": "work", "seconds": 0.3}
        headers = {"Fn-Invoke-Type": "detached"}
        for number in range(40):
            if number == 20:

                async def both_run() -> bool:
                    return {run.node for run in there.runs()} == {NAME, f"{NAME}+1"}

                await there.until(both_run, "one worker runs none of them")
                os.kill(there.workers()[1], signal.SIGKILL)
            with suppress(aiohttp.ClientError):
                url = f"{there.runner.url}/invoke/{there.fn_id}"
                async with there.http.post(url, json=body, headers=headers) as answer:
                    assert answer.status == 202
                    ids.add((await answer.json())["call_id"])
        assert len(ids) >= 30
        records = await until_final(there.http, there.nodes, there.fn_id, ids, limit=LIMIT)
        assert {records[call_id]["status"] for call_id in ids} == {"success"}
        await there.until_both_serve(2)
        assert refused == 0
        assert all(map(alive, there.workers()))
        running = False
        await knocking

        async def both_are_counted() -> bool:
            return bool((await there.listed())["workers"] == 2)

        await there.until(both_are_counted, "the new worker is not in the report")
        assert "worker 1 ended (SIGKILL) and is begun again" in there.runner.log.read_text()


@pytest.mark.parametrize("to_all", [False, True])
async def test_a_signal_ends_all_workers_in_order(tmp_path: Path, to_all: bool) -> None:
    """Also when each process gets it, as from a terminal, or from systemd."""
    async with scene(tmp_path) as there:
        workers = there.workers()
        calls = [asyncio.create_task(there.call(2.0)) for _ in range(4)]

        async def all_run() -> bool:
            return len(there.runs()) == len(calls)

        await there.until(all_run, "the calls do not begin")
        for pid in workers if to_all else ():
            os.kill(pid, signal.SIGTERM)
        assert await there.runner.stop(LIMIT) == 0
        assert await asyncio.gather(*calls) == [200] * len(calls)
        assert not any(map(alive, workers))
        assert there.runner.log.read_text().count("stopped worker=") == 2


async def test_a_second_signal_ends_all_workers_at_once(tmp_path: Path) -> None:
    async with scene(tmp_path) as there:
        workers = there.workers()
        calls = [asyncio.create_task(there.call(25.0)) for _ in range(2)]

        async def all_run() -> bool:
            return len(there.runs()) == len(calls)

        await there.until(all_run, "the calls do not begin")
        os.kill(there.runner.pid, signal.SIGTERM)

        async def is_told() -> bool:
            return "the workers stop" in there.runner.log.read_text()

        await there.until(is_told, "the first signal is not heard")
        assert await there.runner.stop(15.0) == -signal.SIGTERM
        assert not any(map(alive, workers))
        for call in calls:
            with pytest.raises(aiohttp.ClientError):
                await call


async def test_nobody_is_left_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    async with scene(tmp_path) as there:
        workers = there.workers()
        assert await there.call() == 200
        functions = [run.pid for run in there.runs()]
        assert functions
        await there.runner.kill()

        async def nobody_is_left() -> bool:
            return not any(map(alive, workers + functions))

        await there.until(nobody_is_left, "a worker or a function is left")
        await there.runner.start()
        assert await there.call() == 200


async def test_workers_of_a_full_node_share_its_queue(
    tmp_path: Path, own_server: Callable[..., Server]
) -> None:
    """Each runs calls that the other accepted."""
    environ = {
        "FN_WORKERS": "2",
        "FN_HOST": "127.0.0.1",
        "FN_PORT": str(free_port()),
        "FN_NODE_ID": NAME,
        "FN_RUNNER_TOKEN": TOKEN,
        "FN_DB_URL": f"sqlite:///{tmp_path / 'fn.db'}",
        "FN_MQ_URL": own_server(Redis).url,
        "FN_DRIVER": "process",
        "FN_PROCESS_IMAGES": str(FUNCTIONS),
        "FN_SPOOL_PATH": str(tmp_path / "spool"),
        "FN_MAX_TOTAL_MEMORY_BYTES": str(MEMORY),
    }
    node = Node("full", "full", environ, tmp_path)
    nodes = Cluster(tmp_path, {})
    nodes.api, nodes.nodes = node, [node]
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector) as http:
        try:
            await node.start()
            fn_id = await deploy(http, node, "work", memory=128, config={"LEDGER": str(tmp_path / "ledger")})
            there = Scene(nodes, node, http, fn_id)
            await there.until_both_serve()
            ids: set[str] = set()

            async def both_have_run() -> bool:
                body = {"type": "detached", "do": "work", "seconds": 0.2}
                url = f"{node.url}/invoke/{fn_id}"
                headers = {"Fn-Invoke-Type": "detached"}
                ids.add((await ask(http, "POST", url, json=body, headers=headers))["call_id"])
                return {run.node for run in there.runs()} == {NAME, f"{NAME}+1"}

            await there.until(both_have_run, "one worker gets no calls")
            records = await until_final(http, nodes, fn_id, ids, limit=LIMIT)
            assert {records[call_id]["status"] for call_id in ids} == {"success"}
            assert {records[call_id]["node"] for call_id in ids} == {NAME}
        finally:
            assert await node.stop(LIMIT) == 0
