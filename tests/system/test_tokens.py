"""Both tiers as processes with tokens: made by the command, known within seconds, taken back as fast."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.servers.issuer import AUDIENCE, running_issuer
from tests.system.faults import ledger
from tests.system.faults.world import FUNCTIONS
from tests.system.nodes import ROOT, Cluster, Node, ask, cluster

pytestmark = pytest.mark.system

LIMIT = 60.0
BODY = {"type": "sync", "do": "work"}
ANNOTATIONS = {"fn.hybrid/invoke/auth": "token"}


def make(file: Path, *arguments: str) -> str:
    """A new token, whose entry is in the file."""
    command = [sys.executable, "-m", "deploy", "token", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True, timeout=LIMIT)
    with file.open("a") as out:
        out.write(done.stdout)
    return done.stderr.split()[-1]


@dataclass
class Scene:
    """An API node and a runner node of two workers, which follow the same file."""

    nodes: Cluster
    runner: Node
    http: aiohttp.ClientSession
    file: Path

    def headers(self, token: str, **more: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}", **more}

    async def status(self, method: str, url: str, token: str, **more: object) -> int:
        async with self.http.request(method, url, headers=self.headers(token), **more) as answer:  # type: ignore[arg-type]
            await answer.read()
            return answer.status

    async def until(self, status: int, method: str, url: str, token: str, times: int = 1) -> None:
        """Returns when that many answers in a row have *status*: each worker looks for itself."""
        found = 0
        try:
            async with asyncio.timeout(LIMIT):
                while found < times:
                    same = await self.status(method, url, token, json=BODY) == status
                    found = found + 1 if same else 0
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"no {status}\n{self.nodes.logs()}") from None

    async def deploy(self, token: str) -> str:
        """The private function f of the app shop."""
        url, headers = self.nodes.api.url, self.headers(token)
        body: dict[str, object] = {"name": "shop"}
        app = await ask(self.http, "POST", f"{url}/v2/apps", json=body, headers=headers)
        body = {
            "name": "f", "app_id": app["id"], "image": "work", "annotations": ANNOTATIONS,
            "config": {"LEDGER": str(self.nodes.folder / "ledger")},
        }  # fmt: skip
        return str((await ask(self.http, "POST", f"{url}/v2/fns", json=body, headers=headers))["id"])


@asynccontextmanager
async def scene(folder: Path, **tokens: str) -> AsyncIterator[Scene]:
    file = folder / "tokens.yml"
    file.touch()
    data = folder / "data"
    stores = {
        "FN_DB_URL": f"sqlite:///{data / 'fn.db'}",
        "FN_MQ_URL": f"sqlite:///{data / 'queue.db'}",
        **tokens,
    }
    environ = {"FN_WORKERS": "2", "FN_DRIVER": "process", "FN_PROCESS_IMAGES": str(FUNCTIONS), **tokens}
    environ["FN_MAX_TOTAL_MEMORY_BYTES"] = str(1 << 30)
    connector = aiohttp.TCPConnector(force_close=True)
    async with (
        cluster(folder, environ, stores) as nodes,
        aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(LIMIT)) as http,
    ):
        runner = nodes.runner("runner")
        await runner.start()
        yield Scene(nodes, runner, http, file)


async def test_tokens_of_the_command_open_both_tiers_and_are_taken_back(tmp_path: Path) -> None:
    file = tmp_path / "tokens.yml"
    root = make(file, "--name", "root", "--role", "admin")
    text = file.read_text()
    async with scene(tmp_path, FN_API_TOKENS=str(file)) as there:
        api, apps = there.nodes.api, f"{there.nodes.api.url}/v2/apps"
        fn_id = await there.deploy(root)
        invoke = f"{there.runner.url}/invoke/{fn_id}"
        assert await there.status("GET", apps, "wrong") == 401
        assert await there.status("POST", invoke, "wrong", json=BODY) == 401
        assert await there.status("POST", invoke, root, json=BODY) == 200
        # A detached call needs it as well, and runs without it.
        caller = make(file, "--name", "shop's front", "--role", "invoker", "--app", "shop")
        await there.until(403, "GET", apps, caller)
        await there.until(200, "POST", invoke, caller, times=20)
        headers = there.headers(caller, **{"Fn-Invoke-Type": "detached"})
        call_id = (await ask(there.http, "POST", invoke, json={**BODY, "type": "detached"}, headers=headers))[
            "call_id"
        ]
        async with asyncio.timeout(LIMIT):
            while call_id not in ledger.read(tmp_path / "ledger"):
                await asyncio.sleep(0.1)
        # A broken file changes nothing; one without the token takes it back.
        file.write_text("- {")
        async with asyncio.timeout(LIMIT):
            while "stay in force" not in api.log.read_text():
                await asyncio.sleep(0.1)
        assert await there.status("POST", invoke, caller, json=BODY) == 200
        file.write_text(text)
        await there.until(401, "POST", invoke, caller, times=20)
        await there.until(401, "GET", apps, caller)
        assert await there.status("GET", apps, root) == 200
        assert "root (admin) from 127.0.0.1: POST /v2/fns: 200" in api.log.read_text()
        for log in (api.log, there.runner.log):
            assert root not in log.read_text()
            assert caller not in log.read_text()
            assert "everybody who reaches this port" not in log.read_text()


async def test_tokens_of_an_issuer_open_both_tiers(tmp_path: Path) -> None:
    async with running_issuer() as issuer:
        tokens = {
            "FN_OIDC_ISSUER": issuer.url, "FN_OIDC_AUDIENCE": AUDIENCE, "FN_OIDC_APPS_CLAIM": "apps",
        }  # fmt: skip
        async with scene(tmp_path, **tokens) as there:
            fn_id = await there.deploy(issuer.token(fn_role="developer", apps=["shop"]))
            invoke = f"{there.runner.url}/invoke/{fn_id}"
            for apps, status in ((["shop"], 200), (["bank"], 403)):
                token = issuer.token(fn_role="invoker", apps=apps)
                assert await there.status("POST", invoke, token, json=BODY) == status
            assert (
                await there.status("POST", invoke, issuer.token(fn_role="invoker", exp=1), json=BODY) == 401
            )


async def test_a_node_does_not_start_with_a_bad_file(tmp_path: Path) -> None:
    file = tmp_path / "bad.yml"
    file.write_text("- {name: ci}")
    nodes = Cluster(tmp_path, {}, {"FN_API_TOKENS": str(file), "FN_DB_URL": "memory://"})
    await nodes.api.start(wait=False, FN_DB_URL=f"sqlite:///{tmp_path / 'fn.db'}")
    process = nodes.api._process
    assert process
    assert await asyncio.wait_for(process.wait(), LIMIT) == 2
    log = nodes.api.log.read_text()
    assert f"fn-node: FN_API_TOKENS: {file} cannot be used: token 1 (ci): sha256: must be 64" in log
    assert "Traceback" not in log
