"""One timer for the deadlines of many."""

from __future__ import annotations

import asyncio

import pytest

from runner_node.deadlines import Deadlines, Due


class Deadline(Due):
    """Notes in *log* that it has passed."""

    def __init__(self, name: str, seconds: float, log: list[str], *, breaks: bool = False) -> None:
        self.until = asyncio.get_running_loop().time() + seconds
        self.name = name
        self.passed = asyncio.Event()
        self._log = log
        self._breaks = breaks

    def expire(self) -> None:
        assert asyncio.get_running_loop().time() >= self.until
        self._log.append(self.name)
        self.passed.set()
        if self._breaks:
            raise RuntimeError("broke")


async def test_each_deadline_passes_once_in_its_order_and_not_before() -> None:
    deadlines, log = Deadlines(), list[str]()
    later, sooner, never = (Deadline(*each, log) for each in (("b", 0.1), ("a", 0.05), ("c", 0.07)))
    for one in (later, sooner, never):
        deadlines.add(one)
    deadlines.discard(never)
    deadlines.discard(never)
    async with asyncio.timeout(60):
        await later.passed.wait()
    assert log == ["a", "b"]
    assert len(deadlines) == 0


async def test_one_that_comes_later_and_ends_sooner_is_not_late() -> None:
    deadlines, log = Deadlines(), list[str]()
    deadlines.add(Deadline("far", 3600.0, log))
    near = Deadline("near", 0.02, log)
    deadlines.add(near)
    async with asyncio.timeout(60):
        await near.passed.wait()
    assert log == ["near"]
    assert len(deadlines) == 1


async def test_one_that_breaks_down_is_in_nobodys_way(caplog: pytest.LogCaptureFixture) -> None:
    deadlines, log = Deadlines(), list[str]()
    one, other, third = (Deadline(name, 0.02, log, breaks=name == "a") for name in "abc")
    for each in (one, other, third):
        deadlines.add(each)
    async with asyncio.timeout(60):
        await third.passed.wait()
        await other.passed.wait()
    assert sorted(log) == ["a", "b", "c"]
    assert caplog.text.count("RuntimeError: broke") == 1
