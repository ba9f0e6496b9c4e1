"""Images of a registry that wants a login, pulled by a real engine."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import docker
import pytest
from docker.errors import ImageNotFound

from runner_node.drivers import images, pause_image
from runner_node.drivers.docker import DockerDriver, open_docker
from runner_node.drivers.settings import DriverSettings
from shared_models import errors
from shared_models.ids import new_id
from shared_models.image_policy import ALWAYS, NEVER
from tests.servers.registry import PASSWORD, USER, Overloaded, Registry
from tests.servers.server import Server

pytestmark = pytest.mark.engine


@pytest.fixture
def registry(engine: str, own_server: Callable[..., Server]) -> Registry:
    server = own_server(Registry, engine)
    assert isinstance(server, Registry)
    return server


@pytest.fixture
def client(engine: str) -> Iterator[docker.APIClient]:
    client = docker.APIClient(base_url=engine, version="auto", timeout=60)
    yield client
    client.close()


def push(client: docker.APIClient, registry: Registry, version: str) -> tuple[str, str, str]:
    """An image of *version*, in the registry alone: its name, its digest there, its id in the engine."""
    name = f"{registry.url}/shop/pause"
    content = pause_image.archive(client.version(api_version=False)["Arch"])
    client.import_image_from_data(content, repository=name, tag="1", changes=[f"LABEL version={version}"])
    image_id = client.inspect_image(f"{name}:1")["Id"]
    login = {"username": USER, "password": PASSWORD}
    said = list(client.push(name, tag="1", stream=True, decode=True, auth_config=login))
    digests = [line["aux"]["Digest"] for line in said if "aux" in line]
    assert digests, said
    client.remove_image(image_id, force=True)
    return f"{name}:1", digests[0], image_id


def config_of(registry: Registry, password: str = PASSWORD) -> str:
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    return json.dumps({"auths": {registry.url: {"auth": auth}}})


@asynccontextmanager
async def driver_for(engine: str, *config: Path, auth: str = "") -> AsyncIterator[DockerDriver]:
    settings = DriverSettings(
        docker_host=engine, prefork_pool_size=0, docker_auth=auth, docker_config=tuple(map(str, config))
    )
    async with open_docker(settings, f"test-{new_id()}") as opened:
        assert isinstance(opened, DockerDriver)
        yield opened


async def test_a_private_image_is_pulled_once_its_pull_secret_is_mounted(
    engine: str, client: docker.APIClient, registry: Registry, tmp_path: Path
) -> None:
    image, _, image_id = push(client, registry, "1")
    async with driver_for(engine, tmp_path) as driver:
        with pytest.raises(errors.ImagePullFailed) as caught:
            await driver.ensure_image(image)
        assert caught.value.code == 401
        for words in (image, registry.url, "asked without a login", "FN_DOCKER_CONFIG"):
            assert words in caught.value.message
        # As Kubernetes mounts them: a link to the version in force, which is swapped.
        for version, password in (("..1", "wrong"), ("..2", PASSWORD)):
            secret = tmp_path / "pull-secret"
            (secret / version).mkdir(parents=True)
            (secret / version / ".dockerconfigjson").write_text(config_of(registry, password))
            (secret / "new").symlink_to(secret / version / ".dockerconfigjson")
            os.replace(secret / "new", secret / ".dockerconfigjson")
            if password == "wrong":
                with pytest.raises(errors.ImagePullFailed, match="did not take the login"):
                    await driver.ensure_image(image)
        await driver.ensure_image(image)
    assert client.inspect_image(image)["Id"] == image_id


async def test_a_digest_is_what_is_pulled_whatever_the_tag_names_by_then(
    engine: str, client: docker.APIClient, registry: Registry
) -> None:
    image, digest, image_id = push(client, registry, "1")
    _, newer, _ = push(client, registry, "2")
    assert newer != digest
    async with driver_for(engine, auth=config_of(registry)) as driver:
        for name in (f"{image}@{digest}", f"{image.removesuffix(':1')}@{digest}"):
            await driver.ensure_image(name)
            assert client.inspect_image(name)["Id"] == image_id
            client.remove_image(image_id, force=True)
    with pytest.raises(ImageNotFound):
        client.inspect_image(image)


async def test_always_runs_what_the_tag_names_now_and_never_for_a_login_that_was_taken_away(
    engine: str, client: docker.APIClient, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "CHECKED", 0.0)
    image, _, _ = push(client, registry, "1")
    async with driver_for(engine, auth=config_of(registry)) as driver:
        await driver.ensure_image(image)
        older = client.inspect_image(image)["Id"]
        client.tag(older, "fnhybrid/older", "1")
        _, _, newer = push(client, registry, "2")
        client.tag(older, image.removesuffix(":1"), "1")
        await driver.ensure_image(image)
        assert client.inspect_image(image)["Id"] == older
        await driver.ensure_image(image, ALWAYS)
        assert client.inspect_image(image)["Id"] == newer
        registry.set_password("another")
        await driver.ensure_image(image)
        with pytest.raises(errors.ImagePullFailed, match="did not take the login"):
            await driver.ensure_image(image, ALWAYS)
    client.remove_image("fnhybrid/older:1", force=True)


async def test_an_image_that_is_never_pulled_has_to_be_there(
    engine: str, client: docker.APIClient, registry: Registry
) -> None:
    image, _, _ = push(client, registry, "1")
    async with driver_for(engine, auth=config_of(registry)) as driver:
        with pytest.raises(
            errors.ImagePullFailed, match=r"does not have it, and fn\.hybrid/image/pull is never"
        ):
            await driver.ensure_image(image, NEVER)
        await driver.ensure_image(image)
        await driver.ensure_image(image, NEVER)


@pytest.mark.parametrize("status", [429, 503])
async def test_an_overloaded_registry_is_left_alone_for_a_while(
    engine: str, own_server: Callable[..., Server], status: int
) -> None:
    server = own_server(Overloaded, engine, status)
    assert isinstance(server, Overloaded)
    async with driver_for(engine) as driver:
        with pytest.raises(errors.ImagePullFailed, match=f"registry {server.url} is overloaded") as caught:
            await driver.ensure_image(f"{server.url}/shop/fn:1")
        assert caught.value.code == 503
        asked = server.words().count("asked")
        assert asked
        with pytest.raises(errors.ImagePullFailed, match="asked again in"):
            await driver.ensure_image(f"{server.url}/shop/another:1")
        assert server.words().count("asked") == asked
