"""Every metric of every node type, from the code that counts: ``fn-node metrics``, and docs/metrics.md."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client import Metric
from prometheus_client.registry import Collector

from shared_models import telemetry

_NODES = {
    "shared_models": "all", "services": "full, api", "api_node": "full, api", "runner_node": "full, runner",
    "hybrid_client": "runner",
}  # fmt: skip
"""Which nodes have what is counted in a room; one that several rooms know is the first one's."""
_UNITS = {"_seconds": "s", "_bytes": "bytes", "_mcpus": "mCPU", "_latency": "ms"}
_HEAD = """\
# Metrics

What a node counts, at `/metrics` of its port, or of `FN_ADMIN_PORT` where that is set, and sent to
`FN_OTLP_URL` ([telemetry.md](telemetry.md)). This page is made from the code
(`fn-node metrics --markdown`). Names and labels of Fn's own metrics are Fn's. A node of several workers has
the label `worker` on each sample.

Histograms have `_bucket`, `_count` and `_sum`. The number of series is bounded: functions beyond the first
thousand of a process share one, paths are the patterns of routes, and what clients can make up is `other`.

| metric | type | labels | unit | nodes | meaning |
|---|---|---|---|---|---|
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One metric as /metrics names it."""

    name: str
    type: str
    labels: tuple[str, ...]
    nodes: str
    meaning: str

    @property
    def unit(self) -> str:
        """Of its value; "" for plain numbers."""
        plain = self.name.removesuffix("_total")
        return next((unit for end, unit in _UNITS.items() if plain.endswith(end)), "")


def rows() -> list[Row]:
    """All of them by name; imports every room."""
    found = {row.name: row for room in reversed(_NODES) for row in _rows_of(room)}
    return sorted(found.values(), key=lambda row: row.name)


def markdown() -> str:
    """docs/metrics.md."""
    lines = [
        f"| `{row.name}` | {row.type} | {', '.join(row.labels)} | {row.unit} | {row.nodes} | {row.meaning} |"
        for row in rows()
    ]
    return _HEAD + "\n".join(lines) + "\n"


def table() -> str:
    """The same for a terminal."""
    return "\n".join(f"{row.name:<42} {row.type:<10} {row.nodes:<13} {row.meaning}" for row in rows())


def _rows_of(room: str) -> Iterator[Row]:
    for collector in _collectors(room):
        for family in collector.collect():
            name = family.name
            if family.type == "counter" and f"{name}_total".encode() not in telemetry.BARE:
                name += "_total"
            type_ = "untyped" if family.type == "unknown" else family.type
            yield Row(name, type_, _labels(collector, family), _NODES[room], family.documentation)


def _collectors(room: str) -> list[Collector]:
    package = importlib.import_module(room)
    for module in pkgutil.walk_packages(package.__path__, f"{room}."):
        if ".migrations" not in module.name:  # what Alembic runs is no module for others
            importlib.import_module(module.name)
    values = {
        id(value)
        for name, module in sys.modules.items()
        if name.split(".")[0] == room
        for value in vars(module).values()
    }
    # Either a name of one of the room's modules, or of a kind of the room's own.
    return [
        one
        for one in telemetry.REGISTRY._collector_to_names
        if id(one) in values or type(one).__module__.split(".")[0] == room
    ]


def _labels(collector: Collector, family: Metric) -> tuple[str, ...]:
    # Families that are made when somebody asks know their own; the others are known to what makes them.
    return tuple(getattr(family, "_labelnames", ()) or getattr(collector, "_labelnames", ()))
