"""Functions over stdin and stdout, where a real engine is between."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import docker
import pytest

from runner_node.drivers.contract import Container, ContainerDriver, ContainerSpec, Exit
from runner_node.drivers.opener import open_driver
from runner_node.drivers.settings import DriverSettings
from shared_models import errors
from shared_models.ids import new_id
from tests.engine.images import BUSYBOX, LABEL, Images

LIMIT = 30.0

pytestmark = pytest.mark.engine


@asynccontextmanager
async def over_tcp(host: str) -> AsyncIterator[str]:
    """A DOCKER_HOST on TCP that leads to *host*, ends of streams included."""
    tasks: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            writer.write_eof()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        there, back = await asyncio.open_unix_connection(host.removeprefix("unix://"))
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(copy(reader, back), copy(there, writer))
        back.transport.abort()
        writer.transport.abort()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # transports close in the next turn


@pytest.fixture(params=["unix", "tcp"])
async def driver(request: pytest.FixtureRequest, engine: str) -> AsyncIterator[ContainerDriver]:
    async with contextlib.AsyncExitStack() as stack:
        host = engine if request.param == "unix" else await stack.enter_async_context(over_tcp(engine))
        yield await stack.enter_async_context(
            open_driver(DriverSettings(docker_host=host), f"test-{new_id()}")
        )


@pytest.fixture
async def local(engine: str) -> AsyncIterator[ContainerDriver]:
    async with open_driver(DriverSettings(docker_host=engine), f"test-{new_id()}") as opened:
        yield opened


def spec(image: str, run: str, **changes: Any) -> ContainerSpec:
    made = ContainerSpec(id=new_id(), image=image, env={"RUN": run}, memory=64 << 20, stdio=True)
    return dataclasses.replace(made, **changes)


async def test_the_end_of_stdin_reaches_the_function(driver: ContainerDriver, engine_images: Images) -> None:
    said, logged = bytearray(), bytearray()
    made = spec(engine_images.need(BUSYBOX), "cat; echo end >&2; exit 4")
    container = await driver.start(made, logged.extend, said.extend)
    await container.write(b"all of it")
    await container.close_stdin()
    assert await asyncio.wait_for(container.wait(), LIMIT) == Exit(4)
    assert (bytes(said), bytes(logged)) == (b"all of it", b"end\n")


async def test_an_answer_is_whole_though_the_request_is_not_read(
    driver: ContainerDriver, engine_images: Images
) -> None:
    for _ in range(5):
        said = bytearray()
        made = spec(engine_images.need(BUSYBOX), "head -c 1000000 /dev/zero")
        container = await driver.start(made, bytearray().extend, said.extend)
        with pytest.raises(errors.FunctionResponseError):
            await asyncio.wait_for(write_on(container), LIMIT)
        assert await asyncio.wait_for(container.wait(), LIMIT) == Exit(0)
        assert said == bytes(1_000_000)
        await container.remove()


async def write_on(container: Container) -> None:
    while True:
        await container.write(bytes(1 << 20))


async def test_what_is_logged_is_here_though_nobody_hears_what_is_said(
    local: ContainerDriver, engine_images: Images
) -> None:
    said, logged = bytearray(), bytearray()
    made = spec(engine_images.need(BUSYBOX), "read go; head -c 150000 /dev/zero; echo line >&2; cat")
    container = await local.start(made, logged.extend, said.extend)
    container.pause_talk()
    await container.write(b"go\n")
    async with asyncio.timeout(LIMIT):
        while not logged:
            await container.drain_output()
    assert (bytes(said), bytes(logged)) == (b"", b"line\n")
    container.resume_talk()
    await container.close_stdin()
    assert await asyncio.wait_for(container.wait(), LIMIT) == Exit(0)
    assert said == bytes(150_000)


async def test_a_container_that_ends_unheard_is_noticed(
    local: ContainerDriver, engine_images: Images
) -> None:
    """Its last words are held back, and more of them than are read."""
    said = bytearray()
    made = spec(engine_images.need(BUSYBOX), "read go; head -c 150000 /dev/zero; exit 6")
    container = await local.start(made, bytearray().extend, said.extend)
    container.pause_talk()
    await container.write(b"go\n")
    assert await asyncio.wait_for(container.wait(), LIMIT) == Exit(6)
    assert not said
    container.resume_talk()
    async with asyncio.timeout(LIMIT):
        while len(said) < 150_000:
            await asyncio.sleep(0.01)


async def test_a_function_is_locked_up_like_any_other(local: ContainerDriver, engine_images: Images) -> None:
    said = bytearray()
    run = "id -u; grep -E 'NoNewPrivs|CapEff' /proc/self/status; ls /tmp; echo ${FN_LISTENER:-none}"
    container = await local.start(spec(engine_images.need(BUSYBOX), run), bytearray().extend, said.extend)
    await asyncio.wait_for(container.wait(), LIMIT)
    assert said.decode().split() == ["1000", "CapEff:", "0" * 16, "NoNewPrivs:", "1", "none"]


@pytest.fixture
def with_health(engine: str, engine_images: Images) -> Any:
    """Makes an image like busybox with a health check, which the engine asks each 100 ms."""
    client = docker.APIClient(base_url=engine, version="auto")
    made: list[str] = []

    def make(check: str, retries: int = 2) -> str:
        name = f"fnhybrid/health-{len(made)}-{new_id().lower()}"
        base = client.create_container(engine_images.need(BUSYBOX))
        changes = [
            f"HEALTHCHECK --interval=100ms --timeout=5s --retries={retries} "
            f'CMD ["/bin/busybox","sh","-c","{check}"]',
            f"LABEL {LABEL}=health",
        ]
        client.commit(base, name, "1", changes=changes)
        client.remove_container(base)
        made.append(f"{name}:1")
        return f"{name}:1"

    yield make
    for name in made:
        client.remove_image(name, force=True)
    client.close()


async def test_a_function_with_a_health_check_is_healthy_when_it_is_started(
    local: ContainerDriver, with_health: Any
) -> None:
    logged = bytearray()
    run = "sleep 0.5; echo ready >&2; touch /tmp/ready; cat"
    image = with_health("/bin/busybox test -e /tmp/ready", retries=100)
    container = await local.start(spec(image, run), logged.extend, bytearray().extend)
    await container.drain_output()
    assert logged == b"ready\n"


async def test_a_function_that_becomes_unhealthy_cannot_be_started(
    local: ContainerDriver, with_health: Any
) -> None:
    with pytest.raises(errors.ContainerInitFailed) as caught:
        await local.start(spec(with_health("exit 1"), "exec cat"), bytearray().extend, bytearray().extend)
    assert "unhealthy" in caught.value.detail


async def test_a_function_that_ends_before_it_is_healthy_has_been_started(
    local: ContainerDriver, with_health: Any
) -> None:
    said = bytearray()
    container = await local.start(spec(with_health("exit 1"), "echo done"), bytearray().extend, said.extend)
    assert await asyncio.wait_for(container.wait(), LIMIT) == Exit(0)
    assert said == b"done\n"


async def test_what_the_engine_says_and_what_the_node_sees_agree(
    local: ContainerDriver, engine_images: Images
) -> None:
    from runner_node.drivers import stats
    from runner_node.drivers.docker_container import DockerContainer

    logged = bytearray()
    run = "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done; echo up >&2; exec cat"
    container = await local.start(spec(engine_images.need(BUSYBOX), run), logged.extend)
    assert isinstance(container, DockerContainer)
    async with asyncio.timeout(LIMIT):
        while not logged:
            await asyncio.sleep(0.01)
    said = stats.from_engine(await container._engine.stats(container.id))
    seen = await container.sample()
    assert said.keys() == seen.keys()
    assert said["mem_limit"] == seen["mem_limit"] == 64 << 20
    for name in ("cpu_total", "cpu_user", "mem_usage"):
        assert said[name] == pytest.approx(seen[name], rel=0.2, abs=30_000_000), name
    assert said["cpu_total"] > 10_000_000
