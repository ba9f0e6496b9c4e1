"""The contract of log stores: records of calls, their fencing, their logs."""

from __future__ import annotations

import asyncio
import itertools

import msgspec
import pytest

from shared_models import errors, times
from shared_models.call import Call, Finished, Lease, LeasedCall, LeaseKey, Reason, Stat, Status
from shared_models.ids import IdMaker
from shared_models.interfaces import CallFilter, LogStore, Purge

STARTED, COMPLETED = "2027-01-15T08:00:01.000Z", "2027-01-15T08:00:02.000Z"


MACHINES = itertools.count(1)


def an_id(made_at: str) -> str:
    """An id of that moment; of two of one moment, the later one is greater."""
    return IdMaker(next(MACHINES), lambda: times.seconds_of(made_at))()


def a_call(**more: object) -> Call:
    fields = {"app_id": "app", "fn_id": "fn", "type": "detached", "image": "i:1"}
    created_at = str(more.get("created_at", "2027-01-15T08:00:00.000Z"))
    return Call(**{"id": an_id(created_at), "created_at": created_at, **fields, **more})


def leased(call: Call, token: str, attempt: int = 1) -> LeasedCall:
    return LeasedCall(call=call, lease=Lease(token=token, attempt=attempt, ttl=30))


def ended(call: Call, status: str = Status.SUCCESS, *, token: str = "", log: bytes = b"", **more) -> Finished:
    fields = {"started_at": STARTED, "completed_at": COMPLETED, **more}
    return Finished(call=msgspec.structs.replace(call, status=status, **fields), token=token, log=log)


async def the_log(store: LogStore, call_id: str, **owner: str) -> bytes:
    owner = owner or {"app_id": "app"}
    return b"".join([piece async for piece in await store.log(call_id, **owner)])


async def running(store: LogStore, token: str = "t1", **more: object) -> Call:
    call = a_call(**more)
    await store.insert_call(call)
    await store.claim([leased(call, token)], "node")
    await store.start_call(LeaseKey(call.id, token), STARTED)
    return call


# -- in and out --------------------------------------------------------------------------------


async def test_a_call_is_recorded_as_queued_once(logstore: LogStore) -> None:
    call = a_call(path="/p/𠀋", trigger_id="t", status="", attempt=7, node="x", payload=b"secret")
    assert await logstore.insert_call(call) is True
    assert await logstore.insert_call(msgspec.structs.replace(call, app_id="other")) is False
    record = await logstore.call(call.id, app_id="app")
    assert (record.status, record.attempt, record.node) == ("queued", 0, "")
    assert (record.app_id, record.fn_id, record.trigger_id, record.path, record.type, record.created_at) == (
        "app", "fn", "t", "/p/𠀋", "detached", call.created_at,
    )  # fmt: skip
    assert record.started_at == record.completed_at == times.NEVER
    assert record.payload == b""


async def test_of_racing_inserts_of_one_id_one_records(logstore: LogStore) -> None:
    call = a_call()
    outcomes = await asyncio.gather(*[logstore.insert_call(call) for _ in range(8)])
    assert sorted(outcomes) == [False] * 7 + [True]


async def test_only_an_untouched_record_can_be_forgotten(logstore: LogStore) -> None:
    fresh, claimed = a_call(), a_call()
    for call in (fresh, claimed):
        await logstore.insert_call(call)
    await logstore.claim([leased(claimed, "t")], "node")
    for call in (fresh, claimed):
        await logstore.remove_call(call.id)
    await logstore.remove_call("unknown")
    with pytest.raises(errors.CallNotFound):
        await logstore.call(fresh.id, app_id="app")
    assert (await logstore.call(claimed.id, app_id="app")).attempt == 1


# -- claims ------------------------------------------------------------------------------------


async def test_a_claim_names_node_and_attempt_and_keeps_the_call_queued(logstore: LogStore) -> None:
    call = a_call()
    await logstore.insert_call(call)
    assert await logstore.claim([leased(call, "t", 2)], "node-a") == []
    record = await logstore.call(call.id, app_id="app")
    assert (record.status, record.attempt, record.node) == ("queued", 2, "node-a")


