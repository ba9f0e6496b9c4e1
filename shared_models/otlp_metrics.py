"""Prometheus' metrics as OTLP has them: the same names, values and labels, cumulative since the start."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import (
    Metric as OTLPMetric,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import Metric

_BEGAN = time.time_ns()
_SCOPE = InstrumentationScope("fn-hybrid")
_NOT_KNOWN: Any = None


def of(families: Iterable[Metric], resource: Resource) -> MetricsData:
    """What *families* say in this moment."""
    now = time.time_ns()
    metrics = [metric for family in families for metric in _metrics(family, now)]
    return MetricsData([ResourceMetrics(resource, [ScopeMetrics(_SCOPE, metrics, "")], "")])


def _metrics(family: Metric, now: int) -> Iterable[OTLPMetric]:
    if family.type == "histogram":
        points = _histograms(family, now)
        if points:
            data = Histogram(points, AggregationTemporality.CUMULATIVE)
            yield OTLPMetric(family.name, family.documentation, family.unit or "", data)
        return
    by_name: dict[str, list[NumberDataPoint]] = {}
    for sample in family.samples:
        if not sample.name.endswith("_created"):
            point = NumberDataPoint(dict(sample.labels), _BEGAN, now, float(sample.value))
            by_name.setdefault(sample.name, []).append(point)
    for name, numbers in by_name.items():
        counts = family.type == "counter"
        yield OTLPMetric(
            name, family.documentation, family.unit or "",
            Sum(numbers, AggregationTemporality.CUMULATIVE, is_monotonic=True) if counts else Gauge(numbers),
        )  # fmt: skip


def _histograms(family: Metric, now: int) -> list[HistogramDataPoint]:
    buckets: dict[tuple[tuple[str, str], ...], list[tuple[float, int]]] = {}
    sums: dict[tuple[tuple[str, str], ...], float] = {}
    for sample in family.samples:
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        key = tuple(sorted(labels.items()))
        if sample.name.endswith("_bucket"):
            buckets.setdefault(key, []).append((float(sample.labels["le"]), int(sample.value)))
        elif sample.name.endswith("_sum"):
            sums[key] = sample.value
    points = []
    for key, cumulative in buckets.items():
        cumulative.sort()
        counts = [count for _, count in cumulative]
        each = [count - before for count, before in zip(counts, [0, *counts], strict=False)]
        points.append(
            HistogramDataPoint(
                dict(key),
                _BEGAN,
                now,
                counts[-1],
                sums.get(key, 0.0),
                each,
                [bound for bound, _ in cumulative[:-1]],
                min=_NOT_KNOWN,
                max=_NOT_KNOWN,
            )
        )
    return points
