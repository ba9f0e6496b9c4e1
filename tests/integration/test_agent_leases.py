"""Leases of queued calls: renewed, lost, shared out between functions, given back; on scripted containers."""

from __future__ import annotations

import asyncio

import msgspec

from runner_node import agent, leases
from runner_node.drivers.fake import open_fake
from runner_node.drivers.fake_behaviour import Behaviour
from runner_node.settings import AgentSettings
from shared_models import async_policy, errors, times
from shared_models.app import App
from shared_models.call import Call, CallType, Lease, LeasedCall, Reason, Status
from shared_models.fn import Fn
from shared_models.ids import new_id
from shared_models.runner import RunnerState
from tests.integration.test_agent import MIB, Rig, rig, settled, until
from tests.unit.runner_node.scripted_data import ScriptedData

# -- leases ------------------------------------------------------------------------------------


async def test_a_lease_is_renewed_every_few_seconds_however_long_it_lasts(monkeypatch):
    monkeypatch.setattr(leases, "LONGEST_RENEWAL", 0.02)
    async with rig({"f": Behaviour(hangs=True)}) as r:
        call_id = r.enqueue(r.deploy("f"), ttl=3600)
        await until(lambda: r.data.asked["extend"] > 3)
        r.data.lost.append(call_id)
        await until(lambda: r.driver.removed == 1)


async def test_a_lease_is_renewed_until_its_result_is_taken():
    async with rig({"f": Behaviour()}) as r:
        r.enqueue(r.deploy("f"))
        await until(lambda: r.data.started)
        r.data.hold("finish")
        await until(lambda: r.data.asked["finish"])
        renewed = r.data.asked["extend"]
        await until(lambda: r.data.asked["extend"] > renewed + 2)
        r.data.let_go("finish")
        await r.record()
        await until(lambda: not len(r.agent.dequeuer.leases))


async def test_a_call_that_is_handed_out_again_is_run_for_its_new_lease_alone():
    async with rig({"f": Behaviour(hangs=True), "g": Behaviour()}) as r:
        fn = r.deploy("f", timeout=60)
        call_id = r.enqueue(fn)
        await until(lambda: r.data.started)
        r.driver.behaviours["f"] = Behaviour()
        r.enqueue(fn, attempt=2, id=call_id, token="second")
        done = await r.record()
        await until(lambda: r.driver.removed >= 1)
    assert [(one.call.id, one.token, one.call.attempt) for one in r.data.finished] == [(call_id, "second", 2)]
    assert done.call.status == Status.SUCCESS


async def test_a_refused_result_is_counted_and_dropped():
    from runner_node import metrics

    before = metrics.results_refused._value.get()
    async with rig({"f": Behaviour()}) as r:
        r.data.refuse_all = True
        r.enqueue(r.deploy("f"))
        await until(lambda: metrics.results_refused._value.get() == before + 1)
        await until(lambda: not len(r.agent.dequeuer.leases))
    assert r.data.finished == []


# -- shares ------------------------------------------------------------------------------------


async def test_a_slow_function_leaves_places_to_others():
    async with rig({"slow": Behaviour(hangs=True), "quick": Behaviour()}, max_async=4) as r:
        slow, quick = r.deploy("slow", timeout=60), r.deploy("quick")
        for _ in range(10):
            r.enqueue(slow)
        for _ in range(5):
            r.enqueue(quick)
        for number in range(5):
            assert (await r.record(number)).call.fn_id == quick.id
        await until(lambda: len(r.data.started) == 5 + 4)  # nobody else waits: it may have all of them


async def test_a_function_has_no_more_calls_here_than_its_annotation_allows():
    cap = {async_policy.MAX_CONCURRENCY: msgspec.Raw(b"2")}
    async with rig({"f": Behaviour(hangs=True), "g": Behaviour()}, max_memory=4096 * MIB) as r:
        fn, other = r.deploy("f", timeout=60, annotations=cap), r.deploy("g")
        ids = [r.enqueue(fn) for _ in range(5)]
        await until(lambda: len(r.data.started) == 2)
        await until(lambda: not r.data.queued.empty() or len(r.data.released) == 3)
        r.enqueue(other)
        assert (await r.record()).call.fn_id == other.id
        assert r.data.started[:2] == ids[:2]
        assert len([one for one in r.data.started if one in ids]) == 2
        assert r.data.asked_for[-1][2] == {fn.id}


async def test_a_capped_functions_next_call_comes_as_soon_as_one_has_ended(monkeypatch):
    monkeypatch.setattr("runner_node.shares.SHORT_WAIT", 3600.0)
    cap = {async_policy.MAX_CONCURRENCY: msgspec.Raw(b"1")}
    async with rig({"f": Behaviour(call_delay=0.05)}) as r:
        fn = r.deploy("f", annotations=cap)
        r.enqueue(fn)
        await until(lambda: r.data.asked_for and r.data.asked_for[-1][2] == {fn.id})
        r.enqueue(fn)  # the long poll passes it over, for an hour
        await r.record(1)
    assert {one.call.status for one in r.data.finished} == {Status.SUCCESS}


# -- drain -------------------------------------------------------------------------------------


async def drained(r, state: RunnerState) -> None:
    r.data.state = state
    await r.agent.health._report()


async def test_a_runner_that_is_told_to_drain_takes_nothing_and_runs_on_until_it_is_active():
    async with rig({"f": Behaviour(call_delay=0.3)}) as r:
        fn = r.deploy("f")
        running = r.enqueue(fn)
        await until(lambda: r.data.started == [running])
        await drained(r, RunnerState.DRAINING)
        assert r.agent.ready() == "the node is draining"
        await settled()
        waiting = r.enqueue(fn)
        assert (await r.record()).call.id == running
        assert not r.data.queued.empty()
        await drained(r, RunnerState.ACTIVE)
        assert (await r.record(1)).call.id == waiting