async def test_a_call_without_a_record_gets_one_when_it_is_claimed(logstore: LogStore) -> None:
    call = a_call(status="queued")
    assert await logstore.claim([leased(call, "t")], "node") == []
    record = await logstore.call(call.id, app_id="app")
    assert (record.status, record.attempt, record.fn_id) == ("queued", 1, "fn")
    await logstore.start_call(LeaseKey(call.id, "t"), STARTED)


async def test_a_final_call_cannot_be_claimed(logstore: LogStore) -> None:
    done, open_ = await running(logstore), a_call()
    await logstore.finish_calls([ended(done, token="t1")])
    assert await logstore.claim([leased(done, "t2", 2), leased(open_, "t")], "node") == [done.id]
    assert (await logstore.call(done.id, app_id="app")).status == "success"


async def test_a_lost_lease_of_a_running_call_is_claimed_again(logstore: LogStore) -> None:
    call = await running(logstore)
    assert await logstore.claim([leased(call, "t2", 2)], "other") == []
    record = await logstore.call(call.id, app_id="app")
    assert (record.status, record.attempt, record.node, record.started_at) == (
        "queued", 2, "other", times.NEVER,
    )  # fmt: skip


async def test_a_claim_that_comes_after_that_of_a_later_lease_takes_nothing_back(logstore: LogStore) -> None:
    call = a_call()
    await logstore.insert_call(call)
    await logstore.claim([leased(call, "second", 2)], "b")
    assert await logstore.claim([leased(call, "first", 1)], "a") == []
    await logstore.start_call(LeaseKey(call.id, "second"), STARTED)
    with pytest.raises(errors.LeaseLost):
        await logstore.start_call(LeaseKey(call.id, "first"), STARTED)


async def test_a_call_given_back_has_no_holder_and_one_attempt_less(logstore: LogStore) -> None:
    call = await running(logstore)
    await logstore.unclaim([LeaseKey(call.id, "other"), LeaseKey(call.id, ""), LeaseKey("unknown", "t")])
    assert (await logstore.call(call.id, app_id="app")).status == "running"
    for _ in range(2):
        await logstore.unclaim([LeaseKey(call.id, "t1")])
        record = await logstore.call(call.id, app_id="app")
        assert (record.status, record.attempt, record.node) == ("queued", 0, "")
    with pytest.raises(errors.LeaseLost):
        await logstore.start_call(LeaseKey(call.id, "t1"), STARTED)


async def test_a_final_call_cannot_be_given_back(logstore: LogStore) -> None:
    call = await running(logstore)
    await logstore.finish_calls([ended(call, token="t1")])
    await logstore.unclaim([LeaseKey(call.id, "t1")])
    assert (await logstore.call(call.id, app_id="app")).status == "success"


# -- start -------------------------------------------------------------------------------------


async def test_a_start_by_the_holder_may_be_repeated(logstore: LogStore) -> None:
    call = await running(logstore)
    await logstore.start_call(LeaseKey(call.id, "t1"), COMPLETED)
    record = await logstore.call(call.id, app_id="app")
    assert (record.status, record.started_at) == ("running", STARTED), "the second one changed nothing"


async def test_nobody_else_can_start_a_call(logstore: LogStore) -> None:
    call = a_call()
    await logstore.insert_call(call)
    for token in ("t", ""):
        with pytest.raises(errors.LeaseLost):
            await logstore.start_call(LeaseKey(call.id, token), STARTED)
    await logstore.claim([leased(call, "t")], "node")
    for key in (LeaseKey(call.id, "other"), LeaseKey("unknown", "t"), LeaseKey("unknown", "")):
        with pytest.raises(errors.LeaseLost):
            await logstore.start_call(key, STARTED)
    assert (await logstore.call(call.id, app_id="app")).status == "queued"


async def test_a_final_call_cannot_be_started(logstore: LogStore) -> None:
    call = await running(logstore)
    await logstore.finish_calls([ended(call, token="t1")])
    for token in ("t1", ""):
        with pytest.raises(errors.LeaseLost):
            await logstore.start_call(LeaseKey(call.id, token), STARTED)


