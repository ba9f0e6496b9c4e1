"""Traces and metrics to an OTLP/HTTP receiver: imported and opened only where ``FN_OTLP_URL`` is set.

A receiver that is away, slow or refuses costs the node nothing but what it would have been told: at most
``MOST_SPANS`` spans wait, the rest is dropped, and one line a minute says so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider, sampling
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from prometheus_client import Counter

from shared_models import otlp_metrics, tracing
from shared_models.background import beside
from shared_models.otlp_settings import OTLPSettings
from shared_models.telemetry import REGISTRY

log = logging.getLogger(__name__)

MOST_SPANS = 4096
TIMEOUT = 10.0
"""Seconds that one report may take, repetitions included."""
LAST = 3.0
"""Seconds that a node which stops waits for its last report."""
TELL_EVERY = 60.0
_SPANS_EVERY = 1.0

failed = Counter(
    "fn_otlp_failed",
    "Reports that the receiver of FN_OTLP_URL did not take, and that are lost",
    ("signal",),
    registry=REGISTRY,
)


class _Complaint:
    """One line a minute at most, however many reports fail."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._told = -TELL_EVERY

    def failed(self, signal: str) -> None:
        failed.labels(signal).inc()
        if time.monotonic() - self._told >= TELL_EVERY:
            self._told = time.monotonic()
            log.warning(
                "%s are lost: the receiver at %s did not take them within %g s (FN_OTLP_URL)",
                signal, self._url, TIMEOUT,
            )  # fmt: skip


class _Spans(SpanExporter):
    def __init__(self, exporter: OTLPSpanExporter, complaint: _Complaint) -> None:
        self._exporter = exporter
        self._complaint = complaint

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is not SpanExportResult.SUCCESS:
            self._complaint.failed("traces")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


@asynccontextmanager
async def open_otlp(settings: OTLPSettings, about: dict[str, str]) -> AsyncIterator[None]:
    """Reports until the end of the block, and once more then; *about* describes the node, in OTel's words."""
    # Its own lines are one for each repetition; ``_Complaint`` says the same once a minute.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    resource, complaint = Resource(about), _Complaint(settings.url)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(_tracing(settings, resource, complaint))
        if settings.metrics:
            await stack.enter_async_context(_metrics(settings, resource, complaint))
        yield


@asynccontextmanager
async def _tracing(settings: OTLPSettings, resource: Resource, complaint: _Complaint) -> AsyncIterator[None]:
    exporter = OTLPSpanExporter(f"{settings.url}/v1/traces", headers=dict(settings.headers), timeout=TIMEOUT)
    # Who is traced is decided before a span is begun, so that the others cost nothing.
    provider = TracerProvider(
        sampling.ALWAYS_ON, resource, shutdown_on_exit=False, span_limits=SpanLimits(max_attributes=32)
    )
    processor = BatchSpanProcessor(
        _Spans(exporter, complaint), MOST_SPANS, _SPANS_EVERY * 1000, MOST_SPANS // 8, TIMEOUT * 1000
    )
    provider.add_span_processor(processor)
    tracing.record(provider.get_tracer("fn-hybrid"), settings.share)
    try:
        yield
    finally:
        tracing.record(None)
        await _within(LAST, provider.force_flush, int(LAST * 1000))
        exporter.shutdown()  # type: ignore[no-untyped-call]  # it tries no longer
        await _within(LAST, provider.shutdown)


@asynccontextmanager
async def _metrics(settings: OTLPSettings, resource: Resource, complaint: _Complaint) -> AsyncIterator[None]:
    exporter = OTLPMetricExporter(
        f"{settings.url}/v1/metrics", headers=dict(settings.headers), timeout=TIMEOUT
    )

    def report() -> asyncio.Future[MetricExportResult]:
        # They are read on the loop, where they are counted, and sent beside it.
        data = otlp_metrics.of(REGISTRY.collect(), resource)
        return asyncio.get_running_loop().run_in_executor(None, exporter.export, data)

    async def for_ever() -> None:
        while True:
            await asyncio.sleep(settings.every)
            if await report() is not MetricExportResult.SUCCESS:
                complaint.failed("metrics")

    try:
        async with beside(for_ever(), "metrics to OTLP"):
            yield
    finally:
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST):
                await report()
        exporter.shutdown()


async def _within(seconds: float, work: object, *arguments: object) -> None:
    assert callable(work)
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.get_running_loop().run_in_executor(None, work, *arguments)
