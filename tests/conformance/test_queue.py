"""The contract of message queues: order, leases, wake-ups."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Collection

import msgspec
import pytest

from services.queue.memory import MemoryQueue
from shared_models import times
from shared_models.annotations import texts
from shared_models.call import Call, LeasedCall, LeaseKey
from shared_models.ids import new_id
from shared_models.interfaces import MessageQueue, QueueDepth

TTL = 30.0
WOKEN = 60.0
"""Seconds within which whoever waits is woken; with the fixture ``no_looks`` nothing else ends the wait."""


def a_call(**more: object) -> Call:
    return Call(id=new_id(), **{"fn_id": "fn", "app_id": "app", "type": "detached", **more})


async def push(queue: MessageQueue, **more: object) -> Call:
    call = a_call(**more)
    assert await queue.push(call)
    return call


async def take(queue: MessageQueue, limit: int = 100, without: Collection[str] = ()) -> list[LeasedCall]:
    return await queue.reserve(limit, 0, TTL, without)


def ids(leased: list[LeasedCall]) -> list[str]:
    return [one.call.id for one in leased]


async def test_a_call_comes_out_as_it_went_in(queue: MessageQueue) -> None:
    call = a_call(
        payload=bytes(range(256)),
        headers={"X": ["1", "2"]},
        config={"K": "𠀋"},
        annotations={"a": msgspec.Raw(b'{"n":1.50}')},
        created_at="2018-06-26T08:00:00.000Z",
        priority=-3,
        memory=128,
    )
    await queue.push(call)
    [leased] = await take(queue)
    assert texts(leased.call.annotations) == {"a": b'{"n":1.50}'}
    bare = {"annotations": {}, "attempt": 0}
    assert msgspec.structs.replace(leased.call, **bare) == msgspec.structs.replace(call, **bare)


async def test_a_lease_has_a_secret_token_its_attempt_and_its_time_to_live(
    queue: MessageQueue, clock
) -> None:
    for _ in range(2):
        await push(queue)
    clock.move(5)
    first, second = await take(queue)
    assert first.lease.token != second.lease.token
    assert len(first.lease.token) >= 20
    assert (first.lease.attempt, first.call.attempt, first.lease.ttl) == (1, 1, TTL)
    assert first.lease.age == pytest.approx(5)


async def test_the_order_is_priority_then_first_in_first_out(queue: MessageQueue) -> None:
    pushed = [await push(queue, priority=priority) for priority in (0, 1, 0, 2, 1, -1)]
    expected = [pushed[i].id for i in (3, 1, 4, 0, 2, 5)]
    assert ids(await take(queue, 4)) + ids(await take(queue, 4)) == expected


async def test_the_same_id_is_queued_once(queue: MessageQueue) -> None:
    call = await push(queue)
    assert await queue.push(call) is False
    [leased] = await take(queue)
    assert await queue.push(call) is False, "leased is queued as well"
    await queue.delete([leased.key])
    assert await take(queue) == []
    assert await queue.push(call) is True


async def test_racing_pushes_of_one_id_are_one_message(queue: MessageQueue) -> None:
    call = a_call()
    assert sorted(await asyncio.gather(*[queue.push(call) for _ in range(8)])) == [False] * 7 + [True]
    assert ids(await take(queue)) == [call.id]


async def test_a_delayed_call_waits(queue: MessageQueue, clock) -> None:
    late, soon = await push(queue, delay=10, priority=2), await push(queue)
    assert ids(await take(queue)) == [soon.id]
    clock.move(9.5)
    assert await take(queue) == []
    clock.move(1)
    assert ids(await take(queue)) == [late.id]


async def test_a_leased_call_is_nobody_elses(queue: MessageQueue) -> None:
    for _ in range(20):
        await push(queue)
    taken = await asyncio.gather(*[take(queue, 3) for _ in range(10)])
    flat = [call_id for leased in taken for call_id in ids(leased)]
    assert len(flat) == len(set(flat)) == 20


async def test_a_lease_that_ran_out_puts_the_call_back_in_its_old_place(queue: MessageQueue, clock) -> None:
    lost, kept, high = await push(queue), await push(queue), await push(queue, priority=1)
    assert ids(await take(queue, 2)) == [high.id, lost.id]
    newer = await push(queue)
    clock.move(TTL + 1)
    again = await take(queue)
    assert ids(again) == [high.id, lost.id, kept.id, newer.id]
    assert [one.lease.attempt for one in again] == [2, 2, 1, 1]
    assert [one.call.attempt for one in again] == [2, 2, 1, 1]


async def test_a_renewed_lease_lasts(queue: MessageQueue, clock) -> None:
    await push(queue)
    [leased] = await take(queue)
    for _ in range(3):
        clock.move(TTL - 1)
        assert await queue.extend([leased.key, leased.key], TTL) == []
        assert await take(queue) == []
    clock.move(TTL + 1)
    assert (await take(queue))[0].lease.attempt == 2


async def test_a_lease_that_ran_out_is_renewed_unless_another_has_the_call(
    queue: MessageQueue, clock
) -> None:
    call = await push(queue)
    [first] = await take(queue)
    clock.move(TTL + 1)
    assert await queue.extend([first.key], TTL) == []
    clock.move(TTL + 1)
    [second] = await take(queue)
    assert await queue.extend([first.key, LeaseKey("unknown", "t")], TTL) == [call.id, "unknown"]
    assert await queue.extend([second.key], TTL) == []
    await queue.delete([second.key])
    assert await queue.extend([second.key], TTL) == [call.id]


async def test_a_lease_extended_by_nothing_gives_the_call_back_counted(queue: MessageQueue) -> None:
    await push(queue)
    [first] = await take(queue)
    assert await queue.extend([first.key], 0) == []
    [second] = await take(queue)
    assert second.lease.attempt == 2


async def test_an_extension_without_a_token_is_for_whoever_holds_the_call(queue: MessageQueue, clock) -> None:
    call = await push(queue)
    anybody = LeaseKey(call.id, "")
    assert await queue.extend([anybody], 90) == [call.id], "nobody holds it"
    await take(queue)
    assert await queue.extend([anybody], 90) == []
    clock.move(89)
    assert await take(queue) == []


async def test_a_released_call_is_there_at_once_and_its_attempt_is_not_counted(queue: MessageQueue) -> None:
    first, second = await push(queue), await push(queue)
    [leased] = await take(queue, 1)
    for _ in range(2):
        await queue.release([leased.key, LeaseKey(second.id, ""), LeaseKey("unknown", "t")])
    again = await take(queue)
    assert ids(again) == [first.id, second.id]
    assert [one.lease.attempt for one in again] == [1, 1]
    await queue.release([leased.key])
    assert await take(queue) == [], "the old token holds nothing"


async def test_a_requeued_call_is_due_after_its_pause_counted_and_in_its_old_place(
    queue: MessageQueue, clock
) -> None:
    first, second = await push(queue), await push(queue)
    [leased] = await take(queue, 1)
    clock.move(3)
    assert await queue.requeue([leased.key], 10) == []
    assert ids(await take(queue)) == [second.id]
    newer, high = await push(queue), await push(queue, priority=1)
    clock.move(9.5)
    assert ids(await take(queue, 1)) == [high.id], "the pause is from now, not from the lease"
    clock.move(1)
    again = await take(queue)
    assert ids(again) == [first.id, newer.id]
    assert [(one.lease.attempt, one.call.attempt) for one in again] == [(2, 2), (1, 1)]
    assert again[0].lease.age == pytest.approx(13.5)


async def test_a_call_can_be_requeued_any_number_of_times(queue: MessageQueue) -> None:
    call = await push(queue, payload=b"\0\xff")
    for attempt in range(1, 6):
        [leased] = await take(queue)
        assert (leased.call.payload, leased.lease.attempt) == (call.payload, attempt)
        assert await queue.requeue([leased.key], 0) == []


async def test_only_the_holder_requeues_a_call(queue: MessageQueue, clock) -> None:
    waiting, leased = await push(queue, priority=-1), await push(queue)
    [first] = await take(queue, 1)
    foreign = [LeaseKey(leased.id, "nobody's"), LeaseKey(leased.id, ""), LeaseKey(waiting.id, "")]
    unknown = LeaseKey("unknown", "t")
    assert await queue.requeue([*foreign, unknown], 0) == [leased.id, leased.id, waiting.id, "unknown"]
    assert ids(await take(queue)) == [waiting.id], "the lease holds"
    clock.move(TTL + 1)
    [second] = await take(queue, 1)
    assert await queue.requeue([first.key, second.key], 5) == [leased.id], "another has it by now"
    assert await queue.requeue([second.key], 0) == [leased.id], "it is given back already"
    assert await queue.extend([second.key], TTL) == [leased.id]
    await queue.release([second.key])
    await queue.delete([second.key])
    assert ids(await take(queue)) == [waiting.id], "what has no lease keeps its pause"
    clock.move(6)
    [third] = await take(queue)
    assert (third.call.id, third.lease.attempt) == (leased.id, 3)


async def test_a_lease_that_ran_out_can_be_requeued_unless_another_has_the_call(
    queue: MessageQueue, clock
) -> None:
    call = await push(queue)
    [first] = await take(queue)
    clock.move(TTL + 1)
    assert await queue.requeue([first.key], 5) == []
    assert await take(queue) == []
    clock.move(6)
    [second] = await take(queue)
    assert (second.call.id, second.lease.attempt) == (call.id, 2)


async def test_many_calls_are_requeued_at_once(queue: MessageQueue) -> None:
    await asyncio.gather(*[push(queue) for _ in range(600)])
    taken = [leased for _ in range(6) for leased in await take(queue)]
    assert await queue.requeue([*(one.key for one in taken), LeaseKey("unknown", "t")], 0) == ["unknown"]
    again = [leased for _ in range(6) for leased in await take(queue)]
    assert ids(again) == ids(taken)
    assert {one.lease.attempt for one in again} == {2}


async def test_only_the_holder_deletes_a_call(queue: MessageQueue, clock) -> None:
    call = await push(queue)
    await queue.delete([LeaseKey(call.id, "nobody's")])
    assert await queue.holds([call.id]) == {call.id}
    [first] = await take(queue)
    clock.move(TTL + 1)
    [second] = await take(queue)
    await queue.delete([first.key])
    assert await queue.holds([call.id]) == {call.id}
    for _ in range(2):
        await queue.delete([second.key])
        assert await queue.holds([call.id]) == set()


async def test_a_call_whose_lease_ran_out_can_be_deleted(queue: MessageQueue, clock) -> None:
    call = await push(queue)
    [first] = await take(queue)
    clock.move(TTL + 1)
    [_second] = await take(queue)
    clock.move(TTL + 1)
    await queue.delete([first.key])
    assert await queue.holds([call.id]) == set()


async def test_an_empty_token_deletes_whoever_holds_the_call(queue: MessageQueue) -> None:
    waiting, leased = await push(queue, priority=-1), await push(queue)
    assert ids(await take(queue, 1)) == [leased.id]
    await queue.delete([LeaseKey(waiting.id, ""), LeaseKey(leased.id, ""), LeaseKey("unknown", "")])
    assert await queue.holds([waiting.id, leased.id]) == set()


async def test_depths_count_what_waits_and_what_is_leased_per_function(queue: MessageQueue, clock) -> None:
    assert await queue.depths() == []
    await push(queue, fn_id="b")
    began = times.to_text(clock())
    clock.move(1)
    for _ in range(3):
        await push(queue, fn_id="a", priority=1)
    [leased] = await take(queue, 1)
    a, b = await queue.depths()
    assert (a.fn_id, a.queued, a.leased, a.oldest) == ("a", 2, 1, times.to_text(clock()))
    assert (b.fn_id, b.queued, b.leased, b.oldest) == ("b", 1, 0, began)
    clock.move(TTL + 1)
    assert [(one.queued, one.leased) for one in await queue.depths()] == [(3, 0), (1, 0)]
    await queue.delete([leased.key])
    assert [one.queued for one in await queue.depths()] == [2, 1]


async def test_a_requeued_call_counts_as_waiting_since_its_push(queue: MessageQueue, clock) -> None:
    began = times.to_text(clock())
    await push(queue, fn_id="a")
    [leased] = await take(queue)
    clock.move(1)
    await queue.requeue([leased.key], 10)
    [depth] = await queue.depths()
    assert (depth.queued, depth.leased, depth.oldest) == (1, 0, began)


async def test_the_depth_of_one_function_is_that_of_all(queue: MessageQueue, clock) -> None:
    def of(fn_id: str, queued: int = 0, leased: int = 0, oldest: str = times.NEVER) -> QueueDepth:
        return QueueDepth(fn_id=fn_id, queued=queued, leased=leased, oldest=oldest)

    assert await queue.depth("a") == of("a")
    began = times.to_text(clock())
    for fn_id, priority in (("a", 1), ("", 2), ("b", 0), ("a", 0), ("a", 0)):
        await push(queue, fn_id=fn_id, priority=priority)
        clock.move(1)
    await push(queue, fn_id="c", delay=60)
    taken = await take(queue, 2)
    assert [one.call.fn_id for one in taken] == ["", "a"]
    for passed in (0, TTL + 1):
        clock.move(passed)
        depths = await queue.depths()
        assert [await queue.depth(fn_id) for fn_id in ("", "a", "b", "c")] == depths
    assert depths[1] == of("a", 3, 0, began)
    assert await queue.depth("unknown") == of("unknown")
    await queue.delete([LeaseKey(one.call.id, "") for one in taken])
    assert await queue.depth("") == of("")
    assert (await queue.depth("a")).queued == 2


# -- finding -----------------------------------------------------------------------------------


async def test_calls_are_found_whole_whether_they_wait_or_are_leased(queue: MessageQueue) -> None:
    leased = a_call(
        priority=1,
        payload=bytes(range(256)) * 300,
        headers={"X": ["1", "2"]},
        config={"K": "𠀋"},
        created_at="2018-06-26T08:00:00.000Z",
        callback_url="https://example.com/done",
        idempotency_key="k",
        memory=128,
    )
    waits, late = a_call(payload=b"\0\xff"), a_call(delay=60)
    for call in (leased, waits, late):
        await queue.push(call)
    [first] = await take(queue, 1)
    found = await queue.find([waits.id, "unknown", leased.id, late.id, waits.id])
    assert found == {
        leased.id: msgspec.structs.replace(leased, attempt=1),
        waits.id: waits,
        late.id: late,
    }
    assert await queue.requeue([first.key], 0) == []
    assert (await queue.find([leased.id]))[leased.id].attempt == 1, "the attempt counts"
    [second] = await take(queue, 1)
    await queue.release([second.key])
    assert (await queue.find([leased.id]))[leased.id].attempt == 1, "this one does not"
    await queue.delete([LeaseKey(leased.id, "")])
    assert await queue.find([leased.id]) == {}
    assert await queue.find([]) == {}


async def test_many_calls_are_found_at_once(queue: MessageQueue) -> None:
    pushed = await asyncio.gather(*[push(queue, payload=bytes(1000)) for _ in range(600)])
    found = await queue.find([*(call.id for call in pushed), *(new_id() for _ in range(600))])
    assert found == {call.id: call for call in pushed}


# -- passing over ------------------------------------------------------------------------------


async def test_functions_that_are_passed_over_keep_their_places(queue: MessageQueue) -> None:
    names = ("full", "a", "busy", "full", "b", "busy", "a")
    pushed = [await push(queue, fn_id=fn_id) for fn_id in names]
    high = await push(queue, fn_id="full", priority=1)
    assert ids(await take(queue, 2, ["full", "busy", "unknown"])) == [pushed[1].id, pushed[4].id]
    newer = await push(queue, fn_id="full")
    assert ids(await take(queue, 3, {"busy"})) == [high.id, pushed[0].id, pushed[3].id]
    assert await take(queue, without=("busy", "full", "a")) == []
    assert ids(await take(queue)) == [pushed[2].id, pushed[5].id, pushed[6].id, newer.id]


async def test_what_comes_back_is_passed_over_as_well(queue: MessageQueue, clock) -> None:
    run_out, released, requeued, other = [
        await push(queue, fn_id=fn_id) for fn_id in ("full", "full", "full", "a")
    ]
    leased = await take(queue)
    assert ids(leased) == [run_out.id, released.id, requeued.id, other.id]
    await queue.release([leased[1].key])
    await queue.requeue([leased[2].key], 0)
    clock.move(TTL + 1)
    assert ids(await take(queue, without=["full"])) == [other.id]
    again = await take(queue)
    assert [(one.call.id, one.lease.attempt) for one in again] == [
        (run_out.id, 2), (released.id, 1), (requeued.id, 2),
    ]  # fmt: skip


async def test_calls_of_routes_are_never_passed_over(queue: MessageQueue) -> None:
    await push(queue, fn_id="full")
    route = await push(queue, fn_id="")
    assert ids(await take(queue, without=["", "full"])) == [route.id]


async def test_a_thousand_calls_that_are_passed_over_hide_none_behind_them(queue: MessageQueue) -> None:
    await asyncio.gather(*[push(queue, fn_id=f"full-{number % 100}") for number in range(1_100)])
    behind = [await push(queue, fn_id=fn_id) for fn_id in ("a", "full-7", "b", "a")]
    without = [f"full-{number}" for number in range(100)]
    assert ids(await take(queue, 2, without)) == [behind[0].id, behind[2].id]
    assert ids(await take(queue, 2, without)) == [behind[3].id]
    without.remove("full-7")
    last = await take(queue, 200, without)
    assert [one.call.fn_id for one in last] == ["full-7"] * 12
    assert last[-1].call.id == behind[1].id


async def test_a_reserve_does_not_look_over_and_over_while_only_calls_are_there_that_it_passes_over(
    queue: MessageQueue, clock
) -> None:
    await push(queue, fn_id="full")
    await push(queue, fn_id="full", delay=5)
    await push(queue, fn_id="a", delay=60)
    clock.move(10)
    looks = 0
    take_some = queue._take

    async def counted(limit: int, ttl: float, without: Collection[str]) -> list[LeasedCall]:
        nonlocal looks
        looks += 1
        return await take_some(limit, ttl, without)

    queue._take = counted
    assert await queue.reserve(5, 0.3, TTL, ["full"]) == []
    assert 1 <= looks <= 5
    assert len(await queue.reserve(5, 0.3, TTL)) == 2


# -- waiting -----------------------------------------------------------------------------------


async def test_an_empty_queue_answers_when_the_wait_is_over(queue: MessageQueue) -> None:
    began = time.monotonic()
    assert await queue.reserve(1, 0.05, TTL) == []
    assert 0.04 < time.monotonic() - began < 30


async def waiting(
    queue: MessageQueue, wait: float = 600, without: Collection[str] = ()
) -> asyncio.Task[list[LeasedCall]]:
    """A reserve that has looked and found nothing."""
    looked = asyncio.Event()
    next_free = queue._next_free

    async def after_the_look() -> float:
        looked.set()
        return await next_free()

    queue._next_free = after_the_look
    task = asyncio.create_task(queue.reserve(1, wait, TTL, without))
    await asyncio.wait_for(looked.wait(), 60)
    return task


@pytest.mark.usefixtures("no_looks")
async def test_a_push_wakes_a_waiting_reserve(queue: MessageQueue) -> None:
    waiter = await waiting(queue)
    call = await push(queue)
    assert ids(await asyncio.wait_for(waiter, WOKEN)) == [call.id]


@pytest.mark.usefixtures("no_looks")
async def test_a_release_wakes_a_waiting_reserve(queue: MessageQueue) -> None:
    call = await push(queue)
    [leased] = await take(queue)
    waiter = await waiting(queue)
    await queue.release([leased.key])
    assert ids(await asyncio.wait_for(waiter, WOKEN)) == [call.id]


@pytest.mark.usefixtures("no_looks")
@pytest.mark.parametrize("pause", [0, 0.3])
async def test_a_requeued_call_wakes_a_waiting_reserve_when_it_is_due(
    queue: MessageQueue, clock, pause: float
) -> None:
    call = await push(queue)
    [leased] = await take(queue)
    waiter = await waiting(queue)
    assert await queue.requeue([leased.key], pause) == []
    clock.move(pause)
    [again] = await asyncio.wait_for(waiter, WOKEN)
    assert (again.call.id, again.lease.attempt) == (call.id, 2)


@pytest.mark.usefixtures("no_looks")
async def test_a_reserve_that_passes_over_what_is_there_is_woken_by_another_call(queue: MessageQueue) -> None:
    for _ in range(3):
        await push(queue, fn_id="full")
    waiter = await waiting(queue, without=["full"])
    await push(queue, fn_id="full")
    call = await push(queue, fn_id="a")
    assert ids(await asyncio.wait_for(waiter, WOKEN)) == [call.id]


@pytest.mark.usefixtures("no_looks")
async def test_a_call_wakes_who_takes_it_though_others_that_pass_it_over_wait_longer(
    queue: MessageQueue,
) -> None:
    longer = [await waiting(queue, without=without) for without in (["full"], ["full", "a"], ["full"])]
    taker = await waiting(queue)
    call = await push(queue, fn_id="full")
    assert ids(await asyncio.wait_for(taker, WOKEN)) == [call.id]
    assert not any(waiter.done() for waiter in longer)
    others = [await push(queue, fn_id=fn_id) for fn_id in ("a", "b", "b")]
    taken = await asyncio.wait_for(asyncio.gather(*longer), WOKEN)
    assert {call_id for leased in taken for call_id in ids(leased)} == {one.id for one in others}


@pytest.mark.usefixtures("no_looks")
async def test_a_delayed_call_wakes_who_takes_it_though_others_that_pass_it_over_wait_longer(
    queue: MessageQueue, clock
) -> None:
    await push(queue, fn_id="full")
    longer = await waiting(queue, without=["full", "late"])
    taker = await waiting(queue, without=["full"])
    call = await push(queue, fn_id="late", delay=1)
    clock.move(1)
    assert ids(await asyncio.wait_for(taker, WOKEN)) == [call.id]
    assert not longer.done()
    last = await push(queue, fn_id="a")
    assert ids(await asyncio.wait_for(longer, WOKEN)) == [last.id]


@pytest.mark.usefixtures("no_looks")
async def test_every_waiting_reserve_gets_one_of_as_many_calls(queue: MessageQueue) -> None:
    waiters = [await waiting(queue) for _ in range(5)]
    pushed = {(await push(queue)).id for _ in range(5)}
    taken = await asyncio.wait_for(asyncio.gather(*waiters), WOKEN)
    assert {call_id for leased in taken for call_id in ids(leased)} == pushed


@pytest.mark.usefixtures("no_looks")
async def test_a_waiter_that_gives_up_takes_no_call_with_it(queue: MessageQueue) -> None:
    gone, stays = await waiting(queue), await waiting(queue)
    pushing = asyncio.create_task(push(queue))
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    call = await pushing
    [leased] = await asyncio.wait_for(stays, WOKEN)
    assert (leased.call.id, leased.lease.attempt) == (call.id, 1)


async def test_a_cancelled_reserve_gives_back_what_it_was_about_to_get(queue: MessageQueue) -> None:
    call = await push(queue)
    for turns in range(12):
        reserve = asyncio.create_task(queue.reserve(1, 0, TTL))
        for _ in range(turns):
            await asyncio.sleep(0)
        reserve.cancel()
        if isinstance(done := (await asyncio.gather(reserve, return_exceptions=True))[0], list):
            await queue.release([one.key for one in done])
    [leased] = await queue.reserve(1, 5, TTL)
    assert (leased.call.id, leased.lease.attempt) == (call.id, 1)


# -- several nodes -----------------------------------------------------------------------------

Nodes = tuple[MessageQueue, MessageQueue]


async def test_a_push_on_one_node_wakes_a_reserve_on_another(two_nodes: Nodes) -> None:
    one, other = two_nodes
    waiter = await waiting(other, 60)
    call = await push(one)
    assert ids(await asyncio.wait_for(waiter, 60)) == [call.id]


async def test_a_push_on_one_node_wakes_a_reserve_on_another_that_passes_over_what_is_there(
    two_nodes: Nodes,
) -> None:
    one, other = two_nodes
    full = await push(one, fn_id="full")
    waiter = await waiting(other, 60, ["full"])
    call = await push(one, fn_id="a")
    assert ids(await asyncio.wait_for(waiter, 60)) == [call.id]
    assert ids(await take(one)) == [full.id]


async def test_what_one_node_requeues_the_other_knows(two_nodes: Nodes) -> None:
    one, other = two_nodes
    call = await push(one)
    [leased] = await take(one)
    assert await other.requeue([leased.key], 0) == []
    assert (await one.find([call.id]))[call.id].attempt == (await other.find([call.id]))[call.id].attempt == 1
    assert await one.depth("fn") == await other.depth("fn")
    [again] = await take(one)
    assert (again.call.id, again.lease.attempt) == (call.id, 2)


async def test_what_one_node_leases_the_other_knows(two_nodes: Nodes, clock) -> None:
    one, other = two_nodes
    first, second = await push(one), await push(other)
    [leased] = await take(one, 1)
    assert leased.call.id == first.id
    assert ids(await take(other)) == [second.id]
    assert await other.extend([leased.key], 2 * TTL) == []
    clock.move(TTL + 1)
    assert ids(await take(one)) == [second.id]
    await other.release([leased.key])
    assert ids(await take(one)) == [first.id]
    await other.delete([LeaseKey(first.id, ""), LeaseKey(second.id, "")])
    assert await one.holds([first.id, second.id]) == set()


async def test_nodes_that_race_share_the_calls(two_nodes: Nodes) -> None:
    pushed = await asyncio.gather(*[push(node) for node in two_nodes for _ in range(20)])
    taken = await asyncio.gather(*[take(node, 3) for node in two_nodes for _ in range(10)])
    flat = [call_id for leased in taken for call_id in ids(leased)]
    flat += [call_id for node in two_nodes for call_id in ids(await take(node))]
    assert sorted(flat) == sorted(call.id for call in pushed)


async def test_racing_pushes_of_one_id_on_two_nodes_are_one_message(two_nodes: Nodes) -> None:
    call = a_call()
    assert sorted(await asyncio.gather(*[node.push(call) for node in two_nodes])) == [False, True]
    assert ids(await take(two_nodes[0])) == [call.id]


# -- at length ---------------------------------------------------------------------------------


async def test_priorities_are_any_number_of_32_bits(queue: MessageQueue) -> None:
    priorities = (0, -1, 2**31 - 1, -(2**31), 1, 2**31 - 2, 1 - 2**31)
    for priority in priorities:
        await push(queue, priority=priority)
    assert [one.call.priority for one in await take(queue)] == sorted(priorities, reverse=True)


async def test_ten_thousand_calls_keep_their_order(queue: MessageQueue) -> None:
    rounds = []
    for _ in range(40):
        calls = [a_call() for _ in range(250)]
        await asyncio.gather(*[queue.push(call) for call in calls])
        rounds.append({call.id for call in calls})
    taken: list[str] = []
    while some := await take(queue, 250):
        taken += ids(some)
    assert len(taken) == 10_000
    assert [set(taken[start : start + 250]) for start in range(0, 10_000, 250)] == rounds


async def test_a_thousand_calls_that_fall_due_together_come_by_priority(queue: MessageQueue, clock) -> None:
    calls = [a_call(delay=5, priority=number % 7) for number in range(1_100)]
    await asyncio.gather(*[queue.push(call) for call in calls])
    expected = sorted((call.priority for call in calls), reverse=True)
    for passed in (6, TTL + 1):
        clock.move(passed)
        taken: list[int] = []
        while some := await take(queue, 200):
            taken += [one.call.priority for one in some]
        assert taken == expected
    clock.move(TTL + 1)
    assert [(one.queued, one.leased) for one in await queue.depths()] == [(1_100, 0)]


@pytest.mark.parametrize("seed", range(5))
async def test_any_sequence_of_operations_ends_as_it_does_in_memory(
    queue: MessageQueue, clock, seed: int
) -> None:
    chance = random.Random(seed)
    model = MemoryQueue(clock)
    leases: list[tuple[LeaseKey, LeaseKey]] = []
    calls: list[Call] = []
    for _ in range(150):
        some = chance.sample(leases, min(len(leases), chance.randint(0, 3)))
        keys = [pair[0] for pair in some], [pair[1] for pair in some]
        match chance.randint(0, 11):
            case 0 | 1 | 2:
                more = {"priority": chance.randint(-1, 1), "delay": chance.choice((0, 0, 10))}
                again = bool(calls) and chance.random() < 0.1
                call = chance.choice(calls) if again else a_call(fn_id=chance.choice("abc"), **more)
                calls.append(call)
                assert await queue.push(call) == await model.push(call)
            case 3 | 4:
                limit, without = chance.randint(1, 4), chance.sample("abc", chance.choice((0, 0, 1, 2)))
                taken, expected = await take(queue, limit, without), await take(model, limit, without)
                assert [(one.call, one.lease.attempt) for one in taken] == [
                    (one.call, one.lease.attempt) for one in expected
                ]
                leases += [(one.key, other.key) for one, other in zip(taken, expected, strict=True)]
            case 5:
                clock.move(chance.choice((1, 5, TTL - 1, TTL + 1)))
            case 6:
                ttl = chance.choice((0, TTL, 2 * TTL))
                assert await queue.extend(keys[0], ttl) == await model.extend(keys[1], ttl)
            case 7:
                await queue.release(keys[0])
                await model.release(keys[1])
            case 8:
                await queue.delete(keys[0])
                await model.delete(keys[1])
            case 9:
                anybody = [LeaseKey(call.id, "") for call in calls[-2:]]
                assert await queue.extend(anybody, TTL) == await model.extend(anybody, TTL)
            case 10 | 11:
                pause = chance.choice((0, 0, 10))
                assert await queue.requeue(keys[0], pause) == await model.requeue(keys[1], pause)
        known = [call.id for call in calls]
        assert await queue.holds(known) == await model.holds(known)
        assert await queue.depths() == await model.depths()
        fn_id = chance.choice("abcd")
        assert await queue.depth(fn_id) == await model.depth(fn_id)
        assert await queue.find(known[-5:]) == await model.find(known[-5:])
