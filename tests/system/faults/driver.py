"""One run from the start of the servers to the verdicts."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import aiohttp

from tests.system.faults.book import Book
from tests.system.faults.clients import Clients
from tests.system.faults.evidence import gather, queued
from tests.system.faults.ground import Ground
from tests.system.faults.injector import Injector
from tests.system.faults.order import in_order
from tests.system.faults.receiver import receiving
from tests.system.faults.report import Result
from tests.system.faults.rules import judge
from tests.system.faults.schedule import KINDS, schedule
from tests.system.faults.watcher import Watcher
from tests.system.faults.world import open_world
from tests.tasks import stopped

REST = 90.0
"""Seconds after the last fault within which one more call ends, or is called back, while any is left."""
WARM = 5.0
"""Seconds of load before the first fault."""


async def run(
    folder: Path,
    seed: int,
    seconds: float,
    *,
    kinds: Sequence[str] = tuple(KINDS),
    rate: float = 6.0,
    say: Callable[[str], object] = print,
) -> Result:
    """Carries out the schedule of *seed*, *rate* detached calls a second; raises Missing without a server."""
    faults = schedule(seed, seconds, kinds)
    say(f"FN_FAULTS_SEED={seed}: {len(faults)} faults in {seconds:g} s")
    for fault in faults:
        say(str(fault))
    book = Book()
    async with (
        open_world(folder) as world,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, force_close=True)) as http,
        receiving(book, seed) as callback_url,
    ):
        watching = Watcher(http, world, book, seed)
        clients = Clients(watching, seed, rate, callback_url)
        await clients.deploy()
        injector = Injector(Ground(world, book, http, random.Random(seed)), clients, say)
        supervisor = asyncio.create_task(world.supervise())
        watcher = asyncio.create_task(watching.watch())
        load = asyncio.create_task(clients.steady())
        try:
            await asyncio.sleep(WARM)
            await injector.carry_out(faults)
            await stopped(load)
            began = time.monotonic()
            say(
                f"the faults are over: of {len(book.accepted)} accepted calls {len(book.open)} have not ended"
            )
            await clients.finish()
            await _until_rest(watching)
            settled = time.monotonic() - began
            order = await in_order(world, clients, random.Random(seed))
            await _until_rest(watching)
            await _until_called_back(book)
        finally:
            await stopped(load, watcher, supervisor)
        evidence = await gather(http, world, book)
        return Result(seed, seconds, faults, evidence, [*judge(evidence), order], settled)


async def _until_rest(watching: Watcher) -> None:
    """Until all accepted calls have ended and the queue is empty, or nothing has ended for ``REST``."""

    async def left() -> int:
        await asyncio.gather(*(watching.look(call_id) for call_id in watching.book.open[:50]))
        return len(watching.book.open) + await queued(watching.world)

    await _until_none(left)


async def _until_called_back(book: Book) -> None:
    """Until all callbacks have come, or none has for ``REST``: one that was refused comes seconds later."""

    async def left() -> int:
        return len(book.uncalled)

    await _until_none(left)


async def _until_none(left: Callable[[], Awaitable[int]]) -> None:
    """Until nothing is *left*, or for ``REST`` no less than before: a busy machine may take its time."""
    least, deadline = None, 0.0
    while now_left := await left():
        if least is None or now_left < least:
            least, deadline = now_left, time.monotonic() + REST
        elif time.monotonic() > deadline:
            return
        await asyncio.sleep(0.3)
