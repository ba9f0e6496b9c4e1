"""How many clients are connected, and how many requests are in flight, when /metrics asks."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from shared_models.telemetry import REGISTRY

if TYPE_CHECKING:
    from shared_models.connections import Connections

servers: weakref.WeakSet[Connections] = weakref.WeakSet()
"""Of this process: one for each port."""


class _Connected(Collector):
    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        all_of_them = list(servers)
        yield GaugeMetricFamily(
            "fn_http_connections",
            "Connections of clients that are open",
            sum(len(one.open) for one in all_of_them),
        )
        yield GaugeMetricFamily(
            "fn_http_requests_in_flight",
            "Requests that are being answered, on the fast path or not, long polls among them",
            sum(len(one.requests) + len(one.flying) for one in all_of_them),
        )


REGISTRY.register(_Connected())
