"""The quiet phase: one runner that takes one call at a time, no faults; order within a priority is kept."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from tests.system.faults import ledger
from tests.system.faults.clients import Clients
from tests.system.faults.rules import Verdict
from tests.system.faults.schedule import RUNNERS
from tests.system.faults.world import World

CALLS = 15
_RULE = "Without faults, calls start in their order: higher priority first, first in first out within one"


async def in_order(world: World, clients: Clients, rng: random.Random) -> Verdict:
    """Sends calls of random priorities behind one that holds the runner up, and reads the ledger."""
    for name in RUNNERS:
        await world.stop(name)
    await world.start(RUNNERS[0], FN_MAX_ASYNC_CALLS="1")
    runner = world.nodes[RUNNERS[0]]
    gate = world.folder / "go-on"
    long: dict[str, object] = {"type": "detached", "do": "work", "gate": str(gate)}
    short: dict[str, object] = {"type": "detached", "do": "work", "seconds": 0}
    first = await clients.send("work", long, {}, runner)
    if not await _soon(lambda: first in ledger.read(world.ledger)):
        return Verdict(_RULE, 1, [f"{first} does not start"])
    sent: list[tuple[int, str]] = []
    for _ in range(CALLS):
        priority = rng.randint(0, 2)
        call_id = await clients.send("work", short, {"Fn-Priority": str(priority)}, runner)
        sent.append((-priority, call_id))
    held = not ledger.read(world.ledger)[first][0].ended
    gate.touch()
    wanted = [call_id for _, call_id in sorted(sent, key=lambda one: one[0])]
    if not await _soon(lambda: set(wanted) <= ledger.read(world.ledger).keys()):
        missing = set(wanted) - ledger.read(world.ledger).keys()
        return Verdict(_RULE, len(wanted), [f"{one} does not start" for one in missing])
    runs = ledger.read(world.ledger)
    found = sorted(wanted, key=lambda call_id: runs[call_id][0].started)
    broken = [] if found == wanted else [f"wanted {wanted}, found {found}, priorities {sent}"]
    if not held:
        broken = ["the first call was over before the last was accepted: nothing is shown"]
    return Verdict(_RULE, len(wanted), broken)


async def _soon(condition: Callable[[], bool]) -> bool:
    """Whether *condition* becomes true within a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True
