from __future__ import annotations

import asyncio

import pytest

from services.callbacks.lanes import LONGEST, Lane, Lanes, NoRoom


class Walker:
    """Goes through a lane, and stays inside until told to leave."""

    def __init__(self, lane: Lane) -> None:
        self.inside = asyncio.Event()
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._walk(lane))

    async def _walk(self, lane: Lane) -> None:
        async with lane.passing():
            self.inside.set()
            await self.leave.wait()


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_as_many_pass_at_once_as_the_lane_is_wide_and_the_first_in_line_is_next() -> None:
    lane = Lane(2)
    walkers = [Walker(lane) for _ in range(4)]
    await turns()
    assert [one.inside.is_set() for one in walkers] == [True, True, False, False]
    walkers[1].leave.set()
    await turns()
    assert [one.inside.is_set() for one in walkers] == [True, True, True, False]
    for one in walkers:
        one.leave.set()
    await asyncio.gather(*(one.task for one in walkers))
    await turns()
    assert lane.idle


async def test_whoever_waits_in_vain_is_told_when_to_come_back() -> None:
    lane = Lane(1, patience=0.01)
    walker = Walker(lane)
    await walker.inside.wait()
    for _ in range(3):
        with pytest.raises(NoRoom) as caught:
            async with lane.passing():
                raise AssertionError("two inside")
        assert 0 < caught.value.delay <= LONGEST
    walker.leave.set()
    await walker.task
    async with asyncio.timeout(60), lane.passing():
        assert not lane.idle


async def test_those_who_come_back_do_so_one_after_the_other() -> None:
    lane = Lane(1, patience=0.0)
    walker = Walker(lane)
    await walker.inside.wait()
    delays = []
    for _ in range(1000):
        with pytest.raises(NoRoom) as caught:
            await lane.passing().__aenter__()
        delays.append(caught.value.delay)
    # A second each, as nothing is known of how long one takes.
    assert delays[1] - delays[0] == pytest.approx(1.0, abs=0.5)
    assert delays[100] - delays[0] == pytest.approx(100.0, abs=5)
    assert max(delays) <= LONGEST
    walker.leave.set()
    await walker.task


async def test_a_long_line_is_not_joined() -> None:
    lane = Lane(1, patience=3.0)
    walkers = [Walker(lane) for _ in range(5)]
    await turns()
    with pytest.raises(NoRoom):
        await lane.passing().__aenter__()
    for one in walkers:
        one.leave.set()
    await asyncio.gather(*(one.task for one in walkers))


async def test_whoever_leaves_the_line_takes_no_place() -> None:
    lane = Lane(1)
    inside, gone, last = Walker(lane), Walker(lane), Walker(lane)
    await inside.inside.wait()
    await turns()
    gone.task.cancel()
    inside.leave.set()
    async with asyncio.timeout(60):
        await last.inside.wait()
    last.leave.set()
    await last.task


async def test_lanes_that_are_not_used_are_forgotten() -> None:
    lanes = Lanes(1)
    for number in range(5000):
        async with lanes.of(f"host{number}"):
            pass
    assert len(lanes) <= 1000


async def test_each_key_has_a_lane_of_its_own() -> None:
    lanes = Lanes(1, patience=0.01)
    async with lanes.of("slow"):
        async with lanes.of("fast"):
            pass
        with pytest.raises(NoRoom):
            async with lanes.of("slow"):
                raise AssertionError("two inside")
