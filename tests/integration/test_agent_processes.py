"""The agent and functions that are real processes: what becomes of them, and of their calls."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from runner_node import leases
from runner_node.agent import running_agent
from runner_node.drivers.opener import open_driver
from runner_node.drivers.settings import DriverSettings
from runner_node.hot_container import StartFailed
from runner_node.settings import AgentSettings
from shared_models import errors
from shared_models.app import App
from shared_models.call import Reason, Status
from shared_models.ids import new_id
from tests.integration.test_agent import MIB, Rig, until
from tests.unit.runner_node.scripted_data import ScriptedData

FUNCTION = """
import http.server, json, os, signal, socketserver, sys, threading, time

class Call(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        order = json.loads(body)
        if order.get("says"):
            with open(order["says"], "w") as out:
                out.write(str(os.getpid()))
        if order.get("dies"):
            os.kill(os.getpid(), signal.SIGKILL)
        if order.get("hangs"):
            time.sleep(3600)
        answer = json.dumps({"pid": os.getpid()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args):
        pass

    def address_string(self):
        return "here"

if os.environ.get("DEAF"):
    time.sleep(3600)
socketserver.UnixStreamServer(os.environ["FN_LISTENER"].removeprefix("unix:"), Call).serve_forever()
"""


@asynccontextmanager
async def rig(tmp_path: Path, **settings: object) -> AsyncIterator[Rig]:
    image = tmp_path / "images" / "f"
    image.mkdir(parents=True)
    (image / "server.py").write_text(FUNCTION)
    entrypoint = json.dumps([sys.executable, "-I", "-S", str(image / "server.py")])
    (image / "func.yaml").write_text(f"runtime: python\nentrypoint: {entrypoint}\n")
    data = ScriptedData()
    data.apps["app"] = App(id="app", name="app")
    given = {
        "spool_path": "", "max_memory": 1024 * MIB, "freeze_idle": 60.0, "drain": 1.0, "start_timeout": 60.0,
        **settings,
    }  # fmt: skip
    driver_settings = DriverSettings(driver="process", process_images=str(tmp_path / "images"))
    async with (
        open_driver(driver_settings, f"test-{new_id()}") as driver,
        running_agent(data, driver, AgentSettings(**given), "node") as agent,  # type: ignore[arg-type]
    ):
        yield Rig(agent, driver, data)  # type: ignore[arg-type]


def order(**what: object) -> bytes:
    return json.dumps(what).encode()


def said(path: Path) -> int:
    """The process that runs the call, 0 before it does."""
    return int(path.read_text() or 0) if path.exists() else 0


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def test_a_function_that_is_killed_fails_its_call_and_not_the_next(tmp_path):
    async with rig(tmp_path) as r:
        fn = r.deploy("f")
        first = json.loads((await r.call(fn, order())).body)["pid"]
        with pytest.raises(errors.FunctionResponseError):
            await r.call(fn, order(dies=True))
        second = json.loads((await r.call(fn, order())).body)["pid"]
        assert first != second
        dead = await r.record(2)
        by_status = {one.call.status: one.call for one in r.data.finished}
        assert len(r.data.finished) == 3
        assert dead
    assert by_status[Status.ERROR].reason == Reason.EXIT
    assert by_status[Status.ERROR].error.endswith("container exit code 137")


async def test_a_function_that_was_killed_between_two_calls_costs_neither(tmp_path):
    async with rig(tmp_path) as r:
        fn = r.deploy("f")
        for _ in range(10):
            pid = json.loads((await r.call(fn, order())).body)["pid"]
            os.kill(pid, signal.SIGKILL)
            # Dead by now, and the loop, which must not turn here, has not heard of it.
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # noqa: ASYNC222
        await r.record(9)
        assert {one.call.status for one in r.data.finished} == {Status.SUCCESS}


async def test_a_function_that_never_opens_its_socket_fails_its_call_alone(tmp_path):
    async with rig(tmp_path, start_timeout=4.0) as r:
        deaf = r.deploy("f", config={"DEAF": "1"})
        with pytest.raises(StartFailed):
            await r.call(deaf, order())
        assert json.loads((await r.call(r.deploy("f"), order())).body)["pid"]
        await r.record(1)
        reasons = {one.call.fn_id: one.call.reason for one in r.data.finished}
        assert reasons[deaf.id] == Reason.NOT_STARTED


async def test_a_lost_lease_ends_the_functions_process_within_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "LONGEST_RENEWAL", 0.05)
    async with rig(tmp_path) as r:
        call_id = r.enqueue(r.deploy("f", timeout=300), payload=order(hangs=True, says=f"{tmp_path}/pid"))
        await until(lambda: said(tmp_path / "pid"))
        pid = said(tmp_path / "pid")
        r.data.lost.append(call_id)
        await until(lambda: not lives(pid))
        await until(lambda: not len(r.agent.dequeuer.leases))
        assert r.data.finished == []


async def test_a_run_that_is_cut_off_by_the_stop_ends_its_process(tmp_path):
    async with rig(tmp_path, drain=0.05) as r:
        call_id = r.enqueue(r.deploy("f", timeout=300), payload=order(hangs=True, says=f"{tmp_path}/pid"))
        await until(lambda: said(tmp_path / "pid"))
        pid = said(tmp_path / "pid")
    assert not lives(pid)
    [done] = r.data.finished
    assert (done.call.id, done.call.reason) == (call_id, Reason.RUNNER_STOPPED)


async def test_functions_that_die_all_the_time_stop_no_other(tmp_path):
    async with rig(tmp_path) as r:
        bad, good = r.deploy("f", config={"K": "bad"}), r.deploy("f", config={"K": "good"})

        async def call_bad() -> None:
            with pytest.raises(errors.FunctionResponseError):
                await r.call(bad, order(dies=True))

        async with asyncio.TaskGroup() as both:
            for _ in range(5):
                both.create_task(call_bad())
                both.create_task(r.call(good, order()))
        await r.record(9)
        ends = {(one.call.fn_id, one.call.status, one.call.reason) for one in r.data.finished}
    assert ends == {(bad.id, Status.ERROR, Reason.EXIT), (good.id, Status.SUCCESS, "")}
