"""What is broken: two API nodes, three runners, Redis and PostgreSQL as processes; a proxy on each way."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from tests.engine.packages import Missing
from tests.servers.ports import free_port
from tests.servers.postgres import Postgres
from tests.servers.proxy import Proxy, proxy
from tests.servers.redis import Redis
from tests.servers.server import Server, running
from tests.system.faults.schedule import APIS, RUNNERS
from tests.system.nodes import TOKEN, Node

LEASE = 4.0
"""Seconds of a lease: short, so that many run out."""
CALL_TIMEOUT = 30
"""Seconds: longer than any node stands still, or its calls would time out."""
SLOT_WAIT = 15
FUNCTIONS = Path(__file__).with_name("functions")
_SUPERVISED = 0.5


class World:
    """Made by ``open_world``. Nodes are started by ``start``; what is *down* is meant to be."""

    def __init__(self, folder: Path, redis: Server, postgres: Server) -> None:
        self.folder = folder
        self.ledger = folder / "ledger"
        self.servers: dict[str, Server] = {"redis": redis, "postgres": postgres}
        self.nodes: dict[str, Node] = {}
        self.links: dict[str, Proxy] = {}
        self.environ: dict[str, Mapping[str, str]] = {}
        self.disks: dict[str, Path] = {}
        self.down: set[str] = set()
        self.exits: list[str] = []
        """Nodes that ended by themselves, with their exit codes; they are started again."""

    @property
    def apis(self) -> list[Node]:
        return [self.nodes[name] for name in APIS]

    @property
    def runners(self) -> list[Node]:
        return [self.nodes[name] for name in RUNNERS]

    async def start(self, name: str, *, wait: bool = True, **environ: str) -> None:
        """Starts a node that is down."""
        await self.nodes[name].start(wait=wait, **environ)
        self.down.discard(name)

    async def kill(self, name: str) -> None:
        """SIGKILL, and it stays down."""
        self.down.add(name)
        await self.nodes[name].kill()

    async def stop(self, name: str) -> int:
        """SIGTERM, and it stays down; answers the exit code."""
        self.down.add(name)
        return await self.nodes[name].stop(60.0)

    async def supervise(self) -> None:
        """For ever: starts nodes again that ended by themselves, as what runs nodes does."""
        while True:
            await asyncio.sleep(_SUPERVISED)
            for name, node in self.nodes.items():
                if name not in self.down and node.exit_code is not None:
                    self.exits.append(f"{name} ended with exit code {node.exit_code}")
                    await node.start(wait=False)

    def logs(self) -> dict[str, str]:
        """All that each node has logged."""
        return {
            name: node.log.read_text(errors="replace")
            for name, node in self.nodes.items()
            if node.log.exists()
        }


@asynccontextmanager
async def open_world(folder: Path, **runner_environ: str) -> AsyncIterator[World]:
    """Servers and started nodes, all of which end with the block; raises Missing without a server."""
    async with AsyncExitStack() as stack:
        redis = stack.enter_context(running(Redis, True))
        postgres = stack.enter_context(running(Postgres, True))
        world = World(folder, redis, postgres)
        for name in APIS:
            ports = {server: await _link(world, stack, name, server) for server in world.servers}
            stores = {
                "FN_DB_URL": _through(postgres, ports["postgres"]),
                "FN_LOGSTORE_URL": _through(postgres, ports["postgres"]),
                "FN_MQ_URL": _through(redis, ports["redis"]),
                "FN_CALLBACK_ALLOW": "127.0.0.1/32",
                "FN_ASYNC_LEASE_SECS": str(LEASE),
                "FN_ASYNC_BACKOFF_SECS": "0.5",
                "FN_ASYNC_MAX_BACKOFF_SECS": "4",
            }
            _add(world, name, "api", stores)
        for number, name in enumerate(RUNNERS):
            ways = [await _link(world, stack, name, api) for api in APIS]
            ways = ways[number % 2 :] + ways[: number % 2]  # not all ask the same one first
            spool = folder / f"{name}-spool"
            spool.mkdir()
            if _small_disk(stack, spool):
                world.disks[name] = spool
            environ = {
                "FN_RUNNER_API_URL": ",".join(f"http://127.0.0.1:{port}" for port in ways),
                "FN_CLIENT_TIMEOUT": "4",
                "FN_CLIENT_CONNECT_TIMEOUT": "2",
                "FN_DRIVER": "process",
                "FN_PROCESS_IMAGES": str(FUNCTIONS),
                "FN_SPOOL_PATH": str(spool),
                "FN_MAX_SPOOL_SIZE_BYTES": str(64 << 10),
                "FN_MAX_TOTAL_MEMORY_BYTES": str(1 << 30),
                "FN_SLOT_WAIT_SECS": str(SLOT_WAIT),
                **runner_environ,
            }
            _add(world, name, "runner", environ)
        stack.push_async_callback(_end, world)
        await asyncio.gather(*(api.start() for api in world.apis))
        await asyncio.gather(*(runner.start() for runner in world.runners))
        yield world


async def _link(world: World, stack: AsyncExitStack, near: str, far: str) -> int:
    port = world.servers[far].port if far in world.servers else world.nodes[far].port
    link = world.links[f"{near}>{far}"] = await stack.enter_async_context(proxy(port))
    return link.port


def _through(server: Server, port: int) -> str:
    return server.url.replace(f":{server.port}/", f":{port}/") + "?timeout=3&connect_timeout=3"


def _add(world: World, name: str, kind: str, environ: Mapping[str, str]) -> None:
    common = {
        "FN_PORT": str(free_port()),
        "FN_HOST": "127.0.0.1",
        # A node sweeps what an earlier one of its name left: no other test may have this name.
        "FN_NODE_ID": f"{name}-{os.getpid()}",
        "FN_RUNNER_TOKEN": TOKEN,
        "FN_DRAIN_SECS": "3",
        "FN_HTTP_DRAIN": "5",
        "PYTHONWARNINGS": "default::ResourceWarning",
    }
    world.environ[name] = {**common, **environ}
    world.nodes[name] = Node(name, kind, world.environ[name], world.folder)


def _small_disk(stack: AsyncExitStack, folder: Path) -> bool:
    """Whether *folder* is a disk of its own now, of 256 kB; only root may make one."""
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        return False
    stack.callback(subprocess.run, ["umount", "-l", str(folder)], check=False)
    return True


async def _end(world: World) -> None:
    """Whatever state the world is in: nodes that stand still get no SIGTERM."""
    for node in reversed(world.nodes.values()):
        if node.exit_code is None:
            try:
                node.resume()
                await node.stop(30.0)
            except AssertionError:
                continue


__all__ = ["CALL_TIMEOUT", "FUNCTIONS", "LEASE", "Missing", "World", "open_world"]
