"""How much waits of one function: looked at once for all who come at the same time."""

from __future__ import annotations

import asyncio

import pytest

from services import depths
from services.depths import Depths
from services.queue import open_queue
from shared_models.async_policy import AsyncSettings
from shared_models.call import Call
from shared_models.errors import QueueFull
from shared_models.ids import new_id
from shared_models.interfaces import MessageQueue, QueueDepth


class Slow:
    """A queue that is asked one thing, and answers when it may."""

    def __init__(self, queue: MessageQueue) -> None:
        self.may = asyncio.Event()
        self.asked = 0
        self._queue = queue

    async def depth(self, fn_id: str) -> QueueDepth:
        self.asked += 1
        await self.may.wait()
        return await self._queue.depth(fn_id)


async def test_those_who_come_while_one_looks_go_by_what_was_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(depths, "FRESH", 0.0)
    call, settings = Call(id=new_id(), fn_id="f"), AsyncSettings(max_queued=1)
    async with open_queue("memory://") as queue:
        slow = Slow(queue)
        known = Depths(slow)  # type: ignore[arg-type]
        slow.may.set()
        await known.refuse_if_full(call, settings)
        slow.may.clear()
        await queue.push(Call(id=new_id(), fn_id="f"))
        first = asyncio.create_task(known.refuse_if_full(call, settings))
        while slow.asked == 1:
            await asyncio.sleep(0)
        for _ in range(64):
            await known.refuse_if_full(call, settings)
        assert slow.asked == 2
        slow.may.set()
        with pytest.raises(QueueFull):
            await first
