"""The scripted driver does what its script says, so that tests built on it can be believed."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from runner_node.drivers.contract import SOCKET, ContainerSpec, Exit
from runner_node.drivers.fake import FakeDriver, open_fake
from runner_node.drivers.fake_behaviour import Answer, Behaviour, Request
from runner_node.drivers.fake_container import FakeContainer
from shared_models import errors
from shared_models.ids import new_id

LIMIT = 60.0
HEAD = b"POST /call HTTP/1.1\r\nFn-Call-Id: c1\r\nTransfer-Encoding: chunked\r\n\r\n"


@asynccontextmanager
async def running(behaviour: Behaviour) -> AsyncIterator[tuple[FakeDriver, FakeContainer, bytearray]]:
    output = bytearray()
    async with open_fake({"fn": behaviour}) as driver:
        spec = ContainerSpec(id=new_id(), image="fn", env={}, memory=0)
        container = await driver.start(spec, output.extend)
        assert isinstance(container, FakeContainer)
        yield driver, container, output


async def connect(container: FakeContainer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    async with asyncio.timeout(LIMIT):
        while True:
            try:
                return await asyncio.open_unix_connection(os.path.join(container.io_dir, SOCKET))
            except OSError:
                await asyncio.sleep(0)


async def call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> bytes:
    """All that comes up to the end of a body like *body*, or until the connection ends."""
    writer.write(HEAD + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
    async with asyncio.timeout(LIMIT):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            return head + await reader.readexactly(len(body))
        except asyncio.IncompleteReadError as exc:
            return exc.partial


async def test_it_serves_call_after_call_on_one_connection() -> None:
    async with running(Behaviour()) as (_, container, _):
        reader, writer = await connect(container)
        assert (await call(reader, writer, b"one")).endswith(b"\r\n\r\none")
        assert (await call(reader, writer, b"two")).endswith(b"\r\n\r\ntwo")
        assert container.calls == 2
        writer.close()


async def test_a_function_sees_the_request_and_writes_its_log() -> None:
    seen: list[Request] = []

    def function(request: Request) -> Answer:
        seen.append(request)
        return Answer(status=502, body=b"no", log=b"a line\n")

    async with running(Behaviour(function=function)) as (_, container, output):
        reader, writer = await connect(container)
        assert (await call(reader, writer, b"hi")).startswith(b"HTTP/1.1 502 ")
        assert (seen[0].line, seen[0].headers["fn-call-id"], seen[0].body) == (
            "POST /call HTTP/1.1",
            "c1",
            b"hi",
        )
        assert output == b"a line\n"
        writer.close()


async def test_it_exits_in_the_middle_of_an_answer() -> None:
    async with running(Behaviour(exits_in_call=2, exit=Exit(137, oom=True))) as (_, container, _):
        reader, writer = await connect(container)
        await call(reader, writer, b"first")
        second = await call(reader, writer, b"second")
        assert not second.endswith(b"second")
        assert await asyncio.wait_for(container.wait(), LIMIT) == Exit(137, oom=True)
        writer.close()


async def test_it_exits_after_a_whole_answer() -> None:
    async with running(Behaviour(exits_after=1)) as (driver, container, _):
        reader, writer = await connect(container)
        assert (await call(reader, writer, b"only")).endswith(b"only")
        assert await asyncio.wait_for(container.wait(), LIMIT) == Exit(1)
        assert driver.alive == []
        writer.close()


async def test_a_frozen_container_answers_when_it_is_thawed() -> None:
    async with running(Behaviour()) as (driver, container, _):
        reader, writer = await connect(container)
        await container.freeze()
        asked = asyncio.create_task(call(reader, writer, b"late"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not asked.done()
        await container.unfreeze()
        assert (await asked).endswith(b"late")
        assert (driver.frozen, driver.unfrozen) == (1, 1)
        writer.close()


async def test_garbage_is_sent_as_it_is() -> None:
    async with running(Behaviour(garbage=b"nonsense")) as (_, container, _):
        reader, writer = await connect(container)
        assert await call(reader, writer, b"x") == b"nonsense"
        writer.close()


async def test_a_file_may_be_where_the_socket_should_be() -> None:
    async with running(Behaviour(socket="file")) as (_, container, _):
        await asyncio.sleep(0.01)
        mode = os.stat(os.path.join(container.io_dir, SOCKET)).st_mode
        assert stat.S_ISREG(mode)


async def test_an_engine_that_is_down_says_why() -> None:
    async with running(Behaviour()) as (driver, container, _):
        driver.down = "unplugged"
        for verb in (driver.ping(), driver.ensure_image("fn"), container.freeze()):
            with pytest.raises(errors.EngineUnavailable) as caught:
                await verb
            assert caught.value.detail == "unplugged"
        await container.remove()
        assert driver.removed == 1


async def test_scripted_failures_are_raised() -> None:
    pull, start = errors.ImagePullFailed("fn", "gone", 404), errors.ContainerInitFailed(detail="no such file")
    async with open_fake(
        {"pull": Behaviour(pull_error=pull), "start": Behaviour(start_error=start)}
    ) as driver:
        with pytest.raises(errors.ImagePullFailed, match="gone"):
            await driver.ensure_image("pull")
        with pytest.raises(errors.ContainerInitFailed):
            await driver.start(ContainerSpec(id="C1", image="start", env={}, memory=0), bytearray().extend)
        assert driver.containers == []
