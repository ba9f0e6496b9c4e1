"""Calls that block, seen from the event loop."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from runner_node.drivers.threads import Threads


async def test_results_and_errors_come_back() -> None:
    threads = Threads(2, "test")
    assert await threads.run(lambda: 7, 60) == 7
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0, 5)


async def test_no_more_than_the_limit_run_at_a_time() -> None:
    threads, go = Threads(2, "test"), threading.Event()
    begun: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        go.wait(60)

    asked = [asyncio.create_task(threads.run(lambda number=number: work(number), 60)) for number in range(3)]
    async with asyncio.timeout(60):
        while len(begun) < 2:
            await asyncio.sleep(0.001)
    assert sorted(begun) == [0, 1]
    go.set()
    await asyncio.gather(*asked)
    assert sorted(begun) == [0, 1, 2]


async def test_a_call_that_hangs_is_given_up_and_counts_until_it_ends() -> None:
    threads, go = Threads(1, "test"), threading.Event()
    with pytest.raises(TimeoutError):
        await threads.run(lambda: go.wait(60), 0.02)
    with pytest.raises(TimeoutError):
        await threads.run(lambda: 7, 0.02)
    go.set()
    assert await threads.run(lambda: 7, 60) == 7


def test_the_interpreter_does_not_wait_for_a_call_that_hangs() -> None:
    code = (
        "import asyncio, time\n"
        "from runner_node.drivers.threads import Threads\n"
        "async def main():\n"
        "    try: await Threads(1, 't').run(lambda: time.sleep(600), 0.05)\n"
        "    except TimeoutError: print('given up')\n"
        "asyncio.run(main())\n"
    )
    root = Path(__file__).parents[4]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60, capture_output=True, check=True)
    assert done.stdout == b"given up\n"
