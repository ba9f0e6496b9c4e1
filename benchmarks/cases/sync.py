"""Warm sync calls of a 0.3 ms function through a full node, each stored on SQLite."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from benchmarks.chart import line_chart
from benchmarks.measuring import Goal, Options, Row
from benchmarks.nodes import bare_proxy, node
from benchmarks.turns import in_turns

TITLE = "Warm sync calls, 0.3 ms function, full node, records stored"
_MANY = {"callers": lambda callers: callers >= 16}
GOALS = (
    Goal("throughput at least 60 % of the bare proxy", "of_bare", least=0.60, where=_MANY),
    Goal("p99 at most 3x the bare proxy's", "p99_of_bare", most=3.0, where=_MANY),
    Goal("overhead at p50 at most 0.25 ms", "over_p50_ms", most=0.25, where={"callers": 1}),
    Goal("at most 4 containers per core", "containers_per_core", most=4.0, where={"callers": 64}),
    Goal("no call fails", "errors", most=0),
)


def run(options: Options) -> list[Row]:
    """A row per number of callers, each with a function of its own, so that its containers are counted."""
    folder, rows = options.own_folder("sync"), []
    with node("full", folder) as full, bare_proxy(folder) as bare:
        for callers in options.callers or options.of((1, 4, 16, 64, 256), (1, 16)):
            name = f"quick{callers}"
            url = full.warm(full.deploy(name))
            row = in_turns(options, (bare, bare.url), (full, url), callers)
            started = full.started(name)
            row |= {"containers": started, "containers_per_core": started / (os.cpu_count() or 1)}
            rows.append({"callers": callers, **row})
    return rows


def charts(rows: Sequence[Row]) -> Mapping[str, str]:
    """Throughput and p99 by callers."""

    def line(figure: str) -> list[tuple[float, float]]:
        return [(row["callers"], row[figure]) for row in rows]

    return {
        "sync-throughput.svg": line_chart(
            "Warm sync calls, 0.3 ms function", "callers", "calls/s",
            {"node": line("per_second"), "bare proxy*": line("bare_per_second")},
        ),
        "sync-latency.svg": line_chart(
            "Warm sync calls, 0.3 ms function", "callers", "ms",
            {"node, p99": line("p99_ms"), "bare proxy, p99*": line("bare_p99_ms"),
             "node, p50": line("p50_ms"), "bare proxy, p50*": line("bare_p50_ms")},
        ),
    }  # fmt: skip
