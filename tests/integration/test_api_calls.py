import asyncio
import time

import msgspec
import pytest

from shared_models import times
from shared_models.call import Call, Finished
from shared_models.ids import IdMaker, new_id
from tests.integration.live_api import call_of, live_api


def ended(fn, *, log=b"", **changes):
    now = times.now()
    if made_at := changes.get("created_at"):
        changes["id"] = IdMaker(clock=lambda: times.seconds_of(made_at))()
    given = {"status": "success", "type": "sync", "created_at": now, "started_at": now, "completed_at": now}
    return Finished(call=call_of(fn, **{**given, **changes}), log=log)


async def test_a_detached_call_can_be_read_from_the_moment_that_it_is_accepted(tmp_path):
    async with live_api(tmp_path) as api:
        fn = await api.fn()
        call = call_of(fn)
        await api.data.enqueue(call)
        record = await api.json("GET", f"/v2/fns/{fn.id}/calls/{call.id}")
        assert (record["status"], record["attempt"], record["started_at"]) == ("queued", 0, times.NEVER)


async def test_calls_are_listed_newest_first_page_by_page(tmp_path):
    async with live_api(tmp_path) as api:
        fn, other = await api.fn("f"), await api.fn("g")
        calls = [ended(fn) for _ in range(5)]
        await api.data.finish([*calls, ended(other)])
        path, seen, cursor = f"/v2/fns/{fn.id}/calls", [], ""
        for _ in range(3):
            page = await api.json("GET", path, params={"per_page": 2, "cursor": cursor})
            seen += [item["id"] for item in page["items"]]
            cursor = page.get("next_cursor", "")
        assert seen == [one.call.id for one in reversed(calls)]
        assert cursor == ""


async def test_calls_are_filtered_by_status_and_time(tmp_path):
    async with live_api(tmp_path) as api:
        fn = await api.fn()
        old = ended(fn, created_at="2020-01-01T00:00:00.000Z")
        bad = ended(fn, created_at="2022-01-01T00:00:00.000Z", status="error", error="boom")
        new = ended(fn, created_at="2024-01-01T00:00:00.000Z")
        await api.data.finish([old, bad, new])

        async def listed(**params):
            page = await api.json("GET", f"/v2/fns/{fn.id}/calls", params=params)
            return [item["id"] for item in page["items"]]

        assert await listed(status="error") == [bad.call.id]
        assert await listed(from_time="2021-01-01T00:00:00Z") == [new.call.id, bad.call.id]
        assert await listed(to_time="2021-01-01T02:00:00+02:00") == [old.call.id]
        assert await listed(from_time="2021-01-01T00:00:00Z", to_time="2023-01-01T00:00:00Z") == [bad.call.id]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("status=odd", "status: must be one of queued, running, success, error, timeout, cancelled"),
        ("from_time=monday", "from_time: not an RFC 3339 time: 'monday'"),
        ("to_time=2020", "to_time: not an RFC 3339 time: '2020'"),
        ("cursor=!", "Invalid cursor, use the next_cursor of the previous page"),
        ("cursor=cTI5", "Invalid cursor, use the next_cursor of the previous page"),
    ],
)
async def test_a_bad_filter_is_named(tmp_path, query, message):
    async with live_api(tmp_path) as api:
        fn = await api.fn()
        answer = await api.json("GET", f"/v2/fns/{fn.id}/calls?{query}", status=400)
        assert answer == {"message": message}


async def test_a_record_and_its_log_outlive_the_function(tmp_path):
    async with live_api(tmp_path) as api:
        fn = await api.fn()
        one = ended(fn, log=b"line\n\xff\x00")
        await api.data.finish([one])
        async with api.client.delete(f"/v2/apps/{fn.app_id}") as answer:
            assert answer.status == 204
        record = await api.json("GET", f"/v2/fns/{fn.id}/calls/{one.call.id}")
        assert record["status"] == "success"
        async with api.client.get(f"/v2/fns/{fn.id}/calls/{one.call.id}/log") as answer:
            assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
            assert await answer.read() == b"line\n\xff\x00"


async def test_a_call_is_not_found_below_another_function(tmp_path):
    async with live_api(tmp_path) as api:
        fn, other = await api.fn("f"), await api.fn("g")
        # Of an hour ago, since a fresh id is waited for.
        one = ended(fn, id=IdMaker(clock=lambda: time.time() - 3600)())
        await api.data.finish([one])
        path = f"/v2/fns/{other.id}/calls/{one.call.id}"
        assert await api.json("GET", path, status=404) == {"message": "Call not found"}
        assert await api.json("GET", f"{path}/log", status=404) == {"message": "Call log not found"}


async def test_a_call_that_is_no_id_is_not_waited_for(tmp_path):
    async with live_api(tmp_path) as api:
        fn = await api.fn()
        started = time.monotonic()
        await api.json("GET", f"/v2/fns/{fn.id}/calls/nonsense", status=404)
        assert time.monotonic() - started < 1


async def test_a_fresh_call_is_waited_for(tmp_path):
    async with live_api(tmp_path) as api:
        fn = await api.fn()
        one = ended(fn, id=new_id(), log=b"late")

        async def read(path):
            async with api.client.get(path) as answer:
                return answer.status, await answer.read()

        path = f"/v2/fns/{fn.id}/calls/{one.call.id}"
        record, log = asyncio.create_task(read(path)), asyncio.create_task(read(f"{path}/log"))
        done, _ = await asyncio.wait({record, log}, timeout=0.1)
        assert not done
        await api.data.finish([one])
        assert msgspec.json.decode((await record)[1])["id"] == one.call.id
        assert await log == (200, b"late")


async def test_the_log_of_a_call_that_has_not_ended_says_so(tmp_path):
    async with live_api(tmp_path) as api:
        fn = await api.fn()
        call: Call = call_of(fn)
        await api.data.enqueue(call)
        answer = await api.json("GET", f"/v2/fns/{fn.id}/calls/{call.id}/log", status=404)
        assert answer == {
            "message": "Call log not found: the call is queued, its log can be read when it has ended"
        }
