"""Calls on the fast path that wait, are refused, lose their clients, or see their node stop."""

from __future__ import annotations

import asyncio
import re
from contextlib import AsyncExitStack

import pytest

from runner_node.conversation import OverSocket
from runner_node.drivers.contract import Exit
from runner_node.drivers.fake_behaviour import Answer, Behaviour
from runner_node.drivers.fake_container import FakeContainer
from shared_models import errors, times
from shared_models.call import Reason, Status
from tests.integration.quick import QuickRig, answer, common, invoke, quick_rig
from tests.integration.test_agent import MIB, settled, until
from tests.integration.test_agent_around import Listening
from tests.unit.shared_models.fast_paths import turns

ONE = {"max_memory": 150 * MIB}
"""Room for one container."""
BEGUN = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n3\r\none\r\n"
)


async def holding(r: QuickRig, name: str = "f") -> FakeContainer:
    """The container of a function that the fast path knows, which takes calls and holds them."""
    fn = r.deploy(name)
    await r.told(r.ordinary, fn)
    await r.ends(0)
    r.fn = fn
    (container,) = r.driver.alive
    container._thawed.clear()
    return container


# -- containers --------------------------------------------------------------------------------


async def test_a_function_that_closes_its_connection_after_each_answer_keeps_its_container() -> None:
    closes = Answer(headers=(("Connection", "close"),), body=b"x")
    async with quick_rig({"f": Behaviour(function=lambda request: closes)}) as r:
        fn = r.deploy("f")
        await r.knows(fn)
        for _ in range(5):
            assert (await r.told(r.fast, fn))[1] == b"x"
        assert r.driver.started == 1
        assert r.quick == 5


async def test_what_a_function_says_unasked_is_no_answer_to_the_next_call() -> None:
    async with quick_rig({"f": Behaviour()}) as r:
        fn = r.deploy("f")
        await r.knows(fn)
        for number in range(3):
            assert (await r.told(r.fast, fn, b"%d" % number))[1] == b"%d" % number
            (container,) = r.driver.alive
            for writer in container._writers:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")
        assert r.quick == 3
        assert r.driver.started == 1


async def test_a_frozen_container_is_woken() -> None:
    async with quick_rig({"f": Behaviour()}, freeze_idle=0.02) as r:
        fn = r.deploy("f")
        await r.knows(fn)
        for number in range(1, 4):
            assert (await r.told(r.fast, fn, b"%d" % number))[1] == b"%d" % number
            await until(lambda number=number: r.driver.frozen == number)
        assert r.driver.started == 1
        assert (r.quick, r.driver.unfrozen) == (3, 2)


async def test_a_call_that_cannot_be_sent_is_told_so_and_costs_its_container(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*given: object) -> None:
        raise RuntimeError("the transport is closed")

    async with quick_rig({"f": Behaviour()}) as r:
        fn = r.deploy("f")
        await r.told(r.fast, fn)
        await r.ends(0)
        with monkeypatch.context() as patch:
            patch.setattr(OverSocket, "send", broken)
            head, _ = await r.told(r.fast, fn)
        assert head.startswith(b"HTTP/1.1 500 ")
        await until(lambda: not r.driver.alive)
        assert r.agent.running == r.series(fn).running == 0
        assert (await r.told(r.fast, fn, b"next"))[1] == b"next"
    assert "RuntimeError: the transport is closed" in caplog.text


# -- the line ----------------------------------------------------------------------------------


async def test_calls_that_wait_are_served_in_their_order() -> None:
    async with quick_rig({"f": Behaviour()}, **ONE) as r, AsyncExitStack() as stack:
        container = await holding(r)
        clients = [await stack.enter_async_context(r.fast.client()) for _ in range(8)]
        for number, client in enumerate(clients, 1):
            client.send(invoke(r.fn, b"%d" % number))
            await until(lambda number=number: r.quick == number)
        assert (r.agent.scheduler.waiting(), r.series(r.fn).queued) == (7, 7)
        container._thawed.set()
        for number, client in enumerate(clients, 1):
            assert (await answer(client))[1] == b"%d" % number
        for number in range(1, 9):
            assert (await r.ends(number)).call.status == Status.SUCCESS
        assert (r.sent, r.driver.started) == (8, 1)
        assert (r.agent.scheduler.waiting(), r.series(r.fn).queued) == (0, 0)


