"""Memory of nodes that have nothing to do, and what each warm container adds to its node and beside it."""

from __future__ import annotations

from benchmarks.measuring import Goal, Options, Row
from benchmarks.nodes import Node, node, split_nodes
from benchmarks.processes import children, memory_mb

TITLE = "Memory: idle nodes, and warm containers (process driver)"
GOALS: tuple[Goal, ...] = ()


def run(options: Options) -> list[Row]:
    """A row per kind of node. Megabytes; pages that processes share are divided among them."""
    count = options.of((50,), (5,))[0]
    with node("full", options.own_folder("memory")) as full:
        rows = [_with_functions("full", full, count)]
    with split_nodes(options.own_folder("memory")) as (api, runner):
        rows += [{"node": "api", "idle_mb": memory_mb(api.pid)}, _with_functions("runner", runner, count)]
    return rows


def _with_functions(kind: str, runner: Node, count: int) -> Row:
    idle = memory_mb(runner.pid)
    # The first function brings things into memory that the others share.
    runner.warm(runner.deploy("first"))
    with_one = memory_mb(runner.pid)
    for number in range(count):
        runner.warm(runner.deploy(f"fn{number}"))
    functions = [memory_mb(pid) for pid in children(runner.pid)]
    return {
        "node": kind, "idle_mb": idle, "first_call_mb": with_one, "warm_containers": len(functions),
        "node_kb_per_container": (memory_mb(runner.pid) - with_one) / count * 1024,
        "function_mb": sum(functions) / max(1, len(functions)),
    }  # fmt: skip
