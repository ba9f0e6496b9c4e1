"""The loop that all queues share: no ring is missed, and none wakes more than one."""

from __future__ import annotations

import asyncio

import pytest

from services.queue.bell import Bell
from services.queue.memory import MemoryQueue
from shared_models.call import Call
from shared_models.ids import new_id


class PushedTo(MemoryQueue):
    """A queue that gets a call just after a caller has looked and found nothing."""

    async def _next_free(self) -> float:
        found = await super()._next_free()
        if not self._messages:
            await self.push(Call(id=new_id()))
        return found


async def test_a_push_between_the_look_and_the_wait_is_not_missed() -> None:
    queue = PushedTo()
    assert len(await asyncio.wait_for(queue.reserve(1, 60, 30), 10)) == 1


async def test_a_ring_wakes_one_and_whoever_fails_passes_it_on() -> None:
    async def fail() -> None:
        with bell.listening():
            entered.set()
            await failing.wait()
            raise ZeroDivisionError

    bell, entered, failing = Bell(), asyncio.Event(), asyncio.Event()
    first = asyncio.create_task(fail())
    await entered.wait()
    with bell.listening() as second, bell.listening() as third:
        bell.ring()
        assert not second.done()
        failing.set()
        with pytest.raises(ZeroDivisionError):
            await first
        assert (second.done(), third.done()) == (True, False)
    assert third.cancelled()
