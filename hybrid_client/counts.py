"""What a runner node counts of its requests to API nodes."""

from __future__ import annotations

from prometheus_client import Counter, Histogram

from shared_models.telemetry import REGISTRY

requests = Counter(
    "fn_client_requests",
    "Requests to API nodes, repetitions included: answered, or failed (no answer, or a status from 500)",
    ("outcome",),
    registry=REGISTRY,
)
answered, failed = requests.labels("answered"), requests.labels("failed")
repeated = Counter("fn_client_repetitions", "Requests to API nodes that were tried again", registry=REGISTRY)
seconds = Histogram(
    "fn_client_request_duration_seconds",
    "Time from a request to an API node until its answer was read, long polls left out",
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
    registry=REGISTRY,
)
