"""The same warm calls through a full node, and through a runner node with an API node behind it."""

from __future__ import annotations

from benchmarks.measuring import Goal, Options, Row, medians
from benchmarks.nodes import bare_proxy, node, split_nodes
from benchmarks.processes import cpu, memory_mb
from benchmarks.wrk import load

TITLE = "Split nodes (API node and runner node) beside a full node"
GOALS = (
    Goal("split nodes do at least 85 % of the full node", "of_full", least=0.85),
    Goal("no call fails", "errors", most=0),
)


def run(options: Options) -> list[Row]:
    """A row per number of callers; the three take turns."""
    rows = []
    with (
        node("full", options.own_folder("full")) as full,
        split_nodes(options.own_folder("split")) as (api, runner),
        bare_proxy(options.own_folder("bare")) as bare,
    ):
        urls = {
            "bare": (bare, bare.url),
            "full": (full, full.warm(full.deploy("quick"))),
            "split": (runner, runner.warm(runner.deploy("quick"))),
        }
        for callers in options.callers or options.of((1, 16, 64), (16,)):
            found: dict[str, list[dict[str, float]]] = {name: [] for name in urls}
            api_us = []
            for _ in range(options.rounds):
                for name, (measured, url) in urls.items():
                    before, api_before = cpu(measured.pid), cpu(api.pid)
                    one = load(url, callers, options.seconds)
                    one["cpu_us"] = (cpu(measured.pid) - before) / one["calls"] * 1e6
                    found[name].append(one)
                    if name == "split":
                        api_us.append((cpu(api.pid) - api_before) / one["calls"] * 1e6)
            rows.append(_row(callers, {name: medians(rounds) for name, rounds in found.items()}))
            rows[-1] |= {"api_cpu_us": sorted(api_us)[len(api_us) // 2]}
            rows[-1] |= {"runner_mb": memory_mb(runner.pid), "api_mb": memory_mb(api.pid)}
    return rows


def _row(callers: int, found: dict[str, dict[str, float]]) -> Row:
    bare, full, split = found["bare"], found["full"], found["split"]
    return {
        "callers": callers,
        "bare_per_second": bare["per_second"],
        "full_per_second": full["per_second"],
        "per_second": split["per_second"],
        "of_bare": split["per_second"] / bare["per_second"],
        "of_full": split["per_second"] / full["per_second"],
        "full_p50_ms": full["p50_ms"],
        "p50_ms": split["p50_ms"],
        "full_p99_ms": full["p99_ms"],
        "p99_ms": split["p99_ms"],
        "full_cpu_us": full["cpu_us"],
        "runner_cpu_us": split["cpu_us"],
        "errors": split["errors"],
    }
