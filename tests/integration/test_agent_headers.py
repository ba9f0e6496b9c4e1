"""A runner's HTTP side: headers of our own on detached calls and routes, and what they must not reach."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from runner_node.drivers.fake_behaviour import Answer, Behaviour
from runner_node.invoke import invoke_routes
from runner_node.quick import quick_path
from shared_models import errors
from shared_models.call import CallType
from shared_models.ids import new_id
from shared_models.route import Route
from shared_models.trigger import Trigger, TriggerTarget
from shared_models.web import HTTPSettings, serving
from tests.integration.test_agent import Rig, rig

OWN = {
    "Fn-Delay": "1.5",
    "Fn-Priority": "2",
    "Fn-Idempotency-Key": "secret-key",
    "Fn-Callback-Url": "https://hooks.example/secret",
    "Fn-Attempt": "9",
}


class Client:
    """Of a runner whose function writes down the headers that it sees."""

    def __init__(self, r: Rig, http: aiohttp.ClientSession, seen: list[dict[str, str]]) -> None:
        self.rig = r
        self.data = r.data
        self.fn = r.deploy("f")
        self.seen = seen
        self._http = http

    async def post(self, path: str, headers: dict[str, str]) -> tuple[int, dict[str, Any], dict[str, str]]:
        async with self._http.post(path, data=b"body", headers=headers) as answer:
            body = await answer.json() if answer.content_type == "application/json" else {}
            return answer.status, body, dict(answer.headers)

    async def detached(self, **headers: str) -> tuple[int, dict[str, Any], dict[str, str]]:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.post(f"/invoke/{self.fn.id}", {"Fn-Invoke-Type": "detached", **given})


@asynccontextmanager
async def client() -> AsyncIterator[Client]:
    seen: list[dict[str, str]] = []

    def look(request: Any) -> Answer:
        seen.append(dict(request.headers))
        return Answer(body=b"answer")

    async with (
        rig({"f": Behaviour(function=look)}) as r,
        serving(
            invoke_routes(r.agent),
            HTTPSettings(port=0, host="127.0.0.1"),
            node_type="runner",
            fast_path=quick_path(r.agent),
        ) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http,
    ):
        yield Client(r, http, seen)


def mentions(what: object) -> list[str]:
    """Which of our headers are told in *what*, by name or by value."""
    text = str(what).lower()
    return [name for name in OWN if name.lower() in text or (len(OWN[name]) > 3 and OWN[name] in text)]


# -- accepted ----------------------------------------------------------------------------------


async def test_a_detached_call_is_accepted_as_its_client_wishes():
    async with client() as c:
        status, body, headers = await c.post(f"/invoke/{c.fn.id}", {"Fn-Invoke-Type": "detached", **OWN})
        [call] = c.data.enqueued
    assert (status, body) == (202, {"call_id": call.id})
    assert headers["Fn-Call-Id"] == call.id
    assert (call.delay, call.priority) == (2, 2)
    assert (call.idempotency_key, call.callback_url) == ("secret-key", "https://hooks.example/secret")
    assert mentions(call.headers) == []


async def test_the_answer_has_the_id_of_the_earlier_call_with_the_same_key():
    async with client() as c:
        c.data.known_id = new_id()
        status, body, headers = await c.detached(Fn_Idempotency_Key="k")
        assert (status, body["call_id"], headers["Fn-Call-Id"]) == (202, c.data.known_id, c.data.known_id)


@pytest.mark.parametrize(
    ("name", "value"),
    [("Fn-Delay", "-1"), ("Fn-Priority", "3"), ("Fn-Idempotency-Key", "x" * 256), ("Fn-Callback-Url", "h")],
)
async def test_a_bad_value_is_refused_by_name_before_anything_is_accepted(name, value):
    async with client() as c:
        status, body, _ = await c.detached(**{name: value})
        assert status == 400
        assert body["message"].startswith(f"{name}: must ")
        assert c.data.enqueued == []


@pytest.mark.parametrize(
    ("error", "status"), [(errors.QueueFull(10, 10, 7.0), 429), (errors.QueueUnavailable(), 503)]
)
async def test_what_may_be_tried_again_says_when_and_names_the_call(error, status):
    async with client() as c:
        c.data.enqueue_error = error
        got, body, headers = await c.detached()
        assert (got, body["message"]) == (status, error.message)
        assert int(headers["Retry-After"]) == max(1, int(error.retry_after))
        assert len(headers["Fn-Call-Id"]) == 26


# -- sync calls --------------------------------------------------------------------------------


async def test_on_a_sync_call_they_mean_nothing_and_reach_nobody():
    async with client() as c:
        status, _, _ = await c.post(
            f"/invoke/{c.fn.id}", {**OWN, "Fn-Delay": "not a number", "X-Kept": "yes"}
        )
        assert status == 200
        assert mentions(c.seen[0]) == []
        assert c.seen[0]["x-kept"] == "yes"


async def test_on_a_trigger_they_reach_nobody():
    async with client() as c:
        app = c.data.apps["app"]
        trigger = Trigger(id="t", app_id="app", fn_id=c.fn.id, type="http", source="/s")
        c.data.triggers["app", "/s"] = TriggerTarget(trigger=trigger, fn=c.fn, app=app)
        status, _, _ = await c.post("/t/app/s", {**OWN, "X-Kept": "yes"})
        assert status == 200
        assert mentions(c.seen[0]) == []
        assert c.seen[0]["fn-http-h-x-kept"] == "yes"


# -- routes ------------------------------------------------------------------------------------


def route(c: Client, type_: CallType) -> None:
    c.data.routes["app", "/r"] = Route(
        app_id="app", path="/r", image="f", format="http-stream", type=type_, memory=128, timeout=5,
        idle_timeout=5,
    )  # fmt: skip


async def test_an_async_route_takes_them_too():
    async with client() as c:
        route(c, CallType.ASYNC)
        status, body, headers = await c.post("/r/app/r", OWN)
        [call] = c.data.enqueued
        assert (status, body["call_id"], headers["Fn_call_id"]) == (202, call.id, call.id)
        assert (call.delay, call.priority, call.callback_url) == (2, 2, "https://hooks.example/secret")
        assert call.idempotency_key
        assert mentions(call.headers) == []
        c.data.known_id = new_id()
        _, body, headers = await c.post("/r/app/r", OWN)
        assert (body["call_id"], headers["Fn_call_id"]) == (c.data.known_id, c.data.known_id)


async def test_an_async_route_refuses_a_bad_value_in_its_own_shape():
    async with client() as c:
        route(c, CallType.ASYNC)
        status, body, _ = await c.post("/r/app/r", {"Fn-Priority": "high"})
        assert (status, body) == (400, {"error": {"message": "Fn-Priority: must be 0, 1 or 2"}})
        assert c.data.enqueued == []


async def test_on_a_sync_route_they_mean_nothing_and_reach_nobody():
    async with client() as c:
        route(c, CallType.SYNC)
        status, _, _ = await c.post("/r/app/r", {**OWN, "Fn-Delay": "not a number"})
        assert status == 200
        assert mentions(c.seen[0]) == []
        assert mentions((await c.rig.record()).call.headers) == []
