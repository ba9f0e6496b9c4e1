"""Containers of a Docker-compatible engine.

No thread is bound to a container: its output comes over an attached socket that the event loop reads,
and the end of that stream says that it is time to ask how the container ended.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from docker.errors import APIError, ImageNotFound

from runner_node.drivers import io_dirs
from runner_node.drivers.contract import Capabilities, Container, ContainerDriver, ContainerSpec, Sink
from runner_node.drivers.credentials import Credentials
from runner_node.drivers.docker_container import DockerContainer, start_error
from runner_node.drivers.engine import Engine, open_engine, words
from runner_node.drivers.holder import Holder
from runner_node.drivers.holders import Holders, networks
from runner_node.drivers.image_cleaner import ImageCleaner
from runner_node.drivers.image_use import ImageUse
from runner_node.drivers.images import Images
from runner_node.drivers.leftovers import Leftovers
from runner_node.drivers.output import Output
from runner_node.drivers.prefork import Prefork
from runner_node.drivers.settings import DriverSettings
from runner_node.drivers.spec import create_body, node_labels
from runner_node.drivers.talk import Talk
from runner_node.loops import looping
from shared_models import errors
from shared_models.background import beside
from shared_models.image_policy import MISSING
from shared_models.workers import ALONE, Place

VANISHING = 3
"""Tries of one start whose image is removed each time before the engine comes to it."""
_HALF_REMOVED = "layer does not exist"
"""What dockerd says of an image that it removes while it makes a container of it."""


class DockerDriver(ContainerDriver):
    """Made by ``open_docker``."""

    capabilities = Capabilities(freeze=True, isolates=True)

    def __init__(
        self, engine: Engine, settings: DriverSettings, node_id: str, folder: str, place: Place = ALONE
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._name = place.name(node_id)
        self._folder = folder
        credentials = Credentials(settings.docker_auth, settings.docker_config)
        use = ImageUse(on=bool(settings.image_clean_max_size))
        self._images = Images(engine, settings.pull_timeout, credentials, use)
        self._in_use: Counter[str] = Counter()
        """Images of the containers that are here."""
        self._on_network: Counter[str] = Counter()
        self._hostname = socket.gethostname()
        self._containers: set[DockerContainer] = set()
        self._leftovers = Leftovers(engine, node_id, place)
        self._holders = Holders(
            engine,
            settings,
            self._images,
            labels=node_labels(settings, self._name),
            hostname=self._hostname,
            left=self._leftovers.add,
        )
        self.prefork = Prefork(
            settings.prefork_pool_size, networks(settings), self._holders.make, self._holders.end
        )

        self.cleaner = ImageCleaner(engine, self._images, settings, lambda: set(+self._in_use))
        self.pulse = self.cleaner.pulse

    async def ping(self) -> None:
        try:
            await self._engine.call(lambda client: client.ping())
        except APIError as exc:
            raise errors.EngineUnavailable(detail=words(exc)) from exc
        await self._leftovers.look()

    async def ensure_image(self, image: str, pull: str = MISSING) -> None:
        await self._images.ensure(image, pull)

    async def start(self, spec: ContainerSpec, sink: Sink, talk: Sink | None = None) -> Container:
        network = min(self._settings.networks, key=self._on_network.__getitem__, default="")
        with self.prefork.start():
            holder = self.prefork.take(network)
            if holder and (joined := await self._start(spec, sink, talk, network, holder)):
                self.prefork.joined()
                return joined
            started = await self._start(spec, sink, talk, network, None)
            assert started is not None
            return started

    async def _start(
        self, spec: ContainerSpec, sink: Sink, talk: Sink | None, network: str, holder: Holder | None
    ) -> DockerContainer | None:
        """None when it was not to be joined with *holder*; everything is then as before."""
        self._on_network[network] += 1
        container = DockerContainer(
            self._engine,
            spec.id,
            "" if spec.stdio else io_dirs.make(os.path.join(self._folder, spec.id)),
            Output(sink, Talk(talk) if spec.stdio else None),
            on_removed=lambda: self._forget(container, spec.image, network, holder),
        )
        self._containers.add(container)
        self._in_use[spec.image] += 1
        body = create_body(
            spec,
            self._settings,
            node_id=self._name,
            io_dir=self._seen_by_engine(container.io_dir),
            hostname=self._hostname,
            network=network,
            holder=holder.name if holder else "",
        )
        try:
            await self._run(container, spec, body)
        except APIError as exc:
            if holder and await self.prefork.refused(holder, words(exc)):
                container.disown_output()
                await container.remove()
                return None
            await container.remove()
            raise start_error(exc) from exc
        except (errors.EngineUnavailable, asyncio.CancelledError):
            # The engine may make it yet.
            self._leftovers.add(spec.id)
            await asyncio.shield(container.remove())
            raise
        except BaseException:
            await asyncio.shield(container.remove())
            raise
        return container

    async def _run(self, container: DockerContainer, spec: ContainerSpec, body: dict[str, Any]) -> None:
        for attempt in range(VANISHING):
            try:
                await container.start(body)
                break
            except APIError as exc:
                vanished = isinstance(exc, ImageNotFound) or _HALF_REMOVED in words(exc)
                if not vanished or attempt == VANISHING - 1 or not await self._images.again(spec.image):
                    raise
        if spec.stdio:
            await container.until_healthy()

    def _forget(self, container: DockerContainer, image: str, network: str, holder: Holder | None) -> None:
        self._containers.discard(container)
        self._in_use[image] -= 1
        self._images.use.note(image)
        self._on_network[network] -= 1
        if not container.gone:
            self._leftovers.add(container.id)
        if holder:
            self.prefork.discard(holder)

    async def close(self) -> None:
        """Removes the containers that are left, and gives up pulls."""
        await asyncio.gather(*(container.remove() for container in self._containers), self._images.close())
        await self.prefork.close()

    def _seen_by_engine(self, io_dir: str) -> str:
        if not io_dir or not self._settings.iofs_docker_path:
            return io_dir
        root = os.path.abspath(self._settings.iofs_path) if self._settings.iofs_path else self._folder
        return os.path.join(self._settings.iofs_docker_path, os.path.relpath(io_dir, root))

    async def sweep(self) -> None:
        """Removes what earlier runs left; see ``Leftovers.sweep``."""
        await self._leftovers.sweep(
            lambda: {container.id for container in self._containers} | self._holders.names
        )


@asynccontextmanager
async def open_docker(
    settings: DriverSettings, node_id: str, place: Place = ALONE
) -> AsyncIterator[ContainerDriver]:
    """A driver on the engine at ``settings.docker_host``, which need not be there yet.

    Raises ValueError for certificates that cannot be used.
    """
    with (
        io_dirs.node_folder(settings.iofs_path, place.name(node_id)) as folder,
        open_engine(settings.docker_host, settings.engine_timeout, settings.engine_certs()) as engine,
    ):
        driver = DockerDriver(engine, settings, node_id, folder, place)
        try:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(beside(driver.sweep(), "sweep containers"))
                await stack.enter_async_context(looping(driver.prefork.fill, "prefork"))
                if settings.image_clean_max_size:
                    stack.push_async_callback(driver.cleaner.remember)
                    await stack.enter_async_context(looping(driver.cleaner.clean, "image cleaner"))
                yield driver
        finally:
            await driver.close()
