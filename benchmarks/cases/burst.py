"""64 callers begin at once with a function that takes 1 s and has no container yet, and go on calling it."""

from __future__ import annotations

from functools import partial

from benchmarks.generator import Answer, by_callers, request
from benchmarks.generator import run as run_loop
from benchmarks.measuring import Goal, Options, Row, percentile
from benchmarks.nodes import node

TITLE = "A burst from nothing: callers of a 1 s function, who begin at once and go on"
GOALS = (
    Goal("a container for each caller, where there is room", "containers_per_caller", least=1.0),
    Goal("the first call waits half as long as the last at most", "first_of_last_wait", most=0.5),
    Goal("no call fails", "errors", most=0),
)
_TAKES = 1000.0
"""Milliseconds."""


def run(options: Options) -> list[Row]:
    """A row per round, each with a function of its own. Waits: those of the callers' first calls."""
    folder = options.own_folder("burst")
    rows: list[Row] = []
    with node("full", folder) as full:
        for callers in options.of((64,) * 2, (4,)):
            name = f"second{len(rows)}"
            url = full.deploy(name, config={"SERVE_MS": f"{_TAKES:.0f}"}, timeout=60)
            seconds = options.of((5 * options.seconds,), (2,))[0]
            work = partial(by_callers, url, request("POST", url, b"x"), callers, seconds)
            answers: list[Answer] = run_loop(work)
            first = sorted(answers, key=lambda each: each.due)[:callers]
            waits = [each.latency_ms - _TAKES for each in first]
            started = full.started(name)
            rows.append({
                "callers": callers, "containers": started, "containers_per_caller": started / callers,
                "first_wait_ms": min(waits), "p50_wait_ms": percentile(waits, 0.5),
                "last_wait_ms": max(waits), "first_of_last_wait": min(waits) / max(waits),
                "per_second": len(answers) / seconds, "errors": sum(each.status != 200 for each in answers),
            })  # fmt: skip
    return rows
