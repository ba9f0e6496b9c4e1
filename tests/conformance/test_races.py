"""Nodes and runners that speak for one call at the same moment, in the worst order."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from services.call_control import StoresCallControl
from services.data_access import DirectDataAccess
from services.janitor import clean
from services.logstore.none import NoLogStore
from services.stores import Stores
from shared_models import errors
from shared_models.async_policy import AsyncSettings
from shared_models.call import LeasedCall, LeaseKey, Reason
from shared_models.call_interfaces import CallControl, DeadLetter
from shared_models.fn import Fn
from shared_models.interfaces import DataAccess
from shared_models.telemetry import REGISTRY
from tests.conformance.test_data_access import NODE, a_call, accepted, annotated, ended, fn, taken
from tests.conformance.test_delivery import control, failed, letters, record

__all__ = ["control", "fn"]

LATER = 31.0
"""Seconds after which a lease has run out."""
ONCE = annotated(max_attempts="1")


@pytest.fixture
def node(stores: Stores, clock: Any) -> DataAccess:
    """An API node beside the one that is ``data``."""
    return DirectDataAccess(stores, AsyncSettings(backoff=0.0), clock=clock)


@pytest.fixture
def before(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has *interfere* done once, just before a *verb* of a store is."""

    def patch(store: object, verb: str, interfere: Callable[[], Awaitable[Any]]) -> None:
        original, done = getattr(type(store), verb), []

        async def interfered(*given: Any, **named: Any) -> Any:
            if not done:
                done.append(True)
                await interfere()
            return await original(*given, **named)

        monkeypatch.setattr(type(store), verb, interfered)

    return patch


# -- dead letters ------------------------------------------------------------------------------


async def test_a_call_that_two_nodes_give_up_for_different_reasons_is_a_dead_letter(
    data: DataAccess, node: DataAccess, stores: Stores, fn: Fn, clock: Any, before: Any
) -> None:
    call = await accepted(data, fn, annotations=ONCE, payload=b"p")
    late = failed(await taken(data))
    clock.move(LATER)
    before(stores.logstore, "finish_calls", lambda: node.dequeue(NODE, 1, 0))
    assert await data.finish([late]) == [call.id]
    assert (await record(stores, call)).reason == Reason.RUNNER_LOST
    assert await letters(stores, fn) == [call.id]
    assert (await stores.dead_letters.get(call.id)).call.payload == b"p"


async def test_a_dead_letter_that_is_taken_back_stays_if_its_call_dies_in_that_moment(
    data: DataAccess, node: DataAccess, stores: Stores, fn: Fn, clock: Any, before: Any
) -> None:
    call = await accepted(data, fn, annotations=ONCE, payload=b"p")
    late = failed(await taken(data))
    clock.move(LATER)
    [again] = await stores.queue.reserve(1, 0, 30)
    held = msgspec.structs.replace(again, lease=msgspec.structs.replace(again.lease, attempt=1))
    assert await stores.logstore.claim([held], NODE) == []
    before(stores.dead_letters, "remove", lambda: node.finish([failed(held)]))
    assert await data.finish([late]) == [call.id]
    assert (await record(stores, call)).status == "error"
    assert await letters(stores, fn) == [call.id]


