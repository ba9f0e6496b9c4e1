"""Cold starts in real containers beside the engine's own create + start of the same container.

The engine starts it in the network of a container that runs (a ready network namespace), with the same limits
and mounts, asked through the same library. *answer*: until the function has answered a call, which takes
Python some time in both cases.
"""

from __future__ import annotations

import time
from functools import partial

from benchmarks.engine import docker_node, own_engine
from benchmarks.generator import Answer, at_once, request
from benchmarks.generator import run as run_loop
from benchmarks.measuring import Goal, Options, Row, medians
from benchmarks.nodes import Node, node
from tests.engine.images import QUICK

TITLE = "Cold starts, docker driver, beside the engine's own"
GOALS = (
    Goal(
        "one: at most 1.15x the engine's own, until it answers", "of_engine", most=1.15,
        where={"functions": 1},
    ),
    Goal("twenty at once: no worse than the engine's own", "of_engine", most=1.0, where={"functions": 20}),
    Goal("no call fails", "errors", most=0),
)  # fmt: skip


def run(options: Options) -> list[Row]:
    """A row for one function, and one for twenty at once."""
    folder, rows = options.own_folder("cold"), []
    with own_engine() as engine:
        environ = docker_node(engine, "bench-cold")
        with node("full", folder, **environ) as full:
            # The first start of all reads the disk, on both sides.
            engine.begin(1)
            _cold(full, "first", 1)
            for count in options.of((1, 20), (1, 2)):
                found = []
                for turn in range(options.rounds * (1 if count > 1 else 3)):
                    own = engine.begin(count)
                    engine.clear()
                    ours = _cold(full, f"cold{count}-{turn}", count)
                    engine.clear("fn.hybrid.node=bench-cold")
                    found.append({
                        "engine_start_ms": own.started_ms, "engine_answer_ms": own.answered_ms, **ours,
                        "of_engine": ours["cold_ms"] / own.answered_ms,
                        "of_engine_start": ours["cold_ms"] / own.started_ms,
                    })  # fmt: skip
                rows.append({"functions": count, **medians(found)})
    return rows


def _cold(full: Node, name: str, count: int) -> dict[str, float]:
    """The first calls of *count* new functions, at once; how long the last took, and how many failed."""
    urls = [full.deploy(f"{name}-{number}", QUICK) for number in range(count)]
    # Images of new functions are looked for ahead of their first call, and this is none of it.
    time.sleep(0.3)
    answers: list[Answer] = run_loop(partial(at_once, [(url, request("POST", url, b"x")) for url in urls]))
    return {
        "cold_ms": max(each.latency_ms for each in answers),
        "errors": sum(each.status != 200 for each in answers),
    }