async def test_a_start_without_a_token_counts_once(logstore: LogStore) -> None:
    call = a_call()
    await logstore.claim([leased(call, "t")], "node")
    await logstore.start_call(LeaseKey(call.id, ""), STARTED)
    assert (await logstore.call(call.id, app_id="app")).status == "running"
    with pytest.raises(errors.LeaseLost):
        await logstore.start_call(LeaseKey(call.id, ""), STARTED)


# -- finish ------------------------------------------------------------------------------------


async def test_a_result_is_stored_with_its_log(logstore: LogStore) -> None:
    call = await running(logstore)
    stats = [Stat(timestamp=STARTED, metrics={"cpu_user": 1})]
    result = ended(call, "error", token="t1", log=b"a\xffb", error="exit code 1 𠀋", stats=stats)
    assert await logstore.finish_calls([result]) == []
    record = await logstore.call(call.id, app_id="app")
    assert (record.status, record.error, record.stats) == ("error", "exit code 1 𠀋", stats)
    assert (record.started_at, record.completed_at, record.attempt, record.node) == (
        STARTED, COMPLETED, 1, "node",
    )  # fmt: skip
    assert await the_log(logstore, call.id) == b"a\xffb"


async def test_the_same_result_again_is_no_error_and_changes_nothing(logstore: LogStore) -> None:
    call = await running(logstore)
    for log in (b"first", b"again"):
        assert await logstore.finish_calls([ended(call, token="t1", log=log)]) == []
    assert await the_log(logstore, call.id) == b"first"


async def test_a_final_state_never_changes(logstore: LogStore) -> None:
    call = await running(logstore)
    await logstore.finish_calls([ended(call, token="t1", log=b"first")])
    before = await logstore.call(call.id, app_id="app")
    for late in (
        ended(call, "error", token="t1", log=b"late", error="other"),
        ended(call, "timeout", token="t2", log=b"late"),
        ended(call, "error", log=b"late"),
        ended(call, token="t1", completed_at="2027-01-15T08:00:09.000Z"),
    ):
        assert await logstore.finish_calls([late]) == [call.id]
    assert await logstore.call(call.id, app_id="app") == before
    assert await the_log(logstore, call.id) == b"first"


async def test_the_result_of_a_lost_lease_is_refused(logstore: LogStore) -> None:
    call = await running(logstore, "old")
    await logstore.claim([leased(call, "new", 2)], "other")
    assert await logstore.finish_calls([ended(call, token="old", log=b"late")]) == [call.id]
    with pytest.raises(errors.CallLogNotFound):
        await logstore.log(call.id, app_id="app")
    await logstore.start_call(LeaseKey(call.id, "new"), STARTED)
    assert await logstore.finish_calls([ended(call, token="old")]) == [call.id]
    assert await logstore.finish_calls([ended(call, token="new")]) == []


async def test_a_sync_call_is_recorded_when_it_ends(logstore: LogStore) -> None:
    call = a_call(type="sync")
    assert await logstore.finish_calls([ended(call, log=b"x")]) == []
    assert (await logstore.call(call.id, app_id="app")).status == "success"
    assert await the_log(logstore, call.id) == b"x"


async def test_a_forged_result_without_a_token_is_refused(logstore: LogStore) -> None:
    queued, held = a_call(), await running(logstore)
    await logstore.insert_call(queued)
    forged = [ended(queued), ended(held), ended(msgspec.structs.replace(held, type="sync"))]
    assert await logstore.finish_calls(forged) == [queued.id, held.id, held.id]
    assert (await logstore.call(queued.id, app_id="app")).status == "queued"
    assert (await logstore.call(held.id, app_id="app")).status == "running"


async def test_a_result_for_another_function_is_refused(logstore: LogStore) -> None:
    call = await running(logstore)
    other = msgspec.structs.replace(call, fn_id="other")
    assert await logstore.finish_calls([ended(other, token="t1")]) == [call.id]


