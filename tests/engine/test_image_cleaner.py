"""Images that a node pulled and uses least go when they take too much; a real engine and a registry."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import docker
import pytest
from docker.errors import ImageNotFound

from runner_node.drivers import image_cleaner, images, pause_image
from runner_node.drivers.contract import ContainerSpec
from runner_node.drivers.docker import DockerDriver, open_docker
from runner_node.drivers.settings import DriverSettings
from shared_models.ids import new_id
from shared_models.image_policy import ALWAYS, NEVER
from shared_models.telemetry import REGISTRY
from shared_models.workers import ALONE, Place
from tests.engine.dockerd import private_engine
from tests.engine.packages import missing
from tests.engine.test_registry import config_of
from tests.servers.registry import PASSWORD, USER, Registry
from tests.servers.server import Server

pytestmark = pytest.mark.engine

LIMIT = 60.0
SIZE = 300_000
"""Bytes of each image, and a little more."""
LOGIN = {"username": USER, "password": PASSWORD}


class Shop:
    """A registry with images that the engine does not have, unless somebody pulls them."""

    def __init__(self, registry: Registry, client: docker.APIClient) -> None:
        self.registry, self.client = registry, client
        self._program = pause_image.archive(client.version(api_version=False)["Arch"])

    def push(self, name: str, size: int = SIZE) -> str:
        """An image of its own, under a new or a moved tag."""
        packed = io.BytesIO(self._program)
        with tarfile.open(fileobj=packed, mode="a") as tar:
            member = tarfile.TarInfo("ballast")
            member.size = size
            tar.addfile(member, io.BytesIO(os.urandom(size)))
        repository = f"{self.registry.url}/shop/{name}"
        entry = [f'ENTRYPOINT ["/{pause_image.PROGRAM}"]']
        self.client.import_image_from_data(packed.getvalue(), repository=repository, tag="1", changes=entry)
        return self.sold(f"{repository}:1")

    def sold(self, image: str) -> str:
        """*image*, when it is in the registry alone."""
        for line in self.client.push(image, stream=True, decode=True, auth_config=LOGIN):
            assert "error" not in line, line
        self.client.remove_image(image, force=True)
        return image

    def has(self, image: str) -> bool:
        """Whether the engine has it."""
        try:
            self.client.inspect_image(image)
        except ImageNotFound:
            return False
        return True


@pytest.fixture
def shop(engine: str, own_server: Callable[..., Server]) -> Iterator[Shop]:
    with opened_shop(engine, own_server) as opened:
        yield opened


@contextmanager
def opened_shop(engine: str, own_server: Callable[..., Server]) -> Iterator[Shop]:
    registry = own_server(Registry, engine)
    assert isinstance(registry, Registry)
    client = docker.APIClient(base_url=engine, version="auto", timeout=60)
    yield Shop(registry, client)
    for one in client.images():
        names = [*(one["RepoTags"] or ()), *(one["RepoDigests"] or ())]
        if any("shop/" in name for name in names):
            client.remove_image(one["Id"], force=True)
    client.close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was just used may go; only tests ask for looks, after the first one, which has nothing to do."""
    monkeypatch.setattr(image_cleaner, "STARTS", 0.0)
    monkeypatch.setattr(image_cleaner, "GAP", 3600.0)
    monkeypatch.setattr(image_cleaner, "EVERY", 3600.0)
    monkeypatch.setattr(image_cleaner, "AGAIN", 3600.0)


@asynccontextmanager
async def node(
    engine: str,
    shop: Shop,
    folder: Path,
    *,
    high: int = 1,
    low: int = 0,
    exempt: tuple[str, ...] = (),
    name: str = "",
    place: Place = ALONE,
) -> AsyncIterator[DockerDriver]:
    """A node that has had its first look: one that is asked for beside it would find that somebody cleans."""
    settings = DriverSettings(
        docker_host=engine, prefork_pool_size=0, docker_auth=config_of(shop.registry),
        image_clean_max_size=high, image_clean_low=low, image_clean_exempt=exempt, image_record=str(folder),
    )  # fmt: skip
    look, looked = image_cleaner.ImageCleaner.look, asyncio.Event()

    async def first_look(self: image_cleaner.ImageCleaner) -> bool:
        try:
            return await look(self)
        finally:
            looked.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(image_cleaner.ImageCleaner, "look", first_look)
        async with open_docker(settings, name or f"test-{new_id()}", place) as opened:
            assert isinstance(opened, DockerDriver)
            if high:
                async with asyncio.timeout(LIMIT):
                    await looked.wait()
            patch.undo()
            yield opened


