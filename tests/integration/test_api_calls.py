import asyncio
import time

import msgspec
import pytest

from api_node import calls as api_calls
from services.retention import RetentionSettings, tidy
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


async def test_a_call_that_is_no_id_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(api_calls, "PATIENCE", 60.0)
    async with live_api(tmp_path) as api:
        fn = await api.fn()
        started = time.monotonic()
        await api.json("GET", f"/v2/fns/{fn.id}/calls/nonsense", status=404)
        assert time.monotonic() - started < 30


async def test_a_fresh_call_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(api_calls, "PATIENCE", 60.0)
    monkeypatch.setattr(api_calls, "FRESH", 600.0)
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


# -- removal -----------------------------------------------------------------------------------


async def listed(api, fn):
    return [item["id"] for item in (await api.json("GET", f"/v2/fns/{fn.id}/calls"))["items"]]


async def remove(api, path, **params):
    async with api.client.delete(path, params=params) as answer:
        return answer.status, await answer.json() if answer.status != 204 else None


async def test_a_range_of_ended_calls_is_removed_with_their_logs(tmp_path):
    async with live_api(tmp_path) as api:
        fn, other = await api.fn("f"), await api.fn("g")
        years = [ended(fn, created_at=f"{year}-01-01T00:00:00.000Z", log=b"x") for year in (2020, 2022, 2024)]
        elsewhere, queued = ended(other, created_at="2022-01-01T00:00:00.000Z"), call_of(fn)
        await api.data.finish([*years, elsewhere])
        await api.data.enqueue(queued)
        path = f"/v2/fns/{fn.id}/calls"
        bounds = {"from_time": "2021-01-01T00:00:00Z", "to_time": "2023-01-01T02:00:00+02:00"}
        assert await remove(api, path, **bounds) == (204, None)
        assert await listed(api, fn) == [queued.id, years[2].call.id, years[0].call.id]
        assert await api.json("GET", f"{path}/{years[1].call.id}/log", status=404)
        assert await remove(api, path) == (204, None)
        assert await listed(api, fn) == [queued.id]
        assert await listed(api, other) == [elsewhere.call.id]
        assert await api.stores.datastore.purges(10) == []


async def test_what_is_left_of_many_calls_is_removed_behind_the_answer(tmp_path, monkeypatch):
    monkeypatch.setattr(api_calls, "_BATCH", 1)
    async with live_api(tmp_path) as api:
        fn = await api.fn()
        await api.data.finish([ended(fn, id=new_id()) for _ in range(13)])
        status, said = await remove(api, f"/v2/fns/{fn.id}/calls", to_time="2100-01-01T00:00:00Z")
        assert status == 202
        assert said == {"message": "There are many calls: the rest of them is being removed"}
        assert len(await listed(api, fn)) == 3
        await tidy(api.stores, RetentionSettings(), pause=0)
        assert await listed(api, fn) == []
        assert await api.stores.datastore.purges(10) == []


async def test_a_removal_with_a_bad_time_removes_nothing(tmp_path):
    async with live_api(tmp_path) as api:
        fn = await api.fn()
        one = ended(fn)
        await api.data.finish([one])
        status, said = await remove(api, f"/v2/fns/{fn.id}/calls", from_time="monday")
        assert (status, said) == (400, {"message": "from_time: not an RFC 3339 time: 'monday'"})
        assert await listed(api, fn) == [one.call.id]


@pytest.mark.parametrize("kind", ["apps", "fns"])
async def test_the_calls_of_what_was_deleted_vanish_behind_the_answer(tmp_path, kind):
    async with live_api(tmp_path) as api:
        fn, other = await api.fn("f"), await api.fn("g")
        one, stays = ended(fn, log=b"x"), ended(other)
        await api.data.finish([one, stays])
        assert await remove(api, f"/v2/{kind}/{fn.app_id if kind == 'apps' else fn.id}") == (204, None)
        assert await listed(api, fn) == [one.call.id]
        await tidy(api.stores, RetentionSettings(), pause=0)
        assert await listed(api, fn) == []
        assert await listed(api, other) == [stays.call.id]
