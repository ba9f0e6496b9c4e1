"""Makes the faults of a schedule, and takes each back when its time is over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from tests.engine.packages import Missing
from tests.system.faults import broken_nodes, broken_ways
from tests.system.faults.clients import Clients
from tests.system.faults.ground import Ground
from tests.system.faults.schedule import APIS, Fault

KINDS: dict[str, Callable[[Ground, Fault], AbstractAsyncContextManager[None]]] = {
    "kill-runner": broken_nodes.killed,
    "kill-api": broken_nodes.killed,
    "terminate-runner": broken_nodes.terminated,
    "terminate-api": broken_nodes.terminated,
    "freeze-runner": broken_nodes.frozen,
    "freeze-api": broken_nodes.frozen,
    "full-disk": broken_nodes.full_disk,
    "clock-ahead": broken_nodes.clock,
    "clock-behind": broken_nodes.clock,
    "drain": broken_nodes.drained,
    "cut": broken_ways.cut,
    "delay": broken_ways.delayed,
    "hang": broken_ways.hung,
    "lose-answers": broken_ways.losing,
    "restart-redis": broken_ways.restarted,
    "restart-postgres": broken_ways.restarted,
    "freeze-redis": broken_ways.server_frozen,
    "freeze-postgres": broken_ways.server_frozen,
}
"""Those that break something; "poison" and "cancel" are what clients do."""


class Injector:
    """*say* is told of each fault that is over and mended."""

    def __init__(self, ground: Ground, clients: Clients, say: Callable[[str], object]) -> None:
        self._ground = ground
        self._clients = clients
        self._say = say

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
            async with self._made(fault):
                await asyncio.sleep(fault.length)
        except Missing as exc:
            self._ground.book.unused.add(f"{fault.kind}: {exc}")
            return
        near = fault.target.partition(">")[0]
        nodes = self._ground.world.nodes
        await self._clients.probe(fault.kind, nodes[near] if near in nodes and near not in APIS else None)
        self._say(f"{loop.time() - at + fault.at:7.1f} s  {fault.kind} of {fault.target} is over and mended")

    def _made(self, fault: Fault) -> AbstractAsyncContextManager[None]:
        if fault.kind == "poison":
            return self._poisoned(fault)
        return self._cancelled() if fault.kind == "cancel" else KINDS[fault.kind](self._ground, fault)

    @asynccontextmanager
    async def _poisoned(self, fault: Fault) -> AsyncIterator[None]:
        await self._clients.poison(fault.target)
        yield

    @asynccontextmanager
    async def _cancelled(self) -> AsyncIterator[None]:
        """Some that run for a while, and whatever else is under way."""
        slow: dict[str, object] = {"type": "detached", "do": "work", "seconds": 5}
        await asyncio.gather(*(self._clients.send("work", slow, {}) for _ in range(3)))
        yield
        waiting = self._ground.book.open
        chosen = self._ground.rng.sample(waiting, min(6, len(waiting)))
        await asyncio.gather(*(self._clients.cancel(call_id) for call_id in chosen))
