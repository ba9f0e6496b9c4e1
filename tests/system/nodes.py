"""Real nodes as processes: started, asked, killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp

from tests.servers.ports import free_port

ROOT = Path(__file__).parents[2]
TOKEN = "system-test-token"
START_LIMIT = 120.0
BACK_WITHIN = 60.0


class Node:
    """A node process. Its log goes to a file, which a failing test shows."""

    def __init__(
        self, name: str, kind: str, environ: Mapping[str, str], folder: Path, code: Path = ROOT
    ) -> None:
        self.name = name
        self.code = code
        """Folder of the packages that it runs: those of another release, perhaps, from its next start on."""
        self.kind = kind
        self.port = int(environ["FN_PORT"])
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"{name}.log"
        self._environ = environ
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, *, wait: bool = True, **environ: str) -> None:
        """Returns when the node says that it is ready; *environ* is for this start only."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "deploy", self.kind,
                stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.code,
                env={**_clean_environ(), **self._environ, **environ},
            )  # fmt: skip
        if wait:
            await self.until_ready()

    async def until_ready(self) -> None:
        """Fails with the node's log when it does not become ready in time."""
        assert self._process
        async with aiohttp.ClientSession() as http:
            for _ in range(int(START_LIMIT / 0.1)):
                if self._process.returncode is not None:
                    break
                with suppress(aiohttp.ClientError, TimeoutError):
                    async with http.get(f"{self.url}/readyz", timeout=aiohttp.ClientTimeout(2)) as answer:
                        if answer.status == 200:
                            return
                await asyncio.sleep(0.1)
        raise AssertionError(f"{self.name} is not ready:\n{self.log.read_text()}")

    @property
    def pid(self) -> int:
        assert self._process
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs, and before its first start."""
        return self._process.returncode if self._process else None

    def pause(self) -> None:
        """SIGSTOP: it stands still, its connections stay."""
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: it goes on as if no time had passed."""
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    async def kill(self) -> None:
        """SIGKILL: nothing is put in order."""
        assert self._process
        self._process.kill()
        await self._process.wait()

    async def stop(self, limit: float = 60.0) -> int:
        """SIGTERM; answers the exit code, and kills a node that takes longer than *limit* seconds."""
        assert self._process
        if self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), limit)
            except TimeoutError:
                await self.kill()
                raise AssertionError(f"{self.name} did not stop:\n{self.log.read_text()}") from None
        assert self._process.returncode is not None
        return self._process.returncode


def _clean_environ() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("FN_")}


class Cluster:
    """API nodes and runner nodes, all below one folder; *stores* are SQLite files unless it has URLs."""

    def __init__(
        self,
        folder: Path,
        runner_environ: Mapping[str, str],
        stores: Mapping[str, str] | None = None,
        apis: int = 1,
        code: Path = ROOT,
    ) -> None:
        self.folder = folder
        self.nodes: list[Node] = []
        self._runner_environ = runner_environ
        data = folder / "data"
        stores = stores or {
            "FN_DB_URL": f"sqlite:///{data / 'fn.db'}",
            "FN_MQ_URL": f"sqlite:///{data / 'queue.db'}",
            "FN_LOGSTORE_URL": f"sqlite:///{data / 'fn.db'}",
        }
        names = ["api"] if apis == 1 else [f"api-{number}" for number in range(apis)]
        self.apis = [self._node(name, "api", {"FN_NODE_ID": name, **stores}, code) for name in names]
        self.api = self.apis[0]

    def runner(self, name: str, first: int = 0, **environ: str) -> Node:
        """One more runner node, not yet started. It asks the API node number *first* before others."""
        apis = self.apis[first:] + self.apis[:first]
        return self._node(
            name, "runner",
            {
                "FN_RUNNER_API_URL": ",".join(api.url for api in apis),
                # Of this worker alone: a process driver ends what an earlier node of its id left.
                "FN_NODE_ID": f"{name}-{os.getpid()}",
                "FN_SPOOL_PATH": str(self.folder / f"{name}-spool"),
                # The first call of all waits for what its function needs to be installed.
                "FN_SLOT_WAIT_SECS": "240",
                **self._runner_environ,
                **environ,
            },
        )  # fmt: skip

    def _node(self, name: str, kind: str, environ: Mapping[str, str], code: Path = ROOT) -> Node:
        common = {
            "FN_PORT": str(free_port()), "FN_HOST": "127.0.0.1", "FN_RUNNER_TOKEN": TOKEN,
            "FN_DRAIN_SECS": "5", "FN_HTTP_DRAIN": "5",
        }  # fmt: skip
        node = Node(name, kind, {**common, **environ}, self.folder, code)
        self.nodes.append(node)
        return node

    def logs(self) -> str:
        """The last lines of every node, for a failing test."""
        return "\n".join(
            f"--- {node.name}\n" + "\n".join(node.log.read_text().splitlines()[-40:])
            for node in self.nodes
            if node.log.exists()
        )


@asynccontextmanager
async def cluster(
    folder: Path,
    runner_environ: Mapping[str, str],
    stores: Mapping[str, str] | None = None,
    apis: int = 1,
    code: Path = ROOT,
) -> AsyncIterator[Cluster]:
    """Started API nodes of *code* and the means to start runners; every node is stopped at the end."""
    nodes = Cluster(folder, runner_environ, stores, apis, code)
    try:
        # At once: the first on an empty database, all of which want to make its tables.
        await asyncio.gather(*(api.start() for api in nodes.apis))
        yield nodes
    finally:
        for node in reversed(nodes.nodes):
            with suppress(AssertionError):
                if node._process:
                    await node.stop()


async def ask(http: aiohttp.ClientSession, method: str, url: str, **more: Any) -> Any:
    """The JSON (or text) of an answer that must be a success."""
    async with http.request(method, url, **more) as answer:
        body = await answer.read()
        assert answer.status < 300, f"{method} {url}: {answer.status} {body.decode('utf-8', 'replace')}"
        return await answer.json(content_type=None) if answer.content_type.endswith("json") else body.decode()


async def ask_again(http: aiohttp.ClientSession, url: str, **more: Any) -> Any:
    """What a GET answers, of nodes whose stores were away a moment ago: as long as it is 503, asked again."""
    deadline = time.monotonic() + BACK_WITHIN
    while True:
        async with http.get(url, **more) as answer:
            if answer.status != 503 or time.monotonic() > deadline:
                break
        await asyncio.sleep(0.2)
    return await ask(http, "GET", url, **more)
