"""Warm sync calls of a 10 ms function, and of ten quick functions in turn, through a full node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.chart import line_chart
from benchmarks.measuring import Goal, Options, Row
from benchmarks.nodes import bare_proxy, node
from benchmarks.turns import in_turns

TITLE = "Warm sync calls: a 10 ms function, and ten 0.3 ms functions in turn"
GOALS = (
    Goal(
        "throughput at least 60 % of the bare proxy", "of_bare", least=0.60,
        where={"callers": lambda callers: callers >= 16},
    ),
    Goal(
        "p99 at most 3x the bare proxy's", "p99_of_bare", most=3.0,
        where={"callers": lambda callers: callers >= 16},
    ),
    Goal("overhead at p50 at most 0.25 ms", "over_p50_ms", most=0.25, where={"callers": 1}),
    Goal("no call fails", "errors", most=0),
)  # fmt: skip


_FUNCTIONS = 64
"""Processes behind the bare proxy, so that it never waits for one where ours does not."""


def run(options: Options) -> list[Row]:
    """A row per function and number of callers."""
    folder, rows = options.own_folder("slower"), []
    many = options.callers or options.of((1, 4, 16, 64, 256), (4,))
    with node("full", folder) as full:
        config = {"SERVE_MS": "10"}
        with bare_proxy(folder, options.of((_FUNCTIONS,), (4,))[0], config) as bare:
            url = full.warm(full.deploy("ten", config=config))
            for callers in many:
                before = full.started("ten")
                row = in_turns(options, (bare, bare.url), (full, url), callers)
                rows.append(
                    {
                        "function": "10 ms",
                        "callers": callers,
                        **row,
                        "containers": full.started("ten") - before,
                    }
                )
        names = [f"mix{number}" for number in range(10)]
        with bare_proxy(folder) as bare:
            urls = [full.warm(full.deploy(name)) for name in names]
            for callers in options.callers or options.of((16, 64), (16,)):
                before = sum(map(full.started, names))
                row = in_turns(options, (bare, bare.url), (full, urls), callers)
                started = sum(map(full.started, names)) - before
                rows.append({"function": "ten of 0.3 ms", "callers": callers, **row, "containers": started})
    return rows


def charts(rows: Sequence[Row]) -> Mapping[str, str]:
    """Throughput by callers."""

    def line(figure: str) -> list[tuple[float, float]]:
        return [(row["callers"], row[figure]) for row in rows if row["function"] == "10 ms"]

    lines = {"node": line("per_second"), "bare proxy*": line("bare_per_second")}
    return {
        "slower-throughput.svg": line_chart("Warm sync calls, 10 ms function", "callers", "calls/s", lines)
    }
