"""What becomes of accepted calls: attempts, dead letters, repeats, cancellation, callbacks, limits."""

from __future__ import annotations

import asyncio
import contextlib

import msgspec
import pytest

from services.call_control import StoresCallControl
from services.callbacks.body import callback_of
from services.data_access import DirectDataAccess
from services.janitor import clean
from services.stores import Stores
from shared_models import errors, times
from shared_models.async_policy import AsyncSettings
from shared_models.call import Call, Finished, LeasedCall, Reason
from shared_models.call_interfaces import CallControl, DeadLetterFilter
from shared_models.fn import Fn
from shared_models.ids import IdMaker, new_id
from shared_models.interfaces import DataAccess
from shared_models.runner import RunnerReport
from tests.conformance.dying import Died
from tests.conformance.test_data_access import NODE, a_call, accepted, annotated, ended, fn, taken

__all__ = ["fn"]

MB = 1 << 20


@pytest.fixture
def control(stores: Stores, data: DataAccess, clock) -> CallControl:
    return StoresCallControl(stores, data, AsyncSettings(backoff=0.0), clock)


async def record(stores: Stores, call: Call) -> Call:
    return await stores.logstore.call(call.id, app_id=call.app_id, fn_id=call.fn_id)


async def letters(stores: Stores, fn: Fn) -> list[str]:
    return [one.call.id for one in await stores.dead_letters.page(DeadLetterFilter(fn_id=fn.id))]


def failed(leased: LeasedCall, reason: str = Reason.NOT_STARTED, error: str = "no image") -> Finished:
    return ended(leased, "error", error=error, reason=reason)


# -- attempts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reason", [Reason.NOT_STARTED, Reason.NO_ROOM, Reason.RUNNER_LOST, Reason.RUNNER_STOPPED]
)
async def test_an_attempt_without_a_result_is_repeated_and_the_last_one_is_a_dead_letter(
    data: DataAccess, stores: Stores, fn: Fn, reason: str
) -> None:
    call = await accepted(data, fn, payload=b"\x00work", headers={"X": ["1"]})
    for attempt in (1, 2, 3):
        assert await letters(stores, fn) == []
        leased = await taken(data)
        assert (leased.call.id, leased.lease.attempt) == (call.id, attempt)
        assert await data.finish([failed(leased, reason)]) == []
        found = await record(stores, call)
        assert (found.status, found.attempt) == ("queued" if attempt < 3 else "error", attempt)
    assert await data.dequeue(NODE, 1, 0) == []
    assert (found.reason, found.error) == (reason, "gave up after 3 attempts: no image")
    letter = await stores.dead_letters.get(call.id)
    assert (letter.call.payload, letter.call.headers) == (b"\x00work", {"X": ["1"]})
    assert (letter.call.reason, letter.call.attempt, letter.call.error) == (reason, 3, found.error)


async def test_a_function_that_failed_is_neither_repeated_nor_a_dead_letter(
    data: DataAccess, stores: Stores, fn: Fn
) -> None:
    call = await accepted(data, fn)
    leased = await taken(data)
    await data.start(leased)
    assert await data.finish([failed(leased, Reason.FUNCTION, "it said no")]) == []
    assert (await record(stores, call)).reason == Reason.FUNCTION
    assert await letters(stores, fn) == []
    assert await data.dequeue(NODE, 1, 0) == []


async def test_a_function_that_wants_repetitions_is_a_dead_letter_after_the_last(
    data: DataAccess, stores: Stores, fn: Fn
) -> None:
    asks = annotated(retry_on='"error"', max_attempts="2", backoff="0")
    call = await accepted(data, fn, annotations=asks)
    for _ in range(2):
        assert await letters(stores, fn) == []
        leased = await taken(data)
        await data.start(leased)
        await data.finish([failed(leased, Reason.FUNCTION, "it said no")])
    assert await letters(stores, fn) == [call.id]
    assert (await record(stores, call)).error == "it said no"


