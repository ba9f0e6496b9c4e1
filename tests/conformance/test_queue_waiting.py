"""The contract of message queues: calls that nobody holds, in pages, and leases of those that are named."""

from __future__ import annotations

import asyncio

import pytest

from shared_models.interfaces import MessageQueue, WaitingCall
from tests.conformance.test_queue import TTL, ids, push, take


async def all_waiting(queue: MessageQueue, fn_id: str = "fn", limit: int = 3) -> list[WaitingCall]:
    """All pages."""
    found: list[WaitingCall] = []
    while some := await queue.waiting(fn_id, found[-1].place if found else "", limit):
        assert len(some) <= limit
        found += some
    return found


async def test_all_that_nobody_holds_comes_in_pages(queue: MessageQueue, clock) -> None:
    made = [await push(queue, priority=n % 3 - 1, delay=n % 2 * 50, payload=b"p") for n in range(14)]
    for _ in range(3):
        await push(queue, fn_id="other")
    clock.move(10)
    lost, held = await take(queue, 1, ["other"]), await take(queue, 2, ["other"])
    await queue.extend([one.key for one in held], 300)
    clock.move(TTL + 1)
    found = await all_waiting(queue)
    assert sorted(one.call.id for one in found) == sorted({call.id for call in made} - set(ids(held)))
    assert [one.age for one in found] == [pytest.approx(10 + TTL + 1)] * len(found)
    assert {one.call.payload for one in found} == {b""}
    assert {one.call.id: one.call.attempt for one in found if one.call.attempt} == {lost[0].call.id: 1}
    assert {one.call.delay for one in found} == {0, 50}
    assert await queue.waiting("nobody", "", 5) == []
    assert len(await all_waiting(queue, "other", 1)) == 3


async def test_pages_go_on_where_the_last_call_is_gone(queue: MessageQueue) -> None:
    made = [(await push(queue)).id for _ in range(9)]
    seen: list[str] = []
    place = ""
    while some := await queue.waiting("fn", place, 2):
        place = some[-1].place
        seen += [one.call.id for one in some]
        await queue.delete([one.key for one in await queue.reserve_named([some[-1].call.id], TTL)])
    assert seen == made


async def test_calls_that_are_named_are_leased_unless_somebody_holds_them(queue: MessageQueue, clock) -> None:
    held, free, late, done, other = [await push(queue, delay=n % 3 // 2 * 60) for n in range(5)]
    assert late.delay == 60
    clock.move(7)
    [lease] = await queue.reserve_named([held.id], TTL)
    assert (lease.call.id, lease.lease.attempt, lease.call.attempt, lease.lease.ttl) == (held.id, 1, 1, TTL)
    assert lease.lease.age == pytest.approx(7)
    [gone] = await queue.reserve_named([done.id, done.id], TTL)
    await queue.delete([gone.key])
    named = [one.id for one in (held, free, late, done)]
    assert ids(await queue.reserve_named([*named, "unknown"], TTL)) == [free.id]
    assert await queue.reserve_named([], TTL) == []
    assert ids(await take(queue)) == [other.id], "what was named has been leased"
    assert (await queue.depth("fn")).leased == 3
    clock.move(TTL + 1)
    [again] = await queue.reserve_named([held.id], TTL)
    assert (again.lease.attempt, again.lease.token != lease.lease.token) == (2, True)
    await queue.release([again.key])
    assert sorted(ids(await take(queue))) == sorted([held.id, free.id, other.id])


async def test_a_call_that_is_named_and_one_that_is_next_are_leased_once(queue: MessageQueue) -> None:
    made = [(await push(queue)).id for _ in range(40)]
    named = [queue.reserve_named(made[n : n + 8], TTL) for n in (0, 8, 16, 8)]
    taken = await asyncio.gather(*named, *[take(queue, 4) for _ in range(4)])
    leased = [one for some in taken for one in ids(some)]
    rest = ids(await take(queue))
    assert sorted(leased + rest) == sorted(made)
