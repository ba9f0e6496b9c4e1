"""Makes the faults of a schedule, and takes each back when its time is over."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import aiohttp

from tests.engine.packages import Missing
from tests.system.faults.clients import LOOK, Clients
from tests.system.faults.clock import off
from tests.system.faults.schedule import APIS, Fault
from tests.system.faults.world import World
from tests.system.nodes import Node

_Fault = Callable[[Fault], AbstractAsyncContextManager[None]]
_EACH = 0.5
"""Seconds between two cuts of a link that is cut for a while."""


class Injector:
    """*seed* decides what a fault leaves open: whose calls are cancelled, how late an answer is."""

    def __init__(self, world: World, clients: Clients, seed: int, say: Callable[[str], object]) -> None:
        self._world = world
        self._clients = clients
        self._say = say
        self._rng = random.Random(seed)
        self._kinds: dict[str, _Fault] = {
            "kill-runner": self._killed,
            "kill-api": self._killed,
            "terminate-runner": self._terminated,
            "terminate-api": self._terminated,
            "freeze-runner": self._frozen,
            "freeze-api": self._frozen,
            "cut": self._cut,
            "delay": self._delayed,
            "hang": self._hung,
            "lose-answers": self._losing,
            "restart-redis": self._restarted,
            "restart-postgres": self._restarted,
            "freeze-redis": self._server_frozen,
            "freeze-postgres": self._server_frozen,
            "full-disk": self._full_disk,
            "clock-ahead": self._clock,
            "clock-behind": self._clock,
            "drain": self._drained,
            "poison": self._poisoned,
            "cancel": self._cancelled,
        }

    async def carry_out(self, faults: Sequence[Fault]) -> None:
        """All of them at their times; returns when the last is taken back and its place has recovered."""
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for fault in faults:
                group.create_task(self._one(fault, began + fault.at), name=str(fault))

    async def _one(self, fault: Fault, at: float) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(at - loop.time())
        try:
            async with self._kinds[fault.kind](fault):
                await asyncio.sleep(fault.length)
        except Missing as exc:
            self._clients.book.unused.add(f"{fault.kind}: {exc}")
            return
        near = fault.target.partition(">")[0]
        runner = self._world.nodes[near] if near in self._world.nodes and near not in APIS else None
        await self._clients.probe(fault.kind, runner)
        self._say(f"{loop.time() - at + fault.at:7.1f} s  {fault.kind} of {fault.target} is over and mended")

    # -- processes -----------------------------------------------------------------------------

    @asynccontextmanager
    async def _killed(self, fault: Fault) -> AsyncIterator[None]:
        await self._world.kill(fault.target)
        yield
        await self._world.start(fault.target, wait=False)

    @asynccontextmanager
    async def _terminated(self, fault: Fault) -> AsyncIterator[None]:
        await self._world.stop(fault.target)
        yield
        await self._world.start(fault.target, wait=False)

    @asynccontextmanager
    async def _frozen(self, fault: Fault) -> AsyncIterator[None]:
        node = self._world.nodes[fault.target]
        began = time.time()
        with suppress(ProcessLookupError):
            node.pause()
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                node.resume()
            name = self._world.environ[fault.target]["FN_NODE_ID"]
            self._clients.book.frozen.append((name, began, time.time()))

    @asynccontextmanager
    async def _clock(self, fault: Fault) -> AsyncIterator[None]:
        wrong = await asyncio.to_thread(off, 600 if fault.kind == "clock-ahead" else -600)
        await self._world.kill(fault.target)
        await self._world.start(fault.target, wait=False, **wrong)
        yield
        await self._world.kill(fault.target)
        await self._world.start(fault.target, wait=False)

    @asynccontextmanager
    async def _drained(self, fault: Fault) -> AsyncIterator[None]:
        node = self._world.nodes[fault.target]
        await self._set_state(node, "draining")
        try:
            yield
        finally:
            await self._set_state(node, "active")

    async def _set_state(self, node: Node, state: str) -> None:
        name = self._world.environ[node.name]["FN_NODE_ID"]
        while True:  # "active" must arrive: one that drains for ever would be a fault that never ends
            api = self._rng.choice(self._world.apis)
            with suppress(aiohttp.ClientError, TimeoutError):
                url = f"{api.url}/v2/runners/{name}"
                async with self._clients.http.put(url, json={"state": state}, timeout=LOOK) as answer:
                    await answer.read()
                    if answer.status in (404, 405):
                        self._clients.book.unused.add(f"drain: PUT /v2/runners/ID answers {answer.status}")
                        return
                    if answer.status < 300:
                        return
            await asyncio.sleep(0.2)

    # -- the network ---------------------------------------------------------------------------

    @asynccontextmanager
    async def _cut(self, fault: Fault) -> AsyncIterator[None]:
        link = self._world.links[fault.target]

        async def again() -> None:
            while True:
                link.cut()
                await asyncio.sleep(_EACH)

        cutting = asyncio.create_task(again())
        yield
        cutting.cancel()

    @asynccontextmanager
    async def _delayed(self, fault: Fault) -> AsyncIterator[None]:
        link = self._world.links[fault.target]
        link.delay = self._rng.uniform(0.05, 1.5)
        yield
        link.delay = 0.0

    @asynccontextmanager
    async def _hung(self, fault: Fault) -> AsyncIterator[None]:
        link = self._world.links[fault.target]
        link.hang()
        yield
        link.flow()

    @asynccontextmanager
    async def _losing(self, fault: Fault) -> AsyncIterator[None]:
        link = self._world.links[fault.target]
        link.losing = self._rng.randint(3, 30)
        yield
        link.losing = 0

    # -- servers -------------------------------------------------------------------------------

    @asynccontextmanager
    async def _restarted(self, fault: Fault) -> AsyncIterator[None]:
        server = self._world.servers[fault.target]
        await asyncio.to_thread(server.stop)
        yield
        await asyncio.to_thread(server.start)

    @asynccontextmanager
    async def _server_frozen(self, fault: Fault) -> AsyncIterator[None]:
        server = self._world.servers[fault.target]
        await asyncio.to_thread(server.pause)
        yield
        await asyncio.to_thread(server.resume)

    @asynccontextmanager
    async def _full_disk(self, fault: Fault) -> AsyncIterator[None]:
        """The runner's results find no API node, and no room in the spool."""
        disk = self._world.disks.get(fault.target)
        links = [self._world.links[f"{fault.target}>{api}"] for api in APIS]
        filler = await asyncio.to_thread(_fill, disk) if disk else None
        if not filler:
            self._clients.book.unused.add(
                "full-disk: only root can mount a small one; the spool's limit is met"
            )
        for link in links:
            await link.refuse()
        yield
        for link in links:
            await link.accept()
        if filler:
            filler.unlink()

    # -- clients -------------------------------------------------------------------------------

    @asynccontextmanager
    async def _poisoned(self, fault: Fault) -> AsyncIterator[None]:
        await self._clients.poison(fault.target)
        yield

    @asynccontextmanager
    async def _cancelled(self, fault: Fault) -> AsyncIterator[None]:
        """New ones of a while each, and whatever is under way."""
        slow: dict[str, object] = {"type": "detached", "do": "work", "seconds": 5}
        await asyncio.gather(*(self._clients.send("work", slow, {}) for _ in range(3)))
        yield
        waiting = self._clients.book.open
        chosen = self._rng.sample(waiting, min(6, len(waiting)))
        await asyncio.gather(*(self._clients.cancel(call_id) for call_id in chosen))


def _fill(disk: Path) -> Path:
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as out:
        while out.write(bytes(4096)):
            pass
    return filler