async def test_a_runner_that_is_told_to_drain_gives_unstarted_calls_back_at_once():
    async with rig({"f": Behaviour(start_delay=3600)}, start_timeout=5.0) as r:
        call_id = r.enqueue(r.deploy("f", timeout=300))
        await until(lambda: r.driver.started == 1)
        await drained(r, RunnerState.DRAINING)
        await until(lambda: r.data.released == [call_id])
        assert r.data.started == []


async def test_what_a_long_poll_leased_in_the_moment_of_a_drain_is_given_back():
    async with rig({"f": Behaviour()}) as r:
        fn = r.deploy("f")
        late = Call(id=new_id(), app_id="app", fn_id=fn.id, type=CallType.DETACHED, attempt=1)
        await until(lambda: r.data.asked_for)
        r.data.late = [LeasedCall(call=late, lease=Lease(token="t", attempt=1, ttl=30))]
        await drained(r, RunnerState.DRAINING)
        await until(lambda: r.data.released == [late.id])
        assert r.data.started == []


async def test_what_a_long_poll_leased_in_the_moment_of_the_stop_is_given_back():
    async with rig({"f": Behaviour()}) as r:
        late = Call(id=new_id(), app_id="app", fn_id="f", type=CallType.DETACHED, attempt=1)
        await until(lambda: r.data.asked_for)
        r.data.late = [LeasedCall(call=late, lease=Lease(token="t", attempt=1, ttl=30))]
    assert r.data.released == [late.id]
    assert r.data.started == []


async def test_giving_back_is_finished_whatever_the_stop_interrupts():
    async with rig({"f": Behaviour(start_delay=3600)}, start_timeout=5.0) as r:
        r.data.hold("release")
        call_id = r.enqueue(r.deploy("f", timeout=300))
        await until(lambda: r.driver.started == 1)
        await drained(r, RunnerState.DRAINING)
        await until(lambda: r.data.asked["release"])
        asyncio.get_running_loop().call_later(0.05, r.data.let_go, "release")
    assert r.data.released == [call_id]


async def test_a_node_that_is_told_to_stop_gives_unstarted_calls_back_while_it_still_serves():
    async with rig({"f": Behaviour(start_delay=3600)}, start_timeout=5.0) as r:
        call_id = r.enqueue(r.deploy("f", timeout=300))
        await until(lambda: r.driver.started == 1)
        r.agent.stopping()
        await until(lambda: r.data.released == [call_id])


async def test_a_run_that_is_cut_off_by_the_stop_is_handed_in_with_its_log():
    behaviour = Behaviour(hangs=True, output=b"so far\n")
    async with rig({"f": behaviour}, drain=0.05) as r:
        call_id = r.enqueue(r.deploy("f", timeout=300))
        await until(lambda: r.data.started == [call_id])
        await until(lambda: r.driver.containers[0].calls)
    [done] = r.data.finished
    assert (done.call.id, done.token) == (call_id, f"token of {call_id}")
    assert (done.call.status, done.call.reason) == (Status.ERROR, Reason.RUNNER_STOPPED)
    assert done.call.error == errors.RunnerStopped.text
    assert done.call.started_at != times.NEVER
    assert done.log == b"so far\n"


async def test_the_time_of_calls_that_run_begins_with_the_stop_and_not_when_the_server_is_done():
    async with rig({"f": Behaviour(hangs=True)}, drain=0.05) as r:
        r.enqueue(r.deploy("f", timeout=300))
        await until(lambda: r.driver.containers and r.driver.containers[0].calls)
        r.agent.stopping()
        done = await r.record()
    assert (done.call.status, done.call.reason) == (Status.ERROR, Reason.RUNNER_STOPPED)


async def test_a_runner_that_the_api_node_refuses_keeps_nobodys_call():
    async with rig({"f": Behaviour()}) as r:
        r.data.unauthorized_look_ups = True
        call_id = r.enqueue(Fn(id=new_id(), app_id="app"))
        await until(lambda: r.data.released == [call_id])
        assert r.data.finished == []


async def test_a_sync_call_that_the_stop_cuts_off_is_recorded_as_such():
    async with rig({"f": Behaviour(hangs=True)}) as r:
        calling = asyncio.create_task(r.call(r.deploy("f", timeout=300)))
        await until(lambda: r.driver.containers and r.driver.containers[0].calls)
        r.agent.stopping()
        calling.cancel()
        done = await r.record()
    assert (done.call.status, done.call.reason) == (Status.ERROR, Reason.RUNNER_STOPPED)


async def test_a_container_that_is_long_in_coming_does_not_keep_a_node_from_stopping(monkeypatch, caplog):
    monkeypatch.setattr(agent, "CLOSES", 0.05)
    data = ScriptedData()
    data.apps["app"] = App(id="app", name="app")
    settings = AgentSettings(spool_path="", max_memory=1024 * MIB, start_timeout=3600.0, drain=0.05)
    async with open_fake({"f": Behaviour(start_delay=3600)}) as driver, asyncio.timeout(60):
        async with agent.running_agent(data, driver, settings, "node") as running:
            call_id = Rig(running, driver, data).enqueue(Rig(running, driver, data).deploy("f"))
            await until(lambda: driver.started)
        assert data.released == [call_id]
        assert "left to the driver" in caplog.text
