"""Warm sync calls of the quick function in real containers; the bare proxy's are plain processes."""

from __future__ import annotations

from benchmarks.engine import docker_node, own_engine
from benchmarks.measuring import Goal, Options, Row
from benchmarks.nodes import bare_proxy, node
from benchmarks.turns import in_turns
from tests.engine.images import QUICK

TITLE = "Warm sync calls in real containers (docker driver)"
GOALS = (
    Goal("throughput at least 60 % of the bare proxy", "of_bare", least=0.60),
    Goal("p99 at most 3x the bare proxy's", "p99_of_bare", most=3.0),
    Goal("no call fails", "errors", most=0),
)


def run(options: Options) -> list[Row]:
    """A row per number of callers."""
    folder, rows = options.own_folder("docker"), []
    with own_engine() as engine, bare_proxy(folder) as bare:
        environ = docker_node(engine, "bench-warm")
        with node("full", folder, **environ) as full:
            for callers in options.callers or options.of((64,), (16,)):
                name = f"warm{callers}"
                url = full.warm(full.deploy(name, QUICK))
                row = in_turns(options, (bare, bare.url), (full, url), callers)
                rows.append(
                    {
                        "callers": callers,
                        **row,
                        "containers": full.started(name),
                        **engine.memory("fn.hybrid.node=bench-warm"),
                    }
                )
    return rows
