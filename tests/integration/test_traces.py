"""Traces of both tiers, as an OTLP receiver gets them; what functions are told of them."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from deploy import logs
from deploy.settings import LogSettings
from runner_node.drivers.fake_behaviour import Answer
from shared_models import otlp, telemetry, tracing
from shared_models.otlp import open_otlp
from shared_models.otlp_settings import OTLPSettings
from shared_models.route import Route
from shared_models.trigger import HTTP, Trigger
from tests.integration.test_hybrid_tiers import ended, two_tiers
from tests.servers.collector import Collector, running_collector

TRACE, CLIENT = f"{0xABC:032x}", f"{0xDEF:016x}"
SAMPLED = {"traceparent": f"00-{TRACE}-{CLIENT}-01"}
NOT_SAMPLED = {"traceparent": f"00-{TRACE}-{CLIENT}-00"}
ABOUT = {"service.name": "fn-test", "service.instance.id": "node-1"}


@dataclass
class Scene:
    """Both tiers, which report to the collector, and a function; *seen*: headers that came to it."""

    api: Any
    runner: Any
    collector: Collector
    fn: Any = None
    seen: list[dict[str, str]] = field(default_factory=list)

    async def call(self, status: int = 200, **headers: str) -> Any:
        """The headers of an answer."""
        async with self.runner.post(f"/invoke/{self.fn.id}", data=b"hello", headers=headers) as answer:
            await answer.read()
            assert answer.status == status
            return answer.headers

    async def detached(self, **headers: str) -> str:
        """The id of a call that has ended."""
        answer = await self.call(202, **headers, **{"Fn-Invoke-Type": "detached"})
        call_id = str(answer["Fn-Call-Id"])
        await ended(self.api, self.fn, call_id)
        return call_id


@asynccontextmanager
async def scene(folder: Any, share: float = 0.0, **settings: Any) -> AsyncIterator[Scene]:
    seen: list[dict[str, str]] = []

    def function(request: Any) -> Answer:
        seen.append(dict(request.headers))
        if request.body == b"fail":
            return Answer(status=502, body=b"no")
        return Answer(body=b"done")

    async with (
        running_collector() as collector,
        open_otlp(OTLPSettings(url=collector.url, share=share, **settings), ABOUT),
        two_tiers(folder, function) as (api, runner),
    ):
        yield Scene(api, runner, collector, await api.fn(), seen)


async def test_a_sync_call_is_one_trace_from_its_client_to_its_function(tmp_path):
    async with scene(tmp_path) as this:
        call_id = (await this.call(**SAMPLED))["Fn-Call-Id"]
        spans = await this.collector.trace_of(TRACE, "fn.call", "fn.wait", "fn.start", "fn.run", "fn.finish")
        call = spans["fn.call"]
        assert call.parent == CLIENT
        assert {spans[name].parent for name in ("fn.wait", "fn.run", "fn.finish")} == {call.id}
        assert spans["fn.start"].parent == spans["fn.wait"].id
        assert call.attributes["fn.call.id"] == call_id
        assert call.attributes["fn.fn.id"] == this.fn.id
        assert call.attributes["fn.app.id"] == this.fn.app_id
        assert call.attributes["fn.image"] == "some/image:1"
        assert call.attributes["fn.call.attempt"] == 1
        assert call.resource == ABOUT
        assert call.began <= spans["fn.wait"].began <= spans["fn.run"].began <= spans["fn.run"].ended
        assert spans["fn.run"].ended <= call.ended
        assert this.seen[0]["traceparent"] == f"00-{TRACE}-{call.id}-01"
        assert this.seen[0]["x-b3-traceid"] == TRACE
        assert this.seen[0]["x-b3-spanid"] == call.id
        assert this.seen[0]["x-b3-sampled"] == "1"


async def test_a_detached_call_is_one_trace_through_both_tiers_and_the_queue(tmp_path):
    async with scene(tmp_path) as this:
        call_id = await this.detached(**SAMPLED)
        request = "POST /v1/runner/enqueue"
        spans = await this.collector.trace_of(
            TRACE, "fn.enqueue", request, "fn.queue", "fn.call", "fn.run", "fn.finish"
        )
        enqueue, call = spans["fn.enqueue"], spans["fn.call"]
        assert enqueue.parent == CLIENT
        assert spans[request].parent == enqueue.id
        assert call.parent == enqueue.id
        assert spans["fn.queue"].parent == call.id
        assert enqueue.attributes["fn.call.id"] == call.attributes["fn.call.id"] == call_id
        assert this.seen[0]["traceparent"] == f"00-{TRACE}-{call.id}-01"


async def test_an_async_route_is_followed_through_the_queue_too(tmp_path):
    async with scene(tmp_path) as this:
        route = Route(app_id=this.fn.app_id, path="/r", image="some/image:1", type="async", format="http")
        await this.api.stores.datastore.insert_route(route)
        async with this.runner.post(
            "/r/app-of-f/r", data=b"x", headers={"b3": f"{TRACE}-{CLIENT}-1"}
        ) as answer:
            assert answer.status == 202, await answer.text()
        spans = await this.collector.trace_of(TRACE, "fn.enqueue", "fn.call", "fn.run")
        assert spans["fn.enqueue"].parent == CLIENT
        assert spans["fn.call"].parent == spans["fn.enqueue"].id
        assert spans["fn.call"].attributes["fn.route"] == "/r"


async def test_the_function_of_a_trigger_is_told_of_its_call_and_of_what_the_client_sent(tmp_path):
    async with scene(tmp_path) as this:
        trigger = Trigger(name="t", app_id=this.fn.app_id, fn_id=this.fn.id, type=HTTP, source="/t")
        await this.api.stores.datastore.insert_trigger(trigger)
        async with this.runner.get("/t/app-of-f/t", headers=SAMPLED) as answer:
            assert answer.status == 200, await answer.text()
        call = (await this.collector.trace_of(TRACE, "fn.call"))["fn.call"]
        assert call.parent == CLIENT
        assert this.seen[0]["traceparent"] == f"00-{TRACE}-{call.id}-01"
        assert this.seen[0]["fn-http-h-traceparent"] == SAMPLED["traceparent"]


async def test_a_detached_call_that_fails_says_why_and_which_attempt_it_was(tmp_path):
    async with scene(tmp_path) as this:
        async with this.runner.post(
            f"/invoke/{this.fn.id}", data=b"fail", headers={**SAMPLED, "Fn-Invoke-Type": "detached"}
        ) as answer:
            assert answer.status == 202
        spans = await this.collector.trace_of(TRACE, "fn.call", "fn.finish")
        assert spans["fn.call"].failed
        assert spans["fn.call"].attributes["fn.reason"] == "function"
        assert spans["fn.call"].attributes["fn.call.attempt"] == 1


@pytest.mark.parametrize(
    "headers",
    [
        {"b3": f"{TRACE}-{CLIENT}-1"},
        {"X-B3-TraceId": TRACE, "X-B3-SpanId": CLIENT, "X-B3-Sampled": "1"},
        {"X-B3-TraceId": TRACE, "X-B3-SpanId": CLIENT, "X-B3-Flags": "1"},
        {"traceparent": "what is this", "b3": f"{TRACE}-{CLIENT}-d"},
    ],
    ids=["one header", "several", "debug", "beside W3C that cannot be read"],
)
async def test_clients_that_know_b3_alone_are_followed(tmp_path, headers):
    async with scene(tmp_path) as this:
        await this.call(**headers)
        spans = await this.collector.trace_of(TRACE, "fn.call")
        assert spans["fn.call"].parent == CLIENT
        assert "b3" not in this.seen[0]
        assert this.seen[0]["x-b3-spanid"] == spans["fn.call"].id


@pytest.mark.parametrize(
    "headers",
    [NOT_SAMPLED, {"b3": "0"}, {"X-B3-TraceId": TRACE, "X-B3-SpanId": CLIENT, "X-B3-Sampled": "0"}],
    ids=["W3C", "b3", "several"],
)
async def test_who_does_not_want_to_be_traced_is_not_and_functions_see_what_was_sent(tmp_path, headers):
    async with scene(tmp_path, share=1.0) as this:
        await this.call(**headers)
        await this.call(**SAMPLED)
        await this.collector.trace_of(TRACE, "fn.call")
        await this.detached(**headers)
        await asyncio.to_thread(
            time.sleep, 1.5
        )  # what was recorded all the same would be sent within a second
        roots = [span for span in this.collector.spans if span.name in ("fn.call", "fn.enqueue")]
        assert [span.trace for span in roots] == [TRACE]
        for name, value in headers.items():
            assert this.seen[0][name.lower()] == value


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
async def test_of_calls_without_a_trace_their_share_is_traced(tmp_path, share):
    calls = 300
    async with scene(tmp_path, share=share) as this:
        for _ in range(calls):
            await this.call()
        await this.call(**SAMPLED)
        await this.collector.trace_of(TRACE, "fn.call", "fn.finish")
        traced = {span.trace for span in this.collector.spans if span.name == "fn.call"} - {TRACE}
        told = [headers for headers in this.seen if "traceparent" in headers]
        assert len(told) == len(traced) + 1
        # Six standard deviations.
        assert abs(len(traced) - calls * share) <= 6 * (calls * share * (1 - share)) ** 0.5


async def test_a_call_that_fails_says_why_in_its_span(tmp_path):
    async with scene(tmp_path) as this:
        async with this.runner.post(f"/invoke/{this.fn.id}", data=b"fail", headers=SAMPLED) as answer:
            assert answer.status == 502
        spans = await this.collector.trace_of(TRACE, "fn.call", "fn.run")
        assert spans["fn.call"].failed
        assert spans["fn.call"].attributes["fn.reason"] == "function"
        assert spans["fn.run"].failed


async def test_a_request_of_a_traced_client_to_the_api_has_a_span(tmp_path):
    async with scene(tmp_path) as this:
        async with this.api.client.get(f"/v2/fns/{this.fn.id}", headers=SAMPLED) as answer:
            assert answer.status == 200
        spans = await this.collector.trace_of(TRACE, "GET /v2/fns/{fn_id}")
        assert spans["GET /v2/fns/{fn_id}"].parent == CLIENT


async def test_a_receiver_that_refuses_costs_no_call_and_one_line_a_minute(tmp_path, caplog):
    async with scene(tmp_path, share=1.0) as this:
        this.collector.status = 400
        for _ in range(5):
            await this.call()
            asked = len(this.collector.headers)
            await this.collector.until(lambda asked=asked: len(this.collector.headers) > asked)
    said = [record for record in caplog.records if "FN_OTLP_URL" in record.getMessage()]
    assert len(said) == 1
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]
    assert not tracing.on


async def test_a_receiver_that_never_answers_keeps_no_node_from_stopping(tmp_path):
    async with scene(tmp_path, share=1.0) as this:
        this.collector.held = True
        began = time.monotonic()
        for _ in range(50):
            await this.call()
        served = time.monotonic()
    assert served - began < 30
    assert time.monotonic() - served < 30 + 4 * otlp.LAST


async def test_the_headers_of_the_receiver_go_along(tmp_path):
    async with scene(tmp_path, headers=(("api-key", "abc"),)) as this:
        await this.call(**SAMPLED)
        await this.collector.trace_of(TRACE, "fn.call")
        assert this.collector.headers[0]["api-key"] == "abc"


async def test_metrics_arrive_with_the_names_and_values_of_the_metrics_page(tmp_path):
    async with scene(tmp_path, every=1) as this:
        this.fn = await this.api.fn("counted")
        for _ in range(3):
            await this.call()
        key = {"fn_appname": "app-of-counted", "fn_path": this.fn.name}

        def completed() -> list[Any]:
            metric = this.collector.metrics.get("fn_completed")
            points = metric.gauge.data_points if metric else []
            return [one.as_double for one in points if _labels(one) == key and one.as_double >= 3]

        assert await this.collector.until(completed) == [3.0]
        busy = this.collector.metrics["fn_container_busy_duration_seconds"]
        (point,) = [one for one in busy.histogram.data_points if _labels(one) == key]
        assert point.count == sum(point.bucket_counts) == 3
        assert len(point.bucket_counts) == len(point.explicit_bounds) + 1
        assert not point.HasField("min")
        total = this.collector.metrics["fn_container_busy_total"]
        assert total.sum.is_monotonic
        assert [one.as_double for one in total.sum.data_points if _labels(one) == key] == [3.0]


def _labels(point: Any) -> dict[str, str]:
    return {one.key: one.value.string_value for one in point.attributes}


async def test_a_line_about_a_call_that_is_traced_names_its_trace(tmp_path):
    stream = io.StringIO()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    async with scene(tmp_path) as this:
        logs.set_up(LogSettings(format="json"), stream)
        try:
            async with this.runner.post(f"/invoke/{this.fn.id}", data=b"fail", headers=SAMPLED) as answer:
                call_id = answer.headers["Fn-Call-Id"]
            await this.collector.trace_of(TRACE, "fn.call")
        finally:
            root.handlers[:], root.level = before
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    (said,) = [line for line in lines if line.get("call_id") == call_id]
    assert (said["trace_id"], said["reason"], said["fn_id"]) == (TRACE, "function", this.fn.id)


async def test_requests_have_a_line_each_when_they_are_to_have_one_on_both_ways(
    tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(telemetry, "log_requests", True)
    caplog.set_level(logging.INFO)
    async with scene(tmp_path) as this:
        ids = [(await this.call())["Fn-Call-Id"] for _ in range(3)]
        async with this.api.client.get("/v2/apps?name=secret") as answer:
            assert answer.status == 200
    said = [record for record in caplog.records if record.name == telemetry.log.name]
    calls = {vars(record)["call_id"]: record.getMessage() for record in said if "call_id" in vars(record)}
    assert list(calls) == ids
    assert all(text.startswith(f"POST /invoke/{this.fn.id} 200 ") for text in calls.values())
    assert any(record.getMessage().startswith("GET /v2/apps 200 ") for record in said)
    assert "secret" not in caplog.text


async def test_what_functions_write_goes_to_stdout_when_it_is_to(tmp_path, capsys):
    def talks(request):
        return Answer(body=b"done", log=b"hello\nyou\n")

    async with two_tiers(tmp_path, talks, log_calls=True) as (api, runner):
        fn = await api.fn()
        ids = []
        for _ in range(2):
            async with runner.post(f"/invoke/{fn.id}") as answer:
                ids.append(answer.headers["Fn-Call-Id"])
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["call_id"], one["line"]) for one in said] == [
        (call_id, line) for call_id in ids for line in ("hello", "you")
    ]
