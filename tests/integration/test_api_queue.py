"""The API around queued calls: cancel, queue state, dead letters, drains of runners."""

from __future__ import annotations

from typing import Any

import msgspec

from api_node import queue
from shared_models.call import Finished, Reason
from shared_models.ids import new_id
from shared_models.runner import RunnerReport
from tests.integration.live_api import call_of, live_api

ONE_ATTEMPT = {"fn.hybrid/async/max-attempts": msgspec.Raw(b"1")}


async def dead(api, fn, payload=b""):
    """A call that was given up."""
    headers = {"X-A": ["1"], "Authorization": ["Bearer s3cret"], "cookie": ["a=s3cret", "b=s3cret"]}
    call = call_of(fn, annotations=ONE_ATTEMPT, payload=payload, headers=headers)
    await api.data.enqueue(call)
    [leased] = await api.data.dequeue("n", 1, 0)
    ended = msgspec.structs.replace(
        leased.call, status="error", error="no image", reason=Reason.NOT_STARTED, payload=b""
    )
    assert await api.data.finish([Finished(call=ended, token=leased.key.token)]) == []
    return call


async def test_a_cancelled_call_says_so_and_a_second_cancel_is_no_error(tmp_path):
    async with live_api(tmp_path) as api:
        fn = await api.fn()
        call = call_of(fn)
        await api.data.enqueue(call)
        path = f"/v2/fns/{fn.id}/calls/{call.id}"
        for _ in range(2):
            async with api.client.delete(path) as answer:
                assert (answer.status, await answer.read()) == (204, b"")
        record = await api.json("GET", path)
        assert (record["status"], record["reason"]) == ("cancelled", "cancelled")
        assert (await api.json("GET", "/v2/queue"))["items"] == []


async def test_what_cannot_be_cancelled_is_named(tmp_path):
    async with live_api(tmp_path) as api:
        fn = await api.fn()
        call = await dead(api, fn)
        body = await api.json("DELETE", f"/v2/fns/{fn.id}/calls/{call.id}", status=409)
        assert body == {"message": "The call has ended already: error"}
        body = await api.json("DELETE", f"/v2/fns/{fn.id}/calls/{new_id()}", status=404)
        assert body == {"message": "Call not found"}


async def test_the_state_of_the_queue_is_told_per_function(tmp_path):
    async with live_api(tmp_path) as api:
        one, other = await api.fn("one"), await api.fn("other")
        for fn in (one, one, other):
            await api.data.enqueue(call_of(fn))
        await api.data.dequeue("n", 1, 0)
        found = {item["fn_id"]: item for item in (await api.json("GET", "/v2/queue"))["items"]}
        assert (found[one.id]["queued"], found[one.id]["running"]) == (1, 1)
        assert 0 <= found[one.id]["oldest_age_seconds"] < 60
        [item] = (await api.json("GET", "/v2/queue", params={"fn_id": other.id}))["items"]
        assert item == found[other.id] | {"oldest_age_seconds": item["oldest_age_seconds"]}


async def test_all_queued_calls_of_a_function_are_cancelled_and_those_that_run_are_not(tmp_path, monkeypatch):
    monkeypatch.setattr(queue, "AT_ONCE", 3)
    async with live_api(tmp_path) as api:
        one, other = await api.fn("one"), await api.fn("other")
        await api.data.enqueue(call_of(one))
        [running] = await api.data.dequeue("n", 1, 0)
        calls = [call_of(fn) for fn in (one, one, one, one, other)]
        for call in calls:
            await api.data.enqueue(call)
        of_one = {"fn_id": one.id}
        assert await api.json("DELETE", "/v2/queue", params=of_one) == {"cancelled": 3, "left": 1}
        assert await api.json("DELETE", "/v2/queue", params=of_one) == {"cancelled": 1, "left": 0}
        assert await api.json("DELETE", "/v2/queue", params=of_one) == {"cancelled": 0, "left": 0}
        statuses = [
            (await api.json("GET", f"/v2/fns/{call.fn_id}/calls/{call.id}"))["status"]
            for call in [*calls, running.call]
        ]
        assert statuses == ["cancelled"] * 4 + ["queued", "queued"], "the last is a runner's, and not begun"
        found = {item["fn_id"]: item for item in (await api.json("GET", "/v2/queue"))["items"]}
        assert (found[one.id]["running"], found[other.id]["queued"]) == (1, 1)
        assert await api.json("DELETE", "/v2/queue", status=400) == {
            "message": "fn_id: must be given: whose queued calls are meant"
        }