async def test_a_call_of_an_unmodified_fn_runner_ends_without_a_token(logstore: LogStore) -> None:
    unrecorded, call = a_call(type="async"), a_call(type="async")
    await logstore.claim([leased(call, "t")], "")
    assert await logstore.finish_calls([ended(call)]) == [call.id], "not started yet"
    await logstore.start_call(LeaseKey(call.id, ""), STARTED)
    assert await logstore.finish_calls([ended(call), ended(unrecorded)]) == []
    await logstore.claim([leased(call, "t2", 2)], "")
    assert (await logstore.call(call.id, app_id="app")).status == "success"


async def test_a_state_that_is_not_final_is_no_result(logstore: LogStore) -> None:
    call = await running(logstore)
    for status in ("running", "queued", "", "nonsense"):
        assert await logstore.finish_calls([ended(call, status, token="t1")]) == [call.id]
    assert (await logstore.call(call.id, app_id="app")).status == "running"


async def test_a_batch_is_one_transaction_in_which_each_call_counts_for_itself(logstore: LogStore) -> None:
    held, sync, lost = await running(logstore), a_call(type="sync"), await running(logstore)
    batch = [ended(held, token="t1", log=b"1"), ended(sync, log=b"2"), ended(lost, token="no", log=b"3")]
    assert await logstore.finish_calls([*batch, batch[0]]) == [lost.id]
    assert [await the_log(logstore, one.id) for one in (held, sync)] == [b"1", b"2"]
    assert await logstore.finish_calls([]) == []


@pytest.mark.parametrize("error", ["a\0b", "\0", "𠀋" * 5000, "line\nline"])
async def test_no_reason_of_a_failure_loses_its_record(logstore: LogStore, error: str) -> None:
    call = a_call(type="sync", path="/a\0b")
    assert await logstore.finish_calls([ended(call, "error", error=error, log=b"\0")]) == []
    record = await logstore.call(call.id, app_id="app")
    # A database that has no NUL keeps a picture of it.
    assert record.error.replace("␀", "\0") == error
    assert await the_log(logstore, call.id) == b"\0"


async def test_a_result_says_its_reason_in_one_word_which_v1_does_not_show(logstore: LogStore) -> None:
    queued, sync = await running(logstore, reason="left over"), a_call(type="sync")
    assert (await logstore.call(queued.id, app_id="app")).reason == ""
    results = [
        ended(queued, "error", token="t1", error="killed", reason=Reason.OOM),
        ended(sync, "timeout", reason=Reason.TIMEOUT),
    ]
    assert await logstore.finish_calls(results) == []
    for call, reason in ((queued, "oom"), (sync, "timeout")):
        found = await logstore.call(call.id, app_id="app")
        assert (found.reason, found.record()["reason"]) == (reason, reason)
        assert "reason" not in found.whole()
    listed = await logstore.calls(CallFilter(fn_id="fn"))
    assert {call.id: call.reason for call in listed} == {queued.id: "oom", sync.id: "timeout"}
    assert await logstore.finish_calls(results) == []


async def test_a_call_that_waits_has_no_reason_whatever_it_came_with(logstore: LogStore) -> None:
    queued, unrecorded = a_call(reason="left over"), a_call(reason="left over")
    await logstore.insert_call(queued)
    await logstore.claim([leased(unrecorded, "t")], "node")
    for call in (queued, unrecorded):
        assert (await logstore.call(call.id, app_id="app")).reason == ""


@pytest.mark.parametrize("reason", ["word" * 1000, "\0", "𠀋" * 50])
async def test_a_reason_that_is_none_loses_no_record(logstore: LogStore, reason: str) -> None:
    call = a_call(type="sync")
    assert await logstore.finish_calls([ended(call, "error", reason=reason)]) == []
    found = await logstore.call(call.id, app_id="app")
    assert found.reason.replace("␀", "\0") == reason[:32]


async def test_a_large_batch_is_stored_whole(logstore: LogStore, many: int) -> None:
    batch = [ended(a_call(type="sync"), log=b"x") for _ in range(many)]
    assert await logstore.finish_calls(batch) == []
    assert await logstore.finish_calls(batch) == []
    assert await the_log(logstore, batch[-1].call.id) == b"x"


async def test_of_racing_results_one_is_stored(logstore: LogStore) -> None:
    call = await running(logstore)
    outcomes = await asyncio.gather(
        *[logstore.finish_calls([ended(call, "error", token="t1", error=str(i))]) for i in range(6)]
    )
    assert sorted(map(len, outcomes)) == [0, 1, 1, 1, 1, 1]
    assert (await logstore.call(call.id, app_id="app")).error == str(outcomes.index([]))


