"""What the sweep of ``simulate.py`` shows: tables, a chart, and the page around them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.chart import line_chart

PAGE = Path(__file__).with_name("simulation_page.md")
Row = dict[str, Any]
POLICIES = {"oracle": "oracle", "ours": "ours", "before": "prediction alone", "fn": "Fn"}
TRAFFICS = ("64 callers", "8 callers", "some", "many", "bursts of 32")
LITTLE = 0.1
"""Of a start: waits that are shorter count as that, so that ratios are not about nothing."""


def summary(rows: Sequence[Row]) -> str:
    """Ratios of each policy to the oracle, by who calls."""
    head = f"{'':34}" + "".join(f"{name:>34}" for name in list(POLICIES.values())[1:])
    lines = [head, f"{'times the oracle':34}" + f"{'mean   p99  containers':>34}" * 3]
    for name, chosen in _groups(rows):
        cells = [_ratios(chosen, policy) for policy in list(POLICIES)[1:]]
        lines.append(
            f"{name:34}" + "".join(f"{mean:18.1f}{p99:6.1f}{held:10.2f}" for mean, p99, held in cells)
        )
    return "\n".join(lines)


def chart(rows: Sequence[Row]) -> str:
    """Containers that 64 callers have started, by how long calls take."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for function in ("computes", "waits"):
        for policy, mark in (("ours", ""), ("fn", "*")):
            lines[f"{function}: {POLICIES[policy]}{mark}"] = _started(rows, function, policy)
    for function, mark in (("computes", ""), ("waits", "*")):
        lines[f"{function}: oracle{mark}"] = _started(rows, function, "oracle")
    cores = min(found["cores"] for found in rows)
    return line_chart(
        f"64 callers, starts of 150 ms, {cores} cores",
        "microseconds that a call takes",
        "containers started",
        lines,
    )


def report(rows: Sequence[Row]) -> str:
    """The page."""
    cores = min(found["cores"] for found in rows)
    return PAGE.read_text().format(
        cases=len(rows),
        below=f"in {sum(row['ours']['mean'] < row['oracle']['mean'] for row in rows)}",
        ratios=_ratio_table(rows),
        callers=_callers_table(rows, cores, 0.15),
        worst=_worst_table(rows),
    )


def _groups(rows: Sequence[Row]) -> Iterable[tuple[str, list[Row]]]:
    for function in ("computes", "waits"):
        for traffic in TRAFFICS:
            chosen = [row for row in rows if (row["function"], row["traffic"]) == (function, traffic)]
            yield f"{function}, {traffic}", chosen
    yield "all", list(rows)


def _ratios(rows: Sequence[Row], policy: str) -> tuple[float, float, float]:
    """Mean wait, its 99th percentile and memory held, over the oracle's; geometric means."""

    def over(what: str, least: float) -> float:
        logs = [
            math.log(
                max(row[policy][what], least * row["start"]) / max(row["oracle"][what], least * row["start"])
            )
            for row in rows
        ]
        return math.exp(sum(logs) / len(logs)) if logs else math.nan

    return over("mean", LITTLE), over("p99", LITTLE), over("container_seconds", 1e-9)


def _ratio_table(rows: Sequence[Row]) -> str:
    names = list(POLICIES)[1:]
    lines = [
        "| function, traffic | " + " | ".join(POLICIES[name] for name in names) + " |",
        "|---" * (len(names) + 1) + "|",
    ]
    for name, chosen in _groups(rows):
        cells = (_ratios(chosen, policy) for policy in names)
        texts = (f"{mean:.1f} / {p99:.1f} / {held:.2f}" for mean, p99, held in cells)
        lines.append(f"| {name} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def _callers_table(rows: Sequence[Row], cores: int, start: float) -> str:
    lines = ["| function, a call takes | " + " | ".join(POLICIES.values()) + " |", "|---" * 5 + "|"]
    for row in rows:
        if (row["cores"], row["start"], row["traffic"]) == (cores, start, "64 callers"):
            texts = (
                f"{row[name]['most']}: {_time(row[name]['mean'])} / {_time(row[name]['p99'])}"
                for name in POLICIES
            )
            lines.append(f"| {row['function']}, {_time(row['seconds'])} | " + " | ".join(texts) + " |")
    return "\n".join(lines)


def _worst_table(rows: Sequence[Row], number: int = 8) -> str:
    def over(row: Row, than: str) -> float:
        least = LITTLE * row["start"]
        return float(max(row["ours"]["mean"], least) / max(row[than]["mean"], least))

    lines = ["| cores, function, a call, a start, traffic | ours | Fn | oracle |", "|---|---|---|---|"]
    for row in sorted(rows, key=lambda row: -over(row, "fn"))[:number]:
        times = f"{_time(row['seconds'])}, {_time(row['start'])}"
        name = f"{row['cores']}, {row['function']}, {times}, {row['traffic']}"
        cells = (f"{_time(row[one]['mean'])} with {row[one]['held']:.0f}" for one in ("ours", "fn", "oracle"))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _started(rows: Sequence[Row], function: str, policy: str) -> list[tuple[float, float]]:
    cores = min(row["cores"] for row in rows)
    return [
        (row["seconds"] * 1e6, row[policy]["started"])
        for row in rows
        if (row["cores"], row["start"], row["traffic"], row["function"])
        == (cores, 0.15, "64 callers", function)
    ]


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
