"""Faults of nodes: they die, end, stand still, have a wrong clock or a full disk, or are told to drain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp

from tests.system.faults.clock import off
from tests.system.faults.ground import Ground
from tests.system.faults.schedule import APIS, Fault
from tests.system.faults.watcher import LOOK
from tests.system.nodes import Node


@asynccontextmanager
async def killed(ground: Ground, fault: Fault) -> AsyncIterator[None]:
    await ground.world.kill(fault.target)
    yield
    await ground.world.start(fault.target, wait=False)


@asynccontextmanager
async def terminated(ground: Ground, fault: Fault) -> AsyncIterator[None]:
    await ground.world.stop(fault.target)
    yield
    await ground.world.start(fault.target, wait=False)


@asynccontextmanager
async def frozen(ground: Ground, fault: Fault) -> AsyncIterator[None]:
    node = ground.world.nodes[fault.target]
    began = time.time()
    with suppress(ProcessLookupError):
        node.pause()
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            node.resume()
        name = ground.world.environ[fault.target]["FN_NODE_ID"]
        ground.book.frozen.append((name, began, time.time()))


@asynccontextmanager
async def clock(ground: Ground, fault: Fault) -> AsyncIterator[None]:
    wrong = await asyncio.to_thread(off, 600 if fault.kind == "clock-ahead" else -600)
    await ground.world.kill(fault.target)
    await ground.world.start(fault.target, wait=False, **wrong)
    yield
    await ground.world.kill(fault.target)
    await ground.world.start(fault.target, wait=False)


@asynccontextmanager
async def drained(ground: Ground, fault: Fault) -> AsyncIterator[None]:
    node = ground.world.nodes[fault.target]
    await _set_state(ground, node, "draining")
    try:
        yield
    finally:
        await _set_state(ground, node, "active")


async def _set_state(ground: Ground, node: Node, state: str) -> None:
    name = ground.world.environ[node.name]["FN_NODE_ID"]
    while True:  # "active" must arrive: one that drains for ever would be a fault that never ends
        api = ground.rng.choice(ground.world.apis)
        with suppress(aiohttp.ClientError, TimeoutError):
            url = f"{api.url}/v2/runners/{name}"
            async with ground.http.put(url, json={"state": state}, timeout=LOOK) as answer:
                await answer.read()
                if answer.status in (404, 405):
                    ground.book.unused.add(f"drain: PUT /v2/runners/ID answers {answer.status}")
                    return
                if answer.status < 300:
                    return
        await asyncio.sleep(0.2)


@asynccontextmanager
async def full_disk(ground: Ground, fault: Fault) -> AsyncIterator[None]:
    """The runner's results find no API node, and no room in the spool."""
    disk = ground.world.disks.get(fault.target)
    links = [ground.world.links[f"{fault.target}>{api}"] for api in APIS]
    filler = await asyncio.to_thread(_fill, disk) if disk else None
    if not filler:
        ground.book.unused.add("full-disk: only root can mount a small one; the spool's limit is met")
    for link in links:
        await link.refuse()
    yield
    for link in links:
        await link.accept()
    if filler:
        filler.unlink()


def _fill(disk: Path) -> Path:
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as out:
        while out.write(bytes(4096)):
            pass
    return filler
