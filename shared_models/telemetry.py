"""What a node tells of itself: metrics in Prometheus' text form, and the trace that goes to other nodes.

Every node's metrics live in one ``REGISTRY``. Names, types and labels of those that Fn has are Fn's
(0.3.753), so that existing dashboards keep working.
"""

from __future__ import annotations

import bisect
import itertools
import logging
import re
from collections.abc import Iterable

import prometheus_client
from prometheus_client import CollectorRegistry, Metric, ProcessCollector
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from shared_models import tracing

prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry()
process = ProcessCollector(namespace="fn", registry=REGISTRY)
BARE = frozenset({b"fn_api_request_count_total", b"fn_api_response_count_total"})
"""Counters that Fn has without the suffix, which the client library insists on."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LATENCY_MSECS = (
    1,
    2,
    3,
    5,
    8,
    13,
    20,
    30,
    50,
    80,
    130,
    200,
    300,
    500,
    800,
    1300,
    2000,
    5000,
    10000,
    30000,
    100000,
)
MAX_FDK_VERSIONS = 50

log = logging.getLogger(__name__)
log_requests = False
"""Whether each answered request has a line in the node's log."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_FDK_VERSION = re.compile(r"[A-Za-z0-9._/+-]{1,40}")
_RESPONSE_LABELS = ("blame", "fn_fdk_version", "method", "path", "status")

_fdk_versions: set[str] = set()


class _Answers:
    """Answers of one kind, as plain numbers: they are counted on the way of every request."""

    __slots__ = ("buckets", "labels", "total")

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.labels = labels
        self.buckets = [0] * (len(LATENCY_MSECS) + 1)
        self.total = 0.0


class _Requests(Collector):
    """Requests and answers as Prometheus has them, made when somebody asks."""

    def __init__(self) -> None:
        self._by_key: dict[tuple[str, str, int, str, str], _Answers] = {}
        self._kinds: dict[tuple[str, ...], _Answers] = {}

    def of(self, method: str, path: str, status: int, blame: str, fdk_version: str) -> _Answers:
        """Where an answer is counted."""
        key = (method, path, status, blame, fdk_version)
        found = self._by_key.get(key)
        if found is None:
            method = method if method in _METHODS else "other"
            version = _bounded_fdk_version(fdk_version)
            labels = (blame, version, method, path, str(status))
            found = self._kinds.setdefault(labels, _Answers(labels))
            if (method, version) == (key[0], fdk_version):
                self._by_key[key] = found  # what anybody can make up is not kept
        return found

    def collect(self) -> Iterable[Metric]:
        """See prometheus_client."""
        requests = CounterMetricFamily("fn_api_request_count", "Requests received", labels=("method", "path"))
        responses = CounterMetricFamily("fn_api_response_count", "Responses sent", labels=_RESPONSE_LABELS)
        latency = HistogramMetricFamily(
            "fn_api_latency", "Latency of requests in milliseconds", labels=_RESPONSE_LABELS
        )
        received: dict[tuple[str, str], int] = {}
        for kind in self._kinds.values():
            counts = list(itertools.accumulate(kind.buckets))
            bounds = [*(str(float(bound)) for bound in LATENCY_MSECS), "+Inf"]
            responses.add_metric(kind.labels, counts[-1])
            latency.add_metric(kind.labels, list(zip(bounds, counts, strict=True)), kind.total)
            asked = kind.labels[2], kind.labels[3]
            received[asked] = received.get(asked, 0) + counts[-1]
        for asked, count in received.items():
            requests.add_metric(asked, count)
        return requests, responses, latency


_requests = _Requests()
REGISTRY.register(_requests)


def observe_request(
    method: str, path: str, status: int, blame: str, fdk_version: str, seconds: float
) -> None:
    """Counts one answered request.

    *path* is the pattern of the route, never the path itself: the number of series stays bounded.
    *blame* is ``""``, ``"user"`` or ``"service"``.
    """
    answers = _requests.of(method, path, status, blame, fdk_version)
    millis = seconds * 1000
    answers.buckets[bisect.bisect_left(LATENCY_MSECS, millis)] += 1
    answers.total += millis


def log_request(method: str, path: str, status: int, seconds: float, call_id: str) -> None:
    """One line for an answered request; *path* is without its query, which may hold secrets."""
    extra = {"call_id": call_id} if call_id else None
    log.info("%s %s %d %.1f ms", method, path, status, seconds * 1000, extra=extra)


def _bounded_fdk_version(version: str) -> str:
    # The version is a header that a function writes, so its author must not be able to make series at will.
    if not version or version in _fdk_versions:
        return version
    if len(_fdk_versions) < MAX_FDK_VERSIONS and _FDK_VERSION.fullmatch(version):
        _fdk_versions.add(version)
        return version
    return "other"


def exposition() -> bytes:
    """All metrics of this process in Prometheus' text format 0.0.4."""
    text = prometheus_client.generate_latest(REGISTRY)
    for name in BARE:
        text = text.replace(name, name.removesuffix(b"_total"))
    return text


def trace_headers() -> dict[str, str]:
    """Headers that carry the current trace to another node (W3C and B3); empty when there is none."""
    span = tracing.current()
    return tracing.headers_of(span) if span else {}
