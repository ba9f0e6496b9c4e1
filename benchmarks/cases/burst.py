"""64 callers at once of a function that takes 1 s and has no container yet."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.generator import Answer, at_once, request
from benchmarks.generator import run as run_loop
from benchmarks.measuring import Goal, Options, Row, percentile
from benchmarks.nodes import node

TITLE = "A burst from nothing: callers of a 1 s function, all at once"
GOALS = (
    Goal("a container for each caller, where there is room", "containers_per_caller", least=1.0),
    Goal("the first start waits half as long as the last at most", "first_of_last_wait", most=0.5),
    Goal("no call fails", "errors", most=0),
)


def run(options: Options) -> list[Row]:
    """A row per round, each with a function of its own. Waits: from the call to its start in the function."""
    folder = options.own_folder("burst")
    rows: list[Row] = []
    with node("full", folder) as full:
        for callers in options.of((64,) * 2, (4,)):
            name, file = f"second{len(rows)}", folder / f"arrivals{len(rows)}"
            config = {"SERVE_MS": "1000", "ARRIVALS": str(file)}
            url = full.deploy(name, config=config, timeout=60)
            wanted = [(url, request("POST", url, b"x"))] * callers
            answers: list[Answer] = run_loop(partial(at_once, wanted))
            waits = [(at - answers[0].due) / 1e6 for at in arrivals(file).values()]
            started = full.started(name)
            rows.append({
                "callers": callers, "containers": started, "containers_per_caller": started / callers,
                "first_wait_ms": min(waits), "p50_wait_ms": percentile(waits, 0.5),
                "last_wait_ms": max(waits), "first_of_last_wait": min(waits) / max(waits),
                "last_answer_ms": max(each.latency_ms for each in answers),
                "errors": sum(each.status != 200 for each in answers),
            })  # fmt: skip
    return rows


def arrivals(file: Path) -> dict[str, int]:
    """The starts that functions wrote, nanoseconds by call id; the first of each."""
    found: dict[str, int] = {}
    for line in file.read_text().splitlines():
        name, at = line.split()
        found.setdefault(name, int(at))
    return found
