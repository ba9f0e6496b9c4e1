"""What a run of the benchmarks leaves behind: tables, a page, figures as JSON, pictures."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measuring import Case, Row

_HOW_TO_READ = """\
Made by `make bench`; do not edit. Figures mean something only beside those of the same run: columns with
`bare` are the *bare proxy*, the smallest aiohttp handler that forwards to the same function on this machine,
measured in turns with the node. `of_bare` is what the node does of the bare proxy's calls per second,
`p99_of_bare` how many times as long its p99 takes, `over_p50_ms` the milliseconds that it adds at p50.
`cpu_us` are microseconds of CPU that the process of the node itself used per call, without functions and
load; `memory_mb` is its memory, shared pages divided. Load and node share the same cores.
"""


def machine() -> dict[str, Any]:
    """Where, when and of what these figures are."""
    git = ["git", "-C", str(Path(__file__).parent)]

    def asked(*words: str) -> str:
        return subprocess.run([*git, *words], capture_output=True, text=True, check=False).stdout.strip()

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    code = ["api_node", "runner_node", "services", "hybrid_client", "shared_models", "deploy", "benchmarks"]
    changed = asked("status", "--porcelain", "--", *(f":/{name}" for name in code))
    return {
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": asked("rev-parse", "--short", "HEAD") + (" with changes" if changed else ""),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "load": round(os.getloadavg()[0], 1),
    }


def show(case: Case, result: Mapping[str, Any]) -> None:
    """Prints one case."""
    print(f"\n## {case.TITLE} ({result['took_seconds']} s)\n")
    if "failed" in result:
        print(f"could not be run: {result['failed']}", flush=True)
        return
    print("\n".join(_plain(result["rows"])))
    print("\n".join(["", *_goals(result["goals"])]), flush=True)


def write(folder: Path, found_on: Mapping[str, Any], results: Mapping[str, Any]) -> None:
    """bench.json, README.md, and the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {
        name: {key: value for key, value in one.items() if key != "charts"} for name, one in results.items()
    }
    (folder / "bench.json").write_text(json.dumps({"machine": found_on, "cases": kept}, indent=1) + "\n")
    lines = ["# Benchmarks", "", _HOW_TO_READ, sentence(found_on), ""]
    for one in results.values():
        lines += [f"## {one['title']}", ""]
        if "failed" in one:
            lines += [f"Could not be run: {one['failed']}", ""]
            continue
        lines += [*_table(one["rows"]), "", *_goals(one["goals"]), ""]
        for name, picture in one["charts"].items():
            (folder / name).write_text(picture)
            lines += [f"![{name.removesuffix('.svg')}]({name})", ""]
    others = sorted(
        path.name for path in folder.iterdir() if path.suffix in (".md", ".json") and path.name not in _OWN
    )
    if others:
        links = ", ".join(f"[{name}]({name})" for name in others)
        lines += ["## Beside these", "", f"Measured apart, by other commands: {links}.", ""]
    (folder / "README.md").write_text("\n".join(lines).rstrip() + "\n")


_OWN = ("README.md", "bench.json")


def sentence(on: Mapping[str, Any]) -> str:
    """The machine in words."""
    return (
        f"{on['date']}, commit {on['commit']}; {on['cores']} cores, {on['memory_gb']} GB, "
        f"Linux {on['kernel']}, Python {on['python']}; load of the machine at the start: {on['load']}."
    )


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _cell(name: str, value: object) -> str:
    if not isinstance(value, float):
        return "" if value is None else str(value)
    if name in ("of_bare", "of_full"):
        return f"{value:.1%}"
    return _number(value)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def _cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    names = _names(rows)
    return names, [[_cell(name, row.get(name)) for name in names] for row in rows]


def _plain(rows: Sequence[Row]) -> Iterator[str]:
    names, cells = _cells(rows)
    widths = [max(len(each[place]) for each in (names, *cells)) for place in range(len(names))]
    for each in (names, *cells):
        yield "  ".join(text.rjust(width) for text, width in zip(each, widths, strict=True))


def _table(rows: Sequence[Row]) -> Iterator[str]:
    names, cells = _cells(rows)
    yield f"| {' | '.join(names)} |"
    yield f"|{'---:|' * len(names)}"
    for each in cells:
        yield f"| {' | '.join(each)} |"


def _goals(goals: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for text in dict.fromkeys(each["goal"] for each in goals):
        found = [each for each in goals if each["goal"] == text]
        met = "met" if all(each["met"] for each in found) else "**missed**"
        values = ", ".join(
            f"{each['of']}: {_number(each['value'])}{'' if each['met'] else ' (missed)'}" for each in found
        )
        yield f"- {met}: {text} ({values})"
