"""The contract of log stores for what functions answered to queued calls, where that is to be kept."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from services.callbacks.body import MAX_BODY
from shared_models import errors, times
from shared_models.async_policy import KEEP_RESULT
from shared_models.call import Call, Finished, LeaseKey, Status
from shared_models.interfaces import LogStore, Purge
from tests.conformance.test_logstore import STARTED, a_call, ended, leased, removed, running

ASKED = {KEEP_RESULT: msgspec.Raw(b"true")}
LATER = times.to_text(times.seconds_of("2100-01-01T00:00:00.000Z"))


def answered(call: Call, body: bytes = b"answer", **more: Any) -> Finished:
    """The end of *call*, which wants its result kept, by the holder "t1"."""
    given = {"content_type": "text/x-a", "truncated": False, "token": "t1", "answered": True}
    asked = msgspec.structs.replace(call, annotations=ASKED)
    return msgspec.structs.replace(ended(asked), body=body, **{**given, **more})


async def the_result(store: LogStore, call_id: str, **owner: str) -> tuple[bytes, str, bool]:
    found = await store.result(call_id, **(owner or {"app_id": "app"}))
    return b"".join([piece async for piece in found.body]), found.content_type, found.truncated


async def nothing_kept(store: LogStore, call_id: str, **owner: str) -> bool:
    with pytest.raises(errors.CallResultNotFound):
        await store.result(call_id, **(owner or {"app_id": "app"}))
    return True


@pytest.mark.parametrize("size", [0, 1, 2**16 - 1, 2**16, 2**16 + 1, 3 * 2**16, MAX_BODY])
async def test_an_answer_is_kept_as_it_is_and_comes_in_pieces(logstore: LogStore, size: int) -> None:
    call, body = await running(logstore), bytes(i % 251 for i in range(size))
    assert await logstore.finish_calls([answered(call, body)]) == []
    assert await the_result(logstore, call.id) == (body, "text/x-a", False)
    found = await logstore.result(call.id, fn_id="fn")
    assert max([len(piece) async for piece in found.body], default=0) <= 2**16


async def test_whether_it_was_cut_is_kept_and_no_runner_sends_too_much(logstore: LogStore) -> None:
    cut, large = await running(logstore), await running(logstore)
    longer = b"x" * (MAX_BODY + 1)
    assert await logstore.finish_calls([answered(cut, truncated=True), answered(large, longer)]) == []
    assert await the_result(logstore, cut.id) == (b"answer", "text/x-a", True)
    assert await the_result(logstore, large.id) == (longer[:-1], "text/x-a", True)


@pytest.mark.parametrize("given", ["", "a\r\nX: y", "text/é", "x" * 256, "\0"])
async def test_a_type_that_no_header_could_have_is_none(logstore: LogStore, given: str) -> None:
    call = await running(logstore)
    assert await logstore.finish_calls([answered(call, content_type=given)]) == []
    assert await the_result(logstore, call.id) == (b"answer", "", False)


async def test_only_what_is_asked_for_is_kept_of_a_batch(logstore: LogStore) -> None:
    wanted, unasked, silent = [await running(logstore) for _ in range(3)]
    refused = await running(logstore)
    declined = msgspec.structs.replace(
        await running(logstore), annotations={KEEP_RESULT: msgspec.Raw(b"false")}
    )
    sync = a_call(type="sync")
    batch = [
        answered(wanted, b"\xff\0binary"),
        msgspec.structs.replace(ended(unasked, token="t1", log=b"log"), body=b"x", answered=True),
        answered(silent, b"", answered=False),
        msgspec.structs.replace(ended(declined, token="t1"), body=b"x", answered=True),
        answered(sync, token=""),
        answered(refused, token="other"),
    ]
    assert await logstore.finish_calls(batch) == [refused.id]
    assert (await the_result(logstore, wanted.id))[0] == b"\xff\0binary"
    for call in (unasked, silent, declined, sync, refused):
        assert await nothing_kept(logstore, call.id)


async def test_the_same_end_again_changes_nothing_and_another_one_neither(logstore: LogStore) -> None:
    call = await running(logstore)
    assert await logstore.finish_calls([answered(call), answered(call, b"twice")]) == []
    assert await logstore.finish_calls([answered(call, b"again")]) == []
    late = answered(call, b"late")
    late = msgspec.structs.replace(late, call=msgspec.structs.replace(late.call, status=Status.ERROR))
    assert await logstore.finish_calls([late]) == [call.id]
    assert (await the_result(logstore, call.id))[0] == b"answer"


async def test_there_is_none_before_the_end_and_only_that_of_the_last_attempt_after_it(
    logstore: LogStore,
) -> None:
    call = await running(logstore)
    assert await nothing_kept(logstore, call.id)
    await logstore.unclaim([LeaseKey(call.id, "t1")], counted=True)
    await logstore.claim([leased(call, "t2", 2)], "other")
    await logstore.start_call(LeaseKey(call.id, "t2"), STARTED)
    assert await logstore.finish_calls([answered(call, b"late")]) == [call.id]
    assert await nothing_kept(logstore, call.id)
    last = msgspec.structs.replace(call, attempt=2)
    assert await logstore.finish_calls([answered(last, b"second", token="t2")]) == []
    assert (await the_result(logstore, call.id))[0] == b"second"


async def test_it_is_found_only_under_its_own_function_and_app(logstore: LogStore) -> None:
    call = await running(logstore)
    assert await logstore.finish_calls([answered(call)]) == []
    for owner in ({"fn_id": "fn"}, {"app_id": "app"}, {"fn_id": "fn", "app_id": "app"}):
        assert (await the_result(logstore, call.id, **owner))[0] == b"answer"
    for owner in ({"fn_id": "other"}, {"app_id": "other"}, {"fn_id": "fn", "app_id": "other"}):
        assert await nothing_kept(logstore, call.id, **owner)
    assert await nothing_kept(logstore, "unknown")


async def test_it_goes_with_its_call_and_leaves_nothing_to_a_new_one(logstore: LogStore) -> None:
    for remove in (
        lambda: removed(logstore, Purge(fn_id="fn")),
        lambda: removed(logstore, Purge(app_id="app")),
        lambda: logstore.expire_calls(LATER, 10),
    ):
        call = await running(logstore)
        assert await logstore.finish_calls([answered(call, b"x" * 2**17)]) == []
        assert await remove() == 1
        assert await nothing_kept(logstore, call.id)
        await logstore.insert_call(call)
        await logstore.claim([leased(call, "t1")], "node")
        await logstore.start_call(LeaseKey(call.id, "t1"), STARTED)
        assert await logstore.finish_calls([ended(call, token="t1")]) == []
        assert await nothing_kept(logstore, call.id)
        assert await remove() == 1


@pytest.mark.parametrize("log", [b"", b"log"])
async def test_it_expires_as_logs_do_before_its_call(logstore: LogStore, log: bytes) -> None:
    bound = "2027-01-15T08:00:00.000Z"
    old = [await running(logstore, created_at="2027-01-14T08:00:00.000Z") for _ in range(3)]
    young = await running(logstore, created_at=bound)
    assert (
        await logstore.finish_calls([answered(call, b"x" * 2**17, log=log) for call in (*old, young)]) == []
    )
    for _ in range(10):
        assert await logstore.expire_logs(bound, 2) <= 2
    assert await logstore.expire_logs(bound, 2) == 0
    for call in old:
        assert await nothing_kept(logstore, call.id)
        assert (await logstore.call(call.id, app_id="app")).status == "success"
    assert (await the_result(logstore, young.id))[0] == b"x" * 2**17