async def test_a_dead_letter_is_shown_with_its_payload_and_queued_again(tmp_path):
    async with live_api(tmp_path) as api:
        fn = await api.fn()
        call = await dead(api, fn, b"\xffx")
        [item] = (await api.json("GET", "/v2/dead-letters", params={"fn_id": fn.id}))["items"]
        assert (item["id"], item["reason"], item["error"]) == (call.id, "not_started", "no image")
        whole = await api.json("GET", f"/v2/dead-letters/{call.id}")
        assert (whole["payload_base64"], whole["payload_size"]) == ("/3g=", 2)
        assert whole["headers"] == {"X-A": ["1"], "Authorization": ["***"], "cookie": ["***", "***"]}
        path = f"/v2/dead-letters/{call.id}/redrive"
        async with api.client.post(path) as answer:
            new = (await answer.json())["call_id"]
            assert (answer.status, answer.headers["Fn-Call-Id"]) == (202, new)
        assert (await api.json("GET", f"/v2/fns/{fn.id}/calls/{new}"))["status"] == "queued"
        [again] = await api.data.dequeue("n", 1, 0)
        assert again.call.headers == call.headers, "the function gets what was sent"
        assert await api.json("POST", path, status=404) == {"message": "Dead letter not found"}


async def test_dead_letters_come_in_pages_and_go_one_by_one_or_all_at_once(tmp_path):
    async with live_api(tmp_path) as api:
        fn = await api.fn()
        calls = [(await dead(api, fn)).id for _ in range(5)]
        page = await api.json("GET", "/v2/dead-letters", params={"per_page": 3})
        rest = await api.json("GET", "/v2/dead-letters", params={"cursor": page["next_cursor"]})
        assert [item["id"] for item in page["items"] + rest["items"]] == calls[::-1]
        async with api.client.delete(f"/v2/dead-letters/{calls[0]}") as answer:
            assert answer.status == 204
        await api.json("DELETE", f"/v2/dead-letters/{calls[0]}", status=404)
        of_fn = {"fn_id": fn.id}
        body = await api.json("POST", "/v2/dead-letters/redrive", params=of_fn)
        assert body == {"redriven": 4, "left": 0}
        await dead(api, fn)
        assert await api.json("DELETE", "/v2/dead-letters", params=of_fn) == {"purged": 1, "left": 0}


async def test_all_dead_letters_of_all_functions_are_never_meant(tmp_path):
    async with live_api(tmp_path) as api:
        for method, path in (("DELETE", "/v2/dead-letters"), ("POST", "/v2/dead-letters/redrive")):
            body = await api.json(method, path, status=400)
            assert body == {"message": "fn_id: must be given: whose dead letters are meant"}


async def test_a_runner_is_drained_and_taken_back_by_its_next_heartbeat(tmp_path):
    async with live_api(tmp_path) as api:
        report = RunnerReport(id="r-1")
        await api.data.heartbeat(report)
        for state in ("draining", "active"):
            body = await api.json("PUT", "/v2/runners/r-1", json={"state": state})
            assert (body["id"], body["state"]) == ("r-1", state)
            assert await api.data.heartbeat(report) == state
            [listed] = (await api.json("GET", "/v2/runners"))["items"]
            assert listed["state"] == state
            assert await api.json("GET", "/v2/runners/r-1") == listed
        body = await api.json("PUT", "/v2/runners/r-1", json={"state": "lost"}, status=400)
        assert body == {"message": "state: must be active or draining"}
        body = await api.json("PUT", "/v2/runners/r-2", json={"state": "draining"}, status=404)
        assert body == {"message": "Runner not found: none of this id was seen within a day"}
        assert await api.json("GET", "/v2/runners/r-2", status=404) == body


async def test_a_runner_is_drained_when_it_says_so_after_it_was_told(tmp_path):
    async with live_api(tmp_path) as api:

        async def shown(**report: Any) -> bool:
            await api.data.heartbeat(RunnerReport(id="r-1", **report))
            return bool((await api.json("GET", "/v2/runners/r-1"))["drained"])

        assert not await shown()
        body = await api.json("PUT", "/v2/runners/r-1", json={"state": "draining"})
        assert not body["drained"], "its idle report is older than the order"
        assert not await shown(), "made before it heard of the order"
        assert not await shown(drains=True, running=1)
        assert not await shown(drains=True, oldest_wait=0.5)
        assert await shown(drains=True)
        await api.json("PUT", "/v2/runners/r-1", json={"state": "active"})
        assert not await shown(drains=True)
        body = await api.json("PUT", "/v2/runners/r-1", json={"state": "draining"})
        assert not body["drained"], "it was told to go on in between"


async def test_runners_are_listed_by_id_whoever_reported_last(tmp_path):
    async with live_api(tmp_path) as api:
        for name in ("c", "a", "b", "a"):
            await api.data.heartbeat(RunnerReport(id=name))
        listed = (await api.json("GET", "/v2/runners"))["items"]
        assert [runner["id"] for runner in listed] == ["a", "b", "c"]
