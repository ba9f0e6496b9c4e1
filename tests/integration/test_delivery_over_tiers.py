"""What the client of a detached call reads and can do, through a runner and an API node over HTTP."""

from __future__ import annotations

import asyncio

import pytest

from runner_node import health, leases
from runner_node.drivers.fake_behaviour import Answer, Behaviour
from shared_models import errors
from shared_models.app import App
from shared_models.fn import Fn
from shared_models.ids import new_id
from tests.integration.live_api import call_of
from tests.integration.test_hybrid_tiers import ended, two_tiers

DETACHED = {"Fn-Invoke-Type": "detached"}


@pytest.fixture(autouse=True)
def _quick_nodes(monkeypatch):
    """Runners that soon hear what people want of them."""
    monkeypatch.setattr(health, "HEARTBEAT", 0.2)
    monkeypatch.setattr(leases, "LONGEST_RENEWAL", 0.2)


async def send(runner, fn_id, status, body=b"", **headers):
    """The answer's body and headers; names of headers have underscores here."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    async with runner.post(f"/invoke/{fn_id}", data=body, headers={**DETACHED, **given}) as answer:
        assert answer.status == status, await answer.text()
        return await answer.json(), answer.headers


async def running(api):
    """Calls that the runner reported to run."""
    return sum(one.report.running for one in await api.stores.datastore.runners())


async def set_state(api, state):
    async with asyncio.timeout(60):
        while not (known := await api.stores.datastore.runners()):
            await asyncio.sleep(0.02)
    await api.json("PUT", f"/v2/runners/{known[0].report.id}", json={"state": state})


async def drained(api):
    """Returns when the runner has been told to drain."""
    await set_state(api, "draining")
    [runner] = await api.stores.datastore.runners()
    async with asyncio.timeout(60):
        while (await api.stores.datastore.runners())[0].seen_at == runner.seen_at:
            await asyncio.sleep(0.05)


async def nothing_is_left(api, fn):
    assert (await api.json("GET", f"/v2/fns/{fn.id}/calls"))["items"] == []
    assert (await api.json("GET", "/v2/queue"))["items"] == []


async def test_an_unknown_function_is_refused_before_the_202(tmp_path):
    async with two_tiers(tmp_path) as (_, runner):
        body, headers = await send(runner, new_id(), 404)
        assert body == {"message": "Fn not found"}
        assert "Fn-Call-Id" not in headers, "it is no call"


async def test_a_body_that_is_too_large_is_refused_before_the_202(tmp_path):
    async with two_tiers(tmp_path, max_request_size=1000) as (api, runner):
        fn = await api.fn()
        body, _ = await send(runner, fn.id, 413, b"x" * 1001)
        assert "1001 > max 1000" in body["message"]
        await nothing_is_left(api, fn)


async def test_a_queue_that_is_down_is_told_at_once(tmp_path, monkeypatch):
    async def down(*_given):
        raise errors.QueueUnavailable

    async with two_tiers(tmp_path) as (api, runner):
        fn = await api.fn()
        with monkeypatch.context() as patch:
            patch.setattr(type(api.stores.queue), "push", down)
            async with asyncio.timeout(60):
                body, headers = await send(runner, fn.id, 503)
        assert "the call was not accepted" in body["message"]
        assert headers["Fn-Call-Id"]
        assert int(headers["Retry-After"]) >= 1
        await nothing_is_left(api, fn)


async def test_a_function_whose_queue_is_full_is_told_when_to_come_back(tmp_path):
    async with two_tiers(tmp_path) as (api, runner):
        app = await api.stores.datastore.insert_app(App(name="a"))
        limit = await api.json(
            "POST", "/v2/fns",
            json={"name": "f", "app_id": app.id, "image": "some/image:1",
                  "annotations": {"fn.hybrid/async/max-queued": 2}},
        )  # fmt: skip
        for _ in range(2):
            await send(runner, limit["id"], 202, Fn_Delay="600")
        body, headers = await send(runner, limit["id"], 429, Fn_Delay="600")
        assert "2 calls wait, the limit is 2" in body["message"]
        assert 1 <= int(headers["Retry-After"]) <= 60
        assert headers["Fn-Call-Id"]


async def test_a_function_that_is_larger_than_any_runner_is_told_so_before_the_202(tmp_path):
    async with two_tiers(tmp_path, max_memory=512 << 20) as (api, runner):
        app = await api.stores.datastore.insert_app(App(name="a"))
        fn = await api.stores.datastore.insert_fn(
            Fn(name="f", app_id=app.id, image="some/image:1", memory=2048)
        )
        async with asyncio.timeout(60):
            while not await api.stores.datastore.runners():
                await asyncio.sleep(0.02)
        body, _ = await send(runner, fn.id, 400)
        assert "needs 2048 MB, the largest runner has 512 MB" in body["message"]
        await nothing_is_left(api, fn)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Fn_Delay", "soon"),
        ("Fn_Delay", "-1"),
        ("Fn_Priority", "3"),
        ("Fn_Idempotency_Key", "x" * 256),
        ("Fn_Callback_Url", "ftp://example.org/"),
        ("Fn_Callback_Url", "http://127.0.0.1:1/"),
    ],
)
async def test_a_bad_header_is_named_before_the_202(tmp_path, header, value):
    async with two_tiers(tmp_path) as (api, runner):
        fn = await api.fn()
        body, _ = await send(runner, fn.id, 400, **{header: value})
        assert header.replace("_", "-").lower() in body["message"].lower()
        await nothing_is_left(api, fn)


async def test_the_same_key_is_the_same_call_and_runs_once(tmp_path):
    seen = []

    def count(request):
        seen.append(request.body)
        return Answer()

    async with two_tiers(tmp_path, count) as (api, runner):
        fn = await api.fn()
        answers = await asyncio.gather(
            *[send(runner, fn.id, 202, b"%d" % number, Fn_Idempotency_Key="k") for number in range(5)]
        )
        [call_id] = {body["call_id"] for body, _ in answers}
        assert {headers["Fn-Call-Id"] for _, headers in answers} == {call_id}
        await ended(api, fn, call_id)
        body, _ = await send(runner, fn.id, 202, Fn_Idempotency_Key="k")
        assert body["call_id"] == call_id
        assert len(seen) == 1


async def test_a_delayed_call_waits_and_an_urgent_one_goes_first(tmp_path):
    order = []

    def note(request):
        order.append(request.body)
        return Answer()

    async with two_tiers(tmp_path, note, max_async=1) as (api, runner):
        fn = await api.fn()
        delayed, _ = await send(runner, fn.id, 202, b"late", Fn_Delay="0.5", Fn_Priority="2")
        now, _ = await send(runner, fn.id, 202, b"now")
        await ended(api, fn, now["call_id"])
        assert order == [b"now"]
        await ended(api, fn, delayed["call_id"])
        await drained(api)
        sent = [
            await send(runner, fn.id, 202, body, Fn_Priority=priority)
            for body, priority in ((b"low", "0"), (b"high", "2"), (b"middle", "1"))
        ]
        await set_state(api, "active")
        for body, _ in sent:
            await ended(api, fn, body["call_id"])
        assert order == [b"now", b"late", b"high", b"middle", b"low"]


async def test_a_running_call_that_is_cancelled_is_stopped(tmp_path):
    async with two_tiers(tmp_path, Behaviour(hangs=True)) as (api, runner):
        fn = await api.fn()
        body, _ = await send(runner, fn.id, 202)
        path = f"/v2/fns/{fn.id}/calls/{body['call_id']}"
        async with asyncio.timeout(60):
            while (await api.json("GET", path))["status"] != "running" or await running(api) == 0:
                await asyncio.sleep(0.05)
            async with api.client.delete(path) as answer:
                assert answer.status == 204
            record = await api.json("GET", path)
            assert (record["status"], record["attempt"]) == ("cancelled", 1)
            while await running(api):
                await asyncio.sleep(0.05)


async def test_ten_thousand_queued_calls_outlive_a_pool_that_goes_to_zero_and_comes_back(tmp_path):
    seen = []

    def note(request):
        seen.append(int(request.body))
        return Answer()

    many = 10_000
    async with two_tiers(tmp_path, note) as (api, _):
        fn = await api.fn()
        await drained(api)
        for start in range(0, many, 500):
            calls = [call_of(fn, payload=b"%d" % number) for number in range(start, start + 500)]
            await asyncio.gather(*[api.data.enqueue(call) for call in calls])
        assert [one.queued for one in await api.stores.queue.depths()] == [many]
        await set_state(api, "active")
        async with asyncio.timeout(400):
            while (await api.json("GET", "/v2/queue"))["items"]:
                await asyncio.sleep(0.2)
        assert sorted(seen) == list(range(many)), "each once"
