"""Detached calls one at a time to nodes that have nothing else to do: from the 202 to the handler's start."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.generator import Answer, by_callers, call_id, request
from benchmarks.generator import run as run_loop
from benchmarks.measuring import Goal, Options, Row, percentile
from benchmarks.nodes import Node, node, split_nodes
from benchmarks.processes import until

TITLE = "An idle runner: detached calls one at a time"
GOALS = (
    Goal("started within 10 ms of its 202 at p95", "start_p95_ms", most=10.0),
    Goal("none is missing", "missing", most=0),
)
_PAUSE = 0.03
"""Seconds between an answer and the next call: what came before has ended by then."""


def run(options: Options) -> list[Row]:
    """A row for a full node, and one for split nodes: an API node takes the calls, a runner runs them."""
    rows, seconds = [], options.seconds * options.rounds
    folder = options.own_folder("idle")
    with node("full", folder) as full:
        rows.append({"nodes": "full", **_measured(full, folder / "arrivals", seconds)})
    folder = options.own_folder("idle")
    with split_nodes(folder) as (_, runner):
        rows.append({"nodes": "split", **_measured(runner, folder / "arrivals", seconds)})
    return rows


def _measured(runner: Node, file: Path, seconds: float) -> Row:
    url = runner.warm(runner.deploy("idle", config={"ARRIVALS": str(file)}))
    # Before the first of them the dequeuer has slept.
    time.sleep(0.5)
    wanted = request("POST", url, b"x", Content_Type="text/plain", Fn_Invoke_Type="detached")
    answers: list[Answer] = run_loop(lambda: by_callers(url, wanted, 1, seconds, _PAUSE))
    accepted = {call_id(each): each for each in answers if each.status == 202}

    def starts() -> dict[str, int]:
        return {name: int(at) for name, at in (line.split() for line in file.read_text().splitlines())}

    until(lambda: starts().keys() >= accepted.keys(), "all calls run")
    # A call may start before its caller has read the answer.
    waits = [max(0.0, (starts()[one] - each.done) / 1e6) for one, each in accepted.items()]
    arrival = [(starts()[one] - each.due) / 1e6 for one, each in accepted.items()]
    return {
        "calls": len(accepted), "accept_p50_ms": percentile([each.latency_ms for each in answers], 0.5),
        "start_p50_ms": percentile(waits, 0.5), "start_p95_ms": percentile(waits, 0.95),
        "arrive_p95_ms": percentile(arrival, 0.95), "missing": len(accepted.keys() - starts().keys()),
    }  # fmt: skip
