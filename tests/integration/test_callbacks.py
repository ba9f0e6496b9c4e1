"""Callbacks on their way from the outbox to receivers that are as receivers are."""

from __future__ import annotations

import asyncio
import email.utils
import importlib.metadata
import json
import logging
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from services.callbacks.delivery import running_callbacks
from services.logstore.none import NoLogStore
from services.stores import Stores
from shared_models.ids import new_id
from tests.integration.receivers import (
    Counted,
    a_callback,
    emptied,
    leading,
    quick,
    receiving,
    says,
    stores_in,
)
from tests.servers.proxy import proxy


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[Stores]:
    async with stores_in(tmp_path) as opened:
        yield opened


async def test_a_result_is_posted_once(stores: Stores) -> None:
    counted = Counted()
    callback = a_callback("")
    async with receiving() as receiver, running_callbacks(stores, quick()):
        callback = msgspec.structs.replace(callback, url=receiver.url("/done?key=a%2Fb%7Ec"))
        await stores.outbox.put([callback])
        [arrived] = await receiver.has(1)
        await emptied(stores)
    assert len(receiver.requests) == 1
    assert arrived.path == "/done?key=a%2Fb%7Ec"
    assert arrived.body == callback.body
    assert json.loads(arrived.body)["body"] == "hello"
    assert arrived.headers["Content-Type"] == "application/json"
    assert arrived.headers["Fn-Call-Id"] == callback.call_id
    assert arrived.headers["Fn-Callback-Attempt"] == "1"
    assert arrived.headers["User-Agent"] == f"fn-hybrid/{importlib.metadata.version('fn-hybrid')}"
    assert counted.grown() == {"delivered": 1, "failed_attempts": 0, "given_up": 0}


async def test_a_large_result_arrives_whole(stores: Stores) -> None:
    body = b"0123456789abcdef" * 65536
    async with receiving() as receiver, running_callbacks(stores, quick()):
        await stores.outbox.put([a_callback(receiver.url(), body=body)])
        [arrived] = await receiver.has(1)
        await emptied(stores)
    assert json.loads(arrived.body)["body"].encode() == body


@pytest.mark.parametrize("status", [500, 503, 408, 409, 425, 429, 404, 302])
async def test_a_receiver_that_fails_is_asked_again(stores: Stores, status: int) -> None:
    counted = Counted()
    async with receiving(says(status, status, 204)) as receiver, running_callbacks(stores, quick()):
        await stores.outbox.put([a_callback(receiver.url())])
        arrived = await receiver.has(3)
        await emptied(stores)
    assert [one.headers["Fn-Callback-Attempt"] for one in arrived] == ["1", "2", "3"]
    assert len({one.body for one in arrived}) == 1
    assert counted.grown() == {"delivered": 1, "failed_attempts": 2, "given_up": 0}


async def test_a_receiver_that_refuses_is_asked_a_few_times(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    counted = Counted()
    async with receiving(says(403)) as receiver, running_callbacks(stores, quick(max_pause=0.02)):
        await stores.outbox.put([a_callback(receiver.url())])
        await emptied(stores)
    assert len(receiver.requests) == 8
    assert counted.grown() == {"delivered": 0, "failed_attempts": 8, "given_up": 1}
    assert "given up (tries: 8), as it is refused each time: status 403" in caplog.text


async def test_a_receiver_that_is_gone_is_not_asked_again(
    stores: Stores, caplog: pytest.LogCaptureFixture
) -> None:
    counted = Counted()
    callback = a_callback("")
    async with receiving(says(410)) as receiver, running_callbacks(stores, quick()):
        await stores.outbox.put([msgspec.structs.replace(callback, url=receiver.url())])
        await emptied(stores)
    assert len(receiver.requests) == 1
    assert counted.grown() == {"delivered": 0, "failed_attempts": 1, "given_up": 1}
    assert f"callback of call {callback.call_id} to 127.0.0.1:{receiver.port} is given up" in caplog.text


async def test_a_callback_that_is_too_old_is_tried_once_and_given_up(stores: Stores) -> None:
    old = msgspec.structs.replace(a_callback(""), created=time.time() - 86401)
    async with receiving(says(500)) as receiver, running_callbacks(stores, quick()):
        await stores.outbox.put([msgspec.structs.replace(old, url=receiver.url())])
        await emptied(stores)
    assert len(receiver.requests) == 1


async def test_a_redirect_is_not_followed(stores: Stores) -> None:
    async with receiving() as secret:
        elsewhere = says(307, 200, Location=secret.url())
        async with receiving(elsewhere) as receiver, running_callbacks(stores, quick()):
            await stores.outbox.put([a_callback(receiver.url())])
            await receiver.has(2)
            await emptied(stores)
    assert secret.requests == []


@pytest.mark.parametrize(("status", "after"), [(429, "120"), (503, "")])
async def test_a_receiver_that_asks_for_time_gets_it(
    stores: Stores, caplog: pytest.LogCaptureFixture, status: int, after: str
) -> None:
    caplog.set_level(logging.INFO)
    answer = says(status, Retry_After=after or email.utils.formatdate(time.time() + 120))
    async with receiving(answer) as receiver, running_callbacks(stores, quick()):
        await stores.outbox.put([a_callback(receiver.url())])
        await receiver.has(1)
        async with asyncio.timeout(60):
            while not re.search(r"the next is in 1(20|1\d) s", caplog.text):
                await asyncio.sleep(0.01)
        assert await stores.outbox.due(1, 1) == []


async def test_a_receiver_that_hangs_or_cuts_the_connection_is_asked_again(stores: Stores) -> None:
    async def hang_then_cut(request: web.Request, number: int) -> web.StreamResponse:
        if number == 0:
            await asyncio.sleep(3600)
        if number == 1:
            assert request.transport
            request.transport.abort()
        return web.Response()

    counted = Counted()
    settings = quick(timeout=2.0)
    async with receiving(hang_then_cut) as receiver, running_callbacks(stores, settings):
        await stores.outbox.put([a_callback(receiver.url())])
        await receiver.has(3)
        await emptied(stores)
    assert counted.grown() == {"delivered": 1, "failed_attempts": 2, "given_up": 0}


async def test_a_receiver_that_is_not_there_gets_the_callback_when_it_is(stores: Stores) -> None:
    async with receiving() as receiver, proxy(receiver.port) as way:
        await way.refuse()
        async with running_callbacks(stores, quick(max_pause=0.05)):
            failed = Counted()
            await stores.outbox.put([a_callback(f"http://127.0.0.1:{way.port}/done")])
            async with asyncio.timeout(60):
                while not failed.grown()["failed_attempts"]:
                    await asyncio.sleep(0.01)
            await way.accept()
            await receiver.has(1)
            await emptied(stores)


async def test_an_answer_without_end_is_not_read(stores: Stores) -> None:
    sent = 0

    async def endless(request: web.Request, number: int) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 65536)
            sent += 65536

    async with receiving(endless) as receiver, running_callbacks(stores, quick()):
        await stores.outbox.put([a_callback(receiver.url())])
        await emptied(stores)
    assert len(receiver.requests) == 1
    assert sent < 1 << 25


