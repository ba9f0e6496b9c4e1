"""The agent and queued calls: attempts, what functions see of them, what is handed in."""

from __future__ import annotations

import json

import pytest

from runner_node import dequeuer
from runner_node.drivers.contract import Exit
from runner_node.drivers.fake_behaviour import Answer, Behaviour
from shared_models import errors, times
from shared_models.call import Call, CallType, Lease, LeasedCall, Reason, Status
from shared_models.fn import Fn
from shared_models.ids import new_id
from tests.integration.test_agent import MIB, rig, settled, until
from tests.integration.test_agent_formats import json_function


async def test_a_queued_call_is_started_run_and_finished_with_its_lease():
    async with rig({"f": Behaviour(function=lambda q: Answer(log=b"log\n"))}) as r:
        call_id = r.enqueue(r.deploy("f"))
        done = await r.record()
    assert r.data.started == [call_id]
    assert done.call.id == call_id
    assert done.call.status == Status.SUCCESS
    assert done.token == f"token of {call_id}"
    assert done.log == b"log\n"


async def test_a_lease_is_renewed_for_as_long_as_the_call_runs():
    async with rig({"f": Behaviour(call_delay=0.6)}) as r:
        r.enqueue(r.deploy("f"))
        await r.record()
        assert r.data.asked["extend"] >= 3


async def test_a_run_whose_lease_is_lost_is_stopped_and_not_reported():
    async with rig({"f": Behaviour(hangs=True)}) as r:
        call_id = r.enqueue(r.deploy("f"))
        await until(lambda: r.data.started)
        r.data.lost.append(call_id)
        await until(lambda: r.driver.removed == 1)
        assert r.data.finished == []


async def test_a_call_that_must_not_start_reaches_no_function():
    async with rig({"f": Behaviour()}) as r:
        r.data.start_error = errors.LeaseLost()
        r.enqueue(r.deploy("f"))
        await until(lambda: r.driver.started == 1)
        await until(lambda: r.data.asked["start"] == 1)
        assert r.driver.containers[0].calls == 0
        assert r.data.finished == []


@pytest.mark.parametrize("attempt", [1, 3])
async def test_an_attempt_without_a_container_is_handed_in_with_its_reason(attempt):
    async with rig({"f": Behaviour(exits_at_start=Exit(1), output=b"why\n")}) as r:
        call_id = r.enqueue(r.deploy("f"), attempt=attempt)
        done = await r.record()
    assert (done.call.id, done.call.status, done.call.reason) == (call_id, Status.ERROR, Reason.NOT_STARTED)
    assert done.call.attempt == attempt
    assert done.call.error.startswith("Container failed to initialize")
    assert done.log == b"why\n"
    assert done.token == f"token of {call_id}"


async def test_a_call_that_is_larger_than_the_runner_is_handed_in_as_such():
    async with rig({"f": Behaviour()}, max_memory=300 * MIB) as r:
        r.enqueue(r.deploy("f", memory=512))
        done = await r.record()
    assert (done.call.status, done.call.reason) == (Status.ERROR, Reason.NO_ROOM)
    assert "512 MB" in done.call.error


async def test_a_call_goes_back_when_the_engine_is_away():
    async with rig({"f": Behaviour()}) as r:
        await until(lambda: r.agent.ready() == "")
        r.driver.down = "gone"
        call_id = r.enqueue(r.deploy("f"))
        await until(lambda: r.data.released == [call_id])


async def test_a_call_of_a_function_that_is_gone_ends_with_that_reason():
    async with rig({}) as r:
        r.enqueue(Fn(id=new_id(), app_id="app"))
        done = await r.record()
        assert (done.call.error, done.call.reason) == ("Fn not found", Reason.GONE)


async def test_a_node_that_stops_gives_unstarted_calls_back_and_lets_running_ones_end():
    async with rig({"f": Behaviour(call_delay=0.3)}, max_memory=200 * MIB) as r:
        fn = r.deploy("f")
        first = r.enqueue(fn)
        await until(lambda: r.data.started == [first])
        second = r.enqueue(fn)
        await until(lambda: r.data.queued.empty())
    finished = {one.call.id for one in r.data.finished}
    assert first in finished
    assert second in finished or second in r.data.released


async def test_nothing_is_pulled_while_the_node_is_not_ready():
    async with rig({"f": Behaviour()}) as r:
        await until(lambda: r.data.asked_for)
        r.driver.down = "gone"
        await r.agent.health._look_at_engine()
        await settled()
        call_id = r.enqueue(r.deploy("f"))
        r.driver.down = ""
        await settled()
        assert not r.data.queued.empty()
        await r.agent.health._look_at_engine()
        assert (await r.record()).call.id == call_id


async def test_a_dequeuer_that_does_not_come_round_is_not_alive_until_it_does(monkeypatch):
    monkeypatch.setattr(dequeuer, "STUCK", 0.2)
    async with rig({"f": Behaviour()}) as r:
        # No call comes: the long poll is longer than that.
        await until(lambda: r.agent.pulse.reason() == "standing still: dequeuer for 0.2 s")
        monkeypatch.setattr(dequeuer, "STUCK", 600.0)
        r.enqueue(r.deploy("f"))
        await until(lambda: r.agent.pulse.reason() == "")
        agent = r.agent
    assert agent.pulse.reason() == ""


