"""Detached calls: taken in and run, on SQLite and on Redis + PostgreSQL, all commits durable."""

from __future__ import annotations

import re
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path

from benchmarks.generator import Answer, by_callers, call_id, request
from benchmarks.generator import run as run_loop
from benchmarks.measuring import Goal, Options, Row, percentile
from benchmarks.nodes import Node, node
from benchmarks.processes import ask, cpu, until
from tests.servers.postgres import Postgres
from tests.servers.redis import Redis
from tests.servers.server import running

TITLE = "Detached calls, full node: acceptance (send to 202) and arrival (send to handler start)"
_NAMES = ("SQLite", "Redis + PostgreSQL")
GOALS = (
    *(
        Goal(f"2,000/s {what} on {name}", f"{what}_per_second", least=2_000, where={"stores": name})
        for name in _NAMES for what in ("accepted", "drained")
    ),
    Goal("more drained on Redis + PostgreSQL than on SQLite", "of_sqlite", least=1.0),
    Goal("none is missing", "missing", most=0),
    Goal("none is run twice", "duplicates", most=0),
    Goal("no call fails", "errors", most=0),
)  # fmt: skip


def run(options: Options) -> list[Row]:
    """A row per stores and number of callers."""
    rows: list[Row] = []
    for name in options.of(_NAMES, _NAMES[:1]):
        with ExitStack() as stack:
            urls = {}
            if name != "SQLite":
                database = stack.enter_context(running(Postgres, True))
                queue = stack.enter_context(running(Redis, True))
                urls = {"FN_DB_URL": database.url, "FN_MQ_URL": queue.url}
            folder = options.own_folder("detached")
            full = stack.enter_context(node("full", folder, FN_ASYNC_MAX_QUEUED="0", **urls))
            rows += [
                {"stores": name, "callers": callers, **_measured(options, full, folder, callers)}
                for callers in options.callers or options.of((16, 64), (16,))
            ]
    on_sqlite = {row["callers"]: row["drained_per_second"] for row in rows if row["stores"] == _NAMES[0]}
    for row in rows:
        if row["stores"] != _NAMES[0]:
            row["of_sqlite"] = row["drained_per_second"] / on_sqlite[row["callers"]]
    return rows


def _measured(options: Options, full: Node, folder: Path, callers: int) -> Row:
    name, file = f"detached{callers}", folder / f"arrivals{callers}"
    url = full.warm(full.deploy(name, config={"ARRIVALS": str(file)}))
    # What the first call wrote is not what is counted.
    known = set(_ids(file))
    wanted = request("POST", url, b"x", Content_Type="text/plain", Fn_Invoke_Type="detached")
    before, ended = cpu(full.pid), _completed(full, name)
    answers: list[Answer] = run_loop(
        lambda: by_callers(url, wanted, callers, options.seconds * options.rounds)
    )
    accepted = {call_id(each): each for each in answers if each.status == 202}
    assert accepted, f"none was accepted: {answers[:1]}"
    with suppress(TimeoutError):  # those that have not come by then are missing
        until(lambda: _completed(full, name) - ended >= len(accepted), "all calls run", 60, pause=0.25)
    seconds = (max(_starts(file).values()) - min(each.due for each in answers)) / 1e9
    used = cpu(full.pid) - before
    taken = (max(each.done for each in answers) - min(each.due for each in answers)) / 1e9
    starts = _starts(file)
    runs = Counter(each for each in _ids(file) if each not in known)
    acceptance = [each.latency_ms for each in accepted.values()]
    arrival = [(starts[one] - each.due) / 1e6 for one, each in accepted.items() if one in starts]
    return {
        "accepted_per_second": len(accepted) / taken, "drained_per_second": len(starts) / seconds,
        "accept_p50_ms": percentile(acceptance, 0.5), "accept_p99_ms": percentile(acceptance, 0.99),
        "arrive_p50_ms": percentile(arrival, 0.5), "arrive_p99_ms": percentile(arrival, 0.99),
        "cpu_us": used / len(accepted) * 1e6, "calls": len(accepted),
        "missing": sum(one not in runs for one in accepted),
        "duplicates": sum(times - 1 for times in runs.values()),
        "errors": sum(each.status != 202 for each in answers),
    }  # fmt: skip


def _ids(file: Path) -> list[str]:
    return [line.split()[0] for line in file.read_text().splitlines()]


def _starts(file: Path) -> dict[str, int]:
    return {name: int(at) for name, at in (line.split() for line in file.read_text().splitlines())}


def _completed(full: Node, name: str) -> int:
    text = (ask("GET", f"{full.url}/metrics", raw=True) or b"").decode()
    found = re.findall(rf'^fn_completed{{[^}}]*fn_appname="{name}"[^}}]*}} (\S+)', text, re.MULTILINE)
    return int(sum(map(float, found)))
