"""The hybrid client against API nodes that answer, that fail, and that are not there."""

import asyncio
import json
import logging
import re
import socket
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from opentelemetry import trace

from hybrid_client.client import ClientSettings, open_data_access
from shared_models import errors
from shared_models.app import App
from shared_models.call import Call, Finished, Lease, LeasedCall, LeaseKey
from shared_models.env import InvalidSettings
from shared_models.ids import new_id
from shared_models.runner import RunnerReport
from shared_models.wanted import Wanted, WarmTarget
from shared_models.web import HTTPSettings, json_response, serving
from tests.integration.live_api import call_of, live_api

APP = {"app": App(id=new_id(), name="a").wire()}
FN = {"id": new_id(), "name": "f", "app_id": new_id(), "image": "i"}


def settings(*urls, **changes):
    given = {"token": "t", "timeout": 5.0, "first_pause": 0.001, "max_pause": 0.01, "max_attempts": 4}
    return ClientSettings(api_urls=urls, **{**given, **changes})


class Script:
    """A server that gives prepared answers in turn (the last one ever after) and keeps the requests."""

    def __init__(self, *answers):
        self._answers = list(answers)
        self.requests = []

    async def answer(self, request):
        self.requests.append((request.method, request.path_qs, dict(request.headers), await request.read()))
        given = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if given is CUT:
            request.transport.abort()
            raise ConnectionResetError
        if given is SILENT:
            await asyncio.Event().wait()
        status, body, *headers = given
        return json_response(body, status, headers[0] if headers else None)

    @property
    def paths(self):
        return [f"{method} {path}" for method, path, _, _ in self.requests]


CUT, SILENT = object(), object()
BUSY = (503, {"error": {"message": "The database does not answer; try again"}})


@asynccontextmanager
async def scripted(*answers):
    script = Script(*answers)
    http = HTTPSettings(port=0, host="127.0.0.1", drain=0.1)
    async with serving([web.route("*", "/{path:.*}", script.answer)], http, node_type="api") as port:
        yield script, f"http://127.0.0.1:{port}"


@asynccontextmanager
async def client_of(*answers, **changes):
    async with scripted(*answers) as (script, url), open_data_access(settings(url, **changes)) as data:
        yield data, script


@pytest.fixture
def closed_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


# -- repetitions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "trouble", [BUSY, (500, {}), (502, {}), (504, {}), CUT], ids=["503", "500", "502", "504", "cut"]
)
async def test_a_request_is_repeated_until_it_is_served(trouble):
    async with client_of(trouble, trouble, (200, APP)) as (data, script):
        assert await data.app_id("a") == APP["app"]["id"]
        assert len(script.requests) >= 3


async def test_a_timeout_is_repeated():
    async with client_of(SILENT, (200, APP), timeout=1.0) as (data, script):
        assert await data.app_id("a") == APP["app"]["id"]
        assert len(script.requests) == 2


async def test_attempts_are_bounded_and_the_last_error_is_told():
    async with client_of(BUSY, max_attempts=3) as (data, script):
        with pytest.raises(errors.StoreUnavailable):
            await data.app_id("a")
        assert len(script.requests) == 3


async def test_a_node_that_hangs_gets_two_attempts_however_many_are_allowed():
    async with client_of(SILENT, timeout=1.0, max_attempts=50) as (data, script):
        with pytest.raises(errors.APINodeUnavailable):
            await data.enqueue(Call(id=new_id()))
        assert len(script.requests) == 2


@pytest.mark.parametrize("status", [400, 404, 409, 413])
async def test_a_refusal_is_not_repeated(status):
    async with client_of((status, {"error": {"message": "no"}})) as (data, script):
        with pytest.raises(errors.FnError) as caught:
            await data.enqueue(Call(id=new_id()))
        assert (caught.value.code, len(script.requests)) == (status, 1)


async def test_retry_after_is_honoured_up_to_the_longest_pause():
    loop = asyncio.get_running_loop()
    async with client_of((*BUSY, {"Retry-After": "60"}), (200, APP), max_pause=0.3) as (data, _):
        started = loop.time()
        await data.app_id("a")
        assert 0.3 <= loop.time() - started < 30


async def test_a_queue_that_is_down_is_told_at_once():
    down = (503, {"error": {"message": errors.QueueUnavailable.text}}, {"Retry-After": "1"})
    async with client_of(down) as (data, script):
        with pytest.raises(errors.QueueUnavailable):
            await data.enqueue(Call(id=new_id()))
        assert len(script.requests) == 1