async def test_what_each_attempt_wrote_is_in_the_log_of_the_call(
    data: DataAccess, stores: Stores, fn: Fn, clock
) -> None:
    asks = annotated(retry_on='"error"', max_attempts="3", backoff="0")
    call = await accepted(data, fn, annotations=asks)
    late: list[LeasedCall] = []
    for word in (b"one", b"lost", b"three"):
        leased = await taken(data)
        await data.start(leased)
        if word == b"lost":
            late.append(leased)
            clock.move(31)
            continue
        result = msgspec.structs.replace(failed(leased, Reason.FUNCTION, "it said no"), log=word)
        assert await data.finish([result]) == []
        await data.finish([result])
    [old] = late
    lost = msgspec.structs.replace(failed(old, Reason.FUNCTION, "it was late"), log=b"lost")
    assert await data.finish([lost]) == [call.id]
    log = b"".join([piece async for piece in await stores.logstore.log(call.id, app_id=call.app_id)])
    assert log == b"--- attempt 1 ---\none\n--- attempt 3 ---\nthree"


async def test_attempts_come_after_growing_pauses_in_the_old_place(
    data: DataAccess, stores: Stores, fn: Fn, clock
) -> None:
    first = await accepted(data, fn, annotations=annotated(backoff="10"))
    second = await accepted(data, fn)
    for pause in (10, 20):
        leased = await taken(data)
        assert leased.call.id == first.id
        assert await data.finish([failed(leased)]) == []
        clock.move(pause * 0.85)
        other = await taken(data)
        assert other.call.id == second.id, "it waits, and others do not"
        await data.release([other.key])
        clock.move(pause * 0.3)


async def test_a_result_that_is_handed_in_again_after_a_repetition_changes_nothing(
    data: DataAccess, stores: Stores, fn: Fn
) -> None:
    call = await accepted(data, fn)
    leased = await taken(data)
    for _ in range(2):
        await data.finish([failed(leased)])
        assert (await record(stores, call)).status == "queued"
    again = await taken(data)
    assert again.lease.attempt == 2
    assert await data.finish([failed(leased)]) == [call.id], "the first holder speaks for nobody now"
    assert await data.finish([ended(again)]) == []
    assert (await record(stores, call)).status == "success"


