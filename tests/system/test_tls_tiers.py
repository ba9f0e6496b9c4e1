"""An API node and a runner node as processes, over TLS with certificates of both, on ports of their own."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.servers.authority import Authority, Files, authority
from tests.servers.ports import free_port
from tests.system.faults.world import FUNCTIONS
from tests.system.nodes import ask
from tests.unit.deploy.node_processes import begin, until

pytestmark = pytest.mark.system
LIMIT = 60.0
NAME = f"tls-{os.getpid()}"


class Tiers:
    def __init__(
        self, ca: Authority, api: str, own: str, runner: str, admin: str, http: aiohttp.ClientSession
    ) -> None:
        self.ca = ca
        self.api = api
        self.own = own
        """Of the API node, for runner nodes."""
        self.runner = runner
        self.admin = admin
        self.http = http

    async def until_ready(self) -> None:
        async with asyncio.timeout(LIMIT):
            while await self.status(f"{self.admin}/readyz") != 200:
                await asyncio.sleep(0.1)

    async def status(self, url: str) -> int:
        try:
            async with self.http.get(url) as answer:
                return answer.status
        except aiohttp.ClientConnectionError:
            return 0

    async def serial(self, url: str) -> bytes:
        """The certificate that the node at *url* shows to a new connection."""
        port = int(url.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=self.ca.client())
        shown: bytes = writer.get_extra_info("ssl_object").getpeercert(True)
        writer.close()
        return shown


def _environ(files: Files, folder: Path, **more: str) -> dict[str, str]:
    common = {"PATH": os.environ["PATH"], "FN_HOST": "127.0.0.1", "FN_HTTP_DRAIN": "5", "FN_DRAIN_SECS": "5"}
    return {**common, **files.environ(), **more}


@asynccontextmanager
async def tiers(folder: Path) -> AsyncIterator[Tiers]:
    ports = [free_port() for _ in range(4)]
    public, own, runner, admin = map(str, ports)
    with authority() as ca:
        (folder / "api").mkdir()
        (folder / "runner").mkdir()
        api_node = _environ(
            ca.certify("api"), folder, FN_PORT=public, FN_RUNNER_API_PORT=own, FN_RUNNER_AUTH="mtls"
        )
        runner_node = _environ(
            ca.certify("runner"), folder, FN_PORT=runner, FN_ADMIN_PORT=admin, FN_ADMIN_TLS="false",
            FN_RUNNER_API_URL=f"https://127.0.0.1:{own}", FN_NODE_ID=NAME, FN_DRIVER="process",
            FN_PROCESS_IMAGES=str(FUNCTIONS),
        )  # fmt: skip
        connector = aiohttp.TCPConnector(ssl=ca.client(), force_close=True)
        with (
            begin(folder / "api", ("-m", "deploy", "api"), api_node) as first,
            begin(folder / "runner", ("-m", "deploy", "runner"), runner_node) as second,
        ):
            try:
                await asyncio.to_thread(until, first, f"runner nodes are served on 127.0.0.1:{own}")
                await asyncio.to_thread(until, second, f"runner node listens on 127.0.0.1:{runner}")
                async with aiohttp.ClientSession(
                    connector=connector, timeout=aiohttp.ClientTimeout(LIMIT)
                ) as http:
                    yield Tiers(
                        ca, f"https://127.0.0.1:{public}", f"https://127.0.0.1:{own}",
                        f"https://127.0.0.1:{runner}", f"http://127.0.0.1:{admin}", http,
                    )  # fmt: skip
            finally:
                for node in (second, first):
                    node.terminate()
                    await asyncio.to_thread(node.communicate, timeout=LIMIT)
        assert (first.returncode, second.returncode) == (0, 0)


async def _deployed(there: Tiers, **config: str) -> Any:
    app = await ask(there.http, "POST", f"{there.api}/v2/apps", json={"name": "a"})
    function = {"name": "work", "app_id": app["id"], "image": "work", "config": config}
    return await ask(there.http, "POST", f"{there.api}/v2/fns", json=function)


async def test_calls_walk_through_both_tiers_over_tls_while_certificates_change(tmp_path: Path) -> None:
    async with tiers(tmp_path) as there:
        await there.until_ready()
        fn = await _deployed(there, LEDGER=str(tmp_path / "ledger"))
        assert fn["annotations"]["fnproject.io/fn/invokeEndpoint"].startswith("https://")
        (runner,) = (await ask(there.http, "GET", f"{there.api}/v2/runners"))["items"]
        assert (runner["id"], runner["address"]) == (NAME, there.runner)
        url, body = f"{there.runner}/invoke/{fn['id']}", {"type": "sync", "do": "work", "seconds": 0}
        await ask(there.http, "POST", url, json=body)
        await ask(there.http, "POST", url, json=body, headers={"Fn-Invoke-Type": "detached"})
        before = [await there.serial(there.api), await there.serial(there.runner)]
        there.ca.certify("api")
        there.ca.certify("runner")
        async with asyncio.timeout(LIMIT):
            while set(before) & {await there.serial(there.api), await there.serial(there.runner)}:
                await asyncio.sleep(0.2)
        await ask(there.http, "POST", url, json=body)
        async with asyncio.timeout(LIMIT):
            while not await _all_succeeded(there, fn["id"], 3):
                await asyncio.sleep(0.2)
        assert b"fn_" in (await ask(there.http, "GET", f"{there.admin}/metrics")).encode()


async def _all_succeeded(there: Tiers, fn_id: str, count: int) -> bool:
    calls = (await ask(there.http, "GET", f"{there.api}/v2/fns/{fn_id}/calls"))["items"]
    return [call["status"] for call in calls] == ["success"] * count


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("own", "it does not know the authority of FN_NODE_CERT"),
        ("api", "serves runner nodes on another port"),
    ],
)
async def test_a_runner_that_the_api_node_does_not_hear_is_not_ready_and_says_why(
    tmp_path: Path, where: str, said: str
) -> None:
    async with tiers(tmp_path) as there:
        await there.until_ready()
        with authority() as other:
            strange = other.certify("runner")
            port, own = str(free_port()), getattr(there, where)
            # It trusts the API node; the API node does not trust it.
            files = Files(strange.cert, strange.key, there.ca.file)
            environ = _environ(
                files, tmp_path, FN_PORT=port, FN_RUNNER_API_URL=own, FN_NODE_ID=f"{NAME}-strange",
                FN_DRIVER="process", FN_PROCESS_IMAGES=str(FUNCTIONS),
            )  # fmt: skip
            (tmp_path / "strange").mkdir()
            context = ssl.create_default_context(cafile=str(other.file))
            with begin(tmp_path / "strange", ("-m", "deploy", "runner"), environ) as node:
                logged = await asyncio.to_thread(until, node, "no API node takes heartbeats")
                async with there.http.get(f"https://127.0.0.1:{port}/readyz", ssl=context) as answer:
                    status, reason = answer.status, (await answer.json())["message"]
                node.terminate()
                await asyncio.to_thread(node.communicate, timeout=LIMIT)
        assert status == 503
        assert "no API node has answered yet" in reason
        assert said in reason
        assert said in logged