async def test_the_next_address_is_tried_first(closed_port):
    async with scripted((200, APP)) as (script, url):
        down = f"http://127.0.0.1:{closed_port}"
        async with open_data_access(settings(down, url, first_pause=0.0)) as data:
            for _ in range(3):
                await data.app_id("a")
        assert len(script.requests) == 3


async def test_many_that_find_a_node_away_at_once_all_go_to_the_next_one(closed_port, caplog):
    async with scripted((200, APP)) as (script, url):
        two = settings(f"http://127.0.0.1:{closed_port}", url, max_attempts=2)
        async with open_data_access(two) as data:
            await asyncio.gather(*[data.app_id("a") for _ in range(10)])
            await data.app_id("a")
        assert len(script.requests) == 11
    said = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1
    assert f"127.0.0.1:{closed_port} serves no requests" in said[0]


async def test_a_node_that_is_not_there_is_named_as_such(closed_port):
    async with open_data_access(settings(f"http://127.0.0.1:{closed_port}")) as data:
        with pytest.raises(errors.APINodeUnavailable) as caught:
            await data.app_id("a")
        assert f"127.0.0.1:{closed_port}: it refuses connections, is it running?" in caught.value.detail


async def test_a_node_whose_name_is_not_known_is_told_so():
    async with open_data_access(settings("http://api.invalid:8080")) as data:
        with pytest.raises(errors.APINodeUnavailable, match="does not answer") as caught:
            await data.app_id("a")
    assert "api.invalid:8080: its name is not known" in caught.value.detail


async def test_a_node_that_says_nothing_is_named_with_what_happened():
    async with client_of(SILENT, timeout=0.5, max_attempts=1) as (data, _):
        with pytest.raises(errors.APINodeUnavailable) as caught:
            await data.app_id("a")
        assert re.search(r"127\.0\.0\.1:\d+: TimeoutError$", caught.value.detail)


async def test_a_redirect_or_a_page_is_not_taken_for_an_answer():
    async with client_of((302, {}, {"Location": "http://elsewhere/"})) as (data, script):
        with pytest.raises(errors.APINodeUnavailable, match="API node"):
            await data.app_id("a")
        assert len(script.requests) == 1
    async with client_of((200, "<html>")) as (data, _):
        with pytest.raises(errors.APINodeUnavailable):
            await data.app_id("a")


@pytest.mark.parametrize("trouble", [BUSY, CUT, SILENT], ids=["503", "cut", "silent"])
async def test_a_dequeue_is_not_repeated_on_an_unclear_answer(trouble):
    async with client_of(trouble, timeout=2.0) as (data, script):
        with pytest.raises(errors.Unavailable):
            await data.dequeue("n", 1, 0)
        assert len(script.requests) == 1


async def test_a_dequeue_that_was_never_sent_goes_to_the_next_address(closed_port):
    async with scripted((200, {"calls": []})) as (script, url):
        async with open_data_access(settings(f"http://127.0.0.1:{closed_port}", url)) as data:
            assert await data.dequeue("n 1", 5, 2.5) == []
        assert script.paths == ["GET /v1/runner/dequeue?max=5&wait=2.5&node=n+1"]


# -- words -------------------------------------------------------------------------------------


async def test_a_refused_token_is_logged_by_name_once(caplog):
    caplog.set_level(logging.ERROR)
    async with client_of((401, {"error": {"message": "no"}}), token="s3cret") as (data, script):
        for _ in range(2):
            with pytest.raises(errors.RunnerRefused) as raised:
                await data.app_id("a")
            assert raised.value.code == 500  # not the fault of whoever calls a function here
        assert script.requests[0][2]["Authorization"] == "Bearer s3cret"
    assert caplog.text.count("FN_RUNNER_TOKEN is not one of its tokens") == 1
    assert "s3cret" not in caplog.text


async def test_any_conflict_at_a_start_is_a_lost_lease():
    async with client_of((409, {"error": {"message": "whatever"}})) as (data, _):
        with pytest.raises(errors.LeaseLost):
            await data.start(LeasedCall(call=Call(id=new_id()), lease=Lease(token="x")))


async def test_a_runner_without_an_address_cannot_start():
    with pytest.raises(InvalidSettings, match="FN_RUNNER_API_URL"):
        async with open_data_access(settings()):
            pass


async def test_names_are_escaped_in_paths():
    async with client_of((404, {"error": {"message": "App not found"}})) as (data, script):
        for name in ("a/b", "é", "a?b", "..", "a%2Fb"):
            with pytest.raises(errors.AppNotFound):
                await data.app_id(name)
        assert script.paths == [
            "GET /v1/apps/a%2Fb", "GET /v1/apps/%C3%A9", "GET /v1/apps/a%3Fb", "GET /v1/apps/..",
            "GET /v1/apps/a%252Fb",
        ]  # fmt: skip


