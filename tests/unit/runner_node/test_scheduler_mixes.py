"""Mixes of functions at random: whatever they are like, each gets its turn, and nothing is lost."""

from __future__ import annotations

import asyncio
import random

import pytest

from runner_node.hot_container import StartFailed
from shared_models import errors
from tests.unit.runner_node.simulation import EJECT, Node, simulated

SECONDS = 120.0


@pytest.mark.parametrize("seed", range(20))
def test_every_function_of_a_mix_gets_its_turn(seed: int) -> None:
    chance = random.Random(seed)
    slots, count = chance.choice([1, 2, 3, 5, 8, 16]), chance.randint(2, 8)

    async def main() -> None:
        node = Node(slots, start_time=chance.uniform(0.01, 0.5), max_waiting_calls=chance.choice([0, 50]))
        longest = 0.0
        refused = 0

        async def caller(name: str, memory: int, seconds: float, *, sync: bool) -> None:
            nonlocal refused
            target = node.target(name, memory=memory)
            while True:
                try:
                    await node.call(target, chance.expovariate(1 / seconds), sync=sync, patience=60.0)
                except (errors.ServerBusy, StartFailed):
                    refused += 1
                    await asyncio.sleep(1.0)
                await asyncio.sleep(chance.choice([0.0, 0.0, chance.uniform(0, 3.0)]))

        names = []
        for number in range(count):
            name, seconds = f"f{number}", chance.choice([0.01, 0.1, 1.0])
            memory = chance.choice([64, 128, 128, 256]) if slots > 3 else 128
            names.append(name)
            longest = max(longest, seconds)
            sync = chance.random() < 0.6
            for _ in range(chance.choice([1, 3, 20])):
                node.begin(caller(name, memory, seconds, sync=sync))
        if chance.random() < 0.5:
            node.driver.broken["bad"] = errors.ContainerInitFailed()
            node.driver.slow["bad"] = chance.choice([0.0, 5.0])
            for _ in range(5):
                node.begin(caller("bad", 128, 1.0, sync=True))
        served = dict.fromkeys(names, 0)
        # Each turn of all the others: it is waited for, then calls end, then a container starts.
        turn = (count + 2) * (EJECT + 3 * longest + 1.0)
        for _ in range(int(SECONDS / turn) + 1):
            await asyncio.sleep(turn)
            for name in names:
                assert node.served[name] > served[name], f"{name} got nothing in {turn:g} s: {node.served}"
                served[name] = node.served[name]
        await node.close()

    simulated(main)()
