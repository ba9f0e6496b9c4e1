"""What functions wrote down of their own runs."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True)
class Run:
    """One run of a call. Unix seconds; *ended* is 0 for a run that did not reach its end."""

    call_id: str
    attempt: int
    node: str
    pid: int
    type: str
    do: str
    started: float
    ended: float = 0.0


def read(file: Path) -> dict[str, list[Run]]:
    """The runs of each call, in the order of their starts."""
    runs: dict[str, list[Run]] = defaultdict(list)
    running: dict[tuple[str, int], Run] = {}
    for line in file.read_text().splitlines() if file.exists() else []:
        entry = json.loads(line)
        key = (entry["id"], entry["pid"])
        if entry["what"] == "start":
            run = Run(
                entry["id"],
                entry["attempt"],
                entry["node"],
                entry["pid"],
                entry["type"],
                entry["do"],
                entry["at"],
            )
            runs[run.call_id].append(run)
            running[key] = run
        else:
            running.pop(key).ended = entry["at"]
    return dict(runs)
