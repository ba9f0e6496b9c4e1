"""An API node that dies between any two steps of any request, and another one that goes on."""

from __future__ import annotations

import msgspec
import pytest

from services.call_control import StoresCallControl
from services.data_access import DirectDataAccess
from services.stores import Stores
from shared_models import errors
from shared_models.call import LeaseKey, Reason
from shared_models.fn import Fn
from tests.conformance.dying import LATER, SETTINGS, Died, Life, World, dying, each_step, mortal, worlds
from tests.conformance.test_data_access import a_call, annotated, fn

__all__ = ["fn"]


@each_step
async def test_a_node_that_dies_in_an_enqueue_loses_no_call_that_was_accepted(
    stores: Stores, fn: Fn, clock, done: bool, repeated: bool
) -> None:
    deaths = 0
    async for steps, world in worlds(stores, fn, clock, idempotency_key=""):
        if not await dying(world, steps, done=done, request=lambda data, w=world: data.enqueue(w.call)):
            break
        deaths += 1
        if repeated:
            await world.alive.enqueue(world.call)
        await world.run_to_its_end()
        try:
            record = await world.record()
        except errors.CallNotFound:
            assert not repeated, "it was accepted"
            continue
        assert record.final
        assert len(world.runs) <= 1
        if repeated:
            assert (record.status, world.runs) == ("success", [1])
    assert deaths >= 3


@each_step
async def test_a_node_that_dies_in_an_enqueue_with_a_key_makes_no_second_call(
    stores: Stores, fn: Fn, clock, done: bool, repeated: bool
) -> None:
    async for steps, world in worlds(stores, fn, clock):
        key = f"key-{steps}"
        first = a_call(fn, idempotency_key=key)
        died = await dying(world, steps, done=done, request=lambda data, c=first: data.enqueue(c))
        if repeated:
            ids = {await world.alive.enqueue(a_call(fn, idempotency_key=key)) for _ in range(2)}
            assert len(ids) == 1
            world.call = msgspec.structs.replace(first, id=ids.pop())
        await world.run_to_its_end()
        assert world.runs in ([1], []), "one key, one run"
        if repeated:
            assert (await world.record()).status == "success"
        if not died:
            break


@each_step
async def test_a_node_that_dies_in_a_dequeue_costs_an_attempt_at_most(
    stores: Stores, fn: Fn, clock, done: bool, repeated: bool
) -> None:
    deaths = 0
    async for steps, world in worlds(stores, fn, clock):
        await world.alive.enqueue(world.call)
        if not await dying(world, steps, done=done, request=lambda data: data.dequeue("other", 1, 0)):
            break
        deaths += 1
        if not repeated:
            clock.move(LATER)
        await world.run_to_its_end()
        assert (await world.record()).status == "success"
        assert len(world.runs) == 1
        assert world.runs[0] <= 2
    assert deaths >= 2


@each_step
async def test_a_node_that_dies_in_a_start_leaves_one_holder(
    stores: Stores, fn: Fn, clock, done: bool, repeated: bool
) -> None:
    deaths = 0
    async for steps, world in worlds(stores, fn, clock):
        await world.alive.enqueue(world.call)
        leased = await world.leased()
        if not await dying(world, steps, done=done, request=lambda data, one=leased: data.start(one)):
            break
        deaths += 1
        if repeated:
            await world.alive.start(leased)
            world.runs.append(1)
            assert await world.alive.finish([world.result(leased)]) == []
        await world.run_to_its_end()
        assert (await world.record()).status == "success"
        assert world.runs == ([1] if repeated else [2])
    assert deaths == 2


@each_step
async def test_a_node_that_dies_in_a_finish_stores_the_result_once(
    stores: Stores, fn: Fn, clock, done: bool, repeated: bool
) -> None:
    deaths = 0
    async for steps, world in worlds(stores, fn, clock, callback_url="https://example.org/"):
        await world.alive.enqueue(world.call)
        leased = await world.leased()
        await world.alive.start(leased)
        world.runs.append(1)
        result = world.result(leased)
        if not await dying(world, steps, done=done, request=lambda data, one=result: data.finish([one])):
            break
        deaths += 1
        if repeated:
            assert await world.alive.finish([result]) == []
        await world.run_to_its_end()
        assert (await world.record()).status == "success"
        assert world.runs in ([1], [1, 2])
        assert world.runs == [1] or not repeated, "a result that was handed in again is no run"
        due = [one for one in await stores.outbox.due(50, 1) if one.call_id == world.call.id]
        assert {one.attempt for one in due} >= {(await world.record()).attempt}
    assert deaths >= 3


