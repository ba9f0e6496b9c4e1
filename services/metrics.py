"""What an API node counts of queued calls. Names and labels: docs/guarantees.md."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from shared_models.telemetry import REGISTRY

accepted = Counter("fn_async_accepted", "Queued calls answered with 202", registry=REGISTRY)
ended = Counter(
    "fn_async_ended", "Queued calls that this node ended", ("status", "reason"), registry=REGISTRY
)
retried = Counter(
    "fn_async_retried", "Queued calls sent back for another attempt", ("reason",), registry=REGISTRY
)
fenced = Counter(
    "fn_async_fenced",
    "Starts, renewals and results refused because another lease holds the call or it has ended",
    ("verb",),
    registry=REGISTRY,
)
dead = Counter("fn_async_dead", "Queued calls that became dead letters", ("reason",), registry=REGISTRY)
calls = Gauge(
    "fn_async_calls",
    "Calls in the queue, and dead letters, as last counted by the node that cleans up",
    ("state",),
    registry=REGISTRY,
)
oldest = Gauge("fn_async_oldest_seconds", "Age of the oldest call that waits in the queue", registry=REGISTRY)
drift = Gauge(
    "fn_async_drift",
    "Accepted calls that are neither queued, leased, done nor dead, as last counted",
    registry=REGISTRY,
)

store_seconds = Histogram(
    "fn_store_duration_seconds",
    "Time that a verb of a store took, its failures included; waiting for queued calls is left out",
    ("store", "verb"),
    buckets=(0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
    registry=REGISTRY,
)


def forget_counts() -> None:
    """This node does not count what is where any more."""
    calls.clear()
    oldest.set(0)
    drift.set(0)