# -- reading -----------------------------------------------------------------------------------


async def test_a_call_is_found_only_under_its_own_function_and_app(logstore: LogStore) -> None:
    call = a_call(type="sync")
    await logstore.finish_calls([ended(call, log=b"x")])
    assert (await logstore.call(call.id, fn_id="fn", app_id="app")).id == call.id
    for owner in ({"fn_id": "other"}, {"app_id": "other"}, {"fn_id": "fn", "app_id": "other"}):
        with pytest.raises(errors.CallNotFound):
            await logstore.call(call.id, **owner)
        with pytest.raises(errors.CallLogNotFound):
            await logstore.log(call.id, **owner)
    with pytest.raises(errors.CallNotFound):
        await logstore.call("unknown")


async def test_calls_are_listed_newest_first_page_by_page(logstore: LogStore) -> None:
    mine = [a_call() for _ in range(5)]
    for call in [*mine, a_call(fn_id="other"), a_call(app_id="elsewhere", fn_id="far")]:
        await logstore.insert_call(call)
    listed: list[str] = []
    while page := await logstore.calls(CallFilter(fn_id="fn", before=listed[-1] if listed else "", limit=2)):
        listed += [call.id for call in page]
    assert listed == [call.id for call in reversed(mine)]
    assert len(await logstore.calls(CallFilter(app_id="app"))) == 6
    assert len(await logstore.calls(CallFilter())) == 7


async def test_calls_are_filtered_by_state_and_by_exclusive_times(logstore: LogStore) -> None:
    at = [f"2027-01-15T08:00:0{i}.000Z" for i in range(4)]
    made = [a_call(created_at=moment, type="sync") for moment in at]
    await logstore.insert_call(made[0])
    await logstore.finish_calls([ended(call, "error" if call is made[3] else "success") for call in made[1:]])

    async def ids(**page: str) -> list[str]:
        return [call.id for call in await logstore.calls(CallFilter(fn_id="fn", **page))]

    assert await ids(status="queued") == [made[0].id]
    assert await ids(status="error") == [made[3].id]
    assert await ids(from_time=at[0], to_time=at[3]) == [made[2].id, made[1].id]
    assert await ids(from_time=at[2]) == [made[3].id]
    assert await ids(to_time=at[1], status="success") == []


async def test_calls_are_filtered_by_the_path_of_their_route(logstore: LogStore) -> None:
    made = [a_call(fn_id="", path=path) for path in ("/a", "/b", "/a", "/A", "/a/")]
    for call in made:
        await logstore.insert_call(call)
    found = await logstore.calls(CallFilter(app_id="app", path="/a"))
    assert [call.id for call in found] == [made[2].id, made[0].id]


async def test_a_call_that_has_not_ended_has_no_log_yet(logstore: LogStore) -> None:
    call = await running(logstore)
    with pytest.raises(errors.CallLogNotFound):
        await logstore.log(call.id, app_id="app")
    with pytest.raises(errors.CallLogNotFound):
        await logstore.log("unknown")
    await logstore.finish_calls([ended(call, token="t1")])
    assert await the_log(logstore, call.id) == b""


@pytest.mark.parametrize("size", [2**16 - 1, 2**16, 2**16 + 1, 3 * 2**16])
async def test_a_long_log_comes_in_pieces(logstore: LogStore, size: int) -> None:
    call, log = a_call(type="sync"), bytes(i % 251 for i in range(size))
    await logstore.finish_calls([ended(call, log=log)])
    pieces = [piece async for piece in await logstore.log(call.id, app_id="app")]
    assert b"".join(pieces) == log
    assert max(map(len, pieces)) <= 2**16