async def test_a_node_that_died_between_record_and_queue_costs_no_attempt_more(
    data: DataAccess, stores: Stores, fn: Fn, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(*_args: object) -> list[str]:
        raise errors.QueueUnavailable

    call = await accepted(data, fn)
    leased = await taken(data)
    with monkeypatch.context() as patch:
        patch.setattr(type(stores.queue), "requeue", down)
        with pytest.raises(errors.Unavailable):
            await data.finish([failed(leased)])
    assert await data.finish([failed(leased)]) == []
    assert (await taken(data)).lease.attempt == 2
    assert (await record(stores, call)).attempt == 2


async def test_a_late_last_attempt_leaves_no_dead_letter_of_a_call_that_goes_on(
    data: DataAccess, stores: Stores, fn: Fn, clock
) -> None:
    call = await accepted(data, fn, annotations=annotated(max_attempts="2"))
    late = await taken(data)
    clock.move(31)
    current = await taken(data)
    await data.start(current)
    assert await data.finish([failed(late)]) == [call.id]
    assert await letters(stores, fn) == []
    assert await data.finish([ended(current)]) == []
    assert (await record(stores, call)).status == "success"


async def test_calls_of_lost_runners_and_calls_that_are_too_old_are_dead_letters(
    data: DataAccess, stores: Stores, fn: Fn, clock
) -> None:
    lost = await accepted(data, fn, annotations=annotated(max_attempts="1"), payload=b"1")
    await taken(data)
    old = await accepted(data, fn, annotations=annotated(max_age="20"), payload=b"2")
    clock.move(31)
    assert await data.dequeue(NODE, 5, 0) == []
    for call, reason in ((lost, Reason.RUNNER_LOST), (old, Reason.EXPIRED)):
        found = await record(stores, call)
        assert (found.reason, found.attempt) == (reason, 1 if call is lost else 0)
        letter = await stores.dead_letters.get(call.id)
        assert (letter.call.payload, letter.call.reason, letter.call.attempt) == (
            call.payload, reason, found.attempt,
        )  # fmt: skip


# -- dead letters, cancellation ----------------------------------------------------------------


async def test_a_dead_letter_is_queued_again_as_a_new_call(
    data: DataAccess, stores: Stores, fn: Fn, control: CallControl, clock
) -> None:
    call = await accepted(data, fn, annotations=annotated(max_attempts="1"), payload=b"p", priority=1)
    await data.finish([failed(await taken(data))])
    clock.move(7 * 3600)
    new = await control.redrive(call.id)
    assert new != call.id
    leased = await taken(data)
    assert (leased.call.id, leased.call.payload, leased.call.priority) == (new, b"p", 1)
    assert (leased.lease.attempt, leased.call.error, leased.call.reason) == (1, "", "")
    assert await letters(stores, fn) == []
    assert (await record(stores, call)).status == "error", "a final state never changes"
    with pytest.raises(errors.DeadLetterNotFound):
        await control.redrive(call.id)


async def test_a_redrive_that_died_half_way_is_completed_with_the_same_id(
    data: DataAccess, stores: Stores, fn: Fn, control: CallControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(*_args: object) -> int:
        raise errors.StoreUnavailable

    call = await accepted(data, fn, annotations=annotated(max_attempts="1"))
    await data.finish([failed(await taken(data))])
    with monkeypatch.context() as patch:
        patch.setattr(type(stores.dead_letters), "remove", down)
        with pytest.raises(errors.Unavailable):
            await control.redrive(call.id)
    new = await control.redrive(call.id)
    assert [one.call.id for one in await data.dequeue(NODE, 5, 0)] == [new]


async def test_all_dead_letters_of_a_function_come_back_oldest_first(
    data: DataAccess, stores: Stores, fn: Fn, control: CallControl
) -> None:
    payloads = [bytes([number]) for number in range(4)]
    for payload in payloads:
        await accepted(data, fn, annotations=annotated(max_attempts="1"), payload=payload)
        await data.finish([failed(await taken(data))])
    assert await control.redrive_all(fn.id, 3) == 3
    assert await control.redrive_all("other", 3) == 0
    assert [one.call.payload for one in await data.dequeue(NODE, 9, 0)] == payloads[:3]
    assert await stores.dead_letters.count(fn.id) == 1


async def test_a_queued_call_that_is_cancelled_never_runs(
    data: DataAccess, stores: Stores, fn: Fn, control: CallControl
) -> None:
    call = await accepted(data, fn, delay=100)
    for _ in range(2):
        await control.cancel(fn.id, call.id)
    found = await record(stores, call)
    assert (found.status, found.reason) == ("cancelled", "cancelled")
    assert await stores.queue.holds([call.id]) == set()
    assert await letters(stores, fn) == []


async def test_all_queued_calls_of_a_function_are_cancelled_each_as_if_alone(
    data: DataAccess, stores: Stores, fn: Fn, control: CallControl
) -> None:
    other = await stores.datastore.insert_fn(Fn(name="other", app_id=fn.app_id, image="i:1"))
    running = await accepted(data, fn)
    leased = await taken(data)
    await data.start(leased)
    url = "https://example.org/done"
    queued = [await accepted(data, fn, delay=n % 2 * 100, callback_url=url) for n in range(5)]
    others = await accepted(data, other)
    assert await control.cancel_queued(fn.id, 3) == 3
    assert (await stores.queue.depth(fn.id)).queued == 2
    assert await control.cancel_queued(fn.id, 10) == 2
    assert await control.cancel_queued(fn.id, 10) == 0
    ends = [await record(stores, call) for call in queued]
    assert {(one.status, one.reason) for one in ends} == {("cancelled", "cancelled")}
    assert await stores.queue.holds([call.id for call in queued]) == set()
    assert {one.call_id for one in await stores.outbox.due(50, 1)} == {call.id for call in queued}
    assert await letters(stores, fn) == []
    assert await data.finish([ended(leased)]) == []
    assert (await record(stores, running)).status == "success"
    assert (await taken(data)).call.id == others.id


async def test_queued_calls_that_runners_take_meanwhile_are_cancelled_or_run(
    data: DataAccess, stores: Stores, fn: Fn, control: CallControl
) -> None:
    calls = [await accepted(data, fn) for _ in range(40)]
    asked = [data.dequeue(NODE, 5, 0) for _ in range(4)]
    cancelled, *found = await asyncio.gather(control.cancel_queued(fn.id, 100), *asked)
    for one in [one for some in found for one in some]:
        with contextlib.suppress(errors.LeaseLost):
            await data.start(one)
            await data.finish([ended(one)])
    assert await control.cancel_queued(fn.id, 100) == 0
    ends = [(await record(stores, call)).status for call in calls]
    assert set(ends) <= {"cancelled", "success"}
    assert ends.count("cancelled") == cancelled
    assert await stores.queue.holds([call.id for call in calls]) == set()


async def test_a_running_call_that_is_cancelled_is_taken_from_its_runner(
    data: DataAccess, stores: Stores, fn: Fn, control: CallControl
) -> None:
    call = await accepted(data, fn)
    leased = await taken(data)
    await data.start(leased)
    await control.cancel(fn.id, call.id)
    assert await data.extend([leased.key]) == [call.id]
    assert await data.finish([ended(leased)]) == [call.id]
    found = await record(stores, call)
    assert (found.status, found.attempt, found.node) == ("cancelled", 1, NODE)
    assert found.started_at == (await record(stores, call)).started_at != "0001-01-01T00:00:00.000Z"
    assert await data.dequeue(NODE, 1, 0) == []


async def test_what_has_ended_or_is_unknown_cannot_be_cancelled(
    data: DataAccess, fn: Fn, control: CallControl
) -> None:
    call = await accepted(data, fn)
    leased = await taken(data)
    await data.start(leased)
    await data.finish([ended(leased)])
    with pytest.raises(errors.CallEnded, match="success"):
        await control.cancel(fn.id, call.id)
    for fn_id, call_id in ((fn.id, new_id()), (new_id(), call.id)):
        with pytest.raises(errors.CallNotFound):
            await control.cancel(fn_id, call_id)


async def test_a_cancel_and_a_result_at_once_have_one_winner(
    data: DataAccess, stores: Stores, fn: Fn, control: CallControl
) -> None:
    for _ in range(5):
        call = await accepted(data, fn)
        leased = await taken(data)
        await data.start(leased)
        cancelled, refused = await asyncio.gather(
            control.cancel(fn.id, call.id), data.finish([ended(leased)]), return_exceptions=True
        )
        found = await record(stores, call)
        if found.status == "cancelled":
            assert (cancelled, refused) == (None, [call.id])
        else:
            assert (found.status, refused) == ("success", [])
            assert isinstance(cancelled, errors.CallEnded)


# -- what is accepted --------------------------------------------------------------------------


async def test_one_key_is_one_call_for_a_day(data: DataAccess, stores: Stores, fn: Fn, clock) -> None:
    ids = {await data.enqueue(a_call(fn, idempotency_key="k𠀋")) for _ in range(3)}
    leased = await taken(data)
    assert {leased.call.id} == ids
    await data.start(leased)
    await data.finish([ended(leased)])
    clock.move(23 * 3600)
    assert await data.enqueue(a_call(fn, idempotency_key="k𠀋")) in ids
    assert await data.enqueue(a_call(fn, idempotency_key="other")) not in ids
    await data.finish([ended(await taken(data))])
    assert await data.dequeue(NODE, 5, 0) == []
    # What is known of the key lasts as long, even where the call's record does not.
    clock.move(1800)
    assert await stores.logstore.expire_calls(times.to_text(clock() + 1), 10) == 2
    assert await data.enqueue(a_call(fn, idempotency_key="k𠀋")) in ids
    assert await data.dequeue(NODE, 5, 0) == []
    clock.move(1801)
    assert await data.enqueue(a_call(fn, idempotency_key="k𠀋")) not in ids


async def test_a_key_at_many_nodes_at_once_is_one_call(data: DataAccess, fn: Fn) -> None:
    ids = await asyncio.gather(*[data.enqueue(a_call(fn, idempotency_key="k")) for _ in range(8)])
    assert len(set(ids)) == 1
    assert [one.call.id for one in await data.dequeue(NODE, 9, 0)] == ids[:1]


async def test_a_key_whose_first_call_was_not_accepted_is_good_for_the_next(
    data: DataAccess, stores: Stores, fn: Fn, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def down(*_args: object) -> bool:
        raise errors.QueueUnavailable

    with monkeypatch.context() as patch:
        patch.setattr(type(stores.queue), "push", down)
        with pytest.raises(errors.QueueUnavailable):
            await data.enqueue(a_call(fn, idempotency_key="k"))
    call_id = await data.enqueue(a_call(fn, idempotency_key="k"))
    assert (await taken(data)).call.id == call_id


async def test_a_function_whose_queue_is_full_is_refused_and_others_are_not(
    data: DataAccess, stores: Stores, fn: Fn
) -> None:
    other = await stores.datastore.insert_fn(Fn(name="other", app_id=fn.app_id, image="i:1"))
    limit = annotated(max_queued="3")
    for _ in range(3):
        await accepted(data, fn, annotations=limit)
    with pytest.raises(errors.TooMany, match="3 calls wait, the limit is 3") as caught:
        await accepted(data, fn, annotations=limit)
    assert 1 <= caught.value.retry_after <= 60
    await accepted(data, other, annotations=limit)
    assert len(await data.dequeue(NODE, 9, 0)) == 4


async def test_a_call_that_is_larger_than_any_runner_is_refused(
    data: DataAccess, stores: Stores, fn: Fn
) -> None:
    large = await stores.datastore.insert_fn(Fn(name="l", app_id=fn.app_id, image="i:1", memory=4096))
    for node, memory in (("a", 1024), ("b", 2048)):
        await data.heartbeat(RunnerReport(id=node, capacity_memory=memory * MB, capacity_cpus=2000))
    with pytest.raises(errors.Invalid, match="needs 4096 MB, the largest runner has 2048 MB"):
        await accepted(data, large)
    with pytest.raises(errors.Invalid, match="and 2001 mCPU, the largest runner has 2048 MB and 2000 mCPU"):
        await accepted(data, fn, cpus="2001m")
    await accepted(data, fn, cpus="2000m")
    await accepted(data, fn)


async def test_a_call_that_is_larger_than_a_runners_worker_is_refused(
    data: DataAccess, stores: Stores, fn: Fn
) -> None:
    large = await stores.datastore.insert_fn(Fn(name="l", app_id=fn.app_id, image="i:1", memory=1025))
    await data.heartbeat(RunnerReport(id="a", capacity_memory=2048 * MB, capacity_cpus=3000, workers=2))
    with pytest.raises(errors.Invalid, match="needs 1025 MB, the largest runner has 1024 MB"):
        await accepted(data, large)
    with pytest.raises(errors.Invalid, match="and 1501 mCPU, the largest runner has 1024 MB and 1500 mCPU"):
        await accepted(data, fn, cpus="1501m")
    await accepted(data, fn, cpus="1500m")


async def test_without_any_runner_calls_wait_for_one(data: DataAccess, stores: Stores, fn: Fn) -> None:
    large = await stores.datastore.insert_fn(Fn(name="l", app_id=fn.app_id, image="i:1", memory=8192))
    await accepted(data, large)
    assert len(await data.dequeue(NODE, 1, 0)) == 1


@pytest.mark.parametrize("url", ["http://10.0.0.1/", "ftp://example.org/", "http://169.254.169.254/x"])
async def test_an_address_that_may_not_be_called_back_is_refused(
    data: DataAccess, stores: Stores, fn: Fn, url: str
) -> None:
    call = a_call(fn, callback_url=url)
    with pytest.raises(errors.Invalid, match="Fn-Callback-Url"):
        await data.enqueue(call)
    assert await stores.queue.holds([call.id]) == set()


# -- callbacks ---------------------------------------------------------------------------------


async def test_a_result_leaves_a_callback_and_a_repetition_no_second_one(
    data: DataAccess, stores: Stores, fn: Fn
) -> None:
    await accepted(data, fn, callback_url="https://example.org/done")
    leased = await taken(data)
    await data.start(leased)
    result = msgspec.structs.replace(ended(leased), body=b"\xff", content_type="a/b", truncated=True)
    for _ in range(2):
        assert await data.finish([result]) == []
    [callback] = await stores.outbox.due(5, 30)
    assert (callback.call_id, callback.url, callback.status) == (
        leased.call.id, "https://example.org/done", "success",
    )  # fmt: skip
    assert callback.body == callback_of(result).body


async def test_calls_that_end_without_a_result_have_a_callback_too_and_repeated_ones_have_none(
    data: DataAccess, stores: Stores, fn: Fn, control: CallControl
) -> None:
    url = "https://example.org/done"
    await accepted(data, fn, callback_url=url, annotations=annotated(max_attempts="2"))
    await data.finish([failed(await taken(data))])
    assert await stores.outbox.count() == 0
    await data.finish([failed(await taken(data))])
    call = await accepted(data, fn, callback_url=url)
    await control.cancel(fn.id, call.id)
    assert [one.status for one in await stores.outbox.due(5, 30)] == ["error", "cancelled"]


# -- fair shares -------------------------------------------------------------------------------


async def test_a_runner_passes_over_functions_of_which_it_has_enough(
    data: DataAccess, stores: Stores, fn: Fn
) -> None:
    other = await stores.datastore.insert_fn(Fn(name="other", app_id=fn.app_id, image="i:1"))
    mine, theirs = await accepted(data, fn), await accepted(data, other)
    assert [one.call.id for one in await data.dequeue(NODE, 5, 0, [fn.id])] == [theirs.id]
    assert [one.call.id for one in await data.dequeue(NODE, 5, 0)] == [mine.id]


# -- half-made calls that the janitor has ended ------------------------------------------------


async def half_made(stores: Stores, clock, monkeypatch: pytest.MonkeyPatch, call: Call) -> str:
    """The id of a call whose node died between its record and its message, and which was ended since."""

    async def dies(*_args: object) -> bool:
        raise Died

    with monkeypatch.context() as patch:
        patch.setattr(type(stores.queue), "push", dies)
        with pytest.raises(Died):
            await DirectDataAccess(stores, clock=clock).enqueue(call)
    clock.move(120)
    assert await clean(stores, clock) == [call.id]
    return call.id


async def test_a_key_whose_first_call_was_never_accepted_gets_a_new_call(
    data: DataAccess, stores: Stores, fn: Fn, clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = await half_made(stores, clock, monkeypatch, a_call(fn, idempotency_key="k"))
    accepted_as = await data.enqueue(a_call(fn, idempotency_key="k"))
    assert accepted_as != lost
    assert (await taken(data)).call.id == accepted_as
    assert await data.enqueue(a_call(fn, idempotency_key="k")) == accepted_as


async def test_a_call_that_was_never_accepted_and_is_over_is_not_accepted_later(
    data: DataAccess, stores: Stores, fn: Fn, clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = a_call(fn)
    await half_made(stores, clock, monkeypatch, call)
    with pytest.raises(errors.Conflict, match="never accepted"):
        await data.enqueue(call)
    assert await data.dequeue(NODE, 1, 0) == []


async def test_a_redrive_that_was_never_accepted_is_done_anew(
    data: DataAccess, stores: Stores, fn: Fn, control: CallControl, clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = await accepted(data, fn, annotations=annotated(max_attempts="1"), payload=b"p")
    await data.finish([failed(await taken(data))])
    half = await stores.dead_letters.redrive(call.id, new_id())
    await half_made(stores, clock, monkeypatch, msgspec.structs.replace(a_call(fn), id=half))
    new = await control.redrive(call.id)
    assert new != half
    leased = await taken(data)
    assert (leased.call.id, leased.call.payload) == (new, b"p")


async def test_a_push_that_fails_takes_no_record_from_a_repetition_that_was_accepted(
    data: DataAccess, stores: Stores, fn: Fn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client had no answer in time and sent the call to another node, while the first still tried."""
    call = a_call(fn)
    push, repeated = type(stores.queue).push, []

    async def slow(queue: object, pushed: Call) -> bool:
        if not repeated:
            repeated.append(True)
            await data.enqueue(call)
            raise errors.QueueUnavailable
        return await push(queue, pushed)

    with monkeypatch.context() as patch:
        patch.setattr(type(stores.queue), "push", slow)
        with pytest.raises(errors.QueueUnavailable):
            await DirectDataAccess(stores).enqueue(call)
    assert (await record(stores, call)).status == "queued"
    assert (await taken(data)).call.id == call.id


# -- clocks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("minutes", [10, -10])
async def test_a_runner_whose_clock_is_ten_minutes_off_loses_no_call(
    data: DataAccess, stores: Stores, fn: Fn, clock, minutes: int
) -> None:
    """Its clock is in the id, and in all times that it names; none of them decides anything."""
    its = clock() + minutes * 60
    call = msgspec.structs.replace(
        a_call(fn, annotations=annotated(max_age="300"), created_at=times.to_text(its)),
        id=IdMaker(clock=lambda: its)(),
    )
    await data.enqueue(call)
    clock.move(61)
    assert await clean(stores, clock) == []
    leased = await taken(data)
    assert leased.lease.age == pytest.approx(61, abs=1)
    await data.start(
        msgspec.structs.replace(
            leased, call=msgspec.structs.replace(leased.call, started_at=times.to_text(its + 61))
        )
    )
    clock.move(20)
    assert await data.extend([leased.key]) == []
    clock.move(20)
    assert await data.dequeue(NODE, 1, 0) == [], "it is still leased"
    result = ended(leased)
    late = msgspec.structs.replace(result.call, completed_at=times.to_text(its + 101))
    assert await data.finish([msgspec.structs.replace(result, call=late)]) == []
    assert (await record(stores, call)).status == "success"