@pytest.mark.parametrize("settings", [{"max_waiting_calls": 1}, {"max_waiting_size": 10}])
async def test_without_a_place_to_wait_a_call_is_refused_the_same_both_ways(settings: dict[str, int]) -> None:
    async with quick_rig({"f": Behaviour()}, **ONE, **settings) as r, AsyncExitStack() as stack:
        container = await holding(r)
        clients = [await stack.enter_async_context(r.fast.client()) for _ in range(2)]
        for number, client in enumerate(clients, 1):
            client.send(invoke(r.fn, b"0123456789"))
            await until(lambda number=number: r.quick == number)
        seen = []
        for number, node in enumerate((r.ordinary, r.fast), 1):
            head, body = await r.told(node, r.fn)
            head, given = re.subn(rb"(?<=\r\nRetry-After: )\d+", b"...", head)
            assert given == 1
            seen.append(((head, body), common(await r.ends(number))))
        assert seen[0] == seen[1]
        assert seen[0][0][0].startswith(b"HTTP/1.1 503 ")
        assert seen[0][1]["call"]["reason"] == Reason.NO_ROOM
        container._thawed.set()
        for client in clients:
            assert (await answer(client))[1] == b"0123456789"
        assert (await r.told(r.fast, r.fn))[1] == b"x"


async def test_patience_ends_the_same_both_ways() -> None:
    async with quick_rig({"f": Behaviour()}, slot_wait=0.3, **ONE) as r, r.fast.client() as first:
        container = await holding(r)
        first.send(invoke(r.fn, b"first"))
        await until(lambda: r.quick)
        seen = []
        for number, node in enumerate((r.ordinary, r.fast), 1):
            head, body = await r.told(node, r.fn)
            call = common(await r.ends(number))["call"]
            call["error"], measured = re.subn(r"within [\d.]+ s", "in time", call["error"])
            assert measured == 1
            seen.append((head.split(b"\r\n")[0], body, call))
            assert b"\r\nRetry-After: " in head
        assert seen[0] == seen[1]
        assert seen[0][0] == b"HTTP/1.1 503 Service Unavailable"
        container._thawed.set()
        assert (await answer(first))[1] == b"first"
        await r.ends(3)


async def test_a_call_whose_client_goes_while_it_waits_is_not_begun() -> None:
    async with quick_rig({"f": Behaviour()}, **ONE) as r, r.fast.client() as first, r.fast.client() as last:
        container = await holding(r)
        first.send(invoke(r.fn, b"first"))
        await until(lambda: r.quick == 1)
        async with r.fast.client() as gone:
            gone.send(invoke(r.fn, b"gone"))
            await until(lambda: r.quick == 2)
        last.send(invoke(r.fn, b"last"))
        await until(lambda: r.quick == 3)
        container._thawed.set()
        assert (await answer(first))[1] == b"first"
        assert (await answer(last))[1] == b"last"
        done = [await r.ends(number) for number in (1, 2, 3)]
        assert sorted(one.call.reason for one in done) == ["", "", Reason.CANCELLED]
        assert container.calls == 3  # the one that made it known, the first and the last
        assert r.series(r.fn).queued == 0


@pytest.mark.parametrize(
    "behaviour",
    [
        Behaviour(start_error=errors.ContainerInitFailed(detail="no")),
        Behaviour(pull_error=errors.ImagePullFailed("f", "no", 500)),
        Behaviour(exits_at_start=Exit(3), output=b"why"),
    ],
    ids=["start", "pull", "exit"],
)
async def test_a_start_that_fails_is_told_the_same_both_ways(behaviour: Behaviour) -> None:
    seen = []
    for way in ("ordinary", "fast"):
        async with quick_rig({"f": behaviour}) as r:
            fn = r.deploy("f")
            await r.knows(fn)
            told = [await r.told(getattr(r, way), fn) for _ in range(3)]
            records = [common(await r.ends(number)) for number in range(3)]
            for record in records:
                record["call"].pop("fn_id")
            seen.append((told, records))
            assert r.quick == (3 if way == "fast" else 0)
    assert seen[0] == seen[1]


# -- clients that go ---------------------------------------------------------------------------


async def test_a_call_whose_client_goes_while_it_runs_goes_on_to_its_end_once() -> None:
    async with quick_rig({"f": Behaviour()}) as r:
        container = await holding(r)
        async with r.fast.client() as client:
            client.send(invoke(r.fn))
            await until(lambda: r.sent)
        await turns(20)
        container._thawed.set()
        assert (await r.ends(1)).call.status == Status.SUCCESS
        assert container.calls == 2
        assert r.driver.started == 1


@pytest.mark.parametrize("ends", [False, True])
async def test_a_streamed_answer_that_nobody_reads_is_waited_for_and_cut_off_at_last(ends: bool) -> None:
    async with quick_rig({"f": Behaviour()}, http={"drain": 30.0 if ends else 0.2}) as r:
        container = await holding(r)
        async with r.fast.client() as client:
            client.send(invoke(r.fn))
            await until(lambda: r.sent)
        await turns(20)
        (writer,) = container._writers
        writer.write(BEGUN)
        await turns(50)
        assert r.agent.running == 1
        if ends:
            asyncio.get_running_loop().call_later(0.3, writer.write, b"0\r\n\r\n")
    done = r.data.finished[1].call
    assert (done.status, done.reason) == (
        (Status.SUCCESS, "") if ends else (Status.ERROR, Reason.RUNNER_STOPPED)
    )
    assert r.driver.started == 1


