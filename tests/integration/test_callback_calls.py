"""Detached calls with Fn-Callback-Url, from the request to the receiver, over both tiers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from hybrid_client.client import ClientSettings, open_data_access
from runner_node.agent import running_agent
from runner_node.drivers.fake import open_fake
from runner_node.drivers.fake_behaviour import Answer, Behaviour, Request
from runner_node.invoke import invoke_routes
from runner_node.settings import AgentSettings
from services.callbacks.delivery import running_callbacks
from services.callbacks.settings import CallbackSettings
from shared_models.async_policy import MAX_AGE
from shared_models.fn import Fn
from shared_models.web import HTTPSettings, runner_refusals, serving
from tests.integration.live_api import LiveAPI, call_of, live_api
from tests.integration.receivers import Receiver, emptied, quick, receiving


def function(request: Request) -> Answer:
    if request.body == b"fail":
        return Answer(status=502, body=b"cannot do that")
    return Answer(body=request.body.upper(), headers=(("Content-Type", "text/x-loud"),))


@dataclass
class Tiers:
    """An API node that delivers callbacks, a runner node, and a receiver."""

    api: LiveAPI
    runner: aiohttp.ClientSession
    receiver: Receiver

    async def call(self, fn: Fn, body: bytes, url: str = "", **headers: str) -> tuple[int, dict[str, Any]]:
        asked = {"Fn-Invoke-Type": "detached", "Fn-Callback-Url": url or self.receiver.url(), **headers}
        async with self.runner.post(f"/invoke/{fn.id}", data=body, headers=asked) as answer:
            return answer.status, await answer.json()


@asynccontextmanager
async def tiers(folder: Path, settings: CallbackSettings | None = None, **agent: Any) -> AsyncIterator[Tiers]:
    settings = settings or quick()
    http = HTTPSettings(port=0, host="127.0.0.1", drain=5.0)
    async with (
        receiving() as receiver,
        live_api(folder, callbacks=settings) as api,
        running_callbacks(api.stores, settings),
        open_data_access(ClientSettings(api_urls=(api.base_url,))) as data,
        open_fake({"some/image:1": Behaviour(function=function)}) as driver,
        running_agent(data, driver, AgentSettings(spool_path="", **agent), "node-1") as running,
        serving(
            [*invoke_routes(running), *runner_refusals()], http, node_type="runner", ready=running.ready
        ) as port,
        aiohttp.ClientSession(f"http://127.0.0.1:{port}") as runner,
    ):
        yield Tiers(api, runner, receiver)


async def test_the_receiver_is_told_what_the_function_answered(tmp_path: Path) -> None:
    async with tiers(tmp_path) as nodes:
        fn = await nodes.api.fn()
        status, reply = await nodes.call(fn, b"hello")
        assert status == 202
        [arrived] = await nodes.receiver.has(1)
        await emptied(nodes.api.stores)
        record = await nodes.api.json("GET", f"/v2/fns/{fn.id}/calls/{reply['call_id']}")
    told = json.loads(arrived.body)
    assert (told["call_id"], told["fn_id"], told["app_id"]) == (reply["call_id"], fn.id, fn.app_id)
    assert (told["status"], told["error"], told["reason"], told["attempt"]) == ("success", "", "", 1)
    assert (told["body"], told["content_type"], told["truncated"]) == ("HELLO", "text/x-loud", False)
    for moment in ("created_at", "started_at", "completed_at"):
        assert told[moment] == record[moment]


async def test_the_receiver_is_told_of_a_function_that_fails(tmp_path: Path) -> None:
    async with tiers(tmp_path) as nodes:
        await nodes.call(await nodes.api.fn(), b"fail")
        [arrived] = await nodes.receiver.has(1)
    told = json.loads(arrived.body)
    assert (told["status"], told["reason"]) == ("error", "function")
    assert told["error"]


async def test_a_long_answer_is_cut(tmp_path: Path) -> None:
    async with tiers(tmp_path, callback_max_body=5) as nodes:
        await nodes.call(await nodes.api.fn(), b"hello world")
        [arrived] = await nodes.receiver.has(1)
    told = json.loads(arrived.body)
    assert (told["body"], told["truncated"]) == ("HELLO", True)


async def test_a_call_that_is_cancelled_or_too_old_has_a_callback_too(tmp_path: Path) -> None:
    settings = quick()
    async with receiving() as receiver, live_api(tmp_path, callbacks=settings) as api:
        fn = await api.fn()
        cancelled = call_of(fn, callback_url=receiver.url())
        old = call_of(fn, callback_url=receiver.url(), annotations={MAX_AGE: msgspec.Raw(b"1e-9")})
        await api.data.enqueue(cancelled)
        await api.control.cancel(fn.id, cancelled.id)
        await api.data.enqueue(old)
        assert await api.data.dequeue("node-1", 1, 0.0) == []
        async with running_callbacks(api.stores, settings):
            await receiver.has(2)
            await emptied(api.stores)
    told = {arrived.headers["Fn-Call-Id"]: json.loads(arrived.body) for arrived in receiver.requests}
    assert (told[cancelled.id]["status"], told[cancelled.id]["reason"]) == ("cancelled", "cancelled")
    assert (told[old.id]["status"], told[old.id]["reason"]) == ("error", "expired")


@pytest.mark.parametrize("url", ["http://10.1.2.3/", "http://me:pw@example.com/", "http://example.com:25/"])
async def test_an_address_that_may_not_be_called_is_refused_before_the_202(tmp_path: Path, url: str) -> None:
    async with tiers(tmp_path) as nodes:
        fn = await nodes.api.fn()
        status, reply = await nodes.call(fn, b"hello", url)
        assert status == 400
        assert "Fn-Callback-Url: " in json.dumps(reply)
        assert (await nodes.api.json("GET", f"/v2/fns/{fn.id}/calls"))["items"] == []
