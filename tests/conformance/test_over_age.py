"""Calls that wait for too long end although no runner asks for them, on all stores."""

from __future__ import annotations

import asyncio

import pytest

from services.janitor import running_janitor
from services.over_age import OverAge
from services.retention import RetentionSettings
from services.stores import Stores
from shared_models.async_policy import AsyncSettings
from shared_models.call import Call, Reason
from shared_models.fn import Fn
from shared_models.interfaces import DataAccess
from tests.conformance.dying import LATER, Died, Life, World, each_step, mortal, worlds
from tests.conformance.test_data_access import NODE, accepted, annotated, ended, fn, taken

__all__ = ["fn"]

SETTINGS = AsyncSettings(backoff=0.0)


@pytest.fixture
def over_age(stores: Stores, clock) -> OverAge:
    return OverAge(stores, SETTINGS, clock)


async def record(stores: Stores, call: Call) -> Call:
    return await stores.logstore.call(call.id, app_id=call.app_id, fn_id=call.fn_id)


async def test_a_call_that_is_too_old_ends_as_if_it_had_been_handed_out(
    data: DataAccess, stores: Stores, fn: Fn, over_age: OverAge, clock
) -> None:
    asks = annotated(max_age="20")
    url = "https://example.org/done"
    one, other = [
        await accepted(data, fn, annotations=asks, payload=b"\x00work", callback_url=url) for _ in range(2)
    ]
    clock.move(19)
    assert await over_age.end() == 0
    clock.move(2)
    [first] = await stores.queue.reserve_named([other.id], 30)
    assert await over_age.end() == 1, "the other one is held by somebody"
    await stores.queue.release([first.key])
    assert await data.dequeue(NODE, 5, 0) == []
    ends = [
        (found.status, found.reason, found.error, found.attempt, found.completed_at)
        for found in [await record(stores, call) for call in (one, other)]
    ]
    assert ends[0] == ends[1]
    assert ends[0][:2] == ("error", Reason.EXPIRED)
    assert await stores.queue.holds([one.id, other.id]) == set()
    letters = [(await stores.dead_letters.get(call.id)).call for call in (one, other)]
    assert [letter.payload for letter in letters] == [b"\x00work"] * 2
    assert len({(letter.reason, letter.error, letter.attempt) for letter in letters}) == 1
    due = {one.call_id: one for one in await stores.outbox.due(50, 1)}
    assert set(due) == {one.id, other.id}
    assert len({(sent.status, sent.attempt, sent.url) for sent in due.values()}) == 1
    assert await over_age.end() == 0


async def test_its_age_counts_from_when_it_was_due_and_by_its_own_annotation(
    data: DataAccess, stores: Stores, fn: Fn, over_age: OverAge, clock
) -> None:
    delayed = await accepted(data, fn, annotations=annotated(max_age="20"), delay=50)
    patient = await accepted(data, fn, annotations=annotated(max_age="0"))
    usual = await accepted(data, fn)
    clock.move(69)
    assert await over_age.end() == 0
    clock.move(2)
    assert await over_age.end() == 1
    assert (await record(stores, delayed)).reason == Reason.EXPIRED
    clock.move(SETTINGS.max_age)
    assert await over_age.end() == 1
    assert (await record(stores, usual)).reason == Reason.EXPIRED
    clock.move(SETTINGS.max_age * 100)
    assert await over_age.end() == 0
    assert (await record(stores, patient)).status == "queued"


async def test_a_call_that_runs_is_left_alone_however_old_it_is(
    data: DataAccess, stores: Stores, fn: Fn, over_age: OverAge, clock
) -> None:
    call = await accepted(data, fn, annotations=annotated(max_age="20"))
    leased = await taken(data)
    await data.start(leased)
    for _ in range(3):
        clock.move(15)
        assert await over_age.end() == 0
        assert await data.extend([leased.key]) == []
    assert await data.finish([ended(leased)]) == []
    assert (await record(stores, call)).status == "success"


