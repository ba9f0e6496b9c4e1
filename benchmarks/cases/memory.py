"""Memory and CPU of nodes without calls, and what each warm container adds, to its node and beside it."""

from __future__ import annotations

import time

from benchmarks.measuring import Goal, Options, Row
from benchmarks.nodes import Node, node, split_nodes
from benchmarks.processes import children, cpu, memory_mb

TITLE = "Memory and CPU: idle nodes, and warm containers (process driver)"
GOALS: tuple[Goal, ...] = ()


def run(options: Options) -> list[Row]:
    """A row per kind of node. Megabytes; pages that processes share are divided among them."""
    count = options.of((50,), (5,))[0]
    with node("full", options.own_folder("memory")) as full:
        rows = [_with_functions("full", full, count, options)]
    with split_nodes(options.own_folder("memory")) as (api, runner):
        rows += [
            {"node": "api", "idle_mb": memory_mb(api.pid), "idle_cpu_percent": _cpu(api.pid, options)},
            _with_functions("runner", runner, count, options),
        ]
    return rows


def _with_functions(kind: str, runner: Node, count: int, options: Options) -> Row:
    idle, idle_cpu = memory_mb(runner.pid), _cpu(runner.pid, options)
    # The first function brings things into memory that the others share.
    runner.warm(runner.deploy("first"))
    with_one = memory_mb(runner.pid)
    for number in range(count):
        runner.warm(runner.deploy(f"fn{number}"))
    warm_cpu = _cpu(runner.pid, options)
    functions = [memory_mb(pid) for pid in children(runner.pid)]
    return {
        "node": kind, "idle_mb": idle, "idle_cpu_percent": idle_cpu, "first_call_mb": with_one,
        "warm_containers": len(functions),
        "warm_cpu_percent": warm_cpu,
        "node_kb_per_container": (memory_mb(runner.pid) - with_one) / count * 1024,
        "function_mb": sum(functions) / max(1, len(functions)),
    }  # fmt: skip


def _cpu(pid: int, options: Options) -> float:
    """Percent of one core that a process without calls uses."""
    seconds = options.seconds * options.rounds
    before = cpu(pid)
    time.sleep(seconds)
    return (cpu(pid) - before) / seconds * 100
