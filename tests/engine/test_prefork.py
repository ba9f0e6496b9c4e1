"""Network namespaces that are ready: what a function sees of them, and what becomes of them."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import docker
import pytest

from runner_node.drivers import pause_image
from runner_node.drivers.contract import Container, ContainerSpec, Exit
from runner_node.drivers.docker import DockerDriver, open_docker
from runner_node.drivers.settings import DriverSettings
from runner_node.drivers.spec import NODE_LABEL
from shared_models import errors
from shared_models.ids import new_id
from tests.engine.images import BUSYBOX, Images

pytestmark = pytest.mark.engine
LIMIT = 60.0
PREFIX = "prefork-"


@pytest.fixture
def client(engine: str) -> Iterator[docker.APIClient]:
    opened = docker.APIClient(base_url=engine, version="auto")
    yield opened
    opened.close()


@pytest.fixture
def network(client: docker.APIClient) -> Iterator[str]:
    """A network of which the engine has to set up something."""
    name = f"test-{new_id()}".lower()
    client.create_network(name, driver="bridge")
    yield name
    client.remove_network(name)


@asynccontextmanager
async def driving(
    engine: str, network: str, size: int = 2, node: str = "", **settings: Any
) -> AsyncIterator[DockerDriver]:
    """A driver whose pool is full."""
    made = DriverSettings(docker_host=engine, networks=(network,), prefork_pool_size=size, **settings)
    async with open_docker(made, node or f"test-{new_id()}") as driver:
        assert isinstance(driver, DockerDriver)
        await until(lambda: driver.prefork.ready(network) == size)
        yield driver


async def until(so: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT):
        while not so():
            await asyncio.sleep(0.02)


def spec(image: str, run: str = "sleep 600", **changes: Any) -> ContainerSpec:
    return ContainerSpec(id=new_id(), image=image, env={"RUN": run}, memory=64 << 20, **changes)


def names(client: docker.APIClient, node: str) -> set[str]:
    found = client.containers(all=True, filters={"label": [f"{NODE_LABEL}={node}"]})
    return {each["Names"][0].lstrip("/") for each in found}


def mode(client: docker.APIClient, container: Container) -> str:
    return str(client.inspect_container(container.id)["HostConfig"]["NetworkMode"])


async def seen(driver: DockerDriver, image: str) -> dict[str, str]:
    """What a function sees of its network, without what differs between any two containers."""
    run = (
        "cd /etc; for f in hosts hostname resolv.conf; do echo == $f; cat $f; done;"
        " echo == name; [ $(hostname) = $(cat hostname) ] && [ $HOSTNAME = $(hostname) ] && echo same;"
        " echo == links; ip -o link; echo == routes; ip route"
    )
    output = bytearray()
    container = await driver.start(spec(image, run), output.extend)
    assert await asyncio.wait_for(container.wait(), LIMIT) == Exit(0)
    await container.drain_output()
    await container.remove()
    text = output.decode()
    text = re.sub(r"\b172(\.\d+){3}\b", "ADDRESS", text)
    text = re.sub(r"\b[0-9a-f]{12}\b", "NAME", text)
    text = re.sub(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", "MAC", text)
    text = re.sub(r"\b\d+: eth0@if\d+", "eth0", text)
    return dict(part.split("\n", 1) for part in text.split("== ")[1:])


async def test_a_function_sees_the_same_in_a_network_that_was_ready(
    engine: str, engine_images: Images, network: str
) -> None:
    image = engine_images.need(BUSYBOX)
    async with driving(engine, network) as driver:
        joined = await seen(driver, image)
    async with driving(engine, network, size=0) as driver:
        alone = await seen(driver, image)
    assert joined == alone
    assert joined["name"] == "same\n"
    assert "127.0.0.11" in joined["resolv.conf"]
    assert "eth0" in joined["links"]


async def test_each_namespace_serves_one_container_and_goes_with_it(
    engine: str, engine_images: Images, network: str, client: docker.APIClient
) -> None:
    image, node = engine_images.need(BUSYBOX), f"test-{new_id()}"
    async with driving(engine, network, node=node) as driver:
        before = names(client, node)
        first, second = [await driver.start(spec(image), lambda data: None) for _ in range(2)]
        holders = {mode(client, each).removeprefix("container:") for each in (first, second)}
        ids = {client.inspect_container(name)["Id"] for name in before}
        assert holders == ids
        await first.remove()
        await second.remove()
        await until(lambda: not before & names(client, node))
        await until(lambda: driver.prefork.ready(network) == 2)
        assert all(name.startswith(PREFIX) for name in names(client, node))
    assert names(client, node) == set()


async def test_more_containers_than_are_ready_start_with_networks_of_their_own(
    engine: str, engine_images: Images, network: str, client: docker.APIClient
) -> None:
    image = engine_images.need(BUSYBOX)
    async with driving(engine, network, size=1) as driver:
        started = await asyncio.gather(*(driver.start(spec(image), lambda data: None) for _ in range(3)))
        modes = sorted(mode(client, each).partition(":")[0] for each in started)
        assert modes == sorted(["container", network, network])


async def test_a_holder_that_died_is_replaced_and_not_used(
    engine: str, engine_images: Images, network: str, client: docker.APIClient
) -> None:
    image, node = engine_images.need(BUSYBOX), f"test-{new_id()}"
    async with driving(engine, network, size=1, node=node) as driver:
        (victim,) = names(client, node)
        client.kill(victim)
        await until(lambda: driver.prefork.ready(network) == 1 and victim not in names(client, node))
        container = await driver.start(spec(image), lambda data: None)
        assert mode(client, container).startswith("container:")


@pytest.mark.parametrize("fault", ["stop", "remove"])
async def test_a_holder_that_is_gone_when_it_is_joined_costs_no_start(
    engine: str, engine_images: Images, network: str, client: docker.APIClient, fault: str
) -> None:
    image, node = engine_images.need(BUSYBOX), f"test-{new_id()}"
    output, talk = bytearray(), bytearray()
    async with driving(engine, network, size=1, node=node) as driver:
        (victim,) = names(client, node)
        client.stop(victim) if fault == "stop" else client.remove_container(victim, force=True)
        # In the same turn of the loop: the driver has not heard of it.
        start = driver.start(spec(image, "echo hello; exit 3", stdio=True), output.extend, talk.extend)
        container = await start
        assert await asyncio.wait_for(container.wait(), LIMIT) == Exit(3)
        await until(lambda: bytes(talk) == b"hello\n")
        assert mode(client, container) == network
        assert len(os.listdir(driver._folder)) == 0


async def test_a_start_that_fails_in_a_ready_network_fails_once_and_leaves_nothing(
    engine: str, engine_images: Images, network: str, client: docker.APIClient
) -> None:
    image, node = engine_images.need(BUSYBOX), f"test-{new_id()}"
    async with driving(engine, network, size=1, node=node) as driver:
        (holder,) = names(client, node)
        with pytest.raises(errors.DoesNotFit):
            await driver.start(
                ContainerSpec(id=new_id(), image=image, env={}, memory=1 << 20), lambda data: None
            )
        await until(lambda: holder not in names(client, node))


async def test_holders_of_a_dead_node_are_swept(
    engine: str, engine_images: Images, network: str, client: docker.APIClient
) -> None:
    node = f"test-{new_id()}"
    async with driving(engine, network, size=1, node=node):
        (left,) = names(client, node)
        async with driving(engine, network, size=1, node=node):
            await until(lambda: left not in names(client, node))


async def test_where_the_engine_has_no_default_network_nothing_is_made(
    engine: str, engine_images: Images, client: docker.APIClient
) -> None:
    if any(each["Name"] == "bridge" for each in client.networks()):
        pytest.skip("this engine has a default network")
    image, node = engine_images.need(BUSYBOX), f"test-{new_id()}"
    async with open_docker(DriverSettings(docker_host=engine, prefork_pool_size=1), node) as driver:
        assert isinstance(driver, DockerDriver)
        await until(lambda: not driver.prefork.networks)
        container = await driver.start(spec(image, "exit 4"), lambda data: None)
        assert await asyncio.wait_for(container.wait(), LIMIT) == Exit(4)
        assert names(client, node) == {container.id}


async def test_an_image_and_a_command_of_ones_own_hold_networks_too(
    engine: str, engine_images: Images, network: str, client: docker.APIClient
) -> None:
    node, image = f"test-{new_id()}", "fnhybrid/holds:1"
    content = pause_image.archive(client.version()["Arch"])
    client.import_image_from_data(
        content, repository="fnhybrid/holds", tag="1", changes=['ENTRYPOINT ["/pause"]']
    )
    options: dict[str, Any] = {"prefork_image": image, "prefork_cmd": ("some", "words")}
    async with driving(engine, network, size=1, node=node, **options) as driver:
        (holder,) = names(client, node)
        config = client.inspect_container(holder)["Config"]
        assert (config["Image"], config["Cmd"]) == (image, ["some", "words"])
        container = await driver.start(spec(engine_images.need(BUSYBOX)), lambda data: None)
        assert mode(client, container).startswith("container:")


async def test_the_engine_gets_the_pause_image_from_the_node(
    engine: str, network: str, client: docker.APIClient
) -> None:
    name = f"{pause_image.REPOSITORY}:{pause_image.TAG}"
    node = f"test-{new_id()}"
    async with driving(engine, network, size=1, node=node):
        (holder,) = names(client, node)
        assert client.inspect_container(holder)["Config"]["Image"] == name
        # The first process of a container, which only dies of what it expects.
        client.kill(holder, "TERM")
        assert client.wait(holder, timeout=LIMIT)["StatusCode"] == 0
    assert client.inspect_image(name)["Config"]["Entrypoint"] == ["/pause"]