async def test_runners_and_nodes_that_clean_up_at_the_same_time_end_each_call_once(
    data: DataAccess, stores: Stores, fn: Fn, clock
) -> None:
    old = [await accepted(data, fn, annotations=annotated(max_age="20")) for _ in range(40)]
    young = [await accepted(data, fn) for _ in range(10)]
    clock.move(21)
    rounds = [OverAge(stores, SETTINGS, clock).end() for _ in range(3)]
    asked = [data.dequeue(f"{NODE}{number}", 5, 0) for number in range(4)]
    *found, _, _, _ = await asyncio.gather(*asked, *rounds)
    await OverAge(stores, SETTINGS, clock).end()
    handed_out = [one.call.id for some in found for one in some]
    handed_out += [one.call.id for one in await data.dequeue(NODE, 50, 0)]
    assert sorted(handed_out) == sorted(call.id for call in young)
    assert {(await record(stores, call)).reason for call in old} == {Reason.EXPIRED}
    assert {(await record(stores, call)).attempt for call in old} == {0}
    assert await stores.dead_letters.count(fn.id) == len(old)


async def test_a_round_is_bounded_and_the_next_ones_see_what_it_has_not(
    data: DataAccess, stores: Stores, fn: Fn, over_age: OverAge, clock
) -> None:
    other = await stores.datastore.insert_fn(Fn(name="other", app_id=fn.app_id, image="i"))
    for n in range(12):
        await accepted(data, (fn, other)[n % 2], annotations=annotated(max_age="0"))
    hidden = [await accepted(data, one, annotations=annotated(max_age="20")) for one in (fn, other)]
    clock.move(21)
    ends = [await over_age.end(3) for _ in range(6)]
    assert sum(ends) == 2
    assert {(await record(stores, call)).reason for call in hidden} == {Reason.EXPIRED}
    assert (await stores.queue.depth(fn.id)).queued == 6


@each_step
async def test_a_node_that_dies_while_it_ends_a_call_leaves_it_to_the_next(
    stores: Stores, fn: Fn, clock, done: bool, repeated: bool
) -> None:
    deaths = 0
    more = {"annotations": annotated(max_age="200"), "callback_url": "https://example.org/"}
    async for steps, world in worlds(stores, fn, clock, **more):
        await world.alive.enqueue(world.call)
        clock.move(201)
        life = Life(steps, done=done)
        try:
            await OverAge(mortal(stores, life), SETTINGS, clock).end()
        except Died:
            deaths += 1
        if not repeated:
            clock.move(LATER)
        for _ in range(2):
            await OverAge(stores, SETTINGS, clock).end()
            clock.move(LATER)
        await told_once(world)
        if not life.died:
            break
    assert deaths >= 5


async def told_once(world: World) -> None:
    """It ended as too old, in all that tells so."""
    found = await world.record()
    assert (found.status, found.reason) == ("error", Reason.EXPIRED)
    assert await world.stores.queue.holds([found.id]) == set()
    assert (await world.stores.dead_letters.get(found.id)).call.payload == b"work"
    due = [one for one in await world.stores.outbox.due(50, 1) if one.call_id == found.id]
    assert found.attempt in {one.attempt for one in due}


async def test_the_janitor_ends_them_while_no_runner_asks(
    data: DataAccess, stores: Stores, fn: Fn, clock
) -> None:
    call = await accepted(data, fn, annotations=annotated(max_age="2"))
    usual = await accepted(data, fn)
    clock.move(3)
    settings = AsyncSettings(max_age=2.0)
    async with (
        running_janitor(stores, RetentionSettings(), every=0.05, async_settings=settings),
        asyncio.timeout(60),
    ):
        while await stores.queue.holds([call.id, usual.id]):
            await asyncio.sleep(0.02)
    assert {(await record(stores, one)).reason for one in (call, usual)} == {Reason.EXPIRED}
