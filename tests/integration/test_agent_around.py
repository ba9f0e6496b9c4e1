"""What is around calls in an agent: their lines on the way to syslog, and the listeners of extensions."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from runner_node.agent import running_agent
from runner_node.drivers.fake import open_fake
from runner_node.drivers.fake_behaviour import Answer, Behaviour
from runner_node.settings import AgentSettings
from shared_models.app import App
from shared_models.call import Call, Reason, Status
from shared_models.errors import Conflict, FnError
from shared_models.listeners import CallListener, CallListeners
from tests.integration.test_agent import MIB, Rig, until
from tests.unit.runner_node.scripted_data import ScriptedData

TALKING = Behaviour(function=lambda request: Answer(body=request.body, log=b"one\nsaid " + request.body))
SETTINGS = AgentSettings(
    spool_path="", max_memory=1024 * MIB, freeze_idle=60.0, drain=1.0, syslog_allow=("*",)
)


class Listening(CallListener):
    def __init__(self) -> None:
        self.before: list[Call] = []
        self.after: list[Call] = []
        self.trouble: Exception | None = None

    async def before_call(self, call: Call) -> None:
        self.before.append(call)
        if self.trouble:
            raise self.trouble

    async def after_call(self, call: Call) -> None:
        self.after.append(call)
        if self.trouble:
            raise self.trouble


@asynccontextmanager
async def rig(syslog_url: str = "", listener: CallListener | None = None) -> AsyncIterator[Rig]:
    data, listeners = ScriptedData(), CallListeners()
    data.apps["app"] = App(id="app", name="app", syslog_url=syslog_url or None)
    if listener:
        listeners.add("test", listener)
    async with (
        open_fake({"f": TALKING}) as driver,
        running_agent(data, driver, SETTINGS, "node", listeners=listeners) as agent,
    ):
        yield Rig(agent, driver, data)


# -- syslog ------------------------------------------------------------------------------------


async def test_lines_of_a_call_reach_syslog_and_the_record():
    lines: asyncio.Queue[bytes] = asyncio.Queue()

    async def collect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            lines.put_nowait(line)
        writer.close()

    server = await asyncio.start_server(collect, "127.0.0.1", 0)
    async with server, rig(f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}") as r:
        fn = r.deploy("f")
        await r.call(fn, b"hello")
        done = await r.record()
        async with asyncio.timeout(60):
            got = [await lines.get(), await lines.get()]
    mark = f"call_id={done.call.id} fn_id={fn.id} app_id=app ".encode()
    assert [line.partition(mark)[2] for line in got] == [b"one\n", b"said hello\n"]
    assert done.log == b"one\nsaid hello"


async def test_a_dead_syslog_server_delays_no_call():
    with socket.socket() as silent:
        # It takes connections into its backlog, and then nothing.
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        dead = f"tcp://127.0.0.1:{silent.getsockname()[1]},udp://127.0.0.1:9,unix:///nowhere,tls://h.invalid"
        async with rig(dead) as r:
            fn = r.deploy("f")
            async with asyncio.timeout(60):
                for _ in range(50):
                    await r.call(fn, b"x" * 10_000)
                    r.starts_take_long()
            assert len((await r.record(49)).log) == 10_009
            assert r.driver.started == 1


# -- listeners of calls ------------------------------------------------------------------------


async def test_a_call_is_heard_of_before_it_runs_and_after_it_ended():
    listener = Listening()
    async with rig(listener=listener) as r:
        await r.call(r.deploy("f"))
        done = await r.record()
        await until(lambda: listener.after)
    assert [call.id for call in listener.before] == [done.call.id]
    assert listener.after == [done.call]
    assert listener.after[0].status == Status.SUCCESS


async def test_a_call_that_a_listener_refuses_runs_nothing_and_its_record_says_why():
    listener = Listening()
    async with rig(listener=listener) as r:
        fn = r.deploy("f")
        listener.trouble = Conflict("not on a Friday")
        with pytest.raises(Conflict, match="not on a Friday"):
            await r.call(fn)
        refused = await r.record()
        assert (refused.call.status, refused.call.error) == (Status.ERROR, "not on a Friday")
        assert refused.log == b""
        listener.trouble = None
        assert (await r.call(fn)).body == b"x"
        assert r.driver.started == 1, "the container was as good as before"


async def test_an_async_call_that_a_listener_refuses_ends_as_an_error():
    listener = Listening()
    listener.trouble = Conflict("not on a Friday")
    async with rig(listener=listener) as r:
        call_id = r.enqueue(r.deploy("f"))
        done = await r.record()
    assert (done.call.id, done.call.status, done.call.error) == (call_id, Status.ERROR, "not on a Friday")
    assert done.call.reason == Reason.UNUSABLE


async def test_a_broken_listener_is_an_internal_error(caplog: pytest.LogCaptureFixture):
    listener = Listening()
    listener.trouble = ZeroDivisionError("its bug")
    async with rig(listener=listener) as r:
        with pytest.raises(FnError) as failure:
            await r.call(r.deploy("f"))
        assert (failure.value.code, failure.value.message) == (500, "internal server error")
        assert (await r.record()).call.status == Status.ERROR
    assert "extension test: before call" in caplog.text