def spec(image: str) -> ContainerSpec:
    return ContainerSpec(id=new_id(), image=image, env={}, memory=32 << 20)


async def test_above_the_mark_the_least_recently_used_goes_and_is_pulled_again_when_it_is_called(
    engine: str, shop: Shop, tmp_path: Path
) -> None:
    def removed() -> float:
        return REGISTRY.get_sample_value("fn_runner_images_removed_total") or 0.0

    def freed() -> float:
        return REGISTRY.get_sample_value("fn_runner_image_bytes_freed_total") or 0.0

    one, two, three = shop.push("one"), shop.push("two"), shop.push("three")
    removed_before, freed_before = removed(), freed()
    async with node(engine, shop, tmp_path, high=SIZE * 5 // 2, low=90) as driver:
        await driver.ensure_image(one)
        await driver.ensure_image(two)
        assert await driver.cleaner.look()
        assert shop.has(one), "below the mark nothing goes"
        await driver.ensure_image(three)
        await driver.ensure_image(one)
        assert await driver.cleaner.look()
        assert [shop.has(image) for image in (one, two, three)] == [True, False, True]
        assert removed() - removed_before == 1
        assert SIZE <= freed() - freed_before < 2 * SIZE
        assert 2 * SIZE <= (REGISTRY.get_sample_value("fn_runner_image_bytes") or 0) < 3 * SIZE
        # As a call does that has looked before the removal, and one that comes after it.
        await (await driver.start(spec(two), bytearray().extend)).remove()
        assert await driver.cleaner.look()
        assert not shop.has(three)
        await driver.ensure_image(three)
        await (await driver.start(spec(three), bytearray().extend)).remove()


async def test_what_is_used_exempt_or_of_others_stays_whatever_it_takes(
    engine: str, shop: Shop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("used", "exempt", "foreign", "tagged", "never", "free")
    used, exempt, foreign, tagged, never, free = (shop.push(name) for name in names)
    pull = {"auth_config": LOGIN}
    shop.client.pull(foreign, **pull)
    async with node(engine, shop, tmp_path, exempt=(exempt.removesuffix(":1"),)) as driver:
        for image in (used, exempt, foreign, tagged, never, free):
            await driver.ensure_image(image)
        await driver.ensure_image(foreign, ALWAYS)
        await driver.ensure_image(never, NEVER)
        shop.client.tag(tagged, "mine/tagged", "1")
        container = await driver.start(spec(used), bytearray().extend)
        for _ in range(2):
            assert not await driver.cleaner.look()
        assert [shop.has(image) for image in (used, exempt, foreign, tagged, never)] == [True] * 5
        assert not shop.has(free)
        assert caplog.text.count("those that are left are in use, exempt") == 1
        await container.remove()
        await driver.cleaner.look()
        assert not shop.has(used)
    shop.client.remove_image("mine/tagged:1")


async def test_a_container_of_somebody_else_keeps_its_image(engine: str, shop: Shop, tmp_path: Path) -> None:
    image = shop.push("one")
    async with node(engine, shop, tmp_path) as driver, node(engine, shop, tmp_path / "other") as other:
        await driver.ensure_image(image)
        await other.ensure_image(image)
        container = await other.start(spec(image), bytearray().extend)
        assert not await driver.cleaner.look()
        await container.remove()
        assert await other.cleaner.look(), "it did not pull it, and has nothing to remove"
        assert shop.has(image)
        assert await driver.cleaner.look()
        assert not shop.has(image)
        await (await other.start(spec(image), bytearray().extend)).remove()


async def test_what_a_tag_named_before_goes_first(engine: str, shop: Shop, tmp_path: Path) -> None:
    other, image = shop.push("other"), shop.push("moving")
    async with node(engine, shop, tmp_path, high=SIZE * 5 // 2, low=90) as driver:
        await driver.ensure_image(other)
        await driver.ensure_image(image)
        older = shop.client.inspect_image(image)["Id"]
        images_checked = driver._images._checked
        shop.client.tag(older, "mine/older", "1")
        shop.push("moving")
        shop.client.tag(older, image.removesuffix(":1"), "1")
        shop.client.remove_image("mine/older:1")
        images_checked.clear()
        await driver.ensure_image(image, ALWAYS)
        assert shop.client.inspect_image(image)["Id"] != older
        assert shop.has(older)
        assert await driver.cleaner.look()
        assert not shop.has(older)
        assert shop.has(other)
        assert shop.has(image)


async def test_a_node_knows_after_a_restart_what_it_pulled_and_another_one_does_not(
    engine: str, shop: Shop, tmp_path: Path
) -> None:
    one, two = shop.push("one"), shop.push("two")
    async with node(engine, shop, tmp_path, high=SIZE * 3 // 2, low=100) as driver:
        await driver.ensure_image(one)
        await driver.ensure_image(two)
        await driver.ensure_image(one)
    async with node(engine, shop, tmp_path / "other") as another:
        await another.ensure_image(one)
        assert await another.cleaner.look()
        assert shop.has(one)
        assert shop.has(two)
    async with node(engine, shop, tmp_path, high=SIZE * 3 // 2, low=100) as driver:
        await driver.cleaner.remember()
        await driver.cleaner.look()
        assert shop.has(one), "it was used last before the restart"
        assert not shop.has(two)


async def test_workers_that_clean_at_once_know_of_each_others_images_and_remove_no_more_than_one_would(
    engine: str, shop: Shop, tmp_path: Path
) -> None:
    one, two, three = shop.push("one"), shop.push("two"), shop.push("three")
    name, marks = f"test-{new_id()}", {"high": SIZE * 5 // 2, "low": 90}
    async with (
        node(engine, shop, tmp_path, name=name, place=Place(0, 2), **marks) as first,
        node(engine, shop, tmp_path, name=name, place=Place(1, 2), **marks) as second,
    ):
        for image in (one, two, three):
            await first.ensure_image(image)
        await second.ensure_image(one)
        for worker in (second, first, second):
            await worker.cleaner.remember()
        looks = await asyncio.gather(first.cleaner.look(), second.cleaner.look())
        assert any(looks)
        assert [shop.has(image) for image in (one, two, three)] == [True, False, True]


@pytest.fixture
def fresh_engine() -> Iterator[str]:
    """One without images: layers that those of others share may be of ours, for all that an engine tells."""
    if os.geteuid() != 0:
        missing("a container engine of one's own needs root")
    with private_engine() as host:
        yield host


async def test_layers_that_several_images_share_are_counted_once(
    fresh_engine: str, own_server: Callable[..., Server], tmp_path: Path
) -> None:
    with opened_shop(fresh_engine, own_server) as shop:
        base = shop.push("base", 1_000_000)
        shop.client.pull(base, auth_config=LOGIN)
        built = []
        for name in ("one", "two", "three"):
            image = f"{shop.registry.url}/shop/{name}:1"
            dockerfile = io.BytesIO(f"FROM {base}\nLABEL name={name}\nENV name={name}".encode())
            for line in shop.client.build(fileobj=dockerfile, tag=image, decode=True, rm=True):
                assert "error" not in line, line
            built.append(shop.sold(image))
        shop.client.remove_image(base)
        async with node(fresh_engine, shop, tmp_path, high=2_000_000, low=90) as driver:
            for image in built:
                await driver.ensure_image(image)
            assert sum(shop.client.inspect_image(image)["Size"] for image in built) > 3_000_000
            assert await driver.cleaner.look()
            assert all(map(shop.has, built))


async def test_starts_beside_removals_of_their_image_pull_it_again(
    engine: str, shop: Shop, tmp_path: Path
) -> None:
    """The other node's view of what is there is always too old, and its containers are gone in between."""
    image = shop.push("one", 1000)
    async with node(engine, shop, tmp_path) as driver, node(engine, shop, tmp_path) as other:
        removed = 0

        async def start(on: DockerDriver) -> None:
            await on.ensure_image(image)
            await (await on.start(spec(image), bytearray().extend)).remove()

        async def remove() -> None:
            nonlocal removed
            await driver.cleaner.remember()
            await driver.cleaner.look()
            removed += not shop.has(image)

        async with asyncio.timeout(LIMIT * 4):
            await start(driver)
            while removed < 5:
                await asyncio.gather(start(other), remove(), start(driver))
                await remove()


async def test_a_pull_makes_room_by_itself(
    engine: str, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_cleaner, "GAP", 0.0)
    one, two = shop.push("one"), shop.push("two")
    async with node(engine, shop, tmp_path, high=SIZE * 3 // 2, low=90) as driver, asyncio.timeout(LIMIT):
        await driver.ensure_image(one)
        await driver.ensure_image(two)
        while shop.has(one):
            await asyncio.sleep(0.05)
        assert shop.has(two)


async def test_without_a_mark_nothing_is_removed_and_nothing_written(
    engine: str, shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(images, "CHECKED", 0.0)
    image = shop.push("one")
    async with node(engine, shop, tmp_path / "images", high=0) as driver:
        await driver.ensure_image(image)
        await driver.ensure_image(image, ALWAYS)
        assert shop.has(image)
    assert os.listdir(tmp_path) == []
