import asyncio
import logging

import aiohttp
import msgspec
import pytest

from shared_models.app import App
from shared_models.ids import new_id
from shared_models.route import Route
from shared_models.trigger import Trigger
from tests.integration.live_api import call_of, live_api


def on_wire(value):
    return msgspec.json.decode(msgspec.json.encode(value))


async def test_without_a_configured_token_every_runner_request_says_what_to_set(tmp_path):
    async with live_api(tmp_path, runner_auth="token") as api:
        for method, path in (("GET", "/v1/runner/dequeue"), ("PUT", "/v1/runner/async")):
            said = (await api.json(method, path, status=401))["error"]["message"]
            assert "FN_RUNNER_TOKEN" in said
            assert "FN_RUNNER_AUTH=none" in said


async def test_any_of_the_tokens_opens_the_runner_api(tmp_path):
    async with live_api(tmp_path, runner_auth="token", runner_tokens=("old", "new")) as api:
        path = "/v1/runner/dequeue?wait=0"
        for token in ("old", "new"):
            answer = await api.json("GET", path, headers={"Authorization": f"Bearer {token}"})
            assert answer == {"calls": []}
        for header in ("", "Bearer ", "Bearer wrong", "Basic old", "old", "Bearer \xe9"):
            async with api.client.get(path, headers={"Authorization": header}) as answer:
                assert answer.status == 401
                assert answer.headers["WWW-Authenticate"] == "Bearer"
                assert "FN_RUNNER_TOKEN" in (await answer.json())["error"]["message"]


async def test_the_public_api_needs_no_token(tmp_path):
    async with live_api(tmp_path, runner_auth="token", runner_tokens=("t",)) as api:
        await api.json("GET", "/v2/apps")
        said = await api.json("GET", "/v1/apps/none", status=404)
        assert said == {"error": {"message": "App not found"}}


