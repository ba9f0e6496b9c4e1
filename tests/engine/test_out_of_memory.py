"""Containers that are killed: for their memory, and for other reasons."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest

from runner_node.drivers import out_of_memory
from runner_node.drivers.contract import Container, Exit
from runner_node.drivers.docker import DockerDriver
from tests.engine.images import BUSYBOX, Images
from tests.engine.test_docker_driver import LIMIT, driver_for, spec

pytestmark = pytest.mark.engine

GREEDY = "tail -c 150m /dev/zero"


async def told_to(driver: DockerDriver, image: str, run: str) -> Container:
    """A container that does *run* once its engine has said that it runs.

    Before that the engine may not yet listen for what happens to its memory, and then never tells.
    """
    wait = "until [ -e /tmp/iofs/go ]; do sleep 0.01; done"
    container = await driver.start(spec(image, f"{wait}; {run}", memory=16 << 20), bytearray().extend)
    Path(container.io_dir, "go").touch()  # noqa: ASYNC240
    return container


@asynccontextmanager
async def reticent(engine: str, folder: Path) -> AsyncIterator[tuple[str, list[str]]]:
    """An engine that says of no container that memory ran out; its address, and what it was asked.

    That is what engines say when they hear of it behind the end. Events pass as they are.
    """
    asked: list[str] = []
    serving: set[asyncio.Task[None]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            writer.write(data)
        writer.write_eof()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        from_it, to_it = await asyncio.open_unix_connection(engine.removeprefix("unix://"))
        with closing(writer), closing(to_it), suppress(OSError):
            if not (request := await reader.readline()):
                return
            path = request.split()[1].decode()
            asked.append(path)
            to_it.write(request)
            serving.update({task, asyncio.create_task(pass_on(reader, to_it))})
            if re.fullmatch("/containers/[^/]+/json", path):
                writer.write(re.sub(rb'("OOMKilled": ?)true', rb"\1null", await from_it.read()))
            else:
                await pass_on(from_it, writer)

    server = await asyncio.start_unix_server(serve, folder / "engine.sock")
    async with server:
        yield f"unix://{folder}/engine.sock", asked
        async with asyncio.timeout(LIMIT):
            await asyncio.gather(*serving, return_exceptions=True)


@pytest.mark.parametrize("run", [f"exec {GREEDY}", f"{GREEDY}; exit 137"], ids=["itself", "its child"])
async def test_out_of_memory_is_told_apart_from_a_kill(
    engine: str, engine_images: Images, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = engine_images.need(BUSYBOX)
    async with driver_for(engine) as driver:
        killed = await told_to(driver, image, "kill -9 $$")
        assert await asyncio.wait_for(killed.wait(), LIMIT) == Exit(137, oom=False)
        monkeypatch.setattr(out_of_memory, "LATE", LIMIT)  # an engine with much to do has time
        greedy = await told_to(driver, image, run)
        assert await asyncio.wait_for(greedy.wait(), LIMIT) == Exit(137, oom=True)


async def test_memory_that_ran_out_is_seen_when_the_engine_only_tells_it_as_an_event(
    engine: str,
    engine_images: Images,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = engine_images.need(BUSYBOX)
    monkeypatch.setattr(out_of_memory, "LATE", LIMIT)
    async with (
        reticent(engine, tmp_path_factory.mktemp("s")) as (host, asked),
        driver_for(host) as driver,
    ):
        greedy = await told_to(driver, image, f"exec {GREEDY}")
        assert await asyncio.wait_for(greedy.wait(), LIMIT) == Exit(137, oom=True)
        assert [path for path in asked if path.startswith("/events?")]


async def test_no_event_is_waited_for_when_a_container_ended_otherwise_or_was_removed_by_us(
    engine: str, engine_images: Images, tmp_path_factory: pytest.TempPathFactory
) -> None:
    image = engine_images.need(BUSYBOX)
    async with (
        reticent(engine, tmp_path_factory.mktemp("s")) as (host, asked),
        driver_for(host) as driver,
    ):
        for run, code in (("exit 0", 0), ("exit 1", 1), ("kill -15 $$", 143)):
            ended = await told_to(driver, image, run)
            assert await asyncio.wait_for(ended.wait(), LIMIT) == Exit(code)
        for _ in range(5):
            removed = await driver.start(spec(image), bytearray().extend)
            end = asyncio.create_task(removed.wait())
            await removed.remove()
            assert await asyncio.wait_for(end, LIMIT) == Exit(137)
    assert not [path for path in asked if path.startswith("/events?")]
