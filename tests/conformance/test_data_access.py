"""The contract of data access: what runners see, and what survives whoever dies in between."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from services.stores import Stores
from shared_models import errors, times
from shared_models.app import App
from shared_models.call import Call, Finished, LeasedCall, LeaseKey, Status
from shared_models.fn import Fn
from shared_models.ids import new_id
from shared_models.interfaces import DataAccess, MessageQueue
from shared_models.route import Route
from shared_models.runner import RunnerReport, RunnerState
from shared_models.trigger import Trigger

NODE = "node-a"
COMPLETED = "2027-01-15T08:00:02.000Z"


@pytest.fixture
async def fn(stores: Stores) -> Fn:
    app = await stores.datastore.insert_app(App(name="app"))
    return await stores.datastore.insert_fn(Fn(name="fn", app_id=app.id, image="i:1"))


def a_call(fn: Fn, **more: object) -> Call:
    fields = {
        "fn_id": fn.id, "app_id": fn.app_id, "image": fn.image, "type": "detached", "timeout": 30,
        "created_at": "2027-01-15T08:00:00.000Z",
    }  # fmt: skip
    return Call(id=new_id(), **{**fields, **more})


def annotated(**values: str) -> dict[str, msgspec.Raw]:
    names = {name: f"fn.hybrid/async/{name.replace('_', '-')}" for name in values}
    return {names[name]: msgspec.Raw(value.encode()) for name, value in values.items()}


def ended(leased: LeasedCall, status: str = Status.SUCCESS, log: bytes = b"log", **more: object) -> Finished:
    call = msgspec.structs.replace(leased.call, status=status, completed_at=COMPLETED, **more)
    return Finished(call=call, token=leased.key.token, log=log)


async def accepted(data: DataAccess, fn: Fn, **more: object) -> Call:
    call = a_call(fn, **more)
    await data.enqueue(call)
    return call


async def taken(data: DataAccess, limit: int = 1) -> LeasedCall:
    [leased] = await data.dequeue(NODE, limit, 0)
    return leased


# -- look-ups ----------------------------------------------------------------------------------


async def test_look_ups_answer_what_the_datastore_has(data: DataAccess, stores: Stores, fn: Fn) -> None:
    app = await stores.datastore.app(fn.app_id)
    trigger = await stores.datastore.insert_trigger(
        Trigger(name="t", app_id=app.id, fn_id=fn.id, type="http", source="/s/𠀋 %")
    )
    route = await stores.datastore.insert_route(Route(app_id=app.id, path="/p/q", image="i", memory=128))
    assert await data.app_id("app") == app.id
    assert await data.app(app.id) == app
    assert await data.fn(fn.id) == fn
    assert await data.route(app.id, "/p/q") == route
    target = await data.trigger("app", "http", "/s/𠀋 %")
    assert (target.trigger, target.fn, target.app) == (trigger, fn, app)


async def test_look_ups_raise_what_the_datastore_raises(data: DataAccess, fn: Fn) -> None:
    missing = new_id()
    for look_up, error in (
        (data.app_id("none"), errors.AppNotFound),
        (data.app(missing), errors.AppNotFound),
        (data.fn(missing), errors.FnNotFound),
        (data.route(fn.app_id, "/none"), errors.RouteNotFound),
        (data.trigger("none", "http", "/s"), errors.AppNotFound),
        (data.trigger("app", "http", "/none"), errors.TriggerNotFound),
    ):
        with pytest.raises(error):
            await look_up


# -- enqueue -----------------------------------------------------------------------------------


async def test_an_accepted_call_is_recorded_and_queued(data: DataAccess, stores: Stores, fn: Fn) -> None:
    call = await accepted(data, fn, payload=b"\xff\x00", headers={"X": ["1"]}, status="", config={"K": "v"})
    record = await stores.logstore.call(call.id, app_id=call.app_id)
    assert (record.status, record.attempt, record.fn_id) == ("queued", 0, fn.id)
    leased = await taken(data)
    assert (leased.call.id, leased.call.payload, leased.call.headers, leased.call.config) == (
        call.id, b"\xff\x00", {"X": ["1"]}, {"K": "v"},
    )  # fmt: skip
    assert leased.call.status == "queued"


async def test_a_repeated_enqueue_is_one_call(data: DataAccess, stores: Stores, fn: Fn) -> None:
    call = a_call(fn)
    await asyncio.gather(*[data.enqueue(call) for _ in range(4)])
    leased = await taken(data, 10)
    await data.enqueue(call)
    await data.start(leased)
    await data.enqueue(call)
    await data.finish([ended(leased)])
    await data.enqueue(call)
    assert await data.dequeue(NODE, 10, 0) == []
    assert (await stores.logstore.call(call.id, app_id=call.app_id)).status == "success"


async def test_an_id_of_another_call_is_refused(data: DataAccess, stores: Stores, fn: Fn) -> None:
    call = await accepted(data, fn)
    other = await stores.datastore.insert_fn(Fn(name="other", app_id=fn.app_id, image="i:1"))
    with pytest.raises(errors.Conflict):
        await data.enqueue(msgspec.structs.replace(call, fn_id=other.id))


async def test_a_call_is_checked_before_anything_is_stored(data: DataAccess, stores: Stores, fn: Fn) -> None:
    for call, error in (
        (a_call(fn, fn_id=new_id()), errors.FnNotFound),
        (a_call(fn, image="evil:1"), errors.Invalid),
        (a_call(fn, app_id=new_id()), errors.Invalid),
        (a_call(fn, fn_id="", app_id=new_id(), path="/p"), errors.AppNotFound),
    ):
        with pytest.raises(error) as raised:
            await data.enqueue(call)
        if "evil" in call.image:
            assert "evil:1" in raised.value.message
            assert fn.image in raised.value.message
        with pytest.raises(errors.CallNotFound):
            await stores.logstore.call(call.id, app_id=call.app_id)
    assert await data.dequeue(NODE, 10, 0) == []


@pytest.mark.parametrize("trouble", [errors.QueueUnavailable, errors.Invalid])
async def test_a_call_whose_push_fails_is_not_accepted(
    data: DataAccess, stores: Stores, fn: Fn, monkeypatch: pytest.MonkeyPatch, trouble: type[errors.FnError]
) -> None:
    async def failing(_queue: MessageQueue, _call: Call) -> bool:
        raise trouble

    call = a_call(fn)
    with monkeypatch.context() as patch:
        patch.setattr(type(stores.queue), "push", failing)
        with pytest.raises(trouble):
            await data.enqueue(call)
    with pytest.raises(errors.CallNotFound):
        await stores.logstore.call(call.id, app_id=call.app_id)
    await data.enqueue(call)
    assert (await taken(data)).call.id == call.id


async def test_a_repetition_completes_what_a_node_that_died_began(
    data: DataAccess, stores: Stores, fn: Fn
) -> None:
    call = a_call(fn)
    await stores.logstore.insert_call(call)  # and then the node died
    assert await data.dequeue(NODE, 1, 0) == []
    await data.enqueue(call)
    assert (await taken(data)).call.id == call.id


async def test_a_call_of_an_unmodified_fn_runner_needs_only_its_app(
    data: DataAccess, stores: Stores, fn: Fn
) -> None:
    old = {"fn_id": "", "path": "/p", "type": "async", "created_at": "2018-06-26T08:00:00.000Z"}
    await accepted(data, fn, **old)
    leased = await taken(data)
    assert leased.call.created_at == "2018-06-26T08:00:00.000Z", "its clock is not ours: it is not too old"
    bare = LeasedCall(call=leased.call)
    await data.start(bare)
    with pytest.raises(errors.LeaseLost):
        await data.start(bare)
    assert await data.finish([ended(bare)]) == []
    assert await stores.queue.holds([leased.call.id]) == set()
    assert (await stores.logstore.call(leased.call.id, app_id=leased.call.app_id)).status == "success"


async def test_an_unmodified_fn_runner_has_its_calls_timeout_to_finish(
    data: DataAccess, fn: Fn, clock
) -> None:
    await accepted(data, fn, fn_id="", path="/p", type="async", timeout=100)
    bare = LeasedCall(call=(await taken(data)).call)
    await data.start(bare)
    clock.move(155)
    assert await data.dequeue(NODE, 1, 0) == []
    clock.move(10)
    again = await taken(data)
    assert await data.finish([ended(bare)]) == [again.call.id]


# -- dequeue -----------------------------------------------------------------------------------


async def test_a_dequeued_call_is_the_nodes(data: DataAccess, stores: Stores, fn: Fn) -> None:
    call = await accepted(data, fn)
    leased = await taken(data)
    assert leased.lease is not None
    assert (leased.lease.attempt, leased.call.attempt) == (1, 1)
    assert leased.lease.token
    assert leased.lease.ttl > 0
    record = await stores.logstore.call(call.id, app_id=call.app_id)
    assert (record.status, record.node, record.attempt) == ("queued", NODE, 1)


async def test_a_repetition_that_finds_its_record_withdrawn_and_made_again_is_the_same_call(
    data: DataAccess, stores: Stores, fn: Fn, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = await accepted(data, fn)
    store, looked = type(stores.logstore), []
    look = store.call

    async def withdrawn_for_a_moment(self: Any, call_id: str, **more: Any) -> Call:
        looked.append(call_id)
        if len(looked) == 1:
            raise errors.CallNotFound
        return await look(self, call_id, **more)

    monkeypatch.setattr(store, "call", withdrawn_for_a_moment)
    await data.enqueue(call)
    assert looked == [call.id, call.id]
    assert [one.call.id for one in await data.dequeue(NODE, 5, 0)] == [call.id]


async def test_no_more_calls_are_handed_out_than_asked_for(data: DataAccess, fn: Fn) -> None:
    pushed = [(await accepted(data, fn)).id for _ in range(5)]
    first, second = await data.dequeue(NODE, 3, 0), await data.dequeue(NODE, 3, 0)
    assert [one.call.id for one in [*first, *second]] == pushed
    assert len(first) == 3


@pytest.mark.usefixtures("no_looks")
async def test_a_waiting_dequeue_is_woken_by_an_enqueue(data: DataAccess, fn: Fn) -> None:
    waiter = asyncio.create_task(data.dequeue(NODE, 1, 120))
    assert (await asyncio.wait([waiter], timeout=0.1))[0] == set()
    call = await accepted(data, fn)
    assert [one.call.id for one in await asyncio.wait_for(waiter, 60)] == [call.id]


async def test_a_lost_lease_comes_back_with_the_next_attempt(
    data: DataAccess, stores: Stores, fn: Fn, clock
) -> None:
    await accepted(data, fn)
    first = await taken(data)
    await data.start(first)
    clock.move(31)
    [second] = await data.dequeue("node-b", 1, 0)
    assert (second.lease.attempt, second.call.id) == (2, first.call.id)
    record = await stores.logstore.call(first.call.id, app_id=first.call.app_id)
    assert (record.status, record.node, record.attempt) == ("queued", "node-b", 2)


async def test_a_call_is_given_up_after_its_last_attempt_without_a_result(
    data: DataAccess, stores: Stores, fn: Fn, clock
) -> None:
    for wishes, attempts in (({}, 3), (annotated(max_attempts="1"), 1)):
        call = await accepted(data, fn, annotations=wishes)
        for attempt in range(1, attempts + 1):
            assert (await taken(data)).lease.attempt == attempt
            clock.move(31)
        other = await accepted(data, fn)
        leased = await taken(data)
        assert leased.call.id == other.id, "it does not stand in the way of others"
        record = await stores.logstore.call(call.id, app_id=call.app_id)
        assert record.status == "error"
        assert f"gave up after {attempts} attempts" in record.error
        assert record.completed_at == times.to_text(clock())
        assert await stores.queue.holds([call.id]) == set()
        await data.finish([ended(leased)])


async def test_a_call_that_waited_too_long_is_given_up(
    data: DataAccess, stores: Stores, fn: Fn, clock
) -> None:
    short = await accepted(data, fn, annotations=annotated(max_age="60"))
    normal = await accepted(data, fn)
    clock.move(61)
    leased = await taken(data, 5)
    assert leased.call.id == normal.id
    await data.release([leased.key])
    clock.move(6 * 3600)
    assert await data.dequeue(NODE, 5, 0) == []
    for call in (short, normal):
        record = await stores.logstore.call(call.id, app_id=call.app_id)
        assert (record.status, "in the queue" in record.error) == ("error", True)


async def test_a_message_that_outlived_its_call_is_dropped(
    data: DataAccess, stores: Stores, fn: Fn, clock
) -> None:
    """The node died between storing a result and deleting the message."""
    await accepted(data, fn)
    leased = await taken(data)
    await data.start(leased)
    await stores.logstore.finish_calls([ended(leased)])
    clock.move(31)
    assert await data.dequeue(NODE, 1, 0) == []
    assert await stores.queue.holds([leased.call.id]) == set()
    assert (await stores.logstore.call(leased.call.id, app_id=leased.call.app_id)).status == "success"


async def test_a_lease_that_nobody_claimed_comes_back(
    data: DataAccess, stores: Stores, fn: Fn, clock
) -> None:
    """The node died between taking the lease and writing it down."""
    call = await accepted(data, fn)
    await stores.queue.reserve(1, 0, 30)
    clock.move(31)
    assert (await taken(data)).call.id == call.id


async def test_a_database_that_is_away_costs_no_attempt(
    data: DataAccess, stores: Stores, fn: Fn, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(*_args: object) -> list[str]:
        raise errors.StoreUnavailable

    await accepted(data, fn)
    with monkeypatch.context() as patch:
        patch.setattr(type(stores.logstore), "claim", down)
        with pytest.raises(errors.Unavailable):
            await data.dequeue(NODE, 1, 0)
    assert (await taken(data)).lease.attempt == 1


# -- start, extend, release --------------------------------------------------------------------


async def test_a_start_may_be_repeated_and_renews_the_lease(
    data: DataAccess, stores: Stores, fn: Fn, clock
) -> None:
    await accepted(data, fn)
    leased = await taken(data)
    clock.move(29)
    for _ in range(2):
        await data.start(leased)
    assert (await stores.logstore.call(leased.call.id, app_id=leased.call.app_id)).status == "running"
    clock.move(29)
    assert await data.dequeue(NODE, 1, 0) == []


async def test_a_late_runner_can_neither_start_nor_extend_nor_finish(
    data: DataAccess, stores: Stores, fn: Fn, clock
) -> None:
    await accepted(data, fn)
    late = await taken(data)
    clock.move(31)
    holder = await taken(data)
    with pytest.raises(errors.LeaseLost):
        await data.start(late)
    assert await data.extend([late.key, holder.key]) == [late.call.id]
    assert await data.finish([ended(late, "error", error="late")]) == [late.call.id]
    await data.release([late.key])
    await data.start(holder)
    assert await data.finish([ended(late, "error", error="late")]) == [late.call.id]
    assert await data.finish([ended(holder)]) == []
    assert await data.finish([ended(late, "error", error="late")]) == [late.call.id]
    assert (await stores.logstore.call(late.call.id, app_id=late.call.app_id)).status == "success"


async def test_a_renewed_lease_keeps_the_call(data: DataAccess, fn: Fn, clock) -> None:
    await accepted(data, fn)
    leased = await taken(data)
    for _ in range(4):
        clock.move(20)
        assert await data.extend([leased.key]) == []
        assert await data.dequeue(NODE, 1, 0) == []


async def test_an_extension_names_all_that_is_lost(data: DataAccess, fn: Fn) -> None:
    await accepted(data, fn)
    leased = await taken(data)
    keys = [LeaseKey(new_id(), "t"), leased.key, LeaseKey(leased.call.id, "")]
    assert sorted(await data.extend(keys)) == sorted([keys[0].id, leased.call.id])
    assert await data.extend([]) == []


async def test_a_released_call_goes_to_the_next_runner_at_once_uncounted(
    data: DataAccess, stores: Stores, fn: Fn
) -> None:
    await accepted(data, fn)
    leased = await taken(data)
    for _ in range(2):
        await data.release([leased.key])
    record = await stores.logstore.call(leased.call.id, app_id=leased.call.app_id)
    assert (record.status, record.attempt, record.node) == ("queued", 0, "")
    again = await taken(data)
    assert again.lease.attempt == 1
    await data.release([leased.key])
    await data.start(again)


async def test_a_release_that_died_half_way_is_mended_by_the_next_lease(
    data: DataAccess, stores: Stores, fn: Fn
) -> None:
    await accepted(data, fn)
    leased = await taken(data)
    await stores.queue.release([leased.key])  # and then the node died
    again = await taken(data)
    await data.start(again)
    assert await data.finish([ended(again)]) == []


# -- finish ------------------------------------------------------------------------------------


async def test_a_finished_call_leaves_the_queue_and_keeps_its_log(
    data: DataAccess, stores: Stores, fn: Fn
) -> None:
    await accepted(data, fn)
    leased = await taken(data)
    await data.start(leased)
    for _ in range(2):
        assert await data.finish([ended(leased, log=b"\xff log")]) == []
    assert await stores.queue.holds([leased.call.id]) == set()
    assert (await stores.logstore.call(leased.call.id, app_id=leased.call.app_id)).status == "success"
    assert (
        b"".join(
            [piece async for piece in await stores.logstore.log(leased.call.id, app_id=leased.call.app_id)]
        )
        == b"\xff log"
    )
    with pytest.raises(errors.LeaseLost):
        await data.start(leased)


@pytest.mark.parametrize("body", [b"", b"text", b"\xff\0", b"\x01" * 2**17])
async def test_what_the_function_answered_is_kept_where_it_says_so(
    data: DataAccess, stores: Stores, fn: Fn, body: bytes
) -> None:
    asked = {"wanted": annotated(keep_result="true"), "unwanted": {}}
    calls = {name: await accepted(data, fn, annotations=given) for name, given in asked.items()}
    batch = []
    for leased in await data.dequeue(NODE, 2, 0):
        await data.start(leased)
        answer = {"body": body, "content_type": "x/y", "truncated": True, "answered": True}
        batch.append(msgspec.structs.replace(ended(leased), **answer))
    for _ in range(2):
        assert await data.finish(batch) == []
    found = await stores.logstore.result(calls["wanted"].id, fn_id=fn.id, app_id=fn.app_id)
    assert b"".join([piece async for piece in found.body]) == body
    assert (found.content_type, found.truncated) == ("x/y", True)
    with pytest.raises(errors.CallResultNotFound):
        await stores.logstore.result(calls["unwanted"].id, fn_id=fn.id, app_id=fn.app_id)


async def test_a_batch_may_mix_sync_and_async_results(data: DataAccess, stores: Stores, fn: Fn) -> None:
    for _ in range(2):
        await accepted(data, fn)
    one, two = await data.dequeue(NODE, 2, 0)
    sync = Finished(call=a_call(fn, type="sync", status="success", completed_at=COMPLETED), log=b"s")
    forged = Finished(call=msgspec.structs.replace(two.call, type="sync", status="success"), log=b"f")
    await data.start(one)
    assert await data.finish([sync, ended(one), forged]) == [two.call.id]
    assert await data.finish([]) == []
    assert (await stores.logstore.call(sync.call.id, app_id=sync.call.app_id)).status == "success"
    assert await stores.queue.holds([one.call.id, two.call.id]) == {two.call.id}
    await data.start(two)


async def test_a_result_that_is_not_final_is_invalid(data: DataAccess, fn: Fn) -> None:
    await accepted(data, fn)
    leased = await taken(data)
    with pytest.raises(errors.Invalid):
        await data.finish([ended(leased, "running")])


async def test_a_function_that_fails_is_run_again_only_if_it_asks_for_it(
    data: DataAccess, stores: Stores, fn: Fn
) -> None:
    asks = annotated(retry_on='"error"', max_attempts="2")
    for wishes, status, runs in (
        ({}, "error", 1), (asks, "timeout", 1), (asks, "success", 1), (asks, "error", 2),
    ):  # fmt: skip
        call = await accepted(data, fn, annotations=wishes)
        for attempt in range(1, runs + 1):
            leased = await taken(data)
            assert leased.lease.attempt == attempt
            await data.start(leased)
            assert await data.finish([ended(leased, status, error="e")]) == []
            record = await stores.logstore.call(call.id, app_id=call.app_id)
            assert record.status == (status if attempt == runs else "queued")
        assert await data.dequeue(NODE, 1, 0) == []


async def test_results_are_kept_while_the_queue_is_away(
    data: DataAccess, stores: Stores, fn: Fn, monkeypatch: pytest.MonkeyPatch, clock
) -> None:
    async def down(*_args: object) -> None:
        raise errors.QueueUnavailable

    await accepted(data, fn)
    leased = await taken(data)
    await data.start(leased)
    with monkeypatch.context() as patch:
        patch.setattr(type(stores.queue), "delete", down)
        assert await data.finish([ended(leased)]) == []
    clock.move(31)
    assert await data.dequeue(NODE, 1, 0) == []
    assert (await stores.logstore.call(leased.call.id, app_id=leased.call.app_id)).status == "success"


# -- heartbeat ---------------------------------------------------------------------------------


async def test_a_heartbeat_registers_the_runner(data: DataAccess, stores: Stores) -> None:
    report = RunnerReport(id=NODE, address="http://a:8081", version="1", running=2, warm=["f"])
    assert await data.heartbeat(report) == RunnerState.ACTIVE
    [runner] = await stores.datastore.runners()
    assert (runner.report, runner.state) == (report, "active")