async def test_what_waits_since_long_is_told_by_the_stores_own_clock(logstore: LogStore, clock) -> None:
    old, claimed = a_call(created_at="2090-01-01T00:00:00.000Z"), a_call()
    for call in (old, claimed):
        await logstore.insert_call(call)
    await logstore.claim([leased(claimed, "t")], "node")
    await logstore.start_call(LeaseKey(claimed.id, "t"), STARTED)
    clock.move(10)
    fresh = a_call(created_at="2018-01-01T00:00:00.000Z")
    await logstore.insert_call(fresh)
    assert await logstore.unqueued(times.to_text(clock() - 5), 10) == [old.id]
    clock.move(10)
    assert await logstore.unqueued(times.to_text(clock() - 5), 10) == [old.id, fresh.id]
    assert await logstore.unqueued(times.to_text(clock() - 5), 1) == [old.id]


async def every(page: CallFilter, store: LogStore) -> list[list[str]]:
    """The ids of all pages of a listing; the last one may be short or empty."""
    found: list[list[str]] = []
    while not found or len(found[-1]) == page.limit:
        before = found[-1][-1] if found else ""
        found.append([one.id for one in await store.calls(msgspec.structs.replace(page, before=before))])
    return found


TIMES = [
    ("", ""),
    ("2027-01-15T09:00:00.000Z", ""),
    ("", "2027-01-15T10:30:00.000Z"),
    ("2027-01-15T09:00:00.000Z", "2027-01-15T10:30:00.000Z"),
]


async def test_no_page_is_short_because_of_a_filter(logstore: LogStore) -> None:
    made = [
        a_call(
            type="sync",
            path="/b" if number % 3 else "/a",
            status="error" if number % 5 == 0 else "success",
            created_at=times.to_text(times.seconds_of("2027-01-15T08:00:00.000Z") + 180 * number),
        )
        for number in range(80)
    ]
    await logstore.finish_calls([ended(call, call.status) for call in made])
    for path, status, (from_time, to_time) in itertools.product(["", "/a"], ["", "error"], TIMES):
        wanted = [
            call.id
            for call in reversed(made)
            if path in ("", call.path)
            and status in ("", call.status)
            and (not from_time or call.created_at > from_time)
            and (not to_time or call.created_at < to_time)
        ]
        page = CallFilter(
            app_id="app", path=path, status=status, from_time=from_time, to_time=to_time, limit=7
        )
        pages = await every(page, logstore)
        assert [len(one) for one in pages[:-1]] == [7] * (len(pages) - 1), page
        assert [id_ for one in pages for id_ in one] == wanted, page


async def test_a_call_whose_id_and_time_differ_a_little_is_listed_by_its_time(logstore: LogStore) -> None:
    noon, half = "2027-01-15T12:00:00.000Z", "2027-01-15T12:00:30.000Z"
    early = a_call(type="sync", id=an_id(noon), created_at=half)
    late = a_call(type="sync", id=an_id(half), created_at=noon)
    await logstore.finish_calls([ended(early), ended(late)])
    middle = "2027-01-15T12:00:15.000Z"
    assert await every(CallFilter(fn_id="fn", from_time=middle), logstore) == [[early.id]]
    assert await every(CallFilter(fn_id="fn", to_time=middle), logstore) == [[late.id]]


# -- removal -----------------------------------------------------------------------------------


async def removed(store: LogStore, purge: Purge, limit: int = 2) -> int:
    """How many calls an order removes until it finds none."""
    total = 0
    while portion := await store.remove_calls(purge, limit):
        assert 0 < portion <= limit
        total += portion
    return total


async def listed(store: LogStore, **page: str) -> set[str]:
    return {call.id for call in await store.calls(CallFilter(**page, limit=100))}


async def test_the_ended_calls_of_a_function_are_removed_with_their_logs(logstore: LogStore) -> None:
    mine = [a_call(type="sync", path="/p") for _ in range(5)]
    other = a_call(type="sync", path="/p", fn_id="other")
    statuses = ("success", "error", "timeout", "cancelled", "success")
    await logstore.finish_calls(
        [ended(call, status, log=b"x") for call, status in zip(mine, statuses, strict=True)]
    )
    await logstore.finish_calls([ended(other, log=b"other")])
    assert await removed(logstore, Purge(fn_id="fn")) == 5
    for call in mine:
        with pytest.raises(errors.CallNotFound):
            await logstore.call(call.id, fn_id="fn", app_id="app")
        with pytest.raises(errors.CallLogNotFound):
            await logstore.log(call.id, fn_id="fn", app_id="app")
    assert await listed(logstore, fn_id="fn") == await listed(logstore, fn_id="fn", status="error") == set()
    assert (
        await listed(logstore, app_id="app") == await listed(logstore, app_id="app", path="/p") == {other.id}
    )
    assert await the_log(logstore, other.id, fn_id="other", app_id="app") == b"other"


