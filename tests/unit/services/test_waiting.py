"""The loop that all queues share: no ring is missed, and none wakes more than one."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection

import pytest

from services.queue.bell import Bell
from services.queue.memory import MemoryQueue
from shared_models.call import Call, LeasedCall
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
    assert len(await asyncio.wait_for(queue.reserve(1, 60, 30), 60)) == 1


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


async def test_a_ring_wakes_the_first_of_each_line() -> None:
    bell, full = Bell(), frozenset({"full"})
    with (
        bell.listening() as first,
        bell.listening() as second,
        bell.listening(full) as third,
        bell.listening(full) as fourth,
    ):
        bell.ring()
        assert [one.done() for one in (first, second, third, fourth)] == [True, False, True, False]
        bell.pass_on(full)
        assert (second.done(), fourth.done()) == (False, True)
        bell.pass_on(full)
        bell.pass_on()
        assert second.done()


async def test_a_ring_for_a_function_does_not_wake_those_who_pass_it_over() -> None:
    bell = Bell()
    with (
        bell.listening(frozenset({"full"})) as one,
        bell.listening(frozenset({"full", "a"})) as other,
        bell.listening() as everything,
    ):
        bell.ring("full")
        assert [waiter.done() for waiter in (one, other, everything)] == [False, False, True]
        bell.ring("a")
        assert (one.done(), other.done()) == (True, False)
        bell.ring("")
        assert other.done()


async def test_a_bell_remembers_nobody_who_has_left() -> None:
    bell = Bell()
    for number in range(3):
        with bell.listening(frozenset({f"fn-{number}"})), bell.listening():
            bell.ring("fn-1")
    assert not bell._lines


async def test_calls_of_a_function_do_not_wake_those_who_pass_it_over() -> None:
    class Counting(MemoryQueue):
        looks = 0

        async def _take(self, limit: int, ttl: float, without: Collection[str]) -> list[LeasedCall]:
            self.looks += 1
            return await super()._take(limit, ttl, without)

    queue = Counting()
    waiter = asyncio.create_task(queue.reserve(1, 60, 30, ["full"]))
    while not queue.looks:
        await asyncio.sleep(0)
    for _ in range(100):
        await queue.push(Call(id=new_id(), fn_id="full"))
        await asyncio.sleep(0)
    assert queue.looks == 1
    call = Call(id=new_id(), fn_id="a")
    await queue.push(call)
    assert [one.call.id for one in await waiter] == [call.id]
    assert queue.looks == 2


async def test_a_lease_that_others_were_given_since_the_look_is_waited_for() -> None:
    class Overtaken(MemoryQueue):
        """Its waiting callers do not know what was leased to others after they had looked."""

        async def _next_free(self) -> float:
            return math.inf

    queue = Overtaken()
    call = Call(id=new_id())
    await queue.push(call)
    assert await queue.reserve(1, 0, 0.1)
    [again] = await asyncio.wait_for(queue.reserve(1, 60, 0.1), 60)
    assert (again.call.id, again.lease and again.lease.attempt) == (call.id, 2)
