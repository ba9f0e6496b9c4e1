"""500 runner nodes, simulated by their requests, that long poll one API node; then a call comes for one.

Each has a long poll of its own, and together they send a heartbeat every 5 s and ask what is wanted every 3 s
for each of them.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from functools import partial
from typing import Any

from benchmarks.generator import Answer, Connection, at_rate, connect, request
from benchmarks.generator import run as run_loop
from benchmarks.measuring import Goal, Options, Row, percentile
from benchmarks.nodes import Node, node
from benchmarks.processes import ask, cpu, memory_mb
from shared_models.call import Call, CallType
from shared_models.ids import new_id

TITLE = "Simulated runner nodes that long poll one API node"
GOALS = (
    Goal("a call is handed out within 20 ms at p95", "hand_out_p95_ms", most=20.0),
    Goal("every call is handed out once", "not_once", most=0),
    Goal("no request fails", "errors", most=0),
)
_HEARTBEAT, _WANTED = 5.0, 3.0
"""Seconds between two of one runner."""


class _HandedOut:
    """When runners were given calls, in nanoseconds of the clock, by id."""

    def __init__(self) -> None:
        self.calls: dict[str, list[int]] = {}
        self.more = asyncio.Event()


def run(options: Options) -> list[Row]:
    """A row per number of runners; the first says what the node does without them."""
    rows: list[Row] = []
    for runners in options.of((0, 100, 500), (50,)):
        with node("api", options.own_folder("runners")) as api:
            app = ask("POST", f"{api.url}/v2/apps", {"name": "bench"})
            fn = ask("POST", f"{api.url}/v2/fns", {"name": "quick", "app_id": app["id"], "image": "quick"})
            rows.append({"runners": runners, **run_loop(partial(_measured, api, fn, runners, options))})
    return rows


async def _measured(api: Node, fn: dict[str, Any], runners: int, options: Options) -> Row:
    handed_out = _HandedOut()
    polls = [asyncio.create_task(_poll(api, number, handed_out)) for number in range(runners)]
    await asyncio.sleep(1.0)
    seconds = max(2, options.seconds * options.rounds)
    before, begin = cpu(api.pid), time.monotonic()
    beats, wanted = await asyncio.gather(*_beside(api, runners, seconds)) if runners else ([], [])
    await asyncio.sleep(max(0.0, seconds - (time.monotonic() - begin)))
    row: Row = {
        "api_cpu_percent": (cpu(api.pid) - before) / (time.monotonic() - begin) * 100,
        "api_mb": memory_mb(api.pid),
        "heartbeat_p99_ms": percentile([each.latency_ms for each in beats], 0.99),
        "errors": sum(each.status not in (200, 304) for each in (*beats, *wanted)),
    }
    if runners:
        row |= await _calls(api, fn, handed_out, options.of((100,), (10,))[0])
    for poll in polls:
        poll.cancel()
    await asyncio.gather(*polls, return_exceptions=True)
    return row


def _beside(api: Node, runners: int, seconds: float) -> list[Any]:
    """What the runners send besides their long polls."""
    report = {"id": "bench-0", "address": "http://127.0.0.1:1", "version": "1", "capacity_memory": 4 << 30,
              "capacity_cpus": 4000, "free_memory": 4 << 30, "free_cpus": 4000}  # fmt: skip
    body = json.dumps(report).encode()
    heartbeat = request("POST", f"{api.url}/v1/runner/heartbeat", body, Content_Type="application/json")
    wanted = request("GET", f"{api.url}/v1/runner/wanted")
    return [
        at_rate(api.url, heartbeat, runners / _HEARTBEAT, seconds, 20),
        at_rate(api.url, wanted, runners / _WANTED, seconds, 20),
    ]


async def _poll(api: Node, number: int, handed_out: _HandedOut) -> None:
    """One runner, which notes when it is given a call."""
    wanted = request("GET", f"{api.url}/v1/runner/dequeue?max=10&wait=30&node=bench-{number}")
    connection = await connect(api.url)
    try:
        while (answer := await connection.send(wanted)).status == 200:
            for call in json.loads(answer.body)["calls"]:
                handed_out.calls.setdefault(call["id"], []).append(answer.done)
                handed_out.more.set()
    finally:
        connection.close()


async def _calls(api: Node, fn: dict[str, Any], handed_out: _HandedOut, count: int) -> Row:
    """Calls one at a time: from when one is sent to when a runner has it."""
    connection: Connection = await connect(api.url)
    sent: dict[str, Answer] = {}
    for _ in range(count):
        call = Call(
            id=new_id(), fn_id=fn["id"], app_id=fn["app_id"], image=fn["image"], type=CallType.ASYNC,
            path=fn["name"], memory=fn["memory"], timeout=fn["timeout"], idle_timeout=fn["idle_timeout"],
            format="http-stream", status="queued", payload=b"x",
        )  # fmt: skip
        body = json.dumps(call.wire()).encode()
        wanted = request("POST", f"{api.url}/v1/runner/enqueue", body, Content_Type="application/json")
        sent[call.id] = await connection.send(wanted)
        assert sent[call.id].status == 200, sent[call.id].body
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                while call.id not in handed_out.calls:
                    await handed_out.more.wait()
                    handed_out.more.clear()
    connection.close()
    seen = handed_out.calls
    waits = [(seen[one][0] - each.due) / 1e6 for one, each in sent.items() if one in seen]
    return {
        "enqueue_p50_ms": percentile([each.latency_ms for each in sent.values()], 0.5),
        "hand_out_p50_ms": percentile(waits, 0.5),
        "hand_out_p95_ms": percentile(waits, 0.95),
        "not_once": sum(len(seen.get(one, ())) != 1 for one in sent),
    }