@each_step
async def test_a_node_that_dies_while_an_attempt_failed_repeats_it_within_its_number(
    stores: Stores, fn: Fn, clock, done: bool, repeated: bool
) -> None:
    deaths = 0
    async for steps, world in worlds(stores, fn, clock, annotations=annotated(max_attempts="2")):
        await world.alive.enqueue(world.call)
        leased = await world.leased()
        result = world.result(leased, "error", error="no image", reason=Reason.NOT_STARTED)
        if not await dying(world, steps, done=done, request=lambda data, one=result: data.finish([one])):
            break
        deaths += 1
        if repeated:
            await world.alive.finish([result])
        await world.run_to_its_end()
        assert ((await world.record()).status, world.runs) == ("success", [2])
        assert await world.dead() == []
    assert deaths >= 3


@each_step
async def test_a_node_that_dies_with_the_last_attempt_leaves_one_dead_letter(
    stores: Stores, fn: Fn, clock, done: bool, repeated: bool
) -> None:
    deaths = 0
    async for steps, world in worlds(stores, fn, clock, annotations=annotated(max_attempts="1")):
        await world.alive.enqueue(world.call)
        leased = await world.leased()
        result = world.result(leased, "error", error="no image", reason=Reason.NOT_STARTED)
        if not await dying(world, steps, done=done, request=lambda data, one=result: data.finish([one])):
            break
        deaths += 1
        if repeated:
            assert await world.alive.finish([result]) == []
        await world.run_to_its_end()
        record = await world.record()
        assert (record.status, world.runs) == ("error", [])
        assert record.reason in (Reason.NOT_STARTED, Reason.RUNNER_LOST)
        assert await world.dead() == [world.call.id]
        assert (await stores.dead_letters.get(world.call.id)).call.payload == b"work"
        await stores.dead_letters.remove([world.call.id])
    assert deaths >= 3


@each_step
async def test_a_node_that_dies_in_a_release_costs_an_attempt_at_most(
    stores: Stores, fn: Fn, clock, done: bool, repeated: bool
) -> None:
    deaths = 0
    async for steps, world in worlds(stores, fn, clock):
        await world.alive.enqueue(world.call)
        key = (await world.leased()).key
        if not await dying(world, steps, done=done, request=lambda data, k=key: data.release([k])):
            break
        deaths += 1
        if repeated:
            await world.alive.release([key])
        await world.run_to_its_end()
        assert (await world.record()).status == "success"
        assert len(world.runs) == 1
    assert deaths == 2


@each_step
@pytest.mark.parametrize("running", [True, False], ids=["running", "queued"])
async def test_a_node_that_dies_in_a_cancel_leaves_a_call_that_ends(
    stores: Stores, fn: Fn, clock, done: bool, repeated: bool, running: bool
) -> None:
    deaths = 0
    async for steps, world in worlds(stores, fn, clock):
        await world.alive.enqueue(world.call)
        if running:
            await world.alive.start(await world.leased())

        async def cancel(data: DirectDataAccess, w: World = world, n: int = steps) -> None:
            control = StoresCallControl(mortal(stores, Life(n, done=done)), data, SETTINGS, clock)
            await control.cancel(fn.id, w.call.id)

        try:
            await cancel(world.alive)
            break
        except Died:
            deaths += 1
        if repeated:
            await StoresCallControl(stores, world.alive, SETTINGS, clock).cancel(fn.id, world.call.id)
        await world.run_to_its_end()
        record = await world.record()
        assert record.status in (("cancelled",) if repeated else ("cancelled", "success"))
        assert (record.status == "success") == bool(world.runs)
        assert await stores.queue.holds([world.call.id]) == set()
    assert deaths >= 4


async def test_two_runners_that_both_believe_that_they_hold_the_lease_make_one_result(
    stores: Stores, fn: Fn, clock
) -> None:
    world = World(stores, fn, clock, a_call(fn))
    await world.alive.enqueue(world.call)
    first = await world.leased()
    await world.alive.start(first)
    clock.move(LATER)
    second = await world.leased()
    for late in (first, second):
        if late is first:
            with pytest.raises(errors.LeaseLost):
                await world.alive.start(late)
            assert await world.alive.extend([late.key]) == [world.call.id]
            await world.alive.release([late.key])
            assert await world.alive.finish([world.result(late, "error", error="late")]) == [world.call.id]
        else:
            await world.alive.start(late)
            assert await world.alive.finish([world.result(late)]) == []
    assert await world.alive.finish([world.result(first, "error", error="late")]) == [world.call.id]
    record = await world.record()
    assert (record.status, record.attempt) == ("success", 2)
    assert await stores.queue.holds([world.call.id]) == set()
    assert await world.alive.extend([LeaseKey(world.call.id, second.key.token)]) == [world.call.id]
