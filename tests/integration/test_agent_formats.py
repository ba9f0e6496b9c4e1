"""The agent and functions that talk over stdin and stdout, on scripted containers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from runner_node import stats
from runner_node.calls import of_route
from runner_node.drivers.contract import Exit
from runner_node.drivers.fake_behaviour import Behaviour
from runner_node.job import route_job
from runner_node.protocols.http_stream import Response
from shared_models import errors, times
from shared_models.app import App
from shared_models.call import Call, CallType, Lease, LeasedCall, Reason, Status
from shared_models.ids import new_id
from shared_models.listeners import CallListener, CallListeners
from shared_models.route import Route
from tests.integration.test_agent import Rig, rig, until


def route(image: str, format_: str, **fields: Any) -> Route:
    values = {"memory": 128, "timeout": 5, "idle_timeout": 30, "type": "sync", **fields}
    return Route(app_id="app", path=f"/{image}", image=image, format=format_, **values)


async def call(r: Rig, one: Route, body: bytes = b"x", syslog_url: str = "") -> Response:
    app = App(id="app", name="app", syslog_url=syslog_url)
    target = of_route(one, app, one.type, one.format)
    it = Call(
        id=new_id(), app_id="app", path=one.path, type=one.type, format=one.format, method="POST",
        url="http://h/r/app/f", created_at=times.now(), config=target.env,
    )  # fmt: skip
    return await r.agent.run(route_job(it, target, [("Content-Type", "text/plain")], body))


def json_function(line: bytes) -> bytes:
    """Echoes; the input of a json function is one object a call."""
    if not line.strip():
        return b""
    return json.dumps({"body": json.loads(line)["body"], "content_type": "x/echo"}).encode() + b"\n"


# -- hot ---------------------------------------------------------------------------------------


async def test_a_hot_function_serves_one_call_after_another():
    async with rig({"f": Behaviour(stdio=json_function)}) as r:
        for number in range(5):
            response = await call(r, route("f", "json"), b"%d" % number)
            assert response.body == b"%d" % number
            assert response.headers == [("Content-Type", "x/echo")]
            r.starts_take_long()
        assert r.driver.started == 1
        done = await r.record(4)
    assert done.call.path == "/f"
    assert done.call.config["FN_FORMAT"] == "json"


async def test_what_a_function_says_late_costs_its_container_and_reaches_no_other_call():
    async with rig({"f": Behaviour(stdio=json_function)}) as r:
        assert (await call(r, route("f", "json"), b"1")).body == b"1"
        r.driver.containers[0].say(b'{"body": "of an earlier call"}\n')
        await until(lambda: r.driver.removed == 1)
        assert (await call(r, route("f", "json"), b"2")).body == b"2"
        assert r.driver.started == 2


async def test_a_container_that_has_ended_before_the_runner_hears_of_it_costs_no_call():
    async with rig({"f": Behaviour(stdio=json_function)}) as r:
        assert (await call(r, route("f", "json"), b"1")).body == b"1"
        r.driver.containers[0].end(Exit(137))  # and at once, in the same turn of the loop:
        assert (await call(r, route("f", "json"), b"2")).body == b"2"
        assert r.driver.started == 2
        await r.record(1)
        assert {one.call.status for one in r.data.finished} == {Status.SUCCESS}


async def test_space_between_answers_costs_nothing():
    async with rig({"f": Behaviour(stdio=json_function)}) as r:
        await call(r, route("f", "json"))
        r.starts_take_long()
        r.driver.containers[0].say(b"\n\n")
        await asyncio.sleep(0)
        await call(r, route("f", "json"))
        assert r.driver.started == 1


async def test_more_than_an_answer_retires_the_container_and_the_answer_is_good():
    async with rig({"f": Behaviour(stdio=lambda line: json_function(line) + b"and more")}) as r:
        assert (await call(r, route("f", "json"))).body == b"x"
        await until(lambda: r.driver.removed == 1)


async def test_an_answer_that_is_none_fails_its_call_and_not_the_next():
    answers = iter([b"garbage\n", b'{"body": "good"}\n'])
    async with rig({"f": Behaviour(stdio=lambda line: next(answers))}) as r:
        with pytest.raises(errors.FunctionAnswerInvalid):
            await call(r, route("f", "json"))
        assert (await call(r, route("f", "json"))).body == b"good"
        assert r.driver.started == 2
        assert (await r.record()).call.status == Status.ERROR


async def test_a_call_that_cannot_be_put_in_the_format_reaches_no_function():
    async with rig({"f": Behaviour()}) as r:
        with pytest.raises(errors.EventUnusable):
            await call(r, route("f", "cloudevent"), b"not json")
        assert r.driver.started == 0
        assert (await r.record()).call.status == Status.ERROR


# -- cold --------------------------------------------------------------------------------------


async def test_a_cold_function_has_a_container_and_an_environment_per_call():
    async with rig({"f": Behaviour(stdio=lambda line: b"out " + line, exit=Exit(0))}) as r:
        for number in range(3):
            response = await call(r, route("f", "default"), b"%d" % number)
            assert response.body.startswith(b"out %d" % number)
        assert r.driver.started == 3
        ids = {container.spec.env["FN_CALL_ID"] for container in r.driver.containers}
        await until(lambda: r.driver.removed == 3)
        await r.record(2)
        assert ids == {one.call.id for one in r.data.finished}


async def test_a_cold_call_is_answered_before_its_container_is_removed(monkeypatch):
    gate = asyncio.Event()
    async with rig({"f": Behaviour(stdio=bytes, exit=Exit(0))}) as r:
        from runner_node.drivers.fake_container import FakeContainer

        remove = FakeContainer.remove

        async def slow_remove(self: FakeContainer) -> None:
            await gate.wait()
            await remove(self)

        monkeypatch.setattr(FakeContainer, "remove", slow_remove)
        assert (await asyncio.wait_for(call(r, route("f", "default")), 60)).body == b"x"
        assert r.driver.removed == 0
        gate.set()
        await until(lambda: r.driver.removed == 1)


@pytest.mark.parametrize(
    ("end", "error", "words", "reason"),
    [
        (Exit(3), errors.ContainerExited, "container exit code 3", Reason.EXIT),
        (Exit(137, oom=True), errors.ContainerOutOfMemory, "container out of memory", Reason.OOM),
        # Fn's words for 137, whoever killed it.
        (Exit(137), errors.ContainerOutOfMemory, "container out of memory", Reason.EXIT),
    ],
)
async def test_how_a_cold_container_ended_decides(end, error, words, reason):
    async with rig({"f": Behaviour(stdio=bytes, exits_after=1, exit=end)}) as r:
        with pytest.raises(error):
            await call(r, route("f", "default"))
        done = await r.record()
        assert done.call.status == Status.ERROR
        assert done.call.error.startswith(words)
        assert done.call.reason == reason


# -- async -------------------------------------------------------------------------------------


async def test_the_answer_of_an_async_route_is_in_its_log():
    async with rig({"f": Behaviour(stdio=json_function)}) as r:
        await call(r, route("f", "json", type=CallType.ASYNC), b"later")
        done = await r.record()
    assert json.loads(done.log) == {"body": "later", "content_type": "x/echo"}


async def test_an_async_call_that_cannot_be_put_in_its_format_ends_once():
    async with rig({"f": Behaviour()}) as r:
        it = Call(
            id=new_id(), app_id="app", path="/f", image="f", type=CallType.ASYNC, format="cloudevent",
            memory=128, timeout=5, idle_timeout=30, payload=b"not json", method="POST",
            created_at=times.now(),
        )  # fmt: skip
        r.data.queued.put_nowait(LeasedCall(call=it, lease=Lease(token="t", attempt=1, ttl=30)))
        await r.record()
    assert [(one.call.id, one.call.status, one.call.reason, one.token) for one in r.data.finished] == [
        (it.id, Status.ERROR, Reason.UNUSABLE, "t")
    ]
    assert r.driver.started == 0


# -- stats, syslog, listeners ------------------------------------------------------------------


async def test_a_record_has_what_its_container_used(monkeypatch):
    monkeypatch.setattr(stats, "PERIOD", 0.02)
    behaviour = Behaviour(call_delay=0.2, sample={"mem_usage": 7})
    async with rig({"f": behaviour}) as r:
        await r.call(r.deploy("f"))
        done = await r.record()
        assert len(done.call.stats) >= 3
        assert done.call.stats[0].metrics == {"mem_usage": 7}


async def test_a_call_between_two_samples_has_none_in_its_record(monkeypatch):
    monkeypatch.setattr(stats, "PERIOD", 3600)
    async with rig({"f": Behaviour(sample={"mem_usage": 7})}) as r:
        await r.call(r.deploy("f"))
        assert (await r.record()).call.stats == []


async def test_lines_go_to_syslog_as_they_come():
    lines: list[bytes] = []
    arrived = asyncio.Event()

    class Server(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            lines.append(data)
            arrived.set()

    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Server, local_addr=("127.0.0.1", 0))
    port = transport.get_extra_info("sockname")[1]
    async with rig({"f": Behaviour(stdio=json_function, output=b"to syslog\n")}) as r:
        await call(r, route("f", "json"), syslog_url=f"udp://127.0.0.1:{port}")
        await asyncio.wait_for(arrived.wait(), 60)
        done = await r.record()
    transport.close()
    assert lines[0].endswith(
        f"fn - - - - call_id={done.call.id} func_name=/f app_id=app to syslog\n".encode()
    )
    assert done.log == b"to syslog\n"


async def test_a_dead_syslog_server_delays_no_call():
    async with rig({"f": Behaviour(stdio=json_function, output=b"line\n")}, syslog_allow=("*",)) as r:
        await asyncio.wait_for(call(r, route("f", "json"), syslog_url="tcp://127.0.0.1:1"), 2)


class Witness(CallListener):
    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.refuse = False

    async def before_call(self, one: Call) -> None:
        self.seen.append(("before", one.id))
        if self.refuse:
            raise errors.Invalid("not today")

    async def after_call(self, one: Call) -> None:
        self.seen.append((one.status, one.id))


async def test_listeners_hear_of_calls_and_may_refuse_them():
    witness, listeners = Witness(), CallListeners()
    listeners.add("test", witness)
    async with rig({"f": Behaviour()}, listeners=listeners) as r:
        fn = r.deploy("f")
        await r.call(fn)
        await until(lambda: len(witness.seen) == 2)
        assert [what for what, _ in witness.seen] == ["before", Status.SUCCESS]
        witness.refuse = True
        with pytest.raises(errors.Invalid, match="not today"):
            await r.call(fn)
        assert r.driver.containers[0].calls == 1
        done = await r.record(1)
        assert (done.call.status, done.call.error) == (Status.ERROR, "not today")
