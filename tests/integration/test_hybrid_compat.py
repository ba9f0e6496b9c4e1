"""The hybrid client against an unmodified Fn 0.3.484 API node, played from its recordings."""

import json
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from hybrid_client.client import ClientSettings, open_data_access
from shared_models import errors, times
from shared_models.async_policy import KEEP_RESULT
from shared_models.call import Call, Finished, LeasedCall, LeaseKey
from shared_models.ids import new_id
from shared_models.runner import RunnerReport
from shared_models.web import HTTPSettings, json_response, read_body, serving
from tests.wire.matching import Bindings

RECORDED = Path(__file__).parents[1] / "wire" / "scenarios" / "2018-runner"


class FnNode:
    """Answers what was recorded; everything else is a path that it does not know, as on the original."""

    def __init__(self, scenario):
        recorded = json.loads((RECORDED / f"{scenario}.json").read_text())
        self._bindings = Bindings(recorded["vars"], {"host": "runner.example"})
        for name, kind in recorded["vars"].items():
            self._bindings.values[name] = new_id() if kind == "id" else times.now()
        self._exchanges = [exchange for exchange in recorded["exchanges"] if not exchange.get("fail")]
        self.values = self._bindings.values
        self.seen = []

    async def answer(self, request):
        body = await read_body(request)
        for exchange in self._exchanges:
            asked = exchange["request"]
            if (asked["method"], self._bindings.fill(asked["path"])) == (request.method, request.raw_path):
                self.seen.append((f"{request.method} {request.raw_path}", json.loads(body or "null")))
                response = exchange["response"]
                return json_response(self._bindings.fill(response["json"]), response["status"])
        self.seen.append((f"? {request.method} {request.raw_path}", None))
        return json_response({"error": {"message": f"Path not found: {request.path}"}}, 404)

    def asked(self, path):
        return [body for seen, body in self.seen if seen == path]


@asynccontextmanager
async def fn_node(scenario):
    """The client, and the node that it asks."""
    node = FnNode(scenario)
    http = HTTPSettings(port=0, host="127.0.0.1", drain=0.1)
    async with serving([web.route("*", "/{path:.*}", node.answer)], http, node_type="api") as port:
        settings = ClientSettings(api_urls=(f"http://127.0.0.1:{port}",), max_attempts=2, first_pause=0.001)
        async with open_data_access(settings) as data:
            yield data, node


async def test_look_ups_need_no_words_of_ours():
    async with fn_node("runner-async") as (data, node):
        app_id = await data.app_id("rasync")
        assert (await data.app(app_id)).config == {"A": "app"}
        route = await data.route(app_id, "/d")
        assert (route.image, route.type, route.timeout) == ("golden/func:1", "async", 20)
        assert not [seen for seen, _ in node.seen if seen.startswith("?")]


async def test_what_is_not_there_is_not_found():
    async with fn_node("runner-not-found") as (data, _):
        with pytest.raises(errors.AppNotFound):
            await data.app_id("rnone")
        app_id = await data.app_id("rhalf")
        with pytest.raises(errors.RouteNotFound):
            await data.route(app_id, "/x")
        # The original has no look-up for the root route.
        with pytest.raises(errors.RouteNotFound):
            await data.route(app_id, "/")
        with pytest.raises(errors.TriggerNotFound):
            await data.trigger("rhalf", "http", "/x")
        with pytest.raises(errors.FnNotFound):
            await data.fn("x")


async def test_a_queued_call_walks_without_leases():
    async with fn_node("runner-async") as (data, node):
        await data.enqueue(Call(id=new_id(), type="async", path="/d", payload="täxt".encode()))
        (queued,) = node.asked("PUT /v1/runner/async")
        assert (queued["payload"], "attempt" in queued) == ("täxt", False)
        (leased,) = await data.dequeue("n1", 10, 5)
        assert (leased.lease, leased.call.id) == (None, node.values["call_id"])
        await data.start(leased)
        (started,) = node.asked("POST /v1/runner/start")
        assert (started["status"], "lease" in started) == ("running", False)
        assert await data.extend([LeaseKey(leased.call.id)]) == []
        await data.release([LeaseKey(leased.call.id)])


