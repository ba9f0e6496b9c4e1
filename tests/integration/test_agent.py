"""The agent on scripted containers: what functions do to it, and what it makes of that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from runner_node.agent import Agent, running_agent
from runner_node.drivers.contract import Exit
from runner_node.drivers.fake import FakeDriver, open_fake
from runner_node.drivers.fake_behaviour import Answer, Behaviour
from runner_node.hot_container import StartFailed
from runner_node.job import Job
from runner_node.protocols.http_stream import Response
from runner_node.settings import AgentSettings
from shared_models import errors, times
from shared_models.app import App
from shared_models.call import Call, CallType, Finished, Lease, LeasedCall, Reason, Status
from shared_models.fn import Fn
from shared_models.ids import new_id
from shared_models.listeners import CallListeners
from tests.unit.runner_node.scripted_data import ScriptedData

MIB = 1 << 20


class Rig:
    """An agent, its driver and its data, with shortcuts."""

    def __init__(self, agent: Agent, driver: FakeDriver, data: ScriptedData) -> None:
        self.agent = agent
        self.driver = driver
        self.data = data

    def deploy(self, image: str, **fields: Any) -> Fn:
        fields = {"memory": 128, "timeout": 60, "idle_timeout": 60, **fields}
        fn = Fn(id=new_id(), name=image, app_id="app", image=image, **fields)
        self.data.fns[fn.id] = fn
        return fn

    async def call(self, fn: Fn, body: bytes = b"x", **job: Any) -> Response:
        target = self.agent.target(await self.agent.data.fn(fn.id), await self.agent.data.app("app"))
        call = Call(id=new_id(), app_id="app", fn_id=fn.id, created_at=times.now(), attempt=1)
        fields = {"headers": [], "body": body, "sync": True, "patience": 60.0, **job}
        return await self.agent.run(Job(call=call, target=target, **fields))

    def enqueue(self, fn: Fn, attempt: int = 1, ttl: float = 0.3, token: str = "", **fields: Any) -> str:
        fields = {"id": new_id(), "payload": b"x", "annotations": fn.annotations, **fields}
        call = Call(
            app_id="app", fn_id=fn.id, type=CallType.DETACHED, format="http-stream", created_at=times.now(),
            attempt=attempt, **fields,
        )  # fmt: skip
        lease = Lease(token=token or f"token of {call.id}", attempt=attempt, ttl=ttl)
        self.data.queued.put_nowait(LeasedCall(call=call, lease=lease))
        return call.id

    def starts_take_long(self) -> None:
        """Of all functions called so far: a machine that stalls makes no start look worth it."""
        for queue in self.agent.scheduler._queues.values():
            queue.pace.start_time = 5.0

    async def record(self, number: int = 0) -> Finished:
        await until(lambda: len(self.data.finished) > number)
        return self.data.finished[number]


async def until(condition: Callable[[], object], limit: float = 60) -> None:
    async with asyncio.timeout(limit):
        while not condition():
            await asyncio.sleep(0.002)


async def settled() -> None:
    """Everything that is ready to happen has happened."""
    for _ in range(20):
        await asyncio.sleep(0)


@asynccontextmanager
async def rig(
    behaviours: dict[str, Behaviour], listeners: CallListeners | None = None, **settings: Any
) -> AsyncIterator[Rig]:
    data = ScriptedData()
    data.apps["app"] = App(id="app", name="app")
    settings = {
        "spool_path": "", "max_memory": 1024 * MIB, "freeze_idle": 60.0, "eject_idle": 0.05, "drain": 1.0,
        "start_timeout": 30.0, **settings,
    }  # fmt: skip
    async with open_fake(behaviours) as driver:
        async with running_agent(
            data, driver, AgentSettings(**settings), "node", listeners=listeners
        ) as agent:
            yield Rig(agent, driver, data)
        assert not driver.alive, "a container was left"
        memory = agent.scheduler.resources
        assert (memory.free_memory, memory.leaving_memory) == (memory.memory, 0), "memory was lost"


# -- sync calls --------------------------------------------------------------------------------


async def test_a_call_is_answered_and_recorded_with_its_log():
    function = Behaviour(function=lambda request: Answer(body=b"hi " + request.body, log=b"a line\n"))
    async with rig({"f": function}) as r:
        fn = r.deploy("f")
        assert (await r.call(fn, b"there")).body == b"hi there"
        done = await r.record()
    assert done.call.status == Status.SUCCESS
    assert done.log == b"a line\n"
    assert done.call.created_at <= done.call.started_at <= done.call.completed_at
    assert done.call.node == "node"
    assert done.call.attempt == 1


async def test_the_container_is_kept_for_the_next_call():
    async with rig({"f": Behaviour()}) as r:
        fn = r.deploy("f")
        for _ in range(5):
            await r.call(fn)
            r.starts_take_long()
        assert r.driver.started == 1


async def test_binary_and_empty_payloads_arrive_unchanged():
    async with rig({"f": Behaviour()}) as r:
        fn = r.deploy("f")
        for body in (b"", b"\0\xff\r\n\r\n0\r\n\r\n", bytes(range(256)) * 5000):
            assert (await r.call(fn, body)).body == body


async def test_a_body_may_come_in_pieces():
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"one ", b"", b"two ", b"three"):
            yield piece

    async with rig({"f": Behaviour()}) as r:
        assert (await r.call(r.deploy("f"), pieces())).body == b"one two three"


async def test_a_body_that_breaks_off_costs_the_container_not_the_node():
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        raise errors.TooLarge

    async with rig({"f": Behaviour()}) as r:
        fn = r.deploy("f")
        with pytest.raises(errors.TooLarge):
            await r.call(fn, pieces())
        assert (await r.call(fn)).body == b"x"
        assert r.driver.started == 2
        assert (await r.record()).call.status == Status.ERROR


async def test_logs_of_calls_on_one_container_do_not_mix():
    function = Behaviour(function=lambda request: Answer(log=request.body + b"\n"))
    async with rig({"f": function}) as r:
        fn = r.deploy("f")
        for number in range(20):
            await r.call(fn, b"%d" % number)
        await r.record(19)
        assert [one.log for one in r.data.finished] == [b"%d\n" % number for number in range(20)]


async def test_what_a_function_writes_late_is_in_no_other_calls_log():
    async with rig({"f": Behaviour(function=lambda request: Answer(log=b"mine\n"))}) as r:
        fn = r.deploy("f")
        await r.call(fn)
        await r.record()
        r.driver.containers[0].log(b"late\n")
        await r.call(fn)
        await r.record(1)
        assert [one.log for one in r.data.finished] == [b"mine\n", b"mine\n"]


# -- what functions do -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("behaviour", "error", "reason", "words"),
    [
        (Behaviour(hangs=True), errors.CallTimedOut, Reason.TIMEOUT, "Timed out"),
        (Behaviour(garbage=b"garbage\r\n\r\n"), errors.FunctionResponseError, Reason.FUNCTION, "not HTTP"),
        (Behaviour(exits_in_call=1, exit=Exit(3)), errors.FunctionResponseError, Reason.EXIT, "exit code 3"),
        (Behaviour(exits_in_call=1, exit=Exit(137)), errors.FunctionResponseError, Reason.EXIT, "code 137"),
        (
            Behaviour(exits_in_call=1, exit=Exit(137, oom=True)),
            errors.FunctionResponseError, Reason.OOM, "container out of memory, you may want to raise",
        ),
        (
            Behaviour(function=lambda r: Answer(status=500)),
            errors.FunctionInvalidResponse, Reason.FUNCTION, "status 500",
        ),
        (Behaviour(function=lambda r: Answer(status=502)), errors.FunctionFailed, Reason.FUNCTION, "failed"),
        (Behaviour(function=lambda r: Answer(status=504)), errors.CallTimedOut, Reason.TIMEOUT, "Timed out"),
    ],
    ids=[
        "hangs", "garbage", "exits", "killed", "out of memory", "broken FDK", "says so", "says it is late",
    ],
)  # fmt: skip
async def test_a_function_that_misbehaves_fails_its_call_and_not_the_next(behaviour, error, reason, words):
    async with rig({"f": behaviour, "good": Behaviour()}) as r:
        fn = r.deploy("f", timeout=1 if behaviour.hangs else 30)
        with pytest.raises(error):
            await r.call(fn)
        done = await r.record()
        assert done.call.status == (Status.TIMEOUT if reason is Reason.TIMEOUT else Status.ERROR)
        assert done.call.reason == reason
        assert words in done.call.error
        assert (await r.call(r.deploy("good"))).body == b"x"


async def test_a_function_that_answers_too_much_is_cut_off():
    async with rig(
        {"f": Behaviour(function=lambda r: Answer(body=b"x" * 10_000_000))}, max_response_size=1000
    ) as r:
        with pytest.raises(errors.FunctionResponseTooLarge):
            await r.call(r.deploy("f"))
        assert (await r.record()).call.error == "function response body too large"


async def test_a_function_that_says_it_failed_keeps_its_container():
    async with rig({"f": Behaviour(function=lambda r: Answer(status=502))}) as r:
        fn = r.deploy("f")
        for _ in range(3):
            with pytest.raises(errors.FunctionFailed):
                await r.call(fn)
            r.starts_take_long()
        assert r.driver.started == 1


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (Behaviour(socket="never"), errors.ContainerInitTimedOut),
        (Behaviour(socket="file"), errors.ContainerInitFailed),
        (Behaviour(exits_at_start=Exit(1), output=b"no module named x\n"), errors.ContainerInitFailed),
        (Behaviour(pull_error=errors.ImagePullFailed("f", "denied", 403)), errors.ImagePullFailed),
        (
            Behaviour(start_error=errors.ContainerInitFailed(detail="no such file")),
            errors.ContainerInitFailed,
        ),
    ],
    ids=["no socket", "a file", "exits", "no image", "no start"],
)
async def test_a_container_that_never_becomes_ready_fails_the_call_with_its_reason(behaviour, error):
    limit = 0.5 if behaviour.socket == "never" else 30.0
    async with rig({"f": behaviour}, start_timeout=limit) as r:
        with pytest.raises(StartFailed) as failure:
            await r.call(r.deploy("f"))
        assert isinstance(failure.value.error, error)
        done = await r.record()
        assert done.call.status in (Status.ERROR, Status.TIMEOUT) or error is errors.ContainerInitTimedOut
        assert done.call.error.startswith(failure.value.error.message)
        assert done.call.reason == Reason.NOT_STARTED
        assert done.log == behaviour.output
        assert done.call.started_at == times.NEVER


async def test_what_a_container_says_while_it_starts_is_in_the_log_of_its_first_call():
    function = Behaviour(output=b"hello\n", function=lambda r: Answer(log=b"call\n"))
    async with rig({"f": function}) as r:
        fn = r.deploy("f")
        await r.call(fn)
        await r.call(fn)
        await r.record(1)
        assert [one.log for one in r.data.finished] == [b"hello\ncall\n", b"call\n"]


async def test_a_container_that_ends_while_idle_is_not_used():
    async with rig({"f": Behaviour(exits_after=1)}) as r:
        fn = r.deploy("f")
        for _ in range(3):
            assert (await r.call(fn)).body == b"x"
            await until(lambda: not r.driver.alive)
        assert r.driver.started == 3


async def test_a_container_that_has_ended_before_the_runner_hears_of_it_costs_no_call():
    async with rig({"f": Behaviour()}) as r:
        fn = r.deploy("f")
        await r.call(fn)
        r.driver.containers[0].end(Exit(137))  # and at once, in the same turn of the loop:
        assert (await r.call(fn)).body == b"x"
        assert (r.driver.started, r.driver.containers[0].calls) == (2, 1)
        await r.record(1)
        assert {one.call.status for one in r.data.finished} == {Status.SUCCESS}


async def test_a_function_that_stops_listening_costs_its_container_and_no_call():
    async with rig({"f": Behaviour()}) as r:
        fn = r.deploy("f")
        await r.call(fn)
        r.driver.containers[0].hang_up()
        assert (await r.call(fn)).body == b"x"
        assert r.driver.started == 2
        await until(lambda: r.driver.removed == 1)


async def test_an_engine_that_is_away_is_named_and_found_again():
    async with rig({"f": Behaviour()}) as r:
        await until(lambda: r.agent.ready() == "")
        r.driver.down = "connection refused"
        fn = r.deploy("f")
        with pytest.raises(StartFailed) as failure:
            await r.call(fn)
        assert isinstance(failure.value.error, errors.EngineUnavailable)
        await r.agent.health._look_at_engine()
        assert "connection refused" in r.agent.ready()
        r.driver.down = ""
        await r.agent.health._look_at_engine()
        assert r.agent.ready() == ""
        assert (await r.call(fn)).body == b"x"


async def test_a_runner_that_the_api_node_refuses_is_not_ready_until_it_is_taken():
    async with rig({}) as r:
        await until(lambda: r.agent.ready() == "")
        r.data.unauthorized = True
        await r.agent.health._report()
        assert "FN_RUNNER_TOKEN" in r.agent.ready()
        r.data.unauthorized = False
        await r.agent.health._report()
        assert r.agent.ready() == ""


# -- scheduling --------------------------------------------------------------------------------


async def test_many_callers_of_a_short_function_share_few_containers():
    async with rig({"f": Behaviour()}) as r:
        fn = r.deploy("f")
        await r.call(fn)
        r.starts_take_long()
        await asyncio.gather(*(r.call(fn) for _ in range(64)))
        assert r.driver.started <= 4


async def test_callers_of_a_long_function_get_a_container_each():
    async with rig({"f": Behaviour(call_delay=3.0, start_delay=0.01)}) as r:
        fn = r.deploy("f")
        began = asyncio.get_running_loop().time()
        await asyncio.gather(*(r.call(fn) for _ in range(6)))
        assert r.driver.started == 6
        assert asyncio.get_running_loop().time() - began < 5.9


async def test_no_more_containers_than_fit_in_memory_and_everybody_is_served():
    async with rig({"f": Behaviour(call_delay=0.02)}, max_memory=300 * MIB) as r:
        fn = r.deploy("f")
        answers = await asyncio.gather(*(r.call(fn) for _ in range(30)))
        assert len(answers) == 30
        assert len(r.driver.containers) <= 2


async def test_an_idle_container_of_another_function_makes_room():
    async with rig({"a": Behaviour(), "b": Behaviour()}, max_memory=150 * MIB) as r:
        a, b = r.deploy("a"), r.deploy("b")
        for fn in (a, b, a):
            assert (await r.call(fn)).body == b"x"
        assert r.driver.started == 3


async def test_a_busy_function_does_not_starve_another():
    async with rig({"a": Behaviour(call_delay=0.1), "b": Behaviour()}, max_memory=300 * MIB) as r:
        a, b = r.deploy("a"), r.deploy("b")
        stop = asyncio.Event()

        async def keep_busy() -> None:
            while not stop.is_set():
                await r.call(a)

        async with asyncio.TaskGroup() as busy:
            for _ in range(16):
                busy.create_task(keep_busy())
            try:
                await until(lambda: len(r.driver.alive) == 2)
                assert (await r.call(b)).body == b"x"
            finally:
                stop.set()


async def test_what_can_never_fit_is_refused_at_once_with_what_it_needs():
    async with rig({"f": Behaviour()}, max_memory=100 * MIB) as r:
        with pytest.raises(errors.DoesNotFit) as refusal:
            await r.call(r.deploy("f"))
        assert "128 MB" in refusal.value.detail
        assert "100 MB" in refusal.value.detail


async def test_patience_has_an_end():
    async with rig({"f": Behaviour(call_delay=3)}, max_memory=130 * MIB) as r:
        fn = r.deploy("f")
        first = asyncio.create_task(r.call(fn))
        await until(lambda: r.agent.running)
        with pytest.raises(errors.ServerBusy):
            await r.call(fn, patience=0.05)
        await first
        await r.record(1)
        assert {one.call.status for one in r.data.finished} == {Status.SUCCESS, Status.ERROR}


async def test_a_caller_who_leaves_leaks_no_container():
    async with rig({"f": Behaviour(start_delay=0.05)}) as r:
        fn = r.deploy("f")
        leaving = asyncio.create_task(r.call(fn))
        await asyncio.sleep(0.01)
        leaving.cancel()
        await asyncio.wait({leaving})
        assert (await r.call(fn)).body == b"x"
        assert r.driver.started == 1


async def test_idle_containers_are_frozen_and_woken():
    async with rig({"f": Behaviour()}, freeze_idle=0.02) as r:
        fn = r.deploy("f")
        for _ in range(3):
            await r.call(fn)
            r.starts_take_long()
            await until(lambda: r.driver.containers[0].frozen)
        assert (r.driver.started, r.driver.unfrozen) == (1, 2)


async def test_freezing_at_once_is_possible():
    async with rig({"f": Behaviour()}, freeze_idle=0.0) as r:
        fn = r.deploy("f")
        for _ in range(50):
            assert (await r.call(fn)).body == b"x"
            r.starts_take_long()
        assert r.driver.started == 1


async def test_idle_containers_are_removed_after_the_functions_idle_timeout():
    async with rig({"f": Behaviour()}, freeze_idle=0.01) as r:
        fn = r.deploy("f", idle_timeout=1)
        await r.call(fn)
        await until(lambda: r.driver.removed == 1)


async def test_a_changed_function_gets_new_containers():
    async with rig({"f": Behaviour(function=lambda q: Answer(body=q.container.spec.env["K"].encode()))}) as r:
        fn = r.deploy("f", config={"K": "old"})
        assert (await r.call(fn)).body == b"old"
        changed = Fn(**{**{n: getattr(fn, n) for n in fn.__struct_fields__}, "config": {"K": "new"}})
        target = r.agent.target(changed, r.data.apps["app"])
        call = Call(id=new_id(), app_id="app", fn_id=fn.id)
        job = Job(call=call, target=target, headers=[], body=b"", sync=True, patience=5)
        assert (await r.agent.run(job)).body == b"new"
        await until(lambda: r.driver.removed == 1)