async def test_auth_none_is_warned_of(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    async with live_api(tmp_path, runner_auth="none"):
        assert "FN_RUNNER_AUTH=none" in caplog.text


async def test_look_ups_have_an_etag_that_changes_with_the_value(tmp_path):
    async with live_api(tmp_path) as api:
        fn = await api.fn()
        path = f"/v1/runner/fns/{fn.id}"
        async with api.client.get(path) as answer:
            tag = answer.headers["ETag"]
            assert (await answer.json())["image"] == "some/image:1"
        async with api.client.get(path, headers={"If-None-Match": tag}) as answer:
            assert (answer.status, await answer.read()) == (304, b"")
        await api.json("PUT", f"/v2/fns/{fn.id}", json={"image": "other:2"})
        async with api.client.get(path, headers={"If-None-Match": tag}) as answer:
            assert (answer.status, (await answer.json())["image"]) == (200, "other:2")


async def test_what_is_wanted_has_an_etag_and_stands_still_while_nothing_changes(tmp_path):
    async with live_api(tmp_path) as api:
        await api.fn()
        since = {"since": "9000-01-15T08:00:00Z"}
        async with api.client.get("/v1/runner/wanted", params=since) as answer:
            found, tag = await answer.json(), answer.headers["ETag"]
            assert (found["warm"], found["more"]) == ([], False)
            assert sorted(found) == ["cursor", "images", "more", "warm"]
        async with api.client.get(
            "/v1/runner/wanted", params=since, headers={"If-None-Match": tag}
        ) as answer:
            assert answer.status == 304
        async with api.client.get("/v1/runner/wanted", params={"since": "yesterday"}) as answer:
            assert answer.status == 400
            assert (await answer.json())["error"]["message"].startswith("since: not an RFC 3339 time")


async def test_a_trigger_comes_with_its_function_and_app(tmp_path):
    async with live_api(tmp_path) as api:
        fn = await api.fn()
        await api.stores.datastore.insert_trigger(
            Trigger(name="t", app_id=fn.app_id, fn_id=fn.id, type="http", source="/a b/é")
        )
        params = {"app": "app-of-f", "source": "/a b/é"}
        found = await api.json("GET", "/v1/runner/triggers", params=params)
        assert (found["trigger"]["name"], found["fn"]["id"], found["app"]["id"]) == ("t", fn.id, fn.app_id)
        said = await api.json("GET", "/v1/runner/triggers?app=app-of-f", status=400)
        assert said == {"error": {"message": "app and source: must both be given"}}


async def test_routes_and_apps_are_looked_up_as_fns_runners_do(tmp_path):
    async with live_api(tmp_path) as api:
        app = await api.stores.datastore.insert_app(App(name="a"))
        for path in ("/", "/one", "/deep/er"):
            await api.stores.datastore.insert_route(Route(app_id=app.id, path=path, image="i"))
        for path, asked in (("/", ""), ("/one", "one"), ("/deep/er", "deep/er"), ("/deep/er", "deep%2Fer")):
            found = await api.json("GET", f"/v1/runner/apps/{app.id}/routes/{asked}")
            assert (found["message"], found["route"]["path"]) == ("Successfully loaded route", path)
        by_name, by_id = (
            await api.json("GET", "/v1/apps/a"),
            await api.json("GET", f"/v1/runner/apps/{app.id}"),
        )
        assert by_name == by_id
        assert by_id["message"] == "Successfully loaded app"
        said = await api.json("GET", "/v1/runner/apps/unknown/routes/one", status=404)
        assert said == {"error": {"message": "Route not found"}}
        said = await api.json("POST", f"/v1/runner/apps/{app.id}", status=404)
        assert said == {"error": {"message": f"Path not found: /v1/runner/apps/{app.id}"}}


async def test_a_call_walks_from_enqueue_to_finish(tmp_path):
    async with live_api(tmp_path) as api:
        fn = await api.fn()
        call = call_of(fn, payload=b"\xff\x00")
        for _ in range(2):
            sent = await api.json("POST", "/v1/runner/enqueue", json=on_wire(call.wire()))
            assert sent == {"msg": "enqueued call", "call_id": call.id}
        (given,) = (await api.json("GET", "/v1/runner/dequeue?max=10&wait=5&node=n1"))["calls"]
        lease = given["lease"]
        assert (given["payload_base64"], lease["attempt"], given["node"]) == ("/wA=", 1, "n1")
        assert (await api.json("GET", "/v1/runner/dequeue?wait=0"))["calls"] == []
        for _ in range(2):
            assert await api.json("POST", "/v1/runner/start", json=given) == {"msg": "slingshot: engage"}
        keys = {"leases": [{"id": call.id, "token": lease["token"]}, {"id": call.id, "token": "forged"}]}
        assert await api.json("POST", "/v1/runner/extend", json=keys) == {"lost": [call.id]}
        result = {"call": {**given, "status": "success"}, "log_base64": "/wA=", "lease": lease}
        forged = {**result, "call": {**given, "status": "error"}, "lease": {"token": "forged"}}
        answer = await api.json("POST", "/v1/runner/finish", json={"finished": [forged]})
        assert answer == {"msg": "good night, sweet prince", "refused": [call.id]}
        for _ in range(2):
            answer = await api.json("POST", "/v1/runner/finish", json={"finished": [result]})
            assert answer == {"msg": "good night, sweet prince"}
        async with api.client.get(f"/v2/fns/{fn.id}/calls/{call.id}/log") as log:
            assert await log.read() == b"\xff\x00"
        said = await api.json("POST", "/v1/runner/start", json=given, status=409)
        assert "lease is not yours" in said["error"]["message"]


async def test_a_released_call_is_given_out_again_as_the_same_attempt(tmp_path):
    async with live_api(tmp_path) as api:
        call = call_of(await api.fn())
        await api.data.enqueue(call)
        for _ in range(2):
            (given,) = (await api.json("GET", "/v1/runner/dequeue?wait=5"))["calls"]
            assert given["lease"]["attempt"] == 1
            key = {"id": call.id, "token": given["lease"]["token"]}
            await api.json("POST", "/v1/runner/release", json={"leases": [key]})


async def test_fns_runners_get_one_call_without_words_that_they_do_not_know(tmp_path):
    async with live_api(tmp_path) as api:
        app = await api.stores.datastore.insert_app(App(name="a"))
        call = {
            "id": new_id(), "status": "", "path": "/p", "image": "i", "type": "async", "app_id": app.id,
            "priority": 0, "payload": "pay", "timeout": 30,
        }  # fmt: skip
        assert await api.json("PUT", "/v1/runner/async", json=call) == {"msg": "enqueued call"}
        (given,) = (await api.json("GET", "/v1/runner/async"))["calls"]
        assert given.keys().isdisjoint({"lease", "attempt", "node"})
        assert (given["status"], given["payload"]) == ("queued", "pay")
        await api.json("POST", "/v1/runner/start", json={**given, "status": "running"})
        await api.json("POST", "/v1/runner/start", json={**given, "status": "running"}, status=409)
        result = {"call": {**given, "status": "success"}, "log": "the log\n"}
        assert await api.json("POST", "/v1/runner/finish", json=result) == {"msg": "good night, sweet prince"}


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("enqueue", "{", "Invalid JSON"),
        ("enqueue", "{}", "Call id is not an id: ''"),
        ("enqueue", '{"id":"x"}', "Call id is not an id: 'x'"),
        ("enqueue", '{"id":"ID","priority":3}', "priority: must be 0, 1 or 2"),
        ("enqueue", '{"id":"ID","delay":-1}', "delay: must not be negative"),
        ("enqueue", '{"id":"ID","created_at":"now"}', "Invalid JSON"),
        ("enqueue", '{"id":"ID","payload_base64":"?"}', "payload_base64: not base64"),
        ("enqueue", '{"id":"ID","timeout":"1"}', "Invalid JSON"),
        ("start", "[]", "Invalid JSON"),
        ("start", "{}", "Call id is not an id: ''"),
        ("extend", '{"leases":[{"id":"x"}]}', "leases: each must have the id of a call"),
        ("release", '{"leases":5}', "Invalid JSON"),
        ("finish", "{}", "Call id is not an id: ''"),
        (
            "finish",
            '{"call":{"id":"ID","status":"running"}}',
            "call.status: must be one of cancelled, error, success, timeout",
        ),
        ("heartbeat", "{}", "id: must be the name of the node, of at most 255 characters"),
    ],
)
async def test_a_body_that_breaks_a_rule_is_refused(tmp_path, path, body, message):
    async with live_api(tmp_path) as api:
        body = body.replace("ID", new_id())
        said = await api.json("POST", f"/v1/runner/{path}", data=body, status=400)
        assert said == {"error": {"message": message}}