async def test_a_2xx_counts_though_its_body_never_ends(stores: Stores) -> None:
    async def dawdle(request: web.Request, number: int) -> web.StreamResponse:
        response = web.StreamResponse(status=202)
        await response.prepare(request)
        await asyncio.sleep(3600)
        return response

    counted = Counted()
    async with receiving(dawdle) as receiver, running_callbacks(stores, quick()):
        await stores.outbox.put([a_callback(receiver.url())])
        await emptied(stores)
    assert counted.grown() == {"delivered": 1, "failed_attempts": 0, "given_up": 0}
    assert len(receiver.requests) == 1


async def test_a_slow_receiver_holds_up_no_other(stores: Stores) -> None:
    go_on = asyncio.Event()

    async def slow(request: web.Request, number: int) -> web.StreamResponse:
        await go_on.wait()
        return web.Response()

    names = leading({"slow.example": ["127.0.0.1"], "fast.example": ["127.0.0.1"]})
    settings = quick(concurrency=10, per_host=2, timeout=300.0)
    async with receiving(slow) as stuck, receiving() as fast:
        await stores.outbox.put([a_callback(stuck.url(host="slow.example")) for _ in range(100)])
        async with running_callbacks(stores, settings, look_up=names):
            await stuck.has(2)
            await stores.outbox.put([a_callback(fast.url(host="fast.example")) for _ in range(20)])
            await fast.has(20)
            assert len(stuck.requests) == 2
            go_on.set()
            await stuck.has(12)


async def test_an_app_whose_receivers_all_hang_holds_up_no_other(stores: Stores) -> None:
    go_on = asyncio.Event()

    async def slow(request: web.Request, number: int) -> web.StreamResponse:
        await go_on.wait()
        return web.Response()

    names = {f"slow{number}.example": ["127.0.0.1"] for number in range(12)}
    settings = quick(concurrency=4, per_host=4, timeout=300.0)
    async with receiving(slow) as stuck, receiving() as fast:
        await stores.outbox.put([a_callback(stuck.url(host=name), app_id="greedy") for name in names])
        async with running_callbacks(stores, settings, look_up=leading(names)):
            await stuck.has(2)
            await stores.outbox.put([a_callback(fast.url()) for _ in range(5)])
            await fast.has(5)
            assert len(stuck.requests) == 2
            go_on.set()
            await stuck.has(12)


async def test_results_are_posted_where_no_records_are_kept(stores: Stores) -> None:
    from dataclasses import replace

    unrecorded = replace(stores, logstore=NoLogStore())
    async with receiving() as receiver, running_callbacks(unrecorded, quick()):
        await stores.outbox.put([a_callback(receiver.url(), id=new_id())])
        await receiver.has(1)
        await emptied(stores)


async def test_no_secret_of_a_url_is_logged(stores: Stores, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def nonsense(request: web.Request, number: int) -> web.StreamResponse:
        assert request.transport
        request.transport.write(b"HTTP/1.1 nonsense\r\n\r\n")
        request.transport.close()
        return web.Response()

    answers = [says(200), says(500), says(410), says(302, Location="http://h/S3CRET"), nonsense]
    for answer in answers:
        async with receiving(answer) as receiver, running_callbacks(stores, quick(max_age=0.0)):
            await stores.outbox.put([a_callback(receiver.url("/S3CRET?S3CRET#S3CRET"))])
            await emptied(stores)
    async with running_callbacks(stores, quick(max_age=0.0)):
        for url in ("http://10.0.0.1/S3CRET", "http://me:S3CRET@h/", "http://h:S3CRET/", "http://[S3CRET/"):
            await stores.outbox.put([a_callback(url)])
            await stores.outbox.put([a_callback("https://no-such-host.invalid/S3CRET")])
        await emptied(stores)
    assert "is given up" in caplog.text
    # The receivers are tests' own, and what goes into a database is in the debug log of its driver.
    others = ("aiohttp.access", "aiosqlite")
    ours = [record.getMessage() for record in caplog.records if record.name not in others]
    assert not [line for line in ours if "S3CRET" in line]