async def test_a_known_value_is_revalidated_with_its_etag():
    tag = {"ETag": '"1"'}
    async with client_of((200, FN, tag), (304, {}, tag), (200, {**FN, "image": "new"})) as (data, script):
        first, second, third = [await data.fn(FN["id"]) for _ in range(3)]
        assert second is first
        assert third.image == "new"
        asked = [headers.get("If-None-Match") for _, _, headers, _ in script.requests]
        assert asked == [None, '"1"', '"1"']


async def test_what_is_wanted_is_read_once_for_as_long_as_nothing_changes():
    tag = {"ETag": '"1"'}
    body = {
        "images": ["i:1"],
        "warm": [{"fn_id": "f", "count": 2}],
        "cursor": "c1",
        "news": "of later versions",
    }
    async with client_of((200, body, tag), (304, {}, tag)) as (data, script):
        first, second = [await data.wanted("2027-01-15T08:00:00.000Z") for _ in range(2)]
        assert second is first
        assert first == Wanted(images=["i:1"], warm=[WarmTarget(fn_id="f", count=2)], cursor="c1")
        assert script.paths == ["GET /v1/runner/wanted?since=2027-01-15T08%3A00%3A00.000Z"] * 2


async def test_an_api_node_that_is_too_old_to_say_what_is_wanted_is_one_of_ours_all_the_same():
    unknown = (404, {"message": "Path not found"})
    async with client_of(unknown, (200, {"state": "active"}), unknown) as (data, script):
        assert await data.wanted("") is None
        assert await data.heartbeat(RunnerReport(id="n")) == "active"
        assert await data.wanted("") is None
        wanted = "GET /v1/runner/wanted?since="
        assert script.paths == [wanted, "POST /v1/runner/heartbeat", wanted]


async def test_the_current_trace_goes_along():
    context = trace.SpanContext(
        trace_id=0xABC, span_id=0xDEF, is_remote=False, trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED)
    )
    async with client_of((200, APP)) as (data, script):
        await data.app_id("a")
        with trace.use_span(trace.NonRecordingSpan(context)):
            await data.app_id("a")
        without, with_trace = (headers for _, _, headers, _ in script.requests)
        assert "traceparent" not in without
        assert with_trace["traceparent"] == f"00-{0xABC:032x}-{0xDEF:016x}-01"
        assert with_trace["X-B3-TraceId"] == f"{0xABC:032x}"
        assert with_trace["X-B3-Sampled"] == "1"


async def test_an_unreadable_call_does_not_cost_its_neighbours(caplog):
    good = {"id": new_id(), "lease": {"token": "t", "attempt": 1, "ttl": 30}}
    async with client_of((200, {"calls": [{"id": "x"}, good]})) as (data, _):
        (leased,) = await data.dequeue("n", 2, 0)
        assert leased.key == LeaseKey(good["id"], "t")
    assert "cannot be read" in caplog.text


async def test_a_large_batch_is_handed_in_whole(tmp_path):
    async with live_api(tmp_path) as api, open_data_access(settings(api.base_url)) as data:
        fn = await api.fn()
        logs = [b"x" * 1_000_000] * 6 + [b"\xff"] * 2000
        batch = [Finished(call=call_of(fn, type="sync", status="success"), log=log) for log in logs]
        assert await data.finish(batch) == []
        for one in (batch[0], batch[5], batch[-1]):
            log = await api.stores.logstore.log(one.call.id)
            assert b"".join([piece async for piece in log]) == one.log


async def test_batches_are_split_into_what_one_request_may_hold():
    async with client_of((200, {"refused": ["x"], "lost": ["y"]})) as (data, script):
        keys = [LeaseKey(new_id(), "t") for _ in range(1001)]
        assert await data.extend(keys) == ["y"] * 3
        await data.release(keys)
        call = Call(id=new_id(), status="success", payload=b"not sent again")
        assert await data.finish([Finished(call=call, log=b"x" * 3_000_000)] * 2) == ["x", "x"]
        bodies = [json.loads(body) for _, _, _, body in script.requests]
        counts = [len(body.get("leases") or body["finished"]) for body in bodies]
        assert counts == [500, 500, 1, 500, 500, 1, 1, 1]
        assert "payload" not in bodies[-1]["finished"][0]["call"]


async def test_heartbeats_bring_back_the_state():
    async with client_of((200, {"state": "draining"}), (200, {"state": "active"})) as (data, _):
        assert await data.heartbeat(RunnerReport(id="n")) == "draining"
        assert await data.heartbeat(RunnerReport(id="n")) == "active"