async def test_of_a_removed_call_nothing_is_left_to_a_new_one_of_its_id(logstore: LogStore) -> None:
    call = a_call(type="sync")
    await logstore.finish_calls([ended(call, log=b"x" * 2**17)])
    assert await removed(logstore, Purge(fn_id="fn")) == 1
    assert await logstore.finish_calls([ended(call, "error")]) == []
    assert (await logstore.call(call.id, fn_id="fn")).status == "error"
    assert await the_log(logstore, call.id, fn_id="fn") == b""


async def test_the_calls_of_an_app_are_removed_whatever_their_function(logstore: LogStore) -> None:
    mine = [a_call(type="sync", fn_id=fn_id) for fn_id in ("fn", "fn2", "")]
    other = a_call(type="sync", app_id="other", fn_id="far")
    await logstore.finish_calls([ended(call, log=b"x") for call in (*mine, other)])
    assert await removed(logstore, Purge(app_id="app")) == 3
    assert await listed(logstore) == {other.id}


async def test_the_calls_of_a_range_of_time_are_removed_its_bounds_excluded(logstore: LogStore) -> None:
    at = [f"2027-01-15T08:00:0{i}.000Z" for i in range(4)]
    made = [a_call(type="sync", created_at=moment) for moment in at]
    await logstore.finish_calls([ended(call) for call in made])
    assert await removed(logstore, Purge(fn_id="fn", from_time=at[0], to_time=at[2])) == 1
    assert await listed(logstore, fn_id="fn") == {made[0].id, made[2].id, made[3].id}
    assert await removed(logstore, Purge(app_id="app", from_time=at[2])) == 1
    assert await removed(logstore, Purge(app_id="app", to_time=at[2])) == 1
    assert await listed(logstore, app_id="app") == {made[2].id}


async def test_a_call_that_has_not_ended_is_not_removed_before_it_has(logstore: LogStore) -> None:
    queued, held = a_call(), await running(logstore)
    await logstore.insert_call(queued)
    for purge in (Purge(fn_id="fn"), Purge(app_id="app")):
        assert await removed(logstore, purge) == 0
    assert (await logstore.call(queued.id, app_id="app")).status == "queued"
    assert await logstore.finish_calls([ended(held, token="t1", log=b"x")]) == []
    assert await removed(logstore, Purge(fn_id="fn")) == 1
    assert await listed(logstore, fn_id="fn") == {queued.id}


async def test_an_order_that_names_nobody_removes_nothing(logstore: LogStore) -> None:
    call = a_call(type="sync")
    await logstore.finish_calls([ended(call)])
    assert await logstore.remove_calls(Purge(to_time="2090-01-01T00:00:00.000Z"), 10) == 0
    assert await listed(logstore) == {call.id}


async def test_ended_calls_expire_by_the_age_of_their_id(logstore: LogStore) -> None:
    bound = "2027-01-15T08:00:00.000Z"
    before = times.to_text(times.seconds_of(bound) - 0.001)
    old = [a_call(type="sync", fn_id=fn_id, created_at=before) for fn_id in ("fn", "fn2", "")]
    young = a_call(type="sync", created_at=bound)
    held = await running(logstore, created_at="2026-01-01T00:00:00.000Z")
    await logstore.finish_calls([ended(call, log=b"x") for call in (*old, young)])
    expired = [await logstore.expire_calls(bound, 2) for _ in range(4)]
    assert sum(expired) == 3
    assert max(expired) <= 2
    assert await listed(logstore, app_id="app") == {young.id, held.id}
    assert await the_log(logstore, young.id, fn_id="fn") == b"x"
    with pytest.raises(errors.CallLogNotFound):
        await logstore.log(old[0].id, fn_id="fn")


