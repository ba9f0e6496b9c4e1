"""Ours and the bare proxy under the same load, in turns: medians, and what one is of the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.measuring import Options, Row, medians
from benchmarks.nodes import Node
from benchmarks.processes import cpu, memory_mb
from benchmarks.wrk import load

Side = tuple[Node, str | Sequence[str]]
"""Whose CPU is counted, and what is called."""


def in_turns(options: Options, bare: Side, ours: Side, callers: int, *,
    ours_more: Mapping[str, Any] | None = None, **more: Any,
) -> Row:  # fmt: skip
    """One row. *more*: wrk's, such as ``body``; *ours_more*: what is so on our side only.

    Before the rounds, each side is under load once without being measured.
    """
    rounds: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
    if not options.quick:
        # Until there are as many containers as there will be.
        for (_, urls), own in zip((bare, ours), ({}, ours_more or {}), strict=True):
            load(urls, callers, options.seconds, **{**more, **own})
    for _ in range(options.rounds):
        for (measured, urls), found, own in zip((bare, ours), rounds, ({}, ours_more or {}), strict=True):
            before = cpu(measured.pid)
            one = load(urls, callers, options.seconds, **{**more, **own})
            one["cpu_us"] = (cpu(measured.pid) - before) / max(1, one["calls"]) * 1e6
            found.append(one)
    return compared(medians(rounds[0]), medians(rounds[1]), ours[0])


def compared(bare: dict[str, float], ours: dict[str, float], node: Node) -> Row:
    """The figures of both sides, and their ratios."""
    return {
        "bare_per_second": bare["per_second"],
        "per_second": ours["per_second"],
        "of_bare": ours["per_second"] / bare["per_second"],
        "bare_p50_ms": bare["p50_ms"],
        "p50_ms": ours["p50_ms"],
        "over_p50_ms": ours["p50_ms"] - bare["p50_ms"],
        "bare_p99_ms": bare["p99_ms"],
        "p99_ms": ours["p99_ms"],
        "p99_of_bare": ours["p99_ms"] / bare["p99_ms"],
        "bare_cpu_us": bare["cpu_us"],
        "cpu_us": ours["cpu_us"],
        "cpu_of_bare": ours["cpu_us"] / max(0.01, bare["cpu_us"]),
        "memory_mb": memory_mb(node.pid),
        "errors": ours["errors"],
    }