async def test_a_runner_whose_token_is_wrong_says_so_once(monkeypatch, caplog):
    monkeypatch.setattr(dequeuer, "LONGEST_PAUSE", 0.01)
    async with rig({"f": Behaviour()}) as r:
        await until(lambda: r.data.asked["heartbeat"] and r.data.asked["dequeue"])
        r.data.unauthorized = True  # the next heartbeat, and with it the end of pulling, is seconds away
        r.enqueue(r.deploy("f"))
        asked = r.data.asked["dequeue"]
        await until(lambda: r.data.asked["dequeue"] > asked + 5)
        assert caplog.text.count("refuses to hand out calls") == 1
        r.data.unauthorized = False
        assert (await r.record()).call.status == Status.SUCCESS


# -- what the function sees --------------------------------------------------------------------


async def test_a_function_sees_which_attempt_it_is_and_no_client_can_forge_it():
    seen: list[dict[str, str]] = []

    def look(request):
        seen.append(dict(request.headers))
        return Answer()

    forged = {"Fn-Attempt": ["9"], "Fn-Idempotency-Key": ["secret"], "Fn-Callback-Url": ["http://h/secret"]}
    async with rig({"f": Behaviour(function=look)}) as r:
        r.enqueue(r.deploy("f"), attempt=2, headers={**forged, "X-Kept": ["yes"]})
        await r.record()
    assert (seen[0]["fn-attempt"], seen[0]["x-kept"]) == ("2", "yes")
    assert "secret" not in str(seen)


@pytest.mark.parametrize("format_", ["json", "http", "default"])
async def test_functions_of_other_formats_see_it_as_their_headers_come(format_):
    said: list[bytes] = []

    def hear(piece: bytes) -> bytes:
        said.append(piece)
        if format_ == "json":
            return json_function(piece)
        return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" if format_ == "http" else piece

    async with rig({"f": Behaviour(stdio=hear)}) as r:
        r.data.queued.put_nowait(route_call(format_, attempt=3, headers={"Fn-Attempt": ["9"]}))
        await r.record()
        [container] = r.driver.containers
    if format_ == "json":
        assert json.loads(said[0])["protocol"]["headers"]["Fn-Attempt"] == ["3"]
    elif format_ == "http":
        assert b"\r\nFn-Attempt: 3\r\n" in said[0]
        assert said[0].count(b"Fn-Attempt") == 1
    else:
        assert container.spec.env["FN_HEADER_Fn-Attempt"] == "3"


def route_call(format_: str, attempt: int = 1, **fields: object) -> LeasedCall:
    call = Call(
        id=new_id(), app_id="app", path="/f", image="f", type=CallType.ASYNC, format=format_, memory=128,
        timeout=5, idle_timeout=30, payload=b"x", method="POST", url="http://h/f", created_at=times.now(),
        attempt=attempt, **fields,  # type: ignore[arg-type]
    )  # fmt: skip
    return LeasedCall(call=call, lease=Lease(token="t", attempt=attempt, ttl=30))


async def test_a_call_of_an_api_node_that_knows_no_attempts_has_none():
    seen: list[dict[str, str]] = []

    def look(request):
        seen.append(dict(request.headers))
        return Answer()

    async with rig({"f": Behaviour(function=look)}) as r:
        fn = r.deploy("f")
        call = Call(id=new_id(), app_id="app", fn_id=fn.id, type=CallType.DETACHED, created_at=times.now())
        r.data.queued.put_nowait(LeasedCall(call=call))
        done = await r.record()
    assert "fn-attempt" not in seen[0]
    assert (done.token, done.call.status) == ("", Status.SUCCESS)


# -- what callbacks carry ----------------------------------------------------------------------


@pytest.mark.parametrize(("body", "truncated"), [(b"12345678", False), (b"123456789", True)])
async def test_the_answer_for_a_callback_is_handed_in_up_to_a_limit(body, truncated):
    async with rig({"f": Behaviour(function=lambda q: Answer(body=body))}, callback_max_body=8) as r:
        r.enqueue(r.deploy("f"), callback_url="http://h/hook")
        done = await r.record()
    assert (done.body, done.truncated) == (b"12345678", truncated)
    assert done.content_type == "application/octet-stream"
    assert done.call.callback_url == "http://h/hook"


async def test_the_answer_of_an_async_route_is_handed_in_for_its_callback():
    async with rig({"f": Behaviour(stdio=json_function)}) as r:
        r.data.queued.put_nowait(route_call("json", callback_url="http://h/hook"))
        done = await r.record()
    assert (done.body, done.content_type, done.call.callback_url) == (b"x", "x/echo", "http://h/hook")


async def test_without_a_callback_no_answer_is_handed_in():
    async with rig({"f": Behaviour()}) as r:
        r.enqueue(r.deploy("f"))
        done = await r.record()
    assert (done.body, done.content_type, done.truncated) == (b"", "", False)
