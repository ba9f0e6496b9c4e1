"""Whether the node is ready, for /metrics: a scrape sees what a load balancer is told."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import Gauge

from shared_models.telemetry import REGISTRY

_ready = Gauge("fn_node_ready", "Whether /readyz answers 200: 1, else 0", registry=REGISTRY)


def watch(reason: Callable[[], str]) -> None:
    """*reason* gives why the node is not ready, or ""; it is asked at each scrape."""
    _ready.set_function(lambda: 0.0 if reason() else 1.0)
