"""An OTLP/HTTP receiver that keeps what it is sent, and may be slow or refuse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

LIMIT = 60.0


class Span:
    """One span as it arrived; ids in hex, times in nanoseconds."""

    def __init__(self, told: Any, resource: dict[str, Any]) -> None:
        self.name: str = told.name
        self.trace: str = told.trace_id.hex()
        self.id: str = told.span_id.hex()
        self.parent: str = told.parent_span_id.hex()
        self.kind: int = told.kind
        self.failed: bool = told.status.code == 2
        self.message: str = told.status.message
        self.began: int = told.start_time_unix_nano
        self.ended: int = told.end_time_unix_nano
        self.attributes = _values(told.attributes)
        self.resource = resource


class Collector:
    """Its *status* is what it answers; while *held* is set it does not."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 200
        self.spans: list[Span] = []
        self.metrics: dict[str, Any] = {}
        """The last report of each, by name."""
        self.headers: list[dict[str, str]] = []
        self.held = False
        self._changed = asyncio.Event()

    async def until(self, found: Callable[[], Any]) -> Any:
        """What *found* gives once that is something."""
        async with asyncio.timeout(LIMIT):
            while not (value := found()):
                self._changed.clear()
                await self._changed.wait()
        return value

    async def trace_of(self, trace_id: str, *names: str) -> dict[str, Span]:
        """Spans of a trace by name, once all of *names* are there."""

        def spans() -> dict[str, Span] | None:
            by_name = {span.name: span for span in self.spans if span.trace == trace_id}
            return by_name if set(names) <= set(by_name) else None

        found: dict[str, Span] = await self.until(spans)
        return found

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        while self.held:
            await asyncio.sleep(0.05)
        self.headers.append(dict(request.headers))
        if self.status == 200:
            if request.path == "/v1/traces":
                self._spans(body)
            else:
                self._metrics(body)
        self._changed.set()
        return web.Response(status=self.status, content_type="application/x-protobuf")

    def _spans(self, body: bytes) -> None:
        for told in ExportTraceServiceRequest.FromString(body).resource_spans:
            resource = _values(told.resource.attributes)
            self.spans += [Span(span, resource) for scope in told.scope_spans for span in scope.spans]

    def _metrics(self, body: bytes) -> None:
        for told in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            self.metrics |= {metric.name: metric for scope in told.scope_metrics for metric in scope.metrics}


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@asynccontextmanager
async def running_collector() -> AsyncIterator[Collector]:
    """One on a port of its own."""
    collector = Collector()
    app = web.Application()
    app.add_routes([web.post(path, collector._take) for path in ("/v1/traces", "/v1/metrics")])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield collector
    finally:
        collector.held = False
        await runner.cleanup()
