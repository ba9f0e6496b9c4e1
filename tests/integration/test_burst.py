"""Sync calls at one node: in a burst everybody is answered and nothing else stalls; clients that hang up."""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import aiohttp

from deploy import nodes
from deploy.settings import FullNode, read_all
from runner_node.drivers import opener
from runner_node.drivers.contract import ContainerDriver
from runner_node.drivers.fake import open_fake
from runner_node.drivers.fake_behaviour import Answer, Behaviour, Request

CALLS = 10_000
CONNECTIONS = 400
PLACES = 200
MIB = 1 << 20


@asynccontextmanager
async def full_node(
    folder: Path, driver: ContainerDriver, **environ: str
) -> AsyncIterator[aiohttp.ClientSession]:
    """A full node on *driver*, and a client with as many connections as it likes."""
    settings, _ = read_all(
        {
            "FN_PORT": "0", "FN_HOST": "127.0.0.1", "FN_DB_URL": f"sqlite:///{folder}/fn.db",
            "FN_LOGSTORE_URL": "none", "FN_MQ_URL": "memory://", "FN_SPOOL_PATH": "none",
            "FN_DRAIN_SECS": "5", "FN_HTTP_DRAIN": "5", **environ,
        },
        "full",
    )  # fmt: skip
    assert isinstance(settings, FullNode)
    connector = aiohttp.TCPConnector(limit=0)
    async with nodes.full(settings) as port:
        base = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession(base, connector=connector) as client:
            while True:
                async with client.get("/readyz") as answer:
                    if answer.status == 200:
                        break
                await asyncio.sleep(0.01)
            yield client


async def deploy(client: aiohttp.ClientSession, name: str) -> str:
    async with client.post("/v2/apps", json={"name": f"app-{name}"}) as answer:
        app = await answer.json()
    fields = {"name": name, "app_id": app["id"], "image": name, "memory": 128, "timeout": 30}
    async with client.post("/v2/fns", json=fields) as answer:
        assert answer.status == 200, await answer.text()
        found: str = (await answer.json())["id"]
        return found


def peak_memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def test_a_burst_of_ten_thousand_calls_gets_answers_and_stalls_nobody(
    tmp_path: Path, monkeypatch
) -> None:
    behaviours = {"slow": Behaviour(call_delay=0.3), "other": Behaviour(call_delay=0.01)}
    answers: Counter[int] = Counter()
    body = b"x" * 20_000

    async with open_fake(behaviours) as driver:
        monkeypatch.setattr(opener, "open_driver", lambda *_: nullcontext(driver))
        environ = {"FN_MAX_WAITING_CALLS": str(PLACES), "FN_MAX_TOTAL_MEMORY_BYTES": str(2048 * MIB)}
        async with full_node(tmp_path, driver, **environ) as client:
            slow, other = await deploy(client, "slow"), await deploy(client, "other")
            loop = asyncio.get_running_loop()
            before, left = peak_memory(), CALLS

            async def flood() -> None:
                nonlocal left
                while left > 0:
                    left -= 1
                    async with client.post(f"/invoke/{slow}", data=body) as answer:
                        answers[answer.status] += 1
                        assert answer.headers["Fn-Call-Id"]
                        if answer.status == 503:
                            assert 1 <= int(answer.headers["Retry-After"]) <= 60
                        else:
                            assert await answer.read() == body

            waits: dict[str, list[float]] = {"/readyz": [], "other": []}

            async def ask(what: str) -> None:
                while left > 0:
                    asked = loop.time()
                    request = (
                        client.get(what) if what == "/readyz" else client.post(f"/invoke/{other}", data=b"x")
                    )
                    async with request as answer:
                        assert answer.status == 200, await answer.text()
                    waits[what].append(loop.time() - asked)
                    await asyncio.sleep(0.05)

            async with asyncio.timeout(400), asyncio.TaskGroup() as clients:
                for _ in range(CONNECTIONS):
                    clients.create_task(flood())
                for what in waits:
                    clients.create_task(ask(what))

            assert sum(answers.values()) == CALLS
            assert set(answers) == {200, 503}
            # Half of the places are one function's: as many calls as that were always served.
            assert answers[200] >= PLACES // 2
            assert answers[503] >= CALLS // 4
            assert len(waits["/readyz"]) > 5
            assert len(waits["other"]) > 5
            # Far from the 60 s of the slow function's line, on whatever machine.
            assert max(waits["/readyz"]) < 20
            assert max(waits["other"]) < 20
            assert peak_memory() - before < 300 * MIB
            # Nothing is left of it: the next call is served at once.
            async with client.post(f"/invoke/{slow}", data=b"x") as answer:
                assert answer.status == 200


async def test_a_call_whose_client_hangs_up_is_begun_no_more_but_goes_on_once_begun(
    tmp_path: Path, monkeypatch
) -> None:
    bodies: list[bytes] = []

    def note(request: Request) -> Answer:
        bodies.append(request.body)
        return Answer()

    async with open_fake({"f": Behaviour(function=note, call_delay=4.0)}) as driver:
        monkeypatch.setattr(opener, "open_driver", lambda *_: nullcontext(driver))
        async with full_node(tmp_path, driver, FN_MAX_TOTAL_MEMORY_BYTES=str(150 * MIB)) as client:
            fn_id = await deploy(client, "f")

            async def until_counted(line: str) -> None:
                async with asyncio.timeout(60):
                    while True:
                        async with client.get("/metrics") as answer:
                            if f'{line}{{fn_appname="app-f",fn_path="f"}} 1.0' in await answer.text():
                                return
                        await asyncio.sleep(0.01)

            begun = asyncio.create_task(client.post(f"/invoke/{fn_id}", data=b"begun"))
            await until_counted("fn_running")
            waits = asyncio.create_task(client.post(f"/invoke/{fn_id}", data=b"waits"))
            await until_counted("fn_queued")
            for task in (waits, begun):
                task.cancel()
            await asyncio.wait({waits, begun})
            async with client.post(f"/invoke/{fn_id}", data=b"next") as answer:
                assert answer.status == 200
        assert bodies == [b"begun", b"next"]
        assert driver.started == 1