@pytest.mark.parametrize("query", ["max=0", "max=x", "wait=-1", "wait=nan", "wait=inf"])
async def test_a_long_poll_with_odd_numbers_is_refused(tmp_path, query):
    async with live_api(tmp_path) as api:
        said = await api.json("GET", f"/v1/runner/dequeue?{query}", status=400)
        assert said["error"]["message"].startswith(query.split("=")[0])


async def test_a_new_call_wakes_a_waiting_poll(tmp_path):
    async with live_api(tmp_path) as api:
        call = call_of(await api.fn())
        poll = asyncio.create_task(api.json("GET", "/v1/runner/dequeue?wait=30"))
        await asyncio.sleep(0.05)
        await api.data.enqueue(call)
        (given,) = (await asyncio.wait_for(poll, 60))["calls"]
        assert given["id"] == call.id


async def test_a_long_poll_ends_when_the_node_stops(tmp_path):
    async with aiohttp.ClientSession() as client:
        async with live_api(tmp_path) as api:
            poll = asyncio.create_task(client.get(f"{api.base_url}/v1/runner/dequeue?wait=30"))
            await asyncio.sleep(0.1)
        async with asyncio.timeout(20), await poll as answer:
            assert await answer.json() == {"calls": []}


class Polled:
    """Direct data access whose dequeue waits until it is cancelled.

    *late*: the cancellation came too late, the calls are leased already.
    """

    def __init__(self, inner, *, late=False):
        self._inner, self._late = inner, late
        self.polled, self.cancelled, self.released = (asyncio.Event() for _ in range(3))

    def __getattr__(self, verb):
        return getattr(self._inner, verb)

    async def dequeue(self, node, limit, wait, without=()):
        self.polled.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            if not self._late:
                raise
        return await self._inner.dequeue(node, limit, 0, without)

    async def release(self, keys):
        await self._inner.release(keys)
        self.released.set()


async def poll_and_hang_up(api, polled):
    poll = asyncio.create_task(api.client.get("/v1/runner/dequeue?wait=30"))
    await asyncio.wait_for(polled.polled.wait(), 60)
    poll.cancel()
    await asyncio.wait_for(polled.cancelled.wait(), 60)


async def test_a_poll_whose_client_went_away_is_given_up(tmp_path):
    made = []
    async with live_api(tmp_path, data=lambda inner: made.append(Polled(inner)) or made[0]) as api:
        call = call_of(await api.fn())
        await api.data.enqueue(call)
        await poll_and_hang_up(api, made[0])
        (given,) = await api.data.dequeue("n2", 1, 5)
        assert (given.call.id, given.lease.attempt) == (call.id, 1)


async def test_calls_that_cannot_be_handed_over_are_released_at_once(tmp_path):
    made = []
    async with live_api(tmp_path, data=lambda inner: made.append(Polled(inner, late=True)) or made[0]) as api:
        call = call_of(await api.fn())
        await api.data.enqueue(call)
        await poll_and_hang_up(api, made[0])
        await asyncio.wait_for(made[0].released.wait(), 60)
        (given,) = await api.data.dequeue("n2", 1, 5)
        assert (given.call.id, given.lease.attempt) == (call.id, 1)
