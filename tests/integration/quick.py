"""A node that serves its calls both ways: with the fast path on one port, without it on the other."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import msgspec
import pytest

from runner_node.agent import running_agent
from runner_node.conversation import OverSocket
from runner_node.drivers.fake import open_fake
from runner_node.drivers.fake_behaviour import Behaviour
from runner_node.invoke import invoke_routes
from runner_node.metrics import Series, series_of
from runner_node.quick import quick_path
from runner_node.settings import AgentSettings
from shared_models import telemetry, times
from shared_models.app import App
from shared_models.call import Finished
from shared_models.fast_path import Exchange, Pending
from shared_models.fn import Fn
from shared_models.http_settings import HTTPSettings
from shared_models.listeners import CallListener, CallListeners
from shared_models.web import serving
from tests.integration.test_agent import MIB, Rig, settled, until
from tests.unit.runner_node.scripted_data import ScriptedData
from tests.unit.shared_models.fast_paths import Client, Node, post

_ITS_OWN = re.compile(rb"(?<=\r\nFn-Call-Id: )[0-9A-Z]{26}|(?<=\r\nDate: )\w{3}, [^\r]*GMT")

_COUNTED = re.compile(r"(fn_api_(?:(?:request|response)_count|latency_(?:count|sum))\{.*invoke.*\}) (.*)")


class QuickRig(Rig):
    """See the top."""

    fast: Node
    ordinary: Node
    fn: Fn
    quick = 0
    """Calls that the fast path has begun, and those of them that it has sent."""
    sent = 0

    async def knows(self, fn: Fn) -> None:
        """From now on the fast path takes calls of *fn*."""
        await self.agent.data.fn(fn.id)
        await self.agent.data.app(fn.app_id)

    async def told(self, node: Node, fn: Fn, body: bytes = b"x", more: str = "") -> tuple[bytes, bytes]:
        """The head and the body of the answer to one call, without what no two calls share."""
        async with node.client() as client:
            client.send(invoke(fn, body, more))
            return await answer(client)

    async def restarts(self) -> None:
        """All idle containers go: the next call gets a new one, with a connection that is open."""
        for key in list(self.agent.scheduler._queues):
            self.agent.scheduler.supersede(key)
        await until(lambda: not self.agent.scheduler.warm())

    async def ends(self, number: int) -> Finished:
        """The record with that *number*, and all that follows it."""
        done = await self.record(number)
        await until(lambda: not self.agent._tasks)
        await settled()
        return done

    def series(self, fn: Fn) -> Series:
        """What is counted of the function."""
        return series_of("app", fn.name)


def invoke(fn: Fn, body: bytes = b"x", more: str = "") -> bytes:
    """A call; *more* headers end with CRLF."""
    return post(body, f"/invoke/{fn.id}", more)


async def answer(client: Client) -> tuple[bytes, bytes]:
    """The next answer: head, without what no two calls share, and body."""
    head = await client.head()
    length = re.search(rb"Content-Length: (\d+)", head)
    assert length
    return _ITS_OWN.sub(b"...", head), await client.reader.readexactly(int(length[1]))


def common(done: Finished) -> dict[str, Any]:
    """A record without what no two calls share."""
    fields: dict[str, Any] = msgspec.structs.asdict(done)
    call = msgspec.structs.asdict(done.call)
    created, started, completed = (call.pop(name) for name in ("created_at", "started_at", "completed_at"))
    began = started != times.NEVER
    assert created <= (started if began else created) <= completed
    assert len(call.pop("id")) == 26
    return {**fields, "call": {**call, "began": began}}


def counts(series: Series) -> dict[str, Any]:
    """Numbers, and of times how often."""
    values = {name: getattr(series, name) for name in Series.__slots__}
    return {name: getattr(value, "total", value) for name, value in values.items()}


def answers_counted() -> dict[str, float]:
    """What is counted of answers of ``/invoke``."""
    lines = telemetry.exposition().decode().splitlines()
    found = (_COUNTED.fullmatch(line) for line in lines)
    return {match[1]: float(match[2]) for match in found if match}


def less(after: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """What has changed."""
    return {
        name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)
    }


@asynccontextmanager
async def quick_rig(
    behaviours: dict[str, Behaviour], *, listener: CallListener | None = None, syslog_url: str = "",
    http: dict[str, Any] | None = None, **settings: Any,
) -> AsyncIterator[QuickRig]:  # fmt: skip
    """With the settings given of the agent and those for *http*."""
    data, listeners = ScriptedData(), CallListeners()
    data.apps["app"] = App(id="app", name="app", syslog_url=syslog_url or None)
    if listener:
        listeners.add("test", listener)
    given = AgentSettings(**{
        "spool_path": "", "max_memory": 1024 * MIB, "freeze_idle": 60.0, "eject_idle": 0.05, "drain": 1.0,
        "start_timeout": 60.0, **settings,
    })  # fmt: skip
    served = HTTPSettings(**{"port": 0, "host": "127.0.0.1", "drain": 30.0, **(http or {})})
    async with open_fake(behaviours) as driver:
        async with running_agent(data, driver, given, "node", listeners=listeners) as agent:
            rig = QuickRig(agent, driver, data)
            path, routes = quick_path(agent), invoke_routes(agent)

            def counting(exchange: Exchange) -> Pending | None:
                pending = path(exchange)
                rig.quick += pending is not None
                return pending

            send = OverSocket.send

            def counted(self: OverSocket, *given: Any) -> None:
                rig.sent += 1
                send(self, *given)

            async with AsyncExitStack() as stack:
                stack.enter_context(pytest.MonkeyPatch.context()).setattr(OverSocket, "send", counted)
                enter = stack.enter_async_context
                rig.ordinary = Node(await enter(serving(routes, served, node_type="runner")))
                rig.fast = Node(await enter(serving(routes, served, node_type="runner", fast_path=counting)))
                yield rig
                agent.stopping()
            assert not agent.running
            assert not len(agent.scheduler.deadlines)
        assert not driver.alive, "a container was left"
        memory = agent.scheduler.resources
        assert (memory.free_memory, memory.leaving_memory) == (memory.memory, 0), "memory was lost"
