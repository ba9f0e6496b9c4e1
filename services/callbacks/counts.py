"""What an API node counts of callbacks."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from shared_models.telemetry import REGISTRY

delivered = Counter("fn_callbacks_delivered", "Callbacks that a receiver took", registry=REGISTRY)
failed_attempts = Counter(
    "fn_callbacks_failed_attempts", "Attempts to deliver a callback that failed", registry=REGISTRY
)
given_up = Counter("fn_callbacks_given_up", "Callbacks that are tried no more", registry=REGISTRY)
waiting = Gauge("fn_callbacks_waiting", "Callbacks in the outbox, as last counted", registry=REGISTRY)
