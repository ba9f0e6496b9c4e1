"""What only a real engine shows: limits, leftovers, and an engine that is not there."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import socket
import socketserver
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import docker
import pytest

from runner_node.drivers.contract import SOCKET, Container, ContainerSpec, Exit
from runner_node.drivers.docker import DockerDriver, open_docker
from runner_node.drivers.opener import open_driver
from runner_node.drivers.settings import DriverSettings
from runner_node.drivers.spec import NODE_LABEL
from shared_models import errors
from shared_models.ids import new_id
from shared_models.workers import Place
from tests.engine.images import BUSYBOX, Images

LIMIT = 30.0
SCENARIO = Path(__file__).parents[1] / "wire" / "scenarios" / "head-full" / "head-inv-container.json"

needs_engine = pytest.mark.engine


def spec(image: str, run: str = "sleep 600", **changes: Any) -> ContainerSpec:
    made = ContainerSpec(id=new_id(), image=image, env={"RUN": run}, memory=64 << 20)
    return dataclasses.replace(made, **changes)


@asynccontextmanager
async def driver_for(host: str, node: str = "", **settings: Any) -> AsyncIterator[DockerDriver]:
    async with open_docker(
        DriverSettings(docker_host=host, prefork_pool_size=0, **settings), node or f"test-{new_id()}"
    ) as opened:
        assert isinstance(opened, DockerDriver)
        yield opened


def containers(host: str, node: str) -> list[str]:
    client = docker.APIClient(base_url=host, version="auto")
    try:
        found = client.containers(all=True, filters={"label": [f"{NODE_LABEL}={node}"]})
        return [each["Names"][0].lstrip("/") for each in found]
    finally:
        client.close()


async def ask(container: Container, order: dict[str, Any]) -> Any:
    """The JSON that goldenfn answers to *order*."""
    path = os.path.join(container.io_dir, SOCKET)
    async with asyncio.timeout(LIMIT):
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(path)
                break
            except (FileNotFoundError, ConnectionRefusedError):
                await asyncio.sleep(0.01)
        body = json.dumps({"golden": order})
        writer.write(f"POST /call HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        answer = await reader.read()
        writer.close()
    return json.loads(answer.partition(b"\r\n\r\n")[2])


@needs_engine
async def test_a_function_sees_what_fn_shows_it(engine: str, engine_images: Images) -> None:
    """The recorded container of Fn 0.3.753, aside from what names a call or an app."""
    steps = json.loads(SCENARIO.read_text())["steps"]
    recorded = next(step["response"]["json"] for step in steps if "CapBnd" in step["response"]["json"])
    image = engine_images.need("golden/func:1")
    env = {"FN_FORMAT": "http-stream", "FN_MEMORY": "99", "FN_TYPE": "sync"}
    async with driver_for(engine) as driver:
        container = await driver.start(spec(image, env=env), bytearray().extend)
        seen = await ask(container, {"dump": True})
        read_only = await ask(container, {"write_file": "/x", "write_size": 5})
        writable = [
            await ask(container, {"write_file": path, "write_size": 5}) for path in ("/tmp/x", "/tmp/iofs/x")
        ]
    same = [
        "CapBnd",
        "CapEff",
        "NoNewPrivs",
        "args",
        "cwd",
        "uid",
        "gid",
        "limits",
        "mounts",
        "stdin",
        "stdout",
        "stderr",
    ]
    assert {key: seen[key] for key in same} == {key: recorded[key] for key in same}
    expected = {
        name: value for name, value in recorded["env"].items() if name not in ("FN_APP_ID", "FN_FN_ID")
    }
    assert seen["env"] == expected | {"HOSTNAME": socket.gethostname()[:63]}
    assert seen["hostname"] == socket.gethostname()[:63]
    assert int(seen["pid"]) != 1
    assert read_only["ok"] is False
    assert [each["ok"] for each in writable] == [True, True]


@needs_engine
async def test_a_function_that_closes_its_outputs_runs_on(engine: str, engine_images: Images) -> None:
    image = engine_images.need(BUSYBOX)
    run = "cd /tmp/iofs; exec >&- 2>&-; touch closed; while [ ! -e go ]; do sleep 0.01; done; exit 4"
    async with driver_for(engine) as driver:
        container = await driver.start(spec(image, run), bytearray().extend)
        async with asyncio.timeout(LIMIT):
            while not os.path.exists(f"{container.io_dir}/closed"):  # noqa: ASYNC240
                await asyncio.sleep(0.01)
        ended = asyncio.create_task(container.wait())
        done, _ = await asyncio.wait({ended}, timeout=0.1)
        assert not done
        Path(container.io_dir, "go").touch()  # noqa: ASYNC240
        assert await asyncio.wait_for(ended, LIMIT) == Exit(4)


@needs_engine
async def test_an_image_with_a_volume_is_refused(engine: str, engine_images: Images) -> None:
    image = engine_images.need("golden/volume:1")
    async with driver_for(engine) as driver:
        with pytest.raises(errors.ImageHasVolume):
            await driver.ensure_image(image)


@needs_engine
async def test_a_name_that_is_none_is_refused(engine: str) -> None:
    async with driver_for(engine) as driver:
        with pytest.raises(errors.ImagePullFailed) as caught:
            await driver.ensure_image("Not A Name")
        assert caught.value.code == 400


@needs_engine
async def test_resources_that_the_engine_refuses_do_not_fit(engine: str, engine_images: Images) -> None:
    image, node = engine_images.need(BUSYBOX), f"test-{new_id()}"
    async with driver_for(engine, node) as driver:
        with pytest.raises(errors.DoesNotFit):
            await driver.start(spec(image, memory=1 << 20), bytearray().extend)
        assert containers(engine, node) == []


@needs_engine
async def test_a_start_that_fails_leaves_no_container(engine: str, engine_images: Images) -> None:
    image, node = engine_images.need(BUSYBOX), f"test-{new_id()}"
    async with driver_for(engine, node, networks=("no-such-network",)) as driver:
        with pytest.raises(errors.ContainerInitFailed) as caught:
            await driver.start(spec(image), bytearray().extend)
        assert "no-such-network" in caught.value.detail
        assert containers(engine, node) == []


@needs_engine
async def test_an_image_that_vanished_since_it_was_seen_is_fetched_again(
    engine: str, engine_images: Images
) -> None:
    """There is no registry to fetch it from: that is what the caller is told."""
    image, node = engine_images.need(BUSYBOX), f"test-{new_id()}"
    client = docker.APIClient(base_url=engine, version="auto")
    client.tag(image, "fnhybrid/vanishing", tag="1")
    async with driver_for(engine, node) as driver:
        await driver.ensure_image("fnhybrid/vanishing:1")
        client.remove_image("fnhybrid/vanishing:1")
        client.close()
        await driver.ensure_image("fnhybrid/vanishing:1")
        with pytest.raises(errors.ImagePullFailed):
            await driver.start(spec("fnhybrid/vanishing:1"), bytearray().extend)
        assert containers(engine, node) == []
        with pytest.raises(errors.ImagePullFailed):
            await driver.ensure_image("fnhybrid/vanishing:1")


@needs_engine
async def test_leftovers_of_this_node_are_swept_and_others_stay(engine: str, engine_images: Images) -> None:
    image, node = engine_images.need(BUSYBOX), f"test-{new_id()}"
    async with driver_for(engine, node) as first, driver_for(engine) as other:
        left = await first.start(spec(image), bytearray().extend)
        others = await other.start(spec(image), bytearray().extend)
        async with driver_for(engine, node) as second:
            own = await second.start(spec(image), bytearray().extend)
            assert (await asyncio.wait_for(left.wait(), LIMIT)).code == 137
            await second.sweep()
            assert containers(engine, node) == [own.id]
        frozen = asyncio.create_task(others.wait())
        await asyncio.sleep(0)
        assert not frozen.done()


@needs_engine
async def test_workers_leave_each_others_containers_and_the_first_removes_those_of_no_worker(
    engine: str, engine_images: Images
) -> None:
    image, node = engine_images.need(BUSYBOX), f"test-{new_id()}"
    settings = DriverSettings(docker_host=engine)
    async with open_driver(settings, node, Place(2, 3)) as third:
        gone = await third.start(spec(image), bytearray().extend)
        async with open_driver(settings, node, Place(1, 2)) as second:
            others = await second.start(spec(image), bytearray().extend)
            async with open_docker(settings, node, Place(0, 2)) as first:
                own = await first.start(spec(image), bytearray().extend)
                assert (await asyncio.wait_for(gone.wait(), LIMIT)).code == 137
                assert isinstance(first, DockerDriver)
                await first.sweep()
                assert containers(engine, node) == [own.id]
                assert containers(engine, f"{node}+1") == [others.id]
                assert containers(engine, f"{node}+2") == []


async def test_a_driver_opens_without_its_engine_and_says_why(tmp_path: Path) -> None:
    settings = DriverSettings(docker_host=f"unix://{tmp_path}/none.sock")
    async with open_driver(settings, "n1") as driver:
        for verb in (
            driver.ping(),
            driver.ensure_image("a:1"),
            driver.start(spec("a:1"), bytearray().extend),
        ):
            with pytest.raises(errors.EngineUnavailable) as caught:
                await verb
            assert "No such file" in caught.value.detail


@needs_engine
async def test_an_engine_that_comes_later_is_used_without_a_restart(
    engine: str, engine_images: Images, tmp_path: Path
) -> None:
    image, node = engine_images.need(BUSYBOX), f"test-{new_id()}"
    address = tmp_path / "docker.sock"
    async with driver_for(f"unix://{address}", node) as driver:
        with pytest.raises(errors.EngineUnavailable):
            await driver.ping()
        address.symlink_to(engine.removeprefix("unix://"))
        await driver.ping()
        container = await driver.start(spec(image, "exit 5"), bytearray().extend)
        assert await asyncio.wait_for(container.wait(), LIMIT) == Exit(5)
        address.unlink()
        with pytest.raises(errors.EngineUnavailable):
            await driver.ping()
        address.symlink_to(engine.removeprefix("unix://"))
        await driver.ping()


@needs_engine
async def test_the_engine_may_see_the_folder_of_sockets_elsewhere(
    engine: str, engine_images: Images, tmp_path: Path
) -> None:
    """A node in a container and its engine outside know the same folder by different names."""
    image = engine_images.need(BUSYBOX)
    (tmp_path / "real").mkdir()
    (tmp_path / "seen").symlink_to(tmp_path / "real")
    paths = {"iofs_path": str(tmp_path / "real"), "iofs_docker_path": str(tmp_path / "seen")}
    async with driver_for(engine, **paths) as driver:
        container = await driver.start(spec(image, "touch /tmp/iofs/here"), bytearray().extend)
        assert await asyncio.wait_for(container.wait(), LIMIT) == Exit(0)
        assert container.io_dir.startswith(str(tmp_path / "real"))
        assert os.listdir(container.io_dir) == ["here"]


async def test_an_engine_that_hangs_is_given_up_after_the_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = DriverSettings(
            docker_host=f"tcp://127.0.0.1:{silent.getsockname()[1]}", engine_timeout=1.0
        )
        async with asyncio.timeout(LIMIT), open_driver(settings, "n1") as driver:
            with pytest.raises(errors.EngineUnavailable):
                await driver.ping()


@contextmanager
def slow_to_create(engine: str, folder: Path, seconds: float) -> Iterator[str]:
    """An engine that takes *seconds* before it begins the first creation it is asked for."""
    slow = threading.Event()

    class Relay(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.socket(socket.AF_UNIX) as there:
                there.connect(engine.removeprefix("unix://"))
                back = threading.Thread(target=self.answers, args=(there,), daemon=True)
                back.start()
                while data := self.request.recv(1 << 16):
                    if b"/containers/create" in data and not slow.is_set():
                        slow.set()
                        time.sleep(seconds)
                    there.sendall(data)
                if slow.is_set():
                    time.sleep(1)  # the engine gives up what its client does not wait for
                there.shutdown(socket.SHUT_RDWR)
                back.join()

        def answers(self, there: socket.socket) -> None:
            with suppress(OSError):
                while data := there.recv(1 << 16):
                    self.request.sendall(data)

    class Server(socketserver.ThreadingUnixStreamServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """Clients that hang up are what this is for."""

    path = folder / "slow.sock"
    with Server(str(path), Relay) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"unix://{path}"
        server.shutdown()


@needs_engine
async def test_a_container_that_a_hung_engine_makes_late_is_found_and_removed(
    engine: str, engine_images: Images, tmp_path_factory: pytest.TempPathFactory
) -> None:
    image, node = engine_images.need(BUSYBOX), f"test-{new_id()}"
    folder = tmp_path_factory.mktemp("s")
    with slow_to_create(engine, folder, seconds=6) as host:
        async with driver_for(host, node, engine_timeout=1) as driver:
            with pytest.raises(errors.EngineUnavailable):
                await driver.start(spec(image), lambda data: None)
            assert containers(engine, node) == []
            async with asyncio.timeout(LIMIT):
                while not containers(engine, node):
                    await asyncio.sleep(0.1)
            await driver.ping()
            assert containers(engine, node) == []