async def test_an_old_attempt_that_is_handed_in_during_the_last_one_buries_nothing(
    data: DataAccess, stores: Stores, fn: Fn, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even for a moment: the node that does it may die in it."""
    call = await accepted(data, fn, annotations=annotated(max_attempts="2"))
    old = failed(await taken(data))
    assert await data.finish([old]) == []
    current = await taken(data)
    await data.start(current)
    buried: list[object] = []

    async def put(_letters: object, some: object) -> None:
        buried.append(some)

    monkeypatch.setattr(type(stores.dead_letters), "put", put)
    assert await data.finish([old]) == [call.id]
    assert buried == []
    assert await data.finish([ended(current)]) == []


async def test_the_end_of_a_last_attempt_may_be_handed_in_twice(
    data: DataAccess, stores: Stores, fn: Fn
) -> None:
    call = await accepted(data, fn)
    for _ in range(3):
        last = failed(await taken(data))
        assert await data.finish([last]) == []
    first = await record(stores, call)
    assert await data.finish([last]) == [], "the same request has the same answer"
    assert await record(stores, call) == first
    assert await letters(stores, fn) == [call.id]
    other = msgspec.structs.replace(last, call=msgspec.structs.replace(last.call, error="other"))
    assert await data.finish([other]) == [call.id]


async def test_a_node_that_was_too_slow_to_give_a_call_up_leaves_its_message_to_the_next(
    data: DataAccess, node: DataAccess, stores: Stores, fn: Fn, clock: Any, before: Any
) -> None:
    call = a_call(fn, annotations=ONCE, payload=b"p")
    await data.enqueue(call)
    await taken(data)
    clock.move(LATER)

    async def next_node_dies_with_its_claim() -> None:
        clock.move(LATER)
        [leased] = await stores.queue.reserve(1, 0, 30)
        held = msgspec.structs.replace(leased, lease=msgspec.structs.replace(leased.lease, attempt=1))
        assert await stores.logstore.claim([held], NODE) == []
        clock.move(LATER)

    before(stores.logstore, "finish_calls", next_node_dies_with_its_claim)
    assert await data.dequeue(NODE, 1, 0) == []
    assert (await record(stores, call)).reason == Reason.RUNNER_LOST
    assert await stores.queue.holds([call.id]) == set()


async def test_a_call_that_was_allowed_more_attempts_when_it_began_is_given_up_all_the_same(
    stores: Stores, fn: Fn, clock: Any
) -> None:
    """The nodes were started anew with a smaller FN_ASYNC_MAX_ATTEMPTS."""
    before, after = (
        DirectDataAccess(stores, AsyncSettings(max_attempts=most), clock=clock) for most in (5, 2)
    )
    call = await accepted(before, fn)
    for _ in range(4):
        await before.start(await taken(before))
        clock.move(LATER)
    assert await after.dequeue(NODE, 1, 0) == []
    found = await record(stores, call)
    assert (found.status, found.reason, found.attempt) == ("error", Reason.RUNNER_LOST, 4)
    assert await letters(stores, fn) == [call.id]
    assert await stores.queue.holds([call.id]) == set()


# -- what is accepted --------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", "k"])
async def test_a_call_that_filled_the_queue_may_be_sent_again(
    data: DataAccess, node: DataAccess, stores: Stores, fn: Fn, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """The answer to the first request was lost, with a key before it could be marked as accepted."""

    async def down(*_given: object) -> None:
        raise errors.StoreUnavailable

    call = a_call(fn, annotations=annotated(max_queued="1"), idempotency_key=key)
    with monkeypatch.context() as patch:
        patch.setattr(type(stores.idempotency_keys), "accept", down)
        assert await data.enqueue(call) == call.id
    assert await node.enqueue(call) == call.id
    with pytest.raises(errors.QueueFull):
        await node.enqueue(a_call(fn, annotations=annotated(max_queued="1")))
    assert [one.call.id for one in await data.dequeue(NODE, 5, 0)] == [call.id]


async def test_a_queued_call_whose_key_could_not_be_marked_is_accepted(
    data: DataAccess, stores: Stores, fn: Fn, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(*_given: object) -> None:
        raise errors.StoreUnavailable

    call = a_call(fn, idempotency_key="k")
    with monkeypatch.context() as patch:
        patch.setattr(type(stores.idempotency_keys), "accept", down)
        assert await data.enqueue(call) == call.id
    await data.finish([ended(await taken(data))])
    assert await data.enqueue(a_call(fn, idempotency_key="k")) == call.id
    assert await data.dequeue(NODE, 1, 0) == []


async def test_what_is_refused_while_the_queue_is_away_leaves_nothing_that_looks_lost(
    data: DataAccess, stores: Stores, fn: Fn, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = a_call(fn)
    with monkeypatch.context() as patch:
        for verb in ("push", "holds"):
            patch.setattr(type(stores.queue), verb, away)
        with pytest.raises(errors.QueueUnavailable):
            await data.enqueue(call)
    clock.move(120)
    assert await clean(stores, clock) == []
    with pytest.raises(errors.CallNotFound):
        await record(stores, call)


# -- cancelling --------------------------------------------------------------------------------


async def test_a_call_whose_record_was_lost_can_be_cancelled(
    data: DataAccess, stores: Stores, fn: Fn, control: CallControl
) -> None:
    """A node that believed its push to have failed has withdrawn the record of a call that is queued."""
    call = await accepted(data, fn, delay=3600, callback_url="https://example.org/")
    await stores.logstore.remove_call(call.id)
    with pytest.raises(errors.CallNotFound):
        await control.cancel("01KQ0000000000000000000000", call.id)
    await control.cancel(fn.id, call.id)
    found = await record(stores, call)
    assert (found.status, found.reason) == ("cancelled", Reason.CANCELLED)
    assert await stores.queue.holds([call.id]) == set()
    assert [one.status for one in await stores.outbox.due(9, 60)] == ["cancelled"]


async def test_a_call_that_is_cancelled_while_it_is_accepted_is_called_back(
    data: DataAccess, stores: Stores, fn: Fn, control: CallControl, before: Any
) -> None:
    call = a_call(fn, callback_url="https://example.org/")
    before(stores.logstore, "call", lambda: data.enqueue(call))
    await control.cancel(fn.id, call.id)
    assert (await record(stores, call)).status == "cancelled"
    assert [one.status for one in await stores.outbox.due(9, 60)] == ["cancelled"]


async def test_without_records_who_cancels_a_call_is_called_back(
    bare: Stores, stores: Stores, fn: Fn, clock: Any
) -> None:
    node = DirectDataAccess(bare, clock=clock)
    call = a_call(fn, callback_url="https://example.org/")
    await node.enqueue(call)
    await StoresCallControl(bare, node, AsyncSettings(), clock).cancel(fn.id, call.id)
    assert await stores.queue.holds([call.id]) == set()
    assert [one.status for one in await stores.outbox.due(9, 60)] == ["cancelled"]


# -- a queue that is away, and no records ------------------------------------------------------


async def away(*_given: object) -> None:
    raise errors.QueueUnavailable


async def test_a_result_beside_one_that_must_wait_for_the_queue_is_stored_at_once(
    data: DataAccess, stores: Stores, fn: Fn, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its lease runs out while the queue is away, and it runs a second time."""
    calls = [await accepted(data, fn) for _ in range(2)]
    bad, good = await data.dequeue(NODE, 2, 0)
    with monkeypatch.context() as patch:
        for verb in ("requeue", "delete", "extend"):
            patch.setattr(type(stores.queue), verb, away)
        with pytest.raises(errors.Unavailable):
            await data.finish([failed(bad), ended(good)])
    clock.move(LATER)
    again = await data.dequeue(NODE, 5, 0)
    assert [(one.call.id, one.lease.attempt) for one in again] == [(bad.call.id, 2)]
    assert await data.finish([failed(bad), ended(good)]) == [bad.call.id]
    assert (await record(stores, calls[1])).status == "success"


@pytest.fixture
def bare(stores: Stores) -> Stores:
    """Without a log store."""
    return dataclasses.replace(stores, logstore=NoLogStore())


async def test_without_records_a_finished_call_does_not_run_again_after_the_queue_was_away(
    bare: Stores, fn: Fn, clock: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = DirectDataAccess(bare, clock=clock)
    await accepted(node, fn)
    result = ended(await taken(node))
    with monkeypatch.context() as patch:
        patch.setattr(type(bare.queue), "delete", away)
        with pytest.raises(errors.QueueUnavailable):
            await node.finish([result])
    assert await node.finish([result]) == []
    clock.move(LATER)
    assert await node.dequeue(NODE, 1, 0) == []


@pytest.mark.parametrize("end", [ended, failed])
async def test_without_records_too_a_late_runner_ends_nothing(
    bare: Stores, fn: Fn, clock: Any, end: Any
) -> None:
    node = DirectDataAccess(bare, AsyncSettings(backoff=0.0), clock=clock)
    call = await accepted(node, fn, callback_url="https://example.org/")
    late = end(await taken(node))
    clock.move(LATER)
    current = await taken(node)
    assert await node.finish([late]) == [call.id]
    assert await bare.outbox.due(9, 60) == []
    await node.start(current)
    assert await node.finish([ended(current)]) == []
    assert [one.attempt for one in await bare.outbox.due(9, 60)] == [2]


# -- dead letters, and runners of others -------------------------------------------------------


async def test_a_dead_letter_that_is_not_accepted_again_holds_up_no_other(
    data: DataAccess, stores: Stores, fn: Fn, control: CallControl
) -> None:
    bad = a_call(fn, callback_url="http://10.0.0.1/")  # it was allowed when the call came
    good = await accepted(data, fn, annotations=ONCE)
    await stores.dead_letters.put([DeadLetter(call=bad)])
    with pytest.raises(errors.Invalid):
        await control.redrive_all(fn.id, 10)
    await data.finish([failed(await taken(data))])
    assert await letters(stores, fn) == [good.id, bad.id]
    assert await control.redrive_all(fn.id, 10) == 1
    assert await letters(stores, fn) == [bad.id]


async def test_who_called_is_called_back_whichever_runner_ran_the_call(
    data: DataAccess, stores: Stores, fn: Fn
) -> None:
    """An unmodified Fn runner sends a call back without what it does not know."""
    call = await accepted(data, fn, callback_url="https://example.org/")
    leased = await taken(data)
    known = msgspec.structs.replace(leased.call, callback_url="", attempt=0, node="")
    bare = LeasedCall(call=known)
    await data.start(bare)
    assert await data.finish([ended(bare)]) == []
    assert (await record(stores, call)).status == "success"
    [callback] = await stores.outbox.due(9, 60)
    assert (callback.call_id, callback.url) == (call.id, "https://example.org/")


async def test_a_call_that_the_queue_lost_is_counted_as_ended(
    data: DataAccess, stores: Stores, fn: Fn, clock: Any
) -> None:
    def lost() -> float:
        named = {"status": "error", "reason": "lost"}
        return REGISTRY.get_sample_value("fn_async_ended_total", named) or 0.0

    call = await accepted(data, fn)
    await stores.queue.delete([LeaseKey(call.id)])
    clock.move(120)
    before = lost()
    assert await clean(stores, clock) == [call.id]
    assert lost() == before + 1