async def test_results_are_handed_in_one_by_one():
    async with fn_node("runner-async") as (data, node):
        batch = [Finished(call=Call(id=new_id(), status="success"), log=log) for log in (b"one\n", b"\xff")]
        assert await data.finish(batch) == []
        handed_in = node.asked("POST /v1/runner/finish")
        assert [body["call"]["id"] for body in handed_in] == [one.call.id for one in batch]
        assert [body["log"] for body in handed_in] == ["one\n", "\N{REPLACEMENT CHARACTER}"]


async def test_an_answer_that_is_to_be_kept_is_not_for_a_node_that_keeps_none():
    async with fn_node("runner-async") as (data, node):
        call = Call(
            id=new_id(), status="success", type="async", annotations={KEEP_RESULT: msgspec.Raw(b"true")}
        )
        assert (
            await data.finish([Finished(call=call, body=b"answer", content_type="x/y", answered=True)]) == []
        )
        (handed_in,) = node.asked("POST /v1/runner/finish")
        assert set(handed_in) == {"call", "log"}


async def test_what_it_lacks_is_asked_for_once():
    async with fn_node("runner-async") as (data, node):
        for _ in range(3):
            assert await data.heartbeat(RunnerReport(id="n1")) == "active"
            await data.dequeue("n1", 1, 0)
        assert [seen for seen, _ in node.seen if seen.startswith("?")] == ["? POST /v1/runner/heartbeat"]


async def test_a_payload_that_is_not_text_is_refused_before_it_is_mangled():
    async with fn_node("runner-async") as (data, node):
        with pytest.raises(errors.Invalid, match="UTF-8"):
            await data.enqueue(Call(id=new_id(), payload=b"\xff"))
        assert node.asked("PUT /v1/runner/async") == []


@pytest.mark.parametrize("wish", ["callback_url", "idempotency_key"])
async def test_a_wish_that_it_does_not_know_is_refused_and_not_forgotten(wish):
    async with fn_node("runner-async") as (data, node):
        with pytest.raises(errors.Invalid, match="knows neither"):
            await data.enqueue(Call(id=new_id(), **{wish: "http://h"}))
        assert node.asked("PUT /v1/runner/async") == []


async def test_a_start_that_it_does_not_know_of_is_a_lost_lease():
    async def refuse(request):
        return json_response({"error": {"message": "internal server error"}}, 500)

    http = HTTPSettings(port=0, host="127.0.0.1", drain=0.1)
    async with serving([web.post("/v1/runner/start", refuse)], http, node_type="api") as port:
        settings = ClientSettings(api_urls=(f"http://127.0.0.1:{port}",), max_attempts=2, first_pause=0.001)
        async with open_data_access(settings) as data:
            with pytest.raises(errors.LeaseLost):
                await data.start(LeasedCall(call=Call(id=new_id())))


async def test_a_lease_of_ours_is_renewed_whoever_answers_in_between():
    """One address of several is that of an Fn node, which knows no heartbeat and no leases."""
    async with fn_node("runner-async") as (data, node):
        assert await data.heartbeat(RunnerReport(id="n1")) == "active"
        for verb in (data.extend, data.release):
            with pytest.raises(errors.APINodeUnavailable):
                await verb([LeaseKey(new_id(), "token")])
        assert [seen for seen, _ in node.seen] == [
            f"? POST /v1/runner/{verb}" for verb in ("heartbeat", "extend", "release")
        ]


async def test_nothing_is_wanted_by_a_node_that_does_not_say_so():
    async with fn_node("runner-async") as (data, node):
        assert await data.wanted("") is None
        await data.heartbeat(RunnerReport(id="n"))
        asked = len(node.seen)
        assert await data.wanted("") is None
        assert len(node.seen) == asked, "it is not asked again before long"
