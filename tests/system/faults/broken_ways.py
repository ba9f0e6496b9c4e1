"""Faults of the network and of the servers behind the API nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared_models.background import beside
from tests.system.faults.ground import Ground
from tests.system.faults.schedule import Fault

_EACH = 0.5
"""Seconds between two cuts of a link that is cut for a while."""


@asynccontextmanager
async def cut(ground: Ground, fault: Fault) -> AsyncIterator[None]:
    link = ground.world.links[fault.target]

    async def again() -> None:
        while True:
            link.cut()
            await asyncio.sleep(_EACH)

    async with beside(again(), f"cuts of {fault.target}"):
        yield


@asynccontextmanager
async def delayed(ground: Ground, fault: Fault) -> AsyncIterator[None]:
    link = ground.world.links[fault.target]
    link.delay = ground.rng.uniform(0.05, 1.5)
    yield
    link.delay = 0.0


@asynccontextmanager
async def hung(ground: Ground, fault: Fault) -> AsyncIterator[None]:
    link = ground.world.links[fault.target]
    link.hang()
    yield
    link.flow()


@asynccontextmanager
async def losing(ground: Ground, fault: Fault) -> AsyncIterator[None]:
    link = ground.world.links[fault.target]
    link.losing = ground.rng.randint(3, 30)
    yield
    link.losing = 0


@asynccontextmanager
async def restarted(ground: Ground, fault: Fault) -> AsyncIterator[None]:
    server = ground.world.servers[fault.target]
    await asyncio.to_thread(server.stop)
    yield
    await asyncio.to_thread(server.start)


@asynccontextmanager
async def server_frozen(ground: Ground, fault: Fault) -> AsyncIterator[None]:
    server = ground.world.servers[fault.target]
    await asyncio.to_thread(server.pause)
    yield
    await asyncio.to_thread(server.resume)