async def test_a_streamed_answer_is_handed_over_as_it_comes() -> None:
    async with quick_rig({"f": Behaviour()}) as r, r.fast.client() as client:
        container = await holding(r)
        client.send(invoke(r.fn))
        await until(lambda: r.sent)
        (writer,) = container._writers
        writer.write(BEGUN)
        assert b"\r\nTransfer-Encoding: chunked\r\n" in await client.head()
        assert await client.reader.readuntil(b"one\r\n") == b"3\r\none\r\n"
        assert len(r.data.finished) == 1
        writer.write(b"3\r\ntwo\r\n0\r\n\r\n")
        assert await client.reader.readuntil(b"0\r\n\r\n") == b"3\r\ntwo\r\n0\r\n\r\n"
        assert (await r.ends(1)).call.status == Status.SUCCESS


# -- what the fast path leaves alone -----------------------------------------------------------


async def test_a_function_that_changes_or_goes_is_asked_for_again() -> None:
    old, new = (Behaviour(function=lambda request, body=body: Answer(body=body)) for body in (b"old", b"new"))
    async with quick_rig({"old": old, "new": new}) as r:
        fn = r.deploy("old")
        await r.knows(fn)
        assert (await r.told(r.fast, fn))[1] == b"old"
        r.data.fns[fn.id] = r.deploy("new")
        assert (await r.told(r.fast, fn))[1] == b"old"
        r.agent.data.outdated("fn", fn.id)
        assert (await r.told(r.fast, fn))[1] == b"new"
        assert r.quick == 2
        del r.data.fns[fn.id]
        r.agent.data.outdated("fn", fn.id)
        assert b" 404 " in (await r.told(r.fast, fn))[0]
        assert r.quick == 2


@pytest.mark.parametrize("what", ["listener", "syslog_url", "detached"])
async def test_what_is_more_than_a_call_goes_the_ordinary_way(what: str) -> None:
    listener = Listening()
    given = {"listener": listener, "syslog_url": "udp://127.0.0.1:9", "detached": None}
    async with quick_rig({"f": Behaviour()}, **({} if what == "detached" else {what: given[what]})) as r:
        fn = r.deploy("f")
        await r.knows(fn)
        head, body = await r.told(r.fast, fn, more="Fn-Invoke-Type: detached\r\n" * (what == "detached"))
        assert r.quick == 0
        if what == "detached":
            assert b" 202 " in head
        else:
            assert body == b"x"
            await r.ends(0)
    if what == "listener":
        assert len(listener.before) == len(listener.after) == 1


# -- the node stops ----------------------------------------------------------------------------


async def test_a_node_that_stops_lets_calls_end_that_run_or_wait() -> None:
    async with AsyncExitStack() as stack:
        async with quick_rig({"f": Behaviour()}, **ONE) as r:
            container = await holding(r)
            clients = [await stack.enter_async_context(r.fast.client()) for _ in range(2)]
            for number, client in enumerate(clients, 1):
                client.send(invoke(r.fn))
                await until(lambda number=number: r.quick == number)
            asyncio.get_running_loop().call_later(0.3, container._thawed.set)
        for client in clients:
            assert (await answer(client))[1] == b"x"
    assert [one.call.status for one in r.data.finished] == [Status.SUCCESS] * 3


async def test_a_node_that_stops_cuts_off_calls_that_run_or_wait_and_says_so() -> None:
    async with AsyncExitStack() as stack:
        async with quick_rig({"f": Behaviour()}, http={"drain": 0.2}, **ONE) as r:
            await holding(r)
            clients = [await stack.enter_async_context(r.fast.client()) for _ in range(3)]
            for number, client in enumerate(clients, 1):
                client.send(invoke(r.fn))
                await until(lambda number=number: r.quick == number)
            clients[2].hang_up()
            await settled()
        for client in clients[:2]:
            assert await client.ends() == b""
    ended = [one.call for one in r.data.finished[1:]]
    assert len({one.id for one in ended}) == 3
    assert [(one.status, one.reason) for one in ended] == [(Status.ERROR, Reason.RUNNER_STOPPED)] * 3
    assert [one.started_at != times.NEVER for one in ended].count(True) == 1
    assert r.driver.started == 1
    assert (r.series(r.fn).queued, r.series(r.fn).running) == (0, 0)
