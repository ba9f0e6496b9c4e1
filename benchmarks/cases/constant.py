"""Latency at a constant rate (open loop): counted from when a call was due, whoever is late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.chart import line_chart
from benchmarks.generator import at_rate, request
from benchmarks.generator import run as run_loop
from benchmarks.measuring import Goal, Options, Row, percentile
from benchmarks.nodes import Node, bare_proxy, node
from benchmarks.wrk import load

TITLE = "Latency at a constant rate (open loop, coordinated omission avoided)"
GOALS = (
    Goal(
        "p99 at half load at most 3x the bare proxy's at the same rate", "p99_of_bare", most=3.0,
        where={"percent": 50},
    ),
    Goal("no call fails", "errors", most=0),
)  # fmt: skip
_CONNECTIONS = 128


def run(options: Options) -> list[Row]:
    """A row per rate, in percent of what the node does at 16 callers. The generator takes a core, too."""
    folder, rows = options.own_folder("constant"), []
    with node("full", folder) as full, bare_proxy(folder) as bare:
        url = full.warm(full.deploy("quick"))
        most = load(url, 16, options.seconds)["per_second"]
        for percent in options.of((10, 25, 50, 75), (25,)):
            rate = most * percent / 100
            theirs = _figures(bare, bare.url, rate, options)
            ours = _figures(full, url, rate, options)
            rows.append({
                "percent": percent, "per_second": rate,
                **{f"bare_{name}": value for name, value in theirs.items() if name != "errors"}, **ours,
                "p99_of_bare": ours["p99_ms"] / theirs["p99_ms"],
            })  # fmt: skip
    return rows


def charts(rows: Sequence[Row]) -> Mapping[str, str]:
    """Latency by rate."""
    lines = {
        f"{'bare proxy' if bare else 'node'}, {name}{'*' if bare else ''}": [
            (row["per_second"], row[f"{bare}{name}_ms"]) for row in rows
        ]
        for name in ("p99", "p50")
        for bare in ("", "bare_")
    }
    return {"constant-latency.svg": line_chart("Latency at a constant rate", "calls/s", "ms", lines)}


def _figures(measured: Node, url: str, rate: float, options: Options) -> dict[str, float]:
    wanted = request("POST", url, b"x", Content_Type="text/plain")
    seconds = options.seconds * options.rounds
    answers = run_loop(lambda: at_rate(url, wanted, rate, seconds, _CONNECTIONS))
    latencies = [each.latency_ms for each in answers]
    return {
        "p50_ms": percentile(latencies, 0.5),
        "p99_ms": percentile(latencies, 0.99),
        "p999_ms": percentile(latencies, 0.999),
        "errors": sum(each.status != 200 for each in answers),
    }
