"""Tasks beside a test: their end hides neither a cancellation of the test nor what they broke down with."""

from __future__ import annotations

import asyncio

import pytest

from tests.tasks import stopped

LIMIT = 30.0


async def test_who_stops_a_task_and_is_cancelled_then_learns_of_it() -> None:
    began, cancelled, may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
            await may_end.wait()

    task = asyncio.create_task(work())
    async with asyncio.timeout(LIMIT):
        await began.wait()
        stopping = asyncio.create_task(stopped(task))
        await cancelled.wait()
        stopping.cancel()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await stopping


async def test_what_a_task_broke_down_with_is_raised_once_all_have_ended() -> None:
    async def broken() -> None:
        raise ValueError("a bug")

    tasks = [asyncio.create_task(broken()), asyncio.create_task(asyncio.Event().wait())]
    async with asyncio.timeout(LIMIT):
        await asyncio.wait({tasks[0]})
        with pytest.raises(ValueError, match="a bug"):
            await stopped(*tasks)
    assert tasks[1].cancelled()


async def test_a_task_that_is_cancelled_has_not_broken_down() -> None:
    task = asyncio.create_task(asyncio.Event().wait())
    async with asyncio.timeout(LIMIT):
        await stopped(task)
    assert task.cancelled()