async def test_logs_expire_before_their_calls_do(logstore: LogStore) -> None:
    bound = "2027-01-15T08:00:00.000Z"
    old = [a_call(type="sync", created_at="2027-01-14T08:00:00.000Z") for _ in range(3)]
    young = a_call(type="sync", created_at=bound)
    await logstore.finish_calls([ended(call, log=b"x" * (2**16 + 1)) for call in (*old, young)])
    expired = [await logstore.expire_logs(bound, 2) for _ in range(4)]
    assert sum(expired) == 3
    assert max(expired) <= 2
    assert [await the_log(logstore, call.id, fn_id="fn") for call in old] == [b""] * 3
    assert await listed(logstore, fn_id="fn") == {call.id for call in (*old, young)}
    assert len(await the_log(logstore, young.id, fn_id="fn")) == 2**16 + 1


# -- attempts that are repeated ----------------------------------------------------------------


async def attempted(store: LogStore, *logs: bytes) -> Call:
    """A call with as many attempts; the last one is running, as that of the token "last"."""
    call = a_call()
    await store.insert_call(call)
    for attempt, log in enumerate(logs, 1):
        await store.claim([leased(call, f"t{attempt}", attempt)], "node")
        await store.start_call(LeaseKey(call.id, f"t{attempt}"), STARTED)
        for _ in range(2):
            await store.unclaim([LeaseKey(call.id, f"t{attempt}")], counted=True, log=log)
    await store.claim([leased(call, "last", len(logs) + 1)], "node")
    await store.start_call(LeaseKey(call.id, "last"), STARTED)
    return msgspec.structs.replace(call, attempt=len(logs) + 1)


async def test_the_log_of_a_call_has_what_each_attempt_wrote(logstore: LogStore) -> None:
    long = b"x" * (1 << 17)
    call = await attempted(logstore, b"one\n", b"", long)
    with pytest.raises(errors.CallLogNotFound):
        await logstore.log(call.id, app_id="app")
    assert await logstore.finish_calls([ended(call, token="last", log=b"four")]) == []
    expected = b"--- attempt 1 ---\none\n--- attempt 3 ---\n" + long + b"\n--- attempt 4 ---\nfour"
    assert await the_log(logstore, call.id) == expected


async def test_a_call_whose_attempts_wrote_nothing_has_the_bytes_of_the_last(logstore: LogStore) -> None:
    call = await attempted(logstore, b"", b"")
    assert await logstore.finish_calls([ended(call, token="last", log=b"three")]) == []
    assert await the_log(logstore, call.id) == b"three"


async def test_only_the_holder_of_a_call_adds_to_its_log(logstore: LogStore) -> None:
    call = await attempted(logstore, b"one")
    for token in ("t1", "t2", ""):
        await logstore.unclaim([LeaseKey(call.id, token)], counted=True, log=b"late")
    assert await logstore.finish_calls([ended(call, token="last", log=b"")]) == []
    await logstore.unclaim([LeaseKey(call.id, "last")], counted=True, log=b"late")
    assert await the_log(logstore, call.id) == b"--- attempt 1 ---\none"


async def test_logs_of_attempts_go_with_their_calls_and_as_logs(logstore: LogStore) -> None:
    calls = [await attempted(logstore, b"one", b"two") for _ in range(2)]
    for call, log in zip(calls, (b"three", b""), strict=True):
        assert await logstore.finish_calls([ended(call, token="last", log=log)]) == []
    later = times.to_text(times.seconds_of("2100-01-01T00:00:00.000Z"))
    while await logstore.expire_logs(later, 100):
        pass
    assert [await the_log(logstore, call.id) for call in calls] == [b"", b""]
    again = await attempted(logstore, b"one")
    assert await logstore.finish_calls([ended(again, token="last", log=b"two")]) == []
    while await logstore.expire_calls(later, 100):
        pass
    with pytest.raises(errors.CallLogNotFound):
        await logstore.log(again.id, app_id="app")
    assert await logstore.finish_calls([ended(msgspec.structs.replace(again, type="sync"), log=b"new")]) == []
    assert await the_log(logstore, again.id) == b"new", "nothing of the attempts was left"
